"""Answers graded as mathematics: equal ones of every kind, different ones, and where a solution states its answer."""

from __future__ import annotations

import math

import pytest

from stepreward.core.types import Problem, Step
from stepreward.tasks.final_answer import final_answer
from stepreward.tasks.mathematics import MathGrader

GRADER = MathGrader()
CASES = [
    (r"\frac 59", r"\frac{5}{9}", 1),
    (r"\frac59", "5/9", 1),
    (r"10,\!080", "10080", 1),
    ("10,080", "10080", 1),
    ("1,234", "1234", 1),
    ("1331 and 1728", "1728", 0),
    ("1331 and 1728", "1728, 1331", 1),
    (r"1331 \text{ and } 1728", "1331,1728", 1),
    ("3, 5", "5, 3", 1),
    ("3, 5", "3", 0),
    (r"\{3,5\}", "5,3", 1),
    ("(3,5)", "(5,3)", 0),
    ("(3,5)", "[3,5]", 0),
    ("(3,5)", r"\left( 3, 5 \right)", 1),
    ("(3,5)", r"\{3,5\}", 0),
    ("3:4", "6:8", 1),
    ("3:4", "4:3", 0),
    ("10:30", r"10:30 \text{ a.m.}", 1),
    ("1101_2", "1101_{2}", 1),
    ("1101_2", "1101", 0),
    ("1101_2", r"1101_{\text{two}}", 1),
    ("5!", "120", 1),
    (r"45^\circ", "45", 1),
    (r"45^\circ", r"45 \text{ degrees}", 1),
    ("45", "45°", 1),
    (r"50\%", "50", 1),
    (r"50\%", "0.5", 1),
    ("0.5", r"50\%", 1),
    ("50", r"50\%", 1),
    (r"\$32", "32", 1),
    ("32", r"\$32.00", 1),
    (r"5 \text{ cm}", "5", 1),
    (r"5 \text{ cm}", r"5 \text{ m}", 0),
    ("5", r"5 \mathrm{~cm}", 1),
    ("5", "5 cm", 1),
    (r"5 \text{ cm}^2", r"5\text{ cm}^2", 1),
    (r"5 \text{ cm}^2", r"5 \text{ cm}", 0),
    ("B", r"\text{(B)}", 1),
    ("B", "(B)", 1),
    ("B", "B.", 1),
    ("B", r"\textbf{(B)}", 1),
    ("B", "C", 0),
    ("B", r"\text{(C) } B", 0),
    (r"\text{even}", "even", 1),
    (r"\text{even}", r"\text{odd}", 0),
    ("Monday", r"\text{Monday}", 1),
    (r'["1", "2"]', "2, 1", 1),
    (r'["1", "2"]', "2", 0),
    (r'["\\frac{1}{2}"]', "0.5", 1),
    ("f(x)=2x+1", "2x+1", 1),
    ("2x+1", "f(x) = 1+2x", 1),
    ("y=2x+3", "2x+3", 1),
    ("y=2x+3", "2x-y+3=0", 1),
    ("y=2x+3", "y=2x+4", 0),
    ("2x+3y=6", "4x+6y=12", 1),
    ("2x+3y=6", "4x+6y=13", 0),
    ("2x+3y=0", "x+y=0", 0),
    ("x-y=0", "x+y=0", 0),
    ("x=5", "5", 1),
    ("5", "x=5", 1),
    (r"x \in [2,3)", "[2,3)", 1),
    (r"x \in [2,3)", r"2 \le x < 3", 1),
    (r"(-\infty,1)\cup(3,\infty)", r"x<1 \text{ or } x>3", 1),
    (r"(-\infty,1)\cup(3,\infty)", r"(3,\infty) \cup (-\infty,1)", 1),
    (r"(-\infty,1)\cup(3,\infty)", r"(3,\infty)", 0),
    (r"\log_2 8", "3", 1),
    (r"\sin 30^\circ", r"\frac12", 1),
    (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt 2}", 1),
    (r"-\frac{1}{2}", r"\frac{-1}{2}", 1),
    ("1.6e-19", r"1.6\times 10^{-19}", 1),
    ("1.6e-19", "9.1e-31", 0),
    ("10^{100}", "10^{101}", 0),
    ("0.5", r"\frac12", 1),
    ("0.50", ".5", 1),
    ("5.0", "5", 1),
    (r"\dfrac{3}{4}", r"\tfrac34", 1),
    (r"\displaystyle \frac{3}{4}", "0.75", 1),
    ("１２", "12", 1),
    ("−5", "-5", 1),
    ("½", "0.5", 1),
    ("2½", "5/2", 1),
    (r"2\frac{1}{2}", "2.5", 1),
    ("2 1/2", "2.5", 1),
    (r"2\frac{1}{2}", "1", 0),
    ("x² + 1", "x^2+1", 1),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", 1),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}", 0),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ \frac{4}{2} \end{pmatrix}", 1),
    (r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2", 1),
    (r"1 \pm \sqrt{2}", r"1+\sqrt2", 0),
    (r"x = \pm 3", r"\pm 3", 1),
    ("3", "3 or 4 or 5", 0),
    ("3", "3, 4", 0),
    ("3,4,5", "3 or 4 or 5", 1),
    (r"x \neq 2", r"x \ne 2", 1),
    ("x+y>2", "2x+2y>4", 1),
    ("x+y>2", "x+y<2", 0),
    ("x>2", "2<x", 1),
    ("x>2", r"x\ge 2", 0),
    (r"\frac{3}{4}\pi", r"\frac{3\pi}{4}", 1),
    ("e^{2}", "e^2", 1),
    ("(x+1)^2", "x^2+2x+1", 1),
    ("(x+1)(x-1)", "x^2-1", 1),
    (r"\sqrt{x^2}", "x", 0),
    ("|x|", "x", 0),
    ("i", "-i", 0),
    ("6+9i", "6 + 9i", 1),
    ("6+9i", "9", 0),
    (r"\text{no solution}", "no solution", 1),
    (r"\emptyset", r"\{\}", 1),
    (r"\frac{1}{3}", "0.333", 0),
    (r"\frac{1}{3}", "0.3333333333333333", 1),
    (r"\pi", "3.14", 0),
    (r"3.0 \times 10^8", "300000000", 1),
    (r"12\text{ hours}", "12", 1),
    (r"\text{12}", "12", 1),
    ("2,3", "(2,3)", 0),
    (r"\sqrt[3]{8}", "2", 1),
    (r"\binom{5}{2}", "10", 1),
    ("x^2y", "yx^2", 1),
    (r"\frac{a}{b}", r"\frac{b}{a}", 0),
    ("AB=5", "5", 1),
    (r"\angle A = 45^\circ", "45", 1),
    (r"\text{Navin}", "navin", 1),
    (r"\boxed{7}", "7", 1),
    (r"\fbox{7}", "7", 1),
    ("p - q", "q - p", 0),
    ("p - q", "-q + p", 1),
    (r"\sin^2 x + \cos^2 x", "1", 1),
    (r"\tan^{-1} 1", r"\frac{\pi}{4}", 1),
    (r"\ln 2 + \ln 3", r"\ln 6", 1),
    ("-2, 3", r"x=-2 \text{ or } x=3", 1),
    ("x=-2, y=3", "x=3, y=-2", 0),
    ("x=-2, y=3", "y=3, x=-2", 1),
    (r"\$1{,}200", "1200", 1),
    ("1,200,000", "1200000", 1),
    ("2^{10}", "1024", 1),
    ("2/3", r"\frac{2}{3}", 1),
    (r"\frac{2}{3}x", r"\frac{2x}{3}", 1),
    (r"x \le 3", r"(-\infty, 3]", 1),
    ("3x^2 - 2", "3x^{2}-2", 1),
    (r"10\text{ a.m.}", "10 a.m.", 1),
    (r"6 \text{ square units}", "6", 1),
    (r"\text{(A)}, \text{(C)}", "A, C", 1),
    ("C", "(C) 14", 1),
    ("14", r"\textbf{(C)}\ 14", 1),
    ("9", r"9\sqrt{2}", 0),
    (r"(0,9) \cup (9,36)", r"(0,9)\cup(9,36)", 1),
    ("x^3+3x-6", "x^3 + 3x - 6", 1),
    (r"\left(\frac{3}{5},\frac{8}{3}\right]", r"(\frac35, \frac83]", 1),
    ("3R^2", "3R^2", 1),
    (r"\frac{\pi}{6},\frac{5\pi}{6}", r"\frac{5\pi}{6}, \frac{\pi}{6}", 1),
    ("-3", "- 3", 1),
    (r"0.\overline{3}", r"\frac13", 1),
    (r"10\%", "10 percent", 1),
    ("y = -2", "-2", 1),
    ("5x", "5", 0),
    ("120", "5!", 1),
    (r"\{x | x > 2\}", r"(2, \infty)", 1),
    (r"\{x \mid -2 \le x < 1\}", "[-2, 1)", 1),
    ("2^{100}+1", "2^{100}", 0),
    ("12", "12.5", 0),
    ("yes", "no", 0),
    ("no", "on", 0),
    ("true", r"\text{True}", 1),
    ("1/2, 1/3", r"\frac13, \frac12", 1),
    (r"2\sqrt{3}+1", r"1+2\sqrt{3}", 1),
    (r"4 \text{ and } 5", r"4 \text{ and } 5 \text{ and } 6", 0),
    (r"\text{Saturday}", "Saturday.", 1),
    ("1 + 2i, 1 - 2i", r"1 \pm 2i", 1),
    (r"\infty", r"\infty", 1),
    (r"-\infty", r"\infty", 0),
    ("x = 2, x = 3", "2, 3", 1),
    (r"\frac{x}{2} + \frac{y}{3} = 1", "3x+2y=6", 1),
    ("3x+2y-6=0", "6-2y-3x=0", 1),
    (r"\mathrm{e}^{\mathrm{i}\pi}", "-1", 1),
    (r"\mathbb{R}", r"\mathbb{R}", 1),
    (r"5 \mathrm{~m/s}", r"5 \text{ m/s}", 1),
    (r"5 \mathrm{~m/s}", "5", 1),
    ("2.5 hours", "2.5", 1),
    ("x^2+y^2=4", "x^2+y^2=9", 0),
    ("x", "y", 0),
    ("2a+2b", "2(a+b)", 1),
    (r"f^{-1}(x)=\frac{x-1}{2}", r"\frac{x-1}{2}", 1),
    ("(1,2),(3,4)", "(3,4),(1,2)", 1),
]
"""Reference, what a box holds, whether the two are equal."""


