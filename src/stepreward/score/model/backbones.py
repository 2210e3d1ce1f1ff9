"""A backbone, its configuration and its tokenizer out of a checkpoint folder: weights by name, no code run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from stepreward.core.errors import ModelError
from stepreward.core.optional import optional
from stepreward.score.model.quantized_base import save_base
from stepreward.score.model.vision_language import language_config
from stepreward.score.model.weights import ADAPTER_PREFIX, State, adapter_base, read_json

_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")
UNEMBEDDINGS = ("lm_head.weight", "embed_out.weight")
EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight", "gpt_neox.embed_in.weight", "transformer.wte.weight")


def has_adapter(model: Any) -> bool:
    """Whether a model of transformers has adapters, which are then saved without it."""
    return bool(getattr(model, "peft_config", None))


def save_weights(model: Any, folder: Path, state: State | None = None) -> None:
    """Writes a model of transformers, or its adapters alone where it has some, as PEFT reads them.

    Args:
        model: the model.
        folder: where to; what another model left there is removed, since it would be read in place of this one's files.
        state: all weights by their names in the model, where this process holds a part of them.
    """
    for path in [*folder.glob("adapter_*"), *folder.glob("model*.safetensors*")]:
        path.unlink()
    if not has_adapter(model):
        model.save_pretrained(folder, state_dict=state)
        return
    # By PEFT itself: the way of transformers refuses all but the newest PEFT.
    weights = optional("peft").get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    named = {ADAPTER_PREFIX + name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (config,) = model.peft_config.values()
    config.save_pretrained(folder)
    save_base(model, folder)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as it was saved: one of a generic class is not rebuilt by the rules of the model's family.

    One whose class is Python code beside it is read from its `tokenizer.json`; that code is not run.

    Raises:
        ModelError: there is none.
    """
    folder = tokenizer_folder(folder)
    if not _has_tokenizer(folder):
        # transformers would build an empty one of the model's family without a warning.
        remedy = "copy the base model's there with tokenizer.save_pretrained(folder)"
        raise ModelError(f"cannot load the tokenizer of {folder}: there is none; {remedy}")
    try:
        saved = get_tokenizer_config(str(folder))
        coded = "auto_map" in saved and (folder / "tokenizer.json").is_file()
        kind = PreTrainedTokenizerFast if coded or saved.get("tokenizer_class") in _GENERIC else AutoTokenizer
        return kind.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        if "custom code" in reason:
            reason = "it is Python code, which is not run: save it as tokenizer.json in that folder where you trust it"
        raise ModelError(f"cannot load the tokenizer of {folder}: {reason}") from error


def tokenizer_folder(folder: Path) -> Path:
    """Where a checkpoint's tokenizer is: in its folder, else with its adapter's base."""
    return folder if _has_tokenizer(folder) else adapter_base(folder)


def _has_tokenizer(folder: Path) -> bool:
    return any(path.name in _TOKENIZER_FILES or path.suffix == ".model" for path in folder.iterdir())


def load_config(folder: Path) -> Any:
    """The configuration of a folder, or of its adapter's base.

    Raises:
        ModelError: it is none that transformers knows.
    """
    # The base of an adapter may be one too.
    if not (folder / "config.json").is_file() and (base := adapter_base(folder)) != folder:
        return load_config(base)
    try:
        config = language_config(read_json(folder / "config.json")) or AutoConfig.from_pretrained(
            str(folder), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"cannot load the configuration of {folder}: {str(error).strip().splitlines()[0]}") from error
    if type(config) not in MODEL_MAPPING:
        raise ModelError(f"transformers has no backbone for {type(config).__name__} of {folder}")
    return config


def load_backbone(folder: Path, state: State, dtype: torch.dtype | Literal["auto"]) -> nn.Module:
    """The backbone of a checkpoint out of weights by name; those of a language-model head are left over.

    Args:
        folder: has its configuration, or that of its adapter's base.
        state: the weights.
        dtype: of its weights; `auto` is what the configuration says.

    Raises:
        ModelError: weights of the backbone are missing.
    """
    config = load_config(folder)
    kind = MODEL_MAPPING[type(config)]
    state = {name: value for name, value in state.items() if name not in UNEMBEDDINGS}
    table = next((state[name] for name in EMBEDDINGS if name in state), None)
    # Where tokens were added, the table may have more rows than the configuration says.
    if table is not None:
        config.vocab_size = len(table)
    # Without a path transformers takes the tensors as they are, and says which are missing: it initialises those at
    # random, with no more than a warning.
    if dtype == "auto":
        dtype = config.dtype or torch.float32
    try:
        backbone, found = kind.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot load the backbone of {folder}: {str(error).strip().splitlines()[0]}") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} weights of its backbone, first {missing[0]}")
    made: nn.Module = backbone
    return made
