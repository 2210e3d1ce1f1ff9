"""Writes a step reward model in a layout of other libraries, or says why it cannot."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
)

from stepreward.core.errors import InputError, ModelError, StoreError, UnknownNameError
from stepreward.score.checkpoints.known_checkpoints import by_name
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.encode.record_file import RECORD_FILE, save_record
from stepreward.score.model.adapter_layout import write_adapter
from stepreward.score.model.layouts import LAYOUTS, OWN, Layout
from stepreward.score.model.linear_outputs import LinearHead
from stepreward.score.model.step_reward_model import PROBE, StepRewardModel
from stepreward.score.model.weights import ADAPTER_FILE
from stepreward.score.model.without_bars import without_bars

_CLASSES = {"token": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, "sequence": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING}
"""The class of each task, by that of the configuration."""
_SIMPLE = ("chomp", "strip")
"""Changes to a step's text that a caller of another library makes in one line."""


def layout_by_name(name: str) -> Layout:
    """A layout.

    Raises:
        UnknownNameError: there is none of this name.
    """
    if name not in LAYOUTS:
        raise UnknownNameError("layout", name, LAYOUTS)
    return LAYOUTS[name]


def require_layout(model: StepRewardModel, name: str, *, adapters: bool = False) -> Layout:
    """The layout, where it can hold a model.

    Args:
        model: to be written.
        name: of the layout.
        adapters: whether the model's checkpoint has adapters apart from their base.

    Raises:
        InputError: it cannot; the error names those that can.
        UnknownNameError: there is no such layout.
    """
    layout = layout_by_name(name)
    why = _refusal(model, layout, adapters)
    if not why:
        return layout
    able = [other.name for other in LAYOUTS.values() if not _refusal(model, other, adapters)]
    raise InputError(f"the layout {name} cannot hold this model: {why}", remedy=f"layouts that can: {', '.join(able)}")


def _refusal(model: StepRewardModel, layout: Layout, adapters: bool) -> str:
    """Why a layout cannot hold a model; "" where it can."""
    if layout is OWN:
        return ""
    if layout.adapter and not adapters:
        return "its checkpoint has no adapters apart from their base"
    return _encoding_refusal(model, layout) or _head_refusal(model, layout)


def _encoding_refusal(model: StepRewardModel, layout: Layout) -> str:
    """What of the input another library's caller could not build in a few lines, or would build differently."""
    encoding, tokenizer = model.record.encoding, model.tokenizer
    if not isinstance(encoding, PerStep) or encoding.tokenise != "step":
        what = "text between added tokens" if isinstance(encoding, PerStep) else f"{encoding.kind} text"
        return f"its tokenizer sees {what}, and such layouts are for steps that are tokenised one by one"
    if unknown := [name for name in encoding.clean if name not in _SIMPLE]:
        return f"its steps are changed by {unknown[0]!r} first"
    ends = [*model.encoder.separator_ids[-1:]] if encoding.read == "at" else []
    if layout.task == "sequence" and tokenizer.pad_token_id in ends:
        return f"it is read at {encoding.separator!r}, its padding token, which a sequence classifier passes over"
    if layout.like != "trl-prm":
        return ""
    row = by_name(layout.like).encoding
    free = ("prompt_format", "separator", "clean", "max_length", "too_long", "separator_token", "images")
    if replace(encoding, **{name: getattr(row, name) for name in free}) != row or not encoding.separator:
        return "TRL writes a plain prompt and plain steps, each with a separator behind it that is read"
    if tokenizer.bos_token and not encoding.prompt_format.startswith("{bos}"):
        return f"TRL begins a prompt with the first token {tokenizer.bos_token!r}, which this model has not seen"
    return ""


def _head_refusal(model: StepRewardModel, layout: Layout) -> str:
    config = model.backbone.config
    if model.record.readout.surprise:
        return "its head reads surprise, the language model's own log-probabilities (surprise=True)"
    if model.record.both_ways:
        return "it reads steps in both directions (both_ways=True)"
    if model.record.readout.policy:
        return "it also reads the language model's own log-probabilities (an objective such as b-coder)"
    if model.record.readout.formula:
        return f"its score is the formula {model.record.readout.formula!r} of its outputs, which no other layout has"
    if layout.family and config.model_type != layout.family:
        return f"its backbone is a {config.model_type}, and {layout.architecture} is a {layout.family}"
    if layout.task and type(config) not in _CLASSES[layout.task]:
        return f"transformers has no {layout.task} classifier of {config.model_type} backbones"
    head = LinearHead.of(model.head, model.record.readout)
    if head is None:
        return f"its head is no linear layer but a {type(model.head).__name__}"
    if not layout.bias and head.bias.any():
        return (
            "its head has a bias, for which a sequence classifier has no place: train it with "
            "`--export sequence-classification`, whose head has none"
        )
    fitted = _fitted(head, layout)
    if fitted is None:
        readout = head.readout
        wanted = "one logit" if layout.outputs == "one" else "a wrong and a right label"
        return f"its score is a {readout.kind} of {readout.n_labels} outputs, which {wanted} cannot express"
    if not layout.task and fitted.weight.shape[1] < 2 * len(fitted.weight):
        return f"its hidden states have {fitted.weight.shape[1]} numbers, too few for the two layers of that head"
    return ""


