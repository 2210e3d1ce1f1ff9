"""Weights of domains: the published formulas, their gradient, and what they learn of a domain with wrong labels."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.cli.running import invoke, refused
from tests.train.toy import toy_labels, toy_model

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.types import Trajectory
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_batch import TrainingBatch
from stepreward.train.data.training_set import make_batches
from stepreward.train.domain_weights import DomainWeights, outer_weights
from stepreward.train.objective import Objective
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train
from stepreward.train.training_progress import EverySomeSteps
from stepreward.train.training_result import TrainResult

QUICK = TrainSettings(objective="mse", epochs=1, learning_rate=3e-3, batch_tokens=256, row_tokens=128, evaluations=1)
OUTER = Objective.of("outcome-of-steps")


def of(name: str, rows: list[Trajectory], *, flipped: bool = False) -> list[Trajectory]:
    return [
        replace(row.with_columns({"label": 1 - row.column("label")}) if flipped else row, facts={"domain": name})
        for row in rows
    ]


ROWS = [*of("a", toy_labels(6, 0)), *of("b", toy_labels(6, 1), flipped=True), *of("c", toy_labels(6, 2))]


def one_batch(rows: list[Trajectory], objective: Objective, model: StepRewardModel) -> TrainingBatch:
    trees = labelled_trees(rows, objective)
    (batch,) = make_batches(trees, model.encoder, objective, row_tokens=256, batch_tokens=100_000)
    return batch


def test_the_weights_of_the_published_table() -> None:
    """a = (0, 1): softplus 0.6931 and 1.3133, whose mean is 1.0032."""
    made = outer_weights(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert made.tolist() == pytest.approx([0.6909, 1.3091], abs=1e-4)
    assert made.mean().item() == pytest.approx(1)
    start = DomainWeights(["a", "b", "c"], {"a": 2.0, "b": 3.0}, 0.0)
    assert start.weights == pytest.approx({"a": 1.0, "b": 1.5, "c": 0.5})


def test_weighted_parts_add_up_to_a_sum_by_hand() -> None:
    model, objective = toy_model(), Objective.of("mse")
    batch = one_batch(ROWS, objective, model)
    outputs = model(batch.packed)
    plain = objective(model, outputs, batch)
    ones = DomainWeights(["a", "b", "c"], {}, 0.0).loss(objective, model, outputs, batch)
    assert float(ones) == pytest.approx(float(plain), rel=1e-6)
    torch.testing.assert_close(ones.counts, plain.counts)
    weights = {"a": 0.5, "b": 1.0, "c": 1.5}
    made = DomainWeights(["a", "b", "c"], weights, 0.0).loss(objective, model, outputs, batch)
    scores = batch.gather(model.step_logits(outputs)).sigmoid().detach().numpy()
    labels, mask = batch.data["labels"].numpy(), batch.mask.numpy()
    w = np.array([weights[name] for name in batch.domains])[:, None]
    assert float(made) == pytest.approx((w * (scores - labels) ** 2)[mask].mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["bradley-terry", "listwise", "siblings", "step-and-trajectory", "ensemble"])
def test_parts_of_domains_add_up_for_every_kind_of_data(name: str) -> None:
    objective = Objective.of(name) if name != "step-and-trajectory" else TrainSettings(objective=name).loss()
    model = toy_model(record=objective.record(toy_model().record.encoding))
    rows = [replace(row, facts={**row.facts, "log_weight": float(i)}) for i, row in enumerate(ROWS)]
    batch = one_batch(rows, objective, model)
    outputs = model(batch.packed)
    made = DomainWeights(["a", "b", "c"], {}, 0.0).loss(objective, model, outputs, batch)
    assert float(made) == pytest.approx(float(objective(model, outputs, batch)), rel=1e-5)


def gradient(model: StepRewardModel, objective: Objective, batch: TrainingBatch) -> torch.Tensor:
    loss = objective(model, model(batch.packed), batch).value
    grads = torch.autograd.grad(loss, [*model.parameters()])
    return torch.cat([g.flatten() for g in grads]).double()


def test_a_weight_moves_with_the_agreement_of_gradients() -> None:
    """dM / dw_d = -<dM / dtheta, dL_d / dtheta>, by gradients of each domain alone; the model does not change."""
    model, objective = toy_model().double(), Objective.of("mse")
    batch, meta = one_batch(ROWS, objective, model), one_batch(of("", toy_labels(5, 9)), OUTER, model)
    before = [p.detach().clone() for p in model.parameters()]
    counts = objective.counts(batch)
    weights = DomainWeights(["a", "b", "c"], {}, 0.01)
    raw = weights.raw.detach().clone().requires_grad_()
    toward = gradient(model, OUTER, meta)
    slopes = []
    for name in weights.names:
        mine = batch.only(torch.tensor([one == name for one in batch.domains]))
        share = objective.counts(mine) / counts
        slopes.append(-toward @ gradient(model, objective, mine) * share[0])
    outer_weights(raw).backward(torch.stack(slopes).detach())
    outer = weights.learn(objective, model, [batch], counts, (OUTER, meta))
    assert outer == pytest.approx(float(OUTER(model, model(meta.packed), meta)), rel=1e-6)
    assert weights.raw.grad is not None
    assert raw.grad is not None
    # The published reach of 0.01 bends the difference by a few percent.
    torch.testing.assert_close(weights.raw.grad, raw.grad, rtol=0.05, atol=1e-7)
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)
    # The first step of Adam has the size of its rate; without a gradient nothing moves.
    assert (weights.raw - raw).abs().detach().numpy() == pytest.approx(0.01, abs=1e-3)


def learned(model: StepRewardModel, rate: float = 0.01, **given: Any) -> tuple[DomainWeights, float]:
    """Weights after one step of theirs, and the outer loss."""
    objective = Objective.of("mse")
    batch, meta = one_batch(ROWS, objective, model), one_batch(of("", toy_labels(5, 9)), OUTER, model)
    weights = DomainWeights(["a", "b", "c"], {}, rate)
    counts = objective.counts(batch)
    return weights, weights.learn(objective, model, [batch], counts, (OUTER, given.pop("meta", meta)), **given)


def test_the_first_step_is_that_of_adam_with_its_published_decay() -> None:
    """a (1 - rate 0.001) - rate g / (|g| + 1e-8), from the a of weight 1, log(e - 1)."""
    weights, _ = learned(toy_model().double(), rate=0.5)
    g, start = weights.raw.grad, math.log(math.e - 1)
    assert g is not None
    torch.testing.assert_close(weights.raw.detach(), start * (1 - 0.5e-3) - 0.5 * g / (g.abs() + 1e-8))


def test_dropout_has_no_part_in_a_step_of_the_weights() -> None:
    plain, noisy = toy_model().double(), toy_model().double()
    noisy.head = torch.nn.Sequential(torch.nn.Dropout(0.9), noisy.head)
    for model, training in ((noisy, True), (plain, False)):
        model.train(training)
    (one, loss), (other, expected) = learned(noisy), learned(plain)
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(one.raw.grad, other.raw.grad)
    assert noisy.training
    assert not plain.training


def test_losses_are_those_of_all_processes() -> None:
    (alone, _), (two, _) = learned(toy_model()), learned(toy_model(), reduced=lambda losses: 2 * losses)
    assert alone.raw.grad is not None
    torch.testing.assert_close(two.raw.grad, 2 * alone.raw.grad)


def test_nothing_moves_where_meta_data_teach_nothing() -> None:
    model = toy_model()
    meta = one_batch(of("", toy_labels(5, 9)), OUTER, model).unsupervised()
    weights, loss = learned(model, meta=meta)
    assert loss == 0
    assert weights.weights == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_weights_learn_after_every_so_many_steps() -> None:
    numbers: list[int] = []
    callback = EverySomeSteps(3, numbers.append)
    counts = []
    for step in range(1, 8):
        callback.on_step_end(None, SimpleNamespace(global_step=step), None)
        counts.append(len(numbers))
    assert counts == [0, 0, 1, 1, 1, 2, 2]
    assert numbers == [0, 1]


def run(folder: Path, seed: int = 0, **changed: Any) -> tuple[TrainResult, StepRewardModel]:
    model = toy_model(seed)
    settings = replace(QUICK, seed=seed, **changed)
    outer = settings.domain_loss()
    meta = labelled_trees(of("", toy_labels(20, 50 + seed)), outer) if settings.domain_rate else ()
    rows = [*of("a", toy_labels(20, 3 * seed)), *of("b", toy_labels(20, 3 * seed + 1), flipped=True)]
    rows += of("c", toy_labels(20, 3 * seed + 2))
    return train(labelled_trees(rows), model, folder, settings, meta=meta), model


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_domain_with_flipped_labels_loses_weight(seed: int, tmp_path: Path) -> None:
    """Meta data with right steps; outcomes alone say too little in so few steps."""
    result, _ = run(
        tmp_path, seed, objective="dream-prm", domain_objective="mse", domain_rate=0.05, domain_every=1, epochs=16,
        batch_tokens=1024, row_tokens=256, learning_rate=1e-2,
    )  # fmt: skip
    weights = {name: one["weight"] for name, one in result.domains.items()}
    assert np.mean([*weights.values()]) == pytest.approx(1)
    assert weights["b"] < 0.8 * min(weights["a"], weights["c"])
    saved = json.loads((tmp_path / "training.json").read_text())
    assert saved["domains"]["b"]["weight"] == weights["b"]
    course = [row["weight_b"] for row in saved["history"] if "loss" in row]
    assert course[0] > course[-1] == weights["b"]


def test_weights_that_do_not_learn_are_plain_weighted_training(tmp_path: Path) -> None:
    """With all weights 1 that is training without any; with others, the gradient of each domain is scaled."""
    _, plain = run(tmp_path / "plain")
    _, ones = run(tmp_path / "ones", domain_weights={"a": 2.0, "b": 2.0, "c": 2.0})
    for one, other in zip(plain.parameters(), ones.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-4)
    _, scaled = run(tmp_path / "scaled", domain_weights={"b": 1e-6})
    rows = [*of("a", toy_labels(20, 0)), *of("c", toy_labels(20, 2))]
    alone = [scaled, plain]
    losses = [float(Objective.of("mse")(m, m(b.packed), b)) for m in alone for b in [one_batch(rows, OUTER, m)]]
    assert losses[0] < losses[1], "what has no weight does no harm"


def test_the_outer_objective_may_read_features_that_the_training_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, wanted, learn = [], [], DomainWeights.learn

    def noted(self: DomainWeights, objective: Objective, model: StepRewardModel, *args: Any) -> float:
        criterion, batch = args[2]
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(model, "with_features", True)
            wanted.append(float(criterion(model, model(batch.packed), batch)))
        measured.append(learn(self, objective, model, *args))
        return measured[-1]

    monkeypatch.setattr(DomainWeights, "learn", noted)
    settings = replace(QUICK, epochs=0.1, domain_rate=0.01, domain_every=1, domain_objective="beer")
    rows = [row.with_columns({"reward": np.zeros(len(row))}) for row in of("", toy_labels(3, 5))]
    meta = labelled_trees(rows, settings.domain_loss())
    train(labelled_trees(ROWS, settings.loss()), toy_model(), tmp_path / "model", settings, meta=meta)
    assert measured
    assert measured == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["kto", "contrastive-preference"])
def test_a_loss_of_all_problems_together_is_not_weighed_by_domain(name: str, tmp_path: Path) -> None:
    settings = replace(QUICK, objective=name, domain_weights={"a": 2.0})
    objective = settings.loss()
    model = toy_model(record=objective.record(toy_model().record.encoding))
    with pytest.raises(InputError, match="compares solutions of all problems in a batch"):
        train(labelled_trees(ROWS, objective), model, tmp_path / "model", settings)


def test_a_resumed_training_has_the_same_weights(tmp_path: Path) -> None:
    model, objective = toy_model(), Objective.of("mse")
    batch, meta = one_batch(ROWS, objective, model), one_batch(of("", toy_labels(5, 9)), OUTER, model)
    counts = objective.counts(batch)
    whole = DomainWeights(["a", "b", "c"], {}, 0.05)
    whole.learn(objective, model, [batch], counts, (OUTER, meta))
    again = DomainWeights(["a", "b", "c"], {}, 0.05)
    again.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    for one in (whole, again):
        one.learn(objective, model, [batch], counts, (OUTER, meta))
    assert whole.weights == again.weights
    fresh = DomainWeights(["a", "b", "c"], {}, 0.05)
    fresh.load_state_dict(json.loads(json.dumps(DomainWeights(["a", "b", "c"], {}, 0.05).state_dict())))
    assert fresh.weights == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_what_is_missing_or_superfluous_is_named(tmp_path: Path) -> None:
    trees, meta = labelled_trees(ROWS), labelled_trees(ROWS, OUTER)
    for settings, given, why in (
        (replace(QUICK, objective="dream-prm"), (), "learned from graded solutions in meta, at a domain_rate"),
        (replace(QUICK, domain_rate=0.1), (), "learned from graded solutions in meta, at a domain_rate"),
        (QUICK, meta, "nothing is learned from meta"),
        (replace(QUICK, domain_weights={"x": 1.0}), (), "the data has no domain 'x'; its domains are 'a', 'b', 'c'"),
    ):
        with pytest.raises(InputError, match=why):
            train(trees, toy_model(), tmp_path, settings, meta=given)
    with pytest.raises(ValueError, match="weights of domains must be positive"):
        replace(QUICK, domain_weights={"x": 0.0})


def test_the_command_reads_meta_data_and_prints_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rows in (("a", ROWS[:24]), ("b", ROWS[24:48])):
        stepreward.write(tmp_path / f"{name}.parquet", [replace(row, facts={}) for row in rows])
    stepreward.write(tmp_path / "meta.parquet", toy_labels(4, 77))
    line = f"train --data {tmp_path}/a.parquet --data {tmp_path}/b.parquet --meta {tmp_path}/meta.parquet"
    line += f" --backbone scratch --objective dream-prm --epochs 1 --held-out 0 --out {tmp_path}/out"
    assert "pass both" in refused(line, capsys, monkeypatch)
    assert "--domain-weight expects name=weight" in refused(f"{line} --domain-weight a", capsys, monkeypatch)
    said = invoke(f"{line} --domain-rate 0.1 --domain-every 1 --domain-weight a=3 --batch-tokens 128 --json")
    weights = {name: one["weight"] for name, one in json.loads(said)["domains"].items()}
    assert sum(weights.values()) == pytest.approx(2)
    assert weights["a"] == pytest.approx(1.5, abs=0.4)


def test_the_loss_on_the_meta_data_has_hyper_parameters_of_its_own(tmp_path: Path) -> None:
    stepreward.write(tmp_path / "rows.parquet", [*of("a", toy_labels(4, 0)), *of("b", toy_labels(4, 1))])
    stepreward.write(tmp_path / "meta.parquet", toy_labels(3, 2))
    line = (
        f"train --data {tmp_path / 'rows.parquet'} --backbone scratch --epochs 1 --held-out 0 --out {tmp_path / 'out'}"
    )
    meta = f"--meta {tmp_path / 'meta.parquet'} --domain-rate 0.01"
    invoke(f"{line} {meta} --set fit=bce --set positive_weight=2 --json")
    kept = json.loads((tmp_path / "out" / "training.json").read_text())["settings"]
    assert (kept["objective_settings"], kept["domain_settings"]) == ({"positive_weight": 2.0}, {"fit": "bce"})
    # The same loss inside and outside has the same ones; where both are others, a shared name says whose it is.
    invoke(f"{line} {meta} --domain-objective bce --set positive_weight=2 --overwrite")
    kept = json.loads((tmp_path / "out" / "training.json").read_text())["settings"]
    assert kept["domain_settings"] == kept["objective_settings"] == {"positive_weight": 2.0}
    invoke(f"{line} {meta} --domain-objective mse --set mse.per=trajectory --overwrite")
    assert json.loads((tmp_path / "out" / "training.json").read_text())["settings"]["objective_settings"] == {}
    model, batch = toy_model(), one_batch(toy_labels(3, 2), OUTER, toy_model())
    outer = [replace(QUICK, domain_settings=one).domain_loss() for one in ({}, {"fit": "bce"})]
    mse, bce = (float(one(model, model(batch.packed), batch)) for one in outer)
    assert bce > mse, "a squared error of probabilities is below 1, and below its cross-entropy"
