"""Satisfiability problems and random calculations: truth by slow loops and by another solver, graders, commands."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from itertools import combinations, islice, product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.cli.running import invoke

from stepreward.core.catalog import generate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step
from stepreward.score.tools.arithmetic_text import Parser, tokens
from stepreward.tasks.generated.calculations import CalculationGrader, calculations, closeness, value_of
from stepreward.tasks.generated.satisfiability import SatGrader, Task, held, is_right, right_answer, sat_problems
from stepreward.tasks.graders import grader_by_name

TASKS = get_args(Task)
CLAUSES = st.lists(
    st.lists(st.sampled_from([-3, -2, -1, 1, 2, 3]), min_size=1, max_size=3), min_size=1, max_size=6
)  # fmt: skip


def satisfied(clauses: Any, bits: str) -> int:
    """How many clauses hold, one literal after another."""
    return sum(any((bits[abs(one) - 1] == "1") == (one > 0) for one in clause) for clause in clauses)


def possible(clauses: Any) -> bool:
    return any(satisfied(clauses, "".join(bits)) == len(clauses) for bits in product("01", repeat=3))


@given(CLAUSES)
def test_answers_are_right_exactly_where_slow_loops_say_so(clauses: list[list[int]]) -> None:
    can = possible(clauses)
    assert is_right("decide", clauses, 3, "SAT") is can
    assert is_right("decide", clauses, 3, "unsat") is not can
    every = ["".join(bits) for bits in product("01", repeat=3)]
    best = max(satisfied(clauses, bits) for bits in every)
    for bits in every:
        assert is_right("solve", clauses, 3, bits) is (satisfied(clauses, bits) == len(clauses))
        assert is_right("max", clauses, 3, bits) is (satisfied(clauses, bits) == best)
    numbers = range(len(clauses))
    for some in (set(one) for size in numbers for one in combinations(numbers, size + 1)):
        left, said = [clauses[at] for at in numbers if at not in some], ",".join(str(at + 1) for at in some)
        smallest = possible(left) and not any(possible([*left, clauses[one]]) for one in some)
        assert is_right("correction", clauses, 3, said) is smallest
        taken = [clauses[at] for at in some]
        without = [[clauses[at] for at in some if at != one] for one in some]
        assert is_right("conflict", clauses, 3, said) is (not possible(taken) and all(map(possible, without)))


@given(CLAUSES, st.sampled_from(TASKS))
def test_the_right_answer_is_right(clauses: list[list[int]], task: Task) -> None:
    answer = right_answer(task, clauses, 3)
    if answer is None:
        assert possible(clauses) is (task != "solve")
    else:
        assert is_right(task, clauses, 3, answer)


@given(CLAUSES)
def test_another_solver_agrees(clauses: list[list[int]]) -> None:
    solvers = pytest.importorskip("pysat.solvers", reason="needs python-sat")
    examples, formula = pytest.importorskip("pysat.examples.rc2"), pytest.importorskip("pysat.formula")
    assume(not any(-one in clause for clause in clauses for one in clause))
    with solvers.Solver(bootstrap_with=clauses) as solver:
        assert is_right("decide", clauses, 3, "SAT") is solver.solve()
    weighted = formula.WCNF()
    for clause in clauses:
        weighted.append(clause, weight=1)
    with examples.RC2(weighted) as optimum:
        optimum.compute()
        assert optimum.cost == len(clauses) - satisfied(clauses, str(right_answer("max", clauses, 3)))


@pytest.mark.parametrize("task", TASKS)
def test_generated_problems_are_gradable_and_follow_from_their_key(task: Task) -> None:
    grader, made = SatGrader(), list(islice(sat_problems(Key.seed(1), task=task, most=12), 20))
    assert made == list(islice(sat_problems(Key.seed(1), task=task, most=12), 20))
    for one in made:
        assert one.reference is not None
        assert grader.grade(one, [Step(f"So \\boxed{{{one.reference}}}.")]) == 1.0
        assert grader.grade(one, [Step("The answer is unclear")]) == 0.0
        assert 3 <= one.meta["variables"] <= 12
        assert len(one.meta["clauses"]) == 4 * one.meta["variables"]
        assert f"{len(one.meta['clauses'])}. " in one.text
    assert {one.reference for one in made} == {"SAT", "UNSAT"} or task != "decide"


def test_the_layout_of_solvers() -> None:
    (one,) = islice(sat_problems(Key.seed(2), task="solve", style="dimacs"), 1)
    head, *lines = one.text.partition("\n\n")[0].splitlines()
    assert head == f"p cnf {one.meta['variables']} {len(one.meta['clauses'])}"
    assert [[*map(int, line.split())][:-1] for line in lines] == one.meta["clauses"]


@pytest.mark.parametrize("answer", ["", "2", "0", "1,,2", "a", "1" * 500, "99999", "-1"])
@pytest.mark.parametrize("task", TASKS)
def test_other_answers_are_wrong(task: Task, answer: str) -> None:
    assert not is_right(task, [[1], [-1]], 2, answer) or (task, answer) == ("correction", "2")


def test_other_problems_and_settings_are_refused() -> None:
    with pytest.raises(InputError, match="'p' has no task, variables and clauses"):
        SatGrader().grade(Problem("p", "?", "SAT"), [Step("SAT")])
    with pytest.raises(ValueError, match="1 to 16 variables, got 17"):
        held([[17]], 17)
    for settings in ({"fewest": 5, "most": 4}, {"task": "guess"}, {"style": "story"}):
        with pytest.raises(ValueError, match="expected 2 <= fewest"):
            next(generate["sat"].take({"key": Key.seed(0)}, **settings))
    with pytest.raises(ValueError, match="1 <= fewest <= most"):
        next(calculations(Key.seed(0), fewest=3, most=2))


def test_calculations_against_another_parser() -> None:
    made = list(islice(calculations(Key.seed(3), fewest=1, most=20), 200))
    assert len({one.text for one in made}) == 200
    for one in made:
        read = Parser(tokens(one.meta["expression"])).parse()
        assert read.end == len(tokens(one.meta["expression"]))
        assert Fraction(str(one.reference)) == read.value
        assert 1 <= len(re.findall(r" [-+*/] ", one.meta["expression"])) <= 20
    assert CalculationGrader().grade(made[0], [Step(f"\\boxed{{{made[0].reference}}}")]) == 1.0


def test_the_numbers_of_the_reward() -> None:
    f = Fraction
    assert closeness(f(3), f(3)) == 1.0
    # 1 - .5 * .2 - .5 * .02
    assert closeness(f("10.2"), f(10)) == pytest.approx(0.89, abs=1e-6)
    # The relative part is cut at 1.
    assert closeness(f("0.5"), f(0)) == pytest.approx(0.25)
    assert closeness(f(15), f(10)) == pytest.approx(0.25, abs=1e-6)
    assert closeness(f(100), f(1)) == 0.0


@given(st.fractions(max_denominator=99, min_value=-99, max_value=99), st.fractions(-99, 99, max_denominator=99))
def test_the_reward_falls_with_distance(truth: Fraction, answer: Fraction) -> None:
    made = closeness(answer, truth)
    assert 0 <= made <= 1
    assert (made == 1) is (answer == truth)
    assert closeness(truth + 2 * (answer - truth), truth) <= made


@pytest.mark.parametrize(
    ("text", "value"), [
        ("12/5", "12/5"), (r"-\frac{12}{5}", "-12/5"), ("2.4", "12/5"), ("$1,200$", "1200"), ("-.5", "-1/2"),
        (r"\dfrac{3}{-4}", "-3/4"), ("1/0", None), ("x", None), ("", None), ("1e9", None), ("1/2/3", None),
    ],
)  # fmt: skip
def test_values(text: str, value: str | None) -> None:
    assert value_of(text) == (None if value is None else Fraction(value))


def test_grades_of_calculations() -> None:
    grader, problem = CalculationGrader(), Problem("p", "?", "10")
    assert grader.grade(problem, [Step("It is 3."), Step("The answer is x = 10.2")]) == pytest.approx(0.89, abs=1e-6)
    assert grader.grade(problem, [Step("I do not know")]) == 0.0
    assert grader.answer(problem, [Step(r"\boxed{4/6}")]) == "2/3"
    assert np.isnan(grader.grade(Problem("p", "?"), [Step(r"\boxed{1}")]))
    assert np.isnan(grader.grade(Problem("p", "?", "ten"), [Step(r"\boxed{1}")]))


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("generate sat --n 5 --set task=conflict --set most=6 --out sat.jsonl")
    invoke("generate random-calculation --n 5 --out sums.jsonl")
    for name, grader in (("sat", "sat"), ("sums", "calculation")):
        rows = [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()]
        known = {"id", "prompt", "reference"}
        for row in rows:
            meta = {name: value for name, value in row.items() if name not in known}
            problem = Problem(row["id"], row["prompt"], row["reference"], meta)
            assert grader_by_name(grader).grade(problem, [Step(rf"\boxed{{{row['reference']}}}")]) == 1.0
    said = invoke("generate sat --out sat.jsonl --set most=2", status=1)
    assert said == ""
