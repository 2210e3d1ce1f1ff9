"""Tournaments and votes by rank on numbers worked out by hand, and against loops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.errors import MissingDataError
from stepreward.core.keys import Key
from stepreward.core.measure.selection import (
    answer_ids,
    borda_vote,
    hybrid_vote,
    majority,
    reward_frequency_vote,
    self_certainty,
    weighted_vote,
)
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Compare, Continuation, Flow, Judged, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.search.beams.beam import step_beam
from stepreward.search.candidates import Found
from stepreward.search.samples.independent import self_certainty_vote, self_prm
from stepreward.search.samples.tournaments import elo, elo_ratings, knockout, round_robin

PROBLEM = Problem("p", "?", "7")
KEY = Key.seed(0)


class Says:
    """A policy that says the lines of a list, one a sample."""

    name, batch_size, concurrency = "says", 64, 1

    def __init__(self, lines: Sequence[Step | str]) -> None:
        self.lines = [Step(line) if isinstance(line, str) else line for line in lines]

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [
            [Continuation((self.lines[(q.first + i) % len(self.lines)],), True, 1) for i in range(q.n)]
            for q in questions
        ]


class Larger:
    """A judge for whom the larger number is better; partial to the first place by a tenth."""

    name, batch_size = "larger", 64

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = bias
        self.asked: list[Compare] = []

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        self.asked += questions
        made = []
        for q in questions:
            a, b = int(q.first[0].text), int(q.second[0].text)
            made.append(Judged(min(1.0, 0.5 + 0.1 * np.sign(a - b) + self.bias)))
        return made


class Text:
    name = "text"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float(self.answer(problem, steps) == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return steps[-1].text.split()[0]


class AsSaid:
    """Scores a step by the number that it is."""

    name, batch_size = "as said", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(np.array([float(s.text) for s in q.steps])) for q in questions]


def find(flow: Flow[Found], lines: Sequence[Step | str], judge: Larger | None = None) -> Found:
    driver = Driver(policy=Says(lines), scorer=AsSaid(), grader=Text(), judge=judge or Larger())
    return next(driver.run([flow])).result


def test_the_best_survives_every_round_of_a_knockout() -> None:
    judge = Larger()
    found = find(knockout(PROBLEM, KEY, n=5), ["3", "1", "4", "2", "9"], judge)
    assert found.answer == "9"
    # 3 beats 1, 4 beats 2, 9 has a bye; 4 beats 3, 9 has a bye; 9 beats 4. The champion counts one round more.
    assert found.totals.tolist() == [1, 0, 2, 0, 3]
    assert len(judge.asked) == 2 * 4


def test_a_partial_judge_has_no_say_in_both_orders() -> None:
    partial = Larger(bias=0.3)
    assert find(knockout(PROBLEM, KEY, n=2), ["1", "2"], partial).answer == "2"
    assert find(knockout(PROBLEM, KEY, n=2, both_orders=False), ["1", "2"], partial).answer == "1"


def test_equal_answers_are_not_judged() -> None:
    judge = Larger()
    found = find(knockout(PROBLEM, KEY, n=4), ["5", "5", "5", "6"], judge)
    assert found.answer == "6"
    assert len(judge.asked) == 2 * 2


def test_nobody_to_play_against() -> None:
    assert find(knockout(PROBLEM, KEY, n=1), ["5"]).chosen == 0
    assert find(elo(PROBLEM, KEY, n=1), ["5"]).chosen == 0


@pytest.mark.parametrize("n", range(1, 10))
def test_a_round_robin_has_every_game_once_and_a_player_one_a_round(n: int) -> None:
    rounds = round_robin(n)
    assert sorted(game for games in rounds for game in games) == sorted(combinations(range(n), 2))
    for games in rounds:
        players = [p for game in games for p in game]
        assert len(players) == len(set(players))


def test_elo_of_three_by_hand() -> None:
    # Rounds of a circle of four with a gap: (1, 2), then (0, 2), then (0, 1).
    rounds = round_robin(3)
    results = {(0, 1): 1.0, (0, 2): 1.0, (1, 2): 0.5}
    ratings = [1000.0] * 3
    for games in rounds:
        for a, b in games:
            expected = 1 / (1 + 10 ** ((ratings[b] - ratings[a]) / 400))
            moved = 32 * (results[a, b] - expected)
            ratings[a], ratings[b] = ratings[a] + moved, ratings[b] - moved
    np.testing.assert_allclose(elo_ratings(3, results), ratings)
    assert sum(ratings) == pytest.approx(3000)
    # Equal players that meet once: the winner takes half of K.
    np.testing.assert_allclose(elo_ratings(2, {(0, 1): 1.0}), [1016, 984])


def test_elo_chooses_the_strongest_and_asks_every_pair() -> None:
    judge = Larger()
    found = find(elo(PROBLEM, KEY, n=6), ["3", "1", "4", "2", "9", "5"], judge)
    assert found.answer == "9"
    assert np.argsort(-found.totals).tolist() == [4, 5, 2, 0, 3, 1]
    assert len(judge.asked) == 2 * 15


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([None, "a", "b", "c"]), st.sampled_from([0.0, 0.25, 0.5, 0.9])),
    min_size=1,
    max_size=12,
)
Loop = Any


def chosen_by(votes: dict[int, float], answers: list[str | None], mine: list[int]) -> int:
    mass: dict[str, float] = {}
    for i in mine:
        if answers[i] is not None:
            mass[answers[i]] = mass.get(answers[i], 0.0) + votes[i]  # type: ignore[index]
    if not mass:
        return mine[0]
    top = max(mass.values())
    return next(i for i in mine if answers[i] is not None and mass[answers[i]] >= top - 1e-12)  # type: ignore[index]


def test_a_tie_of_votes_goes_to_the_earliest_whatever_the_order_of_their_sum() -> None:
    """Squares of ranks: b has 36 + 4 + 1, a has 25 + 16, both 41; as shares of 36 their sums differ by rounding."""
    ids, group = np.array([0, 1, 1, -1, 0, 0]), np.zeros(6, np.int64)
    assert borda_vote(np.zeros(6), ids, group, power=2.0).tolist() == [0]
    infinite = np.array([1.0, np.inf, 2.0, 3.0, 4.0, 5.0])
    assert weighted_vote(infinite, np.arange(6), group).tolist() == [1]


@given(rows=ROWS, power=st.sampled_from([0.0, 0.5, 2.0]))
def test_borda_votes_fall_with_rank(rows: list[tuple[int, str | None, float]], power: float) -> None:
    group, answers = np.array([r[0] for r in rows]), [r[1] for r in rows]
    totals, ids = np.array([r[2] for r in rows]), answer_ids(answers, group.tolist())
    made = borda_vote(totals, ids, group, power=power)
    for at, g in enumerate(np.unique(group)):
        mine = np.flatnonzero(group == g).tolist()
        ranked = sorted(mine, key=lambda i: -totals[i])
        votes = {i: (len(mine) - rank) ** power for rank, i in enumerate(ranked)}
        assert made[at] == chosen_by(votes, answers, mine)
    if power == 0:
        np.testing.assert_array_equal(made, majority(ids, group))


@given(rows=ROWS, threshold=st.sampled_from([0.0, 0.5, 1.0]), alpha=st.sampled_from([0.0, 0.8, 1.0]))
def test_hybrid_and_frequency_votes(rows: list[tuple[int, str | None, float]], threshold: float, alpha: float) -> None:
    group, answers = np.array([r[0] for r in rows]), [r[1] for r in rows]
    totals, ids = np.array([r[2] for r in rows]), answer_ids(answers, group.tolist())
    hybrid = hybrid_vote(totals, ids, group, threshold=threshold)
    blended = reward_frequency_vote(totals, ids, group, alpha=alpha)
    for at, g in enumerate(np.unique(group)):
        mine = np.flatnonzero(group == g).tolist()
        named = [a for a in dict.fromkeys(answers[i] for i in mine) if a is not None]
        if not named:
            assert hybrid[at] == blended[at] == mine[0]
            continue
        count = {a: sum(answers[i] == a for i in mine) for a in named}
        mean = {a: float(np.mean([totals[i] for i in mine if answers[i] == a])) for a in named}
        by_count = max(count.values()) / len(mine) > threshold
        score = count if by_count else mean
        assert score[answers[hybrid[at]]] == pytest.approx(max(score.values()))

        def scaled(table: dict[Any, float], a: Any) -> float:
            low, high = min(table.values()), max(table.values())
            return 1.0 if high == low else (table[a] - low) / (high - low)

        blend = {a: alpha * scaled(mean, a) + (1 - alpha) * scaled(count, a) for a in named}
        assert blend[answers[blended[at]]] == pytest.approx(max(blend.values()))


def test_certainty_is_the_divergence_from_uniform_of_the_rows_that_predicted() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 5))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = [sum(0.2 * np.log(0.2 / p[t, v]) for v in range(5)) for t in range(2, 5)]
    np.testing.assert_allclose(self_certainty(logits, start=3), expected)
    assert len(self_certainty(logits)) == 6
    np.testing.assert_allclose(self_certainty(np.zeros((2, 9))), 0, atol=1e-12)
    assert np.isfinite(self_certainty(np.array([[900.0, -900.0]]))).all()


def test_the_policy_s_certainty_votes_by_rank() -> None:
    lines = [Step(text, meta={"self_certainty": c}) for text, c in [("1", 0.1), ("2", 3.0), ("1", 0.2)]]
    assert find(self_certainty_vote(PROBLEM, KEY, n=3, power=0.0), lines).answer == "1"
    assert find(self_certainty_vote(PROBLEM, KEY, n=3, power=4.0), lines).answer == "2"
    with pytest.raises(MissingDataError, match="self_certainty"):
        find(self_certainty_vote(PROBLEM, KEY, n=1), ["1"])


def test_the_policy_as_its_own_reward_model() -> None:
    lines = [Step("1", logprobs=(-1.0, -3.0)), Step("2", logprobs=(-0.5,))]
    found = find(self_prm(PROBLEM, KEY, n=2), lines)
    np.testing.assert_allclose(found.totals, [np.exp(-2.0), np.exp(-0.5)])
    assert found.answer == "2"
    with pytest.raises(MissingDataError, match="logprobs"):
        find(self_prm(PROBLEM, KEY, n=1), ["1"])


class Ladder:
    """Numbers one above, three above, and for the rest the end: what a step says is its value."""

    name, batch_size, concurrency = "ladder", 64, 1

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[self._one(q, i) for i in range(q.n)] for q in questions]

    def _one(self, question: Propose, i: int) -> Continuation:
        last = int(question.prefix[-1].text) if question.prefix else 0
        step = Step(str(last + [1, 3, 2][i % 3]))
        return Continuation((step,), finished=i % 3 == 2 or len(question.prefix) > 3, n_tokens=1)


def test_a_step_beam_narrows_as_solutions_end() -> None:
    driver = Driver(policy=Ladder(), scorer=AsSaid(), grader=Text())
    found = next(driver.run([step_beam(PROBLEM, KEY, beams=3, width=3)])).result
    # 3, 2 (ends), 1 are kept: two places left. Of 3 and 1: 6, 5 (ends). One place left: 9, then 12, 15.
    ends = [tuple(s.text for s in t.steps) for t in found.tree.trajectories()]
    assert ends[:2] == [("2",), ("3", "5")]
    assert ends[2] == ("3", "6", "9", "12", "15")
    assert found.answer == "15"
