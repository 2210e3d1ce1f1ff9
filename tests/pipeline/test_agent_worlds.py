"""Worlds that an agent acts in, as presets of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
from benchmarks.agents import NUMBERS, PAGE, numbers_of, page

from stepreward.core.types import Step
from stepreward.pipeline.agent_worlds import AGENT_WORLDS
from stepreward.pipeline.run_settings import OF_WORLD, RunSettings, WorldName
from stepreward.pipeline.whole_run import Run

SMALL = RunSettings(
    "retrieval", seeds=2, train_problems=6, validation_problems=4, held_out_problems=5, train_samples=3,
    held_out_samples=2, search_problems=2, rollouts=2, epochs=1, beams=2, width=2,
)  # fmt: skip


def test_every_world_has_settings_and_all_but_one_an_agent() -> None:
    assert set(OF_WORLD) == set(get_args(WorldName)) == {"arithmetic", *AGENT_WORLDS}
    for settings in OF_WORLD.values():
        replace(RunSettings(), **settings)


@pytest.mark.parametrize("name", ["tools", "retrieval", "repository"])
def test_problems_of_splits_are_the_same_each_time_and_have_none_in_common(name: WorldName) -> None:
    drawn = {split: [*islice(AGENT_WORLDS[name].drawn(3, split), 30)] for split in ("train", "held_out")}
    assert [*islice(AGENT_WORLDS[name].drawn(3, "train"), 30)] == drawn["train"]
    texts = {split: {json.dumps([one.prompt, one.reference, one.id]) for one in some} for split, some in drawn.items()}
    assert len(texts["train"]) == 30
    assert not texts["train"] & texts["held_out"]


def test_problems_of_a_key_are_about_one_collection_of_documents() -> None:
    world = AGENT_WORLDS["retrieval"]
    corpora = [one.meta["corpus"] for one in islice(world.drawn(0, "train"), 2 * world.of_a_key)]
    assert len(set(corpora[: world.of_a_key])) == 1
    assert len(set(corpora)) == 2


def test_truth_is_what_the_checker_says() -> None:
    pytest.importorskip("bm25s")
    world = AGENT_WORLDS["retrieval"]
    (problem,) = islice(world.drawn(0, "train"), 1)
    steps = (Step("?", "observation", meta={"left": 3}), Step("Answer[nothing]\n"))
    assert np.array_equal(world.truth(problem, steps), [np.nan, 0.0], equal_nan=True)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("bm25s")
    return Run(tmp_path_factory.mktemp("retrieval") / "run", SMALL).execute()


def valid(made: dict[str, Any]) -> None:
    schema = json.loads((resources.files("stepreward.pipeline") / "summary_schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(made)))


def test_a_run_compares_the_guided_agent_with_the_plain_one_and_labels_with_the_truth(summary: dict[str, Any]) -> None:
    valid(summary)
    assert (summary["settings"]["policy"], summary["settings"]["surprise"]) == ("seeker", False)
    acting = summary["acting"]
    gain = acting["guided"]["accuracy"]["value"] - acting["plain"]["accuracy"]["value"]
    assert acting["gain"]["value"] == pytest.approx(gain)
    assert acting["plain"]["accuracy"]["value"] == pytest.approx(summary["policy"]["solved"]["value"])
    assert 0 < summary["label"]["against_truth"]["first_error_accuracy"] <= 1
    assert len(summary["retrained"]) == 1


def test_a_world_whose_episodes_state_no_answers_has_no_votes(
    summary: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = replace(AGENT_WORLDS["retrieval"], answers=False, checker="", window=2)
    monkeypatch.setattr("stepreward.pipeline.world.AGENT_WORLDS", {**AGENT_WORLDS, "retrieval": world})
    made = Run(tmp_path / "run", SMALL).execute()
    valid(made)
    assert not {"evaluate", "search"} & made.keys()
    assert made["label"]["against_truth"] == {}
    # Neither the window nor what is measured besides changes an episode.
    assert made["acting"]["gain"] == summary["acting"]["gain"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "points of guidance" in report
    assert "majority" not in report


def test_the_page_is_the_one_of_its_numbers() -> None:
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(numbers)
    assert set(numbers) <= set(AGENT_WORLDS)
    for made in numbers.values():
        assert made["settings"]["held_out_problems"] >= 200


def test_the_page_says_where_guidance_does_not_help(summary: dict[str, Any]) -> None:
    made = numbers_of(summary)
    for gain, said in (((0.1, 0.2), False), ((-0.1, 0.2), True), ((-0.2, -0.1), True)):
        made["acting"]["gain"] = {"value": sum(gain) / 2, "low": gain[0], "high": gain[1], "n": 5}
        text = page({"retrieval": made})
        assert ("not shown to help" in text or "guidance harms" in text) is said
        assert "[retrieval](#retrieval)" in text
        assert "Not measured yet: tools, graph-retrieval," in text
