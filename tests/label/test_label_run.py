"""Labelling runs: killed with SIGKILL and resumed they end as if nothing had happened, and pay nothing twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from label_world import World

from stepreward.core.errors import InputError, PolicyError, StoreError, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.flows import Continuation, Policy, Propose
from stepreward.core.runtime.spending import Budget
from stepreward.core.table import row_of, write_table
from stepreward.core.types import Problem, Trajectory
from stepreward.label.many_problems import Item, LabelPlan, label_many, load_labels
from stepreward.label.solutions import sample_solutions
from stepreward.policies.tabular import TabularPolicy

WORLD = World()
PLAN = LabelPlan("math-shepherd", {"n": 4}, seed=7, shard=4)
BIG = LabelPlan("math-shepherd", {"n": 12}, seed=7, budget=Budget(rollouts=55), shard=4)


def trajectories(n: int, length: int = 6) -> list[Trajectory]:
    rng = Key.seed(5).rng()
    texts = ["".join(rng.choice(list("aabbsx"), size=length)) for _ in range(n)]
    return [WORLD.trajectory(text, Problem(f"p{i}", "Get to the end.")) for i, text in enumerate(texts)]


def run(items: Iterable[Item], folder: Path, plan: LabelPlan = PLAN, policy: Policy | None = None) -> int:
    bill, failed = label_many(items, folder, plan, policy=policy or WORLD.policy(), grader=WORLD)
    assert not failed
    return bill.proposals


def rows(path: Path) -> list[dict[str, Any]]:
    """Labelled trajectories as plain data, NaN as None, so that == compares all of it."""
    return [row_of(one) for one in load_labels(path)]


class Dying(TabularPolicy):
    """Fails after some batches, as a server does; asks for small ones."""

    batch_size = 32

    def __init__(self, batches: int) -> None:
        super().__init__(WORLD.choices, WORLD.policy().name)
        self.left = batches

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("gone")
        return super().propose(questions)


def test_labels_come_back_in_order_with_who_made_them(tmp_path: Path) -> None:
    items = trajectories(10)
    assert run(items, tmp_path) == 10 * 5 * 4
    labels = list(load_labels(tmp_path))
    assert [one.problem.id for one in labels] == [t.problem.id for t in items]
    assert [one.text for one in labels] == [t.text for t in items]
    assert len(list(tmp_path.glob("labels-*.parquet"))) == 3
    made = labels[0].provenance[0]
    assert (made.estimator, made.policy, made.grader) == ("math-shepherd", WORLD.policy().name, "no x")
    assert made.settings == {"n": 4, "root": False, "unfinished": "wrong"}
    assert made.seed == Key.seed(7).bits


def test_a_second_run_finds_everything_done(tmp_path: Path) -> None:
    run(trajectories(10), tmp_path)
    before = rows(tmp_path)
    assert run(trajectories(10), tmp_path, policy=Dying(0)) == 0
    assert rows(tmp_path) == before


def test_shard_size_and_batching_do_not_change_labels(tmp_path: Path) -> None:
    run(trajectories(10), tmp_path / "a")
    run(trajectories(10), tmp_path / "b", LabelPlan("math-shepherd", {"n": 4}, seed=7, shard=100), Dying(999))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


@pytest.mark.parametrize("batches", [1, 3, 5])
def test_a_run_that_broke_resumes_and_pays_nothing_twice(tmp_path: Path, batches: int) -> None:
    whole = run(trajectories(10), tmp_path / "whole")
    with suppress(ConnectionError):
        _, failed = label_many(trajectories(10), tmp_path / "broken", PLAN, policy=Dying(batches), grader=WORLD)
        assert {str(error) for _, error in failed} == {"gone"}
    with closing(sqlite3.connect(tmp_path / "broken" / "answers.sqlite")) as db:
        paid = sum(len(json.loads(row)["continuations"]) for (row,) in db.execute("select answer from answers"))
    assert 0 < paid < whole
    assert run(trajectories(10), tmp_path / "broken") == whole - paid
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


class Refusing(TabularPolicy):
    """Cannot go on with some problems, as a server where a prompt is too long."""

    def __init__(self, refused: set[str]) -> None:
        super().__init__(WORLD.choices, WORLD.policy().name)
        self.refused = refused

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        if any(question.problem.id in self.refused for question in questions):
            raise PolicyError("the prompt is too long")
        return super().propose(questions)


def test_an_item_that_fails_costs_no_other_its_labels(tmp_path: Path) -> None:
    items = trajectories(10)
    whole = run(items, tmp_path / "whole")

    def tried(refused: set[str], skip: bool = False) -> tuple[int, list[tuple[str, str]]]:
        bill, failed = label_many(
            items, tmp_path / "own", PLAN, policy=Refusing(refused), grader=WORLD, skip_failed=skip
        )
        return bill.proposals, [(name, str(error)) for name, error in failed]

    spent, failed = tried({"p1", "p9"})
    assert sorted(failed) == [("p1", "the prompt is too long"), ("p9", "the prompt is too long")]
    # All but the two are there. The shards of four that lack them are made again, which asks what failed alone.
    assert [row["problem"] for row in rows(tmp_path / "own")] == ["p0", "p2", "p3", "p4", "p5", "p6", "p7", "p8"]
    assert len(list((tmp_path / "own").glob("labels-*-unfinished.parquet"))) == 2
    again, failed = tried({"p9"})
    assert (failed, again) == ([("p9", "the prompt is too long")], 5 * 4)
    spent += again + tried({"p9"}, skip=True)[0]
    assert spent == whole - 5 * 4
    assert rows(tmp_path / "own") == rows(tmp_path / "whole")[:-1]
    assert not list((tmp_path / "own").glob("labels-*-unfinished.parquet"))
    assert tried({"p9"}) == (0, [])
    # Where only what fails is left to do, it can be left out as well.
    for skip in (False, True):
        bill, both = label_many(
            items, tmp_path / "two", PLAN, policy=Refusing({"p8", "p9"}), grader=WORLD, skip_failed=skip
        )
        assert sorted(name for name, _ in both) == ["p8", "p9"]
    assert (bill.proposals, rows(tmp_path / "two")) == (0, rows(tmp_path / "whole")[:-2])
    with pytest.raises(PolicyError, match="too long"):
        label_many(items, tmp_path / "all", PLAN, policy=Refusing({t.problem.id for t in items}), grader=WORLD)


def test_more_items_may_come_later(tmp_path: Path) -> None:
    items = trajectories(10)
    for some in (items[1:], items):
        label_many(some, tmp_path, PLAN, policy=WORLD.policy(), grader=WORLD, more_later=some is not items)
        assert [row["problem"] for row in rows(tmp_path)] == [one.problem.id for one in some]
    assert run(items, tmp_path, policy=Dying(0)) == 0


def small_batches() -> TabularPolicy:
    """A policy that answers few questions at once, so that most are open when the first shard is written."""
    policy = World(8).policy()
    policy.batch_size = 64
    return policy


def test_killed_in_the_middle_it_resumes_to_the_very_same_labels(tmp_path: Path) -> None:
    killed, log = tmp_path / "killed", tmp_path / "killed" / "answers.sqlite-wal"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, __file__, str(killed)], env=environment)
    deadline = time.monotonic() + 120
    while not (list(killed.glob("labels-*.parquet")) and log.exists()) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(list(killed.glob("labels-*.parquet")))
    items = trajectories(40, length=8)
    assert 0 < done < 10
    left = run(items, killed, BIG, small_batches())
    whole = run(items, tmp_path / "whole", BIG, small_batches())
    assert 0 < left < whole
    assert rows(killed) == rows(tmp_path / "whole")
    # 55 rollouts hold four prefixes of 12; the budget bound every one of the 40 solutions of 8 steps.
    assert all(sum(row["n_rollouts"]) == 48 for row in rows(killed))


def test_problems_are_labelled_as_trees(tmp_path: Path) -> None:
    plan = LabelPlan("omegaprm", {"n": 4, "searches": 3}, shard=2)
    run([Problem(f"p{i}", "") for i in range(5)], tmp_path, plan)
    labels = list(load_labels(tmp_path))
    assert {one.problem.id for one in labels} == {f"p{i}" for i in range(5)}
    assert all(one.provenance[0].estimator == "omegaprm" for one in labels)
    assert sum(int((one.column("n_rollouts") > 0).sum()) for one in labels) > 0


def test_a_folder_serves_one_plan_and_one_list_of_items(tmp_path: Path) -> None:
    run(trajectories(10), tmp_path)
    with pytest.raises(InputError, match=r"begun with \{'seed': 7\}, and \{'seed': 8\}"):
        run(trajectories(10), tmp_path, LabelPlan("math-shepherd", {"n": 4}, seed=8, shard=4))
    with pytest.raises(InputError, match="'policy'"):
        run(trajectories(10), tmp_path, policy=TabularPolicy(WORLD.choices, "another"))
    with pytest.raises(InputError, match="items 5 and following"):
        run([*trajectories(4), *reversed(trajectories(8)[4:])], tmp_path)


def test_bad_input_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="math-shepherd"):
        run([], tmp_path / "a", LabelPlan("math-shepard"))
    with pytest.raises(UnknownNameError, match="setting of scan"):
        run(trajectories(1), tmp_path / "b", LabelPlan("scan", {"k": 3}))
    with pytest.raises(InputError, match="bare problem 'q'"):
        run([Problem("q", "")], tmp_path / "c", LabelPlan("scan"))
    with pytest.raises(ValueError, match="shard=0"):
        run([], tmp_path / "d", LabelPlan("scan", shard=0))
    with pytest.raises(InputError, match="no finished shard"):
        list(load_labels(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose a writable folder"):
        run(trajectories(1), tmp_path / "file" / "e")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"seed": 7, "shard'])
def test_a_broken_plan_is_written_anew_and_nothing_is_paid_again(tmp_path: Path, content: bytes) -> None:
    run(trajectories(10), tmp_path / "run")
    plan, before = (tmp_path / "run" / "plan.json").read_bytes(), rows(tmp_path / "run")
    (tmp_path / "run" / "plan.json").write_bytes(content)
    assert run(trajectories(10), tmp_path / "run") == 0
    assert (tmp_path / "run" / "plan.json").read_bytes() == plan
    assert rows(tmp_path / "run") == before
    # Shards of another plan are not taken for those of this one.
    (tmp_path / "run" / "plan.json").write_bytes(content)
    other = LabelPlan("math-shepherd", {"n": 2}, seed=8, shard=4)
    assert run(trajectories(10), tmp_path / "run", other) > 0
    run(trajectories(10), tmp_path / "other", other)
    assert rows(tmp_path / "run") == rows(tmp_path / "other")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_half_written_shard_is_made_again_from_what_was_paid(tmp_path: Path, share: float) -> None:
    run(trajectories(10), tmp_path)
    before = rows(tmp_path)
    for shard in sorted(tmp_path.glob("labels-*.parquet"))[:2]:
        content = shard.read_bytes()
        shard.write_bytes(content[: int(len(content) * share)])
    assert run(trajectories(10), tmp_path) == 0
    assert rows(tmp_path) == before


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with AnswerLog(tmp_path / "answers.sqlite"), pytest.raises(StoreError, match="in use by another process"):
        run(trajectories(2), tmp_path)
    assert not (tmp_path / "plan.json").exists()


def test_saved_labels_keep_everything(tmp_path: Path) -> None:
    run(trajectories(3), tmp_path / "run")
    labels = list(load_labels(tmp_path / "run"))
    assert write_table(tmp_path / "one.parquet", labels) == 3
    assert rows(tmp_path / "one.parquet") == rows(tmp_path / "run")
    assert next(iter(load_labels(tmp_path / "one.parquet"))).provenance == labels[0].provenance


if __name__ == "__main__":
    run(trajectories(40, length=8), Path(sys.argv[1]), BIG, small_batches())


def test_a_problem_that_cannot_be_sampled_costs_no_other_its_solutions(tmp_path: Path) -> None:
    problems = [Problem(f"p{i}", "Get to the end.") for i in range(3)]
    whole, _, _ = sample_solutions(problems, 4, 7, tmp_path / "whole", WORLD.policy(), WORLD)
    found, failed, _ = sample_solutions(problems, 4, 7, tmp_path / "own", Refusing({"p1"}), WORLD)
    assert [(name, str(error)) for name, error in failed] == [("p1", "the prompt is too long")]
    assert found == [one for one in whole if one.problem.id != "p1"]
    with pytest.raises(PolicyError, match="too long"):
        sample_solutions(problems, 4, 7, tmp_path / "none", Refusing({"p0", "p1", "p2"}), WORLD)
