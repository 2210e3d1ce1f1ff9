"""Labelling at scale: any estimator over many problems into Parquet shards, killed and resumed at no cost.

A folder holds `plan.json` (the settings), `answers.sqlite` (every rollout, as it arrives) and one
`labels-<number>-<digest of its items>.parquet` for each shard. A shard that exists is skipped; the flows of an open one
run again and read from the answers what was paid for. A shard some of whose items failed ends in `-unfinished.parquet`:
it can be read, and the next run makes it again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

from stepreward.core.catalog import estimate
from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import claim
from stepreward.core.files.row_files import is_whole
from stepreward.core.keys import Key
from stepreward.core.method import Method
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver, Failed
from stepreward.core.runtime.flows import Flow, Grader, Policy, Scorer
from stepreward.core.runtime.spending import Bill, Budget
from stepreward.core.table import read_table, write_table
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Trajectory
from stepreward.label.omega import tree_labels
from stepreward.label.rollouts import named

_log = logging.getLogger(__name__)
_UNFINISHED = "-unfinished"
"""End of the name of a shard that the next run makes again."""
Item = Problem | Trajectory
Progress = Callable[[int, Bill], None]
"""Called with the number of items labelled so far, those of skipped shards left out, and the bill."""


@dataclass(frozen=True)
class LabelPlan:
    """The settings of a labelling run; two runs of one plan over the same items give equal labels."""

    estimator: str = "bisection"
    """Method of the estimate family."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its hyper-parameters, where they are not the defaults; JSON values only."""
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    """The most that one item may spend; past it, its labels hold what was measured."""
    shard: int = 512
    """Items a shard."""


def label_many(
    items: Iterable[Item],
    folder: Path,
    plan: LabelPlan,
    *,
    policy: Policy | None,
    grader: Grader,
    scorer: Scorer | None = None,
    progress: Progress | None = None,
    skip_failed: bool = False,
    more_later: bool = False,
) -> tuple[Bill, list[tuple[str, Exception]]]:
    """Labels every item and writes the labels to shards; a second run after a kill continues where the first stopped.

    An item that fails, as where its prompt is too long for a server, costs no other its labels: its shard is written
    without it, and the next run asks only what failed.

    Args:
        items: trajectories, or problems where the estimator takes a problem; streamed. A second run must give the same
            ones in the same order.
        folder: made if absent.
        plan: what to do.
        policy, grader: who rolls out, if the estimator asks for it, and who decides; named in every label's provenance.
        scorer: who scores steps, if the estimator asks for it; named among the settings of the provenance.
        progress: called after each item.
        skip_failed: leave the items that failed out for good, instead of trying them again in the next run.
        more_later: the next run may bring more items, as where some problems could not be sampled: no shard is final.

    Returns:
        What this run spent, and the ids of the problems of items that failed, with their errors.

    Raises:
        InputError: the folder belongs to another plan, policy, grader or other items; an item does not fit the method.
        UnknownNameError: no estimator or setting has that name.
        StoreError: the folder cannot be written.
        ValueError: the shard size is not positive.
        Exception: that of an item, where all failed and no shard is there yet, or 16 failed with no question answered
            in between.
    """
    if plan.shard < 1:
        raise ValueError(f"a shard needs at least one item, got shard={plan.shard}")
    estimate[plan.estimator]
    who = Provenance(
        plan.estimator,
        "" if policy is None else policy.name,
        grader.name,
        Key.seed(plan.seed).bits,
        {**estimate[plan.estimator].settings, **plan.settings, **({} if scorer is None else {"scorer": scorer.name})},
    )
    failed: list[Failed] = []
    done = 0
    with AnswerLog(folder / "answers.sqlite") as log:
        _claim(folder, plan, who.policy, who.grader, "" if scorer is None else scorer.name)
        driver = Driver(policy=policy, scorer=scorer, grader=grader, budget=plan.budget, log=log)
        shards = _Shards(items, folder, plan, more_later)
        for done, one in enumerate(driver.outcomes(shards.flows()), 1):
            if isinstance(one, Failed):
                failed.append(one)
            else:
                made = tree_labels(one.result, who) if isinstance(one.result, StepTree) else [named(one.result, who)]
                shards.receive(one.index, made)
            if progress is not None:
                progress(done, driver.bill)
    if failed and len(failed) == done and not any(folder.glob("labels-*.parquet")):
        raise failed[0].error
    # After the last item: nothing is left out for good by a run that breaks off.
    for one in failed:
        shards.leave_out(one.index, for_good=skip_failed)
    return driver.bill, [(shards.problem_id(one.index), one.error) for one in failed]


