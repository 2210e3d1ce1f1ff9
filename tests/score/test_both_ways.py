"""Steps read in both directions: two plain passes mixed by a gate, alone and packed, in training and when loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from tests.score.models import SEEDS, model, random_trajectories

from stepreward.core.errors import ModelError
from stepreward.core.runtime.flows import Score
from stepreward.core.tree import StepTree
from stepreward.core.types import Trajectory
from stepreward.score.capabilities import use_of
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.encoded_tree import reversed_tree
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, WholeText
from stepreward.score.encode.record_file import load_record, save_record
from stepreward.score.load import load
from stepreward.score.model.heads import GatedHead
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.remote.head_outputs import HeadReader
from stepreward.score.remote.token_outputs import TokenOutputs

RECORD = EncoderRecord(both_ways=True)


def gated(record: EncoderRecord = RECORD, bias: float | None = None) -> StepRewardModel:
    """A random model; with a bias the gate says that alone."""
    made = model(record=replace(record, both_ways=False))
    assert isinstance(made.head, torch.nn.Linear)
    head = GatedHead.fresh(made.head, 32, 0)
    if bias is not None:
        for weight in head.gate.parameters():
            torch.nn.init.zeros_(weight)
        torch.nn.init.constant_(head.gate[-1].bias, bias)  # type: ignore[index]
    else:
        with torch.no_grad():
            head.gate[-1].weight.mul_(20)  # type: ignore[index]
    return StepRewardModel(made.backbone, made.tokenizer, record, head=head).eval()


def slow(reward: StepRewardModel, one: Trajectory) -> np.ndarray:
    """Logits of a trajectory by two passes of plain tokens, one of them over the steps from the last to the first."""
    encoder, hidden = reward.encoder, []
    for steps in (one.steps, one.steps[::-1]):
        ids, ends = encoder.prompt_ids(one.problem), []
        for step in steps:
            ids = ids + encoder.step_ids(step)
            ends.append(len(ids) - 1)
        hidden.append(reward.backbone(input_ids=torch.tensor([ids]))[0][0, ends])
    forward, backward = hidden[0], hidden[1].flip(0)
    first, last = reward.head.gate[0], reward.head.gate[-1]  # type: ignore[union-attr, index]
    both = torch.cat([forward, backward], -1)
    g = torch.sigmoid(last(torch.relu(first(both))))
    value = reward.head.value  # type: ignore[union-attr]
    made = g * value(forward) + (1 - g) * value(backward)  # type: ignore[operator]
    return made.detach().numpy()


def test_the_gate_mixes_outputs() -> None:
    """Outputs 2 and -1 with a gate of 1/4: -1/4."""
    quarter = torch.nn.Linear(2, 1)
    torch.nn.init.zeros_(quarter.weight)
    torch.nn.init.constant_(quarter.bias, float(np.log(1 / 3)))
    made = GatedHead(torch.nn.Identity(), quarter)(torch.tensor([[2.0]]), torch.tensor([[-1.0]]))
    assert made.item() == pytest.approx(-0.25)


def test_the_gate_learns_its_own_weights_alone() -> None:
    head = gated().head
    assert isinstance(head, GatedHead)
    forward, backward = (torch.randn(3, 32, requires_grad=True) for _ in range(2))
    head(forward, backward).sum().backward()
    g = head.gate(torch.cat([forward, backward], -1)).sigmoid()
    assert head.value.weight.grad is not None  # type: ignore[union-attr]
    torch.testing.assert_close(forward.grad, (g * head.value.weight).detach())  # type: ignore[operator]
    torch.testing.assert_close(backward.grad, ((1 - g) * head.value.weight).detach())  # type: ignore[operator]
    assert all(weight.grad is not None for weight in head.gate.parameters())


@given(seed=SEEDS)
def test_every_way_to_score_is_two_plain_passes(seed: int) -> None:
    rows, reward = random_trajectories(seed), gated()
    expected = [
        np.where(one.action, torch.sigmoid(torch.tensor(slow(reward, one)))[:, 0].numpy(), np.nan) for one in rows
    ]
    questions = [Score(one.problem, one.steps) for one in rows]
    for scorer in (DiscriminativeScorer(reward), DiscriminativeScorer(reward, row_tokens=16, cache_bytes=1 << 20)):
        assert scorer.growing is None
        for one, found in zip(expected, scorer.score_many(questions), strict=True):
            np.testing.assert_allclose(found.scores, one, atol=1e-5)
        alone = scorer.score_many(questions[:1])[0]
        np.testing.assert_allclose(alone.scores, expected[0], atol=1e-5)
    (tree,) = DiscriminativeScorer(reward).score_trees([StepTree.from_trajectories(rows[:1])])
    np.testing.assert_allclose(tree.scores[1:], expected[0], atol=1e-5)


@given(seed=SEEDS)
def test_an_open_gate_is_the_model_of_one_way(seed: int) -> None:
    rows, reward = random_trajectories(seed), gated(bias=50.0)
    one_way = StepRewardModel(reward.backbone, reward.tokenizer, EncoderRecord(), head=reward.head.value)  # type: ignore[arg-type]
    questions = [Score(one.problem, one.steps) for one in rows]
    for both, one in zip(*(DiscriminativeScorer(m).score_many(questions) for m in (reward, one_way)), strict=True):
        np.testing.assert_allclose(both.scores, one.scores, atol=1e-5)


def test_a_single_step_is_the_same_both_ways() -> None:
    reward = gated()
    one_way = StepRewardModel(reward.backbone, reward.tokenizer, EncoderRecord(), head=reward.head.value)  # type: ignore[arg-type]
    both, one = (DiscriminativeScorer(m).score("What is 12 + 5?", ["12 + 5 = 17\n"]) for m in (reward, one_way))
    np.testing.assert_allclose(both, one, atol=1e-6)


def test_a_score_depends_on_later_steps() -> None:
    scorer = DiscriminativeScorer(gated())
    short, long = (scorer.score("What?", steps) for steps in (["x\n"], ["x\n", "Answer: 17\n"]))
    assert abs(short[0] - long[0]) > 1e-3


@given(seed=SEEDS)
def test_reversing_twice_is_the_identity(seed: int) -> None:
    tree = StepTree.from_trajectories(random_trajectories(seed))
    back = reversed_tree(tree)
    for one, other in zip(tree.trajectories(), back.trajectories(), strict=True):
        assert one.steps == other.steps[::-1]
    for one, other in zip(tree.trajectories(), reversed_tree(back).trajectories(), strict=True):
        assert one.steps == other.steps


def test_tokens_of_both_directions_are_counted() -> None:
    rows = random_trajectories(0, rows=1)
    (found,) = DiscriminativeScorer(gated()).score_many([Score(rows[0].problem, rows[0].steps)])
    (one_way,) = DiscriminativeScorer(model()).score_many([Score(rows[0].problem, rows[0].steps)])
    assert (found.tokens, found.tokens_unshared) == (2 * one_way.tokens, 2 * one_way.tokens_unshared)


def test_formulas_look_back_too() -> None:
    rows, reward = random_trajectories(1), gated(replace(RECORD, readout=Readout(formula="gain(score, 0.5)")))
    plain = DiscriminativeScorer(gated())
    questions = [Score(one.problem, one.steps) for one in rows]
    for one, made in zip(plain.score_many(questions), DiscriminativeScorer(reward).score_many(questions), strict=True):
        real = np.isfinite(one.scores)
        np.testing.assert_allclose(made.scores[real], np.diff(one.scores[real], prepend=0.5), atol=1e-6)


def test_a_checkpoint_keeps_gate_and_record(tmp_path: Path) -> None:
    reward = gated()
    reward.save_pretrained(tmp_path)
    steps = ["12 + 5 = 17\n", "x\n", "Answer: 17\n"]
    assert load_record(tmp_path)[0] == RECORD
    np.testing.assert_array_equal(
        load(tmp_path).score("What?", steps), DiscriminativeScorer(reward).score("What?", steps)
    )
    save_record(EncoderRecord(), tmp_path, probe=load_record(tmp_path)[1])
    with pytest.raises(ModelError, match="a head has a gate if it reads steps in both directions"):
        load(tmp_path)


def test_the_scorer_says_that_it_needs_whole_solutions() -> None:
    whole, one_way = (use_of(DiscriminativeScorer(m)) for m in (gated(), model()))
    assert whole is not None
    assert one_way is not None
    assert (whole.whole, one_way.whole) == (True, False)


def test_what_cannot_be_read_both_ways_is_refused() -> None:
    broken: list[dict[str, Any]] = [
        {"readout": Readout(surprise=True)},
        {"readout": Readout("softmax", 2, label_tokens=("+", "-"))},
        {"readout": Readout("implicit")},
        {"encoding": WholeText()},
    ]
    for fields in broken:
        with pytest.raises(ValueError, match="both_ways"):
            EncoderRecord(both_ways=True, **fields)
    with pytest.raises(ModelError, match="both_ways need more and are scored locally"):
        HeadReader(gated().encoder)
    with pytest.raises(ModelError, match="scores depend on other steps"):
        TokenOutputs(gated())
