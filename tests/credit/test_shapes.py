"""Shapes, gated and modulated credit against loops that know trajectories as lists, and numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import weibull_min
from tests.effort import scaled

from stepreward.core.catalog import Family, credit, reward, shape
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.credit.hidden import hidden_rewards, negative_token_weights, steered_token_weights
from stepreward.credit.similar import _common_length, _positions, alike

LIBRARIES = pytest.mark.parametrize("give", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
NUMBERS = st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.8, 1.0])
STEPS = st.lists(st.tuples(NUMBERS, st.integers(1, 5), NUMBERS), min_size=1, max_size=6)
BATCH = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 1.0]), STEPS), min_size=2, max_size=7)
Row = tuple[int, float, list[tuple[float, int, float]]]
Batch = list[Row]


def data(batch: Batch) -> dict[str, np.ndarray]:
    flat = [step for _, _, steps in batch for step in steps]
    return {
        "group": np.array([g for g, _, _ in batch]), "outcome": np.array([o for _, o, _ in batch]),
        "offsets": np.cumsum([0, *(len(steps) for _, _, steps in batch)]), "rewards": np.array([s[0] for s in flat]),
        "lengths": np.array([s[1] for s in flat]), "values": np.array([s[2] for s in flat]),
        "entropy": np.array([s[2] for s in flat]), "duration": np.array([float(s[1]) for s in flat]),
        "agent": np.array([s[1] % 2 for s in flat]), "said": np.array([s[1] for s in flat]),
        "difficulty": np.array([0.1 * len(steps) for _, _, steps in batch]),
        "references": np.array([[*references(row), *[np.nan] * 3][:3] for row in batch]),
    }  # fmt: skip


def references(row: Row) -> list[float]:
    """Rewards of one to three reference answers to the row's prompt."""
    return [0.2, 0.4, 0.9][: 1 + len(row[2]) % 3]


def z(value: float, others: list[float]) -> float:
    return 0.0 if len(others) < 2 else (value - float(np.mean(others))) / (float(np.std(others, ddof=1)) + 1e-6)


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def shaped_by_hand(name: str, batch: Batch, row: Row, k: int) -> float:
    r = [step[0] for step in row[2]]
    d = [b - a for a, b in zip([0.3, *r], r, strict=False)]
    group = [other for other in batch if other[0] == row[0]]
    if name == "posterior":
        return 0.5 * row[1] * r[k]
    if name == "annealed-posterior":
        return 0.5 * (0.8 + 0.1 * len(row[2])) * row[1] * r[k]
    if name == "gated":
        return r[k] if row[1] >= 0.5 else 0.0
    if name == "trust":
        means = {True: [], False: []}  # type: dict[bool, list[float]]
        for _, o, steps in group:
            means[o >= 0.5].append(float(np.mean([s[0] for s in steps])))
        every = [o for _, o, _ in group]
        if row[1] < 0.2 or max(every) <= 0.1 or min(every) >= 0.9:
            return 0.0
        gap = float(np.mean(means[True]) - np.mean(means[False])) if means[True] and means[False] else 0.0
        return 0.3 * math.exp(-250 / 500) * (1.0 if gap >= 0 else math.exp(gap)) * r[k]
    if name == "red":
        return 0.75 * d[k] + (0.25 * r[-1] if k + 1 == len(r) else 0.0)
    if name == "vsrm":
        return next((0.7**j * d[k + j] for j in range(3) if k + j < len(d) and abs(d[k + j]) >= 1e-5), 0.0)
    if name == "turning-point":
        turned = k > 0 and np.sign(d[k]) != np.sign(d[k - 1]) and np.sign(d[k]) == np.sign(r[-1] - 0.3)
        return r[-1] - r[k - 1] if turned else d[k]
    if name == "thoughts":
        for _, run in groupby(range(len(r)), key=lambda j: r[j] > 0.5):
            places = list(run)
            if k in places:
                return float(np.mean([r[j] for j in places])) if k == places[-1] else 0.0
        raise AssertionError("every step is of a run")
    if name == "td-target":
        v = [step[2] for step in row[2]]
        last = k + 2 >= len(r)
        total = sum(0.9 ** (j - k) * r[j] for j in range(k, min(k + 2, len(r))))
        rest = 0.9 ** (len(r) - k) * row[1] if last else 0.9**2 * v[k + 2]
        return min(max(total + rest, 0.0), 1.0)
    if name == "group-normal":
        return z(r[k], [s[0] for other in group for s in other[2]])
    if name == "length-penalty":
        return r[k] - 0.1 * max(0, row[2][k][1] - 2)
    if name == "repetition-penalty":
        return -0.5 if row[2][k][1] in [s[1] for s in row[2][:k]] else r[k]
    if name == "par":
        return float(np.mean([logistic(3 * (r[k] - one)) for one in references(row)]))
    if name == "sigmoid":
        return logistic(3 * (r[k] - 0.4))
    if name == "renorm":
        return r[k] + row[1] - 1
    if name == "tanh":
        return math.tanh(3 * (r[k] - 0.4))
    if name == "bounded":
        return min(max(r[k], 0.2), 0.6)
    if name == "centre":
        return r[k] - 0.5
    if name == "router-r1":
        costs = [math.sqrt(sum(s[1] for s in other[2])) for other in batch]
        bottom, top = np.percentile(costs[-4:], [5, 95])
        own = math.sqrt(sum(s[1] for s in row[2]))
        cheap = 0.5 if top == bottom else 1 - min(max((own - bottom) / (top - bottom), 0.0), 1.0)
        paid = row[1] * 0.6 + 0.4 * cheap if row[1] > 0 else row[1]
        return r[k] + (paid - row[1] if k + 1 == len(r) else 0.0)
    if name == "batch-normal":
        every = [s[0] for other in batch for s in other[2]]
        return (r[k] - float(np.mean(every))) / math.sqrt(
            (float(np.var(every, ddof=1)) if len(every) > 1 else 0.0) + 1e-8
        )
    if name == "pspo-weibull":
        density = weibull_min(1.5, scale=8.0).pdf
        steps, m = len(r), float(np.prod(r)) ** (1 / len(r))
        return m * density(steps) / density(8 * (0.5 / 1.5) ** (1 / 1.5)) if 1 < steps == k + 1 else 0.0
    assert name == "pspo"
    return pspo(r) if k + 1 == len(r) else 0.0


