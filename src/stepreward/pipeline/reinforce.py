"""Reinforcement learning by step credit on the built-in world: learning curves of several estimators, side by side."""

from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig

from stepreward.connect.alarms import HackingAlarms
from stepreward.connect.online_reward_models import OnlineReward
from stepreward.connect.rollout_trees import RECIPES
from stepreward.connect.trl import Source, StepGRPOTrainer, StepNumbers, from_scorer
from stepreward.connect.trl_rollouts import LocalRollouts
from stepreward.connect.trl_sources import InEnvironment, RolloutValues
from stepreward.connect.trl_trees import TreeRollouts
from stepreward.core.errors import InputError, StoreError
from stepreward.core.files.atomic_files import claim, locked_folder, read_object, write_json
from stepreward.core.keys import Key
from stepreward.credit.combined import credit_of
from stepreward.pipeline.learning import Curve, ReinforceSettings, build_page, in_world, summarise
from stepreward.pipeline.reinforced_worlds import TURN, mean_score, world_of
from stepreward.policies import loading
from stepreward.policies.local import LocalPolicy
from stepreward.report.page import write
from stepreward.score.capabilities import use_of
from stepreward.score.implicit import ImplicitScorer
from stepreward.score.load import load
from stepreward.train.online import online_objective

OnProgress = Callable[[str, int, int, str], None]


