"""The tool scorer: hand-worked equations in every notation, generated ones, and input that wants to hurt."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.score.tools.arithmetic_text import NotArithmeticError, Parser, tokens
from stepreward.score.tools.equations import ToolScorer, equations, plain

WHOLE = st.integers(1, 500)
OPERATORS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
TIMES, DOT, SIGNS = {"*": r"\times"}, {"*": r"\cdot"}, {"*": "\u00d7", "-": "\u2212"}
NOTATIONS = {
    "plain": lambda a, o, b, c: f"{a} {o} {b} = {c}",
    "tight": lambda a, o, b, c: f"{a}{o}{b}={c}",
    "units": lambda a, o, b, c: f"So {a} red apples {o} {b} apples/day = {c} apples in all.",
    "money": lambda a, o, b, c: f"It costs ${a} {o} ${b} = ${c}.",
    "calculator": lambda a, o, b, c: f"They are <<{a}{o}{b}={c}>> many",
    "latex": lambda a, o, b, c: rf"\[ {a} {TIMES.get(o, o)} {b} = {c} \]",
    "dot": lambda a, o, b, c: rf"we get ${a} {DOT.get(o, o)} {b} = {c}$, so",
    "text": lambda a, o, b, c: rf"\({a} \text{{ kg}} {o} {b} = \boxed{{{c}}} \text{{ kg}}\)",
    "commas": lambda a, o, b, c: f"{a:,} {o} {b:,} = {c:,}",
    "chain": lambda a, o, b, c: f"total = {a} {o} {b} = {c}",
    "unicode": lambda a, o, b, c: f"{a} {SIGNS.get(o, o)} {b} = {c}",
}


def verdicts(text: str) -> list[bool]:
    return [equation.holds for equation in equations(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("33 classes * 15 students/class = 495 students", [True]),
        ("495 students * $15/student = $7455.", [False]),  # 495 * 15 = 7425
        (r"\frac{80 \text{ GB}}{2 \text{ GB/minute}} = 40 \text{ minutes}", [True]),
        (r"\frac{1}{2} + \frac{1}{3} = \frac{5}{6}", [True]),
        (r"\frac{\frac{1}{2}}{3} = \frac{1}{6}", [True]),
        (r"3\frac{1}{5} = \frac{16}{5} * 1", [True]),  # a mixed number
        ("20% of 50 = 10", [True]),
        ("1/3 of 18 = 6", [True]),
        ("30/40 = 75%", [True]),
        ("30/40 * 100 = 75%", [True]),
        ("30/40 = 76%", [False]),
        ("1/3 * 100 = 33.3%", [True]),
        ("20% * 5 = 100.5", [False]),
        ("10/3 = 3.33", [True]),
        ("10/3 = 3.3", [True]),
        ("10/3 = 3.43", [False]),
        ("1.25 * 3 = 3.74", [False]),
        ("22/7 ≈ 3", [True]),
        ("100 * 1.23 ≈ 150", [False]),
        ("<<48/2=24>>24", [True]),
        ("48/2 = <<48/2=24>>25 clips", [True, False]),
        ("2 + 3 = 5 + 1 = 6", [False, True]),
        ("-2^2 = -4 * 1", [True]),
        ("2^3^2 = 512", [True]),
        ("(3/4)*(16)=12 and 2(3 + 4) = 15", [True, False]),
        ("8 - 3 - 2 = 3, 16 / 4 / 2 = 2", [True, True]),
        ("5 million * 2 = 10 million", [True]),
        ("5 times 4 = 20", [True]),
        ("20 x 40 = 80", [False]),
        (r"9 \text{ eggs} \times \$2 \text{ per egg} = \$18", [True]),
        ("$1,200.50 + $99.50 = $1,300", [True]),
        ("Area: (5 cm)(3 cm) = 15 cm^2", [True]),
    ],
)
def test_hand_worked_equations(text: str, expected: list[bool]) -> None:
    assert verdicts(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "There is nothing here.",
        "2x + 3 = 7",
        "x = 3",
        "x + 3 + 4 = 9",
        "3 + 4 = 7x",
        "6 = 2 * y",
        "f(3) = 9",
        "gcd(12, 18) = 7",
        "1 week = 7 days",
        "5 days a week = 6 * 6 tasks",
        "5 boxes = 6 * 6 tasks",
        "the number 12 = 5 * 5",
        "sin(3 + 1) = 9",
        "1 hour + 30 minutes = 90 minutes",
        "50 cents + $1 = $1.50",
        "2 dozen * 3 = 72",
        "17/3 = 5 with 2 left",
        "100 - 20% = 80",
        "2 / 1/5 = 10",
        "5! = 5 * 24",
        "101_2 = 4 + 2",
        r"\sqrt{3 + 1} = 5",
        r"17 \equiv 3 + 1",
        "3 + 4 < 8 = 2",
        "12:30 + 3 = 20",
        "- 3 + 5 = 8",
        "1 / 0 = 5",
        "a = b = c",
        "It is 5 km + 300 m = 5300 m",
        "=", "3 =", "= 4", "== ==", "",
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_left_out(text: str) -> None:
    assert equations(text) == []


@given(a=WHOLE, b=WHOLE, operator=st.sampled_from(sorted(OPERATORS)), how=st.sampled_from(sorted(NOTATIONS)))
def test_true_equations_hold_in_every_notation(a: int, b: int, operator: str, how: str) -> None:
    found = verdicts(NOTATIONS[how](a, operator, b, OPERATORS[operator](a, b)))
    assert found == [True]


@given(
    a=WHOLE, b=WHOLE, off=st.integers(-50, 50).filter(bool), operator=st.sampled_from(sorted(OPERATORS)),
    how=st.sampled_from(sorted(NOTATIONS)),
)  # fmt: skip
def test_false_equations_fail_in_every_notation(a: int, b: int, off: int, operator: str, how: str) -> None:
    found = verdicts(NOTATIONS[how](a, operator, b, OPERATORS[operator](a, b) + off))
    assert found == [False]


@given(a=WHOLE, b=st.integers(2, 60), places=st.integers(1, 6))
def test_a_rounded_quotient_holds_and_one_two_units_off_does_not(a: int, b: int, places: int) -> None:
    unit = Fraction(1, 10**places)
    rounded = round(Fraction(a, b) / unit) * unit
    wrong = rounded + 2 * unit
    assert verdicts(f"{a} / {b} = {float(rounded):.{places}f}") == [True]
    assert verdicts(f"{a} / {b} = {float(wrong):.{places}f}") != [True]


EXPRESSION = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=8,
)


@given(EXPRESSION)
def test_parsing_agrees_with_pythons_own_on_fractions(text: str) -> None:
    literal = "".join(f"F({token.text})" if token.kind == "num" else token.text for token in tokens(text))
    try:
        expected = eval(literal, {"F": Fraction})  # the oracle, on generated text
    except ZeroDivisionError:
        with pytest.raises(NotArithmeticError):
            Parser(tokens(text)).parse()
        return
    assert Parser(tokens(text)).parse().value == expected


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9 = 1",
        "9^9^9^9 + 1 = 3",
        "2^(-99999999) + 1 = 3",
        "(" * 5000 + "1" + ")" * 5000 + " + 1 = 1",
        "1+" * 10_000 + "1 = 2",
        "= " * 20_000,
        "1 = " * 9000,
        "1" * 50_000 + " + 1 = 2",
        "2^" * 5000 + "2 = 1",
        r"\frac{1}{" * 4000,
        r"\text{" * 5000,
        "<<" * 10_000,
        "1 + 1 = 2 apples " * 3000,
        "7 apples " * 3000 + " + 1 = 4",
        "$" * 20_000,
        "- " * 60 + "1 = 1 * 1",
        "9" * 39 + "^" + "9" * 3 + " + 1 = 1",
        "__import__('os').system('true') = 1 + 1",
    ],
    ids=range(18),
)  # fmt: skip
def test_hostile_text_ends_soon(text: str) -> None:
    start = time.process_time()
    ToolScorer().score_text(text)
    assert time.process_time() - start < 20


@given(st.text(alphabet="0123456789+-*/^=().,$% x\\{}<>abfracte\n", max_size=80))
def test_no_text_raises(text: str) -> None:
    assert ToolScorer().score_text(text) in (0.0, 0.8, 1.0)


def test_scores_are_one_zero_or_neutral_and_nan_at_observations() -> None:
    steps = (
        Step("3 + 4 = 7\n"),
        Step("Then we think.\n"),
        Step("3 + 4 = 7 and 7 * 2 = 15\n"),
        Step("tool says 1 + 1 = 3\n", kind="observation"),
    )
    (scored,) = ToolScorer(neutral=0.6).score_many([Score(Problem("p", "?"), steps)])
    np.testing.assert_array_equal(scored.scores, [1.0, 0.6, 0.0, np.nan])
    assert scored.tokens == 0


def test_neutral_outside_the_unit_interval_is_refused() -> None:
    for wrong in (-0.1, 1.5):
        with pytest.raises(ValueError, match="neutral must be in"):
            ToolScorer(neutral=wrong)
    assert [ToolScorer(neutral=end).score_text("So it is.") for end in (0.0, 1.0)] == [0.0, 1.0]


def test_the_name_tells_scorers_apart() -> None:
    assert ToolScorer(neutral=0.5).name != ToolScorer(neutral=0.6).name


def test_latex_becomes_plain_arithmetic() -> None:
    assert plain(r"\dfrac{3}{4}").replace(" ", "") == "((3)/(4))"
    assert plain(r"10{,}000 \div 2").split() == ["10,000", "/", "2"]
