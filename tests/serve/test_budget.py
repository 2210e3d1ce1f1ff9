"""The field `budget`: at most so many candidates, and as near to it as the search can come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stepreward.core.catalog import search
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.method import Method
from stepreward.core.runtime.flows import Flow, Propose
from stepreward.core.types import Problem
from stepreward.core.vocabulary import NoDraws, Rounds
from stepreward.serve.gateway.planning import MOST, ROOM, plan, require_affordable
from stepreward.serve.requests.request_schemas import ChatRequest


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


def request_for(model: str) -> ChatRequest:
    return ChatRequest.model_validate({"model": model, "messages": [{"role": "user", "content": "?"}]})


def _settings() -> list[tuple[str, dict[str, int]]]:
    """Each search with each of its whole-number settings at its most, alone and beside another."""
    made = []
    for method in search:
        names = [name for name, value in method.settings.items() if type(value) is int]
        for name in names:
            made += [(method.name, {name: MOST, **more}) for more in ({}, *({o: 1000} for o in names if o != name))]
    return made


@pytest.mark.parametrize(("name", "settings"), _settings(), ids=str)
def test_no_settings_set_up_more_than_a_request_may_have(name: str, settings: dict[str, int]) -> None:
    """Whatever they are, they are refused at once, or no round asks for more than a few times the samples allowed."""
    samples, method = 64, search[name]
    query = "&".join(f"{key}={value}" for key, value in settings.items())
    body = ChatRequest.model_validate(
        {"messages": [{"role": "user", "content": "?"}], "model": f"policy:{name}?{query}"}
    )
    try:
        made = plan(body, "policy", "beam", {}, samples)
    except InputError:
        return
    flow = method.take({"problem": Problem("p", "q"), "key": Key.seed(1)}, **made.settings)
    try:
        asked = next(flow)
    except ValueError:  # the method's own word on its settings
        return
    assert sum(question.n for question in asked if isinstance(question, Propose)) <= ROOM * samples


@pytest.mark.parametrize(
    "asked", ["dvts?trees=100000&width=1000", "beam?beams=100000&width=1000", "elo?n=4096", "ets?solver_seconds=1e6"]
)
def test_settings_that_would_hold_up_all_others_are_refused(asked: str) -> None:
    with pytest.raises(InputError, match=r"more than|at most"):
        plan(
            ChatRequest.model_validate({"messages": [{"role": "user", "content": "?"}], "model": f"policy:{asked}"}),
            "policy",
            "beam",
            {},
        )


def test_what_settings_draw_is_declared_in_their_types_not_guessed_from_their_names() -> None:
    def own(problem: Problem, key: Key, *, max_steps: int = 4, waves: Rounds = 2, patience: NoDraws = 3) -> Flow[None]:
        """A search of a plug-in, one of whose settings has the name of a limit but is none."""
        yield []

    method = Method("search", "own", own, "", note="a test")
    require_affordable(method, {"max_steps": 128, "waves": 64, "patience": MOST}, 64)
    with pytest.raises(InputError, match=r"max_steps=129 \* waves=2 has up to 129 candidates, pairs or rounds"):
        require_affordable(method, {"max_steps": ROOM * 64 + 1, "waves": 2}, 64)
    with pytest.raises(InputError, match="up to 65 candidates, pairs or rounds, more than 64"):
        require_affordable(method, {"waves": 65}, 64)
