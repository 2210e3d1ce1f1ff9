"""The verb label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stepreward.connect.ray_engine import engine_of
from stepreward.core.catalog import estimate
from stepreward.core.errors import InputError, SteprewardError, UnknownNameError
from stepreward.core.failures import Failures, warn_of_failures
from stepreward.core.method import Method
from stepreward.core.results import TrajectoryList
from stepreward.core.runtime.flows import Grader, Policy, Scorer
from stepreward.core.runtime.made_in_parts import Engine, MadePart, PartItems, make_parts, read_parts
from stepreward.core.runtime.spending import Bill, Budget
from stepreward.core.types import Problem, Trajectory
from stepreward.label.many_problems import LabelPlan, label_many, load_labels
from stepreward.label.relabelling import transform_of, transformed
from stepreward.label.solutions import grade_solutions, labellable, sample_solutions
from stepreward.verbs.names import grader as grader_of
from stepreward.verbs.names import policy as policy_of
from stepreward.verbs.names import scorer_of, shown_name
from stepreward.verbs.read_rows import Problems, Rows, hold_problems, problems_of, rows_of

OnProgress = Callable[[str, int, int, str], None]
_NO_GRADE = "the grader gave its solution no grade"
_REMEDY = "give problems a reference, or pass another grader"


def label(
    rows: Rows | Problems,
    *,
    policy: str | Path | Policy | None = None,
    grader: str | Grader = "mathematics",
    scorer: str | Path | Scorer | None = None,
    method: str = "bisection",
    transform: str = "",
    samples: int = 8,
    seed: int = 0,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    engine: str | Engine = "",
    strict: bool = False,
    **settings: Any,
) -> TrajectoryList:
    """Labels the steps of solutions: by a policy's own rollouts, by tests or by checkers.

    Args:
        rows: problems, of which solutions are sampled first, or solutions; a path holds either.
        policy: who rolls out, a name or an object; None where problems come with solutions and the method asks none.
        grader: who decides, a name or an object; not asked by methods that need no outcome.
        scorer: who scores steps where the method asks for it, a name or an object.
        method: of the family estimate.
        transform: of the family transform: what becomes of the values; "" is the one that the method declares.
        samples: solutions of each problem.
        seed: of all samples and rollouts.
        budget: the most that one solution may cost.
        folder: where every rollout is kept as it arrives, so that a second call resumes; None keeps nothing.
        engine: where parts of the rows are labelled: `ray`, `ray?workers=4..32&address=auto`, or a
            `connect.ray_engine.RayEngine`; this process where empty. The labels are the same.
        strict: raise at the first failure, instead of warning and listing all of them in `.failed`.
        settings: of the method.

    Returns:
        Solutions with the columns `value` and `label` and those that the method measures besides.

    Raises:
        InputError: the rows cannot be read.
        SteprewardError: everything failed, or strict and something did.
        UnknownNameError: there is no such method, transform or setting.
    """
    chosen, rewrite = estimate[method], transform_of(method, transform)
    for name in settings:
        if name not in chosen.settings:
            raise UnknownNameError(f"setting of {method}", name, chosen.settings)
    part = LabelPart(
        LabelPlan(method, settings, seed, budget or Budget()), samples, partial(grader_of, grader),
        None if policy is None else partial(policy_of, policy), None if scorer is None else partial(scorer_of, scorer),
    )  # fmt: skip
    elsewhere, failed = engine_of(engine), Failures()
    loaded = None if elsewhere else part.loaded()
    items = _items(rows, failed, strict=strict)
    with TemporaryDirectory() as made:
        kept = Path(folder or made)
        kept.mkdir(parents=True, exist_ok=True)
        if loaded is not None:
            run = label_into(kept, items, part.plan, **loaded, samples=samples, failed=failed)
        else:
            assert elsewhere is not None
            who = {"policy": shown_name(policy), "grader": shown_name(grader), "scorer": shown_name(scorer)}
            run = label_in_parts(kept, items, part, elsewhere, who, failed=failed)
        failed.join(run.ungraded)
        if strict:
            failed.refuse("could not be labelled")
        found = TrajectoryList(transformed(load_labels(kept), rewrite, {}), failed)
    warn_of_failures(failed, "could not be labelled")
    return found


def _items(rows: Rows | Problems, failed: Failures, *, strict: bool) -> list[Problem] | list[Trajectory]:
    """Problems or solutions; rows of a file that cannot be read are added to `failed`."""
    if isinstance(rows, str | Path):
        if hold_problems(Path(rows)):
            return problems_of(rows, None if strict else failed)
        return [*rows_of(rows, failed, strict=strict)]
    found: list[Any] = [rows] if isinstance(rows, Problem | Trajectory) else [*rows]
    return problems_of(found) if found and isinstance(found[0], Problem) else found


@dataclass(frozen=True)
class LabelRun:
    """What became of the items of a run, beside the labels in its folder."""

    labelled: Bill
    """What the estimator's rollouts cost."""
    drawn: Bill
    """What all cost: solutions, their grades, rollouts."""
    ungraded: Failures
    """Solutions without a label, as the grader gave them no grade."""


