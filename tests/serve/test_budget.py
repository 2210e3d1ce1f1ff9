"""The field `budget`: at most so many candidates, and as near to it as the search can come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import stepreward.search  # noqa: F401  registers
from stepreward.core.catalog import Method, search
from stepreward.serve.planning import plan
from stepreward.serve.shapes import ChatRequest


def asked(settings: Mapping[str, Any]) -> int:
    """Solutions that a search samples, or continuations of a step, or walks: its candidates."""
    if "sweeps" in settings:
        return int(settings["n"]) * int(settings["sweeps"])
    if "again" in settings:
        return int(settings["n"]) + int(settings["rounds"]) * int(settings["again"])
    if "rounds" in settings and "n" in settings:
        return int(settings["n"]) * (1 + int(settings["rounds"]))
    if "local_request" in settings:
        return int(settings["n"]) * (1 + bool(settings["local_request"]) + bool(settings["global_request"]))
    kept = next((settings[name] for name in ("beams", "trees", "rounds", "n") if name in settings), 1)
    return int(settings.get("simulations", settings.get("attempts", int(kept) * int(settings.get("width", 1)))))


@pytest.mark.parametrize("method", list(search), ids=lambda m: m.name)
def test_no_more_candidates_than_the_budget_and_nearly_as_many(method: Method[..., Any]) -> None:
    for budget in range(1, 33):
        request = ChatRequest.model_validate(
            {"model": f"m:{method.name}", "messages": [{"role": "user", "content": "?"}], "budget": budget}
        )
        made = {**method.settings, **plan(request, "m", "beam", {}).settings}
        count = asked(made)
        # A conditional sweep needs two particles, and a draft that is mended is two or three solutions.
        least = asked({**made, "n": 2 if "sweeps" in made else 1}) if "n" in made and "width" not in made else 1
        assert count <= max(budget, least), (budget, made)
        assert count > budget - max(least, budget / 4 + 1), (budget, made)


@pytest.mark.parametrize(
    ("name", "budget", "settings"),
    [
        ("beam", 7, {"beams": 2, "width": 3}),
        ("beam", 8, {"beams": 2, "width": 4}),
        ("particle-gibbs", 8, {"n": 4, "sweeps": 2}),
        ("omega", 8, {"n": 4, "rounds": 2, "again": 2}),
    ],
)
def test_budgets_worked_out(name: str, budget: int, settings: dict[str, int]) -> None:
    request = ChatRequest.model_validate(
        {"model": f"m:{name}", "messages": [{"role": "user", "content": "?"}], "budget": budget}
    )
    assert dict(plan(request, "m", "beam", {}).settings) == settings
