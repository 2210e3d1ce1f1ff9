"""The main job: sample -> label -> train -> score -> search -> evaluate -> report, into one folder that resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import write_json
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import crossed_mean, known_mean, paired_difference
from stepreward.core.measure.step_metrics import ragged
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Grader
from stepreward.core.runtime.spending import Bill
from stepreward.core.table import write_table
from stepreward.core.tree import StepTree
from stepreward.core.types import Provenance, Trajectory
from stepreward.evaluate.measures.selection_curves import curves, hits
from stepreward.evaluate.measures.step_scores import first_error_f1, label_error, step_metrics
from stepreward.label.relabelling import transform_of
from stepreward.label.rollouts import named
from stepreward.pipeline import stages
from stepreward.pipeline.flow_runs import FlowRuns, Progress, failures_of
from stepreward.pipeline.folder import RunFolder
from stepreward.pipeline.run_report import build_page
from stepreward.pipeline.run_settings import RunSettings
from stepreward.pipeline.world import World, open_world, policy_name, writer
from stepreward.policies.loading import located
from stepreward.policies.model_sources import resolve
from stepreward.report.page import TreeView, write
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.record import PerStep
from stepreward.score.model.log_ratio_model import Trainable
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.search.candidates import Found
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.scratch import starting_model
from stepreward.train.settings import SCRATCH
from stepreward.train.trainer import train

SCHEMA = "stepreward/summary/1"
_TREES_AT_ONCE = 50
OnProgress = Callable[[str, int, int, str], None]
"""Called with the stage, work done, work in all, and a line of detail."""


class Run:
    """One run of the main job in one folder.

    Args:
        out: the run folder.
        settings: what to do.
        grader: outcome grader of the user's own problems.
        on_progress: called as work is done.
    """

    def __init__(
        self,
        out: Path,
        settings: RunSettings | None = None,
        *,
        grader: Grader | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.out, s = out, settings or RunSettings()
        stages.require_methods(s)
        # The summary tells which they were.
        written_by, self.backbone = writer(s)
        # A fresh model has no language yet that could be surprised.
        surprise = s.surprise and self.backbone != SCRATCH
        transform = transform_of(s.estimator, s.transform).name
        self.settings = replace(s, transform=transform, policy=policy_name(s), surprise=surprise)
        self.world: World = open_world(self.settings, grader)
        environment = self.world.environment
        self.policy = written_by if environment is None else Agent(written_by, environment)
        if surprise and not AutoConfig.from_pretrained(located(self.backbone)).tie_word_embeddings:
            what = f"the setting needs tied embeddings, and those of {self.settings.policy} are not tied"
            raise InputError(what, remedy="pass --no-surprise")
        # Settings that fail must not claim the folder: it could then not be used with corrected ones.
        self.folder = RunFolder(out, asdict(self.settings))
        self.log = AnswerLog(out / "answers.sqlite")
        self.key = Key.seed(self.settings.seed)
        self.on_progress = on_progress or (lambda *_: None)

    def execute(self) -> dict[str, Any]:
        """Runs every stage that is not finished and returns the summary.

        Writes `labels.parquet`, `model/`, a `model-seed-N/` for each other training seed, `summary.json` and
        `report.html` in the run folder.
        """
        with self.log:
            return self._execute()

    def _execute(self) -> dict[str, Any]:
        held_out, policy = self._sample()
        labels, label = self._label()
        training, *retrained = [self._train(labels, seed) for seed in self._seeds]
        scorer = DiscriminativeScorer.load(self.out / "model")
        trees = self._score(held_out, scorer)
        growing = DiscriminativeScorer.load(self.out / "model", cache_bytes="auto")
        summary = {
            "schema": SCHEMA,
            "settings": asdict(self.settings),
            "policy": policy,
            "label": label,
            "train": training,
            "retrained": retrained,
        }
        if self.world.answers:
            summary["evaluate"] = self.folder.stage("evaluate", lambda: self._evaluate(held_out, trees, scorer))
            summary["search"] = self.folder.stage("search", lambda: self._search(growing))
        if self.world.environment is not None:
            summary["acting"] = self.folder.stage("acting", lambda: self._acting(held_out))
        summary["failures"] = failures_of(self.folder)
        write_json(self.out / "summary.json", summary)
        # The report shows trees that hold both right and wrong solutions.
        mixed = [tree for tree in trees if 0.3 <= np.nanmean(tree.outcomes) <= 0.7] if trees else []
        made = []
        for tree in mixed[:3]:
            truth = stages.truth_of(self.world, tree.trajectories())
            made.append(TreeView(tree.with_column("truth", tree.scatter_mean(truth)), "score", ["score", "truth"]))
        write(build_page(summary, made), self.out / "report.html")
        return summary

    def _progress(self, stage: str) -> Progress:
        return lambda done, total, detail: self.on_progress(stage, done, total, detail)

    def _runs(self, what: str, stage: str, scorer: DiscriminativeScorer | None = None) -> FlowRuns:
        """Who runs the flows of a part of a stage, which is shown under the stage's name."""
        w = self.world
        driver = Driver(policy=self.policy, grader=w.grader, scorer=scorer, log=self.log, window=w.window)
        return FlowRuns(what, self.folder, driver, self._progress(stage))

    def _samples(self, which: str) -> tuple[list[list[Trajectory] | None], Bill]:
        s, w = self.settings, self.world
        problems = {"train": w.train, "validation": w.validation, "held_out": w.held_out}[which]
        n = s.train_samples if which == "train" else s.held_out_samples
        runs = self._runs(f"sample-{which}", "sample")
        return stages.sample(problems, n, self.key.fold(which), runs), runs.driver.bill

    def _sample(self) -> tuple[list[list[Trajectory] | None], dict[str, Any]]:
        start = time.perf_counter()
        samples, bill = self._samples("held_out")

        def numbers() -> dict[str, Any]:
            per_problem = [_share_right(group) for group in samples]
            return {
                "solved": known_mean(per_problem, self.key.fold("solved")).to_json(),
                "steps": float(np.mean([len(t) for group in samples for t in group or ()])),
                "bill": asdict(bill),
                "seconds": time.perf_counter() - start,
            }

        return samples, self.folder.stage("sample", numbers)

    def _label(self) -> tuple[list[Trajectory], dict[str, Any]]:
        start = time.perf_counter()
        samples, _ = self._samples("train")
        runs = self._runs("label", "label")
        labels = stages.label(samples, self.settings, self.key, runs)

        def numbers() -> dict[str, Any]:
            by = Provenance(self.settings.estimator, self.policy.name, self.world.grader.name)
            write_table(self.out / "labels.parquet", (named(one, by) for one in labels))
            truth = stages.truth_of(self.world, labels)
            array = ragged([one.labels for one in labels])
            error = label_error(array, truth) if self.world.truth is not None else {}
            outcomes = np.array([one.outcome for one in labels])
            graded = outcomes[~np.isnan(outcomes)]
            wrong = float(np.mean(graded < 0.5)) if graded.size else 0.0
            numbers = {"trajectories": len(labels), "wrong": wrong, "bill": asdict(runs.driver.bill)}
            return {**numbers, "against_truth": error, "seconds": time.perf_counter() - start}

        return labels, self.folder.stage("label", numbers)

    @property
    def _seeds(self) -> dict[int, str]:
        """Each training seed with the suffix of its stage and of its model's folder; the first has none."""
        first = self.settings.seed
        return {first + i: f"-seed-{first + i}" if i else "" for i in range(self.settings.seeds)}

    def _train(self, labels: Sequence[Trajectory], seed: int) -> dict[str, Any]:
        s, suffix = self.settings, self._seeds[seed]

        def numbers() -> dict[str, Any]:
            objective = stages.training_of(s).loss()
            record = objective.record(PerStep(), surprise=s.surprise)
            trees = labelled_trees(labels, objective)
            if self.backbone == SCRATCH:
                model: Trainable = starting_model(SCRATCH, trees, record=record, seed=seed)
            else:
                model = StepRewardModel.from_backbone(resolve(self.backbone), record, seed=seed)
            result = train(
                trees,
                model,
                self.out / f"model{suffix}",
                replace(stages.training_of(s), seed=seed),
                held_out=labelled_trees(self._validation_labels, objective),
                on_progress=self._progress(f"train{suffix}"),
            )
            return {"metrics": result.metrics, "history": result.history, "tokens": result.tokens}

        return self.folder.stage(f"train{suffix}", numbers)

    @cached_property
    def _validation_labels(self) -> list[Trajectory]:
        """Labels of validation samples by the run's own estimator: no exact truth takes part in training."""
        samples, _ = self._samples("validation")
        # Enough to choose a checkpoint by, at a fraction of the rollouts.
        few = [group and group[:4] for group in samples]
        return stages.label(few, self.settings, self.key.fold("validation"), self._runs("label-validation", "label"))

    def _score(self, samples: stages.Samples, scorer: DiscriminativeScorer) -> list[StepTree]:
        """Trees of the problems that have samples."""
        pairs = zip(samples, self.world.held_out, strict=True)
        trees = [StepTree.from_trajectories(group, problem) for group, problem in pairs if group is not None]
        return _with_scores(trees, scorer, lambda done: self.on_progress("score", done, len(trees), ""))

    def _evaluate(self, samples: stages.Samples, trees: list[StepTree], scorer: DiscriminativeScorer) -> dict[str, Any]:
        s, key = self.settings, self.key.fold("evaluate")
        pool = stages.pool_of(samples, trees, self.world.grader, s.held_out_samples)
        sizes = [2**k for k in range(10) if 2**k <= s.held_out_samples]
        made = {name: [e.to_json() for e in row] for name, row in curves(pool, sizes, key).items()}
        full = hits(pool, s.held_out_samples, key)
        best = f"weighted-vote:{s.aggregate}"
        chosen = [full[best], *(self._hits(samples, seed, key)[best] for seed in list(self._seeds)[1:])]
        versus = {
            name: paired_difference(full[name], full["majority"], key.fold("paired", name)).to_json()
            for name in full
            if name not in ("majority", "oracle")
        }
        headline = stages.headline(dict(zip(self._seeds, chosen, strict=True)), full["majority"], key.fold("headline"))
        numbers: dict[str, Any] = {"sizes": sizes, "curves": made, "versus_majority": versus, "main": best}
        numbers |= {"headline": headline}
        if self.world.truth is not None:
            numbers |= self._against_truth(samples, trees, scorer, key)
        return numbers

    def _hits(self, samples: stages.Samples, seed: int, key: Key) -> dict[str, NDArray[np.float64]]:
        """(G,) chance of each selector to be right with all samples, scored by the reward model of a training seed."""
        trees = self._score(samples, DiscriminativeScorer.load(self.out / f"model{self._seeds[seed]}"))
        n = self.settings.held_out_samples
        return hits(stages.pool_of(samples, trees, self.world.grader, n), n, key)

    def _against_truth(
        self, samples: stages.Samples, trees: list[StepTree], scorer: DiscriminativeScorer, key: Key
    ) -> dict[str, Any]:
        """First error and calibration of the reward model against the exact checker, one solution a problem."""
        validation, _ = self._samples("validation")
        chosen = [StepTree.from_trajectories(group) for group in validation if group]
        tuned = _scores_and_truth(self.world, validation, _with_scores(chosen, scorer))
        scores, truth = _scores_and_truth(self.world, samples, trees)
        gold, tune_gold = first_error(truth), first_error(tuned[1])
        steps = step_metrics(scores, truth)
        return {
            "first_error": first_error_f1(scores, gold, key, tune_on=(tuned[0], tune_gold)).to_json(),
            "steps": steps,
        }

    def _search(self, scorer: DiscriminativeScorer) -> dict[str, Any]:
        found = stages.searches(
            self.world.held_out[: self.settings.search_problems],
            self.settings,
            self.key,
            lambda name: self._runs(f"search-{name}", "search", scorer),
        )
        numbers: dict[str, Any] = {}
        for name, (results, bill) in found.items():
            # A search that found no answer is wrong, also where its end could not be graded.
            right = [self._won(one) for one in results]
            accuracy = known_mean(right, self.key.fold("search", name))
            numbers[name] = {"accuracy": accuracy.to_json(), "bill": asdict(bill)}
        return numbers

    def _won(self, ended: tuple[Found, float] | None) -> float:
        """Whether a search won, NaN where it failed; without an answer it is lost, where solutions end in answers."""
        if ended is None:
            return float("nan")
        found, grade = ended
        return 0.0 if self.world.answers and found.answer is None else grade

    def _acting(self, held_out: stages.Samples) -> dict[str, Any]:
        """Agents that are guided step by step, one a training seed, against the plain one: success and actions."""
        s, key = self.settings, self.key.fold("acting")
        plain = np.array([_share_right(group) for group in held_out])
        executed = np.array([np.mean([int(t.action.sum()) for t in group]) if group else np.nan for group in held_out])
        rows, actions = [], []
        for seed, suffix in self._seeds.items():
            scorer = DiscriminativeScorer.load(self.out / f"model{suffix}", cache_bytes="auto")
            name = f"act{suffix}"
            found = stages.guided(self.world.held_out, s, key.fold(seed), self._runs(name, name, scorer))
            rows.append([*map(self._won, found)])
            chosen = [one.trajectories()[one.chosen] for one, _ in filter(None, found) if one.chosen >= 0]
            actions.append(np.mean([int(t.action.sum()) for t in chosen]))
        table = np.array(rows)
        return {
            "plain": {
                "accuracy": known_mean(plain, key.fold("plain")).to_json(),
                "actions": float(np.nanmean(executed)),
            },
            "guided": {
                "accuracy": crossed_mean(table, key.fold("guided"), bounds=(0.0, 1.0)).to_json(),
                "actions": float(np.mean(actions)),
            },
            "gain": crossed_mean(table - plain, key.fold("gain")).to_json(),
        }