def graded(reference: str, solution: str) -> float:
    return GRADER.grade(Problem("p", "q", reference), [Step(solution)])


@pytest.mark.parametrize(("reference", "answer", "right"), CASES)
def test_answers_are_compared_whole(reference: str, answer: str, right: int) -> None:
    assert graded(reference, rf"So \boxed{{{answer}}}.") == right


@pytest.mark.parametrize(("reference", "answer", "right"), CASES)
def test_equal_answers_are_one_vote(reference: str, answer: str, right: int) -> None:
    problem = Problem("p", "q", reference)
    said = GRADER.answer(problem, [Step(rf"\boxed{{{answer}}}")])
    wanted = GRADER.answer(problem, [Step(rf"\boxed{{{reference}}}")])
    assert (said == wanted) == bool(right)


@pytest.mark.parametrize("reference", [case[0] for case in CASES])
def test_every_reference_equals_itself(reference: str) -> None:
    assert graded(reference, rf"\boxed{{{reference}}}") == 1
    assert graded(rf"${reference}$", rf"\boxed{{ {reference} }}") == 1


def test_three_ways_to_write_a_half_are_one_answer() -> None:
    problem = Problem("p", "q")
    boxes = ("0.50", r"\frac12", r"x=\frac12")
    assert {GRADER.answer(problem, [Step(rf"\boxed{{{box}}}")]) for box in boxes} == {"1/2"}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"First \boxed{3}. Wait, no. \boxed{5}", "5"),
        (r"earlier \boxed{12}. Later: \boxed{1", None),
        (r"<think>\boxed{3}</think> so \boxed{4}", "4"),
        (r"<think>\boxed{3}</think> and no more", None),
        (r"<think>\boxed{3} and cut", None),
        (r"\boxed{\boxed{7}}", r"\boxed{7}"),
        (r"\boxed{\boxed{7}", None),
        (r"\boxed{}", None),
        (r"\boxed 9", "9"),
        ("#### Step 1: set up\n6 times 7 is 42.\n\n\\boxed{42}\n", "42"),
        ("#### 1. Set up the equations\nnothing else is here", None),
        ("#### Final answer: 42", "42"),
        ("Done.\n#### Step 2", None),
        ("### 42", "42"),
        ("The answer is 12 (since 3*4=12).", "12"),
        ("The answer is 12 (or 13).", "12 (or 13)"),
        ("so it costs\n#### 18.", "18"),
        ("#### **$18**", "18"),
        ("#### 1,234 dollars", "1,234 dollars"),
        ("The correct answer is (B).", "(B)"),
        ("The answer is: $\\frac12$.", "\\frac12"),
        ("The answer is 3.5.", "3.5"),
        ("So 3 + 4 = 7.", "7"),
        ("She has 12 apples.", "12"),
        ("It may be 3 or 4 or 5.", None),
        ("", None),
    ],
)
def test_where_a_solution_states_its_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_without_a_reference_nothing_is_known() -> None:
    assert math.isnan(GRADER.grade(Problem("p", "q"), [Step(r"\boxed{1}")]))
    for empty in ("", " ", "$$", "$ $"):
        assert math.isnan(GRADER.grade(Problem("p", "q", empty), [Step(r"\boxed{1}")]))
