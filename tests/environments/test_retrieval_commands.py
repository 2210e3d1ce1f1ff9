"""Retrieval on the command line: problems, labels by rollouts of a chat model with tools, and exact labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

import stepreward
from stepreward.core.types import Trajectory
from stepreward.formats.problems import read_problems
from tests.cli.running import invoke
from tests.environments.seeking import seeking

pytest.importorskip("bm25s")


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Trajectory], list[Trajectory]]:
    """Labels by four rollouts a step of a seeker behind a chat interface, and exact ones of the same episodes."""
    folder = tmp_path_factory.mktemp("retrieval")
    tasks = folder / "tasks.jsonl"
    told = json.loads(invoke(f"generate retrieval --n 5 --out {tasks} --set tools=true --set most=2 --json"))
    assert told["problems"] == 5
    with seeking([*read_problems(tasks)], stray=0.3, guess=0.2) as url:
        command = f"label --problems {tasks} --environment retrieval?turns=6 --policy {url}#seeker --samples 3"
        invoke(f"{command} --estimator math-shepherd --rollouts 4 --transform soft --out {folder / 'rolled'} --json")
    rolled = folder / "rolled" / "labels.parquet"
    invoke(f"label --data {rolled} --estimator checker --set checker=retrieval --out {folder / 'exact.parquet'} --json")
    return [*stepreward.read(rolled)], [*stepreward.read(folder / "exact.parquet")]


def test_episodes_of_a_chat_model_are_labelled(labels: tuple[list[Trajectory], list[Trajectory]]) -> None:
    rolled, exact = labels
    assert len(rolled) == len(exact) > 5
    assert {one.outcome for one in rolled} == {0.0, 1.0}
    for one in rolled:
        roles = [step.role for step in one.steps]
        assert roles == ["user", "assistant", *["tool", "assistant"] * (len(roles) // 2 - 1)]
        assert not np.isnan(one.labels[one.action]).any()


def test_exact_labels_agree_with_what_is_known_of_the_ends(
    labels: tuple[list[Trajectory], list[Trajectory]],
) -> None:
    """An episode without a wrong step is won, in as few turns as there are; a guess is its last step, and wrong."""
    for rolled, exact in zip(*labels, strict=True):
        said = exact.labels[exact.action]
        assert not np.isnan(said).any(), "a seeker never answers right without evidence"
        left = exact.steps[0].meta["left"]
        if said.all():
            assert (exact.outcome, len(said)) == (1.0, left)
        if exact.outcome == 1.0:
            assert said.sum() == left
            assert said[-1] == 1
        assert rolled.outcome == exact.outcome
