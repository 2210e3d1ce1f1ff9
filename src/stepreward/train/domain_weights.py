"""Weights of domains, learned so that a model that is trained with them does well on other data.

    L(theta, w) = sum_d w_d L_d(theta),    w_d = softplus(a_d) / mean softplus(a)

DreamPRM (arXiv:2505.20241; `main.py` and `model.py` of coder-qicao/DreamPRM) takes for the gradient of the outer loss M

    dM / dw_d = -< dM / dtheta, dL_d / dtheta > = -( L_d(theta + e v) - L_d(theta - e v) ) / (2 e),    v = dM / dtheta

after some steps of the optimizer: the first-order method of DARTS, with e = 0.01 / |v|, and without the learning rate,
which the step of AdamW on a does not see. A domain whose gradient agrees with that of the outer loss gains weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.score.model.log_ratio_model import Trainable
from stepreward.train.data.training_batch import TrainingBatch
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.objective import Objective
from stepreward.train.objectives.loss import Loss
from stepreward.train.other_models.lagging import evaluating

_REACH = 0.01
"""Length of the step to each side in a difference of losses."""
_DECAY = 1e-3
"""Weight decay of the outer optimizer, as published."""


def outer_weights(raw: torch.Tensor) -> torch.Tensor:
    """(D,) positive weights with mean 1 of any numbers: softplus(a) / mean softplus(a)."""
    positive = torch.nn.functional.softplus(raw)
    return positive / positive.mean()


class DomainWeights:
    """The weights of the domains in a loss, which learn where a rate is given.

    Args:
        names: of the domains.
        start: weights at first, any positive numbers; 1 for a domain without one.
        rate: learning rate of the outer optimizer; 0 leaves the weights as they are.

    Raises:
        InputError: `start` names another domain.
    """

    def __init__(self, names: Sequence[str], start: Mapping[str, float], rate: float) -> None:
        if unknown := sorted({*start} - {*names}):
            known = ", ".join(map(repr, sorted(names)))
            raise InputError(f"the data has no domain {unknown[0]!r}", remedy=f"its domains are {known}")
        self.names, self.rate = tuple(names), rate
        first = torch.tensor([start.get(name, 1.0) for name in self.names], dtype=torch.float64)
        # The inverse of softplus.
        self.raw = torch.nn.Parameter(first + torch.log(-torch.expm1(-first)))
        self.optimizer = torch.optim.AdamW([self.raw], lr=rate, weight_decay=_DECAY)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each domain, 1 on average."""
        return dict(zip(self.names, outer_weights(self.raw).tolist(), strict=True))

    def parts(self, objective: Objective, model: Trainable, outputs: torch.Tensor, batch: TrainingBatch) -> list[Loss]:
        """The loss of each domain's trajectories alone.

        The totals add up to those of the whole batch, unless the objective compares problems.
        """
        masks = [[domain == name for domain in batch.domains] for name in self.names]
        rows = torch.tensor(masks, device=batch.mask.device).reshape(len(self.names), -1)
        return [objective(model, outputs, batch.only(mine)) for mine in rows]

    def loss(self, objective: Objective, model: Trainable, outputs: torch.Tensor, batch: TrainingBatch) -> Loss:
        """The weighted loss of a batch, whose counts are those of the plain one."""
        parts = self.parts(objective, model, outputs, batch)
        weights = outer_weights(self.raw.detach())
        totals = [w.to(one.totals) * one.totals for w, one in zip(weights, parts, strict=True)]
        return Loss(torch.stack(totals).sum(0), torch.stack([one.counts for one in parts]).sum(0))

    def learn(
        self,
        objective: Objective,
        model: Trainable,
        batches: Sequence[TrainingBatch],
        counts: torch.Tensor,
        outer: tuple[Objective, TrainingBatch],
        reduced: Callable[[torch.Tensor], torch.Tensor] = lambda losses: losses,
    ) -> float:
        """One step of the outer optimizer; the model is as before.

        Args:
            objective: of the training.
            model: after a step of its own optimizer.
            batches: of that step, on the model's device.
            counts: (M,) of all these batches together.
            outer: the outer objective and a batch of the data that it is measured on.
            reduced: sums over the processes.

        Returns:
            The outer loss.
        """
        criterion, meta = outer
        trained = [p for p in model.parameters() if p.requires_grad]
        # Differences of losses would measure the noise of dropout.
        with evaluating(model):
            measured = criterion(model, model(meta.packed), meta).value
            found = torch.autograd.grad(measured, trained, allow_unused=True)
            direction = [(p, v) for p, v in zip(trained, found, strict=True) if v is not None]
            length = float(torch.stack([v.double().square().sum() for _, v in direction]).sum().sqrt())
            if length > 0:
                ahead, behind = (
                    reduced(self._at(objective, model, batches, counts, direction, reach / length))
                    for reach in (_REACH, -_REACH)
                )
                slope = -(ahead - behind) / (2 * _REACH / length)
                (self.raw.grad,) = torch.autograd.grad(outer_weights(self.raw), self.raw, slope.to(self.raw))
                self.optimizer.step()
        return float(measured.detach())

    @torch.no_grad()
    def _at(
        self, objective: Objective, model: Trainable, batches: Sequence[TrainingBatch], counts: torch.Tensor,
        direction: Sequence[tuple[torch.Tensor, torch.Tensor]], step: float,
    ) -> torch.Tensor:  # fmt: skip
        """(D,) losses of the domains where the model is a step away."""
        kept = [p.detach().clone() for p, _ in direction]
        try:
            for parameter, v in direction:
                parameter.add_(v, alpha=step)
            made = torch.zeros(len(self.names), dtype=torch.float64, device=counts.device)
            for batch in batches:
                parts = self.parts(objective, model, model(batch.packed), batch)
                made += torch.stack([one.over(counts).double() for one in parts])
            return made
        finally:
            # Adding and subtracting would round: the model must not change.
            for (parameter, _), old in zip(direction, kept, strict=True):
                parameter.copy_(old)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, as JSON values."""
        adam = self.optimizer.state.get(self.raw, {})
        return {"raw": self.raw.tolist(), **{name: value.tolist() for name, value in adam.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        made = {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}
        with torch.no_grad():
            self.raw.copy_(made.pop("raw"))
        if made:
            self.optimizer.state[self.raw] = made


def drawn(data: TrainingSet, number: int, key: Key) -> TrainingBatch:
    """The batch of a number, over shuffled passes without end: the same one before and after a resume."""
    epoch, at = divmod(number, len(data))
    return data[int(key.fold("epoch", epoch).rng().permutation(len(data))[at])]
