"""Small untrained models: a tokenizer learned from text and a backbone of a known architecture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModel, Qwen2Tokenizer

END, PAD = "<|endoftext|>", "<|pad|>"


def train_tokenizer(texts: Iterable[str], vocabulary: int = 640) -> Any:
    """Learns a byte-level BPE tokenizer with Qwen2's rules: single digits, line breaks apart, lossless on NFC text.

    The rules are a published class's, so that every loader rebuilds the same tokenizer from the saved files.

    Args:
        texts: what to learn merges from.
        vocabulary: number of tokens, at least 258.
    """
    blank = Qwen2Tokenizer(eos_token=END, pad_token=PAD, unk_token=END)
    learner = Tokenizer(models.BPE())
    learner.normalizer = blank.backend_tokenizer.normalizer
    learner.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END, PAD], initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    return Qwen2Tokenizer(vocab=learned["vocab"], merges=merges, eos_token=END, pad_token=PAD, unk_token=END)


def fresh_config(tokenizer: Any, *, hidden: int = 128, layers: int = 4, kind: str = "qwen2") -> Any:
    """The configuration of a small model with tied embeddings and four heads."""
    return AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def fresh_backbone(tokenizer: Any, *, hidden: int = 128, layers: int = 4, kind: str = "qwen2", seed: int = 0) -> Any:
    """A small untrained backbone, for training from scratch and for tests."""
    torch.manual_seed(seed)
    config = fresh_config(tokenizer, hidden=hidden, layers=layers, kind=kind)
    return AutoModel.from_config(config, attn_implementation="sdpa")
