"""One update of `StepGRPOTrainer` in each of two processes; each writes what it saw and gave to the loss.

python two_processes.py FOLDER, under `torch.distributed.run --nproc-per-node 2`
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from stepreward.connect.trl import StepGRPOTrainer
from stepreward.connect.trl_rollouts import LocalRollouts
from stepreward.core.keys import Key
from stepreward.core.types import Trajectory
from stepreward.policies.model_sources import resolve
from stepreward.tasks.arithmetic import generate

MODEL = resolve("builtin:arithmetic")
SEEN: dict[str, Any] = {}


def step_rewards(trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
    made = [np.linspace(0.1, 0.9, len(t)) * (1 + len(t.text) % 3) for t in trajectories]
    SEEN["steps"], SEEN["problems"] = [row.tolist() for row in made], [t.problem.text for t in trajectories]
    return made


def odd_length(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    return [float(len(text) % 2) for text in completions]


class Watched(StepGRPOTrainer):
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        given = super()._generate_and_score_completions(inputs)
        ids, mask = given["completion_ids"].cpu().numpy(), given["completion_mask"].bool().cpu().numpy()
        spans = self._finder.spans(ids, mask)
        SEEN["advantages"] = [
            [float(given["advantages"][r, s]) for r, s in zip(spans.row, spans.start, strict=True) if r == row]
            for row in range(len(ids))
        ]
        SEEN["outcome"], SEEN["training"] = self._rewarded[:, 0].tolist(), self.model.training
        return given


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    config = GRPOConfig(
        output_dir=str(out), per_device_train_batch_size=4, num_generations=8, max_completion_length=48, seed=0,
        max_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = Watched(
        AutoModelForCausalLM.from_pretrained(MODEL),
        odd_length,
        config,
        Dataset.from_dict({"prompt": [problem.text for problem in generate("train", 2)]}),
        processing_class=AutoTokenizer.from_pretrained(MODEL),
        rollout_func=LocalRollouts(Key.seed(0)),
        credit="step-rloo",
        step_rewards=step_rewards,
    )
    trainer.train()
    place = trainer.accelerator
    (out / f"{place.process_index}.json").write_text(json.dumps({**SEEN, "processes": place.num_processes}))
    # Ends without tearing down the process group: its threads now and then abort or hang the process that closes first.
    place.wait_for_everyone()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
