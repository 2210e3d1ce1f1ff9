"""Which parameters of a model are trained, and in which numbers each is kept."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch

from stepreward.core.errors import InputError
from stepreward.core.optional import optional
from stepreward.score.model import quantized_base
from stepreward.score.model.backbones import has_adapter
from stepreward.train.settings import TrainSettings

if TYPE_CHECKING:
    from stepreward.score.model.log_ratio_model import Trainable

NUMBERS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Of the forward pass, by precision."""
EVERY_LINEAR = "all-linear"
"""In place of names of modules: every linear layer of the backbone."""


def prepare(model: Trainable, settings: TrainSettings) -> None:
    """Adds adapters, freezes what is not trained, and casts each parameter; in place.

    What is trained is kept in float32, from which autocast takes its 16-bit copies: a step of the optimizer is often
    smaller than the spacing of 16-bit numbers. Frozen weights are kept in the numbers of the forward pass.

    Raises:
        InputError: a name of modules or parameters fits none, or nothing is left to train.
        ModelError: adapters are wanted and `peft` is not installed.
    """
    if settings.lora_rank and not has_adapter(model.pretrained):
        _add_adapter(model, settings)
    _freeze(model, settings.freeze)
    if settings.activation_checkpoints:
        # The re-entrant kind would lose the gradient where a layer's input is frozen. Releases before 5.23 have the
        # older name alone.
        backbone: Any = model.backbone
        enable = getattr(backbone, "activation_checkpointing_enable", None) or backbone.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    frozen = NUMBERS[settings.precision]
    for parameter in model.parameters():
        # The weights of a quantized layer are integers.
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else frozen)


def loading(settings: TrainSettings) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a backbone in the bits that the settings want.

    Raises:
        ModelError: `bitsandbytes` is not installed.
    """
    if settings.load_in == "full":
        return {}
    return quantized_base.loading(settings.load_in, settings.device, NUMBERS[settings.precision])


def trained_names(model: torch.nn.Module) -> set[str]:
    """Names of all that training changes: what a checkpoint of unfinished work needs."""
    # A quantized layer has more in its state than parameters and buffers.
    parameters = {name for name, one in model.named_parameters(remove_duplicate=False) if one.requires_grad}
    return {*model.state_dict()} & (parameters | {name for name, _ in model.named_buffers(remove_duplicate=False)})


def _add_adapter(model: Trainable, settings: TrainSettings) -> None:
    peft = optional("peft")
    targets: Any = list(settings.lora_targets)
    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
        lora_dropout=settings.lora_dropout,
        target_modules=EVERY_LINEAR if targets == [EVERY_LINEAR] else targets,
        task_type="FEATURE_EXTRACTION" if model.pretrained is model.backbone else "CAUSAL_LM",
    )
    # Equal seeds give equal adapters, whatever random numbers the process drew before.
    state = torch.get_rng_state()
    try:
        torch.manual_seed(settings.seed)
        config.base_model_name_or_path = model.pretrained.name_or_path
        peft.inject_adapter_in_model(config, model.pretrained)
    except ValueError as error:
        kinds = sorted({name.rpartition(".")[2] for name, part in model.backbone.named_modules() if _is_linear(part)})
        raise InputError(
            f"no adapter fits {', '.join(settings.lora_targets)}: {str(error).splitlines()[0]}",
            remedy=f"name some of the linear layers {', '.join(kinds)}, or {EVERY_LINEAR}",
        ) from error
    finally:
        torch.set_rng_state(state)


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def _freeze(model: Trainable, patterns: tuple[str, ...]) -> None:
    names = dict(model.named_parameters())
    for pattern in patterns:
        chosen = [name for name in names if fnmatchcase(name, pattern)]
        if not chosen:
            examples = ", ".join([*names][:3])
            remedy = "use names as these, with * for any text; `backbone.*` leaves the head alone to train"
            raise InputError(f"freeze {pattern!r} fits no parameter of {examples}, ...", remedy=remedy)
        for name in chosen:
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise InputError("every parameter is frozen: nothing is left to train", remedy="freeze less")
