"""Scores by a stand-in engine with vLLM's rules: those of the model in this process, each token encoded once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.score.literal_recipes import RECIPES
from tests.score.tiny_checkpoints import build
from tests.vllm_engine import BLOCK, PoolingParams, SamplingParams, StandIn

from stepreward.core.errors import InputError, ModelError, UnknownNameError
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.score.cache.first_scores import FirstScores
from stepreward.score.checkpoints.known_checkpoints import by_name, checkpoints
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.load import load
from stepreward.score.remote import vllm_scorer
from stepreward.score.remote.vllm_scorer import VllmLabelScorer, VllmScorer, start

PROBLEM = Problem("p", "What is 12 + 5?")
STEPS = tuple(Step(text) for text in ("12 + 5 = 17.", "That is 10 + 7, and so it is 17.", "So the answer is 17."))
QWEN = "Qwen/Qwen2.5-Math-PRM-7B"


def engine_of(tmp_path: Path) -> tuple[StandIn, VllmScorer, DiscriminativeScorer]:
    built = build(tmp_path, "qwen", "score-mlp")
    local = load(tmp_path, like=QWEN)
    assert isinstance(local, DiscriminativeScorer)
    engine = StandIn(built.model, built.tokenizer, head=local.model.head)
    return engine, VllmScorer(engine, PoolingParams, StepEncoder(by_name(QWEN).record, built.tokenizer)), local


def test_a_search_that_goes_on_pays_for_new_tokens_alone(tmp_path: Path) -> None:
    engine, scorer, local = engine_of(tmp_path)
    paid, last = 0, 0
    for n in range(1, 4):
        (got,) = scorer.score_many([Score(PROBLEM, STEPS[:n])])
        (expected,) = local.score_many([Score(PROBLEM, STEPS[:n])])
        np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
        assert got.tokens_unshared == expected.tokens_unshared
        paid, last = paid + got.tokens, len(engine.calls[-1][0][0])
    # Of each call the tokens of the last, not yet whole block are encoded again.
    assert paid <= last + 2 * BLOCK
    before = len(engine.calls)
    (again,) = scorer.score_many([Score(PROBLEM, STEPS)])
    assert (again.tokens, len(engine.calls)) == (0, before), "what was told is told again"


def test_many_questions_are_one_call(tmp_path: Path) -> None:
    engine, scorer, local = engine_of(tmp_path)
    questions = [Score(Problem(f"p{i}", f"What is {i} + 5?"), STEPS[: 1 + i % 3]) for i in range(7)]
    made = scorer.score_many(questions)
    for got, expected in zip(made, local.score_many(questions), strict=True):
        np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
    assert len(engine.calls) == 1


def test_what_was_forgotten_is_asked_for_without_the_cache(tmp_path: Path) -> None:
    engine, scorer, local = engine_of(tmp_path)
    scorer.score_many([Score(PROBLEM, STEPS)])
    scorer._reader._first_scores = FirstScores(1)
    (got,) = scorer.score_many([Score(PROBLEM, STEPS)])
    np.testing.assert_allclose(got.scores, local.score_many([Score(PROBLEM, STEPS)])[0].scores, atol=1e-5)
    assert [one.skip_reading_prefix_cache for _, (one,) in engine.calls] == [False, False, True]


def test_an_engine_with_another_head_or_pooler_is_an_error(tmp_path: Path) -> None:
    engine, scorer, _ = engine_of(tmp_path)
    whole = engine.head
    engine.head = lambda hidden: whole(hidden)[:, :1]
    with pytest.raises(ModelError, match="expected 2 a token"):
        scorer.score_many([Score(PROBLEM, STEPS)])
    engine.head = lambda hidden: whole(hidden)[-1:]
    with pytest.raises(ModelError, match="pooling type ALL"):
        scorer.score_many([Score(PROBLEM, STEPS)])


LABELLED = [
    row for row in checkpoints.values() if row.record.readout.label_tokens and RECIPES[row.name].layout == "tokens"
]


@pytest.mark.parametrize(
    "row", [row for row in LABELLED if not row.record.second_pass], ids=lambda row: row.name.split("/")[-1]
)
def test_label_tokens_are_asked_for_by_id(row: object, tmp_path: Path) -> None:
    recipe = RECIPES[row.name]  # type: ignore[attr-defined]
    built = build(tmp_path, recipe.families[0], "tokens", seed=recipe.seed)
    engine = StandIn(built.model, built.tokenizer)
    scorer = VllmLabelScorer(engine, SamplingParams, StepEncoder(row.record, built.tokenizer))  # type: ignore[attr-defined]
    texts = recipe.cleaned([step.text for step in STEPS])
    expected = recipe.score(built, PROBLEM.text, texts)
    (got,) = scorer.score_many([Score(PROBLEM, STEPS)])
    np.testing.assert_allclose(got.scores, expected, atol=1e-5)
    assert got.tokens <= sum(len(ids) for ids in engine.calls[0][0])
    assert scorer.score_many([Score(PROBLEM, STEPS)])[0].tokens == 0


@pytest.mark.parametrize(
    "row", [row for row in LABELLED if not row.record.second_pass], ids=lambda row: row.name.split("/")[-1]
)
@pytest.mark.parametrize("interrupted", [False, True])
def test_an_engine_that_scores_prompts_encodes_a_sequence_once(row: object, interrupted: bool, tmp_path: Path) -> None:
    recipe = RECIPES[row.name]  # type: ignore[attr-defined]
    built = build(tmp_path, recipe.families[0], "tokens", seed=recipe.seed)
    engine = StandIn(built.model, built.tokenizer, second_runner=True, gives_up=interrupted)
    scorer = VllmLabelScorer(engine, SamplingParams, StepEncoder(row.record, built.tokenizer))  # type: ignore[attr-defined]
    other = Problem("q", "What is 7 + 5?")
    questions = [Score(PROBLEM, STEPS), Score(other, STEPS[:1]), Score(other, STEPS[:2])]
    made = scorer.score_many(questions)
    for question, got in zip(questions, made, strict=True):
        expected = recipe.score(built, question.problem.text, recipe.cleaned([step.text for step in question.steps]))
        np.testing.assert_allclose(got.scores, expected, atol=1e-5)
    asked = [len(ids) for ids, _ in engine.calls]
    if row.record.encoding.kind != "per-prefix" and not interrupted:  # type: ignore[attr-defined]
        # Each sequence of several new steps is one prompt, its tokens paid once.
        assert made[0].tokens == max(len(ids) for call, _ in engine.calls for ids in call)
        assert sum(asked) <= 3
    (again,) = scorer.score_many([Score(PROBLEM, (*STEPS, Step("It is 17.")))])
    assert np.isfinite(again.scores).all()
    assert len(engine.calls[-1][0]) == 1, "one new step is a prompt of its own, read from the cache"


def test_what_an_engine_cannot_say(tmp_path: Path) -> None:
    built = build(tmp_path, "qwen", "tokens")
    encoder = StepEncoder(by_name(QWEN).record, built.tokenizer)
    with pytest.raises(ModelError, match="must compare label_tokens"):
        VllmLabelScorer(StandIn(built.model, built.tokenizer), SamplingParams, encoder)
    implicit = StepEncoder(by_name("PRIME-RL/EurusPRM-Stage2").record, built.tokenizer)
    with pytest.raises(ModelError, match="scored locally"):
        VllmScorer(StandIn(built.model, built.tokenizer), PoolingParams, implicit)
    with pytest.raises(ModelError, match="vLLM is not here"):
        start("somebody/model", encoder)
    with pytest.raises(ModelError, match="vLLM is not here"):
        load(f"vllm:{tmp_path}", like=QWEN)


def test_arguments_of_an_engine_stand_behind_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, started = build(tmp_path, "qwen", "tokens"), list[dict[str, object]]()
    engine = StandIn(built.model, built.tokenizer)
    monkeypatch.setattr(vllm_scorer, "vllm_module", lambda: SimpleNamespace(SamplingParams=SamplingParams))
    monkeypatch.setattr(vllm_scorer, "vllm_engine", lambda **given: [engine, started.append(given)][0])
    like = "ryokamoi/Qwen-2.5-7B-FoVer-PRM"
    made = load(f'vllm:{tmp_path}?engine={{"dtype":"float32"}}', like=like)
    assert started == [{"model": str(tmp_path), "enable_prefix_caching": True, "dtype": "float32"}]
    assert made.name != load(f"vllm:{tmp_path}", like=like).name
    assert np.isfinite(made.score_many([Score(PROBLEM, STEPS)])[0].scores).all()
    with pytest.raises(InputError, match="engine must be a JSON object, got 'float32'"):
        load(f"vllm:{tmp_path}?engine=float32", like=like)
    with pytest.raises(UnknownNameError, match="setting of a reward model in an engine"):
        load(f"vllm:{tmp_path}?dtype=float32", like=like)
