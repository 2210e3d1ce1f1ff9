"""Where a model runs and in which numbers, by the names that people write."""

from __future__ import annotations

from pathlib import Path

import torch

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.score.model.weights import adapter_base, read_json

DEVICES = ("cpu", "cuda", "mps", "xpu", "auto")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"


def device_of(name: str | torch.device) -> torch.device:
    """A device by name: cpu, cuda, cuda:1, or `auto`, which is CUDA where there is one.

    Raises:
        InputError: it is not in this machine.
        UnknownNameError: there is no such kind of device.
    """
    text = str(name)
    if text == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = text.partition(":")
    if kind not in DEVICES or kind == AUTO or (number and not number.isdecimal()):
        raise UnknownNameError("torch device", text, DEVICES)
    device = torch.device(text)
    # Each backend has its own way to say that it is here; an allocation works for all.
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device {text!r} is not here", remedy="pass cpu (--device cpu), or see `stepreward doctor`"
        ) from error
    return device


def dtype_of(name: str | torch.dtype) -> torch.dtype | None:
    """The numbers of a model's weights by name: float32, bfloat16 or float16; None for `auto`, see `saved_dtype`.

    Raises:
        InputError: torch has such numbers, but no model is run in them.
        UnknownNameError: there are no such numbers.
    """
    if isinstance(name, torch.dtype):
        if not name.is_floating_point or name.itemsize < 2:
            raise InputError(f"no model is run in {name}", remedy=f"pass {', '.join(DTYPES)} or {AUTO}")
        return name
    if name not in (*DTYPES, AUTO):
        raise UnknownNameError("dtype", name, [*DTYPES, AUTO])
    return DTYPES.get(name)


def saved_dtype(folder: Path, device: torch.device) -> torch.dtype:
    """What `auto` is: float32 on a CPU, else what a checkpoint or its adapter's base says that it was saved in."""
    if device.type == "cpu":
        return torch.float32
    return numbers_in(folder)


def numbers_in(folder: Path) -> torch.dtype:
    """What a checkpoint or its adapter's base says that its weights were saved in; float32 where it says nothing."""
    config = read_json(folder / "config.json")
    config = config or read_json(adapter_base(folder) / "config.json")
    config = config.get("text_config", {}) | config
    return DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), torch.float32)
