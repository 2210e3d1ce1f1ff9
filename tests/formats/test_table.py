"""The table of trajectories: every field comes back, as Parquet and as JSON lines, and what it refuses is named."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset  # type: ignore[import-untyped]

from stepreward import formats
from stepreward.core.errors import InputError
from stepreward.core.table import read_table, write_table
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.label.rollouts import labelled

STEPS = (
    Step("look\n", agent="a", images=("x.png", "data:y"), tokens=(1, 2), logprobs=(-0.5, -np.inf), meta={"k": [1, {}]}),
    Step("seen\n", "observation", "tool", meta={"tool_call_id": "t"}),
    Step("12", tokens=(), logprobs=()),
)
PROBLEMS = (
    Problem("p", "1 + 1?", "2", {"level": 3, "tests": ["a"], "nested": {"x": None}}),
    Problem("chat", ({"role": "system", "content": "be brief"}, {"role": "user", "content": "[{"})),
)


def item(problem: Problem) -> Trajectory:
    return Trajectory(
        problem,
        STEPS,
        0.25,
        terminal=False,
        first_error=2,
        answer="12",
        columns={
            "label": np.array([1.0, np.nan, 0.0]),
            "score": np.array([0.5, np.nan, 0.125]),
            "score:Qwen/PRM-7B": np.array([0.25, np.nan, np.nan]),
            "value": np.array([0.75, np.nan, 0.0]),
            "mine": np.array([1.0, 2.0, 3.0]),
        },
        facts={"total": 0.5, "subset": "sums", "list": [1, "a"]},
        provenance=(
            Provenance("mc", "model", "math", 2**64 - 1, {"n": 8}, ("label", "value")),
            Provenance("prm", what=("score",)),
            Provenance("log", what=()),
        ),
    )


def equal(one: Trajectory, other: Trajectory) -> None:
    assert one == other
    for name in ("provenance", "first_error", "answer", "facts"):
        assert getattr(one, name) == getattr(other, name), name
    # Equality of steps leaves their meta out.
    assert [dict(step.meta) for step in one.steps] == [dict(step.meta) for step in other.steps]
    assert one.problem.meta == other.problem.meta
    assert one.columns.keys() == other.columns.keys()
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other.columns[name])


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".json", ".jsonl.gz"])
def test_every_field_comes_back(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{ending}"
    items = [item(problem) for problem in PROBLEMS]
    assert formats.write(path, items, "stepreward", strict=True) == []
    for form in (None, "stepreward"):
        again = list(formats.read(path, form, strict=True))
        for one, other in zip(items, again, strict=True):
            equal(one, other)


def test_what_rollouts_measure_keeps_images_tokens_logprobs_meta_and_is_found_by_its_fields(tmp_path: Path) -> None:
    path, n = tmp_path / "labels.parquet", np.array([4, 4, 0])
    bare = Trajectory(PROBLEMS[0], STEPS, 1.0, columns={"score": np.ones(3)}, facts={"subset": "sums"})
    who = Provenance("bisection", "p", "g", 3, {"n": 4})
    made = labelled(bare, np.array([1.0, np.nan, 0.5]), n, n // 2, 0.75, who)
    assert write_table(path, [made]) == 1
    for again in (*read_table(path), *formats.read(path)):
        equal(again, made)
        assert dict(again.steps[0].meta) == {"k": [1, {}]}
        assert again.facts == {"subset": "sums", "root_value": 0.75}
        (claimed,) = again.provenance
        assert claimed.what == ("value", "n_rollouts", "n_correct", "low", "high", "advantage", "label")
        np.testing.assert_array_equal(again.labels, [1.0, np.nan, 0.5])
        np.testing.assert_array_equal(again.column("n_correct"), [2, 2, 0])
        # Wilson's interval of 2 of 4 at 95 %, from a table.
        np.testing.assert_allclose([again.column("low")[0], again.column("high")[0]], [0.1500, 0.8500], atol=1e-4)
        assert again.first_error == 2  # 0.5 is the first label of at most 0.5.


def test_rows_may_bring_new_columns_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows two at a time: the third row's `b` and the sixth row's `c` come when others are written."""
    path, names = tmp_path / "wide.parquet", ["a", "a", "b", "a", "b", "c"]
    rows = [Trajectory(PROBLEMS[0], STEPS, columns={name: np.full(3, float(at))}) for at, name in enumerate(names)]
    monkeypatch.setattr("stepreward.core.files.row_files._ROWS_AT_ONCE", 2)
    assert write_table(path, rows) == 6
    again = list(read_table(path))
    assert [[*one.columns] for one in again] == [[name] for name in names]
    assert [one.columns[name].tolist() for one, name in zip(again, names, strict=True)] == [[at] * 3 for at in range(6)]
    assert [path.name for path in tmp_path.iterdir()] == ["wide.parquet"]


