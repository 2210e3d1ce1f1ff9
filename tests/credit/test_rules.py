"""Rule rewards on numbers worked out by hand, and on texts that no honest policy writes."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from stepreward.core.catalog import reward
from stepreward.core.errors import InputError, MissingDataError, UnknownNameError
from stepreward.core.types import Problem, Step
from stepreward.credit.rules.call_rewards import calls, matched, well_tagged
from stepreward.credit.rules.matching import overlap
from stepreward.credit.rules.text_rules import difficulty_weights

HOSTILE = [
    "", "\x00", "\ud800", "[" * 200_000, "<tool_call>" * 50_000, "<tool_call>" + "[" * 100_000 + "</tool_call>",
    "<tool_call>" + '{"name": "f", "arguments": ' + '{"a":' * 20_000, "[a] " * 100_000, "x " * 200_000,
    "<tool_call>" + '{"name": "f", "arguments": {"x": ' + "9" * 100_000 + "}}</tool_call>",
    "<tool_call>" + '"\\"' * 100_000 + "</tool_call>", "<tool_call>[NaN, Infinity]</tool_call>" * 1000,
]  # fmt: skip


def problem(**meta: Any) -> Problem:
    return Problem("p", "?", meta=meta)


def said(*texts: str) -> list[Step]:
    return [Step(text) for text in texts]


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


META = {
    "calls": [[{"name": "f", "arguments": {"a": 1}}]], "tools": [{"name": "f", "parameters": {"type": "object"}}],
    "rubrics": [["a", "b"]], "answer": "a", "pass_rates": [0.5], "database": ["CREATE TABLE t (a)"],
}  # fmt: skip
CHEAP = [method.name for method in reward if method.name not in ("reasoning-sql", "self-certainty", "diagnostics")]
"""Rules that read texts and ask nobody."""


@pytest.mark.parametrize("name", CHEAP)
def test_whatever_a_step_holds_it_gets_a_finite_number_soon(name: str) -> None:
    for text in HOSTILE:
        start = time.process_time()
        made = reward[name](problem(**META), [Step("seen", kind="observation"), Step(text), Step(text)])
        assert time.process_time() - start < 20, text[:20]
        assert made.shape == (3,)
        assert np.isnan(made[0])
        assert np.isfinite(made[1:]).all()


@pytest.mark.parametrize("name", CHEAP)
def test_a_solution_without_steps_has_no_rewards(name: str) -> None:
    assert reward[name](problem(**META), []).shape == (0,)


@pytest.mark.parametrize("name", ["carr", "weighted-tests", "tool-calls", "toolrl", "matchtir"])
def test_what_the_problem_lacks_is_named(name: str) -> None:
    with pytest.raises(MissingDataError, match=r"meta\['"):
        reward[name](problem(other=1), said("x"))


def test_repeated_words_are_charged_by_their_share() -> None:
    # Pairs: ab, bc | ab (seen), bd | none | da, ad, da (seen).
    made = reward["repetition"](problem(), said("a b c", "a b d", "a", "d a d a"), n=2, weight=2.0)
    np.testing.assert_allclose(made, [0, -1, 0, -2 / 3])
    with pytest.raises(ValueError, match="n=0"):
        reward["repetition"](problem(), said("a"), n=0)


def test_a_quoted_observation_counts_as_said() -> None:
    steps = [Step("a b", kind="observation"), Step("a b")]
    np.testing.assert_array_equal(reward["repetition"](problem(), steps, n=2), [np.nan, -1])


def test_overlong_steps_pay_what_they_add() -> None:
    steps = [
        Step("", tokens=(1,) * 6),
        Step("five words in this one", kind="observation"),
        Step("a b c"),
        Step("d " * 9),
    ]
    # Lengths 6, 9, 18 of at most 10 with a cushion of 4: penalties 0, -3/4, -1.
    made = reward["soft-overlong"](problem(), steps, longest=10, cushion=4)
    np.testing.assert_allclose(made, [0, np.nan, -0.75, -0.25])
    with pytest.raises(ValueError, match="cushion"):
        reward["soft-overlong"](problem(), steps, longest=10, cushion=11)


def test_certainty_is_shared_out_by_tokens() -> None:
    steps = [
        Step("a b", tokens=(1, 2, 3), meta={"self_certainty": 2.0}),
        Step("seen", kind="observation"),
        Step("", tokens=(1,), meta={"self_certainty": 6.0}),
    ]
    # The mean over four tokens is (3 * 2 + 6) / 4 = 3.
    np.testing.assert_allclose(reward["self-certainty"](problem(), steps), [1.5, np.nan, 1.5])
    assert reward["self-certainty"](problem(), []).shape == (0,)
    with pytest.raises(MissingDataError, match=r"meta\['self_certainty'\] of action 1"):
        reward["self-certainty"](problem(), [steps[0], Step("x")])


def test_citations_must_have_been_shown() -> None:
    steps = [
        Step("as in [1] and [2]"),
        Step("found", kind="observation", meta={"sources": [2, "doc-3"]}),
        Step("[2] [doc-3] [4] [0]"),
        Step("nothing"),
    ]
    # One of two was known, then three of four.
    np.testing.assert_allclose(reward["citations"](problem(sources=["0", 1]), steps), [0, np.nan, 0.5, 0])


def test_evidence_counts_once_it_hangs_on_the_answer() -> None:
    given = problem(rubrics=[["x", "y"], ["y", "answer"], ["z", "w"], ["answer", "v"]], answer="answer")
    steps = [
        Step("", meta={"supported": [0]}),  # hangs on nothing yet
        Step("", meta={"supported": [1]}),  # ties itself and the first: 2 of 4
        Step("", meta={"supported": [2, 7]}),  # an island, and one that is not there
        Step("", meta={"supported": [3, 1]}),  # 3 of 4
    ]
    np.testing.assert_allclose(reward["carr"](given, steps), [0, 0.5, 0, 0.25])


def test_hard_and_rare_tests_weigh_more() -> None:
    # Kernel counts: the first two see each other fully, the third (10 bandwidths away) only itself.
    made = difficulty_weights([0.0, 0.0, 1.0], power=1.0, bandwidth=0.1, floor=1.0)
    raw = np.array([1 / 3, 1 / 3, np.exp(-1) / 2])
    np.testing.assert_allclose(made, raw / raw.sum(), rtol=1e-9)
    np.testing.assert_allclose(difficulty_weights([0.3, 0.3], power=5.0), [0.5, 0.5])
    # Kernel counts 1, 2, 2, 1 (the others are 5 bandwidths away), each with 1 more: e^-1 / 2, e^-0.5 / 3 twice, 1 / 2.
    rates = [1.0, 0.5, 0.5, 0.0]
    raw = difficulty_weights(rates, normalise=False)
    np.testing.assert_allclose(raw, [0.18394, 0.20218, 0.20218, 0.5], atol=1e-5)
    np.testing.assert_allclose(difficulty_weights(rates), [0.16902, 0.18577, 0.18577, 0.45943], atol=1e-5)
    passed = [Step("", meta={"passed": [1, 0, 0, 1]})]
    found = reward["weighted-tests"](problem(pass_rates=rates), passed, normalise=False)
    np.testing.assert_allclose(found, [0.68394], atol=1e-5)
    assert difficulty_weights([]).shape == (0,)
    with pytest.raises(ValueError, match="pass rates"):
        difficulty_weights([1.5])
    with pytest.raises(ValueError, match="bandwidth"):
        difficulty_weights([0.5], bandwidth=0.0)
    steps = [Step("", meta={"passed": [1, 0, 1]}), Step(""), Step("run", kind="observation")]
    found = reward["weighted-tests"](problem(pass_rates=[0.0, 0.0, 1.0]), steps)
    np.testing.assert_allclose(found, [made[0] + made[2], 0, np.nan])
    with pytest.raises(ValueError, match="2 results of tests for 1 pass rates"):
        reward["weighted-tests"](problem(pass_rates=[0.5]), [Step("", meta={"passed": [1, 1]})])


def test_calls_are_read_one_a_block_or_one_a_line() -> None:
    line = '{"name": "f", "parameters": {"a": 1}}'
    assert calls(f"x <tool_call>\n{line}\n{line}\n</tool_call> y {call('g')}") == [("f", {"a": 1})] * 2 + [("g", {})]
    assert calls('<tool_call>{\n"name": "f",\n"arguments": {}\n}') == [("f", {})]
    assert calls("<tool_call>\n</tool_call>") == [None]
    assert calls('<tool_call>["f"]</tool_call> <tool_call>{"name": 1, "arguments": {}}</tool_call>') == [None, None]
    assert calls("none") == []
    assert calls(call("f", a=json.loads("[" * 40 + "]" * 40))) == [None]


def test_a_tool_would_accept_it() -> None:
    schema = {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
        "additionalProperties": False,
    }  # fmt: skip
    given = problem(
        tools=[{"type": "function", "function": {"name": "weather", "parameters": schema}}, {"name": "stop"}]
    )
    steps = said(
        call("weather", city="Bern"),
        call("weather", city=3) + call("stop"),
        call("weather") + call("weather", city="x", day=1) + call("fly") + "<tool_call>{",
        "no call",
        call("stop", anything=1) * 3 + call("fly"),
    )
    np.testing.assert_allclose(reward["tool-calls"](given, steps), [1, 0, -1, 0, 0.5])
    for bad in ({"parameters": {}}, {"name": "f", "parameters": {"type": "nonsense"}}):
        with pytest.raises(InputError, match="tool 0"):
            reward["tool-calls"](problem(tools=[bad]), said("x"))


GOLD = [("f", {"a": 1, "b": 2}), ("g", {})]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # S_max = 1 + (1 + 2) + (1 + 0) = 5.
        ([("g", {}), ("f", {"b": 2, "a": 1})], 5 / 5),
        ([("f", {"a": 1, "b": 3})], (1 / 2 + 1 + 1) / 5),
        ([("f", {"a": 1, "c": 3}), ("f", {"a": 1, "b": 2})], (1 / 3 + 1 + 2) / 5),
        ([("h", {"a": 1, "b": 2})], 0),
        ([("f", {"a": 1, "b": 2}), None], 0),
        ([], 0),
    ],
)
def test_calls_match_gold_ones_by_name_arguments_and_values(found: list[Any], expected: float) -> None:
    assert matched(found, GOLD) == pytest.approx(expected)


def test_the_best_pairs_of_calls_and_not_the_first_best() -> None:
    gold = [("f", {"a": 1, "b": 1}), ("f", {"a": 1, "c": 2})]
    found = [("f", {"a": 1, "b": 1, "c": 2}), ("f", {"a": 1, "b": 1})]
    # (0, 0) 2/3 + 2 and (1, 1) 1/3 + 1, or (0, 1) 2/3 + 2 and (1, 0) 1 + 2: the second. S_max = 1 + 3 + 3.
    assert matched(found, gold) == pytest.approx((1 + 2 / 3 + 2 + 3) / 7)


def test_turns_are_rewarded_for_format_and_calls() -> None:
    given = problem(calls=[[{"name": "f", "arguments": {"a": 1}}], []])
    right = f"<think>t</think>\n{call('f', a=1)}"
    answer = "<think>t</think>\n<response>r</response>"
    steps = [Step(right), Step("saw", kind="observation"), Step(answer), Step(right)]
    np.testing.assert_allclose(reward["toolrl"](given, steps), [4, np.nan, 1, 0])
    # No format but a call with the right names: S = 1 + 1 of S_max = 3, so 3 (4/3 - 1).
    np.testing.assert_allclose(reward["toolrl"](given, said(call("f", a=2))), [1])
    np.testing.assert_allclose(reward["toolrl"](given, said("<think>t</think>")), [-3])
    with pytest.raises(InputError, match="gold call"):
        reward["toolrl"](problem(calls=[[{"name": "f"}]]), said("x"))


def test_turns_are_rewarded_by_what_their_calls_are_matched_with() -> None:
    gold = [[{"name": "f", "arguments": {"a": 1}}], [{"name": "g", "arguments": {}}, {"name": "f", "arguments": {}}]]
    given = Problem("p", "?", reference="The red Fox", meta={"calls": gold})
    steps = [
        Step(call("g") + call("f", a=1)),  # both matched in full, in whatever turn they stand
        Step("saw", kind="observation"),
        Step(call("f", a=2) + call("f", a=2) + "<tool_call>{"),  # one gold f is left: (1 + 0) / 2, nothing, malformed
        Step("hm"),
        Step(
            call("g") + "<answer>no</answer><answer>a red, RED fox!</answer>"
        ),  # 2 of {a, red, fox}, of {the, red, fox}
    ]
    np.testing.assert_allclose(reward["matchtir"](given, steps), [1, np.nan, 0.5 / 3, 0, 2 / 3])
    flat = Problem("p", "?", reference="The red Fox", meta={"calls": [one for turn in gold for one in turn]})
    np.testing.assert_allclose(reward["matchtir"](flat, steps), reward["matchtir"](given, steps))
    with pytest.raises(UnknownNameError, match="matching"):
        reward["matchtir"](given, steps, matching="greedy")


def test_transport_shares_a_gold_call_among_equal_ones() -> None:
    given = problem(calls=[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}])
    steps = said(call("f"), call("f"))
    # Each f sends half of its mass to the gold f and half to g, which is not alike; the assignment pays one of them.
    np.testing.assert_allclose(reward["matchtir"](given, steps, matching="transport"), [0.5, 0.5], atol=1e-6)
    assert sorted(reward["matchtir"](given, steps).tolist()) == [0, 1]
    np.testing.assert_allclose(reward["matchtir"](problem(calls=[]), steps, matching="transport"), [0, 0])


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("<think>a</think>\n<response>b</response>\n", True),
        ("<think>a</think><response>b</response> c", False),
        ("c <think>a</think><response>b</response>", False),
        ("<response>b</response><think>a</think>", False),
        ("<think>a</think><think>a</think><response>b</response>", False),
        ("<think>a</think>", False),
    ],
)
def test_tags_stand_in_order_once(text: str, fits: bool) -> None:
    assert well_tagged(text, ("think", "response")) is fits


def test_overlap_counts_what_is_repeated() -> None:
    assert overlap("aab", "abb") == 2 / 4
    assert overlap("", "") == 1
    assert overlap("a", "") == 0


def test_no_schema_and_no_arguments_end_or_hold_up_a_training() -> None:
    """Each call costs at most about its second, and none raises; the last is right and is seen to be."""
    numbers = {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.1}}}
    sets = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    words = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^(\w+\s?)*$"}}}
    away = {"type": "object", "properties": {"a": {"$ref": "http://localhost:1/x.json"}}}
    many = [{"k": i} for i in range(20_000)]
    bad = [(numbers, float("nan")), (words, "a" * 60 + "!"), (away, 1)]
    for schema, value in [*bad, (sets, many)]:
        meta = {"tools": [{"name": "f", "parameters": schema}]}
        start = time.process_time()
        (made,) = reward["tool-calls"](problem(**meta), said(call("f", a=value)))
        assert time.process_time() - start < 20
        assert made == -1
    meta = {"tools": [{"name": "f", "parameters": words}]}
    assert reward["tool-calls"](problem(**meta), said(call("f", a="two words"))).tolist() == [1]
