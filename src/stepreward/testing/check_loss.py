"""The contract of a loss, by its values and gradients; needs torch."""

from __future__ import annotations

from typing import Any

from stepreward.core.method import Method
from stepreward.core.optional import optional
from stepreward.testing.rules import require
from stepreward.train.objectives.loss import outputs_of

_NAN = float("nan")
_OUTPUTS = (
    "logits", "outputs", "ends", "totals", "token_rewards", "token_values", "users", "latents", "features", "views",
)  # fmt: skip
_KNOWN = ("labels", "targets", "judged", "cells", "rewards", "outcome", "log_weights", "strength", "token_targets")
"""Data of which NaN means that it is not known."""
_OF_PAIRS = ("pairs", "strength", "siblings", "gap", "annotator", "users", "latents")
_PLAIN = {"logits", "labels", "mask"}


def check_loss(method: Method[..., Any]) -> None:
    """Checks values and gradients of a loss, on two trajectories of three and of two steps.

    Raises:
        ContractError: a rule is broken.
        ModelError: torch is not installed.
    """
    torch = optional("torch")
    data = _example(torch, method)
    outputs = [name for name in method.data if name in _OUTPUTS]
    mask = data.get("mask")
    # Only where each step has a target of its own is a step without one sure to teach nothing.
    plain = set(method.data) <= _PLAIN
    free = {} if mask is None else {"logits": ~mask | data["labels"].isnan() if plain else ~mask, "outputs": ~mask}

    def value(given: dict[str, Any]) -> Any:
        made = method.take({name: given[name] for name in method.data})
        return getattr(made, "value", made)

    leaves = {name: data[name].clone().requires_grad_() for name in outputs}
    whole = value(data | leaves)
    require(whole.shape == (), method, "one number", f"the loss has shape {tuple(whole.shape)}", "return a scalar")
    whole.backward()
    for name in outputs:
        slope = leaves[name].grad
        padding = free.get(name, torch.zeros(slope.shape, dtype=torch.bool))
        zero, found = bool((slope[padding] == 0).all()), "steps without label or mask get a gradient"
        require(zero, method, "gradient at padding", found, "leave them out of the sum")
        require(bool((slope != 0).any()), method, "gradient", f"no {name} get a gradient", f"keep the graph of {name}")
    if plain:
        right = torch.autograd.gradcheck(
            lambda z: value(data | {"logits": z}), (data["logits"].clone().requires_grad_(),), raise_exception=False
        )
        remedy = "detach nothing that depends on logits"
        require(right, method, "gradient", "the gradient is not that of the value", remedy)
    wild = {name: torch.where(_wide(free[name], data[name]), _NAN, data[name]) for name in outputs if name in free}
    require(bool(torch.isclose(value(data | wild), whole)), method, "padding", "logits at padding change the loss",
            "select by the mask, do not multiply by it")  # fmt: skip
    swapped = {name: one if name in _OF_PAIRS else one.flip(0) for name, one in data.items()}
    swapped |= {name: data[name].clone() for name in ("pairs", "siblings") if name in data}
    if "pairs" in swapped:
        swapped["pairs"] = 1 - swapped["pairs"]
    if "siblings" in swapped:
        swapped["siblings"][:, [0, 2]] = 1 - swapped["siblings"][:, [0, 2]]
    same = bool(torch.isclose(value(swapped), whole))
    require(same, method, "order of rows", "another order changes the loss", "use no position")
    large = {name: (900 * data[name]).requires_grad_() for name in outputs}
    extreme = value(data | large)
    extreme.backward()
    finite = bool(extreme.isfinite() and all(one.grad.isfinite().all() for one in large.values()))
    require(finite, method, "finite", "logits of some hundreds give inf or NaN", "use logsigmoid, logsumexp and kin")
    unknown = {name: torch.full_like(data[name], _NAN) for name in _KNOWN if name in data}
    nothing = value(data | unknown | ({n: data[n][:0] for n in _OF_PAIRS if n in data}))
    require(float(nothing) == 0, method, "nothing supervised", f"the loss is {float(nothing)}", "return 0")


def _wide(mask: Any, array: Any) -> Any:
    """A (B, S) mask in the shape of (B, S, ...)."""
    return mask.reshape(*mask.shape, *[1] * (array.ndim - mask.ndim)).expand_as(array)


def _example(torch: Any, method: Method[..., Any]) -> dict[str, Any]:
    """Data by name, with an unknown entry and padding."""
    width = outputs_of(method.settings) or 2
    logits = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0, _NAN], [1.0, 1.0, 0.0]], dtype=torch.float64)
    spread = 1 + torch.arange(width, dtype=torch.float64)
    made = {
        "logits": logits, "labels": labels, "mask": torch.tensor([[True, True, True], [True, True, False]]),
        "outputs": logits[..., None] * spread, "targets": labels[..., None].expand(2, 3, width).clone(),
        "ends": logits[:, -1:] * spread + spread.flip(0), "totals": logits[:, 0] - 0.7,
        "draws": torch.zeros(2, width, dtype=torch.float64), "remaining": 30 * labels,
        "judged": 0.2 + 0.6 * labels, "cells": labels.clone(), "rewards": 0.1 * labels,
        "outcome": torch.tensor([1.0, 0.0], dtype=torch.float64), "group": torch.tensor([0, 0]),
        "log_weights": torch.tensor([0.3, -0.2], dtype=torch.float64), "pairs": torch.tensor([[0, 1]]),
        "strength": torch.tensor([2.0], dtype=torch.float64), "gap": torch.tensor([1.0], dtype=torch.float64),
        "annotator": torch.tensor([0]), "users": torch.tensor([[0.3] * width], dtype=torch.float64),
        "latents": torch.tensor([[0.4] * 2 * width], dtype=torch.float64),
        "siblings": torch.tensor([[0, 1, 1, 1]]), "token_rewards": logits.clone(), "guide": labels.clone(),
        "token_values": logits.clone(), "token_targets": labels.clone(),
        "features": logits[..., None] * torch.tensor([1.0, 0.5]).double() + 0.2,
        "slopes": torch.full_like(logits, 0.02), "views": logits[..., None] + spread[:2],
        "lagging_outputs": logits[..., None] * spread - 0.3, "lagging_logits": logits - 0.3,
        "lagging_features": logits[..., None] * torch.tensor([1.0, 0.5]).double() + 0.4,
    }  # fmt: skip
    return {name: made[name] for name in {*method.data, *(["labels"] if "mask" in method.data else [])}}
