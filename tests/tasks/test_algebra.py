"""The checker of algebra: what follows, what contradicts, what is left open, and that hostile text ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cli.running import invoke

from stepreward.core.catalog import check
from stepreward.core.sandbox.bounded import Bounded
from stepreward.core.step_check import StepCheck
from stepreward.core.table import read_table
from stepreward.core.types import Problem, Step
from stepreward.tasks.equations import algebra
from stepreward.tasks.equations.algebra_judge import SolutionAlgebra, agree_at_points, contradicts, follows, judge_steps
from stepreward.tasks.equations.written_equations import chains
from stepreward.tasks.expressions import read

PROBLEM = Problem("p", "Solve it.")


def verdicts(*texts: str, problem: str = "Solve it.") -> list[bool | None]:
    return [right for right, *_ in judge_steps({"problem": problem, "steps": list(texts)})]


def said(text: str) -> tuple[Any, ...]:
    return SolutionAlgebra().step(text)


@pytest.mark.parametrize(
    ("text", "right", "kind"),
    [
        # Without letters.
        (r"$\sqrt{16} = 4$", True, ""),
        (r"$\sqrt{16} = 5$", False, "arithmetic"),
        (r"\[ \frac{8!}{2!\,6!} = 28 \]", True, ""),
        (r"$\binom{5}{2} = 12$", False, "arithmetic"),
        (r"$\sin 30^\circ = \frac12$", True, ""),
        (r"$2^{10} = 1000$", False, "arithmetic"),
        (r"$\frac{22}{7} = 3.14$", True, ""),
        (r"$\frac{22}{7} = 3$", None, ""),  # a quotient with a remainder
        (r"$\pi \approx 3.2$", True, ""),
        (r"$10 = 10$", None, ""),
        (r"$2 \text{ hours} + 1 = 120$", None, ""),
        ("3 * 4 = 13", False, "arithmetic"),
        ("So the third of 27 = 9 and we are done", None, ""),
        # Identities.
        (r"$(x+1)^2 = x^2 + 2x + 1$", True, ""),
        (r"$\frac{x^2-1}{x-1} = x+1$", True, ""),
        (r"$A = (x+1)^2 + 3 = x^2 + 2x + 4$", True, ""),
        (r"$A = (x+1)^2 + 3 = x^2 + 1 + 3$", False, "algebra"),
        (r"$(x+1)^2 = x^2 + 1$", None, ""),  # may be an equation to solve
        # Rewriting within a step.
        (r"$2x + 3 = 7$ so $2x = 4$ and thus $x = 2$.", True, ""),
        (r"\begin{align*} 2x + 3 &= 7 \\ 2x &= 10 \end{align*}", False, "contradiction"),
        (r"Case 1: $2x + 3 = 7$. Case 2: $2x + 3 = 9$.", None, ""),
        (r"$x = 2$ and $x = 3$", None, ""),
        (r"$f(2) = 5$, $f(2) = 6$", None, ""),
        (r"$x < 2 = 3$", None, ""),
        ("Nothing to see.", None, ""),
    ],
)  # fmt: skip
def test_steps(text: str, right: bool | None, kind: str) -> None:
    made = said(text)
    assert (made[0], made[1] if right is False else "") == (right, kind)


def test_what_follows_from_earlier_steps_and_the_problem() -> None:
    assert verdicts("$x + y = 10$", "$x - y = 2$", "$2x = 12$", "$x = 6$", "$y = 4$") == [None, None, True, True, True]
    assert verdicts("$2x = 12$", "$x = 6$", "$y = 5$", problem="$x + y = 10$, $x - y = 2$.") == [True, True, None]
    # What is only tried is not known afterwards.
    assert verdicts("If $x = 1$ then", "$x + 1 = 2$") == [None, None]
    # Nothing follows from a contradiction, from which everything would.
    assert verdicts("$x = 1$", "$y + x = 5$", "$x + 1 = 5$", "$y = 77$")[-1] is None


def equation(text: str) -> Any:
    left, _, right = text.partition("=")
    return read(left), read(right)


@given(a=st.integers(-9, 9).filter(bool), b=st.integers(-20, 20), c=st.integers(-20, 20), d=st.integers(-9, 9))
def test_linear_equations_against_their_solutions(a: int, b: int, c: int, d: int) -> None:
    """a x + b = c has the one solution (c - b) / a: x = d follows iff it is that, and contradicts otherwise."""
    known, claim = equation(f"{a}x + {b} = {c}".replace("+ -", "- ")), equation(f"x = {d}")
    is_solution = a * d + b == c
    assert follows([known], claim) is is_solution
    assert contradicts(known, claim) is not is_solution


@given(roots=st.tuples(st.integers(-5, 5), st.integers(-5, 5)), d=st.integers(-6, 6))
def test_quadratic_equations_against_their_roots(roots: tuple[int, int], d: int) -> None:
    p, q = roots
    known = equation(f"x^2 - ({p + q})x + ({p * q}) = 0")
    assert contradicts(known, equation(f"x = {d}")) is (d not in roots)
    # A root follows only where it is the only one, and then only without its multiplicity.
    assert follows([equation(f"x = {d}")], known) is (d in roots)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=4), st.lists(st.integers(-5, 5), min_size=1, max_size=4))
def test_identities_against_coefficients(one: list[int], other: list[int]) -> None:
    def text(coefficients: list[int]) -> str:
        return " + ".join(f"({c})x^{i}" for i, c in enumerate(coefficients))

    size = max(len(one), len(other))
    same = one + [0] * (size - len(one)) == other + [0] * (size - len(other))
    assert agree_at_points((read(text(one)), read(text(other)))) is same


def test_chains_are_found_in_every_notation() -> None:
    text = r"We get \[ a = b \\ &= c, \quad d = 1{,}000 \implies (x, y) = (1, 2) \] and $e \neq f = g$"
    assert [chain.sides for chain in chains(text)] == [("a", "b", "c"), ("d", "1000"), ("(x, y)", "(1, 2)")]
    assert [chain.sides for chain in chains("Thus A = (1 + 2) * 3 = 9. Next")] == [("(1 + 2) * 3", "9")]
    assert [chain.exact for chain in chains(r"$a = b \approx c$")] == [(True, False)]


PIECES = [*"x12+-=^*/(){}[]$\\ ,.\n", r"\frac", r"\sqrt", " if ", r"\implies "]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=80).map("".join))
def test_any_text_is_read(text: str) -> None:
    assert said(f"${text}$")[0] in (True, False, None)
    assert said(text)[0] in (True, False, None)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text", [
        r"$9^{9^{9^9}} = 1$", "$(10^9)! = 3$", r"$(x+y+z)^{200} = 1$", "$" + "(" * 5000 + "1 = 1$",
        "$" + "+".join(f"x_{i}^4 y^4 z^4" for i in range(99)) + " = 1$", "x = 1, " * 3000, "$a = " * 3000,
        r"$x^4y^3 + z^4 = 1, y^4z^3 + x^2 = 2, z^4x^3 + y = 3, x^4 + y^4 + z^4 = 5, x = y$",
    ], ids=range(8),
)  # fmt: skip
def test_hostile_text_ends(text: str) -> None:
    (made,) = check["algebra"].take({"problem": PROBLEM, "steps": (Step(text),)})
    assert made.right in (True, False, None)


def test_a_solution_that_reaches_a_limit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping = Bounded("time:sleep", seconds=0.2)
    monkeypatch.setattr(algebra, "_judged", lambda: lambda job: sleeping(60))
    steps = (Step("$1 + 1 = 3$"), Step("seen", kind="observation"))
    assert algebra.check_algebra(PROBLEM, steps) == [StepCheck(None, "limit"), StepCheck(None)]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    steps = ["$2x + 3 = 7$\n", "$2x = 4$\n", "$x = 2$, and $2^3 = 9$\n", "3 + 4 = 8\n"]
    row = {"prompt": "Solve.", "completions": steps, "labels": [True] * 4}
    Path("solutions.jsonl").write_text(json.dumps(row) + "\n")
    invoke("label --data solutions.jsonl --estimator checker --set checker=algebra+equations --out labels")
    (made,) = read_table(Path("labels") / "labels.parquet")
    np.testing.assert_array_equal(made.labels, [np.nan, 1, 0, 0])
    assert [(one["kind"], one["claim"]) for one in made.facts["step_errors"]] == [
        ("arithmetic", "2^3 = 9"), ("arithmetic", "3 + 4 = 8"),
    ]  # fmt: skip
