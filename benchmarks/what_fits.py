"""What fits where: memory of training by model, method, length and card, computed without a weight.

    python -m benchmarks.what_fits [--quick] [--write]

Configurations have the shapes of the published models; each number is `stepreward.train.memory.predict` of one packed
row, whose formula the tests hold to what PyTorch's allocator counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from stepreward.score.encode.packing import PackedBatch
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.tiny_models import train_tokenizer
from stepreward.train.memory import Memory, predict
from stepreward.train.settings import MEMORY_KINDS, TrainSettings

PAGE = Path(__file__).parents[1] / "docs" / "results" / "what-fits.md"
CARDS = (24, 40, 80, 141)
"""Gigabytes of the cards."""
COUNTS = (1, 2, 4, 8)
LENGTHS = (4096, 32768)
MODELS: dict[str, dict[str, Any]] = {
    "0.6B": {"kind": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
             "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072, "tie_word_embeddings": True},
    "1.7B": {"kind": "qwen3", "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16,
             "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144, "tie_word_embeddings": True},
    "4B": {"kind": "qwen3", "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728, "tie_word_embeddings": True},
    "7B": {"kind": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False},
    "14B": {"kind": "qwen3", "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40,
            "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 17408, "tie_word_embeddings": False},
    "32B": {"kind": "qwen3", "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 64,
            "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 25600, "tie_word_embeddings": False},
}  # fmt: skip
WAYS = {
    "all weights": TrainSettings(precision="bf16", activation_checkpoints=True),
    "adapters, rank 16": TrainSettings(precision="bf16", activation_checkpoints=True, lora_rank=16),
}


def one_row(tokens: int) -> PackedBatch:
    """A row with one long trajectory, read at every sixty-fourth token."""
    column = torch.arange(tokens)[None]
    zero, at = torch.zeros_like(column), torch.arange(63, tokens, 64)
    return PackedBatch(zero, column, zero, zero + 1, column, torch.zeros_like(at), at, torch.zeros_like(at), at, tokens)


def needs(model: str, way: str, tokens: int) -> Memory:
    """The memory of training a model on one row of so many tokens, on one device."""
    shape = {"vocab_size": 151936, "max_position_embeddings": 40960, **MODELS[model]}
    config = AutoConfig.for_model(shape.pop("kind"), **shape)
    tokenizer = train_tokenizer(["1 + 1 = 2\n"], 260)
    return predict(config, tokenizer, EncoderRecord(), WAYS[way], one_row(tokens))


def gigabytes(memory: Memory) -> float:
    """What a card must have: 5 % for gaps and 1 GB for CUDA's own."""
    return memory.total * 1.05 / 1e9 + 1


def fewest(memory: Memory, way: str, card: int) -> str:
    """The least number of cards that hold a training; more than one share weights, gradients and optimizer states."""
    for count in COUNTS:
        shared = memory if count == 1 else memory.sharded(count, WAYS[way])
        if gigabytes(shared) <= card:
            return str(count)
    return "-"


def page(found: list[dict[str, Any]]) -> str:
    """The page of results."""
    heads = " | ".join(f"{card} GB" for card in CARDS)
    rows = "\n".join(
        f"| {one['model']} | {one['way']} | {one['tokens']:,} | {one['weights']:.1f} | {one['gradients']:.1f} | "
        f"{one['optimizer']:.1f} | {one['activations']:.1f} | " + " | ".join(one["cards"]) + " |"
        for one in found
    )
    return f"""# What fits where

Written by `python -m benchmarks.what_fits --write`; no number in a table is typed by hand. Computed, not measured on a
GPU: `tests/train/test_dry_run.py` holds the prediction to 5 % of what PyTorch's allocator counts on a CPU. For your own
data and settings ask `stepreward train --dry-run`.

Each line is one packed row of so many tokens with `--precision bf16 --activation-checkpoints`, gigabytes of one device;
the last columns are the fewest cards that hold it, where several share weights, gradients and optimizer states
(`torchrun --nproc-per-node N -m stepreward train --shard ...`), with 5 % and 1 GB to spare; "-" is more than
{COUNTS[-1]}.

| model | trained | tokens | weights | gradients | optimizer | activations | {heads} |
|---|---|---|---|---|---|---|{"---|" * len(CARDS)}
{rows}

- **Weights**: 4 bytes a trained number, 2 a frozen one. **Gradients**: 4 a trained number. **Optimizer**: 8 a trained
  number for AdamW; 2 with `--optimizer adamw-8bit`, almost nothing with `adafactor`. **Activations**: with checkpoints
  the input of each layer, one layer whole, and 16-bit copies of weights.
- N cards that share: weights, gradients and optimizer states over N, two whole layers of weights and one of gradients,
  and all activations.
- At long rows the mask is a large part: three times the square of the row in bytes, once a batch.
"""


def main() -> None:
    """Computes, prints JSON, and writes the page where wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest model and the shorter row alone")
    parser.add_argument("--write", action="store_true", help="write the page of results")
    flags = parser.parse_args()
    found = []
    for model in [*MODELS][: 1 if flags.quick else None]:
        for way in WAYS:
            for tokens in LENGTHS[: 1 if flags.quick else None]:
                memory = needs(model, way, tokens)
                sizes = {name: getattr(memory, name) / 1e9 for name in MEMORY_KINDS}
                cards = [fewest(memory, way, card) for card in CARDS]
                found.append({"model": model, "way": way, "tokens": tokens, "cards": cards, **sizes})
    if flags.write:
        PAGE.write_text(page(found))
    print(json.dumps({"needs": found}, indent=1))


if __name__ == "__main__":
    main()
