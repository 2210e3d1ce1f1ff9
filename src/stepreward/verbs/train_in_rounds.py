"""Training in rounds: solutions, labels, a model, and again with that model, measured on the same held-out data."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.catalog import keep as filters
from stepreward.core.errors import IncompleteWarning, InputError
from stepreward.core.failures import Failures, warn_of_failures
from stepreward.core.files.atomic_files import locked_folder, plain, read_object, write_json
from stepreward.core.files.row_files import stamp
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Policy
from stepreward.core.table import read_table, write_table
from stepreward.core.types import Problem, Trajectory
from stepreward.label.relabelling import Chosen, label_counts, relabelled
from stepreward.label.solutions import sample_solutions
from stepreward.pipeline.folder import RunFolder
from stepreward.pipeline.rounds_report import build_page, idle_rounds, summarise
from stepreward.pipeline.rounds_settings import BY_MODEL, RoundsSettings
from stepreward.report.page import write
from stepreward.tasks.graders import grader_by_name
from stepreward.train.data.labelled_trees import teach_something
from stepreward.train.settings import RESULT_FILE, UNFINISHED, TrainSettings
from stepreward.verbs.found_in_round import Finder, OnProgress
from stepreward.verbs.names import load
from stepreward.verbs.names import policy as policy_of
from stepreward.verbs.read_rows import hold_problems, problems_of, rows_of
from stepreward.verbs.score_rows import score
from stepreward.verbs.train_model import train

_FREE = ("rounds", "seeds")
"""Settings that a later run of the same folder may change."""
_FILES = ("held_out", "labelled", "solutions", "problems")
"""Settings that name files."""


def rounds(
    out: str | Path,
    *,
    policy: str | Path | Policy | Callable[[], Policy] = "builtin:arithmetic",
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Trains a model in each of several rounds, the later ones on what the model of the last round found or labelled.

        stepreward.rounds("runs/self", held_out="kept.parquet", labelled="some.parquet", solutions="more.parquet")

    Args:
        out: the folder; finished rounds in it are not done again, and a later call may have more `rounds` or `seeds`.
        policy: who samples and rolls out, or what opens it; only where there are problems.
        on_progress: called with the stage, work done, work in all, and a detail.
        settings: fields of `stepreward.pipeline.rounds_settings.RoundsSettings`, `held_out` and `labelled` or
            `problems` among them, and of `stepreward.train.settings.TrainSettings`.

    Returns:
        The summary, as in `rounds.json`.

    Raises:
        InputError: there is nothing to learn from or to measure on, held-out problems are learned from, or the folder
            has rounds of other settings or data.
        UnknownNameError: there is no such method or setting.
    """
    own = {one.name: settings.pop(one.name) for one in fields(RoundsSettings) if one.name in settings}
    for name in _FILES:
        own |= {name: Path(own[name])} if own.get(name) is not None else {}
    if "held_out" not in own:
        raise InputError("every round is measured on held-out data", remedy="pass held_out=, a file")
    return train_in_rounds(
        out, RoundsSettings(**own), TrainSettings(**settings), policy=policy, on_progress=on_progress
    )


