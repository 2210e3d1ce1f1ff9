"""Tables made in parts: equal to those made at once, resumed, and honest about what failed."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.running import trl_model

import stepreward
from stepreward.cli.rows.row_by_row import RowByRow
from stepreward.core.errors import InputError, PolicyError, SteprewardError, UnknownNameError
from stepreward.core.failures import Failures
from stepreward.core.runtime.flows import Continuation, Propose, Score
from stepreward.core.runtime.made_in_parts import LOST, Build, MadePart, PartItems, Workers, make_parts, read_parts
from stepreward.core.runtime.spending import Bill
from stepreward.core.table import row_of
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.tasks.arithmetic import generate
from stepreward.verbs.spread_scorer import spread_over

PROBLEMS = [Problem(f"p{i}", f"question {i}", reference=str(i)) for i in range(10)]


@dataclass
class InTurn:
    """An engine of this process, which makes parts in an order of its own."""

    part: int = 4
    order: Callable[[list[int]], list[int]] = sorted
    begun: int = 0
    asked: list[Any] = field(default_factory=list)

    @contextmanager
    def open(self, build: Build[Any, Any]) -> Iterator[Workers]:
        work = build()
        self.begun += 1
        engine = self

        class Here:
            def made(self, parts: Iterable[Any]) -> Iterator[tuple[int, Any]]:
                given = list(parts)
                for index in engine.order([*range(len(given))]):
                    engine.asked.append(given[index])
                    yield index, work(given[index])

        yield Here()


def rows_of(found: Iterable[Trajectory]) -> list[dict[str, Any]]:
    return [row_of(one) for one in found]


BACKWARDS = partial(sorted, reverse=True)


@dataclass
class Work:
    """Answers each problem, but for some."""

    bad: set[str] = field(default_factory=set)

    def __call__(self) -> Callable[[list[Problem]], MadePart]:
        return self.made

    def made(self, items: list[Problem]) -> MadePart:
        error = PolicyError("as told")
        good = [one for one in items if one.id not in self.bad]
        failed = Failures((one.id, error) for one in items if one.id in self.bad)
        rows = [Trajectory(one, (Step(f"answer {one.reference}"),), 1.0) for one in good]
        return MadePart(rows, failed, bills={"all": Bill(proposals=len(good))}, lost=None if good else error)


def ids(folder: Path) -> list[str]:
    return [row.problem.id for row in read_parts(folder, "made")]


def test_parts_come_in_the_order_of_their_items_whenever_they_are_done(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    total = make_parts(
        tmp_path, "made", PROBLEMS, Work(), InTurn(order=BACKWARDS), {"what": "test"},
        on_part=lambda n, so_far: done.append((n, so_far.bills["all"].proposals)),
    )  # fmt: skip
    assert ids(tmp_path) == [one.id for one in PROBLEMS]
    assert [path.name[:11] for path in sorted(tmp_path.glob("*.parquet"))] == [f"made-00000{i}" for i in range(3)]
    assert (total.bills["all"].proposals, total.rows, list(total.failed)) == (10, [], [])
    assert done == [(2, 2), (6, 6), (10, 10)]


def test_a_second_run_makes_what_is_missing_alone(tmp_path: Path) -> None:
    first = InTurn(order=lambda numbers: [numbers[1], 99])
    with pytest.raises(IndexError):
        make_parts(tmp_path, "made", PROBLEMS, Work(), first, {})
    assert ids(tmp_path) == ["p4", "p5", "p6", "p7"]
    second, done = InTurn(), list[int]()
    total = make_parts(tmp_path, "made", PROBLEMS, Work(), second, {}, on_part=lambda n, _: done.append(n))
    assert [[one.id for one in part] for part in second.asked] == [["p0", "p1", "p2", "p3"], ["p8", "p9"]]
    assert ids(tmp_path) == [one.id for one in PROBLEMS]
    assert total.bills["all"].proposals == 6
    assert done[-1] == 10


def test_items_that_failed_are_tried_again_or_left_out_for_good(tmp_path: Path) -> None:
    total = make_parts(tmp_path, "made", PROBLEMS, Work({"p5"}), InTurn(), {})
    assert [name for name, _ in total.failed] == ["p5"]
    assert [path.stem.endswith("-unfinished") for path in sorted(tmp_path.glob("*.parquet"))] == [False, True, False]
    assert "p5" not in ids(tmp_path)
    again = InTurn()
    make_parts(tmp_path, "made", PROBLEMS, Work(), again, {})
    assert [[one.id for one in part] for part in again.asked] == [["p4", "p5", "p6", "p7"]]
    assert ids(tmp_path) == [one.id for one in PROBLEMS]
    assert not list(tmp_path.glob("*-unfinished*"))
    other = tmp_path / "for-good"
    make_parts(other, "made", PROBLEMS, Work({"p5"}), InTurn(), {}, skip_failed=True)
    assert not list(other.glob("*-unfinished*"))
    none = InTurn()
    make_parts(other, "made", PROBLEMS, Work(), none, {}, skip_failed=True)
    assert not none.asked
    with pytest.raises(SteprewardError, match="p5 could not be done: as told"):
        make_parts(tmp_path / "strict", "made", PROBLEMS, Work({"p5"}), InTurn(), {}, strict=True)


def test_a_run_of_which_nothing_can_be_made_fails(tmp_path: Path) -> None:
    every = {one.id for one in PROBLEMS}
    with pytest.raises(PolicyError, match="as told"):
        make_parts(tmp_path / "all", "made", PROBLEMS, Work(every), InTurn(), {})
    # Some parts that are lost, with others between them, are failures as others are.
    total = make_parts(tmp_path / "some", "made", PROBLEMS, Work({"p0", "p1", "p4", "p5"}), InTurn(part=2), {})
    assert len(total.failed) == 4
    engine = InTurn(part=1)
    with pytest.raises(PolicyError, match="as told"):
        make_parts(tmp_path / "row", "made", PROBLEMS, Work({one.id for one in PROBLEMS[1:]}), engine, {})
    assert len(engine.asked) == 1 + LOST


def test_a_folder_is_for_one_plan_and_one_list_of_items(tmp_path: Path) -> None:
    make_parts(tmp_path, "made", PROBLEMS, Work(), InTurn(), {"policy": "http://u:secret@a#m"})
    assert "secret" not in (tmp_path / "plan.json").read_text()
    with pytest.raises(InputError, match=r"begun with .*'policy'"):
        make_parts(tmp_path, "made", PROBLEMS, Work(), InTurn(), {"policy": "other"})
    with pytest.raises(InputError, match=r"begun with .*'part': 4"):
        make_parts(tmp_path, "made", PROBLEMS, Work(), InTurn(part=5), {"policy": "http://u:secret@a#m"})
    with pytest.raises(InputError, match="part 0 are not those of made-000000"):
        make_parts(tmp_path, "made", PROBLEMS[1:], Work(), InTurn(), {"policy": "http://u:secret@a#m"})


def test_parts_of_more_items_than_there_are_now_are_removed(tmp_path: Path) -> None:
    make_parts(tmp_path, "made", PROBLEMS, Work(), InTurn(), {})
    make_parts(tmp_path, "made", PROBLEMS[:8], Work(), InTurn(), {})
    assert ids(tmp_path) == [one.id for one in PROBLEMS[:8]]


def test_label_in_parts_gives_the_labels_and_the_bill_of_one_process(tmp_path: Path) -> None:
    problems, policy = [*generate("train", 6)], stepreward.policy("builtin:arithmetic")
    how: dict[str, Any] = {"policy": policy, "grader": "arithmetic", "samples": 2, "n": 1, "seed": 4}
    once = stepreward.label(problems, **how)
    parts = stepreward.label(problems, **how, engine=InTurn(order=BACKWARDS), folder=tmp_path / "kept")
    assert list(once) == list(parts)
    assert len({one.problem.id for one in once}) == 6
    nothing = InTurn()
    assert rows_of(stepreward.label(problems, **how, engine=nothing, folder=tmp_path / "kept")) == rows_of(once)
    assert not nothing.asked


@dataclass
class Patchy:
    """A policy that does not answer about one problem until it is mended, and counts its questions."""

    bad: str = "p2"
    asked: list[str] = field(default_factory=list)
    name: str = "patchy"
    batch_size: int = 1
    concurrency: int = 1

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += [one.problem.id for one in questions]
        if any(one.problem.id == self.bad for one in questions):
            raise PolicyError("no answer about it")
        steps = {one.problem.id: (Step(f"Answer: {one.problem.reference}"),) for one in questions}
        return [[Continuation(steps[one.problem.id], True, 2)] * one.n for one in questions]


def test_the_next_run_asks_only_what_failed(tmp_path: Path) -> None:
    policy = Patchy()
    how: dict[str, Any] = {"policy": policy, "grader": "arithmetic", "samples": 2, "n": 2, "method": "math-shepherd"}
    how |= {"engine": InTurn(), "folder": tmp_path}
    with pytest.warns(UserWarning, match="1 could not be labelled, p2 first: no answer about it"):
        first = stepreward.label(PROBLEMS, **how)
    assert {one.problem.id for one in first} == {one.id for one in PROBLEMS} - {"p2"}
    assert sorted(path.name for path in (tmp_path / "answers").rglob("*.sqlite")) == [
        "answers.sqlite",
        "samples.sqlite",
    ]
    policy.bad, policy.asked = "", []
    assert [one.problem.id for one in stepreward.label(PROBLEMS, **how)] == [one.id for one in PROBLEMS]
    assert set(policy.asked) == {"p2"}
    assert not list((tmp_path / "answers").rglob("*.sqlite"))


def test_what_was_paid_for_a_part_travels_with_its_items() -> None:
    items = PartItems(PROBLEMS)
    items.paid = {"answers.sqlite": b"paid"}
    there = pickle.loads(pickle.dumps(items))
    assert (list(there), there.paid, PartItems().paid) == (PROBLEMS, items.paid, {})


def test_errors_travel_with_all_that_they_say() -> None:
    unknown = UnknownNameError("method", "bem", ["beam"])
    located = InputError("bad", source="x.jsonl", row=3, remedy="mend it")
    for error in (unknown, located, PolicyError("down")):
        there = pickle.loads(pickle.dumps(error))
        assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))


def test_ungraded_solutions_of_a_whole_part_are_no_failure(tmp_path: Path) -> None:
    rows = [Trajectory(Problem(f"q{i}", "?", reference="1"), (Step("Answer: 1"),)) for i in range(4)]
    unknown = Problem("u", "?", reference=None)
    rows[:2] = [Trajectory(unknown, (Step("Answer: 1"),))] * 2
    how: dict[str, Any] = {"policy": "builtin:arithmetic", "grader": "arithmetic", "n": 1}
    with pytest.warns(UserWarning, match="2 could not be labelled, u first"):
        once = stepreward.label(rows, **how)
    with pytest.warns(UserWarning, match="2 could not be labelled, u first"):
        parts = stepreward.label(rows, **how, engine=InTurn(part=2))
    assert rows_of(parts) == rows_of(once)
    with pytest.raises(InputError, match="no solution could be graded, 'u' first"):
        stepreward.label(rows[:2], **how, engine=InTurn(part=1))


def test_score_in_parts_gives_the_scores_of_one_process(tmp_path: Path) -> None:
    rows = [Trajectory(Problem(f"q{i}", "?"), (Step(f"{i} + 1 = {i + i % 2}"),)) for i in range(9)]
    once = stepreward.score(rows, "tool")
    parts = stepreward.score(rows, "tool", engine=InTurn(order=BACKWARDS))
    assert rows_of(parts) == rows_of(once)
    for name, engine in (("one", ""), ("two", InTurn())):
        stepreward.score(rows, "tool", out=tmp_path / f"{name}.parquet", engine=engine)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small model, whose last digits depend on its batches."""
    folder = tmp_path_factory.mktemp("trl")
    trl_model(folder)
    return stepreward.load(folder, like="trl-prm")


