"""What servers stream: server-sent events of completions, or one answer in their place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from stepreward.core.errors import PolicyError
from stepreward.core.servers import PassingError

DONE = "[DONE]"
"""What ends a stream, and the only field of the event that tells of it."""


def events(response: httpx.Response) -> Iterator[Mapping[str, Any]]:
    """The JSON of server-sent events; one JSON object is taken for one event, as servers send that do not stream."""
    if "text/event-stream" not in response.headers.get("content-type", ""):
        response.read()
        yield _whole(response)
        return
    for line in _lines(response):
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip().decode("utf-8", "replace")
        if data == DONE:
            yield {DONE: True}
            return
        event = _parsed(data)
        if "error" in event:
            raise PassingError(f"the server reported {str(event['error'])[:200]}")
        yield event


def _lines(response: httpx.Response) -> Iterator[bytes]:
    """Lines of a stream: only line feeds part them, as text in JSON may hold every other line break."""
    rest = b""
    for block in response.iter_bytes():
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    yield rest


def _parsed(data: str) -> Mapping[str, Any]:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise PassingError(f"no JSON in the stream: {data[:100]!r}") from error
    if not isinstance(event, Mapping):
        raise PassingError(f"no object in the stream: {data[:100]!r}")
    return event


def _whole(response: httpx.Response) -> Mapping[str, Any]:
    """An answer that was not streamed, in the form of an event."""
    event = dict(_parsed(response.text))
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise PolicyError(f"{response.url} answered without choices: {response.text[:200]}; is it OpenAI-compatible?")
    choice = dict(choices[0])
    choice.setdefault("delta", choice.get("message") or {})
    choice["finish_reason"] = choice.get("finish_reason") or "stop"
    return event | {"choices": [choice]}


def token_logprobs(given: Any) -> list[tuple[str, float]]:
    """Texts and log-probabilities of tokens, in either endpoint's form."""
    if not isinstance(given, Mapping):
        return []
    if isinstance(given.get("content"), list):
        return [(str(one["token"]), float(one["logprob"])) for one in given["content"]]
    tokens, values = given.get("tokens") or [], given.get("token_logprobs") or []
    return [(str(token), float(value)) for token, value in zip(tokens, values, strict=True) if value is not None]
