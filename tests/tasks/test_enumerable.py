"""The enumerable world against brute force over all its solutions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.enumerable import EnumerableWorld


def leaves(world: EnumerableWorld, problem: Problem) -> list[tuple[tuple[Step, ...], float]]:
    """Every solution with its probability, by walking all branching^depth paths from the root."""
    made = []
    for path in product(range(world.branching), repeat=world.depth):
        steps: tuple[Step, ...] = ()
        chance = 1.0
        for choice in path:
            step, p, finished = world.next_steps(problem, steps)[choice]
            steps, chance = (*steps, step), chance * p
            assert finished == (len(steps) == world.depth)
        assert world.next_steps(problem, steps) == []
        made.append((steps, chance))
    return made


@pytest.mark.parametrize(("depth", "branching", "fatal"), [(1, 2, True), (4, 3, True), (5, 2, True), (5, 3, False)])
def test_values_and_first_errors_equal_brute_force_over_all_solutions(depth: int, branching: int, fatal: bool) -> None:
    world = EnumerableWorld(depth, branching, seed=3, fatal=fatal)
    for problem in world.problems(3):
        solutions = leaves(world, problem)
        assert sum(chance for _, chance in solutions) == pytest.approx(1, abs=1e-12)
        for t in range(depth + 1):
            mass: dict[tuple[Step, ...], list[float]] = {}
            for steps, chance in solutions:
                total = mass.setdefault(steps[:t], [0.0, 0.0])
                total[0] += chance
                total[1] += chance * world.grade(problem, steps)
            for prefix, (reached, won) in mass.items():
                assert world.value(problem, prefix) == pytest.approx(won / reached, abs=1e-12)
        for steps, _ in solutions:
            values = [world.value(problem, steps[: t + 1]) for t in range(depth)]
            assert world.first_error(problem, steps) == next((t for t, v in enumerate(values) if v == 0), -1)
            assert (world.grade(problem, steps) == 1) == (world.answer(problem, steps) == problem.reference)


def test_some_branches_are_right_some_wrong_and_probabilities_vary() -> None:
    world = EnumerableWorld(4, 3)
    (problem,) = world.problems(1)
    solutions = leaves(world, problem)
    grades = [world.grade(problem, steps) for steps, _ in solutions]
    assert 0 < sum(grades) < len(grades)
    assert len({round(chance, 12) for _, chance in solutions}) == len(solutions)
    table = [p for t in range(4) for _, p, _ in world.next_steps(problem, (Step("0\n"),) * t)]
    assert all(p > 0 for p in table)
    assert np.sum(table) == pytest.approx(4)


def test_a_wrong_step_loses_everything_if_fatal_and_one_is_forgiven_if_not() -> None:
    for fatal in (True, False):
        world = EnumerableWorld(5, 3, seed=1, fatal=fatal)
        (problem,) = world.problems(1)
        for steps, _ in leaves(world, problem):
            # max(1, 5 // 4) = 1 wrong step is forgiven, so the first step alone never loses a forgiving world.
            error = world.first_error(problem, steps)
            assert world.grade(problem, steps) == float(error == -1)
            assert error == -1 or all(world.value(problem, steps[: t + 1]) == 0 for t in range(error, 5))
            assert fatal or error != 0


def test_sampling_agrees_with_the_exact_value_within_four_standard_errors() -> None:
    world, n = EnumerableWorld(9, 3, seed=5), 2000
    policy = TabularPolicy(world.next_steps, world.name)
    for problem in world.problems(3):
        (made,) = policy.propose([Propose(problem, (), Key.seed(0).fold(problem.id), n=n)])
        assert all(c.finished and len(c.steps) == 9 for c in made)
        p = world.value(problem, ())
        # Four standard errors of n coin tosses: a right world fails for 1 seed in 5000.
        assert abs(np.mean([world.grade(problem, c.steps) for c in made]) - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_worlds_are_deterministic_and_differ_by_seed_and_problem() -> None:
    a, b = EnumerableWorld(12, 3, seed=1), EnumerableWorld(12, 3, seed=1)
    first, second = a.problems(2)
    assert first == b.problems(2)[0]
    assert a.value(first, ()) == b.value(first, ())
    other = EnumerableWorld(12, 3, seed=2)
    assert len({a.value(first, ()), a.value(second, ()), other.value(other.problems(1)[0], ())}) == 3
    assert a.name != other.name


def test_unfinished_solutions_fail_and_foreign_steps_are_clear_errors() -> None:
    world = EnumerableWorld(2, 2)
    (problem,) = world.problems(1)
    assert world.grade(problem, (Step("0\n"),)) == 0
    assert world.answer(problem, (Step("0\n"),)) is None
    with pytest.raises(InputError, match="step 'x'"):
        world.value(problem, (Step("x"),))
    with pytest.raises(InputError, match="3 steps"):
        world.grade(problem, (Step("0\n"),) * 3)
    with pytest.raises(ValueError, match="branching"):
        EnumerableWorld(2, 1)
