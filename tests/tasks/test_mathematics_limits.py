"""Text that is made to keep a parser busy is no answer."""

from __future__ import annotations

import math

import pytest

from stepreward.core.types import Problem, Step
from stepreward.tasks.final_answer import final_answer
from stepreward.tasks.mathematics import MathGrader

PROBLEM = Problem("p", "q", "1")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("brackets", ["()", "[]", "{}"])
def test_brackets_without_end_are_not_parsed(brackets: str) -> None:
    text = "\\boxed{" + brackets[0] * 3000 + "1" + brackets[1] * 3000 + "}"
    assert MathGrader().answer(PROBLEM, [Step(text)]) is None
    assert MathGrader().grade(PROBLEM, [Step(text)]) == 0.0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9}}",
        "9^{9^{9^9}}",
        "(x+y+z)^{200}",
        r"\binom{1000000}{500000}",
        r"\int_0^1 e^{-x^2}\sin(x^3)\,dx",
        "(10^9)!",
        "10^{10^{10}}!",
        r"\sin(9^{9^9})",
        "(x+1)^{1000000}",
        r"\lfloor 9^{9^9} \rfloor",
        "2^{2^{2^{2^{2^2}}}}",
    ],
)
def test_every_grade_ends_and_none_is_right(answer: str) -> None:
    steps = [Step(rf"\boxed{{{answer}}}")]
    grade = MathGrader().grade(PROBLEM, steps)
    assert grade != 1.0
    assert MathGrader().answer(PROBLEM, steps) is not None


def test_what_cannot_be_graded_is_unknown_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    grader = MathGrader()
    for _ in range(3):
        assert math.isnan(grader.grade(PROBLEM, [Step(r"\boxed{\int_0^1 e^{-x^2}\,dx}")]))
    assert capsys.readouterr().err.count("could not be graded") == 1


def test_brackets_as_people_write_them_are() -> None:
    text = "So \\boxed{" + "(" * 20 + "1" + ")" * 20 + "}"
    assert MathGrader().answer(PROBLEM, [Step(text)]) == "1"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("start", ["#### ", "####* ", "the answer is ", "the answer is: *", "= ", "\\boxed{1 ", "$"])
@pytest.mark.parametrize(
    "filler", [" ", "\t", "* ", "#### ", "\\(", "\\[", "$", "answer is ", "1,", "- ", "\n", "a ", "{"]
)
def test_text_without_an_answer_is_read_in_linear_time(start: str, filler: str) -> None:
    """Quadratic time in 20,000 characters takes seconds; time beyond that does not end."""
    for end in ("", "!", "\n"):
        final_answer(start + filler * (19_000 // len(filler)) + end)


def test_numbers_too_small_for_sixty_digits_differ() -> None:
    grader = MathGrader()

    def graded(reference: str, answer: str) -> float:
        return grader.grade(Problem("p", "q", reference), [Step(rf"\boxed{{{answer}}}")])

    assert graded(r"\frac{1}{2004!}", r"\frac{1}{200!}") == 0
    assert graded("10^{-60}", "0") == 0
    assert graded(r"\sin \pi", "0") == 1
    assert graded(r"\sqrt2+\sqrt3-\sqrt{5+2\sqrt6}", "0") == 1
    assert graded(r"\ln(\sqrt2^2/2)", "0") == 1
    assert graded(r"\cos\frac{\pi}{2}", "0") == 1


def test_endless_products_and_values_that_do_not_exist_are_wrong() -> None:
    grader = MathGrader()
    for answer in (
        "a" * 3000 + "1",
        "1 " * 1500,
        "-" * 2000 + "1",
        r"\frac" * 800,
        "(-1)!",
        "i^2!",
        "5 " + "cm " * 900 + "1",
    ):
        assert grader.grade(PROBLEM, [Step(rf"\boxed{{{answer}}}")]) == 0


def test_an_answer_that_breaks_off_is_wrong_and_no_fault() -> None:
    grader = MathGrader()
    for answer in ("x=", "=", "y =", "x <", "|", "(,", r"\frac", "^", "_", r"\sqrt[", "{", ":", r"\begin{", ","):
        assert grader.grade(Problem("p", "q", "x=5"), [Step(rf"So \fbox {answer} \boxed{{{answer} }}")]) in (0, 1)
