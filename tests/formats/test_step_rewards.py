"""The step-reward contract: what is written is valid by the schema, and what is read is what was written."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stepreward import formats
from stepreward.cli.app import app
from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.formats.registry import by_name
from stepreward.formats.samples.step_rewards import VERSION, schema
from tests.effort import scaled

from .examples import EXAMPLES, one

ROOT = Path(__file__).parents[2]
FORM = by_name("step-rewards")
VALIDATOR = jsonschema.Draft202012Validator(schema())
NAN = float("nan")


def write(item: Trajectory, **options: Any) -> dict[str, Any]:
    assert FORM.write
    row = FORM.write(item, **options)
    VALIDATOR.validate(row)
    # Strict JSON: NaN is no value of it.
    return dict(json.loads(json.dumps(row, allow_nan=False)))


def read(row: dict[str, Any], **options: Any) -> Trajectory:
    (item,) = FORM.read(row, 1, **options)
    assert isinstance(item, Trajectory)
    return item


def test_the_schema_is_one_and_is_published_with_the_repository() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads((ROOT / "schemas" / "step-rewards.json").read_text()) == schema()
    assert schema()["properties"]["schema"]["const"] == VERSION


@pytest.mark.parametrize("number", range(3))
def test_examples_are_valid_and_come_back_as_they_were(number: int) -> None:
    row = EXAMPLES["step-rewards"][number]
    VALIDATOR.validate(row)
    again = write(read(row))
    assert again == {"rewards": "reward", "terminal": True} | row


def test_null_is_nan_and_not_zero_and_the_outcome_stays_raw() -> None:
    item = one("step-rewards", 1)
    np.testing.assert_array_equal(item.columns["reward"], [NAN, NAN, 0.0])
    assert np.isnan(item.outcome)
    assert item.facts["raw_outcome"] == -1.5
    assert one("step-rewards", 1, scale=-1.5 * -2).facts["raw_outcome"] == -1.5
    half = {**EXAMPLES["step-rewards"][0], "outcome": 2.0}
    assert read(half, scale=4.0).outcome == 0.5
    assert write(read(half, scale=4.0))["outcome"] == 2.0


def test_spans_give_each_step_its_tokens_and_gaps_stay_gaps() -> None:
    assert [step.tokens for step in one("step-rewards", 0).steps] == [(5, 6, 7), (8, 9, 10)]
    item = one("step-rewards", 1)
    assert [step.tokens for step in item.steps] == [(1, 2), (4, 5), (6, 7)]
    assert [step.meta["span"] for step in item.steps] == [[0, 2], [3, 5], [5, 7]]
    assert item.steps[2].meta["trainable"] is False


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
number = st.none() | finite
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    size = draw(st.integers(1, 5))
    tokened = draw(st.booleans())
    steps = []
    for _ in range(size):
        acts = draw(st.booleans())
        tokens = tuple(draw(st.lists(st.integers(0, 9), max_size=3))) if tokened else None
        logprobs = None if tokens is None or draw(st.booleans()) else tuple(-float(token) for token in tokens)
        meta = draw(st.dictionaries(st.sampled_from(["a", "b"]), st.integers(), max_size=2))
        if acts and draw(st.booleans()):
            meta["trainable"] = False
        steps.append(
            Step(draw(texts), "action" if acts else "observation", "assistant" if acts else "tool",
                 draw(st.none() | st.sampled_from(["x", "y"])), tokens=tokens, logprobs=logprobs, meta=meta)
        )  # fmt: skip
    acting = np.array([step.kind == "action" for step in steps])
    columns = {
        name: np.where(acting | (name == "value"), [draw(st.just(NAN) | finite) for _ in steps], NAN)
        for name in draw(st.sampled_from([("reward",), ("score", "value"), ("reward", "label", "score")]))
        if name != "label"
    }
    outcome = draw(st.just(NAN) | st.floats(0, 1))
    chat = draw(st.booleans())
    prompt = ({"role": "user", "content": draw(texts)},) if chat else draw(texts)
    who = (Provenance("prm", "m", seed=3, settings={"k": 1}, what=tuple(columns)),)
    problem = Problem(draw(texts), prompt, draw(st.none() | texts), draw(st.sampled_from([{}, {"level": 2}])))
    return Trajectory(
        problem, tuple(steps), outcome, draw(st.booleans()), draw(st.none() | texts), draw(st.none() | st.just(-1)),
        columns, draw(st.sampled_from([{}, {"seen": [1, "x"]}, {"raw_outcome": 7.5, "rollout": "r1"}])), who,
    )  # fmt: skip


@settings(max_examples=scaled(200), deadline=None)
@given(item=trajectories())
def test_every_trajectory_is_written_valid_and_read_the_same(item: Trajectory) -> None:
    again = read(write(item))
    assert again.problem == item.problem
    assert dict(again.problem.meta) == dict(item.problem.meta)
    assert again.steps == item.steps
    assert [(dict(step.meta), step.logprobs) for step in again.steps] == [
        (dict(step.meta), step.logprobs) for step in item.steps
    ]
    assert (again.terminal, again.answer, again.first_error) == (item.terminal, item.answer, item.first_error)
    assert dict(again.facts) == dict(item.facts)
    assert again.provenance == item.provenance
    assert again.columns.keys() == item.columns.keys()
    for name, values in item.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
    if "raw_outcome" not in item.facts:
        np.testing.assert_array_equal(again.outcome, item.outcome)


def test_a_turn_joins_the_steps_between_observations_and_says_what_it_is_rewarded() -> None:
    acts = [Step("a\n", tokens=(1, 2)), Step("b\n", tokens=(3,)), Step("c", tokens=(4,))]
    seen = Step("hall", "observation", "tool", tokens=(5, 6))
    steps = (*acts[:2], seen, acts[2], Step("d", agent="other", tokens=(7,)))
    rewards = np.array([0.5, 0.25, NAN, NAN, 1.0])
    item = Trajectory(Problem("p", "?"), steps, 1.0, first_error=3, columns={"score": rewards, "value": np.arange(5.0)})
    row = write(item, aligned="turn")
    assert (row["aligned"], row["first_error"]) == ("turn", 2)
    assert [step["span"] for step in row["steps"]] == [[0, 3], [3, 5], [5, 6], [6, 7]]
    assert [step["text"] for step in row["steps"]] == ["a\nb\n", "hall", "c", "d"]
    assert [step["reward"] for step in row["steps"]] == [0.75, None, None, 1.0]
    assert [step["data"]["value"] for step in row["steps"]] == [1, 2, 3, 4]
    for how, first in (("mean", 0.375), ("min", 0.25), ("last", 0.25)):
        assert write(item, aligned="turn", turn_reward=how)["steps"][0]["reward"] == first
    # Turns are turns for ever: none is joined to the next.
    assert write(read(row)) == row


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (("steps", 0, "span"), [0, 9], "'span' of step 0 is 0 to 9"),
        (("steps", 1, "span"), [2, 6], "after a step that ends at 3"),
        (("steps", 0, "span"), [3, 0], "order the spans"),
        (("steps", 0, "span"), [True, 2], "two whole numbers"),
        (("steps", 1, "text"), None, "step 1 has no text"),
        (("steps", 1, "kind"), "observation", "an observation with a reward"),
        (("steps", 0, "logprobs"), [-1.0], "3 'tokens' and 1 'logprobs'"),
        (("schema",), "stepreward/step-rewards/2", "is not stepreward/step-rewards/1"),
        (("aligned",), "token", "'aligned' must be step or turn"),
        (("rewards",), "outcome", "names of fields"),
        (("tokens",), ["a"], "'tokens' must be"),
        (("steps", 0, "reward"), "high", "'score' of a step must be a number, or null"),
        (("steps", 1, "data", "advantage"), True, "'advantage' of a step must be a number, or null"),
    ],
)
def test_what_does_not_fit_is_named(at: tuple[Any, ...], value: Any, message: str) -> None:
    row = copy.deepcopy(EXAMPLES["step-rewards"][0])
    holder: Any = row
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = value
    with pytest.raises(InputError, match=message):
        read(row)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("steps", 0, "reward"), "high"), (("steps", 0, "span"), [1]), (("steps", 0, "span"), [-1, 2]),
        (("steps", 0, "kind"), "turn"), (("outcome",), "won"), (("schema",), "stepreward/step-rewards/0"),
        (("aligned",), None), (("steps",), []), (("surprise",), 1),
    ],
)  # fmt: skip
def test_the_schema_refuses(at: tuple[Any, ...], value: Any) -> None:
    row = copy.deepcopy(EXAMPLES["step-rewards"][0])
    holder: Any = row
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = value
    assert not VALIDATOR.is_valid(row)


def test_the_schema_refuses_an_observation_that_is_rewarded_or_trained_on() -> None:
    row = copy.deepcopy(EXAMPLES["step-rewards"][1])
    for name, value in (("reward", 0.0), ("trainable", True)):
        bad = copy.deepcopy(row)
        bad["steps"][1][name] = value
        assert not VALIDATOR.is_valid(bad)


def test_the_column_of_rewards_is_chosen_or_asked_for() -> None:
    item = Trajectory(Problem("p", "?"), (Step("a"),), columns={"score:a": np.ones(1), "score:b": np.zeros(1)})
    with pytest.raises(InputError, match="several columns of scores: score:a, score:b"):
        write(item)
    assert write(item, reward="score:b")["steps"][0] == {
        "kind": "action", "role": "assistant", "text": "a", "reward": 0.0, "trainable": True, "data": {"score:a": 1.0}
    }  # fmt: skip
    with pytest.raises(InputError, match="no step column 'mine'"):
        write(item, reward="mine")


def test_commands_read_and_write_the_contract(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    steps = (Step("1 + 1 = 2\n"), Step("2 + 2 = 5\n"))
    formats.write(table, [Trajectory(Problem("p", "1 + 1, then 2 more?"), steps, 0.0)], "stepreward")
    scored, contract, back = tmp_path / "scored.parquet", tmp_path / "contract.jsonl", tmp_path / "back.parquet"
    assert (
        CliRunner().invoke(app, ["score", "--data", str(table), "--model", "tool", "--out", str(scored)]).exit_code == 0
    )
    assert CliRunner().invoke(app, ["convert", str(scored), str(contract), "--to", "step-rewards"]).exit_code == 0
    (row,) = map(json.loads, contract.read_text().splitlines())
    VALIDATOR.validate(row)
    assert [step["reward"] for step in row["steps"]] == [1.0, 0.0]
    # Every verb reads it: scored once more under another name, it is a table again.
    named = ["--model", "tool", "--column", "score:again"]
    assert CliRunner().invoke(app, ["score", "--data", str(contract), *named, "--out", str(back)]).exit_code == 0
    (item,) = formats.read(back)
    assert item.columns["score"].tolist() == item.columns["score:again"].tolist() == [1.0, 0.0]


def test_the_page_of_the_contract_lists_every_key() -> None:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec
    assert spec.loader
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.step_rewards_page((ROOT / "docs" / "step-rewards.md").read_text(encoding="utf-8"))
    for name in (*schema()["properties"], *schema()["$defs"]["step"]["properties"]):
        assert f"| `{name}` |" in page
