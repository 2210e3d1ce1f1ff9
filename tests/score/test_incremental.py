"""Scoring a growing tree against scoring it whole: equal scores, exact bills, bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled
from tests.score.models import SEEDS, model, random_trajectories

from stepreward.core.errors import InputError, ModelError
from stepreward.core.runtime.flows import Score
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.cache.growing_tree import GrowingTree, ancestors
from stepreward.score.cache.incremental_scorer import IncrementalScorer
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerStep

BEFORE = EncoderRecord(PerStep(read="before", separator=""), readout=Readout("value"))
SURPRISED = model(
    "qwen2",
    EncoderRecord(readout=Readout("value", surprise=True)),
)
MODELS = {"qwen2": model("qwen2"), "llama": model("llama"), "before": model("qwen2", BEFORE), "surprise": SURPRISED}

LARGE = 1 << 30


def token_bytes(name: str) -> int:
    """Keys and values of all layers and the head's outputs, in the numbers of the weights."""
    config, record = MODELS[name].backbone.config, MODELS[name].record
    width = 2 * config.num_hidden_layers * config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    return (width + record.readout.n_labels) * next(MODELS[name].parameters()).element_size()


def held(growing: IncrementalScorer) -> int:
    """Bytes of the memory behind all tensors that are kept."""
    trees = growing._trees.values()
    tensors = [one for tree in trees for one in [tree.logits, *(side for pair in tree.states for side in pair)]]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())


def levels(groups: list[list[Trajectory]]) -> list[list[Score]]:
    """What a search asks: at each depth, the prefixes of that length."""
    deepest = max(len(t) for group in groups for t in group)
    return [
        [Score(t.problem, t.prefix(depth)) for group in groups for t in group if len(t) >= depth]
        for depth in range(1, deepest + 1)
    ]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", MODELS)
def test_a_search_by_levels_equals_scoring_each_trajectory(name: str) -> None:
    groups = [random_trajectories(seed) for seed in range(4)]
    growing, whole = IncrementalScorer(MODELS[name], max_bytes=LARGE), DiscriminativeScorer(MODELS[name])
    spread = []
    for questions in levels(groups):
        for question, scored in zip(questions, growing.score_many(questions), strict=True):
            (alone,) = whole.score_many([question])
            np.testing.assert_allclose(scored.scores, alone.scores, rtol=1e-4, atol=1e-5)
            assert scored.tokens_unshared == alone.tokens_unshared
            spread += scored.scores.tolist()
    assert np.nanstd(spread) > 0.01


@settings(max_examples=scaled(20), deadline=None)
@given(
    SEEDS,
    st.integers(1, 6),
    st.sampled_from(["qwen2", "before", "surprise"]),
    st.sampled_from([1, 150, 10_000]),
    st.sampled_from([60, 200, 10_000]),
)
def test_any_order_of_questions_equals_scoring_each(
    seed: int, rows: int, name: str, batch_tokens: int, room: int
) -> None:
    """Deep before shallow, repeated, several problems in passes of any size."""
    rng = np.random.default_rng(seed)
    asked = [q for level in levels([random_trajectories(seed + i, rows) for i in range(3)]) for q in level]
    growing = IncrementalScorer(MODELS[name], max_bytes=room * token_bytes(name), batch_tokens=batch_tokens)
    whole = DiscriminativeScorer(MODELS[name])
    for part in np.array_split(rng.integers(0, len(asked), 12), 4):
        questions = [asked[i] for i in part]
        alone = [whole.score_many([question])[0] for question in questions]
        for got, expected in zip(growing.score_many(questions), alone, strict=True):
            np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-4, atol=1e-5)
        assert growing.nbytes == held(growing) == growing.tokens * token_bytes(name) <= room * token_bytes(name)


def test_every_node_is_paid_once_over_all_calls() -> None:
    groups = [random_trajectories(seed) for seed in range(3)]
    growing = IncrementalScorer(MODELS["qwen2"], max_bytes=LARGE)
    paid = sum(scored.tokens for questions in levels(groups) for scored in growing.score_many(questions))
    trees = [StepTree.from_trajectories(group) for group in groups]
    assert paid == growing.tokens == sum(len(MODELS["qwen2"].encoder.encode_tree(tree)) for tree in trees)
    assert all(s.tokens == 0 for questions in levels(groups) for s in growing.score_many(questions))


