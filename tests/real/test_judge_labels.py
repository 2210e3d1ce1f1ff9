"""Numbers of docs/results/judges.md, computed again from the raw files by loops that share no code with them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks import judges

pytestmark = pytest.mark.real
FIRST, SECOND = "Llama3.1-8B-PRM-Mistral-Data", "Qwen2.5-72B-Instruct"


def said(row: dict[str, Any], name: str) -> int:
    """The first error by the rule of ProcessBench; one behind what is recorded is the last step."""
    low = [at for at, score in enumerate(row["scores"][name]) if score <= 0.5]
    return low[0] if low else row["n_steps"] - 1 if row["min_all"][name] <= 0.5 else -1


@pytest.mark.parametrize("subset", ["gsm8k", "math"])
def test_consensus_of_two_recorded_verifiers(subset: str) -> None:
    path = Path(judges.DATA / "processbench_prm_scores" / f"{subset}.jsonl.gz")
    if not path.exists():
        pytest.skip("needs the data")
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    same = [row for row in rows if said(row, FIRST) == said(row, SECOND)]
    hits = sum(said(row, FIRST) == int(row["label"]) for row in same)
    alone = sum(said(row, SECOND) == int(row["label"]) for row in rows)
    part = re.split(r"^### ", judges.PAGE.read_text(), flags=re.MULTILINE)[1 + (subset == "math")]
    cells = dict(re.findall(r"^\| (.*?) \| (.*?) \[", part, re.MULTILINE))
    assert (
        cells[f"consensus of {FIRST} and {SECOND}"]
        == f"{100 * len(same) / len(rows):.1f} | {100 * hits / len(same):.1f}"
    )
    assert cells[SECOND] == f"100.0 | {100 * alone / len(rows):.1f}"
