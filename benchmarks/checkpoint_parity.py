"""Parity: every row of the table of checkpoints against its published recipe, written out by hand.

    python -m benchmarks.checkpoint_parity [--quick] [--write]

Each recipe is plain `transformers` calls, one trajectory at a time (`tests/score/literal_recipes.py`), on a tiny random
checkpoint of the same architecture, file layout and tokenizer behaviour, in float32, on texts chosen to be awkward.
`--write` puts the table into docs/results/checkpoint-parity.md. A difference above 1e-5 ends it with status 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tests.score.awkward_texts import cases
from tests.score.literal_recipes import RECIPES
from tests.score.tiny_checkpoints import build

from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.score.checkpoints.known_checkpoints import checkpoints
from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.load import load

PAGE = Path(__file__).parents[1] / "docs" / "results" / "checkpoint-parity.md"
TOLERANCE = 1e-5
_FAMILIES = {
    "qwen": "Qwen2",
    "qwen3": "Qwen3",
    "llama3": "Llama 3",
    "metaspace": "Mistral",
    "metaspace-bos-pad": "Mistral, padding is its first token",
    "metaspace-first": "Mistral, marks the first word alone",
    "intern": "InternLM2",
}
"""What a tiny checkpoint is like, by the name of its family in the tests."""


@dataclass(frozen=True)
class Compared:
    """One row of the table of checkpoints on one tiny checkpoint."""

    checkpoint: str
    names: int
    """Hub names that share the row."""
    family: str
    """Architecture and tokenizer of the tiny checkpoint."""
    steps: int
    """Step scores that were compared."""
    unscored: int
    """Steps that have no score by either."""
    spread: float
    """Standard deviation of the recipe's scores: equal scores would prove nothing."""
    difference: float
    """The largest between a score and the recipe's; infinite where one of them has none."""


def compared(row: Checkpoint, family: str, *, quick: bool = False) -> Compared:
    """A row beside its recipe on a tiny checkpoint of a family."""
    recipe, ours, theirs = RECIPES[row.name], list[float](), list[float]()
    with TemporaryDirectory() as place:
        folder = Path(place)
        one = build(folder, family, recipe.layout, row.architectures[0] if row.architectures else "", recipe.seed)
        scorer = load(folder, like=row.name, reference=folder / "reference" if one.reference is not None else "")
        texts = cases(row.record)
        for name in [*texts][:2] if quick else texts:
            question, steps = texts[name]
            asked = Score(Problem(name, question), tuple(Step(step) for step in steps))
            ours += scorer.score_many([asked])[0].scores.tolist()
            theirs += recipe.score(one, question, recipe.cleaned(steps))
    a, b = np.array(ours), np.array(theirs)
    both = ~np.isnan(b)
    distance = np.where(np.isnan(a) & ~both, 0.0, np.abs(a - b))
    return Compared(
        row.name, len(row.names), _FAMILIES[family], int(both.sum()), int((~both).sum()), float(np.std(b[both])),
        float(np.nan_to_num(distance, nan=np.inf).max()),
    )  # fmt: skip


def main(*, quick: bool = False) -> list[dict[str, Any]]:
    """One row a checkpoint and tiny checkpoint."""
    pairs = [(row, family) for row in checkpoints.values() for family in RECIPES[row.name].families]
    return [asdict(compared(row, family, quick=quick)) for row, family in pairs]


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    worst, steps = max(row["difference"] for row in rows), sum(row["steps"] for row in rows)
    lines = [
        "# Parity of checkpoints\n\n"
        "Written by `python -m benchmarks.checkpoint_parity --write`. Each row of the [table of checkpoints]"
        "(../checkpoints.md)\nbeside its published recipe in plain `transformers` calls, one trajectory at a time "
        "(`tests/score/literal_recipes.py`),\non a tiny random checkpoint of the same architecture, file layout and "
        "tokenizer behaviour: float32, on a CPU, texts\nwith blank lines, numbers, emoji, accents and separators "
        f"inside steps. The largest difference in {steps:,} step scores is\n{worst:.1e}; above 1e-5 the command fails. "
        "Published weights are not downloaded: that a recipe is what their authors ran is\nshown by its source, and "
        "by their printed example scores where the table of checkpoints has them.\n\n"
        "| checkpoint | names | tiny checkpoint | step scores | without a score | their spread | largest difference |\n"
        "|---|---|---|---|---|---|---|\n"
    ]
    for row in rows:
        numbers = f"{row['steps']} | {row['unscored']} | {row['spread']:.2g} | {row['difference']:.0e}"
        lines.append(f"| {row['checkpoint']} | {row['names']} | {row['family']} | {numbers} |\n")
    return "".join(lines)


if __name__ == "__main__":
    found = main(quick="--quick" in sys.argv)
    if "--write" in sys.argv:
        PAGE.write_text(page(found), encoding="utf-8")
    print(json.dumps(found))
    sys.exit(int(any(not row["difference"] <= TOLERANCE for row in found)))
