"""Judges for any model: what they are asked, how their answers are read, and what is missing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.score.test_generative import Writer

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.score.checkpoints.general_judges import ROWS
from stepreward.score.checkpoints.known_checkpoints import judge_by_name
from stepreward.score.judges.generative import GenerativeScorer
from stepreward.score.judges.readings import behind_thoughts, boxed_number
from stepreward.score.load import load

NAN = float("nan")
PROBLEM = Problem("p", "Add.", "{seven}")
STEPS = tuple(Step(f"Step {i}: line {i}\n") for i in range(1, 6))


def judged(name: str, *lines: str, n: int = 1, steps: tuple[Step, ...] = STEPS, **changed: object) -> Scored:
    writer = Writer(*lines)
    judge = replace(judge_by_name(name), **changed)  # type: ignore[arg-type]
    (made,) = GenerativeScorer(writer, judge, n=n).score_many([Score(PROBLEM, steps)])
    assert not writer.lines
    return made


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Hm. \\boxed{4}", [1, 1, 1, 0, NAN]),
        ("\\boxed{1}", [0, NAN, NAN, NAN, NAN]),
        ("First \\boxed{2}, no: \\boxed{\\text{5}}.", [1, 1, 1, 1, 0]),
        ("All is well: \\boxed{-1}", [1, 1, 1, 1, 1]),
        ("\\boxed{3} it is, I should put that in \\boxed{}", [1, 1, 0, NAN, NAN]),
        ("\\boxed{6}", [NAN] * 5),
        ("\\boxed{0}", [NAN] * 5),
        ("Step 3 is wrong", [NAN] * 5),
        ("<think>\\boxed{1}</think> \\boxed{2}", [1, 0, NAN, NAN, NAN]),
        ("<think>\\boxed{1} and so on without end", [NAN] * 5),
        ("", [NAN] * 5),
    ],
)
def test_the_index_in_the_last_box_is_the_first_wrong_step(said: str, expected: list[float]) -> None:
    np.testing.assert_array_equal(judged("first-error", said).scores, expected)


def test_steps_are_numbered_from_where_the_row_says() -> None:
    """Five steps, index 3 counted from 0: right, right, right, wrong; index 5 is none of them."""
    np.testing.assert_array_equal(judged("first-error", "\\boxed{3}", base=0).scores, [1, 1, 1, 0, NAN])
    np.testing.assert_array_equal(judged("first-error", "\\boxed{5}", base=0).scores, [NAN] * 5)
    writer = Writer("\\boxed{-1}")
    GenerativeScorer(writer, replace(judge_by_name("first-error"), base=0)).score("q", ["a", "b"])
    assert "Step 0: a\nStep 1: b\n" in writer.asked[0].problem.text


def test_an_error_at_what_others_said_is_none_that_can_be_read() -> None:
    seen = (Step("look"), Step("a tool's words", kind="observation"), Step("go"))
    np.testing.assert_array_equal(judged("first-error", "\\boxed{2}", steps=seen).scores, [NAN] * 3)
    np.testing.assert_array_equal(judged("first-error", "\\boxed{3}", steps=seen).scores, [1, NAN, 0])


def test_each_answer_is_a_vote_of_its_own_and_the_score_their_mean() -> None:
    made = judged("first-error", "\\boxed{2}", "\\boxed{-1}", "?", "\\boxed{3}", n=4)
    votes = [[1, 0, NAN, NAN, NAN], [1] * 5, [NAN] * 5, [1, 1, 0, NAN, NAN]]
    assert [*made.columns] == ["vote1", "vote2", "vote3", "vote4"]
    for found, expected in zip(made.columns.values(), votes, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(made.scores, [1, 2 / 3, 1 / 2, 1, 1])


def test_three_way_verdicts_stand_in_lines() -> None:
    said = "Fine.\nStep 1: GOOD\n**Step 2**: OK, a detour\nStep 3: INCORRECT\n- step 4: bad\nStep 9: GOOD"
    np.testing.assert_array_equal(judged("good-ok-bad", said).scores, [1, 0.5, NAN, 0, NAN])
    twice = "Step 1: GOOD\nOn second thought:\nStep 1: BAD"
    np.testing.assert_array_equal(judged("good-ok-bad", twice).scores, [0, NAN, NAN, NAN, NAN])


def test_kinds_of_errors_are_channels_and_the_score_is_their_product() -> None:
    """Bits (1, 1, 0) are 0 as a whole, with the first two 1; a bit that is missing leaves the whole open."""
    first = (
        "Step 1: mathematics=yes, consistency=yes, optimality=no\nStep 2: mathematics=yes consistency=yes "
        "optimality=yes\nStep 3: mathematics=no, consistency=yes"
    )
    second = "Step 1: mathematics=yes, consistency=no, optimality=no\nStep 2: mathematics: Yes, mathematics: No"
    made = judged("error-kinds", first, second, n=2)
    np.testing.assert_array_equal(made.scores, [0, 1, NAN, NAN, NAN])
    np.testing.assert_array_equal(made.columns["mathematics"], [1, 1, 0, NAN, NAN])
    np.testing.assert_array_equal(made.columns["consistency"], [0.5, 1, 1, NAN, NAN])
    np.testing.assert_array_equal(made.columns["optimality"], [0, 1, NAN, NAN, NAN])
    np.testing.assert_array_equal(made.columns["vote2"], [0, NAN, NAN, NAN, NAN])


def test_a_check_is_criticised_and_made_again() -> None:
    writer = Writer("<think>hm</think> \\boxed{2}", "\\boxed{9}", "You skipped step 4.", "And 5.", "\\boxed{4}", "?")
    row = judge_by_name("meta-critique")
    (made,) = GenerativeScorer(writer, row, n=2).score_many([Score(PROBLEM, STEPS)])
    np.testing.assert_array_equal(made.columns["vote1"], [1, 1, 1, 0, NAN])
    np.testing.assert_array_equal(made.columns["vote2"], [NAN] * 5)
    assert made.tokens == 6 * 13
    talk = writer.asked[3].problem.messages
    assert [m["role"] for m in talk] == ["user", "assistant", "user", "assistant", "user"]
    # The review is of the answer without its thoughts.
    assert [m["content"] for m in talk[1:]] == ["\\boxed{2}", row.follow[0], "You skipped step 4.", row.follow[1]]
    assert len({str(one.key) for one in writer.asked}) == len(writer.asked)
    writer = Writer("<think>without end", "a", "\\boxed{1}")
    assert GenerativeScorer(writer, row).score("q", ["x"])[0] == 0
    assert writer.asked[1].problem.messages[1]["content"] == "(no answer)"


def test_a_second_pass_from_the_reference_must_agree() -> None:
    """Both passes name the same step, or there is no verdict."""
    np.testing.assert_array_equal(judged("reverse-verification", "\\boxed{2}", "\\boxed{2}").scores[:2], [1, 0])
    for first, last in (("\\boxed{2}", "\\boxed{3}"), ("?", "\\boxed{2}"), ("\\boxed{2}", "?"), ("?", "?")):
        np.testing.assert_array_equal(judged("reverse-verification", first, last).scores, [NAN] * 5)
    writer = Writer("\\boxed{-1}", "\\boxed{-1}")
    scorer = GenerativeScorer(writer, judge_by_name("reverse-verification"))
    np.testing.assert_array_equal(scorer.score_many([Score(PROBLEM, STEPS)])[0].scores, [1] * 5)
    assert "The right answer is {seven}." in writer.asked[1].problem.text
    assert "{seven}" not in writer.asked[0].problem.text


def test_who_is_shown_the_reference_says_so() -> None:
    shown = {row.name for row in ROWS if "shown the reference" in GenerativeScorer(Writer(), row).name}
    assert shown == {"first-error-with-reference", "reverse-verification", "good-ok-bad"}
    writer = Writer("\\boxed{-1}")
    scorer = GenerativeScorer(writer, judge_by_name("first-error-with-reference"))
    with pytest.raises(InputError, match="no reference answer"):
        scorer.score_many([Score(Problem("p", "q"), STEPS)])


def test_a_number_is_a_share_of_the_highest() -> None:
    made = judged("expected-value", *(f"So \\boxed{{{n}}}" for n in (8, 5, 6, 3)), "\\boxed{11}")
    np.testing.assert_allclose(made.scores, [0.8, 0.5, 0.6, 0.3, NAN])
    assert boxed_number("\\boxed{7} \\boxed{2.5} \\boxed{x}", 10) == 0.25
    assert np.isnan(boxed_number("7", 10))
    assert behind_thoughts("a </think> b </think> c") == " c"


def test_points_of_the_whole_are_those_of_its_last_step() -> None:
    made = judged("additive-points", "Good. \\boxed{4}", "\\boxed{6}", "4 of 5", n=3)
    np.testing.assert_array_equal(made.scores, [NAN] * 4 + [0.8])
    np.testing.assert_array_equal(made.columns["vote2"], [NAN] * 5)
    seen = (Step("go"), Step("a tool's words", kind="observation"))
    np.testing.assert_array_equal(judged("additive-points", "\\boxed{0}", steps=seen).scores, [0, NAN])


def test_a_judge_in_words_of_one_s_own(tmp_path: Path) -> None:
    file = tmp_path / "judge.json"

    def opened(row: object, like: str = "good-ok-bad") -> GenerativeScorer:
        file.write_text(json.dumps(row))
        made = load("any", like=like, record=file, open_policy=lambda source, **_: Writer("Step 1: PASS\nStep 2: FAIL"))
        assert isinstance(made, GenerativeScorer)
        return made

    own = {"prompt_format": "{prompt} Judge: {steps}", "words": [["PASS", 1], ["FAIL", 0.25]], "base": 1}
    scorer = opened(own)
    np.testing.assert_array_equal(scorer.score("q?", ["a", "b"]), [1, 0.25])
    (asked,) = scorer.policy.asked  # type: ignore[attr-defined]
    assert asked.problem.text == "q? Judge: Step 1: a\nStep 2: b"
    assert len({opened(row).name for row in (own, own | {"base": 0}, {"temperature": 0.5})}) == 3
    for wrong, said in [
        ({"prompt_format": "Judge {steps}"}, "must hold {prompt} and {steps}"),
        ({"prompting": "apart"}, "must hold {prompt} and {step}"),
        ({"words": [["PASS"]]}, "words must be a list, each a list of a text, a number"),
        ({"reading": "vibes"}, "reading must be one of"),
        ({"base": True}, "base must be a whole number"),
        (["prompt"], "expected an object"),
    ]:
        with pytest.raises(InputError, match=re.escape(said)):
            opened(wrong)
    with pytest.raises(UnknownNameError, match=r"field of a judge .* 'promt'"):
        opened({"promt": "x"})
