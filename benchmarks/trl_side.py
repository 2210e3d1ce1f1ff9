"""The side of TRL in `benchmarks.trl_training`: it runs in an environment of its own, without this project."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from transformers import AutoModelForTokenClassification, AutoTokenizer
from trl.experimental.prm import PRMConfig, PRMTrainer  # type: ignore[import-not-found]


def run(folder: str, kinds: list[str], seed: int) -> None:
    """Trains on the rows of each kind in a folder and writes what it cost beside them."""
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/backbone")
    for kind in kinds:
        work = json.loads(Path(folder, f"{kind}.json").read_text())
        torch.manual_seed(seed)
        model = AutoModelForTokenClassification.from_pretrained(
            f"{folder}/backbone", num_labels=2, dtype=torch.float32, attn_implementation="sdpa"
        )
        seconds, processor = time.perf_counter(), sum(os.times()[:2])
        rows = [{"prompt": r["prompt"], "completions": r["steps"], "labels": r["labels"]} for r in work["train"]]
        config = PRMConfig(
            output_dir=f"{folder}/trl", num_train_epochs=work["epochs"], learning_rate=work["learning_rate"],
            per_device_train_batch_size=work["batch"], gradient_accumulation_steps=work["accumulate"],
            lr_scheduler_type="linear", warmup_steps=0, weight_decay=0.01, max_grad_norm=1.0,
            optim="adamw_torch_fused", max_length=None, gradient_checkpointing=False, bf16=False, use_cpu=True,
            report_to=[], save_strategy="no", logging_steps=50, disable_tqdm=True, seed=seed, data_seed=seed,
            dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = PRMTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        trainer.train()
        trainer.save_model(f"{folder}/trl")
        found = {
            "seconds": time.perf_counter() - seconds,
            "processor": sum(os.times()[:2]) - processor,
            "tokens": sum(len(ids) for ids in trainer.train_dataset["input_ids"]),
            "steps": trainer.state.global_step,
            "scores": scores(model.eval(), tokenizer, work["test"]),
        }
        Path(folder, f"{kind}.trl.json").write_text(json.dumps(found))


@torch.inference_mode()
def scores(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> list[list[float]]:
    """The probability of the label 1 at the end of each step."""
    made = []
    for row in rows:
        features = {"prompt": row["prompt"], "completions": row["steps"], "labels": [1] * len(row["steps"])}
        one = PRMTrainer.tokenize_row(features, tokenizer, "\n", None, None, False, True)
        logits = model(input_ids=torch.tensor([one["input_ids"]])).logits[0]
        read = torch.tensor(one["labels"]) == 1
        made.append(logits.softmax(-1)[read, 1].tolist())
    return made