def test_a_question_without_steps_pays_for_the_prompt_once() -> None:
    growing, problem = IncrementalScorer(MODELS["qwen2"], max_bytes=LARGE), Problem("p", "What is 12 + 5?")
    first, second = growing.score_many([Score(problem, ()), Score(problem, ())])
    assert (first.scores.shape, second.tokens) == ((0,), 0)
    assert first.tokens == first.tokens_unshared == len(MODELS["qwen2"].encoder.prompt_ids(problem))


def test_memory_is_bounded_and_what_was_forgotten_is_paid_again() -> None:
    problems = [Problem(f"p{i}", "What is 12 + 5?") for i in range(3)]
    questions = [Score(problem, (Step("12 + 5 = 17\n"),)) for problem in problems]
    one = IncrementalScorer(MODELS["qwen2"], max_bytes=LARGE).score_many(questions[:1])[0]
    growing = IncrementalScorer(MODELS["qwen2"], max_bytes=2 * one.tokens * token_bytes("qwen2"))
    for question in questions:
        growing.score_many([question])
        assert growing.tokens <= 2 * one.tokens
    # p1 and p2 are kept, p0 was used longest ago.
    assert [growing.score_many([questions[i]])[0].tokens for i in (2, 1, 0)] == [0, 0, one.tokens]
    small = IncrementalScorer(MODELS["qwen2"], max_bytes=1)
    np.testing.assert_allclose(small.score_many(questions[:1])[0].scores, one.scores, rtol=1e-5)
    assert small.tokens == 0
    growing.clear()
    assert growing.tokens == 0
    with pytest.raises(ValueError, match="at least 1"):
        IncrementalScorer(MODELS["qwen2"], max_bytes=0)


@settings(max_examples=scaled(10), deadline=None)
@given(SEEDS, st.sampled_from([100, 200, 400]))
def test_room_is_made_before_a_pass_and_kept_until_the_call_is_over(seed: int, room: int) -> None:
    """Many problems in one call: whatever its size, what it has scored goes before the rest is encoded."""
    rng = np.random.default_rng(seed)
    asked = [q for level in levels([random_trajectories(seed + i, 3) for i in range(8)]) for q in level]
    most = room * token_bytes("qwen2")
    growing = IncrementalScorer(MODELS["qwen2"], max_bytes=most, batch_tokens=1)
    real, before = growing._encode, []

    def watched(trees: list[GrowingTree]) -> None:
        before.append(held(growing))
        real(trees)
        own = [tree for tree in trees if tree.nbytes <= most]
        assert held(growing) + sum(tree.nbytes for tree in own) <= most

    growing._encode = watched  # type: ignore[method-assign, assignment]
    for question in rng.permutation(len(asked))[:4]:
        growing.score_many([asked[question]])
    growing.clear()
    growing.score_many(asked)
    assert max(before) > 0 or room < 400, "in little room no tree may fit, and then nothing is kept"