def pspo(r: list[float]) -> float:
    steps, m = len(r), float(np.prod(r)) ** (1 / len(r))
    if steps <= 1:
        return 0.0
    if steps <= 4:
        return m * m * math.exp(0.5 * steps)
    base = m * math.exp(2)
    if m > 0.88433:
        end = base * math.exp(0.1 * (steps - 4))
    elif m < 0.2:
        end = base * math.exp(-0.1 * (steps - 4))
    else:
        end = base * math.exp(0.1 * (steps - 4) * (m - 0.21159) / 0.88433)
    blend = logistic(10 * (steps - 4))
    return m * ((1 - blend) * base + blend * end)


SHAPES: dict[str, dict[str, Any]] = {
    "posterior": {"weight": 0.5}, "annealed-posterior": {"strength": 0.5, "anneal": 0.8}, "gated": {},
    "trust": {"step": 250}, "red": {"start": 0.3, "share": 0.75}, "vsrm": {"start": 0.3, "ahead": 2},
    "turning-point": {"start": 0.3}, "thoughts": {}, "centre": {}, "router-r1": {"weight": 0.4, "window": 4},
    "td-target": {"n": 2, "discount": 0.9}, "group-normal": {}, "batch-normal": {}, "pspo": {}, "pspo-weibull": {},
    "length-penalty": {"weight": 0.1, "free": 2}, "repetition-penalty": {}, "par": {"slope": 3.0}, "renorm": {},
    "sigmoid": {"reference": 0.4, "slope": 3.0},
    "tanh": {"reference": 0.4, "slope": 3.0}, "bounded": {"low": 0.2, "high": 0.6},
}  # fmt: skip


@pytest.mark.sampled(4)
@LIBRARIES
@pytest.mark.parametrize("name", SHAPES)
@given(batch=BATCH)
@settings(max_examples=scaled(30), deadline=None)
def test_shapes_are_those_of_the_formula(give: Callable[[Any], Any], name: str, batch: Batch) -> None:
    expected = [shaped_by_hand(name, batch, row, k) for row in batch for k in range(len(row[2]))]
    found = shape[name].take({k: give(v) for k, v in data(batch).items()}, **SHAPES[name])
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6, atol=1e-6)


def test_every_shape_has_a_test() -> None:
    assert {m.name for m in shape} == {
        *SHAPES, "clip", "delta", "clip-delta", "potential", "progress", "soft-minimum",
    }  # fmt: skip


@LIBRARIES
def test_pspo_pays_its_authors_numbers(give: Callable[[Any], Any]) -> None:
    rows = [[0.9, 0.8], [0.9, 0.8, 0.7, 0.9], [0.95] * 5, [0.95] * 6, [0.5] * 6, [0.1] * 6, [0.7], [0.8842] * 6]
    d = {
        "rewards": give(np.concatenate(rows)), "offsets": give(np.cumsum([0, *map(len, rows)])),
    }  # fmt: skip
    ends = np.cumsum([len(row) for row in rows]) - 1
    found = np.asarray(shape["pspo"].take(d))
    # R = m f(m, K) by the published piecewise form; for the first, m^2 = 0.72 and R = 0.72 e. The last is below the
    # upper border, 0.88433: 0.8842^2 e^2 e^(0.2 (0.8842 - 0.21159) / 0.88433).
    expected = [1.957163, 4.976517, 7.369937, 8.145074, 1.971772, 0.060496, 0.0, 6.725952]
    np.testing.assert_allclose(found[ends], expected, atol=1e-6)
    assert found.sum() == pytest.approx(sum(expected), abs=1e-5)


