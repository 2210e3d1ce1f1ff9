"""Cuts between reasoning and answer, and between the turns of a chat; another method may cut each part further."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from stepreward.core.catalog import segment
from stepreward.core.errors import InputError
from stepreward.core.segment.spans import exposed, protected, settle
from stepreward.core.types import Kind, Message, Step

_TOKENS = re.compile(
    r"<\|im_start\|>[ \t]*(?P<chatml>\w+)|<\|start_header_id\|>[ \t]*(?P<llama>\w+)[ \t]*<\|end_header_id\|>"
    r"|<start_of_turn>[ \t]*(?P<gemma>\w+)"
)
# Text before the first turn.
_HOLLOW = re.compile(r"(?:\s|<\|begin_of_text\|>|<bos>|<s>)++")
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
_NAMES = re.compile(
    r"^(?:\*\*)?(?P<name>User|Human|Question|Assistant|AI|Bot|System|Tool|Function|Observation|Environment"
    r"|Thought|Action(?: Input)?|Final Answer)(?:[ \t]*\d+)?(?::|\*\*:)",
    re.MULTILINE,
)
_ROLES = {
    "user": "user", "assistant": "assistant", "system": "system", "tool": "tool",
    "human": "user", "question": "user", "ai": "assistant", "bot": "assistant", "model": "assistant",
    "gpt": "assistant", "thought": "assistant", "action": "assistant", "action input": "assistant",
    "final answer": "assistant", "observation": "tool", "environment": "tool", "function": "tool", "ipython": "tool",
}  # fmt: skip
_CONTINUES = ("thought", "action", "action input", "final answer")


@segment.method("think", note="reasoning between <think> tags, then the answer, as reasoning models write it")
def think(
    text: str,
    *,
    inside: str = "blank-lines",
    after: str = "blank-lines",
    opening: str = "<think>",
    closing: str = "</think>",
) -> list[Step]:
    """Cuts at the sections of reasoning, then each section and the text around them by methods of this family.

    An opening tag belongs to the first step of its section; a closing tag and the white space after it to the last. A
    section never closed runs to the end. A closing tag that comes first closes a section opened by the prompt. A tag
    inside a section is text. An empty section joins the step before, or at the start the step after. Each step's
    `meta["section"]` is "think" or "answer".

    Args:
        text: the text.
        inside: method for the sections.
        after: method for what is outside them.
        opening: tag that opens a section.
        closing: tag that closes it.

    Raises:
        UnknownNameError: `inside` or `after` is no method of this family.
        ValueError: a tag is empty, or both are the same.
    """
    if not opening or not closing or opening == closing:
        raise ValueError(f"opening and closing must be two different tags, got {opening!r} and {closing!r}")
    methods = {"think": segment[inside], "answer": segment[after]}
    steps: list[Step] = []
    for section, head, body, tail in _sections(text, opening, closing):
        made = methods[section](body) if body and not body.isspace() else [Step(body)]
        steps += [replace(step, meta={**step.meta, "section": section}) for step in _with_ends(made, head, tail)]
    hollow = re.compile(rf"(?:\s|{re.escape(opening)}|{re.escape(closing)})++")
    return settle(steps, lambda part: hollow.fullmatch(part) is not None)


def _sections(text: str, opening: str, closing: str) -> Iterator[tuple[str, str, str, str]]:
    """Section, opening tag, text and closing tag with the white space after it, of each part in order."""
    tags = list(re.finditer(rf"(?P<open>{re.escape(opening)})|{re.escape(closing)}\s*", text))
    inside = bool(tags) and not tags[0]["open"]
    at, head = 0, ""
    for tag in tags:
        if tag["open"] and not inside:
            yield "answer", head, text[at : tag.start()], ""
            at, head, inside = tag.end(), tag[0], True
        elif not tag["open"] and inside:
            yield "think", head, text[at : tag.start()], tag[0]
            at, head, inside = tag.end(), "", False
    yield "think" if inside else "answer", head, text[at:], ""


@segment.method("chat", note="ChatML, Llama 3 and Gemma turns, or lines that begin with 'User:', 'Thought 1:', ...")
def chat(text: str, *, first: str = "assistant", inside: str = "", protect: bool = True) -> list[Step]:
    """Cuts before every turn; those of the assistant are actions, all others observations, each under its role.

    The header of a turn begins its step; the mark of its end and the white space after it belong to it. Where there are
    special tokens, lines such as "User:" are text. Of ReAct's names, Thought, Action and Final Answer continue a turn
    of the assistant and begin one only after another speaker.

    Args:
        text: the transcript.
        first: role of the text before the first header.
        inside: method by which the assistant's turns are cut further; "" leaves them whole.
        protect: lines inside fenced code or display mathematics are no headers; special tokens are always.

    Raises:
        UnknownNameError: `inside` is no method of this family.
    """
    method = segment[inside] if inside else None
    steps: list[Step] = []
    for role, header, turn in _turns(text, first, protect):
        kind: Kind = "action" if role == "assistant" else "observation"
        body = turn[header:]
        # The end token and the white space around it are no text of their own: they stay with the last step.
        bare = body.rstrip()
        ends = [end for end in _TURN_ENDS if bare.endswith(end)]
        tail = len(body) - len(bare) + len(ends[0]) if ends else 0
        body = body[: len(body) - tail]
        if method is None or kind == "observation" or not body or body.isspace():
            steps.append(Step(turn, kind, role))
        else:
            made = [replace(step, kind=kind, role=role) for step in method(body)]
            steps += _with_ends(made, turn[:header], turn[len(turn) - tail :])
    return settle(steps, lambda part: _HOLLOW.fullmatch(part) is not None)


def _turns(text: str, first: str, protect: bool) -> Iterator[tuple[str, int, str]]:
    """Role, length of the header, and text of each turn."""
    tokens = list(_TOKENS.finditer(text))
    headers = tokens or list(_NAMES.finditer(text))
    spans = [] if tokens or not protect else protected(text)
    outside = set(exposed((header.start() for header in headers), spans))
    role, start, length = first, 0, 0
    for header in headers:
        name = header[header.lastgroup or 0].lower()
        following = _ROLES.get(name, name)
        if header.start() not in outside or (name in _CONTINUES and role == "assistant"):
            continue
        yield role, length, text[start : header.start()]
        role, start, length = following, header.start(), len(header[0])
    yield role, length, text[start:]


def _with_ends(steps: list[Step], head: str, tail: str) -> list[Step]:
    """The steps with more text at both ends."""
    made = list(steps)
    made[0] = replace(made[0], text=head + made[0].text)
    made[-1] = replace(made[-1], text=made[-1].text + tail)
    return made


def from_messages(
    messages: Sequence[Message], *, inside: str = "", actors: Collection[str] = ("assistant",)
) -> list[Step]:
    """Makes steps of chat messages, so that an agent's log can be labelled and scored.

    The texts of the steps, joined, are the contents, joined; an empty message gives no step, a blank one joins the step
    before. A message's "name" becomes the step's agent, and `meta["message"]` is its index, by which people's labels of
    logs point at it.

    Args:
        messages: each with a "role" and a "content", both text.
        inside: method by which the actors' messages are cut further; "" leaves them whole.
        actors: roles, or names, whose messages are actions; logs of several agents often write them as users.

    Raises:
        InputError: a message has no role or its content is no text.
        UnknownNameError: `inside` is no method of the family.
    """
    method = segment[inside] if inside else None
    steps: list[Step] = []
    for row, message in enumerate(messages, 1):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            found = f"role {role!r} and content of type {type(content).__name__}"
            raise InputError(f"expected text for role and content, got {found}", source="messages", row=row)
        name, spoken, role = message.get("name"), role, _ROLES.get(role.lower(), role)
        kind: Kind = "action" if any(one in actors for one in (name, spoken, role)) else "observation"
        parts = method(content) if method is not None and kind == "action" else [Step(content)]
        steps += [
            replace(step, kind=kind, role=role, agent=name, meta={**step.meta, "message": row - 1}) for step in parts
        ]
    return settle(steps)
