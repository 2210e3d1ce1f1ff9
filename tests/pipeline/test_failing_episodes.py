"""A run in an environment that breaks in some episodes, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from tests.cli.running import invoke, refused

pytest.importorskip("bm25s")

from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Observation
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.table import read_table
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.environments.retrieval.retrieval_episode import RetrievalEpisode
from stepreward.label.samples import graded_samples
from stepreward.pipeline.agent_worlds import AGENT_WORLDS
from stepreward.pipeline.run_settings import RunSettings
from stepreward.policies.tabular import TabularPolicy

SETTINGS = RunSettings(
    "retrieval", seeds=1, train_problems=7, validation_problems=4, held_out_problems=8, train_samples=2,
    held_out_samples=2, search_problems=3, rollouts=2, epochs=1, beams=2, width=2,
)  # fmt: skip
WORLD = AGENT_WORLDS["retrieval"]
SPLITS = {split: [*islice(WORLD.drawn(0, split), n)] for split, n in (("train", 7), ("validation", 4), ("held_out", 8))}
BROKEN = {one.id for some in SPLITS.values() for one in some[1::3]}
"""The problems whose pages crash: the second of each three."""


def line(out: Path) -> str:
    """The command."""
    own = {name: value for name, value in asdict(SETTINGS).items() if value != getattr(RunSettings(), name)}
    return " ".join(["run", "--out", str(out), *(f"--{name.replace('_', '-')} {value}" for name, value in own.items())])


def crashing(monkeypatch: pytest.MonkeyPatch, breaks: Callable[[Problem], bool]) -> None:
    """Lets some problems' episodes crash at an action."""
    begins, acts = RetrievalEpisode.reset, RetrievalEpisode.act

    def reset(self: Any, problem: Problem) -> Observation:
        self.breaks = breaks(problem)
        return begins(self, problem)

    def act(self: Any, action: Step) -> Observation:
        if getattr(self, "breaks", False):
            raise RuntimeError("the page crashed")
        return acts(self, action)

    monkeypatch.setattr(RetrievalEpisode, "reset", reset)
    monkeypatch.setattr(RetrievalEpisode, "act", act)


def shares() -> list[float]:
    """The share of won episodes of each held-out problem, where nothing breaks."""
    assert WORLD.table is not None
    agent = Agent(TabularPolicy(WORLD.table, WORLD.policy), environment_at(WORLD.environment))
    key = Key.seed(0).fold("held_out")
    flows = [graded_samples(one, key, n=2) for one in SPLITS["held_out"]]
    made = {one.index: one.result for one in Driver(policy=agent).run(flows)}
    return [float(np.mean([t.outcome for t in made[at]])) for at in range(len(flows))]


def test_a_run_goes_on_without_the_episodes_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [share for share, one in zip(shares(), SPLITS["held_out"], strict=True) if one.id not in BROKEN]
    crashing(monkeypatch, lambda problem: problem.id in BROKEN)
    said = invoke(line(tmp_path / "run"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    schema = json.loads((resources.files("stepreward.pipeline") / "summary_schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(summary)
    told = summary["failures"]
    counts = {name: (one["failed"], one["of"]) for name, one in told.items()}
    searches = {"search-beam": (1, 3), "search-dvts": (1, 3), "act": (3, 8)}
    assert counts == {"sample-train": (2, 7), "sample-validation": (1, 4), "sample-held_out": (3, 8), **searches}
    first = told["sample-train"]["first"]
    assert first.startswith(SPLITS["train"][1].id)
    assert "the page crashed" in first
    assert f"sample-train: 2 of 7 failed, {first}" in said
    assert "the page crashed" in (tmp_path / "run" / "report.html").read_text()
    # No failure counts as lost: numbers are those of the other episodes.
    solved, plain = summary["policy"]["solved"], summary["acting"]["plain"]["accuracy"]
    assert (solved["n"], solved["value"]) == (len(expected), pytest.approx(np.mean(expected)))
    assert plain["value"] == pytest.approx(np.mean(expected))
    assert summary["acting"]["gain"]["n"] == summary["evaluate"]["curves"]["majority"][-1]["n"] == len(expected)
    assert summary["search"]["beam"]["accuracy"]["n"] == 2
    labelled = {one.problem.id for one in read_table(tmp_path / "run" / "labels.parquet")}
    assert labelled
    assert not labelled & BROKEN
    # A run that is finished tells the same again.
    invoke(line(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


def test_a_run_whose_episodes_all_fail_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    crashing(monkeypatch, lambda _: True)
    said = refused(f"{line(tmp_path / 'run')} --json", capsys, monkeypatch)
    assert "sample-held_out: 5 of 8 failed" in said
    assert "the page crashed" in said
    assert "Mend that and run the same command again" in said
    # Nothing was left out: the same command tries all of them again.
    assert not [*(tmp_path / "run").glob("stages/*")]
