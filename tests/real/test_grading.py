"""Every public reference at hand equals itself in a box, and no fragment of one passes; grades agree with others'."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from benchmarks.grading_fragments import ALLOWED, fragments

from stepreward.core.types import Problem, Step
from stepreward.tasks.mathematics import MathGrader

pytest.importorskip("math_verify")
grading = importlib.import_module("benchmarks.grading")
DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (DATA / "math").exists(), reason="needs the real data"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def references() -> dict[str, list[str]]:
    return grading.references()


@pytest.fixture(scope="module")
def grader() -> MathGrader:
    return MathGrader()


def grade(grader: MathGrader, reference: str, box: str) -> float:
    return grader.grade(Problem("p", "q", reference), [Step(rf"So it is $\boxed{{{box}}}$.")])


def test_all_files_are_read(references: dict[str, list[str]]) -> None:
    assert len(references) == 9
    assert sum(map(len, references.values())) > 12_000


def test_every_reference_equals_itself_in_a_box(references: dict[str, list[str]], grader: MathGrader) -> None:
    lost = []
    for name, found in references.items():
        for reference in found:
            bare = grading.answer_of(reference)
            for asked, box in ((reference, bare), (f"${bare.strip('$')}$", f" {bare.strip('$')} ")):
                if grade(grader, asked, box) != 1:
                    lost.append((name, asked[-60:], box))
    assert lost == []


def test_lists_of_answers_as_json_equal_the_same_in_a_box(grader: MathGrader) -> None:
    lost = []
    for row in grading.rows("math/olympiadbench.jsonl.gz"):
        listed, box = json.dumps(row["final_answer"]), ", ".join(row["final_answer"])
        if grade(grader, listed, box) != 1:
            lost.append((listed, box))
    assert lost == []


def test_no_fragment_of_a_reference_passes(references: dict[str, list[str]], grader: MathGrader) -> None:
    """Nor is one beyond grading, but for derivatives."""
    passed, tried = [], 0
    for found in references.values():
        for reference in dict.fromkeys(map(grading.answer_of, found)):
            for part in fragments(reference):
                if part.left_out not in ALLOWED:
                    tried += 1
                    got = grade(grader, reference, part.text)
                    if got == 1 or (got != 0 and r"\frac{d" not in part.text):
                        passed.append((reference, part, got))
    assert passed == []
    assert tried > 20_000


@pytest.mark.parametrize(("pool", "least"), [(0, 0.999), (1, 0.99)])
def test_grades_agree_with_those_of_others(grader: MathGrader, pool: int, least: float) -> None:
    _, pairs, flags = list(grading.pools())[pool]
    found = grading.agreement(pairs, flags, {"ours": grading.our_judge(grader)})
    assert found["ours"]["agree"] >= least * found["pairs"], found
