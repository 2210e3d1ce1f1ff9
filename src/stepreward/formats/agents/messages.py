"""Chat messages of any provider as turns, and turns as the steps of an episode: actions of the model, observations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import ANSWERS, CALLS, THINKING, parsed, spelled
from stepreward.core.types import Message, Problem, Step
from stepreward.formats.rows import check_choice, shown

Reasoning = Literal["keep", "drop"]
"""Whether thinking that a log records apart from the answer opens the action's text, or is left out."""
MODEL = "assistant"
ProblemEnd = Literal["lead", "request"]
"""The problem is everything before the first action, or before the last one, as in a request."""
# OpenAI's reasoning models renamed `system`, its first function calls had `function`; LangChain and Gemini name others.
_ROLES = {"developer": "system", "function": "tool", "human": "user", "ai": MODEL, "model": MODEL}
_THINKING = ("reasoning_content", "reasoning", "reasoning_details", "thinking_blocks", "thinking")
"""Fields of a message that hold its thinking, as servers and gateways name them."""
_SAID = ("text", "thinking", "summary", "content", "reasoning")
ENDS = ("finish_reason", "stop_reason")
"""Fields of an answer that say why it ended."""
_NO_TURN = "write messages with a 'role' and a 'content'"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: what one speaker said at once."""

    role: str
    """`assistant` is the model; `tool`, `user` and `system` are not."""
    text: str
    calls: tuple[Mapping[str, Any], ...] = ()
    """Tool calls: `name`, `arguments`, and `id` where there is one."""
    reasoning: str = ""
    """Thinking that the log records apart from the text."""
    agent: str | None = None
    """Name of the tool, or of the agent in a log of several."""
    answers: str | None = None
    """Id of the call that a tool's turn answers."""
    images: tuple[str, ...] = ()
    """Paths or URIs, as in the log."""
    place: int = -1
    """0-based place of the message in the log."""
    copied: bool = False
    """Whether the model wrote it in another run, so that it is context here."""
    tokens: tuple[int, ...] | None = None
    """Token ids as sampled, where the log has them."""
    logprobs: tuple[float, ...] | None = None
    """Their log-probabilities, natural log."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of the log (times, usage, finish reason); JSON values only."""

    @property
    def said(self) -> str:
        """Text and calls, a line each."""
        return "\n".join([part for part in (self.text, *map(spelled, self.calls)) if part])

    def with_meta(self, **more: Any) -> Turn:
        """The turn with more fields of the log."""
        return replace(self, meta={**self.meta, **more})


