"""When to ask: plans against all plans of small chains, tables against what the search then does."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.expert import WithExpert
from stepreward.policies.tabular import TabularPolicy
from stepreward.search.intervention_tables import (
    ASKED,
    InterventionTable,
    Transitions,
    evaluate_interventions,
    fit_interventions,
    following,
    load_table,
    plan_at,
    plan_within,
)
from tests.cli.running import invoke, refused
from tests.search.test_repair import WORLD, Checker, right_steps, run

HORIZON, STATES = 3, 2


def chain(seed: int) -> Transitions:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(STATES + 1), (HORIZON, 2, STATES))
    return Transitions(shares[..., :STATES], shares[..., STATES] * rng.random((HORIZON, 2, STATES)))


def worth(ask: np.ndarray, made: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """Value and questions of a plan, step by step."""
    value, uses = np.zeros(STATES), np.zeros(STATES)
    for t in range(HORIZON - 1, -1, -1):
        row = ask[t].astype(int)
        value, uses = (
            np.array([made.reward[t, a, s] + made.to[t, a, s] @ value for s, a in enumerate(row)]),
            np.array([a + made.to[t, a, s] @ uses for s, a in enumerate(row)]),
        )
    return value, uses


def all_plans() -> list[np.ndarray]:
    cells = itertools.product([False, True], repeat=HORIZON * STATES)
    return [np.array(one).reshape(HORIZON, STATES) for one in cells]


@given(st.integers(0, 2**32), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_no_plan_is_better_at_its_price(seed: int, price: float) -> None:
    made = chain(seed)
    plan = plan_at(price, made)
    value, uses = worth(plan.ask, made)
    np.testing.assert_allclose(plan.value, value)
    np.testing.assert_allclose(plan.uses, uses)
    best = np.max([v - price * u for v, u in (worth(ask, made) for ask in all_plans())], axis=0)
    np.testing.assert_allclose(plan.value - price * plan.uses, best, atol=1e-9)


@given(st.integers(0, 2**32), st.floats(0, 3))
@settings(max_examples=25, deadline=None)
def test_no_plan_that_asks_as_little_is_worth_more(seed: int, budget: float) -> None:
    made = chain(seed)
    plan, price = plan_within(budget, made, 1)
    assert plan.uses[1] <= budget + 1e-12
    for value, uses in (worth(ask, made) for ask in all_plans()):
        if uses[1] <= plan.uses[1] + 1e-12:
            assert value[1] <= plan.value[1] + 1e-6
    dearer = [plan_at(price + more, made).uses[1] for more in (0.0, 0.05, 0.2, 2.0)]
    assert dearer == sorted(dearer, reverse=True)
    assert dearer[-1] == 0


def test_by_hand() -> None:
    """One step, from one state: act wins .5, ask .9. The gain of .4 is worth a question up to a price of .4."""
    made = Transitions(np.zeros((1, 2, 1, 1)), np.array([[[0.5], [0.9]]]))
    assert plan_at(0.39, made).ask.tolist() == [[True]]
    assert plan_at(0.4, made).ask.tolist() == [[False]]
    plan, price = plan_within(0.5, made, 0)
    assert (plan.uses[0], plan.value[0]) == (0.0, 0.5)
    assert price == pytest.approx(0.4, abs=1e-6)
    plan, price = plan_within(1.0, made, 0)
    assert (plan.uses[0], plan.value[0], price) == (1.0, 0.9, 0.0)


def solution(*scored: tuple[float, bool], outcome: float) -> Trajectory:
    steps = tuple(Step(f"{at}\n", meta={ASKED: True} if asked else {}) for at, (_, asked) in enumerate(scored))
    columns = {"score": np.array([score for score, _ in scored])}
    return Trajectory(Problem("p", "?"), steps, outcome, columns=columns)


def test_a_table_fitted_by_hand() -> None:
    """Two steps. The first leads to a score of .2 or .8 alike. Behind .8 one's own step wins always; behind .2 it
    never does, and a question always: so of one half of a question a solution, all of it is asked behind .2."""
    rows = [
        solution((0.2, False), (0.1, False), outcome=0.0), solution((0.2, False), (0.9, True), outcome=1.0),
        solution((0.8, False), (0.9, False), outcome=1.0), solution((0.8, False), (0.9, True), outcome=1.0),
        solution((0.8, True), (0.9, False), outcome=1.0), solution((0.2, True), (0.1, False), outcome=0.0),
    ]  # fmt: skip
    made = fit_interventions(rows, budget=0.5, bins=2)
    assert made.edges == (0.5,)
    assert (made.value, made.uses, made.without) == (1.0, 0.5, 0.5)
    assert [made.asks(1, 0.2), made.asks(1, 0.8), made.asks(0, float("nan"))] == [True, False, False]
    assert made.asks(1, 0.5), "a bin ends with its edge"
    none = fit_interventions(rows, budget=0.4, bins=2)
    assert (none.value, none.uses) == (0.5, 0.0)
    assert not any(map(any, none.ask))


def helped(problem: Problem, prefix: tuple[Step, ...]) -> list[tuple[Step, float, bool]]:
    """An expert that is right where it still can be."""
    return right_steps(problem, prefix) or [*WORLD.next_steps(problem, prefix)]


def searched(count: int, **how: object) -> list[tuple[Trajectory, int]]:
    """What the search finds in a world of known truth, graded, and how often the expert was asked."""
    policy = WithExpert(TabularPolicy(WORLD.next_steps), TabularPolicy(helped, "expert"))
    problems = WORLD.problems(count)
    made = run("intervention", problems, policy, Checker(WORLD.first_error), WORLD, **how)
    found = []
    for one in made:
        trajectory = one.result.trajectory
        assert trajectory is not None
        outcome = float(one.result.answer == "right")
        graded = Trajectory(trajectory.problem, trajectory.steps, outcome, columns=trajectory.columns)
        found.append((graded, one.bill.expert_tokens))
    return found


def test_a_table_is_fitted_to_what_a_search_collects_and_followed_by_it(tmp_path: Path) -> None:
    collected = searched(400, random=0.4, most=99)
    for row, asked in collected:
        assert sum(bool(step.meta.get(ASKED)) for step in row.steps) == asked
    share = np.mean([bool(s.meta.get(ASKED)) for row, _ in collected for s in row.steps])
    assert 0.3 < share < 0.5
    table = fit_interventions([row for row, _ in collected], budget=1.0)
    assert table.uses <= 1.0
    assert table.value > table.without
    path = tmp_path / "table.json"
    table.save(path)
    assert load_table(path) == table
    followed = searched(400, table=str(path), most=99)
    uses = np.array([asked for _, asked in followed], float)
    solved = np.array([row.outcome for row, _ in followed])
    plain = np.array([row.outcome for row, _ in searched(400, most=0)])
    error = 4 * np.sqrt(0.25 / 400 + 0.25 / 400)
    assert abs(solved.mean() - table.value) < error
    assert abs(plain.mean() - table.without) < error
    assert uses.mean() < 1.0 + 4 * uses.std() / 20
    assert solved.mean() > plain.mean()


def test_a_table_is_measured_on_other_solutions(tmp_path: Path) -> None:
    rows = [row for row, _ in searched(400, random=0.4, most=99)]
    table = fit_interventions(rows[:200], budget=1.0)
    other = evaluate_interventions(table, rows[200:], draws=200)
    assert set(other) == {"value", "value_never", "value_always", "uses", "uses_always", "gain"}
    assert all(one.low <= one.value <= one.high for one in other.values())
    assert other["gain"].value == pytest.approx(other["value"].value - other["value_never"].value)
    assert other["value_always"].value > other["value_never"].value
    # A question at every step: as many as steps, of which a world's solution has as many as it is deep.
    assert other["uses_always"].value == pytest.approx(WORLD.depth)
    # What a search does with the table is what the held-out chain says, to four standard errors.
    path = tmp_path / "table.json"
    table.save(path)
    followed = searched(400, table=str(path), most=99)
    solved = np.mean([row.outcome for row, _ in followed])
    assert abs(solved - other["value"].value) < 4 * np.sqrt(0.25 / 400 + 0.25 / 200)


def test_decisions_that_are_followed_are_worth_what_a_slow_count_says() -> None:
    made = chain(5)
    for ask in all_plans():
        plan = following(ask, made)
        value, uses = worth(ask, made)
        np.testing.assert_allclose(plan.value, value)
        np.testing.assert_allclose(plan.uses, uses)


def test_what_cannot_be_fitted_or_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no solution has an outcome"):
        fit_interventions([], budget=1)
    with pytest.raises(InputError, match=r"of 1 steps 0 were asked for.*random=0.3"):
        fit_interventions([solution((0.5, False), outcome=1.0)], budget=1)
    with pytest.raises(ValueError, match="budget of at least 0"):
        fit_interventions([], budget=-1)
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(InputError, match="is no table of interventions"):
        load_table(tmp_path / "no.json")


def test_what_no_solution_tells_is_no_number() -> None:
    """Nobody was asked, so that nothing says what a question is worth; of one problem in two, half of the resamples."""
    asked, alone = solution((0.5, True), outcome=1.0), solution((0.5, False), outcome=0.0)
    table = fit_interventions([asked, alone], budget=1.0)
    with pytest.raises(InputError, match=r"of 1 steps 0 were asked for.*random=0.3"):
        evaluate_interventions(table, [alone])
    other = replace(alone, problem=Problem("other", "?"))
    made = evaluate_interventions(table, [asked, other], draws=100)
    assert {name: (one.value, one.low, one.high) for name, one in made.items() if "uses" not in name} == {
        "value": (1, 1, 1), "value_never": (0, 0, 0), "value_always": (1, 1, 1), "gain": (1, 1, 1),
    }  # fmt: skip


def test_a_table_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    for price in (0.25, 0.5):
        InterventionTable((0.5,), ((True, False, True),), price, 0.0, 0.0, 0.0).save(tmp_path / "table.json")
        assert load_table(tmp_path / "table.json").price == price


@pytest.mark.parametrize(
    ("edges", "ask", "what"),
    [
        ([], [], "rows of 2 true or false"), ([0.5], [[True, False]], "rows of 3 true or false"),
        ([], [["yes", "no"]], "rows of 2 true or false"), ([0.5, 0.25], [[True] * 4], "do not ascend"),
        (["a"], [[True] * 3], "could not convert"), ([None], [[True] * 3, [True]], "rows of 3 true or false"),
    ],
)  # fmt: skip
def test_a_table_with_a_state_without_a_decision_is_none(
    edges: list[object], ask: list[object], what: str, tmp_path: Path
) -> None:
    row = {"edges": edges, "ask": ask, **dict.fromkeys(("price", "value", "uses", "without"), 0.0)}
    (tmp_path / "table.json").write_text(json.dumps(row))
    with pytest.raises(InputError, match=f"is no table of interventions.*{what}"):
        load_table(tmp_path / "table.json")


def test_solutions_that_tell_nothing_are_named(tmp_path: Path) -> None:
    rows = [solution((0.5, True), outcome=1.0), solution((0.5, False), outcome=0.0), solution((0.5, False), outcome=1)]
    rows += [replace(rows[0], outcome=float("nan")), replace(rows[0], columns={})]
    stepreward.write(tmp_path / "rows.parquet", rows)
    told = json.loads(invoke(f"interventions fit {tmp_path / 'rows.parquet'} --out {tmp_path / 'table.json'} --json"))
    assert (told["solutions"], told["left_out"]) == (3, 2)
    line = ["interventions", "evaluate", str(tmp_path / "rows.parquet"), "--table", str(tmp_path / "table.json")]
    said = CliRunner().invoke(app, line).stderr
    assert "row 4: the solution of 'p' has no outcome; grade and score it first" in said
    assert "row 5: the solution of 'p' has no column 'score'" in said


def test_a_table_is_asked_beyond_its_last_step_as_at_it() -> None:
    table = InterventionTable((), ((True, False), (False, True)), 0.0, 0.0, 0.0, 0.0)
    assert [table.asks(step, 0.5) for step in range(4)] == [True, False, False, False]
    assert [table.asks(step, float("nan")) for step in range(4)] == [False, True, True, True]


def test_collect_fit_and_search_on_the_command_line(tmp_path: Path) -> None:
    problems, collected, table = (tmp_path / name for name in ("problems.jsonl", "collected.jsonl", "table.json"))
    invoke(f"generate arithmetic --n 3 --out {problems} --set split=held_out")
    command = f"search --problems {problems} --grader arithmetic --model tool --method intervention"
    command += " --expert builtin:arithmetic --set most=99"
    invoke(f"{command} --set random=0.5 --out {collected}")
    told = json.loads(invoke(f"interventions fit {collected} --questions 1 --out {table} --json"))
    made = fit_interventions(stepreward.read(collected), budget=1)
    assert load_table(table) == made
    assert (told["value"], told["uses"], told["without"]) == (made.value, made.uses, made.without)
    shares = json.loads(invoke(f"interventions evaluate {collected} --table {table} --json"))
    # On the rows that it was fitted to, the table is worth what it says.
    assert shares["value"]["value"] == pytest.approx(made.value)
    assert shares["uses"]["value"] == pytest.approx(made.uses)
    assert shares["value_never"]["value"] == pytest.approx(made.without)
    assert "uses always: " in invoke(f"interventions evaluate {collected} --table {table}")
    told = json.loads(invoke(f"{command} --set table={table} --out {tmp_path / 'asked.jsonl'} --json"))
    assert told["problems"] == 3
    rows = [*stepreward.read(tmp_path / "asked.jsonl")]
    for row in rows:
        scores = row.column("score")[row.action]
        asked = [bool(step.meta.get(ASKED)) for step in row.steps if step.kind == "action"]
        before = [float("nan"), *scores[:-1]]
        assert asked == [made.asks(at, score) for at, score in enumerate(before)]
    told = invoke(f"{command} --set table={tmp_path / 'no.json'} --out {tmp_path / 'no.jsonl'}", status=1)


def test_flags_of_the_other_task_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "pass --out to fit alone" in refused("interventions fit rows.jsonl", capsys, monkeypatch)
    assert "pass --table to evaluate alone" in refused("interventions evaluate rows.jsonl", capsys, monkeypatch)
