"""Losses of steps against slow loops from the papers and numbers worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.toy import toy_labels, toy_model

from stepreward.core.errors import InputError
from stepreward.core.method import Method
from stepreward.score.encode.record import PerStep
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import make_batches
from stepreward.train.objective import Objective
from stepreward.train.objectives.loss import at_end
from stepreward.train.objectives.pointwise import binary_cross_entropy, columns, squared_error
from stepreward.train.objectives.ranking import rank_steps
from stepreward.train.objectives.reading import OutputReading
from stepreward.train.objectives.temporal import temporal_difference
from stepreward.train.settings import TrainSettings

NAN = float("nan")


def draw(seed: int, rows: int = 4, width: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, rows)
    mask = torch.tensor(np.arange(width) < lengths[:, None])
    labels = torch.tensor(np.where(rng.random((rows, width)) < 0.15, NAN, rng.integers(0, 2, (rows, width))))
    return torch.tensor(rng.normal(size=(rows, width)) * 2), labels, mask


def slow_pqm(z: list[float], y: list[float], zeta: float) -> float:
    """The paper's sums, in its order: right steps so far over themselves plus every wrong step."""
    right = [t for t in range(len(z)) if y[t] > 0.5]
    wrong = [t for t in range(len(z)) if y[t] <= 0.5]
    errors = sum(math.exp(z[w] + zeta) for w in wrong)
    start = 1.0 if wrong else 0.0
    terms = [-math.log(1.0 / (1.0 + errors))] if wrong else []
    terms += [
        -math.log(math.exp(z[t]) / (start + sum(math.exp(z[q]) for q in right if q <= t) + errors)) for t in right
    ]
    return sum(terms) / len(terms)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 4.0]))
def test_pqm_equals_the_papers_sums(seed: int, zeta: float) -> None:
    z, y, mask = draw(seed)
    rows = []
    for r in range(len(z)):
        real = [t for t in range(z.shape[1]) if mask[r, t] and not y[r, t].isnan()]
        if real:
            rows.append(slow_pqm([float(z[r, t]) for t in real], [float(y[r, t]) for t in real], zeta))
    assert float(rank_steps(z, y, mask, zeta=zeta)) == pytest.approx(np.mean(rows) if rows else 0.0)


def test_hand_worked_numbers() -> None:
    """One right step at logit 0 and one wrong at log 3: -log 1/2 and -log 1/4; squares 1/4 and 9/16."""
    z, y = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert float(binary_cross_entropy(z, y, mask)) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert float(binary_cross_entropy(z, y, mask, positive_weight=3)) == pytest.approx(
        (3 * math.log(2) + math.log(4)) / 2
    )
    assert float(squared_error(z, y, mask)) == pytest.approx((0.25 + 0.5625) / 2)
    # Virtual start: log(1 + 3 e^4); the right step: log(1 + 1 + 3 e^4).
    expected = (math.log(1 + 3 * math.exp(4)) + math.log(2 + 3 * math.exp(4))) / 2
    assert float(rank_steps(z, y, mask)) == pytest.approx(expected, rel=1e-5)


def test_a_mean_over_trajectories_weighs_short_ones_more() -> None:
    """Terms log 2 and log 2 in one row, log 4 alone in the other: (2 log 2 + log 4) / 3 against (log 2 + log 4) / 2."""
    z = torch.tensor([[0.0, 0.0], [math.log(3), 5.0]])
    y, mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[True, True], [True, False]])
    assert float(binary_cross_entropy(z, y, mask)) == pytest.approx(4 * math.log(2) / 3)
    assert float(binary_cross_entropy(z, y, mask, per="trajectory")) == pytest.approx(1.5 * math.log(2))
    assert float(squared_error(z, y, mask)) == pytest.approx((0.25 + 0.25 + 0.5625) / 3)
    assert float(squared_error(z, y, mask, per="trajectory")) == pytest.approx((0.25 + 0.5625) / 2)


def test_settings_out_of_range_are_named() -> None:
    z, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="positive_weight must be positive, got 0"):
        binary_cross_entropy(z, z, mask, positive_weight=0)
    with pytest.raises(ValueError, match="'trajectory' or 'trajectory-sum', got 'row'"):
        squared_error(z, z, mask, per="row")  # type: ignore[arg-type]


def test_pqm_orders_right_steps_and_the_margin_matters() -> None:
    mask, y = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[1.0, 1.0, 0.0]])
    rising, falling = torch.tensor([[1.0, 2.0, -9.0]]), torch.tensor([[2.0, 1.0, -9.0]])
    assert float(rank_steps(rising, y, mask)) < float(rank_steps(falling, y, mask))
    assert float(rank_steps(rising, y, mask, zeta=0.0)) < float(rank_steps(rising, y, mask, zeta=8.0))


def test_pqm_takes_a_label_of_one_half_for_wrong() -> None:
    z, mask = torch.tensor([[0.3, -0.4]]), torch.ones(1, 2, dtype=torch.bool)
    half, zero = (float(rank_steps(z, torch.tensor([[1.0, y]]), mask)) for y in (0.5, 0.0))
    assert half == zero


