"""Training on a GPU: tokens a second, memory and share of the peak, packed trees against padded trajectories.

    python -m benchmarks.gpu_training [--minutes 6] [--quick] [--write]

A Qwen2-shaped model with random weights takes steps on random token trees: eight solutions that share a prompt, with a
common first half in pairs. Full training and adapters, rows of 4,096 and of 32,768 tokens, dense and flex attention.
Packed, a tree is one row; padded, each of its solutions is one, as other trainers do it. Both learn the same steps, so
that their ratio is of solutions a second. `--quick` takes a tiny model, also on a CPU, where flex attention has no
gradient and is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from benchmarks import SKIPPED
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.encode.packing import FLEX, PackedBatch, pack
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import train_tokenizer
from stepreward.train.memory import predict
from stepreward.train.parameters import prepare
from stepreward.train.settings import TrainSettings

PAGE = Path(__file__).parents[1] / "docs" / "results" / "gpu-training.md"
SIZES: dict[str, dict[str, Any]] = {
    "7b": {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
           "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
           "max_position_embeddings": 40960},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 128, "vocab_size": 512, "tie_word_embeddings": False,
             "max_position_embeddings": 40960},
}  # fmt: skip
LENGTHS = {"7b": (4096, 32768), "tiny": (256, 512)}
"""Tokens of a packed tree."""
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}
"""Dense bfloat16 operations a second, by a part of the card's name, as its maker states them."""
WAYS = {
    "all weights": TrainSettings(precision="bf16", activation_checkpoints=True, optimizer="adafactor"),
    "adapters": TrainSettings(precision="bf16", activation_checkpoints=True, lora_rank=16),
}
SOLUTIONS = 8


@dataclass(frozen=True)
class Measured:
    """One way of training on one length of trees."""

    what: str
    tokens: int
    """Tokens of a tree, each shared prefix once."""
    attention: str
    rows: str
    """`packed` or `padded`."""
    solutions_per_second: float
    tokens_per_second: float
    """Tokens that are computed, shared prefixes as often as they are."""
    share_of_peak: float
    """Operations that a step needs, without those computed a second time, of what the card could do; NaN elsewhere."""
    gigabytes: float
    """The most that was allocated; NaN on a CPU."""
    predicted: float
    """What `--dry-run` says, of packed trees."""


