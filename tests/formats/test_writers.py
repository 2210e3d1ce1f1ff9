"""Writers: thresholds, labels that a format cannot hold, refusals, and which fields tell a format."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepreward import formats
from stepreward.cli.convert import ConvertFlags, SourceFlags, convert
from stepreward.cli.flags.parts import PartFlags
from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.registry import by_name

from .examples import EXAMPLES, one


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("openr", lambda row: row["label"]),
        ("rlhflow", lambda row: [turn["content"] for turn in row["conversations"][1::2]]),
        ("math-shepherd", lambda row: [line[-1] for line in row["label"].split("\n")]),
        ("unprm", lambda row: ["-+"[label] for label in row["label"]]),
        ("actprm", lambda row: ["-+"[label] for label in row["hard_labels"]]),
        ("fover", lambda row: ["-+"[label] for label in row["error_labels"]]),
        ("trl", lambda row: ["-+"[label] for label in row["labels"]]),
    ],
)
def test_a_label_at_the_threshold_is_not_above_it(name: str, labels: Callable[[Any], list[str]]) -> None:
    item = one("openrlhf")  # labels 1 and 0.25
    write: Callable[..., Any] | None = by_name(name).write
    assert write
    assert labels(write(item, threshold=0.25)) == ["+", "-"]
    assert labels(write(item, threshold=0.24)) == ["+", "+"]


@pytest.mark.parametrize("name", ["process-bench", "mr-gsm8k", "bigbench-mistake", "prm-bench"])
def test_a_label_at_the_threshold_is_an_error(name: str) -> None:
    item = one("openrlhf")
    write: Callable[..., Any] | None = by_name(name).write
    assert write
    for threshold, first in ((0.25, 1), (0.24, -1)):
        (back,) = by_name(name).read(
            {**write(item, threshold=threshold), **({"classification": "c"} if name == "prm-bench" else {})}, 1
        )
        assert isinstance(back, Trajectory)
        assert back.first_error == first


def test_the_first_step_may_be_the_error() -> None:
    row = {**EXAMPLES["mr-gsm8k"][0], "model_output_solution_first_error_step": 1}
    (item,) = by_name("mr-gsm8k").read(row, 1)
    assert isinstance(item, Trajectory)
    write: Callable[..., Any] | None = by_name("mr-gsm8k").write
    assert write
    assert write(item) == row


def test_unknown_labels_are_cut_filled_or_refused() -> None:
    item = one("actprm")  # labels 1, 0, unknown
    write: Callable[..., Any] | None = by_name("openr").write
    assert write
    assert [write(item, unknown=how)["label"] for how in ("cut", "right", "wrong")] == [
        ["+", "-"],
        ["+", "-", "+"],
        ["+", "-", "-"],
    ]
    with pytest.raises(InputError, match="step 2 of problem actprm-1 has no label"):
        write(item, unknown="error")
    with pytest.raises(InputError, match=r"step 0 of problem .* has no label"):
        write(one("implicit-prm"))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("qwen-rm-maj", {"question": "q", "code": ["a"], "score": [True], "pred_score": [1.0]}),
        ("actprm", {"question": "q", "steps": ["a"], "hard_labels": [1]}),
        ("tdrm", {"conversations": {"question": "q", "state1": "a"}}),
        ("rewardmath", {"problem": "q", "eval_solution": ["a"], "solution_type": "chosen"}),
        ("unprm", {"prompt": "q", "completions": ["a"], "label": [True]}),
        ("openr", {"question": "q", "process": "a", "label": ["+"]}),
        ("fover", {"problem": "q", "solution_steps": ["a"], "error_labels": [True]}),
        ("bigbench-mistake", {"input": "q", "steps": ["a"], "mistake_index": 0}),
        ("genprm-rollouts", {"problem": "q", "steps": [["a"]], "monte_carlo_scores": [[1]]}),
        ("agent-prm", {"state": {}, "reason_action": {}, "qestimate": 1}),
        ("who-and-when", {"history": [], "mistake_step": "0", "mistake_agent": "a"}),
        ("omega-prm-tree", {"question": "q", "reasoning_steps": {"text": "q", "children": []}}),
    ],
)  # fmt: skip
def test_the_telling_fields_are_enough(name: str, row: dict[str, Any]) -> None:
    assert [form.name for form in formats.formats.values() if form.matches(row)] == [name]


def test_writers_refuse_what_their_format_cannot_hold() -> None:
    item = one("openrlhf")
    tagged = replace(item, facts={}, first_error=None, columns={"label": item.labels})
    write: Callable[..., Any] | None = by_name("openr").write
    assert write
    with pytest.raises(InputError, match="contains the tag ' 1'"):
        write(tagged, tag=" 1")
    who = by_name("who-and-when").write
    assert who
    with pytest.raises(InputError, match="has no wrong step"):
        who(one("mr-gsm8k", 1))
    graded = by_name("implicit-prm").write
    assert graded
    with pytest.raises(InputError, match="unknown outcome"):
        graded(item)


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    path = Path(__file__).parent / "examples" / "rewardmath-pairs.jsonl"
    with pytest.raises(InputError, match="rewardmath-pairs holds comparisons, not solutions; call read_comparisons"):
        formats.read(path)
    (pair,) = formats.read_comparisons(path)
    with pytest.raises(InputError, match="holds solutions, not comparisons; call read, or"):
        formats.read_comparisons(path, "trl")
    kept = tmp_path / "o.jsonl"
    kept.write_text("what was there before")
    (refused,) = formats.write(kept, [pair], "trl")
    assert kept.read_text() == "what was there before"
    assert "format trl holds solutions, got a Comparison" in str(refused)


def test_rows_of_one_prompt_are_one_problem_and_text_behind_an_array_is_told(tmp_path: Path) -> None:
    row = '{"prompt": "1 + 1?", "completions": ["%s"], "labels": [true]}'
    path = tmp_path / "rows.json"
    path.write_text(f"[{row % 'a'}, {row % 'b'}]\n[{row % 'c'}]")
    reading = formats.read(path, "trl")
    first, second = reading
    assert first.problem.id == second.problem.id
    assert "after the end of the array" in reading.bad[0].problem


def test_converting_takes_away_what_the_source_s_format_put_at_the_ends(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"question": "1 + 1?", "steps": ["1 + 1 = 2", "So 2."], "scores": [1, 1]}))
    convert(source, out, flags=ConvertFlags(to="trl"), reading=SourceFlags(form="scan"), parts=PartFlags())
    assert json.loads(out.read_text())["completions"] == ["1 + 1 = 2", "So 2."]


def test_an_unpaired_row_is_messages_or_texts_with_the_outcome_as_its_label() -> None:
    item = Trajectory(Problem("p", "1 + 1?"), (Step("It is "), Step("2.")), 0.5)
    write = by_name("trl-unpaired").write
    assert write
    made = {"prompt": [{"role": "user", "content": "1 + 1?"}], "label": False}
    assert write(item) == {**made, "completion": [{"role": "assistant", "content": "It is 2."}]}
    assert write(item, layout="text", separator=" ", threshold=0.4) == {
        "prompt": "1 + 1? ", "completion": "It is 2.", "label": True,
    }  # fmt: skip
    with pytest.raises(InputError, match="the outcome is not known"):
        write(replace(item, outcome=float("nan")))
    with pytest.raises(InputError, match="layout"):
        write(item, layout="other")
