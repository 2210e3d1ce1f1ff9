"""The processes of one training, as `torchrun` and `accelerate launch` start them: this one's number, and how many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stepreward.core.errors import InputError, ModelError
from stepreward.core.optional import Deferred

if TYPE_CHECKING:
    import torch
    import torch.distributed.checkpoint.state_dict as state_dict
else:
    torch = Deferred("torch")
    state_dict = Deferred("torch.distributed.checkpoint.state_dict")


def processes() -> int:
    """How many processes train together; 1 for a training by itself."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes files and talks to people."""
    return int(os.environ.get("RANK", "0")) == 0


def refuse_deepspeed() -> None:
    """Stops a training that `accelerate launch` has set up for DeepSpeed.

    Under ZeRO-3 a process has no weights of its own, so that the finished checkpoint would be empty.

    Raises:
        InputError: it has.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true"):
        remedy = "pass --shard (FSDP2), which splits weights, gradients and optimizer states too, and launch without it"
        raise InputError("weights that DeepSpeed has split cannot be saved yet", remedy=remedy)


def whole_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All weights of a model whose processes hold a part each, on the CPU; every process must call it.

    They are collected one at a time, and only the first process keeps them.
    """
    options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    made: dict[str, Any] = dict(state_dict.get_model_state_dict(model, options=options))
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