def reinforce(out: Path, settings: ReinforceSettings, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Trains every credit with every seed and returns the summary; finished trainings are not repeated.

    Args:
        out: folder; one JSON file a training, and `reinforce.json` with all of them.
        settings: what to do.
        on_progress: called as work is done.

    Raises:
        InputError: a method reads step rewards and there is no model, or a setting is not for the world.
        StoreError: the folder holds trainings of other settings, or cannot be written.
    """
    settings = in_world(settings)
    for name in settings.credits:
        if "rewards" in credit_of(name).data and not settings.model and not settings.rollouts:
            what = f"credit {name!r} reads step rewards"
            raise InputError(what, remedy="pass --rollouts, or --model; `stepreward run` trains one")
    if settings.learn != "nothing":
        if not settings.model:
            raise InputError("a reward model that learns is missing", remedy="pass --model, or leave --learn out")
        if idle := [name for name in settings.credits if "rewards" not in credit_of(name).data]:
            what = f"credit {idle[0]!r} reads no step rewards, so that no reward model learns beside it"
            raise InputError(what, remedy="leave --learn out, or take other credits, such as --credit step-rloo")
        online_objective(settings.learn, load(settings.model))
    with locked_folder(out):
        return _reinforced(out, settings, on_progress)


def _reinforced(out: Path, settings: ReinforceSettings, on_progress: OnProgress | None) -> dict[str, Any]:
    """Trains what is not there yet, in a locked folder."""
    scorer = load(settings.model) if settings.model else None
    # Settings that fail must not claim the folder: it could then not be used with corrected ones.
    LocalPolicy.load(settings.policy)
    # A later run may add seeds or credits to the folder, so these two are not part of the claim.
    kept = {name: value for name, value in asdict(settings).items() if name not in ("credits", "seeds")}
    differing = claim(out / "settings.json", kept)
    if differing:
        raise StoreError(f"{out} holds trainings with other {', '.join(differing)}; choose another folder")
    plan = [(name, seed) for seed in range(settings.seeds) for name in settings.credits]
    curves: list[Curve] = []
    for done, (name, seed) in enumerate(plan):
        path = out / f"{_file_name(name)}-{seed}.json"
        if path.is_file():
            curves.append(Curve(**read_object(path, remedy="delete this one file and run again")))
            continue
        if on_progress is not None:
            on_progress("reinforce", done, len(plan), f"{name}, seed {seed}")
        # One that learns starts each training as it is in its folder.
        mine = scorer if settings.learn == "nothing" else load(settings.model)
        curve = _train(name, seed, settings, mine)
        write_json(path, asdict(curve))
        curves.append(curve)
    if on_progress is not None:
        on_progress("reinforce", len(plan), len(plan), "")
    summary = summarise(curves, settings)
    write_json(out / "reinforce.json", summary)
    write(build_page(summary), out / "reinforce.html")
    return summary


def _file_name(credit: str) -> str:
    """A credit's name as that of a file; sums hold signs that files must not have, and are told apart by a digest."""
    plain = re.sub(r"[^\w.+-]", "_", credit)
    return plain if plain == credit else f"{plain[:40]}-{hashlib.blake2b(credit.encode(), digest_size=4).hexdigest()}"


class _Counting(StepGRPOTrainer):
    """Counts what its policy generates in training."""

    tokens = 0
    """Tokens of the policy so far, without what an environment shows."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        out = super()._generate_and_score_completions(inputs)
        if self.model.training:
            own = out["completion_mask"]
            self.tokens += int((own * out["tool_mask"] if "tool_mask" in out else own).sum())
        return out


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Measures the policy on held-out problems as it is trained."""

    def __init__(self, curve: Curve, settings: ReinforceSettings, sampling: Sequence[Any], scorer: Any) -> None:
        self.world = world_of(settings.world)
        self.curve, self.settings, self.sampling = curve, settings, [*sampling]
        self.source = from_scorer(scorer) if scorer is not None else None
        use = use_of(scorer)
        self.threshold = 0.5 if use is None or use.threshold is None else use.threshold
        self.problems = self.world.problems("held_out", settings.held_out, 0)
        self.audited: StepGRPOTrainer | None = None
        """The trainer whose alarms hear of each measurement."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measures the first point of the curve."""
        self._measure(given["model"], given["processing_class"])

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measures a point every `evaluate_every` updates, and at the end."""
        if state.global_step % self.settings.evaluate_every == 0:
            self._measure(given["model"], given["processing_class"])

    def _measure(self, model: Any, tokenizer: Any) -> None:
        was_training = model.training
        most = self.settings.max_tokens if self.world.environment is None else TURN
        policy = LocalPolicy(model, tokenizer, max_tokens=most)
        key = Key.seed(0).fold("held out")
        solutions = self.world.solved(policy, self.problems, key, self.settings.samples)
        right = [one.outcome for one in solutions]
        if self.audited is not None:
            self.audited.raise_alarms(self.audited.alarms.audit(right))
        self.curve.tokens.append(sum(one.tokens for one in self.sampling))
        self.curve.accuracy.append(float(np.mean(right)))
        self.curve.length.append(float(np.mean([int(t.action.sum()) for t in solutions])))
        if self.source is not None:
            written = np.array([len(t) > 0 for t in solutions])
            scores = self.source([t for t in solutions if len(t)])
            self.curve.score.append(mean_score(scores))
            if self.settings.learn != "nothing":
                last = np.array([one[-1] for one in scores])
                self.curve.judged.append(float(((last > self.threshold) == (np.array(right)[written] > 0.5)).mean()))
        model.train(was_training)


def grpo_config(folder: str, problems: int, generations: int, **settings: Any) -> GRPOConfig:
    """Settings of a training on a CPU that takes minutes: nothing is saved, reported or moved to a device.

    Args:
        folder: that TRL may write to.
        problems: of an update.
        generations: of each problem.
        settings: all others of `GRPOConfig`.
    """
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=problems * generations,
        num_generations=generations,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=2,
        # TRL must not rescale the advantages: neither by a standard deviation nor by length.
        loss_type="dr_grpo",
        report_to=[],
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )


def _train(name: str, seed: int, settings: ReinforceSettings, scorer: Any) -> Curve:
    """One training, from the policy's first weights."""
    curve = Curve(name, seed)
    key = Key.seed(seed).fold("reinforce")
    rollouts = TreeRollouts(key, RECIPES[settings.trees].shape) if settings.trees else LocalRollouts(key)
    rewards, more = _step_rewards(name, settings, scorer, key), _step_data(name, settings, key)
    values = [one for one in (rewards, *more.values()) if isinstance(one, RolloutValues)]
    watch = _Watch(curve, settings, values, scorer)
    world = watch.world
    model, tokenizer = loading.load(settings.policy, "cpu", "float32")
    problems = world.problems("train", settings.steps * settings.problems, seed)
    sampled: dict[str, Any] = {} if world.environment is not None else {"rollout_func": rollouts}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Warnings of TRL and transformers about deprecated names and rollout functions concern us, not the user.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing")
        warnings.filterwarnings(
            "ignore", category=UserWarning, message="You are using '(rollout_func|environment_factory)'"
        )
        config = grpo_config(
            folder, settings.problems, settings.generations, max_completion_length=settings.max_tokens,
            max_steps=settings.steps, learning_rate=settings.learning_rate, seed=seed, logging_strategy="no",
        )  # fmt: skip
        trainer = _Counting(
            model,
            args=config,
            **world.trained_on(problems, tokenizer, settings.policy),
            **sampled,
            callbacks=[watch],
            credit=name,
            step_cuts="cuts" if settings.trees else "",
            step_rewards=rewards,
            step_data=more,
            alarms=HackingAlarms(on_alarm=settings.on_alarm),
        )
        watch.audited = trainer
        # A tree's solutions share tokens, which its rollouts count once; an episode is TRL's own.
        watch.sampling.append(trainer if world.environment is not None else rollouts)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    curve.alarms = sorted(trainer.alarmed)
    return curve


def _step_rewards(credit: str, settings: ReinforceSettings, scorer: Any, key: Key) -> StepNumbers | None:
    """Rewards of steps for a credit, None where it reads none; those of a model that learns are by its weights now."""
    if "rewards" not in credit_of(credit).data:
        return None
    if scorer is None:
        return _values(settings, key, before=False)
    environment = world_of(settings.world).environment
    if environment is not None:
        return InEnvironment(from_scorer(scorer), environment)
    if settings.learn == "nothing":
        return from_scorer(scorer)
    objective, rate = online_objective(settings.learn, scorer), settings.reward_learning_rate
    # Scores of log-ratios are sums over the solution so far: a step's reward is what it adds.
    return OnlineReward(scorer, objective, learning_rate=rate, gain=isinstance(scorer, ImplicitScorer))


def _step_data(credit: str, settings: ReinforceSettings, key: Key) -> dict[str, Source]:
    """What a credit reads beside rewards: values before each step, by rollouts, and the tree of each solution."""
    needed = credit_of(credit).data
    made: dict[str, Source] = {}
    if "values" in needed and settings.rollouts:
        made["values"] = _values(settings, key, before=True)
    if "root" in needed and settings.trees:
        made["root"] = "root"
    return made


def _values(settings: ReinforceSettings, key: Key, *, before: bool) -> RolloutValues:
    world = world_of(settings.world)
    return RolloutValues(
        world.grader, n=settings.rollouts, before=before, root=before, key=key.fold("values", int(before)),
        environment=world.environment, policy={"max_tokens": TURN if world.environment else settings.max_tokens},
    )  # fmt: skip
