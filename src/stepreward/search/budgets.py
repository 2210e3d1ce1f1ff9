"""The unit of a search's budget, and the settings that spend at most so many: declared where a search is registered.

Each function takes the budget, all settings, and the settings that the user gave. The number of candidates never
exceeds the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from stepreward.core.method import Allotment

Settings = Mapping[str, Any]
SOLUTIONS, STEPS, WALKS = "solutions", "samples of a step", "walks from the root"
_WIDTH = 4
"""Most samples of each candidate, where the user does not say it: more candidates are worth more than more samples."""


def _set(name: str, budget: int, settings: Settings, given: Settings) -> dict[str, Any]:
    return {name: budget}


samples = Allotment(SOLUTIONS, partial(_set, "n"))
"""`n` whole solutions."""
attempts = Allotment(SOLUTIONS, partial(_set, "attempts"))
"""Attempts one after another."""
particles = Allotment(STEPS, partial(_set, "n"))
"""`n` solutions that grow together."""
width = Allotment(STEPS, partial(_set, "width"))
"""`width` samples of each step."""
walks = Allotment(WALKS, partial(_set, "simulations"))
"""Simulations of a tree search: each expands at most one node, by `width` samples of its next step."""


def _several(kept: str, budget: int, settings: Settings, given: Settings) -> dict[str, Any]:
    most = min(budget, int(given.get("width", min(_WIDTH, settings["width"]))))
    # Of the widths down to half of that, the one which wastes least of the budget; the widest of equals.
    chosen = max(range((most + 1) // 2, most + 1), key=lambda w: (budget // w * w, w))
    return {kept: budget // chosen, "width": chosen}


def several(kept: str, unit: str = STEPS) -> Allotment:
    """`width` samples of each of `kept`, the setting that counts what is sampled from.

    Args:
        kept: name of that setting.
        unit: what a sample is.
    """
    return Allotment(unit, partial(_several, kept))


def _sweeps(budget: int, settings: Settings, given: Settings) -> dict[str, Any]:
    # A sweep after the first keeps one solution of the last, and needs two.
    made = max(1, min(int(settings["sweeps"]), budget // 2))
    return {"n": budget // made, "sweeps": made}


sweeps = Allotment(SOLUTIONS, _sweeps)
"""`n` particles of each of several sweeps."""


def _drafts(budget: int, settings: Settings, given: Settings) -> dict[str, Any]:
    rounds = min(int(settings["rounds"]), budget - 1)
    return {"n": budget // (1 + rounds), "rounds": rounds}


drafts = Allotment(SOLUTIONS, _drafts)
"""`n` drafts, each of which may be rewritten `rounds` times."""


def _requests(budget: int, settings: Settings, given: Settings) -> dict[str, Any]:
    wanted = [name for name in ("global_request", "local_request") if settings[name]]
    # At least one draft: a budget of b leaves room for b - 1 requests.
    kept = wanted[: budget - 1]
    return {"n": budget // (1 + len(kept)), **{name: "" for name in wanted if name not in kept}}


requests = Allotment(SOLUTIONS, _requests)
"""`n` drafts and, of each, one solution for each request; a budget too small for both leaves requests out."""


def _cuts(budget: int, settings: Settings, given: Settings) -> dict[str, Any]:
    again = min(int(settings["again"]), max(1, budget // 2))
    rounds = budget // (2 * again)
    return {"n": budget - rounds * again, "rounds": rounds, "again": again}


cuts = Allotment(SOLUTIONS, _cuts)
"""Half for the first `n` solutions, half for `again` samples from each of `rounds` cuts."""
