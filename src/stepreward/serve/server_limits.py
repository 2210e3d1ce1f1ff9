"""The server's limits, and what it does where a monitor would stop a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from stepreward.core.vocabulary import Count, Flag

OnStop = Literal["tell", "answer", "refuse"]
"""Answer it all the same and say so in a header; answer that it was stopped, without a call; or refuse it with 403."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server."""

    running: Count = 64
    """Requests that run at once."""
    waiting: Annotated[int, Flag(low=0)] = 128
    """Requests that may wait; more get status 429."""
    body_bytes: Annotated[int, Flag("--max-body", low=1)] = 4 << 20
    """Most bytes of a request."""
    body_seconds: Annotated[float, Flag(hidden=True)] = 30.0
    """Seconds for a whole body to arrive; also for a client to read its answer."""
    head_seconds: Annotated[float, Flag(hidden=True)] = 10.0
    """Seconds for a request's line and headers to arrive; a connection without a request is closed then."""
    connections: Annotated[int, Flag(hidden=True)] = 832
    """Open connections; beyond them an idle one is closed, or the new one gets status 503."""
    seconds: Annotated[float, Flag("--max-seconds", low=0.1)] = 300.0
    """Most seconds for a request, its wait included; a client may allow less."""
    stuck_seconds: Annotated[float, Flag(hidden=True)] = 60.0
    """Seconds without an answer of the busy policy or scorer after which /health reports it."""
    generated_tokens: Annotated[int, Flag("--max-tokens", low=1)] = 1_000_000
    """Most tokens generated for a request."""
    samples: Annotated[int, Flag("--max-samples", low=1)] = 4096
    """Most continuations sampled for a request."""

    def __post_init__(self) -> None:
        if self.waiting < 0 or min(value for name, value in vars(self).items() if name != "waiting") <= 0:
            raise ValueError("limits must be positive; waiting may be 0")
