"""Weights of a checkpoint folder or hub name as tensors: safetensors, sharded or not, adapters merged, no code run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from stepreward.core.errors import ModelError
from stepreward.core.files.hub import fetch
from stepreward.score.model.quantized_weights import BASE_FILE, as_quantized

State = dict[str, torch.Tensor]

ADAPTER_FILE = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PREFIX = "base_model.model."
_HEAD_FILE = "reward_head.pt"
"""A linear head beside the weights of its backbone."""


def find(name: str | Path, *, weights: bool = True) -> Path:
    """The folder of a checkpoint: a local one, or the hub's, fetched once into its cache.

    Args:
        name: folder or hub name.
        weights: whether its weights are needed, or its configuration and tokenizer alone.

    Raises:
        ModelError: there is neither, or it cannot be fetched.
    """
    folder = Path(name)
    if folder.is_dir():
        saved = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
        if saved and not list(folder.glob("*config.json")):
            newest = max(saved, key=lambda path: int(path.name.removeprefix("checkpoint-")))
            raise ModelError(
                f"{folder} holds checkpoints of a training, and no model: pass one, the newest is {newest}"
            )
        return folder
    text = str(name)
    if folder.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise ModelError(
            f"no checkpoint folder {text!r}: pass a folder written by `stepreward run` or `train`, "
            "a folder in transformers format, or a hub name such as Qwen/Qwen2.5-Math-PRM-7B"
        )
    return fetch(text, ["*.safetensors"], beside=[_HEAD_FILE]) if weights else fetch(text, ())


def adapter_base(folder: Path) -> Path:
    """The folder of the model that an adapter changes; the folder itself where it names none.

    Raises:
        ModelError: the base cannot be fetched.
    """
    base = read_json(folder / ADAPTER_FILE).get("base_model_name_or_path")
    if not base:
        return folder
    return folder / base if (folder / base).is_dir() else find(base)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, {} where there is no such file.

    Raises:
        ModelError: it is not readable.
    """
    try:
        made = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from error
    return made if isinstance(made, dict) else {}


def read_weights(folder: Path, above: tuple[Path, ...] = ()) -> State:
    """All tensors of a folder, by name without wrappers' prefixes; an adapter is merged into its base.

    Args:
        folder: the folder.
        above: folders of the adapters on top of it.

    Raises:
        ModelError: there are none that can be read safely.
    """
    if (folder / ADAPTER_FILE).is_file():
        if folder.resolve() in above:
            raise ModelError(f"{folder} holds an adapter whose base is itself: name the model that it was trained on")
        return _merged_adapter(folder, (*above, folder.resolve()))
    # TRL's models with a value head save their backbone under this prefix.
    state = {key.removeprefix("pretrained_model."): value for key, value in _read_shards(folder).items()}
    if (folder / _HEAD_FILE).is_file():
        state |= {f"reward_head.{key}": value for key, value in read_file(folder / _HEAD_FILE).items()}
    return state


def _read_shards(folder: Path) -> State:
    for stem, ending in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        index = folder / f"{stem}{ending}.index.json"
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        if not names and (folder / (stem + ending)).is_file():
            names = [stem + ending]
        if names:
            state: State = {}
            for name in names:
                # The file name alone: an index must not lead out of its folder.
                state |= read_file(folder / Path(name).name)
            return state
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl"))
    raise ModelError(
        f"{folder} holds no model.safetensors and no index of shards"
        + (f", only {', '.join(others)}" if others else "")
        + ": save the model with save_pretrained(..., safe_serialization=True)"
    )


def read_file(path: Path) -> State:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        # Tensors alone: what would run code is refused by the unpickler.
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    except Exception as error:  # the unpickler has an error class of its own in a private module
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ModelError(
            f"{path} holds more than tensors, and loading it could run code: "
            "convert it to safetensors where you trust it"
        ) from error


def _merged_adapter(folder: Path, above: tuple[Path, ...]) -> State:
    """A base with a low-rank adapter: W + (alpha / r) B A, and modules that the adapter replaces."""
    config = read_json(folder / ADAPTER_FILE)
    special = [name for name in ("use_dora", "fan_in_fan_out") if config.get(name)]
    if config.get("peft_type", "LORA") != "LORA" or special:
        raise ModelError(f"{folder} holds an adapter of another kind ({config.get('peft_type')}, {special}): merge it")
    base = config.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{folder}/{ADAPTER_FILE} names no base_model_name_or_path: merge the adapter")
    state = read_weights(find(adapter_base(folder)), above)
    as_quantized(state, read_json(folder / BASE_FILE))
    adapter = read_file(folder / ADAPTER_WEIGHTS)
    low = {key for key in adapter if ".lora_" in key}
    # Modules that were trained as a whole: PEFT keeps them in a wrapper, from which their names have a part more.
    for key in sorted(set(adapter) - low):
        state[key.removeprefix(ADAPTER_PREFIX).replace(".modules_to_save", "").replace(".original_module", "")] = (
            adapter[key]
        )
    for key in sorted(key for key in low if ".lora_A." in key):
        name = key.removeprefix(ADAPTER_PREFIX).split(".lora_A.")[0] + ".weight"
        # The base may be saved without the wrapper that the adapter was trained on, or with one that it was not.
        name = next((one for one in (name, name.removeprefix("model."), f"model.{name}") if one in state), name)
        if name not in state:
            raise ModelError(f"the adapter changes {name}, which its base {base} does not have")
        a, b = adapter[key].float(), adapter[key.replace(".lora_A.", ".lora_B.")].float()
        rank = a.shape[0]
        scale = config.get("lora_alpha", rank) / (rank**0.5 if config.get("use_rslora") else rank)
        # In float32, so that the small change is rounded once, with the sum.
        state[name] = (state[name].float() + scale * (b @ a)).to(state[name].dtype)
    return state
