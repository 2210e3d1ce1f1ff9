"""Writes the adapters and the head of a step reward model as PEFT does for a token classifier, without their base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from stepreward.core.files.atomic_files import write_json
from stepreward.score.model.quantized_weights import BASE_FILE
from stepreward.score.model.weights import ADAPTER_FILE, ADAPTER_WEIGHTS, read_file, read_json

_WRAPPED = "base_model.model."


def write_adapter(classifier: Any, folder: Path, source: Path) -> None:
    """Writes `adapter_model.safetensors` and its configuration.

    Args:
        classifier: the token classifier of the backbone's family; it has the head and names the rest.
        folder: where to.
        source: the checkpoint that `train` wrote, with adapters of the backbone.
    """
    head = next(name for name, part in classifier.named_children() if isinstance(part, nn.Linear))
    # Adapters were added to the backbone itself; in a classifier it has a name.
    inner = f"{_WRAPPED}{classifier.base_model_prefix}."
    adapters = read_file(source / ADAPTER_WEIGHTS).items()
    state = {key if key.startswith(inner) else inner + key.removeprefix(_WRAPPED): value for key, value in adapters}
    own = getattr(classifier, head).state_dict().items()
    state |= {f"{_WRAPPED}{head}.{key}": value.contiguous() for key, value in own}
    save_file(state, folder / ADAPTER_WEIGHTS)
    config = read_json(source / ADAPTER_FILE)
    write_json(folder / ADAPTER_FILE, config | {"task_type": "TOKEN_CLS", "modules_to_save": [head]})
    if (source / BASE_FILE).is_file():
        shutil.copyfile(source / BASE_FILE, folder / BASE_FILE)