def test_scores_of_a_model_are_those_of_one_process_to_the_last_digit(model: Any) -> None:
    rows = [
        Trajectory(Problem(f"q{i}", "?" * (1 + i % 7)), (Step(f"{i} + {j}"),) * (1 + i % 3))
        for i in range(150)
        for j in "ab"
    ]
    engine = InTurn(order=BACKWARDS)
    assert rows_of(stepreward.score(rows, model, engine=engine)) == rows_of(stepreward.score(rows, model))
    assert sorted(len(part) for part in engine.asked) == [44, 256]


def test_metrics_of_a_model_are_those_of_one_process_to_the_last_digit(model: Any) -> None:
    rows = [Score(Problem(f"q{i}", "?" * (1 + i % 7)), (Step(f"{i} + 1"),) * (1 + i % 3)) for i in range(150)]
    with spread_over(lambda: model, InTurn(order=BACKWARDS)) as spread:
        once, parts = (RowByRow(one, {}).score_many(rows) for one in (model, spread))
    assert [one.scores.tolist() for one in parts] == [one.scores.tolist() for one in once]


def test_search_in_parts_finds_what_one_process_finds() -> None:
    problems = [*generate("train", 6)]
    how: dict[str, Any] = {"policy": "builtin:arithmetic", "scorer": "tool", "grader": "arithmetic", "n": 3}
    once = stepreward.search(problems, **how, method="best-of-n")
    parts = stepreward.search(problems, **how, method="best-of-n", engine=InTurn(order=BACKWARDS))
    assert [one.answer for one in parts] == [one.answer for one in once]
    assert [one.bill for one in parts] == [one.bill for one in once]
    assert [rows_of(one.found.trajectories()) for one in parts] == [rows_of(one.found.trajectories()) for one in once]


def test_evaluate_in_parts_measures_what_one_process_measures() -> None:
    rows = [
        Trajectory(
            Problem(f"q{i}", "?"), (Step("1 + 1 = 2"), Step(f"{i} + 1 = {i + i % 2}")),
            columns={"label": np.array([1.0, i % 2])}, first_error=-1 if i % 2 else 1,
        )
        for i in range(12)
    ]  # fmt: skip
    engine = InTurn(order=BACKWARDS)
    once = stepreward.evaluate(rows, "tool", threshold=0.5).to_json()
    assert stepreward.evaluate(rows, "tool", threshold=0.5, engine=engine).to_json() == once
    assert (engine.begun, engine.asked[0]) == (1, None)
