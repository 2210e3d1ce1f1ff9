"""Optional engines: imported where they are asked for, a clear error where they are not installed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from stepreward.core.errors import ModelError

VLLM = "vllm:"
"""Names that start like this are models for a vLLM engine in this process: `vllm:Qwen/Qwen2.5-Math-7B-Instruct`."""
EXTRAS: Mapping[str, str] = {
    **dict.fromkeys(("torch", "transformers", "accelerate", "tokenizers", "safetensors"), "models"),
    "mpmath": "math",
    **dict.fromkeys(("trl", "datasets"), "trl"),
    **dict.fromkeys(("jsonschema", "sqlglot", "duckdb"), "rules"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "httptools", "prometheus_client"), "serve"),
    "vllm": "vllm",
}
"""The extra of the installation that each optional package comes with."""


def optional(module: str) -> Any:
    """A module that needs what a plain installation lacks: an optional package, or one of our own that imports it.

    Raises:
        ModelError: an optional package is not installed; the extra that it comes with is named.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise ModelError(f"{package} is not installed: pip install 'stepreward[{EXTRAS[package]}]'") from error


def cache_argument(model: Any) -> str:
    """The name under which a transformers model takes its keys and values; "" where it takes none.

    It is `cache` from transformers 5.24 on and `past_key_values` before, and in code that comes with a checkpoint.
    """
    taken = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in taken), "")


class Deferred:
    """Stands for a module of an optional package and imports it at the first use of anything in it.

    Args:
        module: its name.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(optional(self._module), name)


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
