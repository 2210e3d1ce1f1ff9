"""Optional engines: imported where they are asked for, a clear error where they are not installed."""

from __future__ import annotations

import importlib
from typing import Any

from stepreward.core.errors import ModelError

VLLM = "vllm:"
"""Names that start like this are models for a vLLM engine in this process: `vllm:Qwen/Qwen2.5-Math-7B-Instruct`."""


def vllm_module(name: str = "vllm") -> Any:
    """The package vLLM, or a module of it.

    Raises:
        ModelError: it is not installed, or does not find what it needs.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"vLLM is not here ({error}): pip install 'stepreward[vllm]' on a machine with an accelerator that it "
            "knows, or name a server, URL#NAME"
        ) from error
