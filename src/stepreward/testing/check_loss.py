"""The contract of a loss, by its values and gradients; needs torch."""

from __future__ import annotations

from typing import Any

from stepreward.core.method import Method
from stepreward.core.optional import optional
from stepreward.testing.rules import require


def check_loss(method: Method[..., Any]) -> None:
    """Checks values and gradients of a loss.

    Raises:
        ContractError: a rule is broken.
        ModelError: torch is not installed.
    """
    torch = optional("torch")
    nan = float("nan")
    logits = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0, nan], [1.0, 1.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    free = ~mask | labels.isnan()

    def value(z: Any, y: Any = labels, m: Any = mask) -> Any:
        return method.take({"logits": z, "labels": y, "mask": m})

    z = logits.clone().requires_grad_()
    whole = value(z)
    require(whole.shape == (), method, "one number", f"the loss has shape {tuple(whole.shape)}", "return a scalar")
    whole.backward()
    zero, found = bool((z.grad[free] == 0).all()), "steps without label or mask get a gradient"
    require(zero, method, "gradient at padding", found, "leave them out of the sum")
    require(bool((z.grad[~free] != 0).any()), method, "gradient", "no step gets a gradient", "keep the graph of logits")
    right = torch.autograd.gradcheck(value, (logits.clone().requires_grad_(),), raise_exception=False)
    require(right, method, "gradient", "the gradient is not that of the value", "detach nothing that depends on logits")
    wild = torch.where(free, torch.full_like(logits, nan), logits)
    require(bool(torch.isclose(value(wild), whole)), method, "padding", "logits at padding change the loss",
            "select by the mask, do not multiply by it")  # fmt: skip
    swapped = value(logits.flip(0), labels.flip(0), mask.flip(0))
    same = bool(torch.isclose(swapped, whole))
    require(same, method, "order of rows", "another order changes the loss", "use no position")
    large = (900 * logits).requires_grad_()
    extreme = value(large)
    extreme.backward()
    finite = bool(extreme.isfinite() and large.grad.isfinite().all())
    require(finite, method, "finite", "logits of some hundreds give inf or NaN", "use logsigmoid, logsumexp and kin")
    nothing = value(logits, torch.full_like(labels, nan))
    require(float(nothing) == 0, method, "nothing supervised", f"the loss is {float(nothing)}", "return 0")
