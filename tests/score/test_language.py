"""Scores of a language model about text, against one forward pass a sequence and formulas written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.policies.model_sources import resolve
from stepreward.score.implicit import LanguageModel
from stepreward.score.language import PROMPT_TOKENS, CertaintyScorer, EntropyScorer, LikelihoodScorer, reference_after

FOLDER = resolve("builtin:arithmetic")
MODEL = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
TOKENIZER = AutoTokenizer.from_pretrained(FOLDER)
PROBLEM = Problem("p", "Mia has 12 apples. Mia buys 5 more. How many apples does Mia have?", "17")
STEPS = (Step("12 + 5 = 17\n"), Step("tool says 17\n", "observation", "tool"), Step("Answer: 17\n"))
QUESTIONS = [Score(PROBLEM, STEPS), Score(PROBLEM, STEPS[:1]), Score(PROBLEM, (Step("12 + 5 = 18\n"), *STEPS[1:]))]


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def distributions(tokens: list[int]) -> torch.Tensor:
    """(T, V) log-probabilities of each token's distribution; row 0 is not known."""
    with torch.inference_mode():
        logits = MODEL(torch.tensor([tokens])).logits[0].float()
    return torch.cat([torch.zeros_like(logits[:1]), logits[:-1].log_softmax(-1)])


def by_step(question: Score, measure: object) -> np.ndarray:
    tokens, made = ids(question.problem.text + "\n"), []
    bounds = []
    for step in question.steps:
        own = ids(step.text)
        bounds.append((len(tokens), len(tokens) + len(own)))
        tokens += own
    rows = distributions(tokens)
    for step, (a, b) in zip(question.steps, bounds, strict=True):
        made.append(float(np.mean([measure(rows[t]) for t in range(a, b)])) if step.kind == "action" else np.nan)  # type: ignore[operator]
    return np.array(made)


def entropy(row: torch.Tensor) -> float:
    return float(sum(-p.exp() * p for p in row))


def certainty(row: torch.Tensor) -> float:
    size = len(row)
    return float(-sum(torch.log(size * p.exp()) for p in row) / size)


@pytest.mark.parametrize(("kind", "measure"), [(EntropyScorer, entropy), (CertaintyScorer, certainty)])
def test_means_over_tokens_are_those_of_one_sequence_alone(kind: type, measure: object) -> None:
    scorer = kind(LanguageModel.of(MODEL), TOKENIZER)
    answers = scorer.score_many(QUESTIONS)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        np.testing.assert_allclose(answer.scores, by_step(question, measure), rtol=1e-4, atol=1e-5)
    assert sum(a.tokens for a in answers) < sum(a.tokens_unshared for a in answers)


def likelihood(prefix: list[int], answer: str) -> float:
    said = ids(answer)
    rows = distributions(prefix + said)
    return float(np.exp(np.mean([float(rows[len(prefix) + k][token]) for k, token in enumerate(said)])))


def test_likelihoods_of_the_reference_after_each_step_and_what_each_adds() -> None:
    scorer = LikelihoodScorer(LanguageModel.of(MODEL), TOKENIZER)
    gain = LikelihoodScorer(LanguageModel.of(MODEL), TOKENIZER, gain=True)
    for question in QUESTIONS:
        prefix = ids(question.problem.text + "\n")
        expected, before = [likelihood(prefix, "Answer: 17")], []
        for step in question.steps:
            prefix = prefix + ids(step.text)
            before.append(likelihood(prefix, "Answer: 17"))
        (answer,), (added,) = scorer.score_many([question]), gain.score_many([question])
        actions = [i for i, step in enumerate(question.steps) if step.kind == "action"]
        np.testing.assert_allclose(answer.scores[actions], np.array(before)[actions], rtol=1e-4)
        expected += [before[i] for i in actions]
        np.testing.assert_allclose(added.scores[actions], np.diff(expected), rtol=1e-3, atol=1e-6)
        assert np.isnan(np.delete(answer.scores, actions)).all()


@pytest.mark.parametrize(
    ("mean", "measure"),
    [
        ("geometric", lambda logs: np.exp(np.mean(logs))), ("arithmetic", lambda logs: np.mean(np.exp(logs))),
        ("log", np.mean), ("sum", np.sum), ("product", lambda logs: np.prod(np.exp(logs))),
    ],
)  # fmt: skip
def test_likelihoods_of_tokens_become_one_number_as_asked(mean: Any, measure: Callable[[list[float]], float]) -> None:
    question = QUESTIONS[0]
    (answer,) = LikelihoodScorer(LanguageModel.of(MODEL), TOKENIZER, mean=mean).score_many([question])
    prefix, said = ids(question.problem.text + "\n" + question.steps[0].text), ids("Answer: 17")
    rows = distributions(prefix + said)
    logs = [float(rows[len(prefix) + k][token]) for k, token in enumerate(said)]
    assert answer.scores[0] == pytest.approx(measure(logs), rel=1e-3)


def test_a_mean_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownNameError, match="arithmetic"):
        LikelihoodScorer(LanguageModel.of(MODEL), TOKENIZER, mean="arithmetical")  # type: ignore[arg-type]


def test_tokens_that_come_with_prompt_and_steps_are_used_as_they_are() -> None:
    split = [token for character in STEPS[0].text for token in ids(character)]
    prompt = ids(PROBLEM.text + "\n")
    told = Problem("p", "something else", "17", {PROMPT_TOKENS: prompt})
    step = Step(STEPS[0].text, tokens=tuple(split))
    (answer,) = EntropyScorer(LanguageModel.of(MODEL), TOKENIZER).score_many([Score(told, (step,))])
    rows = distributions(prompt + split)
    np.testing.assert_allclose(answer.scores[0], np.mean([entropy(r) for r in rows[len(prompt) :]]), rtol=1e-4)


def test_a_problem_without_reference_is_a_clear_error() -> None:
    with pytest.raises(InputError, match="has no reference"):
        reference_after()(Problem("q", "?"))
    with pytest.raises(InputError, match="empty"):
        LikelihoodScorer(LanguageModel.of(MODEL), TOKENIZER, answer=lambda _: "").score_many(QUESTIONS[:1])


def test_texts_are_scored_as_questions() -> None:
    scorer, text = EntropyScorer(LanguageModel.of(MODEL), TOKENIZER), "12 + 5 = 17\n"
    (asked,) = scorer.score_many([Score(Problem("any", PROBLEM.text), (Step(text),))])
    assert scorer.score(PROBLEM.text, [text]).tolist() == asked.scores.tolist()
