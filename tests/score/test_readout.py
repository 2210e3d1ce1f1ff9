"""One readout: the local model, served outputs, token outputs and training give the numbers of the closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.score.models import model

from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.encode.readout import Readout
from stepreward.score.remote.head_outputs import HeadReader, are_probabilities
from stepreward.score.remote.token_outputs import TokenOutputs

ROWS = [[0.3, -1.2, 2.5], [-40.0, 3.0, 0.5], [700.0, -700.0, 0.0], [0.0, 0.0, 0.0]]
"""Head outputs; one row far beyond where float32 has an exponential."""


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def shares(row: list[float]) -> list[float]:
    top = max(row)
    total = sum(math.exp(z - top) for z in row)
    return [math.exp(z - top) / total for z in row]


CLOSED: dict[str, tuple[EncoderRecord, Any]] = {
    "sigmoid": (
        EncoderRecord(readout=Readout(n_labels=3, positive=1)),
        lambda row: sigmoid(row[1]),
    ),
    "value": (
        EncoderRecord(readout=Readout("value", n_labels=3, positive=2)),
        lambda row: row[2],
    ),
    "tanh": (
        EncoderRecord(readout=Readout("tanh", n_labels=3)),
        lambda row: math.tanh(row[0]),
    ),
    "softmax": (
        EncoderRecord(readout=Readout("softmax", n_labels=3, positive=2)),
        lambda row: shares(row)[2],
    ),
    "two right": (
        EncoderRecord(readout=Readout("softmax", n_labels=3, positive=2, also=(1,))),
        lambda row: shares(row)[2] + shares(row)[1],
    ),
    "difference": (
        EncoderRecord(readout=Readout("difference", n_labels=3)),
        lambda row: 2 * shares(row)[0] - 1,
    ),
    "mean-sigmoid": (
        EncoderRecord(readout=Readout("mean-sigmoid", n_labels=3)),
        lambda row: sum(map(sigmoid, row)) / 3,
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_every_path_from_outputs_to_scores_is_the_closed_form(name: str) -> None:
    record, closed = CLOSED[name]
    expected = np.array([closed(row) for row in ROWS])
    rows = np.array(ROWS)
    reward = model(record=record)
    question = Score(Problem("p", "What is 12 + 5?"), tuple(Step(f"step {i}\n") for i in range(len(ROWS))))

    def served(outputs: np.ndarray, activated: bool | None) -> np.ndarray:
        (answer,) = HeadReader(reward.encoder).score_many([question], lambda asked: [(outputs, activated, 1)])
        return answer.scores

    np.testing.assert_allclose(record.readout.scores(rows), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        record.readout.scores(torch.tensor(ROWS, dtype=torch.float64)).numpy(), expected, rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(served(rows, False), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(served(rows, None), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(reward.scores(torch.tensor(ROWS)).numpy(), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(TokenOutputs(reward).scores(rows), expected, rtol=1e-6, atol=1e-7)
    if name != "mean-sigmoid":
        logits = {"numpy": record.readout.step_logits(rows), "training": reward.step_logits(torch.tensor(ROWS)).numpy()}
        for made in logits.values():
            p = np.array([sigmoid(float(z)) for z in made])
            found = {"value": made, "tanh": 2 * p - 1, "difference": 2 * p - 1}.get(name, p)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CLOSED)
def test_probabilities_of_a_server_are_not_activated_twice(name: str) -> None:
    record, closed = CLOSED[name]
    rows = [row for row in ROWS if max(map(abs, row)) < 30]
    expected = [closed(row) for row in rows]
    many = name in ("softmax", "two right", "difference")
    given = np.array([shares(row) if many else [sigmoid(z) for z in row] for row in rows])
    np.testing.assert_allclose(record.readout.scores(given, activated=True), expected, rtol=1e-9, atol=1e-12)
    assert are_probabilities(given) is many


def test_activated_outputs_are_the_softmax_of_labels_or_the_sigmoid_of_one() -> None:
    several = TokenOutputs(model(record=CLOSED["softmax"][0]))
    np.testing.assert_allclose(several.activated(np.array(ROWS)), [shares(row) for row in ROWS], rtol=1e-12)
    one = np.array(ROWS)[:, :1]
    np.testing.assert_allclose(
        TokenOutputs(model()).activated(one), [[sigmoid(z)] for (z,) in one.tolist()], rtol=1e-12
    )
