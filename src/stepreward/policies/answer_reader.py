"""Collects one answer, event by event, and finds where its steps end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepreward.core.http.event_streams import DONE
from stepreward.core.segment.tool_calls import calling_step, parsed
from stepreward.core.types import Step
from stepreward.policies.completion_events import mended, places, text_of, thought_of, token_logprobs


@dataclass
class Written:
    """The answer to one request so far."""

    text: str = ""
    reason: str | None = None
    done: bool = False
    """Whether the server said that nothing follows."""
    pieces: int = 0
    """Deltas with text; a server streams a token in each."""
    tokens: int | None = None
    """Completion tokens by the server's own count."""
    before: int = 0
    """The same before the last event."""
    part: int = 0
    """Characters of the last event."""
    thinking: bool = False
    """Whether the last event with a text was a thought."""
    thoughts: int = 0
    """Deltas with thinking."""
    thought: int = 0
    """Tokens with log-probabilities that were thinking."""
    prompt: int = 0
    logprobs: list[tuple[str, float]] = field(default_factory=list)
    """Of the answer's tokens, NaN where an event with text has none."""
    measured: int = 0
    """Tokens among them for which the server sent an entry, possibly null."""
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    """Tool calls by their index: id, name and arguments as far as they came."""

    def add(self, event: Mapping[str, Any], *, completions: bool) -> None:
        """Adds an event.

        Args:
            event: of the chat endpoint, or of the completions endpoint.
            completions: whether it is of the completions endpoint.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it has another shape.
        """
        usage = event.get("usage")
        if isinstance(usage, Mapping):
            count = usage.get("completion_tokens")
            self.before, self.tokens = self.tokens or 0, self.tokens if count is None else int(count)
            self.prompt = int(usage.get("prompt_tokens") or 0)
        self.done = self.done or bool(event.get(DONE))
        choice = next((one for one in event.get("choices") or () if not one.get("index")), None)
        if choice is None:
            return
        delta = choice.get("delta") or {}
        thought = thought_of(delta)
        part = text_of(choice.get("text") if completions else delta.get("content"))
        self.thoughts += bool(thought)
        self.pieces += bool(thought) + bool(part)
        self.text += part
        self.part = len(part)
        for call in delta.get("tool_calls") or ():
            at, named = int(call.get("index", len(self.calls))), call.get("function") or {}
            own = self.calls.setdefault(at, {"id": "", "name": "", "arguments": ""})
            own["id"] += call.get("id") or ""
            own["name"] += named.get("name") or ""
            # Most servers write the arguments as JSON in text; some write the object.
            arguments = "" if named.get("arguments") is None else named["arguments"]
            own["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)
            self.pieces += 1
        reason = choice.get("finish_reason")
        # Some servers write the word null before the end.
        self.reason = reason if reason and reason != "null" else self.reason
        self._measure(token_logprobs(choice.get("logprobs")), thought, part)

    def _measure(self, tokens: list[tuple[str, float]], thought: str, part: str) -> None:
        """Keeps the log-probabilities of the answer's tokens; tokens of thinking belong to no step."""
        self.thinking = bool(thought) or (self.thinking and not part)
        if self.thinking:
            # An event may hold the end of the thinking and the start of the answer: the thinking's characters tell
            # how many of the tokens belong to it.
            covered = 0
            while tokens and (not part or covered < len(thought)):
                covered += len(tokens[0][0])
                tokens = tokens[1:]
                self.thought += 1
            self.thinking = not part
        self.measured += len(tokens)
        self.logprobs += tokens or ([(part, float("nan"))] if part else [])


def step_end(text: str, separator: str, start: int = 0) -> int:
    """Where the step that begins at `start` ends, its separator included; -1 where no separator follows.

    White space alone is no step: separators before the first other character do not count.
    """
    first = next((i for i in range(start, len(text)) if not text[i].isspace()), len(text))
    at = text.find(separator, first)
    return -1 if at < 0 else at + len(separator)


def step_ends(text: str, separator: str) -> list[int]:
    """The ends of all steps of a text; text after the last separator is a step, white space there joins the last."""
    ends: list[int] = []
    while (end := step_end(text, separator, ends[-1] if ends else 0)) >= 0:
        ends.append(end)
    if text[ends[-1] if ends else 0 :].strip():
        return [*ends, len(text)]
    return [*ends[:-1], len(text)] if ends else []


def steps_of(text: str, separator: str, logprobs: Sequence[tuple[str, float]] = ()) -> list[Step]:
    """Cuts a text into steps, each with its separator; a token belongs to the step in which it begins.

    Args:
        text: of an answer.
        separator: text that ends a step.
        logprobs: texts and log-probabilities of its tokens; none if empty.
    """
    begins = places(text, [token for token, _ in logprobs])
    steps, start = list[Step](), 0
    for stop in step_ends(text, separator):
        own = tuple(value for at, (_, value) in zip(begins, logprobs, strict=True) if start <= at < stop)
        steps.append(Step(mended(text[start:stop]), logprobs=own if logprobs else None))
        start = stop
    return steps


def with_calls(steps: Sequence[Step], calls: Mapping[int, Mapping[str, str]], separator: str) -> list[Step]:
    """The steps with tool calls added: to the last step if no separator ended it, else as a step of their own."""
    made = [
        {
            "name": mended(call["name"]), "arguments": parsed(mended(call["arguments"])),
            **({"id": mended(call["id"])} if call["id"] else {}),
        }
        for _, call in sorted(calls.items())
    ]  # fmt: skip
    unended = bool(steps) and step_end(steps[-1].text, separator) < 0
    return [*(steps[:-1] if unended else steps), calling_step(steps[-1].text if unended else "", made)]