@LIBRARIES
def test_pspo_weibull_is_the_published_form_over_steps(give: Callable[[Any], Any]) -> None:
    sizes = np.arange(1, 9)
    d = {"rewards": give(np.ones(36)), "offsets": give(np.cumsum([0, *sizes]))}
    # C (k / l) (K / l)^(k - 1) e^(-(K / l)^k) with k = 1.5, l = 8, C = 10.735; 0 for one step.
    expected = [0, 0.88815, 0.97969, 0.99941, 0.97086, 0.91044, 0.83051, 0.74047]
    np.testing.assert_allclose(np.asarray(shape["pspo-weibull"].take(d))[np.cumsum(sizes) - 1], expected, atol=1e-5)


@LIBRARIES
def test_renorm_gives_every_step_the_outcome_s_sign(give: Callable[[Any], Any]) -> None:
    d = {
        "rewards": give(np.array([0.8, 0.2, 0.8, 0.2])), "outcome": give(np.array([1.0, 0.0])),
        "offsets": give(np.array([0, 2, 4])), "group": give(np.array([0, 0])),
    }  # fmt: skip
    np.testing.assert_allclose(np.asarray(shape["renorm"].take(d)), [0.8, 0.2, -0.2, -0.8])
    # Returns to go 1.0, 0.2 and -1.0, -0.8, less the other's total; the outcome is not paid again.
    np.testing.assert_allclose(np.asarray(credit["ppr"].take(d)), [2.0, 1.2, -2.0, -1.8])


@LIBRARIES
def test_trust_is_measured_at_one_cut_and_paid_from_another(give: Callable[[Any], Any]) -> None:
    d = {
        "rewards": give(np.array([0.2, 0.6, 0.8, 0.5])), "outcome": give(np.array([0.9, 0.3, 0.1, 0.9])),
        "offsets": give(np.arange(5)), "group": give(np.array([0, 0, 0, 1])),
    }  # fmt: skip
    # Right: 0.2. Wrong: 0.6 and 0.8, of which the second is below `least` and gets nothing. A group all right: nothing.
    trust = math.exp(0.2 - 0.7)
    found = np.asarray(shape["trust"].take(d))
    np.testing.assert_allclose(found, [0.3 * trust * 0.2, 0.3 * trust * 0.6, 0, 0])
    # Graded answers that are all right, or all wrong, leave trust at 1.
    graded = d | {"outcome": give(np.array([0.6, 0.7, 0.8, 0.3]))}
    np.testing.assert_allclose(np.asarray(shape["trust"].take(graded)), 0.3 * np.array([0.2, 0.6, 0.8, 0.5]))