def train_in_rounds(
    out: str | Path,
    settings: RoundsSettings,
    training: TrainSettings | None = None,
    *,
    policy: str | Path | Policy | Callable[[], Policy] = "builtin:arithmetic",
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Does what `rounds` does, by settings that are made.

    The folder has `seed-S/round-R/` with `sampled.parquet` and `pseudo.parquet`, the solutions that the round added,
    `model/`, and `held-out.parquet`, the held-out solutions with its scores; `rounds.json` and `rounds.html` show the
    curve. A round that is finished is not done again after a kill, and no answer is paid for twice.

    A round that adds nothing to learn from would train the last round's model again: it has that model instead, a
    warning says why, and `idle` of the summary too. Later rounds go on where a policy may find more.

    Args:
        out, policy, on_progress: as of `rounds`.
        settings: what is done in a round.
        training: how each model is trained.
    """
    out, training = Path(out), training or TrainSettings()
    settings.check()
    chosen = settings.methods(training.objective)
    training = replace(training, objective_settings={**training.objective_settings, **chosen[training.objective]})
    samples = settings.problems is not None or hold_problems(settings.held_out)
    who = None if not samples else policy() if callable(policy) else policy_of(policy)
    job = _Job(out, settings, training, who, chosen, on_progress or (lambda *_: None))
    with locked_folder(out):
        return job.execute()


@dataclass
class _Job:
    out: Path
    settings: RoundsSettings
    training: TrainSettings
    policy: Policy | None
    chosen: Mapping[str, Mapping[str, Any]]
    """Hyper-parameters of the methods, by name."""
    tell: OnProgress
    folder: RunFolder = field(init=False)
    finder: Finder = field(init=False)

    def __post_init__(self) -> None:
        self.finder = Finder(self.settings, self.chosen, self.policy, self.tell)

    def execute(self) -> dict[str, Any]:
        s = self.settings
        problems = [] if s.problems is None else problems_of(s.problems)
        self.folder = RunFolder(self.out, self._identity())
        self.folder.stage("held-out", lambda: self._hold_out(problems))
        seeds = [self.training.seed + k for k in range(s.seeds)]
        made = [[self._round(seed, number, problems) for number in range(1, s.rounds + 1)] for seed in seeds]
        scored = [
            [[*read_table(self._place(seed, number) / "held-out.parquet")] for seed in seeds]
            for number in range(1, s.rounds + 1)
        ]
        by_round = [dict(zip(map(str, seeds), some, strict=True)) for some in zip(*made, strict=True)]
        summary: dict[str, Any] = plain(
            {
                **summarise(scored, s.aggregate),
                "settings": self._identity()["settings"] | {"rounds": s.rounds, "seeds": s.seeds},
                "rounds": by_round,
                "idle": idle_rounds(by_round),
            }
        )
        if idle := summary["idle"]:
            total = s.rounds * s.seeds
            what = f"{len(idle):,} of {total:,} rounds added nothing to learn from, {idle[0]['place']} first"
            warnings.warn(f"{what}: {idle[0]['why']}", IncompleteWarning, stacklevel=4)
        write_json(self.out / "rounds.json", summary)
        write(build_page(summary), self.out / "rounds.html")
        return summary

    def _identity(self) -> dict[str, Any]:
        """What decides the content of the folder, JSON values."""
        own = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(self.settings).items()}
        paths = (self.settings.labelled, self.settings.solutions, self.settings.problems, self.settings.held_out)
        return {
            "settings": {name: v for name, v in own.items() if name not in _FREE},
            "training": asdict(self.training),
            "policy": self.policy.name if self.policy else "",
            "reads": [stamp(path) for path in paths if path is not None],
        }

    def _place(self, seed: int, number: int) -> Path:
        """Folder of a round."""
        return self.out / f"seed-{seed}" / f"round-{number}"

    def _key(self, *parts: str | int) -> int:
        return Key.seed(self.training.seed).fold("rounds", *parts).bits

    def _hold_out(self, learned: Sequence[Problem]) -> dict[str, Any]:
        """Writes the held-out solutions, sampled and graded where there are problems alone.

        Args:
            learned: problems that the rounds find solutions of.
        """
        s = self.settings
        if hold_problems(s.held_out):
            assert self.policy is not None
            problems, grader = problems_of(s.held_out, graded=True), grader_by_name(s.grader)
            place = self.out / "held-out"
            rows, failed, _ = sample_solutions(
                problems, s.held_out_samples, self._key("held-out"), place, self.policy, grader, self.tell
            )
            warn_of_failures(Failures(failed), "held-out problems could not be sampled")
        else:
            rows = [*rows_of(s.held_out)]
        self._refuse_overlap(rows, learned)
        return {"solutions": write_table(self.out / "held-out.parquet", (one for one in rows if len(one)))}

    def _refuse_overlap(self, held_out: Sequence[Trajectory], problems: Sequence[Problem]) -> None:
        """Refuses held-out problems that are learned from: every number would be too good."""
        kept = {one.problem.text.strip() for one in held_out}
        files = {path for path in (self.settings.labelled, self.settings.solutions) if path is not None}
        seen = {one.text.strip() for one in problems}
        seen |= {one.problem.text.strip() for path in files for one in rows_of(path)}
        if both := sorted(kept & seen):
            what = f"{len(both):,} of {len(kept):,} held-out problems are learned from, {both[0][:60]!r} first"
            raise InputError(what, source=self.settings.held_out, remedy="hold out problems that no other file has")

    def _round(self, seed: int, number: int, problems: Sequence[Problem]) -> dict[str, Any]:
        """What a round did, done or read; of one that had nothing new to learn from, what its model's round did."""
        self._place(seed, number).mkdir(parents=True, exist_ok=True)
        stage = f"seed-{seed}-round-{number}-label"
        made: dict[str, Any] = {"label": self.folder.stage(stage, lambda: self._label(seed, number, problems))}
        taught = self._taught_in(seed, number)
        stage, place = f"seed-{seed}-round-{taught}", self._place(seed, taught)
        if taught < number:
            made["model_of_round"] = taught
            shutil.copyfile(place / "held-out.parquet", self._place(seed, number) / "held-out.parquet")
        elif not self._parts(seed, number):
            why = "; ".join(one["idle"] for one in made["label"].values() if isinstance(one, dict))
            what = f"round {number} of seed {seed} has nothing to learn from: {why}"
            # What was found may be had in another way: the stage is done again by the next run.
            (self.out / "stages" / f"{stage}-label.json").unlink()
            raise InputError(what, remedy="pass --labelled, other settings of labels and filters, or more --samples")
        made["train"] = self.folder.stage(f"{stage}-train", lambda: self._train(seed, number))
        made["measure"] = self.folder.stage(f"{stage}-measure", lambda: self._measure(place))
        return made

    def _parts(self, seed: int, number: int) -> list[str | Path]:
        """What a round learns from: the labelled solutions, and files of rounds that added some."""
        first = number if self.settings.last_only else 1
        files = [self._place(seed, one) / "sampled.parquet" for one in range(first, number + 1)]
        files.append(self._place(seed, number) / "pseudo.parquet")
        return [*(["labelled"] if self.settings.labelled is not None else []), *(one for one in files if one.is_file())]

    def _taught_in(self, seed: int, number: int) -> int:
        """The round whose model a round has: its own, or an earlier one's where it learns from nothing else."""
        while number > 1 and self._parts(seed, number) in ([], self._parts(seed, number - 1)):
            number -= 1
        return number

    def _label(self, seed: int, number: int, problems: Sequence[Problem]) -> dict[str, Any]:
        """Writes the solutions that the round adds, with their labels, if there is something to learn from them."""
        place, made, report = self._place(seed, number), {}, dict[str, Any]()
        taught = self._taught_in(seed, number - 1) if number > 1 else 0
        last = self._place(seed, taught) / "model" if taught else None
        if not problems and number - 1 > taught > 0:
            # The same model would say the same of the same solutions.
            return read_object(self.out / "stages" / f"seed-{seed}-round-{number - 1}-label.json", remedy="run again")
        if self.settings.solutions is not None and last is not None:
            made["pseudo"] = self.finder.sure([*rows_of(self.settings.solutions)], last)
        if problems and (last is not None or self.settings.label_by not in BY_MODEL):
            made["sampled"], report = self.finder.find(problems, place, last, self._key(seed, number))
        counts = {}
        for name, rows in made.items():
            kept = self._kept(rows)
            counts[name] = _counts(kept) | {"found": len(rows)} | (report if name == "sampled" else {})
            if teach_something(kept, self.training.loss()):
                write_table(place / f"{name}.parquet", kept)
            else:
                counts[name]["idle"] = self._why_idle(rows, kept)
        return counts

    def _why_idle(self, found: Sequence[Trajectory], kept: Sequence[Trajectory]) -> str:
        """Why there is nothing to learn from some solutions."""
        if not found:
            return "no solution was found"
        if not kept:
            return f"--keep {', '.join(self.settings.keep)} leaves out all of {len(found):,} solutions"
        scores = np.concatenate([one.column("score")[one.action] for one in kept])
        if np.isfinite(scores).any() and all(np.isnan(one.labels).all() for one in kept):
            low, high = np.nanmin(scores), np.nanmax(scores)
            known = f"the last model is sure of none of {scores.size:,} steps"
            return f"{known}, its scores are from {low:.3g} to {high:.3g} (--set above=, --set below=)"
        return f"{self.training.objective} finds nothing to learn from in {len(kept):,} solutions"

    def _kept(self, rows: Sequence[Trajectory]) -> list[Trajectory]:
        """The rows that the filters keep."""
        own: list[Chosen] = [(filters[name], self.chosen[name]) for name in self.settings.keep]
        return relabelled(rows, None, own)

    def _train(self, seed: int, number: int) -> dict[str, Any]:
        """Trains the model of a round, unless a killed run has done so already."""
        out = self._place(seed, number) / "model"
        if not (out / RESULT_FILE).is_file() or (out / UNFINISHED).is_dir():
            self.tell("train", 0, 1, f"seed {seed}, round {number}")
            data, how = dict(self._data(seed, number)), vars(self.training) | {"seed": seed}
            train(data, out, backbone=self.settings.backbone, held_out=self.settings.share_kept, **how)
        row = read_object(out / RESULT_FILE, remedy="delete the folder of this model and run again")
        return {name: row[name] for name in ("metrics", "steps", "tokens")}

    def _data(self, seed: int, number: int) -> Iterator[tuple[str, list[Trajectory]]]:
        """What a round learns from, by domain."""
        s = self.settings
        if s.labelled is not None:
            yield "labelled", [*rows_of(s.labelled, comparisons=True)]
        files = [one for one in self._parts(seed, number) if isinstance(one, Path)]
        # A solution that several rounds found has the labels of the last one.
        paths = [one for one in files if one.stem == "sampled"]
        sampled = {(one.problem.id, one.text): one for path in paths for one in read_table(path)}
        if sampled:
            yield "sampled", [*sampled.values()]
        for path in files:
            if path.stem == "pseudo":
                yield "pseudo", [*read_table(path)]

    def _measure(self, place: Path) -> dict[str, Any]:
        """Writes the held-out solutions with the scores of a round's model."""
        scored = score([*read_table(self.out / "held-out.parquet")], load(place / "model"), strict=True)
        return {"solutions": write_table(place / "held-out.parquet", scored)}


def _counts(rows: Sequence[Trajectory]) -> dict[str, Any]:
    """Solutions and labels of a round; of labels that were known, how many the new ones agree with."""
    labels = np.concatenate([one.labels[one.action] for one in rows]) if rows else np.empty(0)
    known = np.concatenate([one.column("known")[one.action] for one in rows]) if rows else np.empty(0)
    both = ~np.isnan(labels) & ~np.isnan(known)
    made: dict[str, Any] = {"solutions": len(rows), **label_counts(labels)}
    outcomes = np.array([one.outcome for one in rows])
    if not np.isnan(outcomes).all():
        made["outcome"] = float(np.nanmean(outcomes))
    if both.any():
        made["agree"] = float(((labels[both] > 0.5) == (known[both] > 0.5)).mean())
    return made
