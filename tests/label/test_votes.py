"""Labels out of votes: the numbers of the papers' examples, ties, and votes that say nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.catalog import transform
from stepreward.core.types import Problem, Provenance, Step, Trajectory

NAN = float("nan")


def judged(*votes: Sequence[float], observations: Sequence[int] = ()) -> Trajectory:
    size = len(votes[0])
    steps = tuple(Step(f"{i}\n", "observation" if i in observations else "action") for i in range(size))
    columns = {f"score:vote{i}": np.array(one, np.float64) for i, one in enumerate(votes, 1)}
    return Trajectory(Problem("p", ""), steps).with_columns(columns, Provenance("judge of tests"))


def merged(name: str, trajectory: Trajectory, **settings: object) -> list[float]:
    return transform[name].take({"trajectory": trajectory}, **settings).labels.tolist()


def same(found: list[float], expected: Sequence[float]) -> None:
    np.testing.assert_array_equal(found, expected)


SPARK = judged([1, 1, 0], [1, 0, 0], [1, 1, 1])


def test_the_example_of_the_notes() -> None:
    """Verdicts wrong, wrong, right: outcome consistency keeps the first two; the majority of steps is 1, 1, 0."""
    same(merged("step-vote", SPARK), [1, 1, 0])
    made = transform["outcome-vote"].take({"trajectory": SPARK})
    assert made.facts["votes"] == {"read": 3, "unread": 0, "agree": 2}
    same(made.labels.tolist(), [1, NAN, 0])
    same(merged("outcome-vote", SPARK, soft=True), [1, 0.5, 0])
    same(merged("mean-vote", SPARK), [1, 2 / 3, 1 / 3])
    # First errors at 2, 1 and nowhere, one vote each: the earliest counts.
    same(merged("first-error-vote", SPARK), [1, 0, NAN])
    same(merged("first-error-vote", SPARK, after_error="zero"), [1, 0, 0])
    same(merged("unanimous-vote", SPARK), [NAN] * 3)
    rolled = SPARK.with_columns({"value": np.ones(3)}, Provenance("rollouts of tests"))
    by = transform["outcome-vote"].take({"trajectory": rolled}).provenance[-1]
    assert (by.estimator, by.policy, by.what) == ("outcome-vote", "judge of tests", ("label",))


def test_the_index_of_the_earliest_bad_step_and_what_follows_it() -> None:
    """Five steps, index 3: 1 1 1 -1 -1 in VersaPRM's labels; index -1: all right."""
    same(merged("first-error-vote", judged([1, 1, 1, 0, NAN]), after_error="zero"), [1, 1, 1, 0, 0])
    same(merged("first-error-vote", judged([1] * 5)), [1] * 5)
    same(merged("first-error-vote", judged([NAN] * 5), after_error="zero"), [NAN] * 5)


def test_a_vote_that_cannot_be_read_is_missing_and_never_right() -> None:
    some = judged([NAN, NAN, NAN], [1, 0, NAN], [1, NAN, NAN])
    made = transform["first-error-vote"].take({"trajectory": some})
    # The third stopped early without an error: of the whole it says nothing.
    assert made.facts["votes"] == {"read": 1, "unread": 2, "agree": 1}
    same(made.labels.tolist(), [1, 0, NAN])
    same(merged("first-error-vote", some, least=2), [NAN] * 3)
    same(merged("outcome-vote", some), [1, 0, NAN])
    same(merged("step-vote", some), [1, 0, NAN])
    same(merged("step-vote", some, least=2), [1, NAN, NAN])


def test_ties_and_majorities() -> None:
    same(merged("first-error-vote", judged([1, 1, 0], [1, 1, 0], [0, NAN, NAN])), [1, 1, 0])
    same(merged("first-error-vote", judged([1, 1, 1], [1, 1, 0])), [1, 1, 0])
    same(merged("first-error-vote", judged([1, 1, 1], [1, 1, 1], [0, 0, 0])), [1, 1, 1])
    same(merged("first-error-vote", judged([1, 1, 1], [1, 1, 1], [0, 0, 0]), share=0.7), [NAN] * 3)
    same(merged("unanimous-vote", judged([1, 0, 1], [1, 0, 0])), [1, 0, NAN])
    same(merged("unanimous-vote", judged([1, 0, 1])), [NAN] * 3)
    same(merged("step-vote", judged([1, 0], [0, 0])), [NAN, 0])
    same(merged("outcome-vote", judged([1, 1], [1, 0])), [NAN, NAN])


