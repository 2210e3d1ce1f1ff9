"""The schema of summary.json: closed, described key by key, shown in full in the documentation, and strict."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stepreward.core.runtime.spending import Bill
from stepreward.pipeline.folder import RunFolder
from stepreward.pipeline.run_report import build_page
from stepreward.pipeline.whole_run import SCHEMA
from stepreward.report.page import render

ROOT = Path(__file__).parents[2]
DOCUMENT = json.loads((resources.files("stepreward.pipeline") / "summary_schema.json").read_text(encoding="utf-8"))
BILL = dict.fromkeys((field.name for field in fields(Bill)), 3)


def estimate(value: float | None) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value, "n": 10}


def summary() -> dict[str, Any]:
    """A summary of a world without exact truth, in which much could not be measured."""
    curve = {name: [estimate(0.25), estimate(0.5)] for name in ("majority", "oracle", "best-of-n:min")}
    settings: dict[str, Any] = {"policy": "tiny", "problems": "mine.jsonl", "seed": 1}
    settings |= {"held_out_problems": 10, "held_out_samples": 2, "estimator": "scan", "rollouts": 2}
    settings |= {"search_problems": 10, "transform": "soft", "objective": "bce", "aggregate": "min"}
    headline = {"accuracy": estimate(0.25), "versus_majority": estimate(None)}
    made = {
        "schema": SCHEMA,
        "settings": settings,
        "policy": {"solved": estimate(0.5), "steps": 3.5, "bill": BILL, "seconds": 0.5},
        "label": {"trajectories": 4, "wrong": 0.5, "bill": BILL, "against_truth": {}, "seconds": 0.1},
        "train": {"metrics": {"f1": None}, "history": [{"step": 1.0, "eval_auroc": None}], "tokens": 9, "seconds": 1.0},
        "retrained": [],
        "failures": {"sample-train": {"failed": 1, "of": 5, "first": "p3: the page crashed"}},
        "evaluate": {"sizes": [1, 2], "curves": curve, "versus_majority": {"best-of-n:min": estimate(-0.25)},
                     "main": "best-of-n:min", "seconds": 0.1,
                     "headline": {**headline, "seeds": [{"seed": 1, **headline}]}},
        "search": {"beam": {"accuracy": estimate(None), "bill": BILL}, "seconds": 2.0},
    }  # fmt: skip
    made["evaluate"]["curves"]["weighted-vote:min"] = [estimate(0.25), estimate(0.25)]
    return made


def check(value: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(DOCUMENT).validate(value)


def objects(part: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every sub-schema that describes an object, with its place."""
    if isinstance(part, dict):
        if part.get("type") == "object":
            yield at, part
        for name, below in part.items():
            yield from objects(below, f"{at}/{name}")


def test_the_document_is_a_schema_of_the_version_that_a_run_writes() -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENT)
    assert DOCUMENT["$id"] == DOCUMENT["properties"]["schema"]["const"] == SCHEMA


def test_every_key_is_described_and_no_other_is_allowed() -> None:
    found = list(objects(DOCUMENT))
    assert len(found) > 10
    for at, part in found:
        assert "additionalProperties" in part, f"{at} lets anything pass"
        for name, value in part.get("properties", {}).items():
            assert value.get("description"), f"{at}: {name} is not described"


def test_the_bill_of_the_schema_is_the_bill() -> None:
    assert list(DOCUMENT["$defs"]["bill"]["properties"]) == [field.name for field in fields(Bill)]


def test_a_summary_with_little_measured_is_valid_and_has_a_report() -> None:
    check(summary())
    text = render(build_page(summary(), []))
    assert "Against the truth" not in text
    assert "p3: the page crashed" in text
    assert "None" not in text
    assert "nan" not in text.split("<h2>", 1)[1].split("<script>")[0]


def _drop(made: dict[str, Any]) -> None:
    del made["label"]["wrong"]


def _add(made: dict[str, Any]) -> None:
    made["policy"]["solve"] = 0.5


def _exceed(made: dict[str, Any]) -> None:
    made["label"]["wrong"] = 1.5


def _swap(made: dict[str, Any]) -> None:
    made["search"]["beam"]["accuracy"] = 0.4


def _version(made: dict[str, Any]) -> None:
    made["schema"] = "stepreward/summary/2"


def _round(made: dict[str, Any]) -> None:
    made["train"]["tokens"] = 9.5


@pytest.mark.parametrize("change", [_drop, _add, _exceed, _swap, _version, _round])
def test_what_does_not_fit_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    made = copy.deepcopy(summary())
    change(made)
    with pytest.raises(jsonschema.ValidationError):
        check(made)


def test_the_documentation_lists_every_key() -> None:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.summary_page()
    listed = {line.split("`")[1].split(".")[-1] for line in page.splitlines() if line.startswith("| `")}
    keys = {name for _, part in objects(DOCUMENT) for name in part.get("properties", {})}
    assert keys <= listed
    for key in ("evaluate.first_error.f1", "search.NAME.accuracy", "evaluate.steps.reliability.count"):
        assert f"| `{key}` |" in page
    assert "an [estimate](#estimate)" in page


def test_a_stage_that_could_not_measure_writes_null(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", {})
    nan = float("nan")
    fresh = folder.stage("train", lambda: {"metrics": {"f1": nan}, "history": [{"loss": nan}], "seconds": 0.0})
    assert fresh == {"metrics": {"f1": None}, "history": [{"loss": None}], "seconds": 0.0}
    assert folder.stage("train", dict) == fresh
