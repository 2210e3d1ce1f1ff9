"""Training that goes on from a reward model: at first the scores are the old ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.score.literal_recipes import RECIPES
from tests.score.tiny_checkpoints import build
from tests.train.toy import toy_labels, toy_model

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score
from stepreward.score.checkpoints.known_checkpoints import by_name
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.encode.record_file import load_record
from stepreward.score.load import load
from stepreward.score.model.heads import GatedHead
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.continued import converted_head
from stepreward.train.objective import Objective
from stepreward.train.scratch import starting_model, starting_record

QUESTION, STEPS = "Say something good", ["nice", "bad", "well"]
QUICK: dict[str, Any] = {"epochs": 1, "batch_tokens": 512, "held_out": 0.0, "evaluations": 1}
LINEAR = {
    "trl-prm": "two labels", "Qwen/Qwen2.5-Math-PRM-7B": "two layers", "jinachris/PURE-PRM-7B": "2 p - 1",
    "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": "label tokens", "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B": "one logit",
}  # fmt: skip
"""Rows whose score is the sigmoid of a linear output, or twice that minus 1."""


def published(name: str, folder: Path) -> Path:
    """A small checkpoint in the layout of a row."""
    row, recipe = by_name(name), RECIPES[name]
    names = row.architectures[0] if row.architectures else ""
    return build(folder / "published", recipe.families[0], recipe.layout, names, recipe.seed).folder


def began(folder: Path, name: str, objective: Objective) -> StepRewardModel:
    record = starting_record(folder, objective, keep_head=True, like=name)
    model = starting_model(folder, record=record, keep_head=True, like=name)
    assert isinstance(model, StepRewardModel)
    return model


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", LINEAR)
def test_quantiles_and_probabilities_begin_as_the_published_score(name: str, tmp_path: Path) -> None:
    folder = published(name, tmp_path)
    old = load(folder, like=name).score(QUESTION, STEPS)
    assert np.ptp(old) > 1e-3, "scores that do not differ prove nothing"
    wanted = (old + 1) / 2 if by_name(name).readout.kind == "difference" else old
    for objective in ("bce", "quantile", "ensemble"):
        model = began(folder, name, Objective.of(objective))
        assert model.record.encoding == by_name(name).encoding
        outputs = model.record.readout.output_names
        scorer = DiscriminativeScorer(model, also={name: name for name in outputs})
        question = Score(stepreward.Problem("q", QUESTION), tuple(map(stepreward.Step, STEPS)))
        (found,) = scorer.score_many([question])
        assert len(found.columns) == {"bce": 1, "quantile": 3, "ensemble": 5}[objective]
        for column in (found.scores, *found.columns.values()):
            np.testing.assert_allclose(column, wanted, atol=2e-6)
    # Rewards are the logits of the old scores, in their order.
    rewards = DiscriminativeScorer(began(folder, name, Objective.of("bradley-terry"))).score(QUESTION, STEPS)
    np.testing.assert_allclose(rewards, np.log(wanted) - np.log1p(-wanted), atol=1e-4)


def test_converted_weights_are_the_difference_of_both_rows() -> None:
    """`convert_to_quantile_regression_head`: a row w_right - w_wrong for each quantile, its bias likewise."""
    head = torch.nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 2.0], [4.0, 7.0]]))
        head.bias.copy_(torch.tensor([0.5, 0.25]))
    made = converted_head(head, Readout("softmax", n_labels=2, positive=1), Objective.of("quantile").readout())
    assert made is not None
    assert made.weight.tolist() == [[3.0, 5.0]] * 3  # type: ignore[union-attr]
    assert made.bias.tolist() == [-0.25] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "objective", "why"),
    [
        ("sail/ActPRM", "bce", "its score is a mean-sigmoid of 32 outputs, which is the sigmoid of no linear output"),
        ("GAIR/ReasonEval-7B", "quantile", "its score is a softmax of 3 outputs, which is the sigmoid of no linear"),
        ("THUNLP/AgentRM-8B", "bce", "its scores are bare numbers, and the objective trains probabilities"),
        ("trl-prm", "agent-rm", "its scores are probabilities, and the objective trains bare numbers"),
        ("trl-prm", "value-and-length", "its outputs are not estimates of one score, and the checkpoint has others"),
        ("trl-prm", "dpo", "it trains log-ratios to a reference, which have no head"),
        ("HRM", "bce", "reads per-prefix text, and solutions are trained on as trees of steps"),
    ],
)
def test_what_cannot_go_on_is_refused(name: str, objective: str, why: str, tmp_path: Path) -> None:
    folder = published(name, tmp_path)
    with pytest.raises(InputError, match=f"{why}.*leave keep_head out for a fresh head"):
        starting_record(folder, Objective.of(objective), keep_head=True, like=name)


def test_a_published_model_goes_on_to_learn_and_is_loaded_again(tmp_path: Path) -> None:
    folder = published("Qwen/Qwen2.5-Math-PRM-7B", tmp_path)
    before = load(folder, like="Qwen/Qwen2.5-Math-PRM-7B").score(QUESTION, STEPS)
    given = {"objective": "quantile", "backbone": folder, "keep_head": True, "like": "Qwen/Qwen2.5-Math-PRM-7B"}
    frozen = stepreward.train(toy_labels(6, 0), tmp_path / "same", learning_rate=1e-12, **given, **QUICK)
    np.testing.assert_allclose(frozen.score(QUESTION, STEPS), before, atol=1e-5)
    learned = stepreward.train(toy_labels(6, 0), tmp_path / "new", learning_rate=1e-2, **given, **QUICK)
    assert np.abs(learned.score(QUESTION, STEPS) - before).max() > 1e-3
    record = load_record(tmp_path / "new")[0]
    assert (record.encoding, record.readout.names) == (by_name(str(given["like"])).encoding, ("q10", "q50", "q90"))


def test_adapters_on_a_published_model_name_it_as_their_base(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = published("Qwen/Qwen2.5-Math-PRM-7B", tmp_path)
    before = load(folder, like="Qwen/Qwen2.5-Math-PRM-7B").score(QUESTION, STEPS)
    made = stepreward.train(
        toy_labels(6, 0), tmp_path / "new", backbone=folder, keep_head=True, like="Qwen/Qwen2.5-Math-PRM-7B",
        lora_rank=2, learning_rate=1e-12, **QUICK,
    )  # fmt: skip
    np.testing.assert_allclose(made.score(QUESTION, STEPS), before, atol=1e-5)
    assert not (tmp_path / "new" / "model.safetensors").exists()


def test_adapters_on_adapters_are_loaded_again(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    toy_model().save_pretrained(tmp_path / "base")
    given = {"lora_rank": 2, "learning_rate": 1e-2, **QUICK}
    first = stepreward.train(toy_labels(6, 0), tmp_path / "first", backbone=tmp_path / "base", **given)
    given["learning_rate"] = 1e-12
    again = stepreward.train(toy_labels(6, 1), tmp_path / "again", backbone=tmp_path / "first", keep_head=True, **given)
    np.testing.assert_allclose(again.score(QUESTION, STEPS), first.score(QUESTION, STEPS), atol=1e-5)


def test_our_own_checkpoint_goes_on_with_its_head_or_one_output_of_it(tmp_path: Path) -> None:
    quantiles = Objective.of("quantile")
    model = toy_model(record=quantiles.record(EncoderRecord().encoding))
    with torch.no_grad():
        model.head.weight.normal_(0, 0.3)
    model.save_pretrained(tmp_path)
    old = load(tmp_path).score(QUESTION, STEPS)
    same = began(tmp_path, "", quantiles)
    torch.testing.assert_close(same.head.state_dict(), model.head.state_dict())
    assert same.record == model.record
    one = began(tmp_path, "", Objective.of("bce"))
    torch.testing.assert_close(one.head.weight, model.head.weight[[1]])
    np.testing.assert_allclose(DiscriminativeScorer(one).score(QUESTION, STEPS), old, atol=1e-6)


def test_how_scores_are_used_stays(tmp_path: Path) -> None:
    for kind, n, threshold, wanted in (("softmax", 2, 0.3, 0.3), ("difference", 2, 0.3, 0.65), ("tanh", 1, -0.2, 0.4)):
        readout = Readout(kind, n_labels=n, positive=n - 1)  # type: ignore[arg-type]
        record = EncoderRecord(readout=readout, threshold=threshold, aggregation="mean")
        toy_model(record=record).save_pretrained(tmp_path / kind)
        made = starting_record(tmp_path / kind, Objective.of("bce"), keep_head=True)
        assert (made.threshold, made.aggregation) == (pytest.approx(wanted), "mean")
        assert starting_record(tmp_path / kind, Objective.of("bce"), keep_head=True, max_length=77) == replace(
            made, encoding=replace(made.encoding, max_length=77)
        )


@pytest.mark.parametrize("own", [{"readout": Readout(surprise=True)}, {"both_ways": True}])
def test_what_a_head_reads_stays(own: dict[str, Any], tmp_path: Path) -> None:
    record = EncoderRecord(**own)
    toy_model(record=record).save_pretrained(tmp_path)
    for objective in (Objective.of("bce"), Objective.of("quantile")):
        made = starting_record(tmp_path, objective, keep_head=True)
        assert (made.readout.surprise, made.both_ways) == (record.readout.surprise, record.both_ways)


def test_a_head_without_a_bias_goes_on_with_one_of_zero() -> None:
    head = torch.nn.Linear(2, 2, bias=False)
    made = converted_head(head, Readout("softmax", n_labels=2, positive=1), Objective.of("bce").readout())
    assert made is not None
    assert made.bias.tolist() == [0.0]  # type: ignore[union-attr]


def test_of_a_gated_head_the_value_is_replaced_and_the_gate_stays() -> None:
    head = GatedHead.fresh(torch.nn.Linear(3, 1), 3, seed=0)
    made = converted_head(head, Readout(), Objective.of("quantile").readout())
    assert isinstance(made, GatedHead)
    assert made.gate is head.gate
    steps = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(*steps), head(*steps).expand(4, 3))


def test_settings_that_contradict_each_other(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path)
    for given, why in (
        ({"like": "trl-prm"}, "like says how a reward model is read; pass keep_head too"),
        ({"keep_head": True, "both_ways": True}, "a reward model decides itself what its head reads"),
    ):
        with pytest.raises(InputError, match=why):
            starting_record(tmp_path, Objective.of("bce"), **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="scratch has no head"):
        starting_record("scratch", Objective.of("bce"), keep_head=True)
