"""The commands that an agent may give: declared as tools, read from tool calls or from the words of a turn."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stepreward.core.segment.tool_calls import ANSWERS, Call, stated_calls
from stepreward.core.types import Step

Kind = Literal["string", "integer"]
MOST_CALLS = 16
"""Commands of one turn that are executed; a turn with more is refused as a whole."""
_KINDS: Mapping[Kind, type] = {"string": str, "integer": int}


def arguments_schema(properties: Mapping[str, Mapping[str, Any]], optional: Container[str] = ()) -> dict[str, Any]:
    """JSON Schema of an object that has these properties and no other; all but the optional ones are required."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def texts_schema(**properties: str) -> dict[str, Any]:
    """JSON Schema of an object whose properties are texts and all required.

    Args:
        properties: description of each.
    """
    named = {name: {"type": "string", "description": about} for name, about in properties.items()}
    return arguments_schema(named)


def declared_tool(name: str, about: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in OpenAI's form, by its name, what it does and the JSON Schema of its arguments."""
    return {"type": "function", "function": {"name": name, "description": about, "parameters": {**parameters}}}


@dataclass(frozen=True)
class Command:
    """What an agent may do, by name."""

    name: str
    about: str
    arguments: Mapping[str, Kind] = field(default_factory=dict)
    """Kind of each argument, in the order in which words give them."""
    optional: frozenset[str] = frozenset()
    """Arguments that may be left out."""

    @property
    def declared(self) -> dict[str, Any]:
        """The command as a tool in OpenAI's form."""
        properties = {name: {"type": kind} for name, kind in self.arguments.items()}
        return declared_tool(self.name, self.about, arguments_schema(properties, self.optional))

    @property
    def spelled(self) -> str:
        """How words give it, such as `view PATH [FIRST]`."""
        words = [f"[{name.upper()}]" if name in self.optional else name.upper() for name in self.arguments]
        return " ".join([self.name, *words])


class CommandSet:
    """Commands by name, and how a turn gives them.

    A turn gives commands by tool calls, by JSON objects with `name` and `arguments`, each on a line of its own or
    between `<tool_call>` marks, or by one line of words: a command's name and its arguments, the last one up to the
    end of the line. Where several lines begin with a command, the last one is meant: a model thinks before it acts.

    Args:
        commands: in the order in which they are listed.
    """

    def __init__(self, commands: Sequence[Command]) -> None:
        self._by_name = {command.name: command for command in commands}

    @property
    def declared(self) -> list[dict[str, Any]]:
        """All as tools in OpenAI's form."""
        return [command.declared for command in self._by_name.values()]

    @property
    def listed(self) -> str:
        """All as words, one a line, with what they do."""
        return "\n".join(f"{command.spelled}: {command.about}" for command in self._by_name.values())

    def executed(self, action: Step, run: Callable[[str, Mapping[str, Any]], str]) -> tuple[Step, ...]:
        """What is shown of a turn: the answers to its commands, in order, as the results of its tool calls.

        Args:
            action: the turn.
            run: executes a command with arguments of the right kinds, and says what is shown.
        """
        calls = stated_calls(action) or self._in_words(action.text)
        if not calls or len(calls) > MOST_CALLS:
            what = "No command was read" if not calls else f"More than {MOST_CALLS} commands in one turn"
            return (Step(f"{what}; write one of:\n{self.listed}\n", "observation", "user"),)
        return tuple(_answer(call, self._result(call, run)) for call in calls)

    def _result(self, call: Call, run: Callable[[str, Mapping[str, Any]], str]) -> str:
        command = self._by_name.get(str(call.get("name")))
        if command is None:
            return f"There is no command {call.get('name')!r:.80}; there are:\n{self.listed}"
        given = call.get("arguments") or {}
        if not isinstance(given, Mapping):
            return f"{command.name} was not executed: its arguments are no JSON object"
        taken = {name: _of_kind(given[name], kind) for name, kind in command.arguments.items() if name in given}
        wrong = [f"no argument {name!r:.80}" for name in given if name not in command.arguments]
        wrong += [f"{name} is missing" for name in command.arguments if name not in {*given, *command.optional}]
        wrong += [f"{name} is no {command.arguments[name]}" for name, value in taken.items() if value is None]
        return f"{command.name} was not executed: {', '.join(wrong)}" if wrong else run(command.name, taken)

    def _in_words(self, text: str) -> list[Call]:
        lines = [line.strip().strip("`") for line in text.splitlines()]
        said = [line for line in lines if line.partition(" ")[0] in self._by_name]
        if not said:
            return []
        name, _, rest = said[-1].partition(" ")
        command = self._by_name[name]
        words = rest.split(maxsplit=max(len(command.arguments) - 1, 0)) if rest.strip() else []
        if len(words) > len(command.arguments):
            return [{"name": name, "arguments": {rest.strip(): True}}]
        return [{"name": name, "arguments": dict(zip(command.arguments, words, strict=False))}]


def _of_kind(value: Any, kind: Kind) -> Any:
    """The value as one of a kind; a text may state a number. None where it is none."""
    if kind == "integer" and isinstance(value, str):
        try:
            return int(value) if len(value) < 20 else None
        except ValueError:
            return None
    return value if type(value) is _KINDS[kind] else None


def _answer(call: Call, text: str) -> Step:
    if call.get("id"):
        return Step(f"{text}\n", "observation", "tool", meta={ANSWERS: call["id"]})
    return Step(f"{text}\n", "observation", "user")
