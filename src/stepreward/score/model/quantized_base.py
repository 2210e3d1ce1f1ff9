"""A backbone in 8 or 4 bits under adapters, by bitsandbytes: how it is loaded, and what its checkpoint says of that."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from stepreward.core.files.atomic_files import write_json
from stepreward.core.optional import optional
from stepreward.score.model.devices import device_of
from stepreward.score.model.quantized_weights import BASE_FILE

_QUANTIZED = ("Params4bit", "Int8Params")


def loading(bits: str, device: str, compute: torch.dtype) -> dict[str, Any]:
    """Arguments of `from_pretrained` by which a backbone is quantized while it is loaded.

    Args:
        bits: one of `quantized_weights.BITS`.
        device: by name; where several processes train, each takes its own card.
        compute: numbers in which a layer of 4 bits multiplies.

    Raises:
        ModelError: `bitsandbytes` is not installed.
    """
    # It says at import which kernels a CPU lacks, and at every layer that inputs are cast.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    optional("bitsandbytes")
    config = BitsAndBytesConfig(
        load_in_8bit=bits == "8bit",
        load_in_4bit=bits == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    where = device_of(device)
    own: Any = int(os.environ.get("LOCAL_RANK", "0")) if where.type == "cuda" else where
    return {"quantization_config": config, "device_map": {"": own}}


def layers_of(model: nn.Module) -> list[str]:
    """Last names of the quantized layers of a model, such as q_proj."""
    quantized = {name for name, part in model.named_modules() if _is_quantized(part)}
    return sorted({name.removesuffix(".base_layer").rpartition(".")[2] for name in quantized})


def _is_quantized(part: nn.Module) -> bool:
    return type(getattr(part, "weight", None)).__name__ in _QUANTIZED


def without_repacking(model: nn.Module) -> None:
    """Makes layers of 4 bits compute on a CPU in evaluation as they do in training.

    Otherwise they change to a format for bfloat16 on some processors, which rounds more and needs widths of 64.
    """
    part: Any
    for part in model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False


def save_base(model: Any, folder: Path) -> None:
    """Writes beside adapters how their base was loaded, if it was quantized."""
    config = getattr(model.config, "quantization_config", None)
    if config is not None and (layers := layers_of(model)):
        bits = "4bit" if config.load_in_4bit else "8bit"
        write_json(folder / BASE_FILE, {"load_in": bits, "layers": layers, "config": config.to_dict()})