def out_of_memory(
    growing: IncrementalScorer, monkeypatch: pytest.MonkeyPatch, holds: Callable[[int], bool]
) -> list[int]:
    """A card whose memory runs out by the tokens kept and those of a pass; the numbers of rows of failed passes."""
    real, failed = growing.model.forward_cached, []

    def limited(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if not holds(growing.tokens + sum(tree.encoded for tree in rest[-1].trees) + ids.numel()):
            failed.append(len(ids))
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return real(ids, *rest)

    monkeypatch.setattr(growing.model, "forward_cached", limited)
    return failed


def test_memory_that_runs_out_is_given_back_and_the_pass_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = DiscriminativeScorer(model())
    growing = IncrementalScorer(model(), max_bytes=LARGE)
    failed = out_of_memory(growing, monkeypatch, lambda tokens: tokens <= 300)
    asked = [q for level in levels([random_trajectories(seed, 2) for seed in range(25)]) for q in level]
    rng = np.random.default_rng(0)
    for _ in range(30):
        questions = [asked[int(i)] for i in rng.integers(0, len(asked), 4)]
        for got, question in zip(growing.score_many(questions), questions, strict=True):
            np.testing.assert_allclose(got.scores, whole.score_many([question])[0].scores, rtol=1e-4, atol=1e-5)
    assert growing.rescued == len(failed) > 2
    assert growing.nbytes == held(growing)


def test_a_tree_that_fits_no_memory_is_told_and_the_next_call_finds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    growing, problem, steps = IncrementalScorer(model(), max_bytes=LARGE), Problem("p", "?"), (Step("12 + 5 = 17\n"),)
    failed = out_of_memory(growing, monkeypatch, lambda tokens: tokens <= 60)
    growing.score_many([Score(problem, steps)])
    with pytest.raises(ModelError, match=r"a tree of \d+ tokens does not fit the memory of cpu: pass --dtype bfloat16"):
        growing.score_many([Score(problem, steps * 20)])
    assert failed == [1, 1]
    assert growing.tokens == 0
    assert len(growing.score_many([Score(problem, steps)])[0].scores) == 1


def narrowing(steps: int, width: int) -> list[list[Score]]:
    """What a beam search of one beam asks: `width` rivals at each step, of which the first goes on."""
    problem, path, asked = Problem("p", "What is 12 + 5?"), (), []
    for depth in range(steps):
        rivals = [(*path, Step(f"{depth} + {i} = {depth + i}\n")) for i in range(width)]
        asked.append([Score(problem, rival) for rival in rivals])
        path = rivals[0]
    return asked


@pytest.mark.parametrize("name", MODELS)
def test_branches_that_nobody_asks_about_go_before_the_rest_of_their_tree(name: str) -> None:
    rounds, whole = narrowing(6, 4), DiscriminativeScorer(MODELS[name])
    free = IncrementalScorer(MODELS[name], max_bytes=LARGE)
    paid = [sum(one.tokens for one in free.score_many(questions)) for questions in rounds]
    longest = whole.score_many(rounds[-1][:1])[0].tokens
    # Room for the path and its newest rivals, not for those given up on the way.
    room = longest + paid[-1]
    assert room < free.tokens
    tight = IncrementalScorer(MODELS[name], max_bytes=room * token_bytes(name))
    for questions, tokens in zip(rounds, paid, strict=True):
        made = tight.score_many(questions)
        assert sum(one.tokens for one in made) == tokens, "nothing on the way is encoded twice"
        assert tight.tokens <= room
        for question, one in zip(questions, made, strict=True):
            expected = whole.score_many([question])[0]
            np.testing.assert_allclose(one.scores, expected.scores, rtol=1e-4, atol=1e-5)
            assert one.tokens_unshared == expected.tokens_unshared
    # A rival of the first round comes back: it alone is paid again, and told as before.
    (again,) = tight.score_many([rounds[0][-1]])
    assert again.tokens == len(MODELS[name].encoder.step_ids(rounds[0][-1].steps[0], rounds[0][-1].problem, 1))
    np.testing.assert_array_equal(again.scores, free.score_many([rounds[0][-1]])[0].scores)


def test_a_failed_call_leaves_nothing_half_encoded() -> None:
    growing = IncrementalScorer(MODELS["qwen2"], max_bytes=LARGE)
    problem, fine = Problem("p", "What is 12 + 5?"), Step("12 + 5 = 17\n")
    expected = growing.score_many([Score(problem, (fine, fine))])[0]
    with pytest.raises(InputError, match="drop empty steps"):
        growing.score_many([Score(problem, (fine, Step("x\n"), Step("")))])
    again = growing.score_many([Score(problem, (fine, fine))])[0]
    np.testing.assert_allclose(again.scores, expected.scores, rtol=1e-5)
    with pytest.raises(InputError, match="empty prompt"):
        IncrementalScorer(model(record=EncoderRecord(PerStep(prompt_format="{prompt}"))), max_bytes=9).score_many(
            [Score(Problem("p", ""), (fine,))]
        )


@pytest.mark.parametrize("too_long", ["error", "drop"])
def test_steps_too_long_are_treated_as_in_packing(too_long: str) -> None:
    record = EncoderRecord(PerStep(max_length=30, too_long=too_long))  # type: ignore[arg-type]
    reward = model(record=record)
    growing = IncrementalScorer(reward, max_bytes=LARGE)
    question = Score(Problem("p", "What is 12 + 5?"), (Step("12 + 5 = 17\n"),) * 4)
    if too_long == "error":
        with pytest.raises(InputError, match="more than 30"):
            growing.score_many([question])
        return
    expected = DiscriminativeScorer(reward).score_many([question])[0].scores
    assert 0 < np.isnan(expected).sum() < 4
    np.testing.assert_allclose(growing.score_many([question])[0].scores, expected, rtol=1e-4)


def test_the_scorer_grows_trees_when_it_is_given_a_cache() -> None:
    scorer = DiscriminativeScorer(MODELS["qwen2"], cache_bytes=LARGE)
    problem, steps = Problem("p", "What is 12 + 5?"), (Step("12 + 5 = 17\n"), Step("Answer: 17\n"))
    first = scorer.score_many([Score(problem, steps[:1])])[0]
    second = scorer.score_many([Score(problem, steps)])[0]
    assert first.tokens + second.tokens == second.tokens_unshared
    np.testing.assert_allclose(
        second.scores, DiscriminativeScorer(MODELS["qwen2"]).score(problem.text, [s.text for s in steps]), rtol=1e-4
    )


def test_ancestors_of_a_small_tree() -> None:
    # 0 -> 1 -> 3, 0 -> 2
    above = ancestors(np.array([-1, 0, 0, 1]), np.array([2, 3]))
    assert above.tolist() == [[True, False, True, False], [True, True, False, True]]


def test_reading_before_a_step_of_one_token_reads_its_parent() -> None:
    """Two siblings of one token each: in depth-first order the second one follows the first, which it must not see."""
    reward = MODELS["before"]
    problem = Problem("p", "What is 12 + 5?")
    pair = [Trajectory(problem, (Step("12 + 5"), Step(text))) for text in ("x", "q")]
    assert all(len(reward.encoder.step_ids(t.steps[1])) == 1 for t in pair)
    scorer = DiscriminativeScorer(reward)
    together = scorer.score_many([Score(problem, t.steps) for t in pair])
    for trajectory, scored in zip(pair, together, strict=True):
        (alone,) = scorer.score_many([Score(problem, trajectory.steps)])
        np.testing.assert_allclose(scored.scores, alone.scores, rtol=1e-4)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("room", [1, 120, 10_000])
def test_a_step_s_score_once_told_is_told_again_to_the_last_bit(name: str, room: int) -> None:
    rng = np.random.default_rng(0)
    asked = [q for level in levels([random_trajectories(seed, 8) for seed in range(5)]) for q in level]
    growing = IncrementalScorer(MODELS[name], max_bytes=room * token_bytes(name))
    told: dict[tuple[object, ...], float] = {}
    for _ in range(40):
        # Batches of any size and mix, so that trees come, go, and are encoded again beside others.
        questions = [asked[int(i)] for i in rng.integers(0, len(asked), int(rng.integers(1, 12)))]
        for question, scored in zip(questions, growing.score_many(questions), strict=True):
            for depth, score in enumerate(scored.scores.tolist(), 1):
                place = (question.problem.id, *(step.identity for step in question.steps[:depth]))
                first = told.setdefault(place, score)
                assert first == score or (np.isnan(first) and np.isnan(score))


def test_remembered_scores_are_bounded_and_forgotten_when_weights_change() -> None:
    asked = [q for level in levels([random_trajectories(1, 8)]) for q in level]
    growing = IncrementalScorer(MODELS["qwen2"], max_bytes=1, max_scores=3)
    growing.score_many(asked)
    assert len(growing._first_scores) == 3
    growing.clear()
    assert not growing._first_scores
    with pytest.raises(ValueError, match="max_scores"):
        IncrementalScorer(MODELS["qwen2"], max_bytes=1, max_scores=0)
