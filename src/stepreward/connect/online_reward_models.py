"""Reward models that are trained together with the policy: implicit ones as in PRIME, or separate ones as in Cooper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from stepreward.core.errors import InputError, StoreError
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.types import Trajectory
from stepreward.train.online import Objective

Floats = NDArray[np.float64]
FOLDER = "step_reward"
"""Folder in a checkpoint of the trainer."""


class OnlineReward(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Step rewards by a model that is trained on the outcomes of the rollouts that it scores.

        StepGRPOTrainer(..., credit="prime", step_rewards=OnlineReward(implicit, implicit_cross_entropy, gain=True))

    One update for each batch of rollouts, none in evaluation. Gradients are averaged over processes. The trainer's
    checkpoints hold the model and its optimizer, from which a resumed training continues.

    Args:
        scorer: with the model that learns in `scorer.model`; what it keeps of earlier weights is forgotten.
        objective: of `train.online`.
        learning_rate: of AdamW, without weight decay.
        order: `after` scores with the current weights and then updates them; `before` updates first and scores with
            the new weights, at the price of a second pass. PRIME (arXiv:2502.01456) has both.
        gain: rewards are the differences of consecutive scores: for cumulative scores, such as implicit ones.
        max_grad_norm: gradients are clipped to this norm.
    """

    def __init__(
        self,
        scorer: Scorer,
        objective: Objective,
        *,
        learning_rate: float = 1e-6,
        order: Literal["after", "before"] = "after",
        gain: bool = False,
        max_grad_norm: float = 1.0,
    ) -> None:
        if order not in ("after", "before"):
            raise ValueError(f"order must be 'after' or 'before', got {order!r}")
        self.scorer, self.objective, self.order = scorer, objective, order
        self.gain, self.max_grad_norm = gain, max_grad_norm
        self.model: torch.nn.Module = scorer.model  # type: ignore[attr-defined]  # every scorer that can learn has one
        self._weights = [p for p in self.model.parameters() if p.requires_grad]
        if not self._weights:
            raise InputError(
                "no weight of the reward model is trainable", remedy="set requires_grad on the weights to train"
            )
        self.optimizer = torch.optim.AdamW(self._weights, lr=learning_rate, weight_decay=0.0)
        self.losses: list[float] = []
        """Loss of each update so far."""
        self._trainer: Any = None

    def attach(self, trainer: Any) -> None:
        """Attaches a trainer, which calls this once."""
        self._trainer = trainer
        trainer.add_callback(self)

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Floats]:
        """(S,) rewards of each trajectory's steps, NaN at observations; learns from their outcomes while training."""
        learning = self._trainer is None or self._trainer.model.training
        if learning and self.order == "before":
            self.learn(trajectories)
        scores = [one.scores for one in self.scorer.score_many([Score(t.problem, t.steps) for t in trajectories])]
        if learning and self.order == "after":
            self.learn(trajectories)
        return [added(row) for row in scores] if self.gain else scores

    def learn(self, trajectories: Sequence[Trajectory]) -> float:
        """One update by outcomes; returns the loss, 0 where no trajectory is informative."""
        # Each loss has its own graph: backward after each keeps the memory of one.
        self.optimizer.zero_grad()
        total = 0.0
        for loss in self.objective(self.scorer, trajectories):
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        for weight in self._weights:
            # Every process must take part in the reduction, also one whose rollouts gave no gradient.
            own = torch.zeros_like(weight) if weight.grad is None else weight.grad
            weight.grad = own if self._trainer is None else self._trainer.accelerator.reduce(own, "mean")
        torch.nn.utils.clip_grad_norm_(self._weights, self.max_grad_norm)
        self.optimizer.step()
        if (growing := getattr(self.scorer, "growing", None)) is not None:
            # Keys, values and scores of the old weights.
            growing.clear()
        self.losses.append(total)
        if self._trainer is not None:
            self._trainer._metrics["train"]["process/reward_model_loss"].append(total)
        return total

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes weights and optimizer beside the policy's."""
        if not state.is_world_process_zero:
            return
        folder = _folder(args, state)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = {f"weight.{i}": weight.detach().cpu().contiguous().clone() for i, weight in enumerate(self._weights)}
            for i, weight in enumerate(self._weights):
                for name, value in self.optimizer.state[weight].items():
                    kept[f"{name}.{i}"] = value.detach().cpu().contiguous().clone()
            save_file(kept, folder / "learned.safetensors")
        except OSError as error:
            raise StoreError(f"cannot write {folder}: {error}; choose a writable output_dir") from error

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restores the model from the checkpoint from which the policy's training resumes."""
        path = _folder(args, state) / "learned.safetensors"
        if not state.global_step:
            return
        if not path.is_file():
            raise InputError("the checkpoint holds no reward model", source=path, remedy="start the training anew")
        for name, value in load_file(path).items():
            kind, i = name.rsplit(".", 1)
            weight = self._weights[int(i)]
            if kind == "weight":
                with torch.no_grad():
                    weight.copy_(value)
            else:
                # Adam counts its steps on the CPU, and keeps its moments beside the weight.
                self.optimizer.state[weight][kind] = value if kind == "step" else value.to(weight.device)


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / FOLDER


def added(scores: Floats) -> Floats:
    """Differences of consecutive scored steps; NaN stays."""
    made = scores.copy()
    real = ~np.isnan(scores)
    made[real] = np.diff(scores[real], prepend=0.0)
    return made
