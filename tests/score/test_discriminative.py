"""The encoder record, the scorer and its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.score.models import model, random_trajectories, tokenizer

from stepreward.core.errors import InputError, ModelError, StoreError
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Flow, Score
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.baselines import constant
from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer
from stepreward.score.calibrate.calibrators import Isotonic
from stepreward.score.capabilities import ScoreUse, local_model_of, use_of
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.packing import narrow
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, Encoding, PerStep, WholeText
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.tree_scores import token_costs

AWKWARD = ["12 + 5 = 17\n", "17\n\n\n", "  spaces  ", "漢字 🙂 naïve\n", "Answer: 17\nsecond line in one step\n"]


def test_scores_are_one_number_a_step_and_prefixes_do_not_depend_on_what_follows() -> None:
    scorer = DiscriminativeScorer(model())
    whole = scorer.score("What is 12 + 5?", AWKWARD)
    assert whole.shape == (5,)
    assert ((whole > 0) & (whole < 1)).all()
    assert np.unique(whole.round(6)).size == 5
    for k in range(1, 6):
        np.testing.assert_allclose(scorer.score("What is 12 + 5?", AWKWARD[:k]), whole[:k], rtol=1e-4)


def test_batches_of_questions_equal_single_questions_and_the_bill_is_exact() -> None:
    scorer = DiscriminativeScorer(model(), row_tokens=100)
    questions = [Score(t.problem, t.steps) for seed in range(4) for t in random_trajectories(seed)]
    together = scorer.score_many(questions)
    for question, scored in zip(questions, together, strict=True):
        (alone,) = scorer.score_many([question])
        np.testing.assert_allclose(scored.scores, alone.scores, rtol=1e-4, atol=1e-6)
        assert alone.tokens == alone.tokens_unshared == scored.tokens_unshared
        assert np.isnan(scored.scores).tolist() == [step.kind == "observation" for step in question.steps]
    trees = [StepTree.from_trajectories(random_trajectories(seed)) for seed in range(4)]
    encoder = scorer.model.encoder
    parts = [len(tokens) for tree in trees for _, _, tokens in narrow(tree, encoder, 100)]
    assert sum(s.tokens for s in together) == sum(parts)
    assert len(parts) > len(trees), "no tree was wide enough to be cut"
    whole = DiscriminativeScorer(scorer.model, row_tokens=10_000).score_many(questions)
    assert sum(s.tokens for s in whole) == sum(len(encoder.encode_tree(tree)) for tree in trees)
    for cut, uncut in zip(together, whole, strict=True):
        np.testing.assert_allclose(cut.scores, uncut.scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encoding", [PerStep(), WholeText(separator="\n")])
@pytest.mark.parametrize("row_tokens", [100, 10_000])
def test_the_column_of_a_tree_holds_what_each_trajectory_gets_by_itself(encoding: Encoding, row_tokens: int) -> None:
    scorer = DiscriminativeScorer(model(record=EncoderRecord(encoding)), row_tokens=row_tokens)
    trees = [StepTree.from_trajectories(random_trajectories(seed, 8)) for seed in range(3)]
    for tree, made in zip(trees, scorer.score_trees(trees), strict=True):
        assert np.isnan(made.scores).tolist() == (~tree.action).tolist()
        np.testing.assert_allclose(made.scores, scorer.score_tree(tree), rtol=1e-4, atol=1e-6)
        alone = [scorer.score_many([Score(t.problem, t.steps)])[0] for t in tree.trajectories()]
        for row, own in zip(tree.gather(made.scores), alone, strict=True):
            np.testing.assert_allclose(row[: len(own.scores)], own.scores, rtol=1e-4, atol=1e-6)
        assert made.tokens_unshared.tolist() == [own.tokens for own in alone]


def test_the_first_trajectory_through_a_node_pays_for_it() -> None:
    problem, (a, b, c) = Problem("p", "?"), map(Step, "abc")
    tree = StepTree.from_trajectories([Trajectory(problem, steps) for steps in [(a, b), (a, c), (a, b)]])
    length = np.array([7, 1, 2, 4])  # of the prompt, a, a-b and a-c
    paid, whole = token_costs(tree, length)
    assert (paid.tolist(), whole.tolist()) == ([10, 4, 0], [10, 12, 10])
    paid, whole = token_costs(tree, length, np.array([False, False, True, True]))
    assert (paid.tolist(), whole.tolist()) == ([2, 4, 0], [10, 12, 10])


def test_a_scorer_states_how_its_scores_are_used_and_which_model_gives_them() -> None:
    scorer = DiscriminativeScorer(model(record=EncoderRecord(aggregation="mean", threshold=0.3)))
    assert use_of(scorer) == ScoreUse("mean", 0.3)
    calibrated = CalibratedScorer(scorer, Isotonic().fit([0.2, 0.8], [0.0, 1.0]))
    assert use_of(calibrated) == ScoreUse("mean"), "calibrated scores are probabilities: the threshold is another"
    assert local_model_of(scorer) == local_model_of(calibrated) == (scorer.model, "cpu")
    assert use_of(constant()) is None is local_model_of(constant())


def test_flows_reach_the_scorer_through_the_driver() -> None:
    def flow() -> Flow[list[float]]:
        (scores,) = yield [Score(Problem("p", "What is 12 + 5?"), (Step("17\n"),))]
        return scores.tolist()

    scorer = DiscriminativeScorer(model())
    (finished,) = Driver(scorer=scorer).run([flow()])
    np.testing.assert_allclose(finished.result, scorer.score("What is 12 + 5?", ["17\n"]))
    assert finished.bill.scored_tokens == finished.bill.scored_tokens_unshared > 0


@pytest.mark.parametrize(
    "record",
    [
        EncoderRecord(),
        EncoderRecord(readout=Readout("softmax", n_labels=2, positive=1)),
        EncoderRecord(PerStep(read="before", separator=""), readout=Readout("value")),
    ],
)
def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path, record: EncoderRecord) -> None:
    before = DiscriminativeScorer(model(record=record))
    before.model.save_pretrained(tmp_path)
    after = DiscriminativeScorer.load(tmp_path)
    assert after.model.record == record
    np.testing.assert_array_equal(before.score("What is 12 + 5?", AWKWARD), after.score("What is 12 + 5?", AWKWARD))
    assert not list(tmp_path.glob("*.bin")), "pickled weights in the checkpoint"
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1, "files that others of a group cannot read"


def test_a_tokenizer_rebuilt_with_other_rules_is_caught(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    path = tmp_path / "stepreward.json"
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "probe": [*row["probe"][:-1], 7]}))
    with pytest.raises(ModelError, match="loaded with other rules"):
        DiscriminativeScorer.load(tmp_path)


def test_a_softmax_readout_takes_its_column() -> None:
    first, second = (
        DiscriminativeScorer(model(record=EncoderRecord(readout=Readout("softmax", n_labels=2, positive=i))))
        for i in (0, 1)
    )
    np.testing.assert_allclose(first.score("q", AWKWARD) + second.score("q", AWKWARD), 1.0, rtol=1e-5)


def test_step_ids_are_built_per_step_with_one_separator() -> None:
    encoder = StepEncoder(EncoderRecord(), tokenizer())
    newline = tokenizer()("\n")["input_ids"]
    assert encoder.step_ids(Step("17")) == encoder.step_ids(Step("17\n")) == tokenizer()("17")["input_ids"] + newline
    assert encoder.step_ids(Step("a\nb\n"))[-1:] == newline


def test_impossible_records_and_inputs_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is 5 tokens, not one"):
        StepEncoder(EncoderRecord(PerStep(separator="漢字"[:1] + "zq")), tokenizer())
    with pytest.raises(ModelError, match="no chat template"):
        StepEncoder(EncoderRecord(PerStep(template="chat")), tokenizer())
    with pytest.raises(ValueError, match="n_labels >= 2"):
        EncoderRecord(readout=Readout("softmax"))
    with pytest.raises(ValueError, match="below n_labels"):
        EncoderRecord(readout=Readout(positive=1))
    scorer = DiscriminativeScorer(model())
    with pytest.raises(InputError, match="at least one step"):
        scorer.score("q", [])
    with pytest.raises(InputError, match="drop empty steps"):
        scorer.score("q", ["fine\n", " \n"])
    written = (Step("fine\n"), Step("\n"))
    assert np.isfinite(scorer.score_many([Score(Problem("p", "q"), written)])[0].scores).all(), "a policy's blank line"
    with pytest.raises(ModelError, match=r"no stepreward\.json"):
        DiscriminativeScorer.load(tmp_path)
    with pytest.raises(ModelError, match=r"no model at .*nowhere': there is no such folder"):
        StepRewardModel.from_backbone(tmp_path / "nowhere", EncoderRecord())


def test_long_trajectories_are_refused_or_lose_their_last_steps_by_name() -> None:
    encoder = model().encoder
    steps = ["12 + 5 = 17\n"] * 4
    length = len(encoder.prompt_ids(Problem("question", "q"))) + 3 * len(encoder.step_ids(Step(steps[0])))
    refusing = DiscriminativeScorer(model(record=EncoderRecord(PerStep(max_length=length))))
    assert refusing.score("q", steps[:3]).shape == (3,)
    with pytest.raises(InputError, match="too_long='drop'"):
        refusing.score("q", steps)
    dropping = DiscriminativeScorer(model(record=EncoderRecord(PerStep(max_length=length, too_long="drop"))))
    assert np.isnan(dropping.score("q", steps)).tolist() == [False, False, False, True]


def test_an_unwritable_checkpoint_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="choose a writable folder"):
        model().save_pretrained(tmp_path / "file" / "checkpoint")
