"""Every row of the table of checkpoints against its published recipe, written out by hand, one trajectory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.score.awkward_texts import CASES, cases
from tests.score.literal_recipes import RECIPES, cut_at
from tests.score.tiny_checkpoints import Built, build

from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.score.checkpoints.known_checkpoints import checkpoints
from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import EncoderRecord, StepEncoder
from stepreward.score.implicit import ImplicitScorer
from stepreward.score.load import load
from stepreward.score.model.step_reward_model import StepRewardModel

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Checkpoint], list[tuple[Built, Any]]]:
    made: dict[str, list[tuple[Built, Any]]] = {}

    def of(row: Checkpoint) -> list[tuple[Built, Any]]:
        if row.name not in made:
            recipe = RECIPES[row.name]
            made[row.name] = []
            for family in recipe.families:
                folder = tmp_path_factory.mktemp("checkpoint")
                one = build(
                    folder, family, recipe.layout, row.architectures[0] if row.architectures else "", recipe.seed
                )
                reference = folder / "reference" if one.reference is not None else ""
                made[row.name].append((one, load(folder, like=row.name, reference=reference)))
        return made[row.name]

    return of


def shown(row: Checkpoint) -> str:
    return row.name.split("/")[-1]


def test_every_row_has_a_literal_recipe_and_every_recipe_a_row() -> None:
    assert {row.name for row in checkpoints.values()} == set(RECIPES)


def compare(got: np.ndarray, expected: list[float]) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE, equal_nan=True)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("row", checkpoints.values(), ids=shown)
def test_a_row_scores_as_its_published_recipe(row: Checkpoint, built: Callable) -> None:
    recipe, spread = RECIPES[row.name], []
    for one, scorer in built(row):
        for name, (question, steps) in cases(row.record).items():
            (answer,) = scorer.score_many([Score(Problem(name, question), tuple(Step(s) for s in steps))])
            expected = recipe.score(one, question, recipe.cleaned(steps))
            assert len(expected) == len(steps)
            compare(answer.scores, expected)
            spread += [x for x in expected if not math.isnan(x)]
    assert np.std(spread) > 1e-2 * row.record.readout.beta, "scores that do not differ prove nothing"
    assert np.isfinite(spread).mean() > 0.9


@pytest.mark.sampled(2)
@pytest.mark.parametrize("row", checkpoints.values(), ids=shown)
def test_questions_together_equal_questions_alone(row: Checkpoint, built: Callable) -> None:
    """Shared prefixes, cut trees and merged tokens change no score."""
    problem = Problem("p", "What is 12 + 5?")
    texts = ["12 + 5 = 17.", "17.\n\nSo", "Answer: 17", "no"]
    asked = [
        Score(problem, tuple(Step(texts[i]) for i in path))
        for path in ([0], [0, 1], [0, 1, 2], [0, 2, 1], [1, 0, 2, 3], [0, 1, 2], [3])
    ]
    for _, scorer in built(row):
        alone = [scorer.score_many([question])[0] for question in asked]
        for row_tokens in (40, 100_000):
            scorer.row_tokens = row_tokens
            together = scorer.score_many(asked)
            for a, b in zip(together, alone, strict=True):
                compare(a.scores, b.scores.tolist())
                assert a.tokens_unshared == b.tokens_unshared
        assert sum(a.tokens for a in together) < sum(b.tokens for b in alone)
        if row.record.per_step:
            growing = DiscriminativeScorer(scorer.model, cache_bytes="64MiB")
            for question, b in zip(asked, alone, strict=True):
                compare(growing.score_many([question])[0].scores, b.scores.tolist())


def shortened(scorer: Any, record: EncoderRecord) -> Any:
    """The same weights under another record."""
    if isinstance(scorer, ImplicitScorer):
        return ImplicitScorer(scorer.model, scorer.reference, StepEncoder(record, scorer.encoder.encoder.tokenizer))
    model = scorer.model
    return DiscriminativeScorer(StepRewardModel(model.backbone, model.tokenizer, record, head=model.head))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("row", [r for r in checkpoints.values() if r.record.encoding.too_long == "drop"], ids=shown)
def test_steps_beyond_the_longest_input_are_left_out(row: Checkpoint, built: Callable) -> None:
    recipe = RECIPES[row.name]
    for one, scorer in built(row):
        question, steps = CASES["many"]
        lengths = recipe.lengths(one, question, recipe.cleaned(steps))
        for limit in (lengths[5], lengths[5] - 1):
            short = replace(row.record, encoding=replace(row.record.encoding, max_length=limit))
            got = shortened(scorer, short).score(question, steps)
            with cut_at(limit):
                expected = recipe.score(one, question, recipe.cleaned(steps))
            compare(got, expected)
            assert 0 < np.isnan(got).sum() < len(steps)


@pytest.mark.parametrize("row", [r for r in checkpoints.values() if r.record.encoding.too_long == "cut"], ids=shown)
def test_prefixes_beyond_the_longest_input_are_cut(row: Checkpoint, built: Callable) -> None:
    question, steps = CASES["many"]
    for one, scorer in built(row):
        whole = scorer.score(question, steps)
        limit = 60
        got = shortened(scorer, replace(row.record, encoding=replace(row.record.encoding, max_length=limit))).score(
            question, steps
        )
        with cut_at(limit):
            expected = RECIPES[row.name].score(one, question, steps)
        compare(got, expected)
        assert np.isfinite(got).all()
        assert not np.allclose(got, whole)
