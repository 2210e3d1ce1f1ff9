"""What readers of formats share: fields by path, texts, outcomes, answers in parts, runs, steps and comparisons."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step
from stepreward.formats import has
from stepreward.formats.agents.messages import MODEL, Turn, joined_answers
from stepreward.formats.agents.runs import is_cut, path_to
from stepreward.formats.fields import (
    decoded,
    first_value,
    id_at,
    json_fields,
    list_at,
    object_at,
    outcome_of,
    outcome_or_nan,
    plain_text,
    text_at,
)
from stepreward.formats.rows import check_choice, compared, cut_steps

ROW: dict[str, Any] = {"a": {"b": [1], "c": None, "d": "x"}, "n": 0, "empty": "", "gone": None}


def test_fields_are_found_by_path_and_the_first_that_is_there_counts() -> None:
    assert first_value(ROW, "gone", "a.c", "n", "a.d") == 0
    assert first_value(ROW, "a.d.e", "nothing") is None
    assert (text_at(ROW, "a.d"), text_at(ROW, "n", "a.d"), text_at("no row", "a")) == ("x", "", "")
    assert (list_at(ROW, "a.b"), list_at(ROW, "a"), object_at(ROW, "a.b")) == ([1], [], {})
    assert (id_at(ROW, 7, "a.d"), id_at(ROW, 7, "gone", "n"), id_at(ROW, 7, "a.b")) == ("x", 0, 7)
    assert json_fields(ROW, "n", "empty", "gone", "other") == {"n": 0, "empty": ""}


def test_only_texts_with_such_an_opening_are_decoded() -> None:
    assert decoded(' [{"role": "user"}]', "[") == [{"role": "user"}]
    assert decoded('{"a": 1}', "{", "[") == {"a": 1}
    # "12" is JSON too, and an answer; "[1" is broken.
    assert (decoded("12", "["), decoded("[1", "["), decoded([1], "[")) == ("12", "[1", [1])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), ("said", "said"), ({"output": "o", "code": 0}, "o"), ({"code": 0}, '{"code": 0}'), ([], "[]"),
        ([{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}], "a\nb"), (["ü"], '["ü"]'),
    ],
)  # fmt: skip
def test_results_of_any_shape_are_text(value: object, text: str) -> None:
    assert plain_text(value) == text


def test_a_reward_is_an_outcome_strictly_or_where_it_is_one() -> None:
    assert (outcome_of(2, "reward", 4), outcome_or_nan("0.5"), outcome_or_nan(True)) == (0.5, 0.5, 1.0)
    for value in (5, -1, math.inf, "high", [1]):
        assert math.isnan(outcome_or_nan(value, 4))
        with pytest.raises(InputError, match=r"'reward' must be a number in \[0, 4\]"):
            outcome_of(value, "reward", 4)
    assert math.isnan(outcome_of(None, "reward"))
    for scale in (0, -1, math.nan):
        with pytest.raises(InputError, match="scale must be a positive number"):
            outcome_or_nan(1, scale)


def test_parts_of_an_answer_are_one_turn() -> None:
    call = {"name": "ls", "arguments": {}}
    parts = [
        Turn("user", "go"), Turn(MODEL, "", reasoning="hm"), Turn(MODEL, "look"), Turn(MODEL, "", (call,)),
        Turn(MODEL, "done"),
    ]  # fmt: skip
    assert [(turn.role, turn.text, turn.reasoning, len(turn.calls)) for turn in joined_answers(parts)] == [
        ("user", "go", "", 0), (MODEL, "look\ndone", "hm", 1),
    ]  # fmt: skip
    # Where a log writes no result after a call, the call ends the answer.
    assert [turn.text for turn in joined_answers(parts, until_call=True)] == ["go", "look", "done"]


def test_a_path_leads_from_the_root() -> None:
    #     0 - 1 - 3
    #       \ 2
    parents = [None, 0, 0, 1]
    assert (path_to(3, parents), path_to(2, parents), path_to(0, parents)) == ([0, 1, 3], [0, 2], [0])
    assert (is_cut("MAX_TOKENS"), is_cut("stop"), is_cut(None)) == (True, False, False)


@pytest.mark.parametrize(
    ("text", "separator", "steps"),
    [
        ("a\n\nb", "\n\n", ["a\n\n", "b"]), ("a\n\n", "\n\n", ["a\n\n"]), ("a\n\nb", "", ["a\n\nb"]), ("", "\n", [""]),
        ("\na", "\n", ["\n", "a"]),
    ],
)  # fmt: skip
def test_cut_steps_are_the_text(text: str, separator: str, steps: list[str]) -> None:
    assert [step.text for step in cut_steps(text, separator)] == steps


def test_a_format_is_known_by_fields_and_their_types() -> None:
    fits = has("question", steps=list)
    assert fits({"question": 1, "steps": [], "more": 0})
    assert not fits({"question": 1, "steps": "a"})
    assert not fits({"steps": []})


def test_preferred_values_are_outcomes_where_they_can_be() -> None:
    made = compared(Problem("p", "?"), [[Step("a")], [Step("b"), Step("c")]], [0.25, 7.0], "s", terminal=False)
    assert (made.preferred, made.subset) == ((0.25, 7.0), "s")
    assert [(one.text, one.terminal) for one in made.candidates] == [("a", False), ("bc", False)]
    assert made.candidates[0].outcome == 0.25
    assert math.isnan(made.candidates[1].outcome)


def test_a_choice_that_is_none_names_all() -> None:
    check_choice("how", "b", Literal["a", "b", "c"])
    with pytest.raises(InputError, match="how must be a, b or c, got 'd'"):
        check_choice("how", "d", Literal["a", "b", "c"])