def solutions(chars: int, seed: int) -> list[Trajectory]:
    """Eight solutions of one problem; two of them share each first half."""
    rng = np.random.default_rng(seed)

    def text(size: int) -> str:
        return "".join(rng.choice([*"0123456789abcdef "], size)) + "\n"

    halves = [[Step(text(chars // 2)) for _ in range(2)] for _ in range(SOLUTIONS // 2)]
    problem = Problem("p", text(chars))
    return [
        Trajectory(
            problem, (*halves[i // 2], *(Step(text(chars // 2)) for _ in range(2))), columns={"label": np.ones(4)}
        )
        for i in range(SOLUTIONS)
    ]


def trees_of(encoder: StepEncoder, tokens: int) -> list[Trajectory]:
    """Solutions whose tree has about so many tokens, and not more."""
    chars = tokens // 13
    for _ in range(8):
        made = solutions(chars, 0)
        size = len(encoder.encode_tree(StepTree.from_trajectories(made)))
        if 0.9 * tokens <= size <= tokens:
            break
        chars = int(chars * 0.97 * tokens / size)
    return made


def batches(encoder: StepEncoder, rows: list[Trajectory], tokens: int, *, packed: bool) -> list[PackedBatch]:
    """The rows as one tree, or each by itself in batches of so many tokens, padding included."""
    if packed:
        return [pack([encoder.encode_tree(StepTree.from_trajectories(rows))])]
    single = [encoder.encode_tree(StepTree.from_trajectories([one])) for one in rows]
    each = max(1, tokens // max(map(len, single)))
    return [pack(single[at : at + each]) for at in range(0, len(single), each)]


def step(model: StepRewardModel, optimizer: torch.optim.Optimizer, work: list[PackedBatch], device: str) -> None:
    """A step of the optimizer on all batches."""
    for batch in work:
        with torch.autocast(device, torch.bfloat16):
            logits = model(batch)
        torch.autograd.backward(torch.nn.functional.softplus(-logits.float()).mean() / len(work))
    optimizer.step()
    optimizer.zero_grad()


def measured(
    size: str, way: str, tokens: int, attention: str, *, packed: bool, device: str, least: float = 5.0
) -> Measured:
    """Trains for three steps, and for so many seconds at least."""
    tokenizer = train_tokenizer(["0123456789 abcdef\n"], 300)
    config, settings = AutoConfig.for_model("qwen2", **SIZES[size]), WAYS[way]
    record = EncoderRecord(PerStep(max_length=10 * tokens, separator_token=False))
    encoder = StepEncoder(record, tokenizer)
    rows = trees_of(encoder, tokens)
    work = batches(encoder, rows, tokens, packed=packed)
    predicted = predict(config, tokenizer, record, settings, work[0]).total / 1e9 if packed else math.nan
    with torch.device(device):
        backbone = AutoModel.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model = StepRewardModel(backbone, tokenizer, record).to(device)
    prepare(model, settings)
    if attention == "flex":
        model.backbone.set_attn_implementation(FLEX)
    model.train()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Adafactor, so that the states of a whole 7B fit beside its float32 weights on one card.
    optimizer: torch.optim.Optimizer
    optimizer = torch.optim.Adafactor(learned) if way == "all weights" else torch.optim.AdamW(learned)
    work = [batch.to(device) for batch in work]
    cuda = device == "cuda"
    step(model, optimizer, work, device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start, steps = time.perf_counter(), 0
    while steps < 3 or (time.perf_counter() - start < least):
        step(model, optimizer, work, device)
        if cuda:
            torch.cuda.synchronize()
        steps += 1
    seconds = (time.perf_counter() - start) / steps
    computed = sum(batch.tokens for batch in work)
    numbers = sum(parameter.numel() for parameter in model.parameters()) - config.vocab_size * config.hidden_size
    operations = (6 if way == "all weights" else 4) * numbers * computed
    peak = next((top for card, top in PEAK.items() if cuda and card in torch.cuda.get_device_name()), math.nan)
    return Measured(
        way, tokens, attention, "packed" if packed else "padded", SOLUTIONS / seconds, computed / seconds,
        operations / seconds / peak, torch.cuda.max_memory_allocated() / 1e9 if cuda else math.nan, predicted,
    )  # fmt: skip


def page(card: str, found: list[Measured]) -> str:
    """The page of results."""
    rows = "\n".join(
        f"| {one.what} | {one.tokens:,} | {one.attention} | {one.rows} | {one.solutions_per_second:.2f} | "
        f"{one.tokens_per_second:,.0f} | {one.share_of_peak:.0%} | {one.gigabytes:.1f} | {one.predicted:.1f} |"
        for one in found
    )
    return f"""# Training on a GPU

Written by `python -m benchmarks.gpu_training --write` on {card}, PyTorch {torch.__version__}. A Qwen2-shaped 7B with
random weights, bfloat16, activation checkpoints; trees of eight solutions, of which pairs share their first half. The
share of the peak counts the operations that a step needs, 6 a weight and token, 4 with adapters, attention left out.

| trained | tokens of a tree | attention | rows | solutions/s | tokens/s | share of peak | GB | predicted GB |
|---|---|---|---|---|---|---|---|---|
{rows}
"""


def main() -> None:
    """Measures, prints JSON, and writes the page where wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, on any device")
    parser.add_argument("--minutes", type=float, default=6.0, help="begin no further measurement after this time")
    parser.add_argument("--write", action="store_true", help="write the page of results")
    flags = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not flags.quick:
        sys.stderr.write("needs a CUDA device, which is absent; --quick takes a tiny model\n")
        raise SystemExit(SKIPPED)
    size = "tiny" if flags.quick else "7b"
    start, found = time.perf_counter(), []
    for tokens in LENGTHS[size]:
        for way in WAYS:
            for attention, packed in (("flex", True), ("dense", True), ("dense", False)):
                if attention == "flex" and device == "cpu":
                    continue
                if time.perf_counter() - start > 60 * flags.minutes:
                    continue
                try:
                    found.append(measured(size, way, tokens, attention, packed=packed, device=device))
                    sys.stderr.write(f"{found[-1]}\n")
                except torch.OutOfMemoryError:
                    sys.stderr.write(f"out of memory: {way}, {tokens} tokens, {attention}\n")
                if device == "cuda":
                    torch.cuda.empty_cache()
    if flags.write:
        PAGE.write_text(page(torch.cuda.get_device_name() if device == "cuda" else "a CPU", found))
    print(json.dumps({"measured": [asdict(one) for one in found]}, indent=1))


if __name__ == "__main__":
    main()
