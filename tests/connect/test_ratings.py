"""Ratings of solutions: the number of each, and what happens to those that have none."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from tests.connect.judge import Judge

from stepreward.connect import ratings
from stepreward.connect.ratings import Rater, Rating
from stepreward.core.errors import ModelError, UnknownNameError
from stepreward.core.runtime.flows import Score
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.encode.readout import Readout
from stepreward.score.load import load
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.remote.reward_server import ServedScorer

ASKED = [{"role": "user", "content": "What is 12 + 5?"}]


def question(rater: Rater, *texts: str) -> Score:
    """A conversation in which the assistant and a tool take turns."""
    roles = ["assistant", "tool"] * len(texts)
    return rater.question(ASKED, [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)])


def test_the_total_is_the_aggregate_of_the_steps_of_the_model() -> None:
    judge = Judge()
    asked = ["12 + 5 = 17\n\nSo 17.\n\nskip\n\nDone.", "17", "It is 17."]
    lowest, rest = Rater(judge), Rater(judge, aggregate="product", segment="")
    (rating,) = lowest.rate([question(lowest, *asked)])
    assert rating.steps == ("12 + 5 = 17\n\n", "So 17.\n\n", "skip\n\n", "Done.", "It is 17.")
    assert rating.scores == (0.9, 0.9, None, 0.2, 0.9)
    assert (rating.total, rating.fault) == (0.2, "")
    assert rating.table.splitlines()[1:3] == ["- 0.900: So 17.", "- none: skip"]
    # Whole messages: the first says "skip" and has no score, the product is that of the other alone.
    (whole,) = rest.rate([question(rest, *asked)])
    assert (whole.scores, whole.total) == ((None, 0.9), 0.9)
    assert [step.kind for step in judge.asked[-1].steps] == ["action", "observation", "action"]


def test_what_says_nothing_is_not_asked_for() -> None:
    judge = Judge()
    rater = Rater(judge)
    empty, blank, silent, skipped = rater.rate(
        [question(rater, *texts) for texts in ((), (" \n",), ("", "17"), ("skip",))]
    )
    assert empty == blank == silent == Rating(fault="the model wrote nothing")
    assert math.isnan(empty.total)
    assert math.isnan(skipped.total)
    assert skipped.fault == "the scorer left every step out"
    assert judge.calls == [1]


@pytest.mark.parametrize("bad", range(5))
def test_one_that_cannot_be_scored_costs_no_other_its_rating(bad: int) -> None:
    judge = Judge()
    rater = Rater(judge)
    texts = ["So 17." if row != bad else "too long" for row in range(5)]
    found = rater.rate([question(rater, text) for text in texts])
    assert [rating.total == 0.9 for rating in found] == [row != bad for row in range(5)]
    told = found[bad]
    assert (told.steps, told.scores, told.fault) == (("too long",), (None,), "a trajectory has too many tokens")
    # Halved until it is alone: 5, then 2 and 3, and at most 3 more halvings.
    assert len(judge.calls) <= 7


def test_many_are_asked_in_parts_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratings, "AT_ONCE", 3)
    judge = Judge()
    rater = Rater(judge)
    found = rater.rate([question(rater, "So 17." if i % 3 else "So 16.") for i in range(8)])
    assert [rating.total for rating in found] == [0.9 if i % 3 else 0.2 for i in range(8)]
    assert judge.calls == [3, 3, 2]


def test_equal_prompts_are_one_problem_with_its_reference() -> None:
    rater = Rater(Judge())
    one, other = question(rater, "a"), rater.question(ASKED, [{"role": "assistant", "content": "b"}], "17")
    assert one.problem.id == other.problem.id
    assert (one.problem.reference, other.problem.reference) == (None, "17")
    assert one.problem.text == "What is 12 + 5?"


def test_unknown_names_are_told_before_anything_is_scored(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no aggregate method is called 'minimum'"):
        Rater(Judge(), aggregate="minimum")
    with pytest.raises(UnknownNameError, match="did you mean lines"):
        Rater(Judge(), segment="line")
    with pytest.raises(ModelError):
        Rater(tmp_path / "nothing")


def test_a_checkpoint_is_read_once_and_scores_as_ever(tmp_path: Path) -> None:
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord()).save_pretrained(tmp_path)
    rater = Rater(tmp_path, segment="lines")
    assert Rater(str(tmp_path)).scorer is rater.scorer
    (rating,) = rater.rate([question(rater, "12 + 5 = 17\nAnswer: 17")])
    expected = load(tmp_path).score("What is 12 + 5?", ["12 + 5 = 17\n", "Answer: 17"])
    assert rating.scores == tuple(expected)
    assert rating.total == expected.min()


def test_a_scorer_may_be_named_by_its_server(tmp_path: Path) -> None:
    pair = EncoderRecord(readout=Readout("softmax", n_labels=2, positive=1))
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), pair).save_pretrained(tmp_path)
    served = Rater(f"http://localhost:1#{tmp_path}").scorer
    assert isinstance(served, ServedScorer), "nothing is asked of a server before there is something to score"
    assert served.server.url == "http://localhost:1"


def test_plug_ins_load_no_torch_until_they_load_a_model() -> None:
    code = "import stepreward.connect.ratings, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