def test_a_new_column_takes_its_claim_from_others_and_one_of_another_length_is_refused() -> None:
    made = item(PROBLEMS[0]).with_columns({"label": np.zeros(3)}, Provenance("judge"))
    assert [(one.estimator, one.what) for one in made.provenance] == [
        ("mc", ("value",)), ("prm", ("score",)), ("log", ()), ("judge", ("label",)),
    ]  # fmt: skip
    part = made.only(np.array([True, False, True]))
    assert (part.text, part.columns["mine"].tolist()) == ("look\n12", [1.0, 3.0])
    assert made.with_steps(STEPS[:1]).columns == {}
    with pytest.raises(ValueError, match="problem 'p' has 3 steps and 2 entries in the column 'score'"):
        made.with_columns({"score": np.zeros(2)})


def test_the_labels_of_releases_before_are_read(tmp_path: Path) -> None:
    step = pa.struct([(name, pa.string()) for name in ("text", "kind", "role", "agent")])
    lists = {name: pa.list_(pa.float64()) for name in ("value", "low", "high", "label")}
    counts = {name: pa.list_(pa.int64()) for name in ("n_rollouts", "n_correct")}
    texts = {name: pa.string() for name in ("problem", "prompt", "reference", "meta", "provenance")}
    rest = {"outcome": pa.float64(), "terminal": pa.bool_(), "root_value": pa.float64()}
    schema = {**texts, "steps": pa.list_(step), **rest, **lists, **counts, "transforms": pa.list_(pa.string())}
    row = {
        "problem": "p", "prompt": '[{"role": "user", "content": "1 + 1?"}]', "reference": "2", "meta": '{"level": 1}',
        "steps": [{"text": "2", "kind": "action", "role": "assistant", "agent": None}], "outcome": 1.0,
        "terminal": True, "root_value": None, "value": [0.5], "low": [None], "high": [None], "label": [0.0],
        "n_rollouts": [8], "n_correct": [4], "transforms": ["hard"],
        "provenance": '{"estimator": "mc", "policy": "m", "grader": "g", "seed": 1, "settings": {"n": 8}}',
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row], pa.schema(schema)), tmp_path / "labels.parquet")
    (one,) = formats.read(tmp_path)
    assert one.problem == Problem("p", ({"role": "user", "content": "1 + 1?"},), "2", {"level": 1})
    assert {name: values.tolist() for name, values in one.columns.items() if not np.isnan(values).any()} == {
        "value": [0.5], "label": [0.0], "n_rollouts": [8], "n_correct": [4],
    }  # fmt: skip
    assert (one.facts["transforms"], one.provenance) == (["hard"], (Provenance("mc", "m", "g", 1, {"n": 8}),))


