"""Reward models trained on each kind of label of the same solutions, on held-out solutions with exact labels.

    python -m benchmarks.label_kinds [--quick] [--write]

The world is the built-in one, the model its small backbone; `--write` writes docs/results/label-kinds.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.catalog import keep as filters
from stepreward.core.catalog import transform as transforms
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import crossed_mean
from stepreward.core.measure.step_metrics import auroc, best_threshold, harmonic, ragged
from stepreward.core.types import Trajectory
from stepreward.label.relabelling import relabelled
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.arithmetic_truth import truth
from stepreward.verbs.label_rows import label
from stepreward.verbs.names import load
from stepreward.verbs.score_rows import score
from stepreward.verbs.train_model import train

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "label-kinds.md"
KEY = Key.seed(0).fold("kinds of labels")
ROLLOUTS = 4
HEAD = """# Which labels teach most

Written by `python -m benchmarks.label_kinds --write`; no number in a table is typed by hand.

{problems} problems of the built-in world, {samples} samples of its policy each, labelled in each way; the same small
backbone, {epochs} epochs, {seeds} training seeds. {held_out} other problems have exact labels, by which the models are
measured: a model's first error is its first step scored at or below a threshold, the best one on {held_out} more
problems.

- *labels exact*: first-error accuracy of the labels themselves. All are used up to their first error.
- *exact*: share of held-out solutions whose first error, or that there is none, the model finds; 95 % interval over
  problems and seeds.
- *wrong*, *right*: the same on solutions with an error and without one, and *F1*, their harmonic mean; means over
  seeds.
- *AUROC*: of steps up to the first error, right ones against wrong ones; mean over seeds.
- *cost*: rollouts a solution.

