"""A report whose every text is hostile: markup, attribute breaks and words too long for a narrow page."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.pipeline.run_report import build_page
from stepreward.report.page import Page, TreeView

SCRIPT = "<script>window.hacked = 1</script>"
IMAGE = '"><img src=x onerror="window.hacked = 2">'
LONG = "unbroken" * 40
STEPS = {
    "right": ["10 - 4 = 6\n", f"{SCRIPT}\n", "Answer: 12\n"],
    "wrong": ["10 - 4 = 6\n", f"{IMAGE}\n", f"{LONG}\n", "Answer: 13\n"],
    "other": ["10 + 4 = 14\n", "Answer: 14\n"],
}
BILL = {
    "proposals": 1200,
    "generated_tokens": 34567,
    "scored_steps": 8,
    "scored_tokens": 90,
    "scored_tokens_unshared": 12345678,
    "grades": 0,
    "cached": 0,
}


def estimate(value: float | None) -> dict[str, Any]:
    return {"value": value, "low": value and value - 0.03, "high": value and value + 0.03, "n": 40}


def tree() -> StepTree:
    problem = Problem("p", f"Ann has 10 pens.\n{SCRIPT} {LONG}")
    outcomes = {"right": 1.0, "wrong": 0.0, "other": 0.0}
    rows = [
        Trajectory(problem, tuple(map(Step, STEPS[name])), outcomes[name])
        for name in ("right", "right", "wrong", "other")
    ]
    made = StepTree.from_trajectories(rows)
    score = np.linspace(0.05, 0.95, made.n)
    score[0] = np.nan
    truth = np.where(np.arange(made.n) % 2 == 0, 1.0, np.nan)
    return made.with_column("score", score).with_column("truth", truth)


def summary() -> dict[str, Any]:
    """A summary as `stepreward run` writes it, small, with nothing measured in places."""
    names = ["majority", "oracle", *(f"{how}:{a}" for how in ("best-of-n", "weighted-vote") for a in ("min", IMAGE))]
    curve = {name: [estimate(0.4 + 0.01 * i), estimate(0.5 + 0.02 * i)] for i, name in enumerate(names)}
    settings = {
        "policy": f"/models/{LONG}",
        "problems": "",
        "seed": 0,
        "held_out_problems": 40,
        "held_out_samples": 2,
        "search_problems": 20,
        "estimator": SCRIPT,
        "rollouts": 8,
        "transform": "hard",
        "objective": IMAGE,
        "aggregate": "min",
    }
    table = {"score": [0.2, 0.5, 0.9], "label": [0.1, 0.6, 0.95], "count": [5, 9, 30]}
    history = [{"step": float(i), "loss": 1 / (1 + i), "eval_auroc": 0.5 + i / 100} for i in range(30)]
    first = {"f1": estimate(None), "erroneous": estimate(0.4), "correct": estimate(None)}
    return {
        "schema": "stepreward/summary/1",
        "settings": settings,
        "policy": {"solved": estimate(0.5), "steps": 3.2, "bill": BILL, "seconds": 1.0},
        "label": {"trajectories": 30, "wrong": 0.6, "bill": BILL, "against_truth": {}, "seconds": 2.0},
        "train": {"metrics": {}, "history": history, "tokens": 5000, "seconds": 3.0},
        "retrained": [],
        "failures": {SCRIPT: {"failed": 1, "of": 40, "first": f"{LONG}: {IMAGE}"}},
        "evaluate": {
            "sizes": [1, 2],
            "curves": curve,
            "versus_majority": {name: estimate(0.01) for name in names[2:]},
            "main": "weighted-vote:min",
            "headline": {"accuracy": estimate(0.5), "versus_majority": estimate(0.01), "seeds": []},
            "first_error": {**first, "threshold": 0.5, "threshold_from": IMAGE},
            "steps": {"auroc": 0.8, "brier": 0.1, "ece": 0.02, "adaptive_ece": 0.03, "reliability": table},
            "seconds": 4.0,
        },
        "search": {"beam": {"accuracy": estimate(0.4), "bill": BILL}, "seconds": 5.0},
    }


def page() -> Page:
    return build_page(summary(), [TreeView(tree(), "score", ["score", "truth", "label"])])
