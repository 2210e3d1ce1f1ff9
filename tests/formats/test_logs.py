"""Logs of agents and preferences: what becomes an action, an observation, a candidate; broken archives."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepreward import formats
from stepreward.core.errors import InputError
from stepreward.formats.agents.messages import read_message, turns_of
from stepreward.formats.fields import outcome_of
from stepreward.formats.files import archives
from stepreward.formats.files import row_limits as limits
from stepreward.formats.registry import by_name

from .examples import EXAMPLES, items, one, texts


def kinds(item: Any) -> list[tuple[str, str, str | None]]:
    return [(step.kind, step.role, step.agent) for step in item.steps]


CALL = '{"name": "add", "arguments": {"a": 12, "b": 5}}\n'
EPISODE = [("action", "assistant", None), ("observation", "tool", "add"), ("action", "assistant", None)]


def test_the_same_talk_is_the_same_steps_with_every_provider() -> None:
    openai, anthropic = one("openai-chat"), one("anthropic", reasoning="drop")
    (otel,) = items("otel-genai", 1)
    assert texts(openai) == [CALL, "17\n", "It is 17.\n"]
    assert texts(anthropic) == [CALL, "17\n", "17\n"]
    assert texts(otel) == [CALL, "17\n", "17\n"]
    assert kinds(openai) == kinds(anthropic) == kinds(otel) == EPISODE
    assert [m["role"] for m in openai.problem.messages] == ["system", "user"]
    assert anthropic.problem.messages == otel.problem.messages == (
        {"role": "system", "content": "You can add."}, {"role": "user", "content": "What is 12 + 5?"},
    )  # fmt: skip


SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA}}
FLAT = {"name": "add", "description": "Adds.", "parameters": SCHEMA}
HOSTED = {"type": "web_search"}
SAID = {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}
ASKED = {"input": "1 + 1?", "output": [{"type": "message", "role": "assistant", "content": "2"}]}
STEPPED = {"schema_version": "ATIF-v1.5", "session_id": "s",
           "steps": [{"source": "user", "message": "1 + 1?"}, {"source": "agent", "message": "2"}]}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("openai-chat", SAID | {"tools": [ADD]}),
        ("openai-chat", SAID | {"tools": json.dumps([ADD])}),
        ("openai-chat", {"request": SAID | {"functions": [FLAT]}}),
        ("anthropic", SAID | {"system": "Add.", "tools": [{**FLAT, "input_schema": SCHEMA, "parameters": None}]}),
        ("openai-responses", ASKED | {"tools": [{"type": "function", **FLAT}]}),
        (
            "openai-responses",
            {"request": {"input": "?"}, "response": {**ASKED, "tools": [{"type": "function", **FLAT}]}},
        ),
        ("conversation", {"conversation": SAID["messages"], "tools": [ADD]}),
        ("atif", STEPPED | {"agent": {"name": "a", "tool_definitions": [ADD]}}),
    ],
    ids=["chat", "json", "functions", "anthropic", "responses", "answered", "conversation", "atif"],
)
def test_the_tools_that_a_log_states_are_those_of_its_problem(form: str, row: dict[str, Any]) -> None:
    (item,) = by_name(form).read(row, 1)
    assert item.problem.meta["tools"] == [ADD]
    assert "Adds." not in json.dumps(item.facts)


def test_tools_of_which_one_is_no_function_stay_among_the_facts() -> None:
    (item,) = by_name("openai-chat").read(SAID | {"tools": [ADD, HOSTED]}, 1)
    assert item.facts["tools"] == [ADD, HOSTED]
    assert "tools" not in item.problem.meta


def test_thinking_opens_the_action_or_is_left_out() -> None:
    assert texts(one("anthropic"))[0] == "Use the tool.\n" + CALL
    assert one("anthropic").steps[0].meta["reasoning"] == "Use the tool."
    with pytest.raises(InputError, match="keep or drop"):
        one("anthropic", reasoning="lose")


THOUGHTS: dict[str, dict[str, Any]] = {
    "reasoning_content": {"reasoning_content": "I add."},
    "reasoning": {"reasoning": "I add."},
    "reasoning of parts": {"reasoning": [{"type": "text", "text": "I add."}]},
    "text twice": {"reasoning": "I add.", "reasoning_details": [{"type": "reasoning.text", "text": "I add."}]},
    "details": {"reasoning_details": [{"type": "reasoning.text", "text": "I", "signature": "x"},
                                      {"type": "reasoning.encrypted", "data": "c2VhbGVk"}]},
    "summary": {"reasoning_details": [{"type": "reasoning.summary", "summary": "I add."}]},
    "thinking blocks": {"thinking_blocks": [{"type": "thinking", "thinking": "I add.", "signature": "x"}]},
    "object": {"thinking": {"content": "I add.", "signature": "x"}},
    "block": {"content": [{"type": "thinking", "thinking": "I add."}, {"type": "text", "text": "17"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", THOUGHTS)
def test_reasoning_is_kept_wherever_servers_put_it(name: str) -> None:
    row = {
        "messages": [{"role": "user", "content": "12 + 5"}, {"role": "assistant", "content": "17", **THOUGHTS[name]}]
    }
    (item,) = by_name("openai-chat").read(row, 1)
    thought = "I" if name == "details" else "I add."
    assert texts(item) == [f"{thought}\n17\n"]
    assert item.steps[0].meta["reasoning"] == thought
    (item,) = by_name("openai-chat").read(row, 1, reasoning="drop")
    assert texts(item) == ["17\n"]


def answered(reason: str, message: dict[str, Any]) -> dict[str, Any]:
    return {
        "request": {"model": "m", "messages": [{"role": "user", "content": "12 + 5"}]},
        "response": {"id": "r", "usage": {"completion_tokens": 3}, "choices": [
            {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}]},
    }  # fmt: skip


def test_a_refusal_is_what_the_model_said() -> None:
    (item,) = by_name("openai-chat").read(answered("stop", {"content": "", "refusal": "I cannot."}), 1)
    assert texts(item) == ["I cannot.\n"]
    assert item.steps[0].meta["refusal"] is True
    row = answered("stop", {"content": [{"type": "refusal", "refusal": "I cannot."}], "refusal": None})
    (item,) = by_name("openai-chat").read(row, 1)
    assert (texts(item), item.steps[0].meta["refusal"]) == (["I cannot.\n"], True)
    (item,) = by_name("openai-chat").read(answered("stop", {"content": "17", "refusal": None}), 1)
    assert "refusal" not in item.steps[0].meta


@pytest.mark.parametrize(
    ("reason", "ends"),
    [("stop", True), ("tool_calls", True), ("length", False), ("max_tokens", False), ("content_filter", False),
     ("abort", False), ("error", False)],
)  # fmt: skip
def test_an_answer_that_was_cut_is_not_terminal_and_says_why(reason: str, ends: bool) -> None:
    (item,) = by_name("openai-chat").read(answered(reason, {"content": "It is"}), 1)
    assert item.terminal is ends
    assert item.steps[0].meta["finish_reason"] == reason
    assert item.steps[0].meta["usage"] == {"completion_tokens": 3}
    talk = {"messages": [{"role": "user", "content": "12 + 5"}, {"role": "assistant", "content": "It is"}]}
    (item,) = by_name("openai-chat").read({**talk, "finish_reason": reason}, 1)
    assert item.terminal is ends


@pytest.mark.parametrize(
    ("more", "text", "failed"),
    [({"content": "", "error": {"type": "timeout", "message": "Too slow."}}, "Too slow.", True),
     ({"content": "Error: Too slow.", "error": "Too slow."}, "Error: Too slow.", True),
     ({"content": "no", "status": "error"}, "no", True), ({"content": "no", "is_error": True}, "no", True),
     ({"content": "17", "error": None, "status": "success"}, "17", None)],
)  # fmt: skip
def test_what_a_tool_s_failure_says_is_seen(more: dict[str, Any], text: str, failed: bool | None) -> None:
    (turn,) = read_message({"role": "tool", "tool_call_id": "c", **more}, 0)
    assert (turn.text, turn.meta.get("is_error")) == (text, failed)


def test_anthropic_s_stop_reasons_and_failed_tools_are_kept() -> None:
    request = {"model": "m", "max_tokens": 4, "messages": [
        {"role": "user", "content": "12 + 5"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "add", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "no", "is_error": True}]},
    ]}  # fmt: skip
    response = {"id": "msg", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "It"}]}
    for reason, ends in (("end_turn", True), ("max_tokens", False), ("refusal", True)):
        row = {"request": request, "response": {**response, "stop_reason": reason}}
        (item,) = by_name("anthropic").read(row, 1)
        assert (item.terminal, item.steps[-1].meta["stop_reason"]) == (ends, reason)
        assert [step.meta.get("is_error") for step in item.steps] == [None, True, None]


def test_sealed_thinking_is_its_summary_or_nothing() -> None:
    block = {"type": "reasoning", "reasoning": "c2VhbGVk", "redacted": True}
    for more, thought in (({}, ""), ({"summary": "I add."}, "I add."), ({"redacted": False}, "c2VhbGVk")):
        (turn,) = read_message({"role": "assistant", "content": [{**block, **more}, {"type": "text", "text": "17"}]}, 0)
        assert (turn.reasoning, turn.text) == (thought, "17")


def test_the_last_request_alone_may_be_asked_for() -> None:
    item = one("openai-chat", 1, problem="request")
    assert texts(item) == ["Right.\n"]
    # The first error is part of the problem now.
    assert (item.first_error, item.labels.tolist()) == (None, [1.0])


def test_labels_by_message_reach_their_steps() -> None:
    item = one("openai-chat", 1)
    np.testing.assert_array_equal(item.labels, [0, np.nan, 1])
    assert item.first_error == 0
    assert item.outcome == 0


def test_one_agent_of_several_acts_and_the_others_are_seen() -> None:
    row = {
        "messages": [
            {"role": "user", "content": "Go."}, {"role": "assistant", "name": "planner", "content": "Plan."},
            {"role": "assistant", "name": "coder", "content": "Code."},
        ]
    }  # fmt: skip
    (item,) = by_name("openai-chat").read(row, 1, agent="coder")
    assert [m["content"] for m in item.problem.messages] == ["Go.", "Plan."]
    assert texts(item) == ["Code.\n"]
    with pytest.raises(InputError, match="there are messages of coder, planner, user"):
        list(by_name("openai-chat").read(row, 1, agent="tester"))


def test_every_choice_of_a_response_is_a_trajectory() -> None:
    row = {
        "request": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        "response": {"id": "r", "choices": [{"message": {"role": "assistant", "content": t}} for t in ("a", "b")]},
    }
    made = list(by_name("openai-chat").read(row, 1))
    assert [texts(item) for item in made] == [["a\n"], ["b\n"]]
    assert {item.problem.id for item in made} == {"openai-chat-r"}
    assert [item.facts["choice"] for item in made] == [0, 1]


def test_images_are_kept_as_they_stand() -> None:
    parts = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "a.png"}}]
    (turn,) = read_message({"role": "user", "content": parts}, 0)
    assert (turn.text, turn.images) == ("See", ("a.png",))
    source = {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}
    (turn,) = read_message({"role": "user", "content": [{"type": "image", "source": source}]}, 0)
    assert turn.images == ("data:image/jpeg;base64,AAAA",)


def test_a_tool_s_message_is_given_the_name_of_what_was_called() -> None:
    turns = turns_of(
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": ""}}],
            },
            {"role": "tool", "tool_call_id": "x", "content": "1"},
        ]
    )
    assert turns[1].agent == "f"


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ({"content": "x"}, "needs a 'role'"),
        ({"role": "user", "content": 7}, "neither text nor a list"),
        ({"role": "user", "content": [7]}, "neither text nor an object"),
        ({"role": "assistant", "content": "", "tool_calls": 7}, "must be a list"),
        ({"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}, "has no name"),
    ],
)
def test_messages_of_no_known_shape_are_told(message: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        read_message(message, 3)


def test_rewards_are_scaled_and_checked() -> None:
    assert outcome_of(7, "reward", 10.0) == 0.7
    assert np.isnan(outcome_of(None, "reward"))
    for value in (2.0, -0.1, "1", float("inf")):
        with pytest.raises(InputError, match="'reward' must be a number"):
            outcome_of(value, "reward")
    with pytest.raises(InputError, match="scale"):
        outcome_of(1, "reward", 0.0)


def test_a_call_that_a_later_span_continues_is_not_read_again() -> None:
    (item,) = items("otel-genai", 1)
    assert [step.meta.get("gen_ai.usage.output_tokens") for step in item.steps] == [None, None, 3]
    assert item.provenance[0].policy == "m"
    (alone,) = items("otel-genai", 0)
    assert texts(alone) == [CALL]


def test_agents_actions_and_what_they_saw() -> None:
    tau = one("tau-bench")
    assert json.loads(tau.problem.reference)[0]["name"] == "cancel"
    assert [k for k, *_ in kinds(tau)] == ["action", "observation", "action"]
    assert tau.outcome == 1
    shop, fever = items("react")[0], items("react", 1)[0]
    assert shop.problem.text == "i need a lamp [Search]"
    assert texts(shop) == ["search[lamp]\n", "[B01] Lamp\n", "click[Buy Now]\n"]
    assert texts(fever)[0] == "Search.\nSearch[Paris]\n"
    assert (fever.answer, fever.problem.reference) == ("REFUTES", "REFUTES")
    swe = one("swe-agent")
    assert [m["content"] for m in swe.problem.messages] == ["You fix code.", "Fix it."]
    assert texts(swe) == ["Look.\n```\nls\n```\n", "a.py\n", "Submit.\n"]
    assert swe.answer == "diff"
    fire = one("fire-act", 1)
    assert texts(fire) == [
        "Thought: search.\nAction: search[France]\n", "Observation: In Europe.\nIt is large.\n",
        "Thought: guess.\nAction: finish[lyon]\n", "Observation: Episode finished, reward = False",
    ]  # fmt: skip
    assert fire.problem.text == "Capital of France?"


def test_inspect_s_letters_are_outcomes_and_a_limit_is_no_end() -> None:
    right, part = one("inspect"), one("inspect", 1)
    assert (right.outcome, right.terminal) == (1.0, True)
    assert (part.outcome, part.terminal) == (0.25, False)
    row = json.loads(json.dumps(EXAMPLES["inspect"][0]))
    row["samples"][0]["output"] = {"model": "m", "choices": [{"message": {}, "stop_reason": "max_tokens"}]}
    (cut,) = by_name("inspect").read(row, 1)
    assert not cut.terminal
    with pytest.raises(InputError, match="no scorer is called 'judge'; the sample has match"):
        one("inspect", scorer="judge")


def archive(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in members.items():
            made.writestr(name, text)
    return path


def test_an_archive_is_read_sample_by_sample_and_a_bad_one_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = {k: v for k, v in EXAMPLES["inspect"][0].items() if k != "samples"}
    sample = EXAMPLES["inspect"][0]["samples"][0]
    members = {
        "header.json": json.dumps(header), "samples/1_epoch_1.json": json.dumps(sample),
        "samples/2_epoch_1.json": "{broken", "samples/3_epoch_1.json": "[]",
        "samples/4_epoch_1.json": json.dumps({**sample, "id": "x" * 5000}), "summaries.json": "[]",
    }  # fmt: skip
    path = archive(tmp_path / "log.eval", members)
    reading = formats.read(path)
    assert reading.format.name == "inspect"
    assert len(list(reading)) == 2
    assert [error.row for error in reading.bad] == [2, 3]
    monkeypatch.setattr(archives, "LARGEST_ROW", 4000)
    monkeypatch.setattr(limits, "LARGEST_ROW", 4000)
    assert len(list(reading)) == 1
    assert "larger than" in reading.bad[-1].problem


@pytest.mark.parametrize("members", [{}, {"other.json": "{}"}, {"header.json": "{"}])
def test_a_zip_that_is_no_log_is_one_clear_error(members: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="log convert"):
        formats.read(archive(tmp_path / "x.eval", members))
    (tmp_path / "y.eval").write_bytes(b"no zip at all")
    with pytest.raises(InputError, match=r"not a readable \.eval archive"):
        formats.read(tmp_path / "y.eval")


def test_preferences_say_which_is_better_and_by_what_subset() -> None:
    ties = one("reward-bench-2", 1)
    assert ties.preferred == (1.0, 1.0, 0.0)
    assert (ties.subset, ties.meta["row_id"]) == ("Ties", "ref:0")
    assert one("rm-bench").preferred == (1.0,) * 3 + (0.0,) * 3
    assert one("llm-bar", 1).preferred == (0.0, 1.0)
    assert one("help-steer").preferred == (1.0, 0.0)
    tie = one("help-steer", 1)
    assert (tie.preferred, tie.subset) == ((0.5, 0.5), "code")
    ultra = one("ultra-feedback")
    assert ultra.preferred == (8.5, 2.0)
    assert all(np.isnan(c.outcome) for c in ultra.candidates)
    assert one("ultra-feedback", score="fine-grained_score").preferred == (4.5, 1.0)
    assert one("ultra-feedback-binarised").problem.messages == ({"role": "user", "content": "Hi"},)
    assert one("reward-bench", 1).meta["language"] == "fra_Latn"
    plan = one("plan-reward-bench")
    assert [step.kind for step in plan.candidates[0].steps] == ["action", "observation", "action"]


@pytest.mark.parametrize(
    ("name", "change", "wrong"),
    [
        ("llm-bar", {"label": 3}, "must be 1 or 2"),
        ("help-steer", {"preference_strength": 9}, "from -3 to 3"),
        ("rm-bench", {"chosen": ["a"]}, "3 chosen and 3 rejected"),
        ("reward-bench-2", {"chosen": [], "rejected": ["a"]}, "two answers to compare"),
        ("ultra-feedback", {"completions": [{"response": "x"}]}, "needs a number as 'overall_score'"),
        ("tau-bench", {"reward": 3.0}, "'reward' must be a number"),
        ("react", {"steps": [{"action": "x", "observation": "y"}]}, "no claim, question or first observation"),
        ("fire-act", {"traj": "no marks"}, "no instruction and response"),
        ("swe-agent", {"trajectory": []}, "says nothing"),
    ],
)
def test_what_a_row_lacks_is_told(name: str, change: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        list(by_name(name).read({**EXAMPLES[name][0], **change}, 1))
