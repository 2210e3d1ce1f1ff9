"""The language model inside a checkpoint that also sees images: configuration and weights, as a family known here."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from stepreward.score.model.heads import is_head
from stepreward.score.model.weights import State

_INSIDE = "language_model."
_NESTED = ("llm_config", "text_config")
_OTHER_NAMES = {
    "tok_embeddings": "embed_tokens",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""InternLM2's names of what Llama has, and Llama's."""
_FUSED = ".attention.wqkv.weight"


def language_config(row: dict[str, Any]) -> Any | None:
    """The configuration of the language model, None where the checkpoint is no vision-language one of its own kind.

    Args:
        row: its `config.json`.

    Raises:
        ValueError: it names no family that transformers knows.
    """
    inner = next((dict(row[name]) for name in _NESTED if isinstance(row.get(name), dict)), None)
    if inner is None or row.get("model_type") in CONFIG_MAPPING_NAMES:
        return None
    kind = inner.pop("model_type", "llama")
    if kind == "internlm2":
        # Dynamic scaling leaves inputs up to `max_position_embeddings` as they are; longer ones are refused anyway.
        inner = {name: value for name, value in inner.items() if name not in ("rope_scaling", "auto_map")}
        return AutoConfig.for_model("llama", **inner, attention_bias=inner.get("bias", False))
    return AutoConfig.for_model(kind, **inner)


def language_weights(state: State, config: Any) -> State:
    """The weights of the language model and of the checkpoint's head, under the names of a plain checkpoint.

    Args:
        state: all weights.
        config: of the language model.
    """
    if not any(name.startswith(_INSIDE) for name in state):
        return state
    kept = (name for name in state if name.startswith(_INSIDE) or is_head(name))
    inner = {name.removeprefix(_INSIDE): state[name] for name in kept}
    return _as_llama(inner, config) if any(name.endswith(_FUSED) for name in inner) else inner


def _as_llama(state: State, config: Any) -> State:
    """InternLM2's weights as Llama's: the same network, with queries, keys and values of a group in one matrix."""
    made: State = {}
    for name, value in state.items():
        if name.endswith(_FUSED):
            stem = name.removesuffix(_FUSED) + ".self_attn."
            made |= {stem + part: weight for part, weight in _split_heads(value, config).items()}
        else:
            for other, own in _OTHER_NAMES.items():
                name = name.replace(other, own)
            made["lm_head.weight" if name == "output.weight" else name] = value
    return made


def _split_heads(fused: torch.Tensor, config: Any) -> State:
    """Queries, keys and values apart: in the fused matrix each group has its queries, then one key, then one value."""
    groups, hidden = config.num_key_value_heads, fused.shape[-1]
    parts = fused.view(groups, config.num_attention_heads // groups + 2, -1, hidden)
    return {
        "q_proj.weight": parts[:, :-2].reshape(-1, hidden),
        "k_proj.weight": parts[:, -2].reshape(-1, hidden),
        "v_proj.weight": parts[:, -1].reshape(-1, hidden),
    }