@LIBRARIES
def test_par_is_the_mean_over_references_after_the_sigmoid(give: Callable[[Any], Any]) -> None:
    d = {
        "rewards": give(np.array([1.0, 0.0, 2.0])), "offsets": give(np.array([0, 2, 3])),
        "references": give(np.array([[0.0, 2.0], [2.0, np.nan]])),
    }  # fmt: skip
    # sigmoid(1) = 0.731059 and sigmoid(-1) = 0.268941; sigmoid(0) = 0.5 and sigmoid(-2) = 0.119203; sigmoid(0).
    np.testing.assert_allclose(np.asarray(shape["par"].take(d)), [0.5, 0.309601, 0.5], atol=1e-6)
    one = d | {"references": give(np.array([0.0, 2.0]))}
    np.testing.assert_allclose(np.asarray(shape["par"].take(one)), [0.731059, 0.5, 0.5], atol=1e-6)
    ragged = d | {"references": [[0.0, 2.0], [2.0]]}
    np.testing.assert_allclose(np.asarray(shape["par"].take(ragged)), [0.5, 0.309601, 0.5], atol=1e-6)
    none = d | {"references": [[0.0, 2.0], []]}
    np.testing.assert_allclose(np.asarray(shape["par"].take(none)), [0.5, 0.309601, np.nan], atol=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        shape["par"].take(d | {"references": give(np.zeros((2, 0)))})
    # A prompt none of whose references is scored leaves its steps unscored.
    lacking = d | {"references": give(np.array([[0.0, 2.0], [np.nan, np.nan]]))}
    np.testing.assert_allclose(np.asarray(shape["par"].take(lacking)), [0.5, 0.309601, np.nan], atol=1e-6)


def credit_by_hand(name: str, batch: Batch, row: Row, k: int) -> float:
    group = [other for other in batch if other[0] == row[0]]
    others = [other for i, other in enumerate(batch) if other[0] == row[0] and other is not row]
    outcomes = [o for _, o, _ in group]
    steps = row[2]
    ahead = row[1] - (float(np.mean([o for _, o, _ in others])) if others else 0.0)
    if name == "total-rloo":
        totals = [sum(s[0] for s in other[2]) + other[1] for other in others]
        return sum(s[0] for s in steps) + row[1] - (float(np.mean(totals)) if totals else 0.0)
    if name == "istar":
        return z(row[1], outcomes) + 0.5 * z(steps[k][0], [s[0] for other in group for s in other[2]])
    if name == "istar-rloo":
        largest = max(abs(s[0]) for other in batch for s in other[2]) + 1e-6
        held = [s[0] / largest for other in group for s in other[2]]
        whole = row[1] - float(np.mean([o for _, o, _ in others])) if others else 0.0
        # Less the mean of the others is n / (n - 1) times less the mean of all.
        step = (steps[k][0] / largest - float(np.mean(held))) * len(held) / (len(held) - 1) if len(held) > 1 else 0.0
        return whole + step
    if name == "grpo-by-verdicts":
        right, good = row[1] > 0.5, steps[k][0] > 0.5
        fine = 0.4 * float(np.mean([o > 0.5 for o in outcomes]))
        if right:
            return z(row[1], outcomes) - (0.0 if good else fine)
        return 0.0 if good else z(row[1], outcomes)
    if name == "dense-grpo":
        change = [(other[2][k][0] - (other[2][k - 1][0] if k else 0.0)) for other in group if len(other[2]) > k]
        return z(steps[k][0] - (steps[k - 1][0] if k else 0.0), change)
    if name == "duration-aware":
        every = [s[1] for other in batch for s in other[2]]
        return ahead * steps[k][1] / float(np.mean(every))
    if name == "empg":
        every = [s[2] for other in batch for s in other[2]]
        low, span = min(every), (max(every) - min(every)) or 1.0
        scale = float(np.mean([math.exp(-2 * (h - low) / span) for h in every]))

        def one(other: Row, j: int) -> float:
            mine = [o for g, o, _ in batch if g == other[0]]
            h = [(s[2] - low) / span for s in other[2]]
            onward = 0.1 * math.exp(-h[j + 1]) if j + 1 < len(h) else 0.0
            return z(other[1], mine) * math.exp(-2 * h[j]) / scale + onward

        return one(row, k) - float(np.mean([one(other, j) for other in batch for j in range(len(other[2]))]))
    if name == "capo":
        tokens = [x for other in group for s in other[2] for x in [2 * other[1] - (s[0] <= 0.5)] * s[1]]
        mine = 2 * row[1] - (steps[k][0] <= 0.5)
        return (mine - float(np.mean(tokens))) / ((float(np.std(tokens, ddof=1)) if len(tokens) > 1 else 0.0) + 1e-6)
    assert name == "multi-agent"
    sign = -1 if ahead < 0 else 1
    names = {s[1] % 2 for s in steps}
    mass = {a: math.exp(sign * float(np.mean([s[0] for s in steps if s[1] % 2 == a])) / 0.5) for a in names}
    return ahead * len(names) * mass[steps[k][1] % 2] / sum(mass.values())


CREDITS: dict[str, dict[str, Any]] = {
    "total-rloo": {}, "istar": {"weight": 0.5}, "istar-rloo": {}, "grpo-by-verdicts": {"weight": 0.4},
    "dense-grpo": {}, "duration-aware": {}, "capo": {},
    "empg": {"sharpness": 2.0, "bonus": 0.1}, "multi-agent": {"temperature": 0.5},
}  # fmt: skip


@LIBRARIES
@pytest.mark.parametrize("name", CREDITS)
@given(batch=BATCH)
@settings(max_examples=scaled(30), deadline=None)
def test_credit_is_that_of_the_formula(give: Callable[[Any], Any], name: str, batch: Batch) -> None:
    # Rows are told apart by identity in the loop, so each is one of its own.
    batch = [(g, o, list(steps)) for g, o, steps in batch]
    expected = [credit_by_hand(name, batch, row, k) for row in batch for k in range(len(row[2]))]
    found = credit[name].take({k: give(v) for k, v in data(batch).items()}, **CREDITS[name])
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-5)


