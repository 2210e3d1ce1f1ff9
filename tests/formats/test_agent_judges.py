"""Recorded judges of AgentProcessBench: which verdict counts, what is silent, and their authors' folders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepreward.core.errors import InputError
from stepreward.formats.registry import by_name, read
from tests.cli.running import invoke

from .examples import items

NAN = math.nan


def person(at: int, labels: dict[str, int]) -> dict[str, Any]:
    return {
        "total_index": at,
        "dataset": "bfcl",
        "query_index": at % 250 // 5,
        "sample_index": at % 5,
        "step_labels": labels,
    }


def verdict(question: int, sample: int, labels: dict[str, int | None] | None, at: str | None = None) -> dict[str, Any]:
    return {
        "dataset": "bfcl", "record_id": f"bfcl:{question}:{sample}", "annotator": "m", "query_index": question,
        "sample_index": sample, "step_labels": labels or {}, "comment": "" if labels else "llm_annotate_failed: x",
        **({"updated_at": at} if at else {}),
    }  # fmt: skip


PEOPLE = [
    person(500, {"3": 1, "5": -1}),
    person(501, {"3": 0, "10": -1, "5": -1}),
    person(506, {"2": 1}),
    person(507, {"2": 1, "4": 1}),
]


@pytest.fixture
def judges(tmp_path: Path) -> Path:
    """A benchmark of four chats, and two judges who disagree about the spelling of their runs."""
    root = tmp_path / "bench"
    (root / "data" / "AnswerOnly").mkdir(parents=True)
    (root / "data" / "AnswerOnly" / "bfcl_final.jsonl").write_text("".join(json.dumps(one) + "\n" for one in PEOPLE))
    rows = {
        # The second verdict on the first chat is the latest, though it stands first; failures say nothing.
        "one /bfcl__blind_One-Thinking.jsonl": [
            verdict(0, 0, {"3": 1, "5": -1}, "2026-02-06T08:00:00+00:00"),
            verdict(0, 0, {"3": -1, "5": -1}, "2026-02-06T05:54:21+00:00"),
            verdict(0, 0, {"3": -1, "5": -1}),
            verdict(0, 1, {"3": 0, "5": 1, "10": -1, "99": -1}, "2026-02-06T05:00:00+00:00"),
            verdict(1, 1, None, "2026-02-06T05:00:00+00:00"),
        ],
        "two/bfcl__blind_two.jsonl": [verdict(1, 2, {"2": 1, "4": None})],
    }  # fmt: skip
    for name, lines in rows.items():
        path = root / "eval" / "results" / name
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return root / "eval" / "results"


def test_the_latest_verdict_counts_and_the_rest_is_silent(judges: Path) -> None:
    chats = list(read(judges / "one " / "bfcl__blind_One-Thinking.jsonl", strict=True))
    assert [[step.meta["message"] for step in one.steps] for one in chats] == [[3, 5], [3, 5, 10], [2], [2, 4]]
    assert [one.labels.tolist() for one in chats] == [[1, 0], [0.5, 0, 0], [1], [1, 1]]
    assert [one.first_error for one in chats] == [1, 1, -1, -1]
    said = [one.scores["one"] for one in chats]
    for found, expected in zip(said, [[1, 0], [0.5, 1, 0], [NAN], [NAN, NAN]], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert {one.facts["subset"] for one in chats} == {"bfcl"}


def test_one_command_measures_a_folder_of_judges(judges: Path) -> None:
    made = json.loads(invoke(f"evaluate --benchmark agent-process-bench --data {judges} --json"))
    assert made["rows"] == 4  # a chat that several judge is one chat, also for `position`
    assert made["scorers"].keys() == {"one", "two", "position"}
    one, two = (made["scorers"][name]["metrics"] for name in ("one", "two"))
    # Of 8 rated steps `one` has 1, -1, 0 and the -1 of message 10; 3 are silent. Its first errors: hit, miss, hit, hit.
    assert (one["step_accuracy"]["value"], one["silent"]["value"]) == (4 / 8, 3 / 8)
    assert one["first_error_accuracy"]["value"] == 3 / 4
    assert one["exact"]["value"] == 1 / 4
    assert (two["step_accuracy"]["value"], two["silent"]["value"]) == (1 / 8, 7 / 8)
    assert two["first_error_accuracy"]["value"] == 2 / 4  # says nothing of the chats with an error, nor of their errors
    assert made["scorers"]["position"]["metrics"]["step_accuracy"]["n"] == 4


def test_ratings_that_are_not_there_are_named(judges: Path) -> None:
    path = judges / "two" / "bfcl__blind_two.jsonl"
    (judges.parents[1] / "data" / "AnswerOnly" / "bfcl_final.jsonl").unlink()
    with pytest.raises(InputError, match=r"needs people's ratings of bfcl, in bfcl.jsonl or bfcl_final.jsonl"):
        list(read(path))
    # The chats themselves are read where they are; a verdict on a chat that is not among them is told.
    (judges / "bfcl.jsonl").write_text(json.dumps(PEOPLE[0]) + "\n")
    found = read(path)
    assert len(list(found)) == 1
    assert [(error.row, "is not in" in error.problem) for error in found.bad] == [(1, True)]


def test_verdicts_beside_chats_and_beside_ratings_alone() -> None:
    (chat,), (bare,) = items("agent-process-bench-judge", 0), items("agent-process-bench-judge", 1)
    assert [step.text for step in chat.steps] == ["Let me think.\n", "Nothing.\n", "Ann?\n", "Bob.\n"]
    # The last message is not rated: what the judge says of it does not count.
    np.testing.assert_array_equal(chat.scores["m"], [0.5, NAN, 0, NAN])
    assert [step.text for step in bare.steps] == ["message 3\n", "message 5\n", "message 12\n"]
    np.testing.assert_array_equal(bare.scores["m"], [1, NAN, NAN])
    row = {**person(500, {"3": 1}), "judge": "m"}
    for verdicts in ({"3": 2}, {"3": True}, {"3": "1"}):
        with pytest.raises(InputError, match="must be 1, 0, -1 or null"):
            list(by_name("agent-process-bench-judge").read({**row, "judged": verdicts}, 1))
