"""AgentProcessBench's recorded judges: published numbers, and the page, computed again by loops from the raw files."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from benchmarks.agent_judges import DATA, EXPERTS, PAGE, ROUNDED, experts

from stepreward.cli.benchmark import measure
from stepreward.evaluate.published import published

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.exists(), reason="needs the data")]


def rows(path: Any) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        yield from map(json.loads, file)


@pytest.mark.parametrize("judge", ["Gemini-3-Flash-Preview-Thinking", "Llama-3.2-3B-Instruct"])
def test_a_judge_by_loops_and_as_published(judge: str) -> None:
    hits = steps = first = chats = 0
    for path in sorted((DATA / judge).iterdir()):
        people = list(rows(DATA.parent / f"{path.name.split('__')[0]}_final.jsonl.gz"))
        said = {(one["query_index"], one["sample_index"]): one["step_labels"] for one in rows(path)}
        for one in people:
            mine = said.get((one["query_index"], one["sample_index"]), {})
            steps += len(one["step_labels"])
            hits += sum(mine.get(at) == label for at, label in one["step_labels"].items())
            ends = [
                min((int(at) for at, label in of.items() if label == -1), default=-1)
                for of in (mine, one["step_labels"])
            ]
            first, chats = first + (ends[0] == ends[1]), chats + 1
    made = measure("agent-process-bench", DATA / judge, [judge], {})
    found = made["scorers"][judge]["metrics"]
    assert found["step_accuracy"]["value"] == pytest.approx(hits / steps, abs=1e-12)
    assert found["first_error_accuracy"]["value"] == pytest.approx(first / chats, abs=1e-12)
    printed = {one["metric"]: one["percent"] for one in made["published"] if one["model"] == judge and not one["group"]}
    for metric, value in printed.items():
        assert abs(100 * found[metric]["value"] - value) <= ROUNDED
    assert f"| {judge} |" in PAGE.read_text(encoding="utf-8")
    assert f"| {100 * hits / steps:.1f} / {printed['step_accuracy']:.1f} [" in PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(not EXPERTS.exists(), reason="needs the data")
def test_what_experts_alone_say_by_loops() -> None:
    with (EXPERTS / "splits.csv").open(newline="") as file:
        test = {row["task_id"] for row in csv.DictReader(file) if row["split"] == "test"}
    first: dict[tuple[str, str], str] = {}
    agreed = []
    with (EXPERTS / "annotations.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            run, said = (row["task_id"], row["model_name"]), row["trajectory_success"]
            if run[0].replace(".resized", "").replace(".improved", "") not in test:
                continue
            if run in first and "Unsure" not in (said, first[run]):
                agreed.append(said == first[run])
            first.setdefault(run, said)
    made = experts()
    wins = sum(said == "Successful" for said in first.values())
    assert made["yes"]["metrics"]["precision"]["value"] == pytest.approx(wins / len(first), abs=1e-12)
    assert made["second"]["metrics"]["accuracy"]["value"] == pytest.approx(sum(agreed) / len(agreed), abs=1e-12)
    sizes = {one.group: one.rows for one in published("agent-reward-bench") if one.group}
    assert {name: one["precision"]["n"] for name, one in made["yes"]["groups"].items()} == sizes