def message_list(value: object, name: str = "messages") -> list[Mapping[str, Any]]:
    """The value, which must be a list of objects and not empty.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"'{name}' must be a list of messages, got {shown(value)}", remedy=_NO_TURN)
    for i, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise InputError(f"message {i} of '{name}' must be an object, got {shown(message)}", remedy=_NO_TURN)
    return list(value)


def read_message(message: Mapping[str, Any], place: int) -> list[Turn]:
    """The turns of a message of OpenAI's, Anthropic's or Inspect's: one, and one more for each tool result in it.

    Raises:
        InputError: there is no role, or content or calls are of no known shape.
    """
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise InputError(f"message {place} needs a 'role', got {shown(role)}", remedy=_NO_TURN)
    content = message.get("content")
    blocks = [content] if isinstance(content, str | Mapping) else ([] if content is None else content)
    if not isinstance(blocks, list | tuple):
        raise InputError(f"'content' of message {place} is neither text nor a list: {shown(content)}", remedy=_NO_TURN)
    parts = _Parts(blocks, place)
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        parts.texts = [*filter(None, parts.texts), refusal]
        parts.meta["refusal"] = True
    parts.meta |= {name: message[name] for name in ENDS if isinstance(message.get(name), str)}
    if _ROLES.get(role, role) == "tool":
        # A tool's failure: some logs keep the error message apart from the text, which then becomes the text.
        error = message.get("error")
        failure = error.get("message") if isinstance(error, Mapping) else error
        if isinstance(failure, str) and failure and failure not in "\n".join(parts.texts):
            parts.texts = [*filter(None, parts.texts), failure]
        if failure or message.get("is_error") is True or message.get("status") == "error":
            parts.meta["is_error"] = True
    # Servers repeat the same thinking as text and in parts: one of them is enough.
    thinking = next((text for name in _THINKING if (text := thinking_text(message.get(name)))), "")
    name = message.get("name") or (message.get("function") if role == "tool" else None) or message.get("agent")
    answers = message.get("tool_call_id")
    whole = Turn(
        _ROLES.get(role, role), "\n".join(parts.texts), (*parts.calls, *_calls(message, place)),
        "\n".join([*([thinking] if thinking else []), *parts.reasoning]), name if isinstance(name, str) else None,
        answers if isinstance(answers, str) else None, tuple(parts.images), place, meta=parts.meta,
    )  # fmt: skip
    is_empty = not (whole.text or whole.calls or whole.reasoning or whole.images)
    return [replace(one, place=place) for one in parts.results] + ([] if parts.results and is_empty else [whole])


def thinking_text(value: object) -> str:
    """Recorded thinking as text: a text, or the texts of parts; encrypted thinking, in `data`, is left out."""
    if isinstance(value, str):
        return value
    texts = []
    for part in value if isinstance(value, list | tuple) else [value]:
        if isinstance(part, Mapping):
            names = _SAID if "data" not in part else ()
            part = next((said for name in names if isinstance(said := part.get(name), str) and said), "")
        texts.append(part)
    return "\n".join(text for text in texts if isinstance(text, str) and text)


class _Parts:
    """The content blocks of a message, sorted by kind."""

    def __init__(self, blocks: Iterable[object], place: int) -> None:
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.images: list[str] = []
        self.calls: list[Mapping[str, Any]] = []
        self.results: list[Turn] = []
        self.meta: dict[str, Any] = {}
        for block in blocks:
            self._add(block, place)

    def _add(self, block: object, place: int) -> None:
        if isinstance(block, str):
            self.texts.append(block)
            return
        if not isinstance(block, Mapping):
            raise InputError(f"a part of message {place} is neither text nor an object: {shown(block)}")
        kind = block.get("type")
        # Inspect marks encrypted thinking as `redacted` and keeps a summary of it.
        names = ("summary",) if block.get("redacted") is True else ("text", "thinking", "reasoning", "refusal")
        said = next((v for k in names if isinstance(v := block.get(k), str)), "")
        if kind in ("thinking", "reasoning"):
            self.reasoning.append(said)
        elif kind == "tool_use":
            self.calls.append(_call(block.get("name"), block.get("input"), block.get("id"), place))
        elif kind == "tool_result":
            inner = block.get("content")
            nested = _Parts([inner] if isinstance(inner, str) else inner or [], place)
            answers = block.get("tool_use_id")
            failed = {"is_error": True} if block.get("is_error") is True else {}
            self.results.append(
                Turn("tool", "\n".join(nested.texts), answers=answers if isinstance(answers, str) else None,
                     images=tuple(nested.images), meta=failed)
            )  # fmt: skip
        elif (image := _image(block)) is not None:
            self.images.append(image)
        elif said:
            self.texts.append(said)
            self.meta |= {"refusal": True} if kind == "refusal" else {}


def _image(block: Mapping[str, Any]) -> str | None:
    """The path or URI of an image part, which is kept and never opened.

    OpenAI has `image_url`, a text or an object with `url`; Inspect has `image`; Anthropic has `source`, an object with
    `data` or `url`.
    """
    value = block.get("image_url", block.get("image", block.get("source")))
    if isinstance(value, Mapping):
        if isinstance(data := value.get("data"), str):
            return f"data:{value.get('media_type', 'image/png')};base64,{data}"
        value = next((value[name] for name in ("url", "file_id", "path") if name in value), None)
    return value if isinstance(value, str) else None


def _calls(message: Mapping[str, Any], place: int) -> list[Mapping[str, Any]]:
    # `tool_calls` replaced `function_call`, which holds a single call.
    given = parsed(message.get("tool_calls"))
    if given is None:
        given = [message["function_call"]] if isinstance(message.get("function_call"), Mapping) else []
    if not isinstance(given, list | tuple):
        raise InputError(f"'tool_calls' of message {place} must be a list, got {shown(given)}")
    calls = []
    for call in map(parsed, given):  # Typed columns of a table hold each call as JSON text.
        if not isinstance(call, Mapping):
            raise InputError(f"a tool call of message {place} must be an object, got {shown(call)}")
        inner = call.get("function", call)
        # Inspect names the function by a string beside the arguments; OpenAI nests both.
        named = inner if isinstance(inner, Mapping) else {"name": inner, "arguments": call.get("arguments")}
        calls.append(_call(named.get("name"), named.get("arguments"), call.get("id"), place))
    return calls


def _call(name: object, arguments: object, number: object, place: int) -> Mapping[str, Any]:
    if not isinstance(name, str) or not name:
        raise InputError(f"a tool call of message {place} has no name: {shown(name)}")
    return {"name": name, "arguments": parsed(arguments), **({"id": number} if isinstance(number, str) else {})}


def turns_of(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The turns of messages; a tool's turn without a name gets that of the called tool."""
    return name_tools([turn for place, message in enumerate(messages) for turn in read_message(message, place)])


