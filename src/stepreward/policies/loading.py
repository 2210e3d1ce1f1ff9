"""Loads causal language models for sampling, and refuses models that could only be sampled wrongly."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from stepreward.core.errors import ModelError
from stepreward.core.files.hub import fetch
from stepreward.core.optional import cache_argument
from stepreward.policies.model_sources import resolve

_VALUES_READ = 4096
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")


def load(source: str | Path, device: str, dtype: str) -> tuple[Any, Any]:
    """A model in evaluation mode and its tokenizer.

    Args:
        source: folder in transformers format, hub name, or `builtin:` name.
        device: a torch device, or "auto": CUDA where there is one.
        dtype: a torch dtype by name, or "auto": the checkpoint's on an accelerator, float32 on a CPU.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    wanted: Any = dtype
    if dtype == "auto" and place.type == "cpu":
        wanted = torch.float32
    elif dtype != "auto":
        wanted = getattr(torch, dtype, None)
        if not isinstance(wanted, torch.dtype):
            raise ModelError(f"torch has no dtype {dtype!r}: pass auto, float32, bfloat16 or float16")
    where = located(source)
    try:
        tokenizer = load_tokenizer(where)
        model = AutoModelForCausalLM.from_pretrained(where, dtype=wanted)
    except (OSError, ValueError, KeyError, ImportError, RecursionError) as error:
        # Some tokenizers need more packages: the first line of transformers' message names them.
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"cannot load a causal language model and its tokenizer from {str(source)!r}: {reason}"
        ) from error
    return model.to(place).eval(), tokenizer


def located(source: str | Path) -> str:
    """The folder of a model, fetched where it is the hub's.

    Raises:
        ModelError: it cannot be found.
    """
    where = resolve(source)
    return where if Path(where).is_dir() else str(fetch(where))


def load_tokenizer(where: str) -> Any:
    """The tokenizer exactly as it was saved.

    `AutoTokenizer` may replace a generic class by that of the model's family, which has another pre-tokenizer,
    normaliser and extra tokens than `tokenizer.json`. A tokenizer saved under a generic class is loaded as one.
    """
    generic = get_tokenizer_config(where).get("tokenizer_class") in _GENERIC
    return (PreTrainedTokenizerFast if generic else AutoTokenizer).from_pretrained(where)


def require_supported(model: Any) -> None:
    """Checks that a model can be sampled with one position and one full-attention cache column a token.

    Raises:
        ModelError: it has an encoder, sliding or recurrent layers, takes no positions, or uses another attention code.
    """
    config, kind = model.config, type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{kind} has an encoder: a policy must be a decoder-only causal language model")
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        raise ModelError(f"{kind} has layers of type {', '.join(sorted(layers))}: only full_attention is supported")
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", not hasattr(config, "layer_types")):
        raise ModelError(f"{kind} attends to a sliding window of {window} tokens: only full attention is supported")
    takes = {"position_ids": "position_ids" in inspect.signature(model.forward).parameters}
    takes["cache of keys and values"] = bool(cache_argument(model))
    if not all(takes.values()):
        missing = " and no ".join(name for name, there in takes.items() if not there)
        raise ModelError(f"{kind} takes no {missing}: rows of uneven length need them")
    attention = getattr(config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager"):
        raise ModelError(f"{kind} runs attention {attention!r}: load it with attn_implementation='sdpa' or 'eager'")


def end_tokens(model: Any, tokenizer: Any) -> NDArray[np.int64]:
    """Ids that end a solution: those of the generation configuration, and the tokenizer's.

    Raises:
        ModelError: there is none, so that no solution could ever end.
    """
    stated = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = set(stated if isinstance(stated, list | tuple) else [stated]) | {tokenizer.eos_token_id}
    found = sorted(int(i) for i in ids if i is not None and 0 <= i < model.config.vocab_size)
    if not found:
        raise ModelError("neither the model nor its tokenizer has an end token: set tokenizer.eos_token")
    return np.array(found, dtype=np.int64)


def fingerprint(model: Any, tokenizer: Any, *settings: object) -> str:
    """Twelve hex digits that identify a model's samples: of weights, shape, dtype, vocabulary, template and settings.

    Reads the sum and up to 4096 evenly spaced values of each tensor, which any training step changes: milliseconds for
    a small model, seconds for a large one.
    """
    digest = hashlib.blake2b(digest_size=6)
    shape = {k: v for k, v in model.config.to_dict().items() if not k.startswith("_") and k != "transformers_version"}
    vocabulary = sorted(tokenizer.get_vocab().items())
    for part in (shape, vocabulary, tokenizer.chat_template, settings):
        digest.update(repr(part).encode())
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        stride = max(1, flat.numel() // _VALUES_READ)
        values = torch.cat([flat[::stride].double(), flat.sum(dtype=torch.float64)[None]])
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(values.cpu().numpy().tobytes())
    return digest.hexdigest()