def _with_scores(
    trees: Sequence[StepTree], scorer: DiscriminativeScorer, on_progress: Callable[[int], None] = lambda done: None
) -> list[StepTree]:
    """The trees with a column `score`; each call of the scorer has `_TREES_AT_ONCE` of them."""
    scored: list[StepTree] = []
    for at in range(0, len(trees), _TREES_AT_ONCE):
        part = trees[at : at + _TREES_AT_ONCE]
        made = scorer.score_trees(part)
        scored += [tree.with_column("score", one.scores) for tree, one in zip(part, made, strict=True)]
        on_progress(len(scored))
    return scored


def _share_right(group: Sequence[Trajectory] | None) -> float:
    """Share of right ones among a problem's graded samples; NaN where none is graded or it failed, 0 without a step."""
    if group is None:
        return float("nan")
    if not group:
        return 0.0
    outcomes = np.array([t.outcome for t in group])
    graded = outcomes[~np.isnan(outcomes)]
    return float(graded.mean()) if graded.size else float("nan")


def _scores_and_truth(
    world: World, samples: stages.Samples, trees: Sequence[StepTree]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(B, S) scores and exact truth of all samples, in the same rows."""
    truth = stages.truth_of(world, [t for group in samples for t in group or ()])
    scores = ragged([row for tree in trees for row in tree.gather(tree.column("score"))])
    return scores[:, : truth.shape[1]], truth
