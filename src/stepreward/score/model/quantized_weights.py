"""Weights of a base that was quantized under its adapters: what its layers computed with, and the bytes they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from stepreward.core.errors import ModelError
from stepreward.core.optional import optional

BITS = ("8bit", "4bit")
"""LLM.int8 (arXiv:2208.07339), and NF4 with quantized scales (arXiv:2305.14314)."""
BASE_FILE = "adapter_base.json"
"""Beside adapters that were trained on a quantized base: in how many bits, and which layers."""
_BLOCK = 64


def as_quantized(state: dict[str, torch.Tensor], note: Mapping[str, Any]) -> None:
    """Gives a base the weights that it had in training, each rounded to its bits and back; in place.

    Args:
        state: weights by name.
        note: of `BASE_FILE`; where it is empty nothing changes.

    Raises:
        ModelError: it names no bits and layers, or `bitsandbytes` is not installed.
    """
    if not note:
        return
    bits, layers = note.get("load_in"), note.get("layers")
    if bits not in BITS or not isinstance(layers, list):
        raise ModelError(f"{BASE_FILE} of adapters must name their base's load_in, {' or '.join(BITS)}, and its layers")
    functional = optional("bitsandbytes.functional")
    for name, weight in state.items():
        parts = name.split(".")
        if weight.ndim != 2 or parts[-1] != "weight" or parts[-2:-1] not in ([layer] for layer in layers):
            continue
        if bits == "4bit":
            packed, scales = functional.quantize_4bit(
                weight, blocksize=_BLOCK, compress_statistics=True, quant_type="nf4"
            )
            state[name] = functional.dequantize_4bit(packed, scales)
        else:
            packed, scales, _ = functional.int8_vectorwise_quant(weight.half())
            state[name] = functional.int8_vectorwise_dequant(packed, scales).to(weight.dtype)


def quantized_bytes(weight: torch.Tensor, bits: str) -> int:
    """Bytes that a matrix takes with its scales."""
    numbers = weight.numel()
    if bits == "8bit":
        return numbers + 4 * len(weight)
    # A byte of scale for each block, four for each 256 of these, and the tables of both codes.
    blocks = -(-numbers // _BLOCK)
    return -(-numbers // 2) + blocks + 4 * -(-blocks // 256) + 4 * (16 + 256 + 1)