Most intervals overlap: at this size outcomes alone teach least and exact labels most, and little in between can be told
apart. What rollouts and tool agree on is labelled exactly, but there is less of it, and the model is no better for it.
Changed numbers teach slips, and miss what else goes wrong.
"""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    problems: int = 150
    samples: int = 4
    held_out: int = 60
    seeds: int = 3
    epochs: int = 3


def solutions(split: Any, problems: int, samples: int, estimator: str, **settings: Any) -> list[Trajectory]:
    """Samples of the built-in policy with the labels of an estimator."""
    found = label(
        [*generate(split, problems, seed=0)], policy="builtin:arithmetic", grader="arithmetic", method=estimator,
        samples=samples, seed=1, **settings,
    )  # fmt: skip
    return [*found]


def exact(rows: Sequence[Trajectory]) -> list[Trajectory]:
    """Solutions with exact labels."""
    made = [one.with_columns({"label": np.asarray(truth(one.problem, one.steps), np.float64)}) for one in rows]
    return [to_error(one) for one in made]


def to_error(one: Trajectory) -> Trajectory:
    """The labels up to the first error; what is behind it means another thing to each kind."""
    at = first_error(one.labels)
    return one.with_columns({"label": np.where((at >= 0) & (np.arange(len(one)) > at), np.nan, one.labels)})


def kinds(sizes: Sizes) -> dict[str, tuple[list[Trajectory], float]]:
    """The training data by kind of label, and rollouts a solution."""
    how = (sizes.problems, sizes.samples)
    rolled = solutions("train", *how, "math-shepherd", n=ROLLOUTS)
    searched = solutions("train", *how, "bisection", n=ROLLOUTS)
    judged = relabelled(score(rolled, "tool"), (transforms["pseudo-label"], {"above": 0.5, "below": 0.5}))
    outcome = [one.with_columns({"label": np.where(one.action, float(one.outcome > 0.5), np.nan)}) for one in rolled]
    agreed = relabelled(rolled, None, [(filters["consensus"], {})], [judged])
    bare = [Trajectory(one.problem, one.steps, one.outcome, one.terminal) for one in rolled]
    graded = [one for one in bare if one.terminal]
    changed = [*label(graded, method="changed-numbers", transform="soft", grader="arithmetic", n=2, unchecked="right")]
    paid = [float(np.mean([one.column("n_rollouts").sum() for one in some])) for some in (rolled, searched)]
    return {
        "exact": (exact(rolled), 0.0),
        "outcome at every step": (outcome, 0.0),
        "tool": (judged, 0.0),
        "changed-numbers": ([one for one in changed if not np.isnan(one.labels).all()], 0.0),
        f"bisection, {ROLLOUTS} rollouts a probe": (searched, paid[1]),
        f"math-shepherd, {ROLLOUTS} rollouts a step": (rolled, paid[0]),
        "consensus of tool and math-shepherd": (agreed, paid[0]),
        "the same, balanced": (relabelled(agreed, None, [(filters["balance"], {})]), paid[0]),
    }


def accuracy(rows: Sequence[Trajectory]) -> float | None:
    """Share of labelled solutions whose first error is the true one; None where steps were changed."""
    made = [first_error(one.labels) == first_error(truth(one.problem, one.steps)) for one in rows if one.terminal]
    return float(np.mean(made)) if len(made) == len(rows) else None


def measured(
    models: Sequence[Callable[[Sequence[Trajectory]], Sequence[Trajectory]]],
    tuned: Sequence[Trajectory],
    held: Sequence[Trajectory],
) -> dict[str, Any]:
    """First-error accuracy of some models on held-out solutions, at thresholds chosen on others."""
    gold = np.array([first_error(one.labels) for one in held])
    names, group = np.unique([one.problem.id for one in held], return_inverse=True)
    by_seed, parts, areas = [], [], []
    labels = ragged([one.labels for one in held])
    for model in models:
        scores = ragged([one.column("score") for one in model(tuned)])
        threshold = best_threshold(scores, np.array([first_error(one.labels) for one in tuned])).threshold
        scored = ragged([one.column("score") for one in model(held)])
        areas.append(auroc(scored, labels))
        said = first_error(scored, threshold)
        hit = (said == gold).astype(np.float64)
        by_seed.append([float(hit[group == g].mean()) for g in range(len(names))])
        parts.append([float(hit[some].mean()) for some in (gold >= 0, gold < 0)])
    wrong, right = np.mean(parts, axis=0)
    interval = crossed_mean(np.array(by_seed), KEY.fold("exact"), bounds=(0.0, 1.0)).to_json()
    f1 = float(np.mean([harmonic(*one) for one in parts]))
    return {"exact": interval, "wrong": float(wrong), "right": float(right), "f1": f1, "auroc": float(np.mean(areas))}


def main(arguments: Sequence[str]) -> int:
    """Trains and measures all of it."""
    sizes = Sizes(6, 2, 4, 1, 1) if "--quick" in arguments else Sizes()
    held = exact(solutions("held_out", sizes.held_out, sizes.samples, "checker"))
    tuned = exact(solutions("validation", sizes.held_out, sizes.samples, "checker"))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (rows, cost) in kinds(sizes).items():
            models = []
            for seed in range(sizes.seeds):
                out = Path(folder) / f"{len(found)}-{seed}"
                train([*map(to_error, rows)], out, epochs=sizes.epochs, seed=seed, held_out=0.1, batch_tokens=2048)
                models.append(lambda some, out=out: score(some, load(out)))
            size = {"solutions": len(rows), "labels": accuracy(rows), "cost": cost}
            found[name] = size | measured(models, tuned, held)
            sys.stderr.write(f"{name}: {found[name]}\n")
    if "--write" in arguments:
        PAGE.write_text(page(found, sizes), encoding="utf-8")
    print(json.dumps(found))
    return 0


def page(found: dict[str, Any], sizes: Sizes) -> str:
    """The page of all results."""
    head = "| labels | solutions | labels exact | cost | exact | wrong | right | F1 | AUROC |"
    lines = [HEAD.format(**vars(sizes)), head, f"|{'---|' * 9}"]
    for name, one in found.items():
        shares = [percent(one[part]) for part in ("wrong", "right", "f1", "auroc")]
        whole = f"{percent(one['exact']['value'])} [{percent(one['exact']['low'])}, {percent(one['exact']['high'])}]"
        cells = [name, f"{one['solutions']:,}", percent(one["labels"]), f"{one['cost']:.0f}", whole, *shares]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def percent(share: float | None) -> str:
    """A share in percent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
