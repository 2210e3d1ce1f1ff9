"""Tiny random checkpoints in the file layouts of public reward models, with tokenizers of their families."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tests.score.literal_internlm2 import InternLM2, random_weights
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
)

CORPUS = [
    "What is 12 + 5?\n\n12 + 5 = 17.\n\nAnswer: 17\n\n", "Step 1: first. ки\nStep 2: second. ки\n",
    "so. \n\n\n\nthen \n\n\n\n",
    "so. \n\n\n\n\nthen \n\n\n\n\n", "the quick brown fox, naïve café ünïcode 漢字 🙂\n",
    "Let's think step by step.\nin correct correct\n",
    "Step 1: a. и\nStep 2: b. и\n",
    "Question:\nAnswer:\nSolution assistant user system + - + -\n", "the sum is 17.\n\nthe product is 60.\n",
] * 20  # fmt: skip

QWEN_CHAT = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if not (message.role == 'system' and loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
LLAMA_CHAT = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}{{- 'Cutting Knowledge Date: December 2023\\n' }}"
    "{{- 'Today Date: 26 Jul 2024\\n\\n' }}{{- system_message }}{{- '<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
QWEN3_CHAT = (
    "{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}"
    "{{- messages[0].content + '\\n\\n' }}{%- endif %}{{- 'Tools:' }}"
    "{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}"
    "{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}"
    "{%- endif %}{%- for message in messages %}{%- if message.role == 'tool' %}"
    "{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- elif not (message.role == 'system' and loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
INTERN_CHAT = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_SPLIT = _QWEN_SPLIT.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?", 1)


def _byte_level(split: str, specials: list[str], *, trim: bool) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC() if not trim else None
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=640, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    )
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
    made.post_processor = processors.ByteLevel(trim_offsets=trim)
    return made


@cache
def qwen() -> Any:
    """Byte-level, single digits, added tokens of Qwen2.5."""
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>", "<extra>", "<+>", "<->", "</step>", "[PRM]"]
    made = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(_QWEN_SPLIT, names, trim=False), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.chat_template = QWEN_CHAT
    return made


@cache
def qwen3() -> Any:
    """The same with a chat that has no system message of its own, and shows tools and what they returned."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=qwen().backend_tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.chat_template = QWEN3_CHAT
    return made


@cache
def llama3() -> Any:
    """Byte-level with trimmed offsets, three digits a token, a first token, added tokens of Llama 3."""
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"]
    inner = _byte_level(_LLAMA_SPLIT, names, trim=True)
    first = ("<|begin_of_text|>", inner.token_to_id("<|begin_of_text|>"))
    inner.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=f"{first[0]} $A", pair=f"{first[0]} $A {first[0]} $B", special_tokens=[first]
            ),
        ]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=first[0], eos_token="<|eot_id|>", pad_token="<|end_of_text|>"
    )
    made.chat_template = LLAMA_CHAT
    return made


def _metaspace(pad: str, *, first: bool = False) -> Any:
    """Words with a leading mark, bytes for what is unknown, a first token: the way of Llama 2 and Mistral.

    With `first`, the mark goes before the text's first word alone, not before what follows an added token.
    """
    learner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # Pieces begin with the mark or hold none; what was learned so is applied without the cut, as those families do.
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    specials = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{i:02X}>" for i in range(256))]
    texts = [line for text in CORPUS for line in text.split("\n") if line]
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=800, special_tokens=specials, show_progress=False, limit_alphabet=120)
    )
    model = json.loads(learner.to_str())
    model["pre_tokenizer"] = None
    model["added_tokens"] = [t for t in model["added_tokens"] if t["id"] < 4]
    inner = Tokenizer.from_str(json.dumps(model))
    if first:
        inner.normalizer = None
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    start = ("<s>", inner.token_to_id("<s>"))
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[start])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token=pad
    )


@cache
def metaspace() -> Any:
    return _metaspace("<pad>")


@cache
def metaspace_bos_pad() -> Any:
    """Its padding token is its first token."""
    return _metaspace("<s>")


@cache
def metaspace_first() -> Any:
    """Marks the first word of a text alone."""
    return _metaspace("<pad>", first=True)


@cache
def intern() -> Any:
    """Metaspace with the added tokens and the chat of InternLM2."""
    made = _metaspace("</s>", first=True)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<img>", "<IMG_CONTEXT>"]})
    made.chat_template = INTERN_CHAT
    return made


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "qwen": qwen, "qwen3": qwen3, "llama3": llama3, "metaspace": metaspace, "metaspace-bos-pad": metaspace_bos_pad,
    "metaspace-first": metaspace_first, "intern": intern,
}  # fmt: skip
_KINDS = {"qwen": "qwen2", "qwen3": "qwen3", "llama3": "llama"}


@dataclass
class Built:
    """A checkpoint on disk, and the same weights as plain transformers modules."""

    folder: Path
    tokenizer: Any
    model: Any
    """The whole model where transformers has its class, else the backbone."""
    head: dict[str, torch.Tensor]
    reference: Any = None

    def hidden(self, ids: list[int]) -> torch.Tensor:
        """(T, hidden) last hidden states of one sequence."""
        with torch.no_grad():
            return self.model(input_ids=torch.tensor([ids])).last_hidden_state[0]

    def logits(self, ids: list[int]) -> torch.Tensor:
        """(T, V or labels) logits of one sequence."""
        with torch.no_grad():
            return self.model(input_ids=torch.tensor([ids])).logits[0]