@dataclass(frozen=True)
class LabelPart:
    """Labels parts of a table, wherever it is called: loads models there, once, and does as `label_into` does."""

    plan: LabelPlan
    samples: int
    grader: Callable[[], Grader]
    policy: Callable[[], Policy] | None
    scorer: Callable[[], Scorer | None] | None = None

    def loaded(self) -> dict[str, Any]:
        """Who answers, for `label_into`."""
        return {
            "policy": None if self.policy is None else self.policy(),
            "scorer": None if self.scorer is None else self.scorer(),
            "grader": self.grader(),
        }

    def __call__(self) -> Callable[[PartItems], MadePart]:
        """What labels a part."""
        return partial(self._made, self.loaded())

    def _made(self, loaded: Mapping[str, Any], items: PartItems) -> MadePart:
        failed = Failures()
        with TemporaryDirectory() as made:
            folder = Path(made)
            for name, content in items.paid.items():
                (folder / name).write_bytes(content)
            try:
                run = label_into(
                    folder, items, self.plan, **loaded, samples=self.samples, failed=failed, skip_failed=True,
                    alone=False,
                )  # fmt: skip
            except SteprewardError as error:
                ids = [(one if isinstance(one, Problem) else one.problem).id for one in items]
                return MadePart(failed=Failures((name, error) for name in ids), lost=error, paid=_paid(folder))
            rows = [*load_labels(folder)] if any(folder.glob("labels-*")) else []
            paid = _paid(folder) if failed else {}
        return MadePart(rows, failed, run.ungraded, {"labelled": run.labelled, "drawn": run.drawn}, paid=paid)


