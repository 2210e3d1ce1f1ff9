"""Every objective through the trainer: from columns and facts of rows to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.toy import toy_labels, toy_model

from stepreward.core.catalog import loss as losses
from stepreward.core.errors import InputError
from stepreward.core.method import Method
from stepreward.core.runtime.flows import Score
from stepreward.core.tree import StepTree
from stepreward.core.types import Trajectory
from stepreward.policies.model_sources import resolve
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.encode.record_file import load_record
from stepreward.score.load import load
from stepreward.score.model.log_ratio_model import Trainable
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.data.fingerprint import fingerprint
from stepreward.train.data.labelled_trees import labelled_trees, teaches
from stepreward.train.data.training_batch import TrainingBatch
from stepreward.train.data.training_set import make_batches
from stepreward.train.objective import Objective
from stepreward.train.scratch import starting_model
from stepreward.train.trainer import TrainSettings, train

FOLDER = resolve("builtin:arithmetic")
QUICK = TrainSettings(epochs=1, learning_rate=3e-3, batch_tokens=512, row_tokens=256, evaluations=1)


def rich_rows() -> list[Trajectory]:
    """Rows with every column and fact that an objective reads."""
    made = []
    for i, one in enumerate(toy_labels(6, 0)):
        n, facts = len(one), {"log_weight": i / 7, "strength": 2.0, "annotator": "ann"}
        columns = {
            "judged": np.full(n, 0.3),
            "cell": np.arange(n) % 4.0,
            "reward": np.zeros(n),
            "other": np.full(n, 0.6),
        }
        made.append(replace(one.with_columns(columns), facts=facts))
    return made


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", losses, ids=lambda method: method.name)
def test_every_objective_trains_a_model_that_scores(method: Method[..., Any], tmp_path: Path) -> None:
    targets = (
        ("label", "other", "reward")[: 3 if method.name == "path-finder" else 2] if "targets" in method.data else ()
    )
    outputs = 4 if {"cells", "ends"} & {*method.data} else 0
    settings = replace(QUICK, objective=method.name, targets=targets, outputs=outputs)
    if method.name in ("grid", "general-preference"):
        with pytest.raises(InputError, match=r"no output that .* trains is the score of a step"):
            settings.loss().readout()
        settings = replace(settings, readout="out1 + gain(out0, 0)")
    if "reference" in method.asks:
        settings = replace(settings, reference=str(FOLDER))
    if method.name == "tgdpo":
        settings = replace(settings, guide=str(FOLDER))
    if method.name == "t-reg":
        settings = replace(settings, contrast=("{prompt} Well!\n", "{prompt} Bad!\n"))
    if "teacher" in method.asks:
        toy_model(seed=1).save_pretrained(tmp_path / "teacher")
        settings = replace(settings, teacher=str(tmp_path / "teacher"))
    if method.name == "palbert":
        # The little backbone has two layers.
        settings = replace(settings, objective_settings={"exits": 2})
    if "meta" in method.asks:
        settings = replace(settings, domain_rate=0.1, domain_every=1)
    objective = settings.loss()
    record = objective.record(PerStep())
    trees = labelled_trees(rich_rows(), objective)
    meta = trees if settings.domain_rate else ()
    model: Trainable = starting_model(FOLDER, record=record) if objective.of_ratios else toy_model(record=record)
    own = [one for one in model.head.parameters() if one.requires_grad] if isinstance(model, StepRewardModel) else []
    weight = own[0] if own else model.unembedding
    before = weight.detach().clone()
    result = train(trees, model, tmp_path / "model", settings, held_out=trees, meta=meta)
    assert np.isfinite(result.metrics["loss"])
    assert not torch.equal(weight, before)
    if isinstance(model, StepRewardModel):
        learned = [tree for tree in trees if teaches(tree, objective)]
        if "users" in method.data:
            assert "of_ann = " in model.record.readout.formula
            record = replace(record, readout=model.record.readout)
        assert_scored_as_trained(model, learned, objective, tmp_path / "model", record)
    else:
        assert load_record(tmp_path / "model")[0] == record


@torch.inference_mode()
def scores_of(model: StepRewardModel, batch: TrainingBatch) -> np.ndarray[Any, Any]:
    """(Q,) what training evaluates."""
    reads = model.step_outputs(model(batch.packed), batch.packed)
    return model.record.readout.combined(model.score_parts(reads), batch.previous)


def assert_scored_as_trained(
    model: StepRewardModel, trees: Sequence[StepTree], objective: Objective, folder: Path, record: EncoderRecord
) -> None:
    """The loaded checkpoint gives the numbers that training evaluates, whole and step by step."""
    scorer = load(folder, cache_bytes=0)
    growing = load(folder, cache_bytes=1 << 30)
    assert isinstance(scorer, DiscriminativeScorer)
    assert scorer.model.record == record
    for tree in trees:
        (batch,) = make_batches([tree], model.encoder, objective, row_tokens=4096, batch_tokens=4096)
        with torch.inference_mode():
            scores = record.readout.combined(
                model.score_parts(model.step_outputs(model(batch.packed), batch.packed)), batch.previous
            )
        rows = tree.trajectories()
        found = scorer.score_many([Score(one.problem, one.steps) for one in rows])
        assert batch.mask.sum() == sum(map(len, rows))
        for row, (one, made) in enumerate(zip(rows, found, strict=True)):
            expected = scores[batch.read[row, : len(one)].numpy()]
            np.testing.assert_allclose(made.scores, expected, atol=1e-5)
            for s in range(len(one)):
                (part,) = growing.score_many([Score(one.problem, one.steps[: s + 1])])
                np.testing.assert_allclose(part.scores, expected[: s + 1], atol=1e-5)


def with_lengths(values: str, lengths: str, score: str) -> str:
    return f"value = weighted({values}); length = weighted({lengths}); {score}"


READOUTS: list[tuple[dict[str, Any], EncoderRecord]] = [
    (
        {"objective": "birm", "targets": ("label", "other")},
        EncoderRecord(readout=Readout("value", 2, names=("label", "other"), formula="other + label")),
    ),
    (
        {
            "objective": "birm",
            "targets": ("label", "other"),
            "readout": "other + 3.5 * mean_so_far(label)",
        },
        EncoderRecord(
            readout=Readout("value", 2, names=("label", "other"), formula="other + 3.5 * mean_so_far(label)"),
            aggregation="last",
        ),
    ),
    (
        {"objective": "bce", "readout": "gain(1 - (1 - score) ** 4, 0.9)"},
        EncoderRecord(readout=Readout(formula="gain(1 - (1 - score) ** 4, 0.9)"), threshold=0.0),
    ),
    (
        {"objective": "quantile", "readout": "q10"},
        EncoderRecord(readout=Readout(n_labels=3, positive=1, names=("q10", "q50", "q90"), formula="q10")),
    ),
    (
        {"objective": "reasonflux", "outputs": 2, "readout": "mean_so_far(step) + 0.8 * trajectory"},
        EncoderRecord(
            readout=Readout(n_labels=2, names=("step", "trajectory"), formula="mean_so_far(step) + 0.8 * trajectory"),
            aggregation="last",
        ),
    ),
    (
        {"objective": "path-finder", "targets": ("label", "other", "reward")},
        EncoderRecord(
            readout=Readout(
                n_labels=3,
                names=("label", "other", "reward"),
                formula="above(label, 0.5) * above(other, 0.5) * reward",
            )
        ),
    ),
    (
        {"objective": "ensemble", "objective_settings": {"members": 3}, "readout": "mean(outputs) - 2 * std(outputs)"},
        EncoderRecord(readout=Readout(n_labels=3, formula="mean(outputs) - 2 * std(outputs)")),
    ),
    (
        {"objective": "value-and-length", "objective_settings": {"value_bins": 2, "lengths": (4.0, 6.0)}},
        EncoderRecord(
            readout=Readout(
                "softmax",
                6,
                formula=with_lengths("0.25, 0.25, 0.25, 0.75, 0.75, 0.75", "2, 5, 7, 2, 5, 7", "value"),
            )
        ),
    ),
    (
        {
            "objective": "value-and-length",
            "objective_settings": {"value_bins": 2, "lengths": ()},
            "readout": "length + 1",
        },
        EncoderRecord(readout=Readout("softmax", 2, formula=with_lengths("0.25, 0.75", "0, 0", "length + 1"))),
    ),
    (
        {"objective": "grid", "outputs": 4, "readout": "value = weighted(0.25, 0.25, 0.75, 0.75); value"},
        EncoderRecord(readout=Readout("softmax", 4, formula="value = weighted(0.25, 0.25, 0.75, 0.75); value")),
    ),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("given", "record"), READOUTS, ids=[str(given) for given, _ in READOUTS])
def test_every_readout_scores_as_it_was_trained(given: dict[str, Any], record: EncoderRecord, tmp_path: Path) -> None:
    settings = replace(QUICK, **given)
    objective = settings.loss()
    assert objective.record(PerStep()) == record
    model = toy_model(record=record)
    trees = labelled_trees(rich_rows(), objective)
    train(trees, model, tmp_path / "model", settings, held_out=trees)
    assert_scored_as_trained(model, trees, objective, tmp_path / "model", record)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("objective", ["bce", "mse", "pqm", "quantile", "step-and-trajectory"])
def test_both_ways_scores_as_it_was_trained(objective: str, tmp_path: Path) -> None:
    """The losses of BiPRM and others; the gate learns too."""
    settings = replace(QUICK, objective=objective, both_ways=True)
    loss = settings.loss()
    record = loss.record(PerStep(), both_ways=True)
    model = toy_model(record=record)
    before = {name: weight.detach().clone() for name, weight in model.head.named_parameters()}
    trees = labelled_trees(rich_rows(), loss)
    result = train(trees, model, tmp_path / "model", settings, held_out=trees)
    assert np.isfinite(result.metrics["loss"])
    assert not any(torch.equal(weight, before[name]) for name, weight in model.head.named_parameters())
    scorer = load(tmp_path / "model")
    for tree in trees:
        (batch,) = make_batches([tree], model.encoder, loss, row_tokens=4096, batch_tokens=4096)
        with torch.inference_mode():
            scores = record.readout.combined(
                model.score_parts(model.step_outputs(model(batch.packed), batch.packed)), batch.previous
            )
        rows = tree.trajectories()
        for row, made in enumerate(scorer.score_many([Score(one.problem, one.steps) for one in rows])):
            np.testing.assert_allclose(made.scores, scores[batch.read[row, : len(made.scores)].numpy()], atol=1e-5)


def test_names_that_are_no_words_are_numbered() -> None:
    for targets in (("a b", "a-b"), ("lambda", "x"), ("score", "x")):
        readout = Objective(losses["columns"], targets=targets).readout()
        assert readout.output_names == ("out0", "out1")
    assert Objective(losses["columns"], targets=("score:a", "b")).readout().output_names == ("score_a", "b")


def test_objectives_of_several_columns_say_how_many() -> None:
    for name, wanted in (("birm", 2), ("path-finder", 3)):
        with pytest.raises(InputError, match=f"the objective {name} reads {wanted} columns"):
            Objective(losses[name], targets=("a",))


def test_a_readout_of_other_outputs_is_refused() -> None:
    with pytest.raises(InputError, match="readout: 'success' is no name here; names: out0, score"):
        TrainSettings(readout="success").loss()


def test_other_strengths_are_other_data() -> None:
    rows = rich_rows()
    objective = Objective.of("preference-strength")
    weaker = [replace(one, facts={**one.facts, "strength": 1.0}) for one in rows]
    assert fingerprint(labelled_trees(rows, objective)) != fingerprint(labelled_trees(weaker, objective))