def load_labels(path: Path) -> Iterator[Trajectory]:
    """Yields the labelled trajectories of a file, or of all shards of a folder in the order of their items, streaming.

    Raises:
        InputError: there is no shard, or one cannot be read.
    """
    files = sorted(path.glob("labels-*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError("no finished shard of labels is here", source=path, remedy="run `label` to its end first")
    for file in files:
        yield from read_table(file)


@dataclass
class _Shards:
    """Turns items into flows and their results into files, each as soon as it is complete."""

    items: Iterable[Item]
    folder: Path
    plan: LabelPlan
    more_later: bool
    _place: list[tuple[Path, int, str]] = field(default_factory=list)
    """File and position of each flow's item, and the id of its problem."""
    _open: dict[Path, list[list[Trajectory] | None]] = field(default_factory=dict)
    _incomplete: set[Path] = field(default_factory=set)
    """Files of shards with failed items that the next run tries again."""

    def flows(self) -> Iterator[Flow[Trajectory | StepTree]]:
        """The flows of all items whose shard is not there yet."""
        method, key, items = estimate[self.plan.estimator], Key.seed(self.plan.seed), iter(self.items)
        for number in count():
            chunk = list(islice(items, self.plan.shard))
            if not chunk:
                return
            path = self.folder / f"labels-{number:06d}-{_digest(chunk)}.parquet"
            if is_whole(path):
                continue
            found = self.folder.glob(f"labels-{number:06d}-*.parquet")
            if other := next((p for p in found if p != path and not p.stem.endswith(_UNFINISHED)), None):
                what = f"items {number * self.plan.shard + 1} and following are not those of {other.name}"
                raise InputError(what, source=self.folder, remedy="pass the items of the first run, or another folder")
            self._open[path] = [None] * len(chunk)
            for position, item in enumerate(chunk):
                self._place.append((path, position, (item if isinstance(item, Problem) else item.problem).id))
                yield _flow(method, item, key, self.plan.settings)

    def problem_id(self, index: int) -> str:
        """Of the item of a flow."""
        return self._place[index][2]

    def receive(self, index: int, labels: list[Trajectory]) -> None:
        """Keeps an item's labels; writes the shard that they complete."""
        path, position, _ = self._place[index]
        results = self._open[path]
        results[position] = labels
        if all(result is not None for result in results):
            for old in self.folder.glob(f"{path.name[: len('labels-000000')]}-*{_UNFINISHED}.parquet"):
                old.unlink()
            unfinished = self.more_later or path in self._incomplete
            chosen = path.with_stem(path.stem + _UNFINISHED) if unfinished else path
            write_table(chosen, (one for result in results if result is not None for one in result))
            del self._open[path]

    def leave_out(self, index: int, *, for_good: bool) -> None:
        """Writes the shard without an item, once the others are there; the next run tries it again if not for good."""
        if not for_good:
            self._incomplete.add(self._place[index][0])
        self.receive(index, [])


def _flow(method: Method[..., Any], item: Item, key: Key, settings: Mapping[str, Any]) -> Flow[Trajectory | StepTree]:
    if isinstance(item, Problem):
        if "trajectory" in method.data:
            what = f"{method.name} labels trajectories, got the bare problem {item.id!r}"
            raise InputError(what, remedy="sample solutions first, or label with omegaprm")
        available: dict[str, Any] = {"problem": item, "key": key}
    else:
        available = {"problem": item.problem, "trajectory": item, "key": key}
    flow: Flow[Trajectory | StepTree] = method.take(available, **settings)
    return flow


def _digest(items: Iterable[Item]) -> str:
    """Name of a shard's content: problems and steps, without measurements."""
    text = hashlib.blake2b(digest_size=8)
    for item in items:
        problem, steps = (item, ()) if isinstance(item, Problem) else (item.problem, item.steps)
        outcome = None if isinstance(item, Problem) else repr(item.outcome)
        text.update(repr((problem.id, problem.text, [step.identity for step in steps], outcome)).encode())
    return text.hexdigest()


def _claim(folder: Path, plan: LabelPlan, policy: str, grader: str, scorer: str) -> None:
    """Writes the plan of a new folder, or checks that an old folder has the same.

    Shards under a broken plan are deleted, as no one can say what they hold, and are rebuilt from the answer log.
    """
    path, wanted = folder / "plan.json", {**asdict(plan), "policy": policy, "grader": grader}
    # Folders of earlier versions name no scorer.
    wanted |= {"scorer": scorer} if scorer else {}
    try:
        differing = claim(path, wanted)
    except InputError as error:
        _log.warning("%s; it is written anew, and all shards with it from the answers", error.problem)
        for shard in folder.glob("labels-*.parquet"):
            shard.unlink()
        path.unlink()
        differing = claim(path, wanted)
    if differing:
        old, new = ({name: pair[i] for name, pair in differing.items()} for i in (0, 1))
        what = f"the folder was begun with {old}, and {new} is wanted now"
        raise InputError(what, source=folder, remedy="choose another")