@given(
    rights=st.lists(st.tuples(st.booleans(), st.lists(st.booleans(), max_size=6)), min_size=2, max_size=5),
    cuts=st.integers(1, 3),
)
@settings(max_examples=scaled(60), deadline=None)
def test_verdicts_are_the_sums_of_thought_rewards_to_the_end(rights: list[tuple[bool, list[bool]]], cuts: int) -> None:
    # Rewards of thoughts as TP-GRPO has them: +-alpha acc in right solutions, +-z in wrong ones where a step that goes
    # into the final answer "matches"; the last thought, right or matching, carries the outcome.
    outcomes = [float(right) for right, _ in rights]
    accuracy = float(np.mean(outcomes))
    expected, scores = [], []
    for right, verdicts in rights:
        whole = z(float(right), outcomes)
        # The last thought leads to the answer: it is right, or what the wrong answer is made of.
        kept = [*verdicts, True]
        thoughts = [(verdict, len(list(run))) for verdict, run in groupby(kept)]
        reward = 0.7 * accuracy if right else whole
        paid = [reward if verdict else -reward for verdict, _ in thoughts[:-1]] + [whole]
        for place, (_, length) in enumerate(thoughts):
            expected += [sum(paid[place:])] * length * cuts
        scores += [0.9 if verdict == right else 0.2 for verdict in kept for _ in range(cuts)]
    sizes = [(len(verdicts) + 1) * cuts for _, verdicts in rights]
    d = {
        "rewards": np.array(scores), "outcome": np.array(outcomes), "group": np.zeros(len(rights), int),
        "offsets": np.cumsum([0, *sizes]),
    }  # fmt: skip
    np.testing.assert_allclose(credit["grpo-by-verdicts"].take(d, weight=0.7), expected, atol=1e-9)


@LIBRARIES
def test_istar_s_release_leaves_one_out_and_scales(give: Callable[[Any], Any]) -> None:
    d = {
        "rewards": give(np.array([2.0, -4.0, 1.0])), "outcome": give(np.array([1.0, 0.0])),
        "offsets": give(np.array([0, 2, 3])), "group": give(np.array([0, 0])),
    }  # fmt: skip
    # Outcomes 1 and -1; steps 0.5, -1, 0.25 less the means of the others, -0.375, 0.375, -0.25.
    found = np.asarray(credit["istar-rloo"].take(d))
    np.testing.assert_allclose(found, [1.875, -0.375, -0.5], atol=1e-5)
    # Less the mean alone: outcomes 0.5 and -0.5; steps 2, -4, 1 less -1/3.
    found = np.asarray(credit["istar"].take(d, norm="mean"))
    np.testing.assert_allclose(found, [0.5 + 7 / 3, 0.5 - 11 / 3, -0.5 + 4 / 3])


@LIBRARIES
def test_c_grpo_pays_the_mixture_where_the_outcome_is_right(give: Callable[[Any], Any]) -> None:
    d = {
        "rewards": give(np.array([0.25, 0.25, 1.0, 0.0])), "outcome": give(np.array([1.0, 0.0, 1.0])),
        "offsets": give(np.array([0, 2, 3, 4])), "group": give(np.array([0, 0, 0])),
    }  # fmt: skip
    # R = 0.7 + 0.3 * 0.5 = 0.85, 0, 0.7; less the mean of the others: 0.35, 0.775, 0.425.
    np.testing.assert_allclose(np.asarray(credit["c-grpo"].take(d)), [0.5, 0.5, -0.775, 0.275])


