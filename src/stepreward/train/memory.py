"""Memory of a training, computed before it starts: one step on tensors that have shapes and no numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AutoModel
from transformers.initialization import no_init_weights

from stepreward.core.errors import InputError
from stepreward.score.encode.packing import PackedBatch
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.quantized_weights import quantized_bytes
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.parameters import prepare
from stepreward.train.settings import OPTIMIZERS, TrainSettings


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a training's largest batch, by kind."""

    weights: int
    gradients: int
    """Those that are there at the peak; without accumulation they come while activations go."""
    optimizer: int
    activations: int
    """The rest of the peak: what the backward pass needs of the forward one, and what single operations need."""
    parameters: int
    """Numbers in the model."""
    trained: int
    """Numbers that training changes."""
    layer: int
    """Numbers in the largest layer, which a sharded training has whole for a moment."""
    copies: int
    """Bytes of 16-bit copies of trained weights, among the activations; sharded, they are a layer's alone."""

    @property
    def total(self) -> int:
        """Bytes of all kinds; a CUDA device needs room for its own work beside it."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def sharded(self, processes: int, settings: TrainSettings) -> Memory:
        """The same where processes split weights, gradients and optimizer states (FSDP2)."""
        # Weights of two layers are whole at a time, the one that computes and the next, and gradients of one.
        whole = self.layer * (2 * (2 if settings.precision != "float32" else 4) + 4)
        weights, gradients, optimizer = (
            -(-size // processes) for size in (self.weights, 4 * self.trained, self.optimizer)
        )
        return replace(
            self,
            weights=weights,
            gradients=gradients,
            optimizer=optimizer,
            copies=0,
            activations=max(self.activations - self.copies, 0) + whole,
        )


def predict(
    config: Any,
    tokenizer: Any,
    record: EncoderRecord,
    settings: TrainSettings,
    batch: PackedBatch,
    *,
    processes: int = 1,
) -> Memory:
    """The memory of the training of a backbone, none of whose weights are needed.

    The step runs on `FakeTensorMode` tensors: every operation computes the shape of its result, and we add up the
    storages that are alive. That follows any architecture, activation checkpoints, adapters and casts.

    Args:
        config: of the backbone.
        tokenizer: its tokenizer.
        record: how the model is fed and read.
        settings: of the training.
        batch: the batch with the most memory.
        processes: among which `settings.shard` splits weights, gradients and optimizer states.

    Raises:
        InputError: the record reads log-probabilities, whose number of operations depends on the texts.
    """
    if record.readout.reads_language:
        what = "memory is not predicted where a model's own log-probabilities are read (surprise, b-coder)"
        raise InputError(what, remedy="leave out --dry-run, or --surprise")
    with torch.device("meta"), no_init_weights():
        backbone = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    model = StepRewardModel(backbone, tokenizer, record)
    prepare(model, settings)
    # Which blocks of a mask are computed depends on numbers, which tensors of the fake mode do not have.
    batch = replace(batch, given=batch.mask_of(backbone) if settings.device == "cpu" else batch.mask())
    with FakeTensorMode(allow_non_fake_inputs=True):
        _replace_tensors(model.train())
        sizes = [(p.numel(), p.element_size(), p.requires_grad) for p in model.parameters()]
        weights = sum(size * width for size, width, _ in sizes)
        gradients = sum(size * width for size, width, trains in sizes if trains)
        trained = sum(size for size, _, trains in sizes if trains)
        first, later = _peaks(model, lambda: _loss(model, batch, settings))
        layer = max((sum(p.numel() for p in part.parameters()) for part in _layers(model)), default=0)
        linear = [part.weight for part in model.modules() if isinstance(part, torch.nn.Linear)]
        copies = 2 * sum(p.numel() for p in linear if p.requires_grad) * (settings.precision != "float32")
        frozen = [] if settings.load_in == "full" else [weight for weight in linear if not weight.requires_grad]
    activations = max(later - weights - gradients, 0)
    kept = gradients if settings.accumulate > 1 else max(first - weights - activations, 0)
    # Each quantized layer is made whole while it computes.
    whole = max((weight.numel() * weight.element_size() for weight in frozen), default=0)
    saved = sum(weight.numel() * weight.element_size() - quantized_bytes(weight, settings.load_in) for weight in frozen)
    # A lagging copy has what is trained once more.
    copy = gradients if settings.loss().lags and settings.polyak < 1 else 0
    made = Memory(
        weights - saved + copy, kept, OPTIMIZERS[settings.optimizer][1] * trained, activations + whole,
        sum(size for size, _, _ in sizes), trained, layer, copies,
    )  # fmt: skip
    if settings.shard:
        return made.sharded(processes, settings)
    # DDP adds gradients up in buckets of its own, beside the parameters' gradients.
    return made if processes == 1 else replace(made, gradients=kept + gradients)


def _loss(model: StepRewardModel, batch: PackedBatch, settings: TrainSettings) -> torch.Tensor:
    numbers = {"bf16": torch.bfloat16, "fp16": torch.bfloat16}.get(settings.precision, torch.float32)
    with torch.autocast("cpu", numbers, enabled=settings.precision != "float32"):
        logits: torch.Tensor = model(batch)
    return logits.float().sum()


def _replace_tensors(model: torch.nn.Module) -> None:
    """Gives a model tensors of the fake mode: for its own, of the meta device, other kernels are chosen."""
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                new = torch.empty(old.shape, dtype=old.dtype)
                module._parameters[name] = torch.nn.Parameter(new, requires_grad=old.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _layers(model: StepRewardModel) -> list[torch.nn.Module]:
    return [part for part in model.modules() if type(part).__name__ in set(model._no_split_modules or ())]


def _peaks(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> tuple[int, int]:
    """Most bytes that are alive at a time in a forward and a backward pass, the model's own included.

    Returns:
        Of the first pass, before which there are no gradients, and of a later one, which adds to them.
    """
    counted = _Alive()
    for parameter in model.parameters():
        counted.add(parameter)
    with counted:
        torch.autograd.backward(loss())
        first, counted.most = counted.most, 0
        torch.autograd.backward(loss())
    return first, counted.most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages from their first use to the end of the last tensor that has them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.seen = WeakIdKeyDictionary()

    def add(self, tensor: torch.Tensor) -> None:
        """Counts a tensor's storage, once."""
        storage = tensor.untyped_storage()
        if storage not in self.seen:
            size = self.seen[storage] = storage.nbytes()
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._end, size)

    def _end(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return made
