"""Layouts as other versions and ways of export write them: the same runs, read as the same steps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepreward import formats
from stepreward.core.errors import InputError

from .examples import texts

Row = dict[str, Any]


def call(number: str, command: str) -> Row:
    return {"id": number, "type": "function", "function": {"name": "bash", "arguments": json.dumps({"cmd": command})}}


def spelled(*commands: str) -> str:
    return "".join('{"name": "bash", "arguments": {"cmd": "' + command + '"}}\n' for command in commands)


TALK: list[Row] = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": [{"type": "text", "text": "Q"},
                                 {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
    {"role": "assistant", "content": None, "tool_calls": [call("a", "ls"), call("b", "pwd")]},
    {"role": "tool", "tool_call_id": "a", "content": "x"},
    {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "Error: no"}]},
    {"role": "assistant", "content": "done"},
]  # fmt: skip
RUN = [spelled("ls", "pwd"), "x\n", "Error: no\n", "done\n"]


def chain(kind: str, **more: Any) -> Row:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kind], "kwargs": more}


CALLS = [{"name": "bash", "args": {"cmd": one}, "id": one, "type": "tool_call"} for one in ("ls", "pwd")]
ASKED = chain("HumanMessage", content="Q")
BOTH = chain("AIMessage", content="", tool_calls=CALLS)


def generation(message: Row) -> Row:
    return {"generations": [[{"text": "", "type": "ChatGeneration", "generation_info": {"finish_reason": "stop"},
                              "message": message}]]}  # fmt: skip


def observation(number: int, asked: list[Row], said: str) -> Row:
    """A row of Langfuse's export to blob storage: names in small letters, inputs and outputs as JSON."""
    return {"id": f"o{number}", "trace_id": "t", "project_id": "p", "type": "GENERATION", "parent_observation_id": None,
            "start_time": f"2026-01-01 00:00:0{number}.000000", "provided_model_name": "m",
            "input": json.dumps({"messages": asked}), "usage_details": {"input": number},
            "output": json.dumps({"role": "assistant", "content": said})}  # fmt: skip


USER = {"role": "user", "content": "Q"}
LATER = [USER, {"role": "assistant", "content": "A"}, {"role": "user", "content": "more"}]
ATIF: Row = {"schema_version": "ATIF-v1.7", "session_id": "s", "agent": {"name": "a", "version": "1"}, "steps": [
    {"step_id": 1, "source": "user", "message": [{"type": "text", "text": "Q"}]},
    {"step_id": 2, "source": "agent", "message": "", "tool_calls": [
        {"tool_call_id": "a", "function_name": "bash", "arguments": {"cmd": "ls"}},
        {"tool_call_id": "b", "function_name": "bash", "arguments": {"cmd": "pwd"}}],
     "observation": {"results": [{"source_call_id": "a", "content": "x"},
                                 {"source_call_id": "b", "content": [{"type": "text", "text": "Error: no"}]}]}},
    {"step_id": 3, "source": "agent", "message": "done"}]}  # fmt: skip
