"""A head with exits: how likely each is, the loss over them, the score at the one that is taken, and its checkpoint."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.running import invoke
from tests.train.toy import toy_labels, toy_model

import stepreward
from stepreward.core.catalog import loss as family
from stepreward.core.errors import InputError, ModelError
from stepreward.core.runtime.flows import Score
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.exit_head import ExitHead, exit_layers
from stepreward.score.model.heads import build_head, head_state
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.objectives.early_exit import exit_formula, exit_names, geometric, log_exits
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train

NAN = float("nan")


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def value(outputs: list[float], label: float, **settings: Any) -> float:
    data = {
        "outputs": torch.tensor([[outputs]], dtype=torch.float64), "labels": torch.tensor([[label]]),
        "mask": torch.ones(1, 1, dtype=torch.bool),
    }  # fmt: skip
    return float(family["palbert"].take(data, exits=len(outputs) // 2, **settings))


def test_numbers_by_hand() -> None:
    """Leaving 0.2, 0.5: p = 0.2, 0.4, 0.4. Probabilities 0.9, 0.6, 0.7 of a right step; a prior of rate 1/2."""
    leave = torch.tensor([0.2, 0.5, 0.9]).double()
    torch.testing.assert_close(log_exits(torch.logit(leave)).exp(), torch.tensor([0.2, 0.4, 0.4]).double())
    assert geometric(3, 0.5) == [0.5, 0.25, 0.25]
    assert geometric(1, 0.3) == [1.0]
    outputs = [logit(0.9), logit(0.6), logit(0.7), logit(0.2), logit(0.5), logit(0.9)]
    fitted = -(0.2 * math.log(0.9) + 0.4 * math.log(0.6) + 0.4 * math.log(0.7))
    assert value(outputs, 1.0, kl=0.0) == pytest.approx(fitted)
    divergence = 0.5 * math.log(0.5 / 0.2) + 2 * 0.25 * math.log(0.25 / 0.4)
    assert value(outputs, 1.0, kl=2.0, rate=0.5) == pytest.approx(fitted + 2 * divergence)
    squared = 0.2 * 0.01 + 0.4 * 0.16 + 0.4 * 0.09
    assert value(outputs, 1.0, kl=0.0, fit="mse") == pytest.approx(squared)
    # The quantile is where the score is read, not what is trained.
    assert value(outputs, 1.0, quantile=0.9) == value(outputs, 1.0, quantile=0.1)
    for wrong in ({"rate": 0.0}, {"rate": 1.0}, {"quantile": 1.0}, {"kl": -1.0}):
        with pytest.raises(ValueError, match="rate and quantile are in"):
            value(outputs, 1.0, **wrong)


def test_the_divergence_is_none_for_the_prior_itself() -> None:
    rate = 0.3
    outputs = [0.0] * 4 + [logit(rate)] * 4
    assert value(outputs, 1.0, kl=5.0, rate=rate) == pytest.approx(math.log(2))


def test_one_exit_or_a_sure_one_is_the_plain_loss() -> None:
    plain = math.log1p(math.exp(-0.7))
    assert value([0.7, 3.0], 1.0) == pytest.approx(plain)
    assert value([9.0, -9.0, 0.7, -200.0, -200.0, 0.0], 1.0, kl=0.0) == pytest.approx(plain)
    assert value([0.7, 9.0, -9.0, 200.0, 0.0, 0.0], 1.0, kl=0.0) == pytest.approx(plain)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=6))
def test_exits_are_a_distribution_and_its_sums_are_what_was_not_stayed(leave: list[float]) -> None:
    made = log_exits(torch.tensor(leave, dtype=torch.float64)).exp().numpy()
    stayed = 1.0
    for k, x in enumerate(leave):
        here = 1 / (1 + math.exp(-x)) if k < len(leave) - 1 else 1.0
        assert made[k] == pytest.approx(stayed * here, abs=1e-12)
        stayed *= 1 - here
    assert made.sum() == pytest.approx(1)


@given(st.integers(1, 5), st.integers(0, 10**6), st.sampled_from([0.2, 0.5, 0.8]))
def test_the_score_is_that_of_the_first_exit_past_the_quantile(exits: int, seed: int, quantile: float) -> None:
    outputs = np.random.default_rng(seed).normal(size=(7, 2 * exits)) * 2
    readout = Readout(
        n_labels=2 * exits, positive=exits - 1, exits=exits, names=exit_names(exits),
        formula=exit_formula(exits, quantile),
    )  # fmt: skip
    found, depth = readout.scores(outputs), readout.with_formula("depth").scores(outputs)
    for row, score, share in zip(1 / (1 + np.exp(-outputs)), found, depth, strict=True):
        left = 0.0
        for k in range(exits):
            left += (1 - left) * row[exits + k]
            if left > quantile or k == exits - 1:
                assert score == pytest.approx(row[k])
                assert share == pytest.approx((k + 1) / exits)
                break


def test_exits_are_at_equal_shares_of_the_layers() -> None:
    assert exit_layers(12, 4) == [3, 6, 9, 12]
    assert exit_layers(7, 3) == [2, 5, 7]
    assert exit_layers(5, 5) == [1, 2, 3, 4, 5]
    with pytest.raises(ModelError, match=r"a backbone of 2 layers has no 4 exits: take fewer \(--set exits=2\)"):
        toy_model(record=settings(4).loss().record(PerStep()))


def settings(exits: int = 2, **more: Any) -> TrainSettings:
    own = {"exits": exits, **more.pop("objective_settings", {})}
    return TrainSettings(objective="palbert", objective_settings=own, evaluations=1, **more)


def test_each_exit_reads_its_own_layer() -> None:
    """The outputs against the layers of the backbone, one at a time, and the network of leaving written out."""
    model = toy_model(record=settings().loss().record(PerStep())).eval()
    head = model.head
    assert isinstance(head, ExitHead)
    ids = torch.tensor([model.encoder.plain("good fine bad")])
    with torch.no_grad():
        states = model.backbone(ids, output_hidden_states=True).hidden_states
        found = model.forward_padded(ids, torch.tensor([ids.shape[1]]), torch.tensor([0]), torch.tensor([2]))[0]
        assert len(states) == 3
        h = [one[0, 2] / (one[0, 2].square().mean() + 1e-6).sqrt() for one in states[1:]]
        for k in range(2):
            expected = h[k] @ head.value.weight[k] + head.value.bias[k]
            assert float(found[k]) == pytest.approx(float(expected), abs=1e-5)
            x = torch.cat([h[k], h[k - 1] if k else torch.zeros(32)])
            for layer in (0, 2, 4):
                x = torch.tanh(x @ head.leave[layer].weight.T + head.leave[layer].bias)  # type: ignore[operator, union-attr]
            x = x @ head.leave[6].weight.T + head.leave[6].bias  # type: ignore[operator, union-attr]
            assert float(found[2 + k]) == pytest.approx(float(x), abs=1e-5)


def test_a_model_with_exits_learns_and_says_how_deep_it_went(tmp_path: Path) -> None:
    chosen = settings(epochs=8, learning_rate=3e-3, batch_tokens=1024, row_tokens=256)
    objective = chosen.loss()
    model = toy_model(record=objective.record(PerStep()))
    trees = labelled_trees(toy_labels(12, 0), objective)
    result = train(trees, model, tmp_path, chosen, held_out=trees)
    assert result.metrics["auroc"] > 0.8
    scorer = stepreward.load(tmp_path, also={"depth": "depth", "first": "at1", "last": "at2", "leaves": "leave1"})
    growing = stepreward.load(tmp_path, cache_bytes=1 << 30)
    depths = set()
    for row in toy_labels(3, 5):
        (whole,) = scorer.score_many([Score(row.problem, row.steps)])
        columns = whole.columns
        expected = np.where(columns["leaves"] > 0.5, columns["first"], columns["last"])
        np.testing.assert_allclose(whole.scores, expected, atol=1e-6)
        np.testing.assert_array_equal(columns["depth"], np.where(columns["leaves"] > 0.5, 0.5, 1.0))
        depths |= {*columns["depth"].tolist()}
        for s in range(len(row)):
            (part,) = growing.score_many([Score(row.problem, row.steps[: s + 1])])
            np.testing.assert_allclose(part.scores, whole.scores[: s + 1], atol=1e-5)
    assert depths <= {0.5, 1.0}


def test_the_checkpoint_has_the_head_of_its_record() -> None:
    head = ExitHead(6, 3, seed=1)
    record = EncoderRecord(readout=Readout(n_labels=6, exits=3))
    again = build_head(head_state(head), record)
    x = torch.randn(4, 18)
    torch.testing.assert_close(again(x), head(x))
    # The size of hidden states does not matter, nor does their dtype.
    torch.testing.assert_close(head(50 * x), head(x), atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match="the head has 3 exits, the record says exits=2"):
        build_head(head_state(head), EncoderRecord(readout=Readout(n_labels=4, exits=2)))
    with pytest.raises(ModelError, match="has weights of values and of leaving, got bias, weight"):
        build_head({"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}, record)
    with pytest.raises(ModelError, match="has other weights"):
        build_head({"value.weight": torch.zeros(3, 6)}, record)
    for wrong in ({"n_labels": 3}, {"kind": "value"}, {"surprise": True}):
        with pytest.raises(ValueError, match="exits have two probabilities each"):
            Readout(**{"n_labels": 4, "exits": 2, **wrong})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="drop one of the two"):
        settings().loss().record(PerStep(), both_ways=True)


def test_from_the_command_line(tmp_path: Path) -> None:
    rows, found = tmp_path / "rows.parquet", tmp_path / "scored.parquet"
    stepreward.write(rows, toy_labels(5, 0))
    more = "--objective palbert --set exits=2 --set quantile=0.4 --epochs 1 --held-out 0 --backbone scratch"
    invoke(f"train --data {rows} --out {tmp_path / 'model'} {more}")
    invoke(f"score --data {rows} --model {tmp_path / 'model'} --also depth=depth --out {found}")
    for row in stepreward.read(found):
        assert {*row.column("score:depth").tolist()} <= {0.5, 1.0}
    assert "left1 = above(1 - stay1, 0.4)" in (tmp_path / "model" / "stepreward.json").read_text()
    said = invoke(f"train --data {rows} --out {tmp_path / 'x'} {more} --dry-run")
    assert "largest batch" in said
    assert replace(settings(), epochs=1.0).loss().n_outputs == 4