def name_tools(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with tools named by the calls that they answer."""
    tools = {call["id"]: call["name"] for turn in turns for call in turn.calls if "id" in call}
    return [
        replace(turn, agent=tools.get(turn.answers)) if turn.role == "tool" and turn.agent is None else turn
        for turn in turns
    ]


def joined_turns(parts: Sequence[Turn]) -> Turn:
    """One turn from the parts of an answer that a log writes one by one: the texts, then the calls."""
    first = parts[0]
    if len(parts) == 1:
        return first
    # A part without tokens leaves the answer without any: their places in its text would be wrong.
    tokens = [part.tokens for part in parts]
    logprobs = [part.logprobs for part in parts]
    return replace(
        first,
        text="\n".join(part.text for part in parts if part.text),
        calls=tuple(call for part in parts for call in part.calls),
        reasoning="\n".join(part.reasoning for part in parts if part.reasoning),
        images=tuple(image for part in parts for image in part.images),
        tokens=None if None in tokens else tuple(one for some in tokens for one in some or ()),
        logprobs=None if None in logprobs else tuple(one for some in logprobs for one in some or ()),
        meta={name: value for part in parts for name, value in part.meta.items()},
    )


def joined_answers(turns: Iterable[Turn], *, until_call: bool = False) -> list[Turn]:
    """The turns with consecutive ones of the model joined; with `until_call` an answer ends with its first call."""
    made: list[Turn] = []
    answer: list[Turn] = []
    for turn in turns:
        if turn.role == MODEL:
            answer.append(turn)
        if answer and (turn.role != MODEL or (until_call and turn.calls)):
            made.append(joined_turns(answer))
            answer = []
        if turn.role != MODEL:
            made.append(turn)
    return [*made, joined_turns(answer)] if answer else made


def as_messages(turns: Iterable[Turn]) -> tuple[Message, ...]:
    """The turns as the messages of a prompt."""
    return tuple({"role": turn.role, "content": turn.said} for turn in turns)


def is_action(turn: Turn, agent: str = "") -> bool:
    """Whether the model, or the one agent of interest, made the turn."""
    return turn.role == MODEL and not turn.copied and agent in ("", turn.agent)


def step_of(turn: Turn, *, agent: str = "", reasoning: Reasoning = "keep") -> Step:
    """The turn as a step, its message's place and calls in the step's meta.

    Other agents' messages are observations under the role `user`: to the agent of interest they are input.

    Raises:
        InputError: an unknown option.
    """
    check_choice("reasoning", reasoning, Reasoning)
    acts = is_action(turn, agent)
    thought = turn.reasoning if reasoning == "keep" else ""
    meta: dict[str, Any] = {**turn.meta, "message": turn.place}
    meta |= {CALLS: [dict(call) for call in turn.calls]} if turn.calls else {}
    meta |= {ANSWERS: turn.answers} if turn.answers else {}
    meta |= {THINKING: thought} if thought else {}
    return Step(
        "\n".join([part for part in (thought, turn.said) if part]) + "\n", kind="action" if acts else "observation",
        role=turn.role if acts or turn.role != MODEL else "user", agent=turn.agent, images=turn.images,
        tokens=turn.tokens, logprobs=turn.logprobs, meta=meta,
    )  # fmt: skip


def problem_and_steps(
    turns: Sequence[Turn],
    name: str,
    *,
    reference: str | None = None,
    meta: Mapping[str, Any] | None = None,
    agent: str = "",
    reasoning: Reasoning = "keep",
    problem: ProblemEnd = "lead",
) -> tuple[Problem, tuple[Step, ...]]:
    """A log as a problem and its steps.

    Args:
        turns: the log.
        name: the problem's id.
        reference: gold answer.
        meta: of the problem.
        agent: whose turns alone are actions; every agent's where empty.
        reasoning: whether thinking opens an action's text.
        problem: where it ends, before the first action or before the last.

    Raises:
        InputError: the model, or that agent, says nothing, or an unknown option.
    """
    check_choice("problem", problem, ProblemEnd)
    acts = [i for i, turn in enumerate(turns) if is_action(turn, agent)]
    if not acts:
        who = f"agent {agent!r}" if agent else "the model"
        speakers = ", ".join(sorted({turn.agent or turn.role for turn in turns})) or "none"
        raise InputError(f"no message is of {who}; there are messages of {speakers}")
    start = acts[0] if problem == "lead" else acts[-1]
    images = [image for turn in turns[:start] for image in turn.images]
    more = {**(meta or {}), **({"images": images} if images else {})}
    made = Problem(name, as_messages(turns[:start]) or "", reference=reference, meta=more)
    return made, tuple(step_of(turn, agent=agent, reasoning=reasoning) for turn in turns[start:])


def prompt_of(value: object, name: str) -> str | tuple[Message, ...]:
    """A prompt as text or messages.

    Raises:
        InputError: it is neither, or empty.
    """
    if isinstance(value, str) and value:
        return value
    return as_messages(turns_of(message_list(value, name)))


def answer_of(value: object, name: str) -> str:
    """An answer as text; a list of messages ends with it.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, str):
        return value
    return turns_of(message_list(value, name))[-1].said