STREAM: list[Row] = [
    {"type": "system", "subtype": "init", "session_id": "s", "tools": [], "model": "m"},
    {"type": "user", "session_id": "s", "parent_tool_use_id": None, "message": {"role": "user", "content": "Q"}},
    {"type": "assistant", "session_id": "s", "parent_tool_use_id": None, "message": {"id": "m1", "role": "assistant",
     "content": [{"type": "tool_use", "id": "a", "name": "bash", "input": {"cmd": "ls"}},
                 {"type": "tool_use", "id": "b", "name": "bash", "input": {"cmd": "pwd"}}]}},
    {"type": "user", "session_id": "s", "message": {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "a", "content": "x"},
        {"type": "tool_result", "tool_use_id": "b", "content": "Error: no", "is_error": True}]}},
    {"type": "assistant", "session_id": "s", "message": {"id": "m2", "role": "assistant", "content": [
        {"type": "text", "text": "done"}]}},
]  # fmt: skip
VARIANTS: dict[str, tuple[str, list[Any], list[str]]] = {
    "messages as JSON": ("conversation", [{"messages": json.dumps(TALK), "score": 1}], RUN),
    "calls as JSON": ("openai-chat", [{"messages": [
        {**one, "tool_calls": list(map(json.dumps, one["tool_calls"]))} if "tool_calls" in one else one
        for one in TALK]}], RUN),
    "verifiers' calls as JSON": ("verifiers", [{
        "example_id": 0, "task": "t", "prompt": TALK[:2], "answer": "5", "reward": 1.0, "info": "{}",
        "completion": [{**TALK[2], "tool_calls": list(map(json.dumps, TALK[2]["tool_calls"]))}, *TALK[3:]]}], RUN),
    "ATIF in a row": ("atif", [{"task": "t", "trajectory": ATIF, "reward": 1.0}], RUN),
    "ATIF as JSON in a row": ("atif", [{"task": "t", "trajectory": json.dumps(ATIF)}], RUN),
    "a stream of Claude Code": ("claude-code", [*STREAM, {"type": "result", "subtype": "success", "session_id": "s"}],
                                RUN),
    "Langfuse's blobs": ("langfuse", [observation(1, [USER], "A"), observation(2, LATER, "B")],
                         ["A\n", "more\n", "B\n"]),
    "a trace from Langfuse's page": ("langfuse", [{
        "trace": {"id": "t", "name": "n", "input": None, "output": None, "scores": [{"name": "ok", "value": 1}]},
        "observations": [observation(1, [USER], "A"), observation(2, LATER, "B")]}], ["A\n", "more\n", "B\n"]),
    "LangSmith's chat generations": ("langsmith", [
        {"id": "r1", "trace_id": "r1", "run_type": "chain", "inputs": {}, "outputs": {}, "parent_run_id": None},
        {"id": "r2", "trace_id": "r1", "run_type": "llm", "parent_run_id": "r1", "dotted_order": "1Zr1.2Zr2",
         "inputs": {"messages": [[ASKED]]}, "outputs": generation(BOTH)},
        {"id": "r3", "trace_id": "r1", "run_type": "llm", "parent_run_id": "r1", "dotted_order": "1Zr1.3Zr3",
         "inputs": {"messages": [[ASKED, BOTH, chain("ToolMessage", content="x", tool_call_id="ls"),
                                  chain("ToolMessage", content="Error: no", tool_call_id="pwd")]]},
         "outputs": generation(chain("AIMessage", content="done"))}], RUN),
    "distilabel with a column renamed": ("distilabel", [
        {"instruction": "Q", "response": "A", "model_name": "m", "distilabel_metadata": {}}], ["A"]),
    "distilabel with messages": ("distilabel", [
        {"messages": [USER], "generation": "A", "model_name": "m", "distilabel_metadata": {}}], ["A"]),
}  # fmt: skip


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".json.gz"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_these_steps(name: str, ending: str, tmp_path: Path) -> None:
    form, rows, expected = VARIANTS[name]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    text = lines if ending == ".jsonl" else json.dumps(rows, indent=1)
    path = tmp_path / f"log{ending}"
    path.write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode())
    reading = formats.read(path, strict=True)
    (item,) = reading
    assert (reading.format.name, texts(item)) == (form, expected)
    assert item.problem.messages[-1]["content"] == "Q"
    assert item.terminal


def read(path: Path, *rows: Any) -> list[Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(formats.read(path, strict=True))


def test_outcomes_ends_and_branches_of_variants(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    (item,) = read(path, *VARIANTS["a trace from Langfuse's page"][1])
    assert (item.problem.id, item.outcome) == ("langfuse-t", 1.0)
    (item,) = read(path, VARIANTS["ATIF in a row"][1][0])
    assert item.outcome == 1.0
    for subtype, ends in (("success", True), ("error_max_turns", False)):
        (item,) = read(path, *STREAM, {"type": "result", "subtype": subtype, "session_id": "s", "num_turns": 2})
        assert item.terminal is ends
        assert item.facts["result"] == {"subtype": subtype, "num_turns": 2}
    side = [{**line, "parent_tool_use_id": "task"} for line in STREAM[1:]]
    assert [item.problem.id for item in read(path, *STREAM, *side)] == [
        "claude-code-s",
        "claude-code-s/task",
    ]


def test_generations_of_several_models_and_ratings_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"instruction": "Q", "generations": ["A", "B"], "generation_models": ["m", "n"], "ratings": ["5", "1"]}
    made = read(path, row)
    np.testing.assert_array_equal([item.scores["rating"][-1] for item in made], [5, 1])
    np.testing.assert_array_equal([item.outcome for item in made], [1, 0.2])
    made = read(path, {**row, "generations": [["A", "B"], ["C"]], "ratings": [5, 1]})
    assert [(texts(item), item.provenance[0].policy) for item in made] == [(["A"], "m"), (["B"], "m"), (["C"], "n")]
    assert made[0].facts["ratings"] == [5, 1], "which of a model's generations they rate is not said"
    (item,) = read(path, {"instruction": "Q", "generation": "A", "model_name": "m", "feedback": "f", "score": 4})
    assert item.outcome == 0.8


@pytest.mark.parametrize("holder", ["data", "traces", "runs"])
def test_what_an_interface_says_behind_its_rows_is_no_row(holder: str, tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    rows = [{"messages": [USER, {"role": "assistant", "content": said}]} for said in ("A", "B")]
    path.write_text(json.dumps({"object": "list", holder: rows, "meta": {"page": 1, "next": [None]}, "more": False}))
    reading = formats.read(path)
    assert [texts(item) for item in reading] == [["A\n"], ["B\n"]]
    assert reading.bad == []
    path.write_text(path.read_text() + '{"another": 1}')
    assert len(list(reading)) == 2
    assert [error.row for error in reading.bad] == [3]


def test_problems_without_solutions_say_where_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    with pytest.raises(InputError, match="a problem without a solution is read by --problems"):
        formats.read(path)
