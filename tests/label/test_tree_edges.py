"""Trees where something ends, is cut, is not graded, or comes twice: cases worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from label_world import PROBLEM, World, letters
from test_monte_carlo_tree import FEW, KEY, Hand, by_text

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted
from stepreward.core.runtime.driver import answer_all
from stepreward.core.runtime.flows import Continuation, Grade, Propose, Score, Scored
from stepreward.core.search_tree import SearchTree
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Step
from stepreward.label.omega import tree_labels
from stepreward.label.trees.monte_carlo_tree import _Stop

WHAT = {"problem": PROBLEM, "key": KEY}


class Cut(Hand):
    """A policy by script: `.` ends a solution, `~` is a cut by a limit on tokens."""

    def _answer(self, question: Propose) -> list[Continuation]:
        before, made = letters(question.prefix), []
        self.asked.append(before)
        for text in self.script[before][: question.n]:
            steps = tuple(Step(f"{letter}\n") for letter in text.strip(".~"))
            made.append(Continuation(steps, text.endswith("."), len(steps), truncated=text.endswith("~")))
        return made


class Scores:
    """A reward model by script."""

    name, batch_size = "scores", 8

    def __init__(self, script: dict[str, float]) -> None:
        self.script = script

    def score_many(self, questions: Any) -> list[Scored]:
        rows = [[self.script.get(letters(q.steps[: i + 1]), 0.0) for i in range(len(q.steps))] for q in questions]
        return [Scored(np.array(row)) for row in rows]


class Unsure(World):
    """A grader that does not know solutions with a b."""

    def grade(self, problem: Problem, solution: Any) -> float:
        return float("nan") if "b" in letters(solution) else super().grade(problem, solution)


def grow(name: str, script: dict[str, list[str]], grader: World = FEW, **settings: Any) -> StepTree:
    return answer_all(estimate[name].take(WHAT, **settings), policy=Cut(script), grader=grader)


@pytest.mark.parametrize("leaf", ["playout", "path"])
def test_an_ungraded_end_starves_no_other(leaf: str) -> None:
    made = grow("tree", {"": ["b.", "a."]}, Unsure(length=1), simulations=20, width=2, leaf=leaf)
    assert by_text(made, "visits")["a"] >= 18
    assert (by_text(made, "value")[""], by_text(made, "visits")["b"]) == (1.0, 0.0)


def test_a_step_that_a_limit_cut_is_a_wrong_end() -> None:
    made = grow("hrm", {"": ["a~", "b."]}, World(length=1), width=2)
    assert by_text(made, "value") == {"": 0.5, "a": 0.0, "b": 1.0}


def test_a_text_that_ends_in_one_sample_and_goes_on_in_another_is_two_steps() -> None:
    made = grow("hrm", {"": ["a.", "a"], "a": ["x.", "x."]}, World(length=2), width=2)
    assert made.column("value")[0] == pytest.approx(1 / 3)
    rows = {letters(one.steps): float(one.labels[-1]) for one in tree_labels(made, Provenance("hrm"))}
    assert rows == {"a": 1.0, "ax": 0.0}
    # The other order, and a step that goes on without a value of its own.
    made = grow("masprm", {"": ["a", "a."], "a": ["b."]}, World(length=2), simulations=1, width=2)
    rows = {
        letters(one.steps): (one.terminal, float(one.labels[-1])) for one in tree_labels(made, Provenance("masprm"))
    }
    assert rows["a"] == (True, 1.0)


@pytest.mark.parametrize("some", [["b", "b."], ["b.", "b"]])
def test_a_cut_and_a_finished_sample_of_one_text_are_two_ends(some: list[str]) -> None:
    made = grow("hrm", {"": ["a", "a"], "a": some}, World(length=2), width=2, max_steps=2)
    assert made.column("value")[0] == 0.5


@pytest.mark.parametrize(
    ("name", "values"), [("rest-mcts", [0.5, 1.0]), ("qlass", [0.9, 1.0]), ("discounted-leaves", [0.95, 1.0])]
)
def test_an_end_without_a_further_step_is_that_of_the_step_before(name: str, values: list[float]) -> None:
    # Policies of language models end so: the end token comes after the last step.
    settings: dict[str, Any] = {"simulations": 5, "width": 1} | ({"scale": False} if name == "qlass" else {})
    for end in ([["b"], ["."]], [["b."]]):
        script = {"": ["a"], "a": end[0], **({"ab": end[1]} if len(end) > 1 else {})}
        flow = estimate[name].take(WHAT, **settings)
        made = answer_all(flow, policy=Cut(script), scorer=Scores({"a": 0.5, "ab": 0.6}), grader=World(length=2))
        np.testing.assert_allclose(made.column("value")[1:], values)
        (row,) = tree_labels(made, Provenance(name))
        assert (row.terminal, row.outcome) == (True, 1.0)


def test_whole_solutions_without_a_step_count() -> None:
    made = grow("rest-rl", {"": ["a"] * 5, "a": ["."] * 5}, World(length=1), simulations=4)
    assert by_text(made, "value")["a"] in (1.0, 0.0)
    made = grow("rest-rl", {"": ["aa.", "ab.", "b.", "s", "bx."]}, Unsure(), simulations=1)
    # Right: aa, unknown: ab, b and bx; the cut s is wrong.
    assert by_text(made, "n_rollouts")[""] == 2
    assert by_text(made, "value")[""] == 0.5
    assert by_text(made, "value")["aa"] == 1.0


def test_first_steps_count_the_rollouts_through_them() -> None:
    made = grow("rest-rl", {"": ["b.", "s", "b.", "b.", "b."]}, World(length=1), simulations=1)
    assert by_text(made, "n_rollouts") == {"": 5, "b": 4, "s": 1}
    assert by_text(made, "n_correct") == {"": 4, "b": 4, "s": 0}


@pytest.mark.parametrize(
    ("ahead", "alpha", "value"),
    [(2, 0.25, 0.75 * 0.4 + 0.25 * 0.9), (1, 0.25, 0.75 * 0.4 + 0.25 * 0.9), (3, 0.5, 0.65)],
)
def test_the_best_score_ahead_corrects_that_of_the_best_step(ahead: int, alpha: float, value: float) -> None:
    policy = Cut({"": ["a", "b", "s"], "a": ["b"], "ab": ["b."], "abb": []})
    scorer = Scores({"a": 0.4, "b": 0.1, "ab": 0.9, "abb": 0.2})
    flow = estimate["rest-mcts"].take(WHAT, simulations=1, look_ahead=ahead, alpha=alpha, readout="mean")
    made = answer_all(flow, policy=policy, grader=FEW, scorer=scorer)
    assert by_text(made, "value")["a"] == pytest.approx(value)
    assert made.column("value")[0] == pytest.approx(value)
    assert len(policy.asked) == 1 + min(ahead, 2)


def test_the_best_scored_step_is_walked_to_first() -> None:
    policy = Cut({"": ["a", "b"], "b": ["a."]})
    flow = estimate["tree"].take(WHAT, simulations=2, leaf="score", width=2)
    answer_all(flow, policy=policy, grader=FEW, scorer=Scores({"a": 0.1, "b": 0.9}))
    assert policy.asked == ["", "b"]


def test_greedy_rollouts_are_no_sample() -> None:
    script = {"": ["a", "b"], "a": ["aa."] * 8, "b": ["aa."] * 8}
    made = grow("tree", script, simulations=1, leaf="rollouts", n=8, width=2, greedy=True)
    assert by_text(made, "value")["a"] == 1.0
    assert by_text(made, "n_rollouts")["a"] == 0
    assert np.isnan(by_text(made, "low")["a"])


def test_rollouts_that_a_limit_cut_measure_nothing() -> None:
    script = {"": ["a", "b"], "a": ["a~"] * 4, "b": ["aa."] * 4}
    made = grow("tree", script, simulations=1, leaf="rollouts", n=4, width=2)
    assert (by_text(made, "value")["b"], by_text(made, "visits").get("a", 0.0)) == (1.0, 0.0)


def test_right_ends_are_right_ones() -> None:
    policy = Cut({"": ["x.", "s"], "s": ["a.", "a."], "sa": []})
    settings = {"simulations": 9, "leaf": "path", "width": 2, "right_ends": 1, "select": "uct-floored"}
    made = answer_all(estimate["tree"].take(WHAT, **settings), policy=policy, grader=FEW)
    assert (made.outcomes > 0.5).sum() == 1
    assert policy.asked == ["", "s"]


def test_a_step_is_picked_as_often_as_it_was_sampled() -> None:
    first = []
    for i in range(60):
        policy = Cut({"": ["a", "a", "a", "b"], "a": ["a."], "b": ["a."]})
        flow = estimate["masprm"].take({"problem": Problem(f"p{i}", ""), "key": KEY}, simulations=1)
        answer_all(flow, policy=policy, grader=FEW)
        first.append(policy.asked[1])
    # 45 are expected of three samples in four, 30 of one step in two.
    assert 37 <= first.count("a") < 60


def test_a_search_is_stable_while_its_value_stays_or_is_near_an_end() -> None:
    stop, made = _Stop(0, 0, 0, stable=2, moved=0.01, sure=0.025), []
    for value in (0.5, 0.5, 0.7, 0.7, 0.705, 0.5, 0.99, 0.98, 0.4):
        tree = SearchTree("root", value)
        made.append(stop.reached(SimpleNamespace(tree=tree)))  # type: ignore[arg-type]
    assert made == [False, False, False, False, True, False, False, True, False]


def test_masprm_goes_on_where_its_first_ends_agree() -> None:
    script = {"": ["a", "b"], "a": ["b."] * 4, "b": ["a."] * 4}
    made = grow("masprm", script, World(length=2), width=2, simulations=10)
    assert by_text(made, "visits")[""] >= 10


def test_what_was_graded_stays_where_the_budget_ends_at_the_scores() -> None:
    flow = estimate["rest-mcts"].take(WHAT, width=2)
    next(flow)
    grades = flow.send([[Continuation((Step("a\n"),), True, 1), Continuation((Step("x\n"),), True, 1)]])
    assert all(isinstance(one, Grade) for one in grades)
    assert all(isinstance(one, Score) for one in flow.send([1.0, 0.0]))
    with pytest.raises(StopIteration) as done:
        flow.throw(BudgetExhausted("spent"))
    made = done.value.value
    assert {letters(one.steps): one.outcome for one in made.trajectories()} == {"a": 1.0, "x": 0.0}


def test_observations_have_no_labels() -> None:
    class Tools(Hand):
        def _answer(self, question: Propose) -> list[Continuation]:
            last = not question.prefix or question.prefix[-1].kind == "observation"
            step = Step("a\n") if last else Step("seen\n", kind="observation")
            return [Continuation((step,), len(question.prefix) == 2, 1)] * question.n

    made = answer_all(estimate["hrm"].take(WHAT, width=1), policy=Tools({}), grader=World(length=9))
    (row,) = tree_labels(made, Provenance("hrm"))
    assert [step.kind for step in row.steps] == ["action", "observation", "action"]
    assert np.isnan(row.labels).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rest-mcts", {"simulations": 50, "width": 3, "exploration": 0.5, "unvisited": 0.9, "look_ahead": 1,
                       "alpha": 0.5, "backup": "children", "readout": "distance"}),
        ("alphamath", {"simulations": 40, "width": 5, "exploration": 0.75, "first": 0.5, "max_steps": 9}),
        ("masprm", {"simulations": 32, "width": 4, "exploration": 2.0, "stable": 24, "moved": 0.005, "sure": 0.025}),
        ("meds3", {"width": 3, "exploration": 2**0.5, "unvisited": 5.0, "n": 20, "least": 5, "right_ends": 4,
                   "most_nodes": 60, "backup": "children"}),
        ("armap", {"simulations": 10, "exploration": 6.36396, "backup": "best", "discount": 0.9, "max_steps": 10}),
        ("prorag", {"simulations": 200, "width": 5, "exploration": 2.5, "discount": 0.99, "max_steps": 10}),
        ("rest-rl", {"width": 5, "exploration": 0.2, "floor": 0.1}),
        ("hrm", {"simulations": 5, "width": 5, "max_steps": 5}),
        ("qlass", {"width": 2, "discount": 0.9, "max_steps": 8, "scale": True}),
        ("groundedprm", {"simulations": 10, "width": 3, "right_ends": 3, "wrong_ends": 3}),
        ("mm-prm", {"n": 16, "searches": 200, "length_scale": 2000.0, "alpha": 0.5, "beta": 0.9, "c_puct": 0.125}),
    ],
)  # fmt: skip
def test_presets_have_the_numbers_of_the_released_code(name: str, settings: dict[str, Any]) -> None:
    assert settings.items() <= estimate[name].settings.items()
