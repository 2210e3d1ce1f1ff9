"""Ways of training against the plain one: CPU seconds and memory of a step as ratios, and memory as predicted.

    python -m benchmarks.training_ways [--quick] [--write]

A Qwen2-shaped model with random weights takes three steps of the optimizer on random rows, each way in a process of its
own with one thread. Memory is the growth of the process at its peak, beside what `--dry-run` says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from stepreward.score.encode.packing import PackedBatch
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import train_tokenizer
from stepreward.train.memory import predict
from stepreward.train.parameters import prepare
from stepreward.train.settings import TrainSettings

PAGE = Path(__file__).parents[1] / "docs" / "results" / "training-ways.md"
SIZES: dict[str, dict[str, Any]] = {
    "100M": {"hidden_size": 768, "num_hidden_layers": 10, "num_attention_heads": 12, "num_key_value_heads": 4,
             "intermediate_size": 2560, "vocab_size": 32000, "tie_word_embeddings": True},
    "tiny": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 256, "vocab_size": 512, "tie_word_embeddings": True},
}  # fmt: skip
ROWS, WIDTH = 4, 512
PLAIN = "all weights"
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "activation checkpoints": {"activation_checkpoints": True},
    "adapters, rank 16": {"lora_rank": 16},
    "adapters and checkpoints": {"lora_rank": 16, "activation_checkpoints": True},
    "bf16": {"precision": "bf16"},
    "bf16, adapters, checkpoints": {"precision": "bf16", "lora_rank": 16, "activation_checkpoints": True},
    "the head alone": {"freeze": ("backbone.*",)},
}


def rows_of_tokens() -> PackedBatch:
    """Rows of one long trajectory each, read at every sixteenth token."""
    column = torch.arange(WIDTH).expand(ROWS, WIDTH).clone()
    zero, at = torch.zeros_like(column), torch.arange(15, WIDTH, 16)
    row, read = torch.arange(ROWS).repeat_interleave(len(at)), at.repeat(ROWS)
    return PackedBatch(column % 250, column, zero, zero + 1, column, row, read, row, read, ROWS * WIDTH)


def measure(size: str, way: str) -> dict[str, float]:
    """CPU seconds of a step and bytes of a process that trains this way; run in a process of its own."""
    torch.set_num_threads(1)
    settings, batch = TrainSettings(**WAYS[way]), rows_of_tokens()
    config, tokenizer = AutoConfig.for_model("qwen2", **SIZES[size]), train_tokenizer(["1 + 1 = 2\n"], 260)
    # What any first operation loads is not the training's.
    torch.autograd.backward(torch.nn.Linear(8, 8)(torch.ones(2, 8)).sum())
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    backbone = AutoModel.from_config(config, attn_implementation="sdpa")
    model = StepRewardModel(backbone, tokenizer, EncoderRecord())
    prepare(model, settings)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    seconds = []
    for _ in range(3):
        start = sum(os.times()[:2])
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
            logits = model(batch)
        torch.autograd.backward(torch.nn.functional.softplus(-logits.float()).mean())
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(sum(os.times()[:2]) - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    predicted = predict(config, tokenizer, EncoderRecord(), settings, batch).total
    return {"cpu_seconds": min(seconds[1:]), "bytes": grown, "predicted": predicted}


def page(found: dict[str, dict[str, float]]) -> str:
    """The page of results."""
    base = found[PLAIN]
    rows = "\n".join(
        f"| {way} | {one['cpu_seconds']:.2f} | {one['cpu_seconds'] / base['cpu_seconds']:.2f} | "
        f"{one['bytes'] / 1e6:,.0f} | {one['bytes'] / base['bytes']:.2f} | {one['predicted'] / one['bytes']:.2f} |"
        for way, one in found.items()
    )
    return f"""# Ways of training

Written by `python -m benchmarks.training_ways --write` on {platform.machine()}, one thread, PyTorch
{torch.__version__}. A Qwen2-shaped model of 100M parameters, {ROWS} rows of {WIDTH} tokens a step, AdamW. Memory is
what a process grew by at its peak, the libraries left out; the last column is what `stepreward train --dry-run` says,
over that.

| way | CPU s a step | ratio | MB | ratio | predicted / measured |
|---|---|---|---|---|---|
{rows}

A process is larger than what the allocator of PyTorch has in use, to which `tests/train/test_dry_run.py` holds the
prediction within 5 %: blocks that were freed stay with it, which shows most where little is used. The model is made in
float32 here, also where it is then cast, and that is the peak of the smallest. 16-bit numbers are fast on processors
that have instructions for them, as this one, and slow on others.
"""


def main() -> None:
    """Measures, prints JSON, and writes the page where wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    parser.add_argument("--write", action="store_true", help="write the page of results")
    parser.add_argument("--way", choices=WAYS, help="measure one way in this process")
    flags = parser.parse_args()
    size = "tiny" if flags.quick else "100M"
    if flags.way:
        print(json.dumps(measure(size, flags.way)))
        return
    found = {}
    for way in WAYS:
        words = [sys.executable, "-m", "benchmarks.training_ways", "--way", way, *(["--quick"] if flags.quick else [])]
        # Large blocks go back to the system when they are freed, so that a process is as large as what it uses.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        found[way] = json.loads(done.stdout)
    if flags.write:
        PAGE.write_text(page(found))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