def test_what_search_wrote_before_is_read_as_the_solution_that_it_chose(tmp_path: Path) -> None:
    row = {
        "id": "p", "answer": "2", "correct": True, "scores": [0.75], "chosen": 1, "stopped": "", "error": "", "cut": 0,
        "candidates": [{"answer": "3", "score": 0.5, "text": "3", "finished": True}], "bill": {"proposals": 2},
        "schema": "stepreward/trajectories/1", "problem": "p", "prompt": "1 + 1?", "steps": [{"text": "2"}],
        "outcome": 1.0, "terminal": True,
    }  # fmt: skip
    (tmp_path / "found.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "error": "gone", "steps": []}))
    reading = formats.read(tmp_path / "found.jsonl")
    (one,) = reading
    assert (one.answer, one.column("score").tolist(), one.facts["chosen"]) == ("2", [0.75], 1)
    assert "it has no solution: gone" in reading.bad[0].problem


def test_a_problem_that_a_search_could_not_solve_says_why(tmp_path: Path) -> None:
    bare = Trajectory(PROBLEMS[0], (), terminal=False, facts={"error": "server gone"})
    formats.write(tmp_path / "found.parquet", [bare, item(PROBLEMS[0])], "stepreward")
    reading = formats.read(tmp_path / "found.parquet")
    assert len(list(reading)) == 1
    assert "problem 'p' has no solution: server gone" in reading.bad[0].problem


def test_a_folder_of_parts_is_one_table(tmp_path: Path) -> None:
    for place, problem in enumerate(PROBLEMS):
        formats.write(tmp_path / f"part-{place}.parquet", [item(problem)], "stepreward", strict=True)
    assert [one.problem for one in formats.read(tmp_path)] == list(PROBLEMS)


def test_other_tools_read_it_as_it_is(tmp_path: Path) -> None:
    for ending, kind in ((".parquet", "parquet"), (".jsonl", "json")):
        path = str(tmp_path / f"rows{ending}")
        plain = [step for step in STEPS if step.logprobs is None]
        items = [Trajectory(p, tuple(plain), columns={"label": np.array([0.5])}) for p in PROBLEMS]
        formats.write(path, items, "stepreward", strict=True)
        steps = duckdb.sql(f"select problem, unnest(steps).text, unnest(label) from '{path}' order by 1").fetchall()
        assert steps == [("chat", "seen\n", 0.5), ("p", "seen\n", 0.5)]
        rows = load_dataset(kind, data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
        assert rows[0]["steps"][0]["text"] == "seen\n"
        assert rows[0]["label"] == [0.5]


BASE: dict[str, Any] = {"schema": "stepreward/trajectories/1", "prompt": "1 + 1?", "steps": [{"text": "2"}]}


def test_a_row_by_hand_needs_a_prompt_and_steps_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({**BASE, "steps": ["1 + 1 = 2", "2"], "mine": [1, None]}))
    (one,) = formats.read(tmp_path / "rows.jsonl")
    assert one.steps == (Step("1 + 1 = 2"), Step("2"))
    np.testing.assert_array_equal(one.columns["mine"], [1.0, np.nan])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**BASE, "label": [1.0, 0.0]}, "1 steps but 2 numbers in 'label'"),
        ({**BASE, "label": [2.0]}, "leave"),
        ({**BASE, "steps": []}, "there is no step"),
        ({**BASE, "steps": [{"kind": "action"}]}, "must have a 'text'"),
        ({**BASE, "steps": [{"text": "x", "kind": "thought"}]}, "must be action or observation"),
        ({**BASE, "prompt": None}, "no 'prompt'"),
        ({**BASE, "meta": "{"}, "'meta' is no JSON"),
        ({**BASE, "error": "server gone"}, "it has no solution: server gone"),
        ({"schema": "stepreward/summary/1", "settings": {}}, "no trajectories are in it"),
        ({"scores": [0.5]}, "without its problem and steps"),
        (
            {"id": "1", "answer": "2", "correct": True, "steps": ["2"], "candidates": [], "bill": {}},
            "without its problem",
        ),
    ],
)
def test_what_is_no_trajectory_is_named_and_never_an_empty_list(row: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"rows.jsonl, row 1: .*read as stepreward, the first row has") as caught:
        list(formats.read(tmp_path / "rows.jsonl"))
    assert message in str(caught.value)


def test_rows_of_another_format_than_named_are_an_error_with_a_row_to_write(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "text": "2"}\n')
    for form in ("trl", "prm800k", "gsm8k", "who-and-when", None):
        with pytest.raises(InputError, match="write rows like") as caught:
            list(formats.read(tmp_path / "rows.jsonl", form))
        assert "id, text" in str(caught.value)


