"""The actions of retrieval: search, read and answer, as tool calls of a chat or in the text of a turn."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from stepreward.core.segment.tool_calls import Call, calls_of, stated_calls
from stepreward.core.types import Step
from stepreward.environments.given_commands import declared_tool, texts_schema

ARGUMENTS: Mapping[str, str] = {"search": "query", "read": "document", "answer": "answer"}
"""The argument of each action."""
_ABOUT = {
    "search": ("Finds documents by words.", "Words to look for, such as a name."),
    "read": ("Shows a document that a search listed.", "Its id, such as d12."),
    "answer": ("Ends with the final answer.", "The answer alone: a name or a year."),
}
DECLARED = [
    declared_tool(name, _ABOUT[name][0], texts_schema(**{argument: _ABOUT[name][1]}))
    for name, argument in ARGUMENTS.items()
]
"""The actions as tools, in OpenAI's form."""
HOW_WITH_TOOLS = "Find the facts with the tools, and give the answer by the tool `answer`."
HOW_IN_TEXT = (
    "Write one action a turn: Search[words] lists documents, Read[id] shows one that was listed, and Answer[answer] "
    "ends with the answer alone."
)
_IN_TEXT = re.compile(r"\b(search|read|answer)\s*\[([^\[\]\n]*)\]", re.IGNORECASE)


def retrieval_calls(step: Step) -> list[Call]:
    """The actions of a turn: its tool calls, or else the last `Name[argument]` in its text, or calls stated as JSON."""
    found = [] if calls_of(step) else _IN_TEXT.findall(step.text)
    if not found:
        return stated_calls(step)
    name = found[-1][0].lower()
    return [{"name": name, "arguments": {ARGUMENTS[name]: found[-1][1]}}]


def argument_of(call: Call) -> str | None:
    """The argument of an action; None where it is no action, or has no such argument."""
    name, given = call.get("name"), call.get("arguments")
    wanted = ARGUMENTS.get(str(name))
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return None
    value = given.get(wanted) if wanted and isinstance(given, Mapping) else None
    return str(value).strip() if isinstance(value, str | int) and str(value).strip() else None


def answer_in(step: Step) -> str | None:
    """The answer that a turn states; None where it states none."""
    stated = [argument_of(call) for call in retrieval_calls(step) if call.get("name") == "answer"]
    return next((one for one in stated if one is not None), None)
