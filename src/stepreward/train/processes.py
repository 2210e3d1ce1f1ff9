"""The processes of one training, as `torchrun` and `accelerate launch` start them: this one's number, and how many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stepreward.core.errors import ModelError
from stepreward.core.optional import Deferred

if TYPE_CHECKING:
    import torch
    import torch.distributed.checkpoint.state_dict as state_dict
else:
    torch = Deferred("torch")
    state_dict = Deferred("torch.distributed.checkpoint.state_dict")

deepspeed: Any = Deferred("deepspeed")


def processes() -> int:
    """How many processes train together; 1 for a training by itself."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes files and talks to people."""
    return int(os.environ.get("RANK", "0")) == 0


def with_deepspeed() -> bool:
    """Whether `accelerate launch` has set this training up for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true")


def whole_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All weights of a model whose processes hold a part each, on the CPU; every process must call it.

    They are collected one at a time, and only the first process keeps them.
    """
    if with_deepspeed():
        return _whole_of_deepspeed(model)
    options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    made: dict[str, Any] = dict(state_dict.get_model_state_dict(model, options=options))
    return made


def _whole_of_deepspeed(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    # Accelerate's `get_state_dict` gives 16-bit weights where the forward pass has them, and only if the configuration
    # says so. What is trained has whole numbers in DeepSpeed's optimizer; what is frozen has none, and is gathered.
    made = {}
    for name, weight in model.state_dict(keep_vars=True).items():
        trained = isinstance(weight, torch.nn.Parameter) and weight.requires_grad
        whole = deepspeed.utils.safe_get_full_fp32_param(weight) if trained else None
        with deepspeed.zero.GatheredParameters([weight], enabled=whole is None and hasattr(weight, "ds_id")):
            if is_main():
                made[name] = (weight if whole is None else whole).detach().cpu().clone()
    return made


@contextmanager
def together() -> Iterator[None]:
    """Says that another process is gone, where this one waits for it in vain.

    Raises:
        ModelError: it is.
    """
    try:
        yield
    except RuntimeError as error:
        if processes() == 1 or not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        what = "another process of this training has ended, this one cannot go on alone"
        raise ModelError(f"{what}; see that one's error, and run again to resume") from error
