"""Events of completions, as OpenAI-compatible servers stream them, or one answer in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import PolicyError
from stepreward.core.http.event_streams import DONE, EventStream
from stepreward.core.http.faults import PassingError

THOUGHTS = ("reasoning_content", "reasoning")
"""Fields of a reasoning model's thinking before its answer: it is not kept, but counted and billed."""


def events(stream: EventStream, url: str) -> Iterator[Mapping[str, Any]]:
    """The events of a completion; an answer that is not streamed becomes one event.

    Args:
        stream: not read yet.
        url: for errors; the address of the response may hold secrets.

    Raises:
        PassingError: the connection broke, or the server reports an error.
        PolicyError: the answer is no completion.
    """
    for event in stream:
        if event.get("error"):
            raise PassingError(f"the server reported {str(event['error'])[:200]}")
        yield event if stream.streamed else _as_event(event, stream.response.text, url)


def _as_event(answer: Mapping[str, Any], text: str, url: str) -> Mapping[str, Any]:
    """An answer that was not streamed, in the form of an event."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise PolicyError(f"{url} answered without choices: {text[:200]}; is it OpenAI-compatible?")
    choice = dict(choices[0])
    choice.setdefault("delta", choice.get("message") or {})
    return {**answer, "choices": [choice], DONE: True}


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts of which those with text count.

    Raises:
        TypeError: it is neither.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError(f"content of type {type(content).__name__}, expected text or a list of parts")
    return "".join(
        part if isinstance(part, str) else str(part.get("text") or "")
        for part in content
        if isinstance(part, str) or part.get("type", "text") in ("text", "output_text")
    )


def thought_of(delta: Mapping[str, Any]) -> str:
    """The thinking in a delta, under any of the names that servers use."""
    content = delta.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    named = [delta.get(name) for name in THOUGHTS]
    thought = next((one for one in named if isinstance(one, str) and one), "")
    return thought + "".join(text_of(part.get("thinking")) for part in parts if part.get("type") == "thinking")


def mended(text: str) -> str:
    """Text without lone surrogates, which UTF-8 cannot encode; two halves of a character are joined."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def token_logprobs(given: Any) -> list[tuple[str, float]]:
    """Texts and log-probabilities of tokens, in either endpoint's form; NaN where a server gives null."""
    if not isinstance(given, Mapping):
        return []
    if isinstance(given.get("content"), list):
        return [(str(one["token"]), _number(one["logprob"])) for one in given["content"]]
    tokens, values = given.get("tokens") or [], given.get("token_logprobs") or []
    return [(str(token), _number(value)) for token, value in zip(tokens, values, strict=True)]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def places(text: str, tokens: list[str]) -> list[int]:
    """(T,) where each token begins in a text; -1 for one that is not in it, such as an end token.

    A token's own text may differ from what it adds: half a character is a replacement character, and what completes it
    may repeat that. Such tokens begin where the character does, and their lengths do not shift the later ones.
    """
    begins: list[int] = []
    at, lost = 0, False
    for token in tokens:
        spelled = next((one for one in _spellings(token) if one and text.startswith(one, at)), "")
        if not spelled and lost and token and (found := text.find(token, at, at + len(token) + _SKIPPED)) >= 0:
            at, spelled = found, token
        broken = "\N{REPLACEMENT CHARACTER}" in token
        begins.append(at if spelled or broken else -1)
        at += len(spelled)
        lost = not spelled and (broken or lost)
    return begins


_SKIPPED = 4
"""Most characters that tokens of half characters may have skipped."""


def _spellings(token: str) -> Iterator[str]:
    """A token's possible texts: as sent, without half characters, and with the vocabulary's signs for white space
    replaced."""
    yield token
    yield token.replace("\N{REPLACEMENT CHARACTER}", "")
    plain = token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n").replace("<0x0A>", "\n")
    if plain != token:
        yield plain
        yield plain.removeprefix(" ")