def config_of(family: str, hidden: int = 32, **more: Any) -> Any:
    tokenizer, kind = TOKENIZERS[family](), _KINDS.get(family, "mistral")
    return AutoConfig.for_model(
        kind, vocab_size=len(tokenizer) + 8, hidden_size=hidden, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8192,
        initializer_range=0.15,
        tie_word_embeddings=False, sliding_window=None, use_sliding_window=False, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **more,
    )  # fmt: skip


def build(folder: Path, family: str, layout: str, names: str = "", seed: int = 0, *, hidden: int = 32) -> Built:
    """Writes a checkpoint of a family's architecture in a layout."""
    torch.manual_seed(seed)
    tokenizer = TOKENIZERS[family]()
    tokenizer.save_pretrained(folder)
    whole = {
        "tokens": (AutoModelForCausalLM, {}),
        "one-row": (AutoModelForCausalLM, {}),
        "token-classification-1": (AutoModelForTokenClassification, {"num_labels": 1}),
        "token-classification-2": (AutoModelForTokenClassification, {"num_labels": 2}),
        "sequence-classification-1": (AutoModelForSequenceClassification, {"num_labels": 1}),
        "sequence-classification-27": (AutoModelForSequenceClassification, {"num_labels": 27}),
    }
    if layout == "two-models":
        one, other = (build(folder / part, family, "tokens", seed=seed + i) for i, part in enumerate(("", "reference")))
        return Built(folder, tokenizer, one.model, {}, other.model)
    if layout == "intern-vl":
        return intern_vl(folder, tokenizer, names, seed)
    if layout in whole:
        kind, more = whole[layout]
        model = kind.from_config(config_of(family, hidden, **more)).eval()
        if layout == "one-row":
            with torch.no_grad():
                model.lm_head.weight.copy_(torch.linspace(-0.6, 0.6, 32).expand_as(model.lm_head.weight))
        model.save_pretrained(folder, max_shard_size="50KB")
        return Built(folder, tokenizer, model, {})
    config = config_of(family)
    backbone = AutoModel.from_config(config).eval()
    head = heads(layout, config.hidden_size)
    state = {f"model.{name}": value for name, value in backbone.state_dict().items()}
    if layout != "score-mlp":
        state["lm_head.weight"] = torch.randn(config.vocab_size, config.hidden_size)
    row: dict[str, Any] = config.to_dict()
    if layout == "reward-head-file":
        torch.save(
            {name.removeprefix("reward_head."): value for name, value in head.items()}, folder / "reward_head.pt"
        )
    elif layout == "ursa":
        state = {f"language_model.{name}": value for name, value in state.items()} | tower("vision_model.", "aligner.")
        row = {"model_type": "ursa", "text_config": {"model_type": "qwen2", **row}, "vision_config": {"params": {}}}
    stored = state if layout == "reward-head-file" else state | head
    save_file({k: v.clone().contiguous() for k, v in stored.items()}, folder / "model.safetensors")
    row["architectures"] = [names] if names else None
    row["auto_map"] = {"AutoModel": "modeling_of_others.Anything", "AutoConfig": "modeling_of_others.Anything"}
    (folder / "config.json").write_text(json.dumps(row))
    return Built(folder, tokenizer, backbone, head)


def tower(*prefixes: str) -> dict[str, torch.Tensor]:
    """Weights of an image tower, which nothing may read."""
    return {f"{prefix}layers.0.weight": torch.full((4, 4), float("nan")) for prefix in prefixes}


def intern_vl(folder: Path, tokenizer: Any, names: str, seed: int) -> Built:
    """A vision-language checkpoint around InternLM2."""
    config = {
        "model_type": "internlm2", "vocab_size": len(tokenizer) + 8, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "rope_theta": 50_000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "bias": False,
        "auto_map": {"AutoConfig": "configuration_of_others.Any"}, "architectures": ["InternLM2ForCausalLM"],
    }  # fmt: skip
    state = random_weights(config, seed)
    inner = {f"language_model.{name}": value for name, value in state.items()}
    save_file(inner | tower("vision_model.", "mlp1."), folder / "model.safetensors")
    row = {"model_type": "internvl_chat", "architectures": [names], "llm_config": config, "vision_config": {},
           "auto_map": {"AutoModel": "modeling_of_others.Anything"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(row))
    return Built(folder, tokenizer, InternLM2(state, config), {})


def heads(layout: str, hidden: int) -> dict[str, torch.Tensor]:
    """Random weights of a head, under the names of its layout."""
    wide = 32
    shapes = {
        "score-mlp": {
            "score.0.weight": (hidden, hidden), "score.0.bias": (hidden,), "score.2.weight": (2, hidden),
            "score.2.bias": (2,),
        },
        "score-mlp-1": {
            "score.0.weight": (hidden, hidden), "score.0.bias": (hidden,), "score.2.weight": (1, hidden),
            "score.2.bias": (1,),
        },
        "reward-head-file": {"reward_head.weight": (1, hidden), "reward_head.bias": (1,)},
        "ursa": {"score.weight": (1, hidden), "score.bias": (1,)},
        "value-head": {"v_head.summary.weight": (1, hidden), "v_head.summary.bias": (1,)},
        "three-classes": {"score_head.weight": (3, hidden), "score_head.bias": (3,)},
        "ensemble": {
            f"score.{part}.{name}": shape
            for part in ("model", "reg_model")
            for name, shape in {
                "nn1.weight": (wide, hidden, 16), "nn1.bias": (wide, 16), "nn2.weight": (wide, 16, 16),
                "nn2.bias": (wide, 16),
                "nn_out.weight": (wide, 16, 1), "nn_out.bias": (wide, 1),
            }.items()
        },
    }[layout]  # fmt: skip
    return {name: torch.randn(shape) * (0.5 if len(shape) > 1 else 0.2) for name, shape in shapes.items()}
