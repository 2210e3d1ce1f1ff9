"""Groups that are trees against independent solutions in TRL, at equal numbers of generated tokens.

    python -m benchmarks.tree_rollouts [--quick] [--out FOLDER]   prints the results as JSON
    python -m benchmarks.tree_rollouts --write                    writes docs/results/tree-rollouts.md

The built-in policy is trained on the built-in arithmetic, as `stepreward rl` does it, every arm from the same weights.
Trees have more updates, as each costs fewer tokens. Finished trainings in FOLDER are not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.connect.rollout_trees import RECIPES
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import bootstrap, paired_difference
from stepreward.pipeline.learning import Curve, ReinforceSettings
from stepreward.pipeline.reinforce import reinforce

PAGE = Path(__file__).parents[1] / "docs" / "results" / "tree-rollouts.md"


@dataclass(frozen=True)
class Arm:
    """A way to sample and to credit."""

    credit: str
    trees: str
    """Recipe of the trees; empty for independent solutions."""
    updates: float
    """As a multiple of those of independent solutions."""


ARMS: Mapping[str, Arm] = {
    "independent, grpo": Arm("grpo", "", 1.0),
    "trees, grpo": Arm("grpo", "treerl", 1.5),
    "trees, treerl": Arm("treerl", "treerl", 1.5),
}
SETTINGS = ReinforceSettings(
    seeds=3, steps=8, problems=4, generations=8, evaluate_every=4, held_out=60, samples=2, max_tokens=64
)
QUICK = replace(SETTINGS, seeds=1, steps=2, problems=2, generations=4, evaluate_every=1, held_out=4, samples=1)


def at(curve: Curve, tokens: float) -> float:
    """Accuracy of a training after a number of generated tokens, linear between evaluations."""
    return float(np.interp(tokens, curve.tokens, curve.accuracy))


def measure(out: Path, settings: ReinforceSettings) -> dict[str, Any]:
    """Trains all arms, and reads each at the tokens that all of them have generated."""
    curves = dict[str, list[Curve]]()
    for name, arm in ARMS.items():
        # An evaluation stands at the end of every training.
        steps = round(settings.steps * arm.updates / settings.evaluate_every) * settings.evaluate_every
        folder = out / name.replace(", ", "-")
        reinforce(folder, replace(settings, credits=(arm.credit,), trees=arm.trees, steps=steps))
        paths = [folder / f"{arm.credit}-{seed}.json" for seed in range(settings.seeds)]
        curves[name] = [Curve(**json.loads(path.read_text())) for path in paths]
    tokens = min(curve.tokens[-1] for some in curves.values() for curve in some)
    key, made = Key.seed(0).fold("tree rollouts"), dict[str, Any]()
    first = [at(curve, tokens) for curve in curves[next(iter(ARMS))]]
    for name, some in curves.items():
        mine = [at(curve, tokens) for curve in some]
        made[name] = {
            "updates": (len(some[0].tokens) - 1) * settings.evaluate_every,
            "tokens": float(np.mean([curve.tokens[-1] for curve in some])),
            "before": float(np.mean([curve.accuracy[0] for curve in some])),
            "accuracy": bootstrap(mine, key.fold(name), bounds=(0.0, 1.0)).to_json(),
            "seeds": mine,
            "difference": paired_difference(mine, first, key.fold(name, "paired")).to_json(),
        }
        made[name]["per_update"] = made[name]["tokens"] / made[name]["updates"]
    return {"tokens": tokens, "arms": made, "settings": asdict(settings)}


def page(found: Mapping[str, Any]) -> str:
    """The page of results."""
    arms, settings = found["arms"], found["settings"]
    first, *others = arms
    plain = arms[first]["per_update"]
    rows = [
        f"| {name} | {one['updates']} | {one['per_update']:,.0f} | {100 * (1 - one['per_update'] / plain):.0f} % | "
        f"{_percent(one['accuracy'])} | {', '.join(f'{100 * a:.1f}' for a in one['seeds'])} | "
        f"{'' if name == first else _points(one['difference'])} |"
        for name, one in arms.items()
    ]
    said = [
        f"- *{name}* is {'above' if one['low'] > 0 else 'below' if one['high'] < 0 else 'neither above nor below'} "
        f"*{first}* beyond the interval."
        for name, one in ((name, arms[name]["difference"]) for name in others)
    ]
    shape = RECIPES["treerl"].shape
    return f"""# Trees of rollouts against independent solutions

Written by `python -m benchmarks.tree_rollouts --write`. No number is typed by hand. Small on purpose: it shows that
training with trees works, and cannot rank methods.

The built-in policy on the built-in arithmetic, trained by TRL's GRPO (loss `dr_grpo`, rate
{settings["learning_rate"]:g}) on {settings["problems"]} problems an update, {settings["generations"]} solutions each.
Trees are those of the recipe `treerl`: `{shape}`. Every arm starts from the same weights, is read after
{found["tokens"]:,} generated tokens, linear between evaluations, on {settings["held_out"]} held-out problems with
{settings["samples"]} solutions each, and has {settings["seeds"]} seeds. Before: {100 * arms[first]["before"]:.1f} %.
Brackets are 95 % bootstrap intervals over seeds, too narrow with so few; differences are paired by seed.

| rollouts, credit | updates | tokens an update | fewer | accuracy, % | by seed | points over the first |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

{chr(10).join(said)}

Tokens an update count each shared beginning once. Solutions have few steps here: an outcome is no sparse signal,
which is against trees. The cost of training, which trees do not lower, since TRL reads each solution by itself, is not
counted.
"""


def _percent(one: Mapping[str, float]) -> str:
    return f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"


def _points(one: Mapping[str, float]) -> str:
    return f"{100 * one['value']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"


def main() -> None:
    """Measures, prints JSON, and writes the page where wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a training of two updates: shows that it works")
    parser.add_argument("--write", action="store_true", help="write the page of results")
    parser.add_argument("--out", type=Path, help="folder in which trainings are kept")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(flags.out or Path(temporary), QUICK if flags.quick else SETTINGS)
    if flags.write and not flags.quick:
        PAGE.write_text(page(found))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
