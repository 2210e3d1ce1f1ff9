"""Models as actions: questions in words and by calls, prices on the bill and in the reward, with a real server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepreward
from stepreward.core.catalog import shape
from stepreward.core.errors import InputError
from stepreward.core.runtime.acts import Act
from stepreward.core.runtime.answer_codec import decode, encode
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Problem, Step
from stepreward.environments.asking import AskedModel, AskingEpisodes, asked_costs, asked_of, models_of
from stepreward.environments.by_address import environment_at
from stepreward.policies.tabular import TabularPolicy
from tests.cli.running import invoke
from tests.environments.scripted_server import serving

PROBLEM = Problem("capital", "What is 6 * 7?", "42")


class Replying:
    """Repeats what it is asked."""

    batch_size, concurrency = 8, 1

    def __init__(self, name: str, tokens: int) -> None:
        self.name, self.tokens, self.asked = name, tokens, list[Propose]()

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        said = [Step(f"{self.name} on {q.problem.text}\n") for q in questions]
        return [[Continuation((step,), True, self.tokens, n_prompt_tokens=10)] for step in said]


def episodes(**how: int) -> tuple[AskingEpisodes, Replying, Replying]:
    small, large = Replying("small", 100), Replying("large", 1000)
    models = {"small": AskedModel(small, 1.0), "large": AskedModel(large, 10.0, 5.0, "knows much")}
    return AskingEpisodes(models, environment_at("tools"), **how), small, large


def along(pool: AskingEpisodes, turns: Sequence[str]) -> tuple[tuple[Step, ...], list[Any]]:
    steps: tuple[Step, ...] = ()
    made = []
    for turn in [None, *turns]:
        steps += () if turn is None else (Step(turn),)
        (shown,) = pool.act_many([Act(PROBLEM, steps)])
        steps += shown.steps
        made.append(shown)
    return steps, made


CALCULATE = '{"name": "calculate", "arguments": {"expression": "6 * 7"}}'


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Ask[small: why?]", ("small", "why?", "")),
        ("I wonder. ask [large:  what: now? ]\n", ("large", "what: now?", "")),
        ("Ask[a: x] or rather Ask[b: y]", ("b", "y", "")),
        ("Ask[a: x], no: Answer[7]", None),
        ('{"name": "ask", "arguments": {"model": "small", "question": "why?"}}', ("small", "why?", "")),
        (CALCULATE, None),
        ("Task[a] is: ask nobody", None),
    ],
)
def test_what_a_turn_asks(text: str, asked: tuple[str, str, str] | None) -> None:
    assert asked_of(Step(text)) == asked


def test_questions_are_answered_beside_what_the_environment_shows() -> None:
    pool, small, large = episodes()
    steps, made = along(pool, ["Ask[small: why?]", CALCULATE, "Ask[large: sure?]", "Answer: 42"])
    assert [step.text for step in steps if step.kind == "observation"][1:] == [
        "small on why?\n", "42", "large on sure?\n"
    ]  # fmt: skip
    assert "large, 10 a million tokens: knows much\n" in steps[0].text
    assert [one.done for one in made] == [False, False, False, False, True]
    # 100 tokens at 1 a million; 1000 at 10 and 10 read at 5.
    assert [one.cost for one in made] == pytest.approx([0, 1e-4, 0, 1.005e-2, 0])
    assert [one.tokens for one in made] == [0, 110, 0, 1010, 0]
    assert made[1].reward == pytest.approx(-1e-4)
    (again,) = pool.act_many([Act(PROBLEM, steps[:2])])
    assert (again.steps, again.cost, again.tokens) == (made[1].steps, 0.0, 0)
    assert (len(small.asked), len(large.asked)) == (1, 1)
    assert repr(decode(encode(made[1]))) == repr(made[1])


def test_unknown_models_and_too_many_questions_are_told() -> None:
    pool, small, _ = episodes(most=1, turns=3)
    steps, made = along(pool, ["Ask[huge: why?]", "Ask[small: why?]", "Ask[small: why?]"])
    said = [step.text for step in steps if step.kind == "observation"]
    assert said[1] == "There is no model huge; there are small, large.\n"
    # The question that was refused counts.
    assert said[2:] == ["All 1 questions are asked.\n"] * 2
    assert not small.asked
    assert [one.done for one in made] == [False, False, False, True]


def test_as_many_questions_are_answered_as_are_allowed_whatever_else_is_done() -> None:
    pool, small, _ = episodes(most=2, turns=9)
    _, shown = along(pool, ["Ask[small: a?]", CALCULATE, "Ask[small: b?]", CALCULATE, "Ask[small: c?]"])
    said = ["".join(step.text for step in one.steps) for one in shown[1:]]
    assert [text == "All 2 questions are asked.\n" for text in said] == [False, False, False, False, True]
    assert len(small.asked) == 2


def test_where_tools_are_declared_ask_is_one() -> None:
    pool, _, _ = episodes()
    names = [tool["function"]["name"] for tool in pool.prepared(PROBLEM).meta["tools"]]
    assert names == ["calculate", "ask"]


def test_cheap_right_answers_are_worth_more() -> None:
    """Costs enter the reward of Router-R1: of two right answers the dear one gets s (1 - w), the cheap one s."""

    def turns(problem: Problem, prefix: tuple[Step, ...]) -> list[tuple[Step, float, bool]]:
        if any(step.kind == "action" for step in prefix):
            return [(Step("Answer: 42"), 1.0, True)]
        return [(Step("Ask[small: 6 * 7?]"), 0.5, True), (Step("Ask[large: 6 * 7?]"), 0.5, True)]

    pool, _, _ = episodes()
    agent = stepreward.policy(TabularPolicy(turns, "router"), environment=pool)
    rows = stepreward.label([PROBLEM], policy=agent, grader="mathematics", method="math-shepherd", n=1, samples=8)
    assert len(rows) == 2
    by_model = {next(s.meta["asked_model"] for s in row.steps if "asked_model" in s.meta): row for row in rows}
    pair = [by_model["small"], by_model["large"]]
    costs = [asked_costs(row)[row.action] for row in pair]
    np.testing.assert_allclose(np.concatenate(costs), [1e-4, 0, 1.005e-2, 0])
    data = {
        "rewards": np.zeros(4), "outcome": np.array([row.outcome for row in pair]),
        "duration": np.concatenate(costs), "offsets": np.array([0, 2, 4]),
    }  # fmt: skip
    shaped = shape["router-r1"].take(data, weight=0.5, low=0.0, high=100.0)
    # Beside the outcome of 1, the last step gets R - s: R is (1 - w) + w of the cheap one, 1 - w of the dear one.
    np.testing.assert_allclose(shaped, [0, 0, 0, -0.5])


def test_servers_are_asked_from_the_command_line_and_billed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def agent(messages: list[dict[str, Any]], seed: int) -> str:
        if len(messages) == 1 and "Other models" not in messages[0]["content"]:
            return "It is 42.\n"
        return "Answer: 42\n" if "It is 42." in messages[-1]["content"] else "Ask[helper: What is 6 * 7?]\n"

    Path("problems.jsonl").write_text(json.dumps({"id": "p", "prompt": "What is 6 * 7?", "reference": "42"}) + "\n")
    with serving(agent) as (address, bodies):
        models = {"helper": {"policy": address, "price": 1000.0}}
        Path("asking.json").write_text(json.dumps({"environment": "tools", "models": models}))
        command = f"search --problems problems.jsonl --policy {address} --environment asking:asking.json"
        told = json.loads(invoke(f"{command} --method majority --samples 2 --out found.jsonl --json"))
        # The server reports 3 tokens of each answer and 5 of each prompt; both samples ask the same once.
        assert told["bill"]["asked_money"] == pytest.approx(0.003)
        assert told["bill"]["asked_tokens"] == 8
        assert told["accuracy"]["value"] == 1.0
        asked = sum(body["messages"][-1]["content"] == "What is 6 * 7?" for body in bodies)
        assert asked == 1
        poor = json.loads(invoke(f"{command} --method majority --samples 2 --max-money 0.001 --out poor.jsonl --json"))
        # One question is more than there is: no further turn is generated.
        assert poor["bill"]["generated_tokens"] < told["bill"]["generated_tokens"]
    again = json.loads(invoke(f"{command} --method majority --samples 2 --out found.jsonl --json"))
    assert again["bill"]["asked_money"] == 0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, "models to ask are"),
        ({"a": {"price": 1}}, "give it policy"),
        ({"a": {"policy": "x", "price": -1}}, "not negative"),
        ({"a:b": {"policy": "x"}}, "give it policy"),
    ],
)
def test_models_that_are_none_are_refused(row: Any, told: str) -> None:
    with pytest.raises(InputError) as error:
        models_of(row, lambda address: Replying(address, 1))
    assert told in f"{error.value}"


def test_a_file_that_states_no_environment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "asking.json"
    path.write_text('{"models": {}}')
    for place, told in ((path, "environment and models"), (tmp_path / "none.json", "names no models")):
        with pytest.raises(InputError, match=told):
            environment_at(f"asking:{place}", lambda address: Replying(address, 1))