def test_three_way_verdicts_and_observations_and_other_names() -> None:
    same(merged("step-vote", judged([1, 0.5, 0])), [1, 0, 0])
    same(merged("step-vote", judged([1, 0.5, 0]), threshold=0.0), [1, 1, 0])
    seen = judged([1, 0, 0], observations=[1])
    same(merged("first-error-vote", seen), [1, NAN, 0])
    several = SPARK.with_columns({"score:A": np.array([0.9, 0.2, 0.1]), "score:B": np.array([0.8, 0.7, 0.3])})
    same(merged("first-error-vote", several, votes="score:[AB]"), [1, 0, NAN])
    same(merged("step-vote", several, votes="said*"), [NAN] * 3)
    with pytest.raises(ValueError, match="share"):
        merged("first-error-vote", several, share=1.5)


def test_the_first_error_can_be_soft_and_a_majority_can_be_asked_of_steps() -> None:
    """First errors at 2, 1 and nowhere: up to step 0 none of three has found one, up to 1 one has, up to 2 two have."""
    same(merged("first-error-vote", SPARK, soft=True, after_error="keep"), [1, 2 / 3, 1 / 3])
    same(merged("first-error-vote", judged([0, 1, 1], [0, 1, 1]), soft=True), [0, NAN, NAN])
    same(merged("step-vote", SPARK, share=0.6), [1, 1, 0])
    same(merged("step-vote", SPARK, share=0.7), [1, NAN, NAN])
    # The two that call the whole wrong: first errors at 2 and 1, and the earlier counts.
    made = transform["first-error-vote"].take({"trajectory": SPARK}, voters="majority")
    same(made.labels.tolist(), [1, 0, NAN])
    assert made.facts["votes"] == {"read": 3, "unread": 0, "agree": 1}
    for name in ("step-vote", "first-error-vote", "outcome-vote"):
        assert transform[name].take({"trajectory": SPARK}).provenance[-1].estimator == name
    with pytest.raises(ValueError, match="'some'"):
        merged("vote", SPARK, voters="some")


def test_labels_stay_where_the_second_source_agrees() -> None:
    """A person's -1 with bits (1, 1, 1) is dropped, (1, 1, 0) is 0 of both."""
    one = judged([1, 0, 1, 0]).with_columns({"label": np.array([1, 0, 0, NAN]), "score": np.array([1, 0, 1, 0.0])})
    same(merged("agreed-steps", one), [1, 0, NAN, NAN])
    # At the threshold is wrong, for both.
    half = one.with_columns({"label": np.array([0.5, 0.5, 1, 0]), "score": np.array([0, 1, 0.5, 0.5])})
    same(merged("agreed-steps", half), [0.5, NAN, NAN, 0])
    same(merged("agreed-steps", one, column="other"), [NAN] * 4)


VOTE = st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4)


@given(st.lists(VOTE, min_size=1, max_size=6), st.randoms())
def test_merges_count_votes_one_by_one(votes: list[list[float]], order: object) -> None:
    made = transform["first-error-vote"].take({"trajectory": judged(*votes)})
    firsts = [vote.index(0.0) if 0.0 in vote else 4 for vote in votes]
    best = max(range(5), key=lambda step: (firsts.count(step), -step))
    assert made.labels[:best].tolist() == [1.0] * best
    assert best == 4 or made.labels[best] == 0
    assert made.facts["votes"]["agree"] == firsts.count(best)
    means = np.mean(votes, axis=0)
    same(merged("mean-vote", judged(*votes)), means.tolist())
    same(merged("step-vote", judged(*votes)), [NAN if m == 0.5 else float(m > 0.5) for m in means])
    order.shuffle(votes)  # type: ignore[attr-defined]
    same(merged("first-error-vote", judged(*votes)), made.labels.tolist())
