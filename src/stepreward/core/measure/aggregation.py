"""One score a trajectory out of its steps' scores. (B, S) scores with a mask in, (B,) out; no step at all gives NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import aggregate
from stepreward.core.types import StepMask, Steps

Totals = NDArray[np.float64]


def totals_of(scores: Steps, method: str) -> Totals:
    """(B,) totals of step scores by a method of the family; scores that are NaN (padding, observations) do not count.

    Raises:
        UnknownNameError: no method has that name.
    """
    totals: Totals = aggregate[method].take({"scores": np.nan_to_num(scores), "mask": ~np.isnan(scores)})
    return totals


def _where_any(mask: StepMask, totals: Totals) -> Totals:
    return np.where(mask.any(axis=1), totals, np.nan)


@aggregate.method("min", paper="arXiv:2305.20050", equation="appendix E, as used by later work")
def minimum(scores: Steps, mask: StepMask) -> Totals:
    """Takes the worst step: a chain is as strong as its weakest link."""
    return _where_any(mask, np.where(mask, scores, np.inf).min(axis=1, initial=np.inf))


@aggregate.method("product", paper="arXiv:2305.20050", equation="section 2.6: the probability that all are right")
def product(scores: Steps, mask: StepMask) -> Totals:
    """Multiplies probabilities: all steps are right, if each is right independently of the others."""
    return _where_any(mask, np.where(mask, scores, 1.0).prod(axis=1))


@aggregate.method("last", paper="arXiv:2408.03314", equation="section 5.1")
def last(scores: Steps, mask: StepMask) -> Totals:
    """Takes the last step, the one that has seen the whole solution."""
    if not scores.shape[1]:
        return np.full(len(scores), np.nan)
    # The first real step from the right; a row without one becomes NaN below.
    at = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    return _where_any(mask, scores[np.arange(len(scores)), at])


@aggregate.method("mean", note="the plain mean, as many public evaluations use it")
def mean(scores: Steps, mask: StepMask) -> Totals:
    """Averages the steps."""
    return _where_any(mask, np.where(mask, scores, 0.0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1))


@aggregate.method("sum", note="the return of step rewards, as return decomposition defines them")
def total(scores: Steps, mask: StepMask) -> Totals:
    """Adds the steps: for rewards whose sum is the outcome."""
    return _where_any(mask, np.where(mask, scores, 0.0).sum(axis=1))


@aggregate.method("max", note="the best step; a control that should do worse than the others")
def maximum(scores: Steps, mask: StepMask) -> Totals:
    """Takes the best step."""
    return _where_any(mask, np.where(mask, scores, -np.inf).max(axis=1, initial=-np.inf))


@aggregate.method("geometric", note="the product without its preference for short solutions")
def geometric_mean(scores: Steps, mask: StepMask) -> Totals:
    """Takes the geometric mean, exp(mean log score); scores must not be negative."""
    with np.errstate(divide="ignore"):
        logs = np.where(mask, np.log(np.where(mask, scores, 1.0)), 0.0)
    return _where_any(mask, np.exp(logs.sum(axis=1) / np.maximum(mask.sum(axis=1), 1)))


@aggregate.method("log-odds", note="sum of logits: a naive-Bayes reading of independent steps")
def log_odds(scores: Steps, mask: StepMask, *, floor: float = 1e-6) -> Totals:
    """Adds the logits of probabilities.

    Args:
        scores: probabilities.
        mask: True at real steps.
        floor: scores are kept in [floor, 1 - floor], in (0, 1/2).
    """
    p = np.clip(np.where(mask, scores, 0.5), floor, 1 - floor)
    return _where_any(mask, np.where(mask, np.log(p) - np.log1p(-p), 0.0).sum(axis=1))


@aggregate.method("soft-min", paper="arXiv:2504.15275", equation="Eq. 7, the weights of the min-form return")
def soft_minimum(scores: Steps, mask: StepMask, *, temperature: float = 0.1) -> Totals:
    """Weighs steps by how bad they are: softmax(-r / tau) . r; tau -> 0 is the minimum, tau -> infinity the mean.

    Raises:
        ValueError: `temperature` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    worst = np.where(mask, scores, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    # Scores count from the worst one: its weight is 1, so no exponential overflows.
    low = np.where(np.isfinite(worst), worst, 0.0)
    weights = np.where(mask, np.exp(-(np.where(mask, scores, low) - low) / temperature), 0.0)
    total = (weights * np.where(mask, scores, 0.0)).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-300)
    return _where_any(mask, total)
