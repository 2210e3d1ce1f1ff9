"""Problems are read from rows of any public layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepreward.core.errors import InputError
from stepreward.formats import read_problems
from stepreward.formats.problems import problem_of


@pytest.mark.parametrize(
    ("row", "prompt", "reference"),
    [
        ({"prompt": "p", "reference": "2"}, "p", "2"),
        ({"question": "p", "answer": "2"}, "p", "2"),
        ({"problem": "p", "answer": 2}, "p", "2"),
        ({"problem": "p", "solution": r"so \boxed{2}", "answer": "2"}, "p", "2"),
        ({"query": "p", "response": "2"}, "p", "2"),
        ({"instruction": "p", "output": "2"}, "p", "2"),
        ({"instruction": "p", "input": "x", "output": "2"}, "p\n\nx", "2"),
        ({"input": "p", "target": "2"}, "p", "2"),
        ({"question": "p", "answer": "1 + 1 = 2\n#### 1,200"}, "p", "1200"),
        ({"prompt": [{"role": "user", "content": "p"}], "reward_model": {"ground_truth": "2"}}, "p", "2"),
        ({"prompt": "p"}, "p", None),
    ],
)
def test_rows_of_every_layout(row: dict[str, Any], prompt: str, reference: str | None, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    (made,) = read_problems(tmp_path / "p.jsonl")
    assert (made.id, made.text, made.reference) == ("1", prompt, reference)
    if "####" in str(row.get("answer")):
        assert made.meta == {"solution": row["answer"]}


def test_a_table_gives_each_problem_once_and_a_row_without_prompt_is_named(tmp_path: Path) -> None:
    row = {"schema": "stepreward/trajectories/1", "problem": "a", "prompt": "p", "reference": "2"}
    rows = [{**row, "steps": ["1"]}, {**row, "steps": ["2"]}, {**row, "problem": "b", "steps": ["2"]}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert [made.id for made in read_problems(tmp_path / "p.jsonl")] == ["a", "b"]
    (tmp_path / "p.jsonl").write_text('{"text": "1"}')
    with pytest.raises(InputError, match=r"p.jsonl, row 1: a problem needs .* the row has text; write rows like"):
        list(read_problems(tmp_path / "p.jsonl"))


@pytest.mark.parametrize(
    ("row", "text", "reference"),
    [
        ({"ID": "2024-I-1", "Problem": "Q", "Solution": "s", "Answer": 5}, "Q", "5"),
        ({"Body": "Two apples.", "Question": "How many?", "Answer": "2"}, "Two apples. How many?", "2"),
        ({"messages": [{"role": "user", "content": "Q"}], "answer": "5"}, "Q", "5"),
    ],
)
def test_problems_of_data_sets_with_other_names(row: dict[str, Any], text: str, reference: str) -> None:
    made = problem_of(row, 1)
    assert (made.messages[-1]["content"], made.reference) == (text, reference)


def test_a_conversation_that_has_an_answer_is_no_bare_problem() -> None:
    row = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "5"}]}
    with pytest.raises(InputError, match="a problem needs a text"):
        problem_of(row, 1)
