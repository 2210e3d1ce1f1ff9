"""How much the server takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most that is taken on."""

    running: int = 64
    """Requests worked on at once."""
    waiting: int = 128
    """Requests that wait for a place; one more is turned away."""
    body_bytes: int = 4 << 20
    """Of a request."""
    body_seconds: float = 30.0
    """For a request's body to come, all of it; also for a client to take what it is sent."""
    head_seconds: float = 10.0
    """For a request's line and headers to come, all of them; a connection that asks nothing is closed then."""
    connections: int = 832
    """Open at once; of more, idle ones are closed, or the new one is told to come back."""
    seconds: float = 300.0
    """Of work on a request, its wait included; a client may ask for less."""
    stuck_seconds: float = 60.0
    """Without an answer of the policy or the scorer, all of whose places are taken, after which /health says so."""
    generated_tokens: int = 1_000_000
    """Generated for a request."""
    samples: int = 4096
    """Continuations asked for a request."""

    def __post_init__(self) -> None:
        if self.waiting < 0 or min(value for name, value in vars(self).items() if name != "waiting") <= 0:
            raise ValueError("limits must be positive; waiting may be 0")