def _paid(folder: Path) -> dict[str, bytes]:
    """The logs of answers in a folder, closed, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.sqlite")}


def label_in_parts(
    folder: Path,
    items: Iterable[Any],
    part: LabelPart,
    engine: Engine,
    who: Mapping[str, Any],
    *,
    failed: Failures,
    skip_failed: bool = False,
    strict: bool = False,
    on_progress: OnProgress | None = None,
    total: int = 0,
) -> LabelRun:
    """Does as `label_into` does, in parts that an engine makes; a part that is in the folder is not made again.

    Args:
        folder: of the run, for `load_labels`.
        items: problems or solutions.
        part: how a part is labelled.
        engine: where.
        who: what identifies policy, grader and scorer, so that the folder serves no other ones.
        failed, skip_failed, on_progress: as there.
        strict: raise at the first part with an item that failed.
        total: number of items, for `on_progress`.

    Raises:
        InputError: as there, or the folder is for another plan.
        SteprewardError: everything failed, or strict and something did.
    """
    tell = on_progress or (lambda *_: None)

    def on_part(done: int, so_far: MadePart) -> None:
        tell("label", done, total, f"{so_far.bills.get('drawn', Bill()).generated_tokens:,} tokens")

    plan = {**asdict(part.plan), **who, "samples": part.samples}
    made = make_parts(
        folder, "labels", items, part, engine, plan, skip_failed=skip_failed, strict=strict, on_part=on_part
    )
    failed.join(made.failed)
    if made.ungraded and next(read_parts(folder, "labels"), None) is None:
        raise InputError(f"no solution could be graded, {made.ungraded[0][0]!r} first", remedy=_REMEDY)
    bills = {"labelled": Bill(), "drawn": Bill(), **made.bills}
    return LabelRun(bills["labelled"], bills["drawn"], made.ungraded)


def label_into(
    folder: Path,
    items: Sequence[Any],
    plan: LabelPlan,
    *,
    policy: Policy | None,
    grader: Grader,
    scorer: Scorer | None = None,
    samples: int,
    failed: Failures,
    skip_failed: bool = False,
    alone: bool = True,
    on_progress: OnProgress | None = None,
) -> LabelRun:
    """Samples or grades solutions where that is needed, and labels them into shards of a folder.

    Args:
        folder: of the run, for `load_labels`.
        items: problems or solutions.
        plan: how steps are measured.
        policy, grader: who samples and rolls out, if that is needed, and who decides.
        scorer: who scores steps, if the estimator asks for it.
        samples: solutions of each problem.
        failed: rows that could not be read; gets the problems that could not be sampled or labelled.
        skip_failed: leave failures out for good; otherwise the next run in the folder tries them again.
        alone: whether these are all items, so that it is an error if none of them could be graded.
        on_progress: called with the stage, the items done, their number and a detail.

    Raises:
        InputError: there are solutions, and none could be graded.
        SteprewardError: everything failed.
    """
    method: Method[..., Any] = estimate[plan.estimator]
    sampled = bool(items) and isinstance(items[0], Problem) and "trajectory" in method.data
    if policy is None and (sampled or "policy" in method.asks):
        what = f"{plan.estimator} rolls out" if "policy" in method.asks else "solutions are sampled"
        raise InputError(f"{what} by a policy, and there is none", remedy="name one: policy")
    if scorer is None and "scorer" in method.asks:
        raise InputError(f"{plan.estimator} asks a reward model or a judge", remedy="name one: scorer")
    drawn, ungraded = Bill(), Failures()
    if sampled:
        assert policy is not None
        items, unsampled, drawn = sample_solutions(items, samples, plan.seed, folder, policy, grader, on_progress)
        failed += unsampled
    elif items and isinstance(items[0], Trajectory) and "grader" in method.asks:
        items, drawn = grade_solutions(items, folder, grader)
    if items and isinstance(items[0], Trajectory) and "grader" in method.asks:
        kept = labellable(items)
        ids = Counter(one.problem.id for one in items) - Counter(one.problem.id for one in kept)
        ungraded += [(name, InputError(_NO_GRADE)) for name in ids.elements()]
        if not kept and not alone:
            return LabelRun(Bill(), drawn, ungraded)
        if not kept:
            raise InputError(f"no solution could be graded, {items[0].problem.id!r} first", remedy=_REMEDY)
        items = kept
    tell = on_progress or (lambda *_: None)
    bill, unlabelled = label_many(
        items,
        folder,
        plan,
        policy=policy,
        grader=grader,
        scorer=scorer,
        progress=lambda done, bill: tell("label", done, len(items), f"{bill.generated_tokens:,} tokens"),
        skip_failed=skip_failed,
        # Repaired rows change what a shard holds: a run that left some out calls no shard final.
        more_later=bool(failed) and not skip_failed,
    )
    failed += unlabelled
    drawn.add(bill)
    return LabelRun(bill, drawn, ungraded)
