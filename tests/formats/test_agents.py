"""Logs of agents and rollouts as their tools write them: steps worked out by hand, and which format is found."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepreward import formats
from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import ANSWERS
from stepreward.formats.agents.messages import Turn
from stepreward.formats.agents.runs import continued_from, whole_runs
from stepreward.formats.fields import outcome_or_nan
from stepreward.formats.registry import NothingReadError, by_name
from tests.effort import scaled

from .examples import EXAMPLES, items, one, texts
from .test_contract import mutated

CALL = '{"name": "add", "arguments": {"a": 12, "b": 5}}\n'
ASKED = ("user", "What is 12 + 5?")
SYSTEM = ("system", "You can add.")
RUN = [("action", "assistant"), ("observation", "tool"), ("action", "assistant")]


def kinds(item: Any) -> list[tuple[str, str]]:
    return [(step.kind, step.role) for step in item.steps]


def asked(item: Any) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in item.problem.messages]


def written(path: Path, name: str, at: int = 0) -> Path:
    """The example as its tool writes it: gathered lines are lines again."""
    row = EXAMPLES[name][at]
    path.write_text("".join(json.dumps(line) + "\n" for line in row.get("lines", [row])), encoding="utf-8")
    return path


THOUGHT = "Use the tool.\n"
RUNS: dict[tuple[str, int], tuple[list[tuple[str, str]], list[str]]] = {
    ("bare-messages", 0): ([SYSTEM, ASKED], ["I add.\n" + CALL, "17\n", "It is 17.\n"]),
    ("conversation", 0): ([SYSTEM, ASKED], ["I add.\n" + CALL, "17\n", "It is 17.\n"]),
    ("mini-swe-agent", 0): ([SYSTEM, ASKED], ["I add.\n" + CALL, "17\n"]),
    ("mini-swe-agent", 2): (
        [SYSTEM, ASKED],
        ['Look.\n{"name": "bash", "arguments": {"command": "ls"}}\n', "a.py\n"],
    ),
    ("claude-code", 0): (
        [ASKED],
        [THOUGHT + CALL + '{"name": "add", "arguments": {"a": 1, "b": 1}}\n', "17\n", "no\n", "It is 17.\n"],
    ),
    ("codex", 0): (
        [SYSTEM, ASKED],
        [
            THOUGHT + CALL + '{"name": "apply_patch", "arguments": "*** patch"}\n',
            "17\n",
            "Done\n",
            "It is 17.\n",
        ],
    ),
    ("codex", 1): (
        [("user", "")],
        ['{"name": "command_execution", "arguments": {"command": "ls"}}\n', "a.py\n\n", "One file.\n"],
    ),
    ("openai-responses", 0): ([SYSTEM, ASKED], [THOUGHT + CALL, "17\n", "It is 17.\n"]),
    ("openai-responses", 1): ([ASKED], [THOUGHT + CALL, "17\n", "It is 17.\n"]),
    ("openai-responses", 2): (
        [("user", "")],
        ['{"name": "code_interpreter", "arguments": {"code": "12 + 5"}}\n', "17\n", "I cannot.\n"],
    ),
    ("atif", 1): ([SYSTEM, ("user", "1 + 1")], ["2\n"]),
    ("agent-trove", 0): (
        [ASKED],
        ["<think>Use the tool.</think>\nadd 12 5\n", "17\n", "It is 17.\n"],
    ),
    ("openhands", 0): (
        [ASKED],
        ['I add.\n{"name": "execute_bash", "arguments": {"command": "add 12 5"}}\n', "17\n", "It is 17.\n"],
    ),
    ("openhands", 1): (
        [SYSTEM, ASKED],
        [
            THOUGHT + "I add.\n" + CALL + '{"name": "add", "arguments": {"a": 1, "b": 1}}\n',
            "17\n",
            "no\n",
            "Added.\n",
            "It is 17.\n",
        ],
    ),
    ("share-gpt", 0): ([SYSTEM, ASKED], ["I add.\n" + CALL, "17\n", "It is 17.\n"]),
    ("trl-completions", 1): ([ASKED], ["I add.\n" + CALL, "17\n", "It is 17.\n"]),
    ("verifiers", 0): ([ASKED], ["I add.\n" + CALL, "17\n", "It is 17.\n"]),
    ("verifiers-trace", 0): ([ASKED], ["I add.\n" + CALL, "17\n", "It is 17.\n"]),
    ("openinference", 0): ([SYSTEM, ASKED], ["I add.\n" + CALL, "17\n", "It is 17.\n"]),
    ("openinference", 1): ([ASKED], ["17\n"]),
    ("openinference", 2): ([("user", "1 + 1")], ["2\n"]),
    ("langfuse", 0): ([SYSTEM, ASKED], ["I add.\n" + CALL, "17\n", "It is 17.\n"]),
    ("langfuse", 1): ([("user", "1 + 1")], ["2\n"]),
    ("langfuse", 2): ([ASKED], ["It is 17.\n"]),
    ("langsmith", 0): ([SYSTEM, ASKED], ["I add.\n" + CALL, "17\n", "It is 17.\n"]),
    ("langsmith", 1): ([("user", "1 + 1")], ["2\n"]),
    ("verl", 0): (
        [("user", "user\n12 + 5?\nassistant\n")],
        [
            "<tool_call>\nadd\n</tool_call>",
            "\nuser\n<tool_response>\n17\n</tool_response>\nassistant\n",
            "It is 17.",
        ],
    ),
}
"""The problem's messages and the steps' texts of examples."""


@pytest.mark.parametrize(("name", "at"), sorted(RUNS))
def test_a_log_is_these_steps(name: str, at: int, tmp_path: Path) -> None:
    reading = formats.read(written(tmp_path / "log.jsonl", name, at))
    assert reading.format.name == name, "auto-detection"
    (item,) = reading
    assert (reading.left_out, asked(item)) == (0, RUNS[name, at][0])
    assert texts(item) == RUNS[name, at][1]
    assert "".join(texts(item)) == item.text


@pytest.mark.parametrize("name", sorted({name for name, _ in RUNS}))
def test_a_file_may_be_one_json_array(name: str, tmp_path: Path) -> None:
    row = EXAMPLES[name][0]
    path = tmp_path / "log.json"
    path.write_text(json.dumps(row.get("lines", [row]), indent=1), encoding="utf-8")
    reading = formats.read(path)
    assert (reading.format.name, texts(next(iter(reading)))) == (name, texts(items(name)[0]))


def test_lists_of_messages_may_stand_a_line_each(tmp_path: Path) -> None:
    talk = EXAMPLES["bare-messages"][0]["lines"]
    path = tmp_path / "log.jsonl"
    path.write_text((json.dumps(talk) + "\n") * 2, encoding="utf-8")
    assert [texts(item) for item in formats.read(path)] == [["I add.\n" + CALL, "17\n", "It is 17.\n"]] * 2
    path.write_text(json.dumps([talk, talk]), encoding="utf-8")
    assert len(list(formats.read(path))) == 2
    spoken = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    path.write_text((json.dumps(spoken) + "\n") * 2, encoding="utf-8")
    assert [texts(item) for item in formats.read(path)] == [["Hello\n"]] * 2


def test_outcomes_and_ends_are_kept() -> None:
    won = {name: [item.outcome for row in range(len(EXAMPLES[name])) for item in items(name, row)]
           for name in {name for name, _ in RUNS} | {"lm-eval", "distilabel"}}  # fmt: skip
    nan = np.nan
    expected = {
        "conversation": [1, 0, 1], "mini-swe-agent": [nan] * 3, "atif": [1, nan, nan], "agent-trove": [1, nan],
        "openhands": [1, nan], "share-gpt": [1, nan], "trl-completions": [1, nan, nan], "verl": [1, nan],
        "verifiers": [1, nan], "verifiers-trace": [1], "langfuse": [1, nan, nan],
        "langsmith": [1, nan], "lm-eval": [1, nan, nan, 1], "distilabel": [nan, 1, 0.2, nan],
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_array_equal(won[name], values, err_msg=name)
    # A number that is no share of right stays where it can be seen.
    assert one("verl", 1).facts["score"] == -1.0
    assert one("verifiers", 1).facts["reward"] == 1.5
    assert one("trl-completions", 2).facts["rewards"] == {"total_reward": -1.0}
    assert one("trl-completions").facts["advantage"] == 0.7
    assert one("verl", 1).problem.reference == "17"


def test_what_was_stopped_is_not_terminal() -> None:
    for name, ends in {
        "mini-swe-agent": [True, False, True], "claude-code": [True, False], "codex": [False, True],
        "openai-responses": [True, False, True], "agent-trove": [True, False], "verifiers": [True, False],
        "openinference": [True, True, False],
    }.items():  # fmt: skip
        assert [items(name, at)[0].terminal for at in range(len(ends))] == ends, name
    assert one("agent-trove", 1).facts["failure"] == "AgentTimeoutError"
    assert one("openai-responses", 1).facts["incomplete_details"] == {"reason": "max_output_tokens"}
    assert one("mini-swe-agent").answer == "diff"


def test_tokens_times_usage_and_errors_stay_with_their_steps() -> None:
    atif, trace = items("atif")[0], one("verifiers-trace")
    first = atif.steps[0]
    assert (first.tokens, first.logprobs) == ((5, 6), (-0.5, -0.25))
    assert (first.meta["timestamp"], first.meta["extra"]) == ("2026-01-01T00:00:00Z", {"reward": 0.5})
    assert atif.steps[2].images == ("a.png",)
    assert (trace.steps[0].tokens, trace.steps[0].logprobs) == ((4, 5), (-0.5, -0.25))
    assert trace.steps[0].meta["advantages"] == [0.5, 0.5]
    assert (trace.steps[2].meta["finish_reason"], trace.provenance[0].policy) == ("stop", "m")
    claude, hands = one("claude-code"), one("openhands", 1)
    assert claude.steps[0].meta["usage"] == {"output_tokens": 9}
    assert [step.meta.get("is_error") for step in claude.steps] == [None, None, True, None]
    assert hands.steps[2].meta["is_error"]
    assert hands.facts["forgotten"] == ["e2"]
    assert one("codex").facts["usage"] == {"output_tokens": 7}
    assert one("mini-swe-agent").steps[1].meta["extra"] == {"returncode": 0}


def test_copied_context_is_no_action() -> None:
    main, sub = items("atif")
    assert (main.problem.id, sub.problem.id) == ("atif-s1", "atif-sub")
    assert asked(sub) == [("user", "Go."), ("assistant", "old")]
    assert texts(sub) == ["Gone.\n"]


def session(*lines: tuple[str, str | None, str, Any]) -> dict[str, Any]:
    return {"lines": [
        {"uuid": uuid, "parentUuid": parent, "type": kind, "sessionId": "s",
         "message": {"role": kind, "content": said, **({"id": f"m-{uuid}"} if kind == "assistant" else {})}}
        for uuid, parent, kind, said in lines
    ]}  # fmt: skip


def test_branches_of_a_session_are_trajectories_each() -> None:
    row = session(
        ("u1", None, "user", "Q"), ("a1", "u1", "assistant", "first"), ("u2", "a1", "user", "more"),
        ("a2", "u2", "assistant", "left"), ("u3", "a1", "user", "other"), ("a3", "u3", "assistant", "right"),
        ("u4", "a3", "user", "thanks"),
    )  # fmt: skip
    made = list(by_name("claude-code").read(row, 1))
    assert [texts(item) for item in made] == [
        ["first\n", "more\n", "left\n"], ["first\n", "other\n", "right\n", "thanks\n"],
    ]  # fmt: skip
    assert {item.problem.id for item in made} == {"claude-code-s"}


def test_lines_whose_parent_is_not_in_the_file_go_on_and_repeated_ones_count_once() -> None:
    row = session(("u1", "gone", "user", "Q"), ("a1", "lost", "assistant", "A"), ("a1", "lost", "assistant", "A"))
    assert [texts(item) for item in by_name("claude-code").read(row, 1)] == [["A\n"]]


def test_the_first_version_of_codex_wrote_bare_items() -> None:
    row = {"lines": [
        {"id": "s", "timestamp": "t", "instructions": None}, {"record_type": "state"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Q"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
    ]}  # fmt: skip
    (item,) = by_name("codex").read(row, 1)
    assert (asked(item), texts(item)) == ([("user", "Q")], ["A\n"])


def test_a_side_chain_is_a_run_of_its_own(tmp_path: Path) -> None:
    lines = [*EXAMPLES["claude-code"][0]["lines"], *EXAMPLES["claude-code"][1]["lines"]]
    path = tmp_path / "s1.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n", encoding="utf-8")
    reading = formats.read(path)
    assert [item.problem.id for item in reading] == ["claude-code-s1", "claude-code-s1/a9"]
    assert [error.row for error in reading.bad] == [len(lines) + 1]


def test_responses_that_repeat_the_talk_are_one_run(tmp_path: Path) -> None:
    whole = EXAMPLES["openai-responses"][0]
    first = {**whole, "id": "resp_0", "input": whole["input"][:1], "output": whole["input"][1:3]}
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (first, whole)), encoding="utf-8")
    (item,) = formats.read(path)
    assert item.problem.id == "openai-responses-resp_1"
    chain = EXAMPLES["openai-responses"][1]["lines"]
    path.write_text("".join(json.dumps(row) + "\n" for row in chain), encoding="utf-8")
    (item,) = formats.read(path)
    assert texts(item) == [THOUGHT + CALL, "17\n", "It is 17.\n"]


def test_calls_of_a_trace_keep_their_own_usage() -> None:
    first, _, last = one("openinference").steps
    assert (first.meta["span_id"], last.meta["span_id"]) == ("s1", "s2")
    assert first.meta["usage"] == {"prompt": 5}
    first, _, last = one("langfuse").steps
    assert (first.meta["startTime"], last.meta["startTime"]) == ("2026-01-01", "2026-01-02")
    assert one("openinference", 1).problem.meta["images"] == ["http://x/a.png"]
    assert one("langsmith").steps[0].meta["tool_calls"][0]["id"] == "c1"


def talk(*said: str) -> list[Turn]:
    """Turns, those of the model at odd places."""
    return [Turn("assistant" if at % 2 else "user", text) for at, text in enumerate(said)]


def test_a_talk_goes_on_with_the_longest_that_is_its_beginning() -> None:
    assert continued_from([talk("q", "a"), talk("q", "b"), talk("q", "a", "o", "c")]) == [None, None, 0]
    assert continued_from([talk("q", "a", "o", "c"), talk("q", "a"), talk("q", "a", "o", "c", "o", "d")]) == [
        1,
        None,
        0,
    ]
    assert continued_from([talk("q", "a"), talk("q", "a")]) == [None, None], "two samples with one answer"
    assert continued_from([talk("q", "a"), talk("q", "a"), talk("q", "a", "o", "c"), talk("q", "a", "p", "d")]) == [
        None, None, 0, 1,
    ]  # fmt: skip
    assert continued_from([talk("q", "a"), talk("q", "a", "o", "c"), talk("q", "a", "p", "d")]) == [None, 0, 0], (
        "a branch"
    )
    assert continued_from([talk("q", "<think>t</think> a "), talk("q", "a", "o", "c")]) == [None, 0], (
        "thinking left out"
    )
    assert continued_from([]) == []
    assert continued_from([[]]) == [None]


def test_an_answer_is_kept_as_its_own_call_gave_it() -> None:
    first = [Turn("user", "q"), Turn("assistant", "<think>t</think>a", reasoning="r", meta={"finish_reason": "stop"})]
    ((at, turns),) = whole_runs([first, talk("q", "a", "o", "c")])
    assert (at, [turn.text for turn in turns]) == (1, ["q", "<think>t</think>a", "o", "c"])
    assert (turns[1].reasoning, turns[1].meta) == ("r", {"finish_reason": "stop"})


def test_of_several_responses_a_metric_judges_the_first_or_none() -> None:
    first, *_ = items("lm-eval")
    assert (texts(first), first.answer) == (["12 + 5 = 17\n#### 17"], "17")
    voted = items("lm-eval", 1)
    assert [texts(item) for item in voted] == [["2"], ["3"]]
    assert np.isnan([item.outcome for item in voted]).all()
    row = {**EXAMPLES["lm-eval"][1], "filter": "strict-match"}
    np.testing.assert_array_equal([i.outcome for i in by_name("lm-eval").read(row, 1)], [1, np.nan])
    (chosen,) = items("lm-eval", 2)
    assert (texts(chosen), chosen.facts["log_likelihoods"]) == ([" blue"], [-4.5, -1.5])
    with pytest.raises(InputError, match="no metric is called"):
        list(by_name("lm-eval").read(row, 1, metric="bleu"))


def test_step_scores_of_a_search_stand_at_their_steps() -> None:
    right, wrong = items("search-and-learn")
    assert texts(right) == ["First.\n\n", "It is 17."]
    np.testing.assert_array_equal(right.scores["prm"], [0.9, 0.8])
    assert (right.facts["chosen"], wrong.facts["chosen"]) == (True, False)
    # Two scores and one step: which of them is the step's is not known.
    assert np.isnan(wrong.scores["prm"]).all()
    assert wrong.facts["step_scores"] == [0.2, 0.1]
    assert right.problem.reference == "17"


def test_generations_that_failed_are_counted() -> None:
    made = items("distilabel", 1)
    assert [(texts(item), item.provenance[0].policy) for item in made] == [(["2"], "a"), (["3"], "c")]
    np.testing.assert_array_equal([item.scores["rating"][0] for item in made], [5, 1])
    assert {item.facts["failed_generations"] for item in made} == {1}
    assert asked(made[0]) == [("system", "Add."), ("user", "1 + 1?")]


def test_the_rewards_of_a_row_are_all_kept_and_one_may_be_named() -> None:
    (item,) = by_name("trl-completions").read(EXAMPLES["trl-completions"][0], 1, outcome_of="format_reward")
    assert item.outcome == 0.5
    assert item.facts["rewards"] == {"accuracy_reward": 1.0, "format_reward": 0.5}


def test_a_reward_is_an_outcome_in_its_range_only() -> None:
    given = [True, 0, 0.5, "1.0", 1.5, -1, "no", None, float("nan"), [1]]
    np.testing.assert_array_equal([outcome_or_nan(one) for one in given], [1, 0, 0.5, 1] + [np.nan] * 6)
    assert outcome_or_nan(3, 5.0) == 0.6
    with pytest.raises(InputError, match="positive"):
        outcome_or_nan(1, 0.0)


SESSIONS = (
    "bare-messages",
    "claude-code",
    "codex",
    "langfuse",
    "langsmith",
    "openinference",
    "openai-responses",
    "openhands",
    "share-gpt",
)


@settings(max_examples=scaled(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", SESSIONS)
def test_a_changed_line_of_a_session_is_read_or_told(name: str, data: st.DataObject, tmp_path: Path) -> None:
    row = json.loads(json.dumps(data.draw(st.sampled_from(EXAMPLES[name]))))
    lines = row.get("lines", [row])
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = mutated(lines[at], data)
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    reading = formats.read(path, name)
    with suppress(NothingReadError):
        assert list(reading) or reading.bad


def test_a_result_of_openhands_names_its_call_or_else_its_action() -> None:
    def answered(row: Any) -> list[str | None]:
        read = by_name("openhands").read
        assert read
        return [step.meta.get(ANSWERS) for item in read(row, 1) for step in item.steps if step.kind == "observation"]

    row = json.loads(json.dumps(EXAMPLES["openhands"][1]))
    assert answered(row)[:2] == ["k1", "k2"]
    for event in row["lines"]:
        event.pop("tool_call_id", None)
    assert answered(row)[:2] == ["e2", None]


def test_a_result_of_openhands_keeps_tools_that_have_parameters_alone() -> None:
    read = by_name("openhands").read
    assert read
    named = {"type": "function", "function": {"name": "bash"}}
    whole = {"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}
    for tools, kept in (([whole], {"tools": [whole]}), ([whole, named], {}), ([], {}), (None, {})):
        row = json.loads(json.dumps(EXAMPLES["openhands"][0]))
        said = {"source": "agent", "action": "system", "args": {"content": "Fix.", "tools": tools}}
        row["history"].insert(0, said)
        (item,) = read(row, 1)
        assert item.problem.meta == kept
        assert item.problem.messages[0] == {"role": "system", "content": "Fix."}
