"""The benchmark of training on a GPU, with a tiny model: it must work on the day that a card is there."""

from __future__ import annotations

import pytest
from benchmarks.gpu_training import LENGTHS, SOLUTIONS, WAYS, measured, trees_of
from tests.score.models import tokenizer

from stepreward.core.tree import StepTree
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.record import EncoderRecord, PerStep


@pytest.mark.sampled(2)
@pytest.mark.parametrize("way", WAYS)
def test_packed_and_padded_learn_the_same_solutions(way: str) -> None:
    packed, padded = (
        measured("tiny", way, LENGTHS["tiny"][0], "dense", packed=one, device="cpu", least=0) for one in (True, False)
    )
    # A packed tree has the prompt once, four first halves, eight second ones: 2 + 4 x 2 + 8 x 2 of equal parts.
    # Single solutions have 8 x (2 + 2 + 2).
    ratio = (padded.tokens_per_second / padded.solutions_per_second) / (
        packed.tokens_per_second / packed.solutions_per_second
    )
    assert ratio == pytest.approx(48 / 26, rel=0.05)
    assert packed.predicted > 0


def test_a_tree_has_nearly_the_tokens_that_are_wanted() -> None:
    encoder = StepEncoder(EncoderRecord(PerStep(max_length=10_000, separator_token=False)), tokenizer())
    rows = trees_of(encoder, 2000)
    assert len(rows) == SOLUTIONS
    assert 1800 <= len(encoder.encode_tree(StepTree.from_trajectories(rows))) <= 2000
