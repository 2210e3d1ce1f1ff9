"""TRL's advantages and ours where rewards are missing, for every method that TRL's trainers have too.

    python -m benchmarks.missing_rewards [--quick] [--write]

Reward functions that return None for some completions go through one step of TRL's own trainers, and the same rewards
through the methods of `credit`. `--write` makes the page docs/results/missing-rewards.md. It is
quick as it is.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset  # type: ignore[import-untyped]
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from stepreward.core.catalog import credit
from stepreward.policies.model_sources import resolve

PAGE = Path(__file__).parents[1] / "docs" / "results" / "missing-rewards.md"
Rewards = Sequence[float | None]
SIZE = 4
"""Completions of a prompt."""
FIRST: Rewards = (1, 0, None, 1, None, 2, None, None, None, None, None, None, 0.5, 0.5, None, 0.5)
SECOND: Rewards = (0.5, None, None, 0, 1, None, None, 0.25, None, None, None, None, 0, 1, None, None)
WEIGHTS = (2.0, 0.5)


@dataclass(frozen=True)
class Case:
    """A method of ours, and the trainer of TRL with the options that make it the same."""

    method: str
    trainer: type[Any] = GRPOTrainer
    config: type[Any] = GRPOConfig
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """The trainer and its options."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.trainer.__name__}({options})"


CASES = (
    Case("grpo", options={"scale_rewards": "group"}),
    Case("lite-ppo", options={"scale_rewards": "batch"}),
    Case("dr-grpo", options={"scale_rewards": "none"}),
    Case("gdpo", options={"multi_objective_aggregation": "normalize_then_sum"}),
    Case("rloo", trainer=RLOOTrainer, config=RLOOConfig, options={"beta": 0.0}),
)


def of_trl(case: Case, columns: Sequence[Rewards]) -> NDArray[np.float64]:
    """(B,) advantages of TRL's trainer, as it logs them after its first step."""
    model = resolve("builtin:arithmetic")
    prompts = [f"{i} + 1 =" for i in range(len(columns[0]) // SIZE)]
    functions = [_giving(column, f"reward_{i}") for i, column in enumerate(columns)]
    weights = {"reward_weights": list(WEIGHTS)} if len(columns) > 1 else {}
    with tempfile.TemporaryDirectory() as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = case.config(
            output_dir=out, per_device_train_batch_size=len(columns[0]), num_generations=SIZE, max_completion_length=4,
            max_steps=1, report_to=[], use_cpu=True, save_strategy="no", logging_strategy="no", disable_tqdm=True,
            gradient_checkpointing=False, **case.options, **weights,
        )  # fmt: skip
        trainer = case.trainer(
            AutoModelForCausalLM.from_pretrained(model), functions, config, Dataset.from_dict({"prompt": prompts}),
            processing_class=AutoTokenizer.from_pretrained(model),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return np.array(list(trainer._logs["advantages"]), np.float64)


def _giving(column: Rewards, name: str) -> Callable[..., list[float | None]]:
    def function(completions: Sequence[str], **_: Any) -> list[float | None]:
        return list(column[: len(completions)])

    function.__name__ = name
    return function


def of_ours(case: Case, columns: Sequence[Rewards]) -> NDArray[np.float64]:
    """(B,) advantages of the method of `credit`."""
    table = np.array(columns, np.float64).T
    weights = np.array(WEIGHTS if len(columns) > 1 else (1.0,))
    outcome = np.where(np.isnan(table).all(axis=1), np.nan, np.nansum(table * weights, axis=1))
    data = {
        "outcome": [None if np.isnan(value) else float(value) for value in outcome],
        "components": table.tolist(),
        "group": np.arange(len(table)) // SIZE,
        "offsets": np.arange(len(table) + 1),
    }
    method = credit[case.method]
    settings = {"weights": tuple(weights)} if "weights" in method.settings else {}
    return np.asarray(method.take(data, **settings), np.float64)


def main(cases: Sequence[Case] = CASES) -> dict[str, Any]:
    """Advantages of both, for one reward function and for two."""
    rows = []
    for columns in ([FIRST], [FIRST, SECOND]):
        for case in cases:
            theirs, ours = of_trl(case, columns), of_ours(case, columns)
            rows.append(
                {
                    "method": case.method, "trl": case.told, "functions": len(columns), "theirs": theirs.tolist(),
                    "ours": ours.tolist(), "difference": float(np.abs(theirs - ours).max()),
                }
            )  # fmt: skip
    return {"trl_version": version("trl"), "rewards": [list(FIRST), list(SECOND)], "rows": rows}


HEAD = """# Missing rewards

Written by `python -m benchmarks.missing_rewards --write` with TRL {version}: reward functions that return `None` for
some completions go through one step of TRL's own trainers, and the same rewards through our methods
([What is not scored](../guides/reinforcement-learning.md#what-is-not-scored)). Every method that TRL's trainers have
too is here. A dash is `None`: such a completion has an advantage of 0 and enters no baseline and no deviation. All
advantages of both are equal to {limit:.0e}; above that the command fails.
"""
LIMIT = 1e-5
"""TRL computes in float32."""


def page(results: dict[str, Any]) -> str:
    """The page, Markdown."""
    rows = results["rows"]
    parts = [HEAD.format(version=results["trl_version"], limit=LIMIT)]
    titles = {
        1: "One reward function",
        2: f"Two reward functions, with weights {WEIGHTS[0]} and {WEIGHTS[1]}",
    }
    for functions, title in titles.items():
        given = results["rewards"][:functions]
        parts.append(f"## {title}\n")
        for prompt, start in enumerate(range(0, len(FIRST), SIZE), 1):
            said = "; ".join(_numbers(column[start : start + SIZE]) for column in given)
            parts.append(
                f"Prompt {prompt}, rewards {said}:\n\n| method | TRL's trainer | TRL | ours |\n|---|---|---|---|"
            )
            parts += [
                f"| `{row['method']}` | `{row['trl']}` | {_numbers(row['theirs'][start : start + SIZE])} "
                f"| {_numbers(row['ours'][start : start + SIZE])} |"
                for row in rows
                if row["functions"] == functions
            ]
            parts.append("")
    return "\n".join(parts)


def _numbers(values: Sequence[float | None]) -> str:
    return ", ".join("-" if value is None else f"{value + 0.0:.3f}".rstrip("0").rstrip(".") for value in values)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    found = main()
    if any(row["difference"] > LIMIT for row in found["rows"]):
        sys.exit("advantages differ")
    if "--write" in sys.argv:
        PAGE.write_text(page(found), encoding="utf-8")
    print(json.dumps(found, indent=2))