def _fitted(head: LinearHead, layout: Layout) -> LinearHead | None:
    """The head with the outputs of a layout; None where the scores cannot be had from them."""
    return {"any": lambda: head, "one": head.one, "two": head.two}[layout.outputs]()


def write_layout(model: StepRewardModel, folder: Path, name: str, source: Path | None = None) -> EncoderRecord:
    """Writes weights, configuration, tokenizer and record into a new folder; the model stays as it is.

    Args:
        model: what is written, in its own numbers.
        folder: where to; without older files.
        name: of the layout.
        source: the checkpoint that the model was loaded from; for a layout of adapters.

    Returns:
        The record of what was written: its readout is that of the layout's outputs.

    Raises:
        InputError: the layout cannot hold the model.
        StoreError: the folder cannot be written.
        UnknownNameError: there is no such layout.
    """
    adapters = source is not None and (source / ADAPTER_FILE).is_file()
    layout = require_layout(model, name, adapters=adapters)
    head = LinearHead.of(model.head, model.record.readout)
    fitted = None if layout is OWN or head is None else _fitted(head, layout)
    if fitted is None:
        with without_bars():
            model.save_pretrained(folder)
        return model.record
    record = replace(model.record, readout=fitted.readout)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with without_bars():
            if source is not None and layout.adapter:
                write_adapter(_classifier(model, fitted, layout), folder, source)
            else:
                (_write_as_class if layout.task else _write_as_qwen)(model, fitted, layout, folder)
        model.tokenizer.save_pretrained(folder)
        save_record(record, folder, probe=model.tokenizer(PROBE, add_special_tokens=False)["input_ids"])
        for path in folder.glob("*.safetensors"):
            # Safetensors makes its files private to their owner, unlike the rest of a checkpoint.
            shutil.copymode(folder / RECORD_FILE, path)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error}; choose a writable folder") from error
    return record


def _write_as_class(model: StepRewardModel, head: LinearHead, layout: Layout, folder: Path) -> None:
    """Writes by the class of the backbone's family, around the backbone and the head as they are."""
    outer = _classifier(model, head, layout)
    setattr(outer, outer.base_model_prefix, model.backbone)
    outer.save_pretrained(folder)


def _classifier(model: StepRewardModel, head: LinearHead, layout: Layout) -> Any:
    """The classifier of the backbone's family with the head, around a backbone without memory."""
    config = _config(model, head.readout)
    with torch.device("meta"):
        outer = _CLASSES[layout.task][type(config)](config)
    (linear,) = [part for part in outer.children() if isinstance(part, nn.Linear)]
    state, wanted = {"weight": head.weight, "bias": head.bias}, linear.state_dict()
    if "bias" not in wanted and head.bias.any():
        raise ModelError(f"{type(outer).__name__} has no place for the bias of the head: choose another layout")
    linear.load_state_dict({name: state[name] for name in wanted}, assign=True)
    return outer


def _write_as_qwen(model: StepRewardModel, head: LinearHead, layout: Layout, folder: Path) -> None:
    """Writes Qwen's reward models, which are no class of transformers: two layers behind the backbone."""
    state = {f"model.{name}": value.detach() for name, value in model.backbone.state_dict().items()}
    state |= {f"score.{name}": value for name, value in head.through_relu().items()}
    save_torch_state_dict({name: value.contiguous() for name, value in state.items()}, folder)
    config = _config(model, head.readout)
    config.architectures, config.dtype = [layout.architecture], head.weight.dtype
    config.save_pretrained(folder)


def _config(model: StepRewardModel, readout: Readout) -> Any:
    """The backbone's configuration with the labels of a head and what servers make of its outputs."""
    config = copy.deepcopy(model.backbone.config)
    config.num_labels = readout.n_labels
    # vLLM applies a softmax, the sigmoid of each, or nothing, by this field.
    labels = "single_label" if readout.compares else "multi_label"
    probable = readout.compares or readout.kind in ("sigmoid", "mean-sigmoid")
    config.problem_type = f"{labels}_classification" if probable else "regression"
    if config.pad_token_id is None:
        config.pad_token_id = model.tokenizer.pad_token_id
    return config
