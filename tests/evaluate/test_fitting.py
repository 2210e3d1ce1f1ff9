"""Fitting calibrators out of sample: against a plain loop, on scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from stepreward.core.catalog import calibrate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.evaluate.fitting import fit_calibrator
from stepreward.score.calibrate.calibrators import Temperature

KEY = Key.seed(4)


def world(problems: int, temperature: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two solutions of each problem, up to three steps; logits are `temperature` times what the labels say."""
    rng = KEY.fold("world").rng()
    scores = expit(2 * rng.standard_normal((2 * problems, 3)))
    labels = (rng.random(scores.shape) < expit(logit(scores) / temperature)).astype(float)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    labels[rng.random(scores.shape) < 0.2] = np.nan
    return scores.ravel(), labels.ravel(), [f"p{step // 6}" for step in range(scores.size)]


def test_over_confidence_is_found_and_undone_out_of_sample() -> None:
    scores, labels, problems = world(600, 3.0)
    found = fit_calibrator(calibrate["temperature"], scores, labels, problems, KEY)
    assert isinstance(found.calibrator, Temperature)
    assert found.calibrator.temperature_ == pytest.approx(3.0, rel=0.15)
    assert found.pairs == int((~np.isnan(scores) & ~np.isnan(labels)).sum())
    assert found.change.high < 0
    assert found.change.value == pytest.approx(found.after.value - found.before.value)
    # Nothing to undo: out of sample a fit can only cost a little.
    scores, labels, problems = world(600, 1.0)
    honest = fit_calibrator(calibrate["temperature"], scores, labels, problems, KEY)
    assert abs(honest.change.value) < 2e-3


def test_each_half_is_mapped_by_a_fit_on_the_other() -> None:
    scores, labels, problems = world(7, 2.0)
    found = fit_calibrator(calibrate["isotonic"], scores, labels, problems, KEY)
    known = [(p, s, y) for p, s, y in zip(problems, scores, labels, strict=True) if s == s and y == y]
    names = sorted({p for p, _, _ in known})
    draw = KEY.fold("halves").rng().permutation(len(names))
    half = {name: draw[i] % 2 == 0 for i, name in enumerate(names)}
    errors: dict[str, list[float]] = {name: [] for name in names}
    for p, s, y in known:
        other = [(b, c) for a, b, c in known if half[a] != half[p]]
        fit = calibrate["isotonic"]().fit([b for b, _ in other], [c for _, c in other])
        errors[p].append((fit.predict([s])[0] - y) ** 2)
    slow = np.mean([np.mean(each) for each in errors.values()])
    assert found.after.value == pytest.approx(slow, abs=1e-12)
    assert (found.problems, found.to_json()["brier_after"]["value"]) == (len(names), found.after.value)


def test_one_problem_cannot_be_halved() -> None:
    with pytest.raises(InputError, match="1 problems have both"):
        fit_calibrator(calibrate["platt"], np.array([0.2, 0.4]), np.array([0.0, 1.0]), ["p", "p"], KEY)


def test_two_problems_map_each_other() -> None:
    scores, labels = np.array([0.2, 0.4, 0.9]), np.array([0.0, 1.0, 1.0])
    found = fit_calibrator(calibrate["identity"], scores, labels, ["p", "p", "q"], KEY)
    # Means over problems of mean squared errors.
    assert found.after.value == pytest.approx(((0.04 + 0.36) / 2 + 0.01) / 2)