def test_soft_labels_are_minimised_at_themselves() -> None:
    z = torch.tensor([[math.log(0.3 / 0.7)]], requires_grad=True)
    binary_cross_entropy(z, torch.tensor([[0.3]]), torch.ones(1, 1, dtype=torch.bool)).value.backward()
    assert z.grad is not None
    assert float(z.grad) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("outcome", "last"),
        ("bradley-terry", "last"),
        ("listwise", "last"),
        ("spa", "sum"),
        ("rrd", "sum"),
        ("bce", "min"),
        ("step-and-trajectory", "min"),
    ],
)
def test_a_solution_has_the_number_that_was_trained(name: str, how: str) -> None:
    assert Objective.of(name).record(PerStep()).aggregation == how


@pytest.mark.parametrize("name", ["beer", "contrastive-preference"])
def test_objectives_of_features_train_rewards_of_one_direction(name: str) -> None:
    assert Objective.of(name).readout().kind == "value"
    with pytest.raises(InputError, match="reads each step behind its prefix"):
        Objective.of(name).record(PerStep(), both_ways=True)
    with pytest.raises(InputError, match="a log-ratio is one number"):
        Objective(Objective.of(name).method, reference="some/model")


def test_which_outputs_can_begin_as_one_score() -> None:
    for name in ("bce", "outcome", "bradley-terry", "quantile", "ensemble", "step-and-trajectory"):
        assert TrainSettings(objective=name).loss().outputs_are_alike, name
    assert TrainSettings(objective="columns", targets=("a", "b")).loss().outputs_are_alike
    assert not TrainSettings(objective="value-and-length").loss().outputs_are_alike


@pytest.mark.parametrize("name", ["beer", "contrastive-preference"])
def test_an_objective_reads_features_where_its_logits_are_read(name: str) -> None:
    """What a hook sees enter the head, with dropout in front of it: `views` are those of a second pass."""
    objective = Objective.of(name, **({"penalty": 5.0} if name == "beer" else {"contrast": 2.0}))
    model = toy_model(record=objective.record(PerStep()))
    model.backbone.norm.register_forward_hook(lambda _, args, made: torch.nn.functional.dropout(made, 0.3))
    rows = [row.with_columns({"reward": row.column("label") - 0.3}) for row in toy_labels(3, 0)]
    (batch,) = make_batches(
        labelled_trees(rows, objective), model.encoder, objective, row_tokens=256, batch_tokens=9999
    )
    seen = []
    model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    model.with_features = True
    outputs = model(batch.packed)
    found = float(objective(model, outputs, batch))
    features = [batch.gather(one) for one in seen]
    logits = batch.gather(model.head(seen[0])[:, 0].detach())
    data = {
        **batch.data, "logits": logits, "mask": batch.mask, "features": features[0], "views": features[-1],
        "totals": torch.stack([row[real][-1] for row, real in zip(logits, batch.mask, strict=True)]),
        "slopes": model.head.weight.detach().norm().expand(batch.mask.shape), "lagging_logits": logits,
        "lagging_features": features[0],
    }  # fmt: skip
    assert len(features) == {"beer": 1, "contrastive-preference": 2}[name]
    wanted = objective.method.take({key: data[key] for key in objective.method.data}, **objective.settings)
    assert found == pytest.approx(float(wanted), rel=1e-4)
    extra = "penalty" if name == "beer" else "contrast"
    without = objective.method.take({key: data[key] for key in objective.method.data}, **{extra: 0.0})
    assert abs(found - float(without)) > 0.01


def test_a_trajectory_without_steps_has_no_end() -> None:
    outputs = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    ends, some = at_end(outputs, torch.tensor([[True, False], [False, False]]))
    assert ends[0] == 1.0
    assert some.tolist() == [True, False]
    assert at_end(outputs[:, :0], torch.ones(2, 0, dtype=torch.bool))[1].tolist() == [False, False]


def test_an_outcome_without_rewards_reaches_the_steps_before_it() -> None:
    z, mask = torch.tensor([[0.3, -0.2, 0.1]]), torch.ones(1, 3, dtype=torch.bool)
    outcome, unknown = torch.tensor([1.0]), torch.full((1, 3), NAN)
    made = temporal_difference(z, unknown, outcome, mask, gamma=0.5, steps=1)
    v = z.sigmoid()[0]
    targets = torch.tensor([0.5 * v[1], 0.5 * v[2], 1.0])
    assert float(made) == pytest.approx(float(torch.nn.functional.binary_cross_entropy(v, targets)), rel=1e-5)
    # With some rewards known the others stay unknown: what needs them is not taught.
    some = torch.tensor([[0.25, NAN, NAN]])
    known = torch.tensor([0.25 + 0.5 * v[1], NAN, 1.0])
    made = temporal_difference(z, some, outcome, mask, gamma=0.5, steps=1)
    fit = torch.nn.functional.binary_cross_entropy(v[[0, 2]], known[[0, 2]])
    assert float(made) == pytest.approx(float(fit), rel=1e-5)
    assert int(temporal_difference(z, unknown, torch.tensor([NAN]), mask).counts[0]) == 0


def test_a_loss_of_ones_own_states_what_its_outputs_are() -> None:
    reading = OutputReading(rewards=True, names=lambda settings, n: ("low", "high"), formula="high - low")
    own = Method("loss", "own", columns, "", note="a test", reading=reading)
    made = Objective(own, targets=("a", "b"))
    assert made.trains_rewards
    assert made.record(PerStep()).readout.formula == "high - low"
    assert made.output_names == ("low", "high")
    with pytest.raises(InputError, match="no output that own trains is the score"):
        Objective(replace(own, reading=OutputReading(score=lambda settings: -1)), targets=("a", "b")).readout()
    assert Objective(replace(own, reading=None), targets=("a", "b")).readout().kind == "sigmoid"
