"""Process rewards in TRL: `GRPOTrainer` with credit by steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from trl.trainer.grpo_trainer import GRPOTrainer

from stepreward.connect.alarms import MEANINGS, HackingAlarms
from stepreward.connect.completions import Ids, Mask, StepFinder, problem_of
from stepreward.connect.step_data import DERIVED
from stepreward.core.catalog import shape as shape_family
from stepreward.core.errors import InputError
from stepreward.core.files.flat_data import NAMES, OF_TRAJECTORIES, RAGGED
from stepreward.core.files.flat_data import numbers as read_numbers
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.types import Problem, Trajectory
from stepreward.credit.combined import Declared, credit_of
from stepreward.credit.outcome import MovingThreshold
from stepreward.credit.tokens import to_tokens
from stepreward.score.implicit import LanguageModel

Floats = NDArray[np.float64]
StepNumbers = Callable[[Sequence[Trajectory]], Sequence[Floats]]
"""Numbers of the steps of each trajectory, (S,) with NaN at observations and at unscored actions.

Observations may be left out.
"""
Source = StepNumbers | str
"""A function of trajectories, or the name of a list that a `rollout_func` returns beside the completions."""
OWN = frozenset(("outcome", "group", "offsets", "lengths", "components"))
"""Data of the credit vocabulary that TRL itself has."""
Setting = Any
"""A hyper-parameter: a value, a function of the number of updates so far, or a `MovingThreshold`."""

_log = logging.getLogger(__name__)


class _Row(NamedTuple):
    """The data of a completion that all processes need."""

    data: Mapping[str, NDArray[Any]]
    """(A,) numbers of its actions, by name in the credit vocabulary."""
    lengths: NDArray[np.int64]
    repeated: int


def from_scorer(scorer: Scorer) -> StepNumbers:
    """Step rewards by any scorer: a reward model with its own tokenizer, a tool, a rule."""

    def rewards(trajectories: Sequence[Trajectory]) -> list[Floats]:
        answers = scorer.score_many([Score(t.problem, t.steps) for t in trajectories])
        return [answer.scores for answer in answers]

    return rewards


class OfPolicy:
    """Step numbers that the policy in training computes for its own solutions; a `Source`.

        StepGRPOTrainer(..., step_rewards=OfPolicy(partial(LikelihoodScorer, gain=True)))

    Args:
        make: from the policy and its tokenizer to a scorer, such as those of `score.language`.
        before: from the completions to what is scored in their place.
        behind: from the scores of each to its numbers.
    """

    def __init__(
        self,
        make: Callable[[LanguageModel, Any], Scorer],
        *,
        before: Callable[[Sequence[Trajectory]], Sequence[Trajectory]] = list,
        behind: Callable[[Floats], Floats] = np.asarray,
    ) -> None:
        self.make, self.before, self.behind = make, before, behind
        self._trainer: GRPOTrainer | None = None

    def attach(self, trainer: GRPOTrainer) -> None:
        """Attaches the trainer whose policy is used; the trainer calls it once."""
        self._trainer = trainer

    def __call__(self, trajectories: Sequence[Trajectory]) -> Sequence[Floats]:
        """(S,) numbers of each trajectory's steps, under the current weights.

        Raises:
            InputError: no trainer has been attached.
        """
        if self._trainer is None:
            raise InputError("no policy is attached", remedy="pass it to StepGRPOTrainer, which attaches itself")
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        was_training = model.training
        model.eval()
        try:
            scorer = self.make(LanguageModel.of(model), self._trainer.processing_class)
            return [self.behind(row) for row in from_scorer(scorer)(self.before(trajectories))]
        finally:
            model.train(was_training)


class StepGRPOTrainer(GRPOTrainer):
    """GRPO whose advantages come from steps: TRL's trainer, with `credit` in place of its group normalisation.

    The reward functions give the outcome, as in TRL; `step_rewards` scores the steps. States and turns (`state`,
    `edge`, `node`, `turn`) are computed from the solutions. Statistics of groups are over all processes. Metrics under
    `process/` are the mean step reward, steps for each completion, the share of repeated steps, and the size of
    advantages; `process/alarm/...` is 1 where training looks hacked.

    Args:
        credit: name in the family `credit`, or a sum of several (`credit.combined.credit_of`).
        credit_settings: its hyper-parameters: values, or functions of the number of updates so far, as for annealing.
        shape: method of the family `shape` that rewrites step rewards first, from all data that there are.
        shape_settings: its hyper-parameters, as those of `credit`.
        step_rewards: rewards of steps; None where the method needs none.
        step_data: further data that the methods need, by name in the credit vocabulary: of steps, such as `values`, or
            one of each completion, such as `prior`, `references`, and `outcome` in place of the reward functions'.
        token_weights: weights of tokens that multiply advantages, such as `hidden_weights.HiddenRewardWeights`.
        step_end: text that ends a step of reasoning; empty makes each turn of an agent one step.
        step_cuts: name of a list that `rollout_func` returns, in place of `step_end`: of each completion, the numbers
            of its tokens before each place where a step ends.
        alarms: detects reward hacking, and says what is then done.
        arguments: of `GRPOTrainer`.

    Raises:
        InputError: the method needs data that has no source.
        UnknownNameError: no such method or setting.
    """

    def __init__(
        self,
        *arguments: Any,
        credit: Declared = "grpo",
        credit_settings: Mapping[str, Setting] | None = None,
        shape: str = "",
        shape_settings: Mapping[str, Setting] | None = None,
        step_rewards: Source | None = None,
        step_data: Mapping[str, Source] | None = None,
        token_weights: Any = None,
        step_end: str = "\n",
        step_cuts: str = "",
        alarms: HackingAlarms | None = None,
        **named: Any,
    ) -> None:
        self.credit = credit_of(credit)
        self.credit_settings = dict(credit_settings or {})
        self.shape = shape_family[shape] if shape else None
        self.shape_settings = dict(shape_settings or {})
        needed = {*self.credit.data, *(self.shape.data if self.shape else ())}
        self.sources: dict[str, Source] = dict(step_data or {})
        if step_rewards is not None:
            self.sources["rewards"] = step_rewards
        self.alarms = alarms or HackingAlarms()
        self._logged: set[str] = set()
        missing = sorted(needed - OWN - self.sources.keys() - DERIVED.keys())
        if missing:
            raise InputError(
                f"credit {self.credit.name!r}{f' and shape {shape!r} need' if shape else ' needs'} "
                f"{', '.join(missing)}, for which there is no source",
                remedy="pass step_rewards=" if missing == ["rewards"] else "pass step_data={name: source}",
            )
        self._needed, self.token_weights, self.step_cuts = needed, token_weights, step_cuts
        super().__init__(*arguments, **named)
        # A sum of credits has weights of its own: a term that reads the parts of the reward states theirs.
        unread = "components" in self.credit.data and "weights" not in self.credit.settings
        if unread and bool((self.reward_weights != 1).any()):
            what = f"credit {self.credit.name!r} does not read reward_weights"
            raise InputError(what, remedy="give them as a setting of its term: gdpo(weights=[2, 1])")
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        ends = [*self.eos_token_ids, self._tokenizer.pad_token_id]
        self._finder = StepFinder(self._tokenizer, vocabulary, step_end, ends)
        self._rewarded: torch.Tensor | None = None
        self._prompts: Sequence[Any] = ()
        for source in (*self.sources.values(), token_weights):
            attach = getattr(source, "attach", None)
            if attach is not None:
                attach(self)

    def _calculate_rewards(self, inputs: list[dict[str, Any]], prompts: list[Any], *others: Any) -> torch.Tensor:
        """The rewards of all processes, kept for the outcome; the prompts as environments completed them."""
        # TRL keeps neither for `_generate_and_score_completions`, which calls this.
        made: torch.Tensor = super()._calculate_rewards(inputs, prompts, *others)
        self._rewarded, self._prompts = made, prompts
        return made

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)
        ids = out["completion_ids"]
        present = out["completion_mask"].bool()
        own = present & out["tool_mask"].bool() if "tool_mask" in out else present
        problems = [
            problem_of(prompt, row, tokens[real].tolist())
            for prompt, row, tokens, real in zip(
                self._prompts, inputs, out["prompt_ids"].cpu(), out["prompt_mask"].cpu().bool(), strict=True
            )
        ]
        arrays = (ids.cpu().numpy(), present.cpu().numpy(), own.cpu().numpy())
        advantages, outcome = self._step_advantages(inputs, problems, *arrays)
        if self.token_weights is not None:
            advantages = advantages * self.token_weights(out, arrays[2], advantages, outcome)
        out["advantages"] = torch.as_tensor(advantages, dtype=torch.float32, device=ids.device)
        return out

    def _step_advantages(
        self, inputs: Sequence[Mapping[str, Any]], problems: Sequence[Problem], ids: Ids, present: Mask, own: Mask
    ) -> tuple[Floats, Floats]:
        """(B, T) advantages of this process's rows, and (B,) their outcomes."""
        spans = self._finder.spans(ids, own, self._listed("steps", self.step_cuts, inputs) if self.step_cuts else None)
        trajectories = self._finder.trajectories(problems, ids, present, own, spans)
        first = self.accelerator.process_index * len(inputs)
        # (B,) weighted sums of the reward functions for all processes; NaN where none of them gave a reward.
        weighted = self._components() * self.reward_weights.double().cpu().numpy()
        outcome = np.where(np.isnan(weighted).all(axis=1), np.nan, np.nansum(weighted, axis=1))
        mine = [replace(t, outcome=float(o)) for t, o in zip(trajectories, outcome[first:], strict=False)]
        data = {name: self._given(name, source, inputs, mine) for name, source in self.sources.items()}
        for name in self._needed & DERIVED.keys() - self.sources.keys():
            data[name] = [DERIVED[name](trajectory) for trajectory in mine]
        rows = [
            _Row(
                {name: of[i] for name, of in data.items()},
                lengths,
                len(trajectory) - len({step.text for step in trajectory.steps}),
            )
            for i, (trajectory, lengths) in enumerate(
                zip(mine, np.split(spans.lengths, spans.offsets[1:-1]), strict=True)
            )
        ]
        everyone: list[_Row] = gather_object(rows)
        flat, made = self._credit_all(everyone, outcome)
        self._tell(everyone, flat, made)
        before = sum(len(row.lengths) for row in everyone[:first])
        spread: Floats = to_tokens(made[before : before + len(spans)], spans)
        return spread, np.asarray(flat["outcome"])[first : first + len(inputs)]

    def _given(
        self, name: str, source: Source, inputs: Sequence[Mapping[str, Any]], trajectories: Sequence[Trajectory]
    ) -> list[NDArray[Any]]:
        """What a source says of each trajectory: (A,) of its actions, or what there is one of."""
        given = self._listed(name, source, inputs) if isinstance(source, str) else source(trajectories)
        if len(given) != len(trajectories):
            what = f"the source of {name!r} gave {len(given)} rows for {len(trajectories)} completions"
            raise InputError(what, remedy="give one a completion, in their order")
        if name in OF_TRAJECTORIES:
            return [_one(name, numbers) for numbers in given]
        return [_of_actions(name, *pair) for pair in zip(trajectories, given, strict=True)]

    def _listed(self, name: str, listed: str, inputs: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """What a list of the rollouts says of each completion."""
        if any(listed not in row for row in inputs):
            raise InputError(
                f"{name!r} is read from {listed!r}, which some rollouts lack",
                remedy="let rollout_func return a list of that name, one entry a completion",
            )
        return [row[listed] for row in inputs]

    def _components(self) -> Floats:
        """(B, C) rewards of the reward functions, NaN where one gave none."""
        assert self._rewarded is not None
        made: Floats = self._rewarded.double().cpu().numpy()
        return made

    def _credit_all(self, everyone: Sequence[_Row], outcome: Floats) -> tuple[dict[str, Any], Floats]:
        """What credit is given, for the completions of all processes, and the advantages it returns."""
        size = int((self.num_generations if self.model.training else self.num_generations_eval) or 1)
        data: dict[str, Any] = {
            "outcome": outcome,
            "components": self._components(),
        } | {name: _together(name, [row.data[name] for row in everyone]) for name in everyone[0].data}
        data |= {
            "lengths": np.concatenate([row.lengths for row in everyone]),
            "offsets": np.cumsum([0, *(len(row.lengths) for row in everyone)]),
            "group": np.arange(len(everyone)) // size,
        }
        settings = self._now(self.credit_settings)
        if "components" in self.credit.data and "weights" in self.credit.settings:
            # Standardised parts forget their weights, which therefore come afterwards.
            settings = {"weights": tuple(self.reward_weights.tolist()), **settings}
        if self.shape is not None:
            data["rewards"] = self.shape.take(data, **self._now(self.shape_settings))
        if self.alarms.gated and "rewards" in data:
            data["rewards"] = np.where(np.isnan(data["rewards"]), np.nan, 0.0)
        made = np.asarray(self.credit.take(data, **settings), np.float64)
        for moving in self.credit_settings.values():
            if isinstance(moving, MovingThreshold) and self.model.training:
                moving.update(data["outcome"], data["prior"], data["group"])
        return data, made

    def _now(self, settings: Mapping[str, Setting]) -> dict[str, Any]:
        """The hyper-parameters at this point of training."""

        def now(value: Setting) -> Any:
            if isinstance(value, MovingThreshold):
                return value.least
            return value(self.state.global_step) if callable(value) else value

        return {name: now(value) for name, value in settings.items()}

    def _tell(self, everyone: Sequence[_Row], data: Mapping[str, Any], made: Floats) -> None:
        mode = "train" if self.model.training else "eval"
        steps = np.diff(data["offsets"])
        numbers = {
            "outcome": _mean(data["outcome"]),
            "unscored": float(np.isnan(data["outcome"]).mean()),
            "steps": float(steps.mean()),
            "tokens": float(data["lengths"].mean()) if len(data["lengths"]) else 0.0,
            "repeated": float(sum(row.repeated for row in everyone) / max(steps.sum(), 1)),
        }
        if "rewards" in self.sources:
            means = [_mean(row.data["rewards"]) for row in everyone if np.isfinite(row.data["rewards"]).any()]
            numbers["process"] = float(np.mean(means or [0.0]))
            numbers["unscored_steps"] = float(np.isnan(data["rewards"]).mean()) if data["rewards"].size else 0.0
        size = {"advantage_mean": float(made.mean()), "advantage_std": float(made.std())} if made.size else {}
        for name, value in (numbers | size | self._unscored(everyone)).items():
            self._metrics[mode][f"process/{name}"].append(value)
        if mode == "train":
            found = self.raise_alarms(self.alarms.observe(numbers))
            for name in MEANINGS:
                self._metrics[mode][f"process/alarm/{name}"].append(float(name in found))
            self._metrics[mode]["process/alarm/gated"].append(float(self.alarms.gated))

    def _unscored(self, everyone: Sequence[_Row]) -> dict[str, float]:
        """Of each source beside the step rewards, the share of its numbers that are not known."""
        found = dict[str, float]()
        for name in self.sources.keys() - {"rewards"} - NAMES:
            known = [np.isfinite(row.data[name]).mean() for row in everyone if np.size(row.data[name])]
            if known:
                found[f"unscored_{name}"] = 1.0 - float(np.mean(known))
            if known and not any(known) and name not in self._logged:
                self._logged.add(name)
                what = "step %d: no number of %r is known, and what is unscored gets the advantage 0"
                _log.warning(what, self.state.global_step, name)
        return found

    @property
    def alarmed(self) -> set[str]:
        """Alarms raised so far."""
        return set(self.alarms.raised)

    def raise_alarms(self, found: Mapping[str, str]) -> Mapping[str, str]:
        """Logs alarms that were not logged before, and stops the training where they are to; returns them."""
        for name in found.keys() - self._logged:
            _log.warning("step %d: %s", self.state.global_step, found[name])
        self._logged |= found.keys()
        if self.alarms.stopped:
            self.control.should_training_stop = True
        return found


def _mean(values: Floats) -> float:
    """Mean of what is scored; 0 where nothing is."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if scored.size else 0.0


def _one(name: str, value: Any) -> NDArray[Any]:
    """(1, ...) what a source says of one completion: a number, an identity, or a row of numbers."""
    row = np.atleast_1d(np.asarray(value))
    if name in NAMES and row.dtype.kind in "OUSiu":
        return row[:1].astype(str)
    row = np.atleast_1d(read_numbers(name, value))
    if name != RAGGED and row.size != 1:
        raise InputError(f"{name!r} has {row.size} numbers for a completion", remedy="give one, None where unscored")
    return row if name != RAGGED else row.reshape(1, -1)


def _together(name: str, rows: Sequence[NDArray[Any]]) -> Any:
    return [row[0] for row in rows] if name == RAGGED else np.concatenate(rows)


def _of_actions(name: str, trajectory: Trajectory, numbers: Any) -> NDArray[Any]:
    """(A,) numbers of a trajectory's actions, or their identities."""
    mine = [i for i, step in enumerate(trajectory.steps) if step.kind == "action"]
    row = np.asarray(numbers)
    if row.dtype.kind not in "iu":
        row = row.astype(str) if name in NAMES and row.dtype.kind in "OUS" else read_numbers(name, numbers)
    if len(row) == len(trajectory.steps):
        row = row[mine]
    if len(row) != len(mine) or (row.dtype.kind == "f" and np.isinf(row).any()):
        what = f"{'step_rewards' if name == 'rewards' else name} gave {row!r} for a trajectory of {len(mine)} actions"
        raise InputError(what, remedy="give one finite number an action, NaN or None where it is unscored")
    return row
