"""Prefixes name the places on their way as if each were read from the problem on."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.keys import Key
from stepreward.core.prefix_names import Prefix, prefix_of
from stepreward.core.runtime.answer_log import digest
from stepreward.core.runtime.flows import Compare, Propose, Score
from stepreward.core.types import Problem, Step

STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(["a", "b", "ab", ""]),
        agent=st.sampled_from([None, "x"]),
        tokens=st.sampled_from([None, (1,), (1, 2)]),
    ),
    max_size=5,
)
PROBLEM = Problem("p", "?")


@given(steps=STEPS, more=STEPS)
def test_grown_read_and_cut_alike(steps: list[Step], more: list[Step]) -> None:
    grown = Prefix(steps).then(more)
    assert grown == (*steps, *more)
    assert grown.names == Prefix((*steps, *more)).names
    cut = grown.first(len(steps))
    assert (cut, cut.names) == (tuple(steps), Prefix(steps).names)
    assert prefix_of(grown) is grown


@given(one=STEPS, other=STEPS)
def test_places_are_one_iff_all_steps_up_to_them_are(one: list[Step], other: list[Step]) -> None:
    same = [step.identity for step in one] == [step.identity for step in other]
    assert (Prefix(one).name == Prefix(other).name) == same


@given(one=STEPS, other=STEPS)
def test_questions_have_one_name_however_their_steps_are_held(one: list[Step], other: list[Step]) -> None:
    def questions(a: tuple[Step, ...], b: tuple[Step, ...]) -> list[Propose | Score | Compare]:
        return [Propose(PROBLEM, a, Key(1)), Score(PROBLEM, a), Compare(PROBLEM, a, b)]

    bare = [digest(question, "me") for question in questions(tuple(one), tuple(other))]
    assert [digest(question, "me") for question in questions(Prefix(one), Prefix(other))] == bare
    if Prefix(one).name != Prefix(other).name:
        turned = [digest(question, "me") for question in questions(tuple(other), tuple(one))]
        assert not set(bare) & set(turned)


@given(parts=st.lists(st.one_of(st.text(max_size=3), st.integers(-9, 9)), max_size=6), cut=st.integers(0, 6))
def test_a_key_told_in_parts_is_the_key_told_at_once(parts: list[str | int], cut: int) -> None:
    begun = Key.seed(3).folding(*parts[:cut])
    first: Sequence[str | int] = parts[cut:]
    assert begun.fold(*first).key == Key.seed(3).fold(*parts)
    assert begun.key == Key.seed(3).fold(*parts[:cut]), "it stays as it is"
