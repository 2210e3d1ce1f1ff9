"""A copy of a model's trained weights that follows them slowly, of whose outputs targets are made.

    w' <- w' + share (w - w')    after each step of the optimizer (a Polyak average)

What is frozen, such as a quantized base, is not copied. Processes that each have the whole model (DDP) have equal
weights after each step, and so equal lagging ones without asking each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stepreward.core.errors import ModelError
from stepreward.score.encode.packing import PackedBatch
from stepreward.score.model.log_ratio_model import Trainable

LAGGING_FILE = "lagging.safetensors"
"""In a checkpoint of unfinished work: the lagging weights."""


class LaggingCopy:
    """The lagging weights of a model; equal to its own at first.

    Args:
        model: on its device.
        share: of the difference that is caught up with at a step, in (0, 1].
    """

    def __init__(self, model: Trainable, share: float) -> None:
        self.model, self.share = model, share
        self.weights = {name: one.detach().clone() for name, one in _trained(model)}

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the copy towards the model."""
        for name, now in _trained(self.model):
            self.weights[name].lerp_(now, self.share)

    @torch.no_grad()
    def outputs(self, batch: PackedBatch) -> torch.Tensor:
        """What the model's forward pass returns with the lagging weights, without dropout."""
        with evaluating(self.model):
            made: torch.Tensor = torch.func.functional_call(self.model, self.weights, (batch,))
        return made

    def save(self, folder: Path) -> None:
        """Writes the weights into a checkpoint of unfinished work."""
        save_file({name: one.contiguous() for name, one in self.weights.items()}, folder / LAGGING_FILE)

    def load(self, folder: Path) -> None:
        """Goes on with the weights that `save` wrote.

        Raises:
            ModelError: they are not there, or those of another model.
        """
        path = folder / LAGGING_FILE
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            what = f"cannot read {path}: {str(error).splitlines()[0]}"
            raise ModelError(f"{what}; delete the folder of unfinished work to start over") from error
        shapes, wanted = ({name: one.shape for name, one in some.items()} for some in (found, self.weights))
        if shapes != wanted:
            raise ModelError(f"{path} has the weights of another model: delete the folder of unfinished work")
        for name, one in found.items():
            self.weights[name].copy_(one)


def _trained(model: Trainable) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((name, one) for name, one in model.named_parameters() if one.requires_grad)


@contextmanager
def evaluating(model: Trainable) -> Iterator[None]:
    """Without the noise of dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
