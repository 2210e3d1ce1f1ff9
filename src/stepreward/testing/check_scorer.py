"""The contract of a scorer, checked by calling it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stepreward.core.runtime.flows import Score, Scored, Scorer
from stepreward.core.types import Step
from stepreward.testing.check_policy import PROBLEM
from stepreward.testing.rules import require, require_attributes

_STEPS = (
    Step("Mia has 12 apples.\n"),
    Step("search: apples that Mia buys\n"),
    Step("5\n", kind="observation", role="tool"),
    Step("12 + 5 = 17\n"),
    Step("Answer: 17"),
)
QUESTIONS = (
    Score(PROBLEM, _STEPS),
    Score(PROBLEM, _STEPS[:2]),
    Score(PROBLEM, (_STEPS[0], Step("12 + 5 = 16\n"), Step("Answer: 16"))),
    Score(replace(PROBLEM, id="check too", prompt="計算 1 + 1 🙂"), (Step("1 + 1 = 2"),)),
)
"""An observation, a shared prefix, a wrong step, and text beyond ASCII."""


def check_scorer(scorer: Scorer, questions: Sequence[Score] = QUESTIONS, *, tolerance: float = 1e-4) -> None:
    """Checks that a scorer keeps its contract: one score a step, the same in any batch.

    Args:
        scorer: what is checked; each question is scored five times.
        questions: at least 2, with different scores.
        tolerance: how far scores of one question may be apart, absolute; batches of floats round differently.

    Raises:
        ContractError: a rule is broken; the message names the rule and the remedy.
        ValueError: there are fewer than 2 questions.
    """
    if len(questions) < 2:
        raise ValueError(f"at least 2 questions are needed, got {len(questions)}")
    require_attributes(scorer, "batch_size")
    alone = [_ask(scorer, [question])[0] for question in questions]
    for question, scored in zip(questions, alone, strict=True):
        _check_scores(scorer, question, scored)
    numbers = range(len(questions))
    ways = [
        ("repeatable", "a question got two scores", "keep no state, and draw nothing", [[i] for i in numbers]),
        ("batches equal singles", "a question in a batch got other scores than alone",
         "pad with a mask, and answer in the order of the questions", [[*numbers], [*reversed(numbers)]]),
    ]  # fmt: skip
    for rule, found, remedy, batches in ways:
        for batch in batches:
            for i, scored in zip(batch, _ask(scorer, [questions[i] for i in batch]), strict=True):
                same = np.allclose(scored.scores, alone[i].scores, rtol=0, atol=tolerance, equal_nan=True)
                require(same, scorer, rule, f"{found}: {alone[i].scores} and {scored.scores}", remedy)
    for question, scored in zip(questions, alone, strict=True):
        chat = replace(question, problem=replace(question.problem, prompt=question.problem.messages))
        same = np.allclose(_ask(scorer, [chat])[0].scores, scored.scores, rtol=0, atol=tolerance, equal_nan=True)
        require(same, scorer, "text is one message", "a prompt as a chat message got other scores than as a text",
                "read problem.text or problem.messages, not problem.prompt")  # fmt: skip


def _ask(scorer: Scorer, questions: Sequence[Score]) -> list[Scored]:
    answers = scorer.score_many(questions)
    found = f"{len(questions)} questions got {len(answers)} answers"
    require(len(answers) == len(questions), scorer, "one answer a question", found, "return one Scored a question")
    return answers


def _check_scores(scorer: Scorer, question: Score, scored: Scored) -> None:
    scores = scored.scores
    array = isinstance(scores, np.ndarray) and scores.dtype == np.float64
    found = f"scores are {type(scores).__name__} {getattr(scores, 'dtype', '')}".rstrip()
    require(array, scorer, "float64", found, "return a NumPy array of float64")
    shape = (len(question.steps),)
    found = f"{shape[0]} steps got scores of shape {scores.shape}"
    require(scores.shape == shape, scorer, "one score a step", found, "return one number a step, observations included")
    observed = np.array([step.kind != "action" for step in question.steps], bool)
    found = f"observations got the scores {scores[observed]}"
    require(bool(np.isnan(scores[observed]).all()), scorer, "observations", found, "give observations NaN")
    require(not np.isinf(scores).any(), scorer, "NaN for unscored", f"scores are {scores}",
            "give NaN to what could not be scored")  # fmt: skip
    sane = min(scored.tokens, scored.tokens_unshared) >= 0
    found = f"tokens are {scored.tokens} and {scored.tokens_unshared}"
    require(sane, scorer, "tokens", found, "count what was encoded")