WHOLE = {
    "schema": "stepreward/trajectories/1", "problem": "p", "prompt": "1 + 1?", "reference": "2",
    "steps": [{"text": "a", "kind": "action", "role": "assistant", "tokens": [1, 2], "logprobs": [-0.5, -0.1]},
              {"text": "b"}],
    "outcome": 1.0, "terminal": True, "first_error": 1, "label": [1.0, 0.0], "value": [0.5, 0.25],
    "provenance": '[{"what": ["label"], "estimator": "e"}]',
}  # fmt: skip
DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "outcome of text": ({"outcome": "yes"}, "'outcome' must be a number in [0, 1], got 'yes'"),
    "outcome of 7": ({"outcome": 7.0}, "'outcome' must be a number in [0, 1], got 7.0"),
    "half a first error": ({"first_error": 0.5}, "'first_error' must be a whole number, got 0.5"),
    "no such first error": ({"first_error": 9}, "'first_error' must be -1 or a step below 2, got 9"),
    "tokens with NaN": ({"steps": [{"text": "a", "tokens": [1.0, math.nan]}]}, "'tokens of step 0' must be"),
    "tokens of text": ({"steps": [{"text": "a", "tokens": "abc"}]}, "must be a list of whole numbers, got 'abc'"),
    "log-probabilities": ({"steps": [{"text": "a", "logprobs": ["x"]}]}, "must be a list of numbers, got ['x']"),
    "tokens without": ({"steps": [{"text": "a", "tokens": [1, 2], "logprobs": [0.0]}]}, "2 'tokens' and 1 'logprobs'"),
    "role": ({"steps": [{"text": "a", "role": 5}]}, "'role' of step 0 must be text, got 5"),
    "images": ({"steps": [{"text": "a", "images": "x.png"}]}, "'images' of step 0 must be a list of texts"),
    "labels of text": ({"label": ["x", "y"]}, "'label' must be a list of numbers, got ['x', 'y']"),
    "one label": ({"label": 1.0}, "'label' must be a list of numbers, got 1.0"),
    "a label too few": ({"label": [1.0]}, "2 steps but 1 numbers in 'label'"),
    "a label of 7": ({"label": [7.0, 0.0]}, "labels [7.0, 0.0] leave [0, 1]"),
    "values of text": ({"value": ["a", "b"]}, "'value' must be a list of numbers"),
    "scores of text": ({"score:prm": "0.5"}, "'score:prm' must be a list of numbers, got '0.5'"),
    "who": ({"provenance": "[1]"}, "'provenance' must be a list of objects, got [1]"),
    "who without a name": ({"provenance": '[{"policy": "p"}]'}, "'provenance' has the entry {'policy': 'p'}"),
    "terminal": ({"terminal": "yes"}, "'terminal' must be true or false, got 'yes'"),
    "prompt": ({"prompt": 5}, "'prompt' must be text, got 5"),
    "no steps": ({"steps": None}, "'steps' must be a list, got None"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_with_its_file_row_and_value_and_costs_no_other_row(name: str, tmp_path: Path) -> None:
    change, said = DAMAGE[name]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (WHOLE, WHOLE | change, WHOLE)))
    reading = formats.read(path)
    assert len(list(reading)) == 2
    (error,) = reading.bad
    assert (error.source, error.row) == (path, 2)
    assert said in error.problem
    table = tmp_path / "labels.parquet"
    pq.write_table(pa.Table.from_pylist([WHOLE | change]), table)
    for read in (lambda: list(formats.read(table)), lambda: list(read_table(table))):
        with pytest.raises(InputError, match=re.escape(said)) as told:
            read()
        assert str(told.value).startswith(f"{table}, row 1: ")


@pytest.mark.parametrize("column", ["problem", "prompt", "steps"])
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    table = tmp_path / "labels.parquet"
    pq.write_table(pa.Table.from_pylist([{name: value for name, value in WHOLE.items() if name != column}]), table)
    if column == "problem":  # The first words of the prompt are its name.
        assert [item.problem.id for item in formats.read(table)] == ["1 + 1?"]
    else:
        with pytest.raises(InputError, match=f"row 1: .*'{column}'"):
            list(formats.read(table))
    with pytest.raises(InputError, match=re.escape(f"columns ['{column}'] are missing")):
        list(read_table(table))


def test_what_pandas_makes_of_gaps_is_the_same_table(tmp_path: Path) -> None:
    """Whole numbers and truths with a gap are floats there, and null is NaN."""
    path = tmp_path / "labels.parquet"
    gaps = {"first_error": math.nan, "terminal": math.nan, "outcome": math.nan, "reference": math.nan}
    pq.write_table(pa.Table.from_pylist([WHOLE | gaps]), path)
    (item,) = formats.read(path)
    assert (item.first_error, item.terminal, item.problem.reference) == (None, True, None)
    assert math.isnan(item.outcome)
    floats = {"first_error": 1.0, "terminal": 0.0, "label": [True, False]}
    pq.write_table(pa.Table.from_pylist([WHOLE | floats]), path)
    (item,) = formats.read(path)
    assert (item.first_error, item.terminal, item.labels.tolist()) == (1, False, [1.0, 0.0])
    # A table that has lost its mark is still this table.
    pq.write_table(pa.Table.from_pylist([{name: value for name, value in WHOLE.items() if name != "schema"}]), path)
    assert formats.read(path).format.name == "stepreward"
