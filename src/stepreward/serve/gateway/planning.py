"""The search and settings of a request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from stepreward.core.catalog import search as searches
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.method import Method
from stepreward.core.settings_text import read_settings
from stepreward.core.vocabulary import Draws
from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.requests.request_schemas import ChatRequest
from stepreward.serve.server_limits import Limits

MOST = 100_000
"""Largest whole-number setting. Spending is limited elsewhere; this keeps loops short."""
ROOM = 2
"""Most candidates of a round, as a multiple of the samples that a request may have."""


@dataclass(frozen=True)
class Plan:
    """A search with its settings."""

    method: Method[..., Any]
    settings: Mapping[str, Any]


def names(name: str) -> list[str]:
    """Every name under which clients can request a policy."""
    return [name, *(f"{name}:{method.name}" for method in searches)]


def plan(
    request: ChatRequest, name: str, method: str, settings: Mapping[str, Any], samples: int = Limits.samples
) -> Plan:
    """The search of a request.

    The model's suffix is read first, then the field `stepreward`, then `budget`; later ones override earlier ones.

    Args:
        request: the request.
        name: under which the policy is served.
        method, settings: the default search.
        samples: most continuations of a request.

    Raises:
        ApiError: 404, there is no such model.
        InputError: a setting does not fit, or the requested search cannot run.
        UnknownNameError: there is no such search or setting.
    """
    suffix, given = _suffix(request.model, name)
    chosen = searches[request.stepreward.method or suffix or method]
    own = dict(settings) if chosen.name == method else {}
    # JSON's true is `true` in a setting's text, as on the command line.
    named = [(k, str(v).lower() if isinstance(v, bool) else v) for k, v in request.stepreward.settings.items()]
    for pairs in (given, named):
        own |= read_settings([f"{key}={value}" for key, value in pairs], chosen)[0]
    if request.budget is not None:
        own |= chosen.within(request.budget, own)
    large = next((k for k, v in own.items() if isinstance(v, int) and v > MOST), None)
    if large is not None:
        raise InputError(f"setting {large!r} may be at most {MOST:,}, got {own[large]:,}")
    require_affordable(chosen, {**chosen.settings, **own}, samples)
    return Plan(chosen, own)


def require_affordable(method: Method[..., Any], settings: Mapping[str, Any], samples: int) -> None:
    """Refuses a search whose rounds are far larger than a request's samples.

    All searches share one thread: setting up candidates that are never drawn would take time and memory from all other
    requests. The bound is the product of the settings that multiply candidates; in a search that compares them, pairs
    count in place of candidates.

    Args:
        method: the search.
        settings: all of its settings.
        samples: most continuations of a request.

    Raises:
        InputError: it is too large, or could block that thread for longer than by default.
    """
    counts = {k: v for k, v in settings.items() if type(v) is int and v > 1 and method.draws(k) is not Draws.NONE}
    together = [v for k, v in counts.items() if method.draws(k) is Draws.TOGETHER]
    pairs = counts.get("n", 1) // 4 + 1 if "judge" in method.asks else 1
    whole = math.prod(together) * pairs
    turns = max((v for k, v in counts.items() if method.draws(k) is Draws.IN_TURN), default=0)
    if whole > ROOM * samples or turns > samples:
        counted = " * ".join(f"{name}={value}" for name, value in counts.items())
        raise InputError(
            f"{method.name} with {counted} has up to {max(whole, turns):,} candidates, pairs or rounds, more than "
            f"{ROOM * samples if whole > ROOM * samples else samples:,}",
            remedy=f"lower them: this server draws at most {samples:,} samples for a request",
        )
    for name, value in settings.items():
        if name.endswith("seconds") and value > method.settings[name]:
            raise InputError(f"setting {name!r} may be at most {method.settings[name]} here, got {value}")


def _suffix(model: str, name: str) -> tuple[str, list[tuple[str, str]]]:
    """The method and settings after a served name."""
    if model == name:
        return "", []
    if not model.startswith(f"{name}:"):
        raise ApiError(404, str(UnknownNameError("model", model, names(name))), param="model", code="model_not_found")
    method, _, query = model.removeprefix(f"{name}:").partition("?")
    return method, parse_qsl(query, keep_blank_values=True)