@pytest.mark.parametrize("name", ["tp-grpo", "step-agent", "salt", "treeps", "portool", "g-ra", "verpo"])
def test_a_name_that_a_guess_bore_leads_to_what_it_is_called(name: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        credit[name]
    now = {
        "tp-grpo": "grpo-by-verdicts", "step-agent": "implicit-step-rloo", "salt": "shared-edges",
        "treeps": "node-differences", "portool": "fork-and-trajectory", "g-ra": "gated-rloo", "verpo": "turn-centred",
    }[name]  # fmt: skip
    assert f"did you mean {now}?" in str(error.value)
    assert credit[now].unverified


@pytest.mark.parametrize("family", [credit, shape, reward], ids=lambda family: family.name)
def test_what_is_unverified_says_of_which_paper_and_bears_another_name(family: Family) -> None:
    def plain(name: str) -> str:
        return name.lower().replace("-", "").replace(" ", "")

    for method in family:
        if method.unverified:
            paper = method.unverified.partition(" (arXiv:")
            assert paper[1]
            assert not plain(paper[0]).startswith(plain(method.name))


@LIBRARIES
def test_the_filter_drops_what_contradicts_its_outcome(give: Callable[[Any], Any]) -> None:
    d = {
        "rewards": np.array([0.9, 0.2, 0.6, 0.8, 0.1, 0.5]), "outcome": np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
        "group": np.zeros(6, int), "offsets": np.arange(7),
    }  # fmt: skip
    # Four of six are kept: the two best scored right ones, and the two worst scored wrong ones.
    made = np.asarray(credit["prof"].take({k: give(v) for k, v in d.items()}, keep=0.6))
    deviation = math.sqrt(4 * 0.25 / 3) + 1e-6
    np.testing.assert_allclose(made, np.array([0.5, 0, 0.5, 0, -0.5, -0.5]) / deviation)


@given(batch=BATCH, keep=st.sampled_from([0.3, 0.5, 1.0]))
@settings(max_examples=scaled(40), deadline=None)
def test_the_filter_keeps_as_many_as_told_and_both_sides_as_even_as_it_can(batch: Batch, keep: float) -> None:
    d = data(batch)
    made = credit["prof"].take(d, keep=keep)
    for problem in {row[0] for row in batch}:
        rows = [i for i, row in enumerate(batch) if row[0] == problem]
        right = [i for i in rows if batch[i][1] > 0.5]
        wrong = [i for i in rows if batch[i][1] <= 0.5]
        wanted = math.ceil(keep * len(rows) - 1e-9)
        good = min(len(right), max(wanted - len(wrong), (wanted + 1) // 2))
        score = {i: float(np.mean([s[0] for s in batch[i][2]])) for i in rows}
        weight = {**least({i: -score[i] for i in right}, good), **least({i: score[i] for i in wrong}, wanted - good)}
        size = sum(weight.values())
        centre = sum(weight[i] * batch[i][1] for i in rows) / size
        square = sum(weight[i] * (batch[i][1] - centre) ** 2 for i in rows)
        deviation = math.sqrt(square / (size - 1 if size > 1 else 1.0)) + 1e-6
        for i in rows:
            expected = weight[i] * (batch[i][1] - centre) / deviation
            assert made[d["offsets"][i]] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def least(values: dict[int, float], n: int) -> dict[int, float]:
    """1 for the n least, 0 for the others; those that are equal at the border share what is left."""
    made = {}
    for i, value in values.items():
        below = sum(other < value - 1e-12 for other in values.values())
        ties = sum(abs(other - value) <= 1e-12 for other in values.values())
        made[i] = min(max((n - below) / ties, 0.0), 1.0)
    return made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: shape["trust"].take(d, horizon=0.0), "horizon"),
        (lambda d: shape["vsrm"].take(d, ahead=-1), "ahead"),
        (lambda d: shape["td-target"].take(d, n=0), "n must"),
        (lambda d: shape["pspo-weibull"].take(d, form=1.0), "form"),
        (lambda d: shape["bounded"].take(d, low=1.0, high=0.0), "low"),
        (lambda d: credit["capo"].take(d, process=2.0), "process"),
        (lambda d: credit["prof"].take(d, keep=0.0), "keep"),
        (lambda d: credit["multi-agent"].take(d, temperature=0.0), "temperature"),
    ],
)
def test_settings_outside_their_range_are_named(make: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(data([(0, 1.0, [(0.5, 1, 0.5)]), (0, 0.0, [(0.5, 1, 0.5)])]))


OBSERVATIONS = st.lists(st.tuples(st.integers(0, 1), st.text("ab ", max_size=12)), max_size=14)


@given(rows=OBSERVATIONS, threshold=st.sampled_from([0.5, 0.8, 0.95]))
@settings(max_examples=scaled(80), deadline=None)
def test_similar_states_are_those_of_the_plain_loop(rows: list[tuple[int, str]], threshold: float) -> None:
    found = alike([text for _, text in rows], [g for g, _ in rows], threshold=threshold)
    firsts: list[tuple[int, str]] = []
    for (problem, text), state in zip(rows, found, strict=True):
        same = [
            number
            for number, (of, first) in enumerate(firsts)
            if of == problem and (first == text or SequenceMatcher(None, first, text).ratio() >= threshold)
        ]
        assert state == (same[0] if same else len(firsts))
        if not same:
            firsts.append((problem, text))
    with pytest.raises(ValueError, match="threshold"):
        alike([], [], threshold=0.0)


def test_a_clock_does_not_make_another_state() -> None:
    hall = "You are in a hall. There is a door to the north and a lamp on the table. Time: "
    assert alike([hall + "10:01", hall + "10:02", "A cellar. It is dark."], "ppp").tolist() == [0, 0, 1]
    assert alike([hall + "10:01", hall + "10:02"], "pq").tolist() == [0, 1]


@LIBRARIES
def test_hidden_rewards_count_each_right_solution_by_its_mean(give: Callable[[Any], Any]) -> None:
    one, h = give(np.array([[1.0, -1.0]])), give(np.array([[1.0]]))
    to, to_hidden = give(np.array([[0.5, -0.5], [1.0, 0.0], [0.0, 2.0]])), give(np.array([[1.0], [2.0], [3.0]]))
    # Products 1, 1 and -2 times 1, 2 and 3: 1, 2, -6. The first two are of one solution, the third of another.
    assert float(hidden_rewards(one, h, to, to_hidden)[0]) == -3
    weights = give(np.array([0.5, 0.5, 1.0]))
    assert float(hidden_rewards(one, h, to, to_hidden, to_weights=weights)[0]) == 0.5 + 1 - 6
    with pytest.raises(InputError, match="2 weights"):
        hidden_rewards(one, h, to, to_hidden, to_weights=weights[:2])


def test_hidden_rewards_are_the_change_of_log_likelihood_by_a_gradient_step() -> None:
    rng = np.random.default_rng(0)
    unembedding = torch.tensor(rng.normal(size=(7, 4)), requires_grad=True)
    hidden, tokens = torch.tensor(rng.normal(size=(5, 4))), torch.tensor(rng.integers(0, 7, 5))
    others, right = torch.tensor(rng.normal(size=(6, 4))), torch.tensor(rng.integers(0, 7, 6))

    def loglik(weights: torch.Tensor) -> torch.Tensor:
        return (others @ weights.T).log_softmax(-1).gather(1, right[:, None]).sum()

    (slope,) = torch.autograd.grad(loglik(unembedding), unembedding)
    expected = []
    for h, y in zip(hidden, tokens, strict=True):
        (step,) = torch.autograd.grad((unembedding @ h).log_softmax(-1)[y], unembedding)
        expected.append(float((slope * step).sum()))

    def gradients(h: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        return (torch.eye(7)[y] - (h @ unembedding.T).softmax(-1)).detach().numpy()

    found = hidden_rewards(
        gradients(hidden, tokens), hidden.numpy(), gradients(others, right), others.numpy(), at_once=2
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    tensors = hidden_rewards(
        *(torch.as_tensor(one) for one in (gradients(hidden, tokens), hidden, gradients(others, right), others))
    )
    np.testing.assert_allclose(np.asarray(tensors), expected, rtol=1e-6)
    assert hidden_rewards(np.zeros((0, 7)), np.zeros((0, 4)), np.zeros((1, 7)), np.zeros((1, 4))).shape == (0,)
    with pytest.raises(ValueError, match="at_once"):
        hidden_rewards(np.zeros((2, 7)), np.zeros((2, 4)), np.zeros((1, 7)), np.zeros((1, 4)), at_once=0)
    with pytest.raises(InputError, match="one of each"):
        hidden_rewards(np.zeros((2, 7)), np.zeros((3, 4)), np.zeros((1, 7)), np.zeros((1, 4)))


@LIBRARIES
def test_tokens_that_right_solutions_need_are_spared(give: Callable[[Any], Any]) -> None:
    of_right, rows = give(np.array([1.0, 3.0, 1.0, 2.0])), give(np.array([7, 7, 9, 9]))
    # Means 2 and 1.5: the threshold is 1.5 times the scale.
    weights = negative_token_weights(give(np.array([1.4, 1.6, -2.0])), of_right, rows, 0.75)
    np.testing.assert_allclose(np.asarray(weights), [1.0, 0.5, 1.0])
    assert negative_token_weights(np.array([9.0]), np.zeros(0), np.zeros(0, int), 0.0).tolist() == [1.0]
    with pytest.raises(ValueError, match="success"):
        negative_token_weights(np.zeros(1), of_right, rows, 1.5)


@LIBRARIES
def test_tokens_lean_towards_what_is_known_or_away_from_it(give: Callable[[Any], Any]) -> None:
    rewards, advantages = give(np.array([2.0, -1.0, 1.0, 0.0, 3.0])), give(np.array([1.0, 1.0, -1.0, 1.0, -0.1]))
    # Signs of A s: +, -, -, 0, -. The threshold is on |s| alone, so that a small advantage leaves no token out.
    made = steered_token_weights(rewards, advantages, lean=0.2, least=0.5)
    np.testing.assert_allclose(np.asarray(made), [1.2, 0.8, 0.8, 0, 0.8])
    np.testing.assert_allclose(np.asarray(steered_token_weights(rewards, advantages, least=1.0)), [1.1, 0, 0, 0, 0.9])
    np.testing.assert_allclose(np.asarray(steered_token_weights(rewards, advantages, lean=-0.2))[:2], [0.8, 1.2])
    with pytest.raises(ValueError, match="lean"):
        steered_token_weights(rewards, advantages, lean=2.0)


@given(one=st.text("abc", max_size=9), other=st.text("abc", max_size=9))
@settings(max_examples=scaled(200), deadline=None)
def test_characters_in_order_are_counted_as_by_the_table(one: str, other: str) -> None:
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    assert _common_length(one, _positions(other), len(other)) == table[-1, -1]


SHAPED = [method for method in credit if method.fixed.get("shape")]


@pytest.mark.parametrize("method", SHAPED, ids=lambda method: method.name)
@given(batch=BATCH)
@settings(max_examples=scaled(15), deadline=None)
def test_presets_are_their_shape_and_then_rloo(method: Any, batch: Batch) -> None:
    d = data(batch)
    named = shape[method.fixed["shape"]]
    shaped = named.take(d, **(method.fixed.get("shape_settings") or {}))
    rows = np.split(shaped, d["offsets"][1:-1])
    weight, paid = method.settings["weight"], method.settings["outcome_weight"] * d["outcome"]
    rows = [weight * row for row in rows]
    whole = [float(row.sum()) + paid[i] for i, row in enumerate(rows)]
    expected = []
    for i, row in enumerate(rows):
        others = [whole[j] for j in range(len(rows)) if j != i and d["group"][j] == d["group"][i]]
        baseline = float(np.mean(others)) if others else 0.0
        to_go = credit["step-rloo"].function is method.function
        expected += [(row[k:].sum() if to_go else row.sum()) + paid[i] - baseline for k in range(len(row))]
    np.testing.assert_allclose(method.take(d), expected, atol=1e-9)


def test_every_method_of_credit_is_held_against_a_transcription() -> None:
    elsewhere = {
        "test_outcome": {
            "grpo", "grpo-verl", "grpo-openrlhf", "lite-ppo", "dr-grpo", "rloo", "rloo-verl", "reinforce++",
            "reinforce++-baseline", "minirl", "likelihood",
            "opo", "gdpo", "gae", "rlpr",
        },
        "test_process": {"step-rloo", "deepseekmath-process", "prime", "pure", "pure-strict", "pav"},
        "test_turns": {"gigpo", "mt-grpo", "igpo", "step-grpo", "kevin", "matchtir", "turn-centred", "vineppo"},
        "test_states_and_trees": {
            "node-differences", "treerl", "tree-grpo", "fork-and-trajectory", "lambda-grpo", "shared-edges", "hgpo",
            "gigpo-verl-agent",
            "bi-level-gae", "spa", "archer",
        },
        "here": {"prof", *CREDITS, *(method.name for method in SHAPED)},
        "verl's own numbers, and the next test": {"ppo"},
        "other names for the same": {"spo", "implicit-step-rloo"},
    }  # fmt: skip
    assert {method.name for method in credit} == set().union(*elsewhere.values())
    for name, of in (("spo", "vineppo"), ("implicit-step-rloo", "step-rloo")):
        assert (credit[name].function, credit[name].fixed) == (credit[of].function, credit[of].fixed)


@given(batch=BATCH, discount=st.sampled_from([1.0, 0.9]), decay=st.sampled_from([0.0, 0.7]))
@settings(max_examples=scaled(30), deadline=None)
def test_ppo_is_gae_whitened_token_by_token(batch: Batch, discount: float, decay: float) -> None:
    d = data(batch)
    tokens: list[float] = []
    for _, outcome, steps in batch:
        running, after, row = 0.0, 0.0, []
        for k in reversed(range(len(steps))):
            paid = steps[k][0] + (outcome if k + 1 == len(steps) else 0.0)
            running = paid + discount * after - steps[k][2] + discount * decay * running
            after = steps[k][2]
            row.append([running] * steps[k][1])
        tokens += [one for step in reversed(row) for one in step]
    spread = float(np.var(tokens, ddof=1)) if len(tokens) > 1 else 0.0
    expected = [(one - float(np.mean(tokens))) / math.sqrt(spread + 1e-8) for one in tokens]
    found = credit["ppo"].take(d, discount=discount, decay=decay)
    np.testing.assert_allclose(np.repeat(found, d["lengths"]), expected, rtol=1e-6, atol=1e-6)


@LIBRARIES
def test_cheap_right_answers_are_paid_more_by_hand(give: Callable[[Any], Any]) -> None:
    """Costs 1, 9, 16 are 1, 3 and 4 under the root; percentiles 0 and 100 are 1 and 4, so C = 1, 1/3 and 0.

    w = .5: right at cost 1: .5 + .5 = 1; right at cost 9: .5 + 1/6; wrong at cost 16: 0. One that cost the same as all
    has C = 1/2, so .75."""
    d = {
        "rewards": np.zeros(4), "outcome": np.array([1.0, 1.0, 0.0]), "duration": np.array([1.0, 4.0, 5.0, 16.0]),
        "offsets": np.array([0, 1, 3, 4]),
    }  # fmt: skip
    found = shape["router-r1"].take({k: give(v) for k, v in d.items()}, low=0.0, high=100.0)
    np.testing.assert_allclose(np.asarray(found), [0.0, 0.0, 0.5 + 1 / 6 - 1, 0.0], atol=1e-12)
    alike_ = {**d, "duration": np.array([4.0, 2.0, 2.0, 4.0])}
    found = shape["router-r1"].take({k: give(v) for k, v in alike_.items()})
    np.testing.assert_allclose(np.asarray(found), [-0.25, 0.0, -0.25, 0.0], atol=1e-12)
    for how in ({"weight": 1.5}, {"window": 0}, {"low": 95.0, "high": 5.0}):
        with pytest.raises(ValueError, match="expected a weight"):
            shape["router-r1"].take(d, **how)
