"""Answers as streams of JSON: server-sent events, or one JSON object from a server that does not stream."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from stepreward.core.http.faults import PassingError, passing
from stepreward.core.http.interruptible import Check
from stepreward.core.http.open_requests import OpenRequest

DONE = "[DONE]"
"""The text that ends a stream, and the only field of the event that reports it."""
LONGEST_LINE = 1 << 24
"""Most bytes of an event."""


class EventStream:
    """The body of a response, read as it comes.

    Args:
        response: with its body unread.
        request: notes when each event came.
        check: called after each event; raises if the request must end.
        url: where it was sent, without secrets.
    """

    def __init__(self, response: httpx.Response, request: OpenRequest, check: Check, url: str) -> None:
        self.response, self._request, self._check, self.url = response, request, check, url

    @property
    def streamed(self) -> bool:
        """Whether the server sends events; False where it sends one JSON object."""
        return "text/event-stream" in self.response.headers.get("content-type", "")

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """The JSON objects, and `{DONE: True}` where the server says that none follows.

        Raises:
            PassingError: the connection broke, or what came is no JSON object.
        """
        objects = self._events()
        while True:
            try:
                event = next(objects, None)
            except httpx.TransportError as error:
                raise passing(error) from error
            if event is None:
                return
            self._request.last_event = time.monotonic()
            yield event
            self._check()

    def _events(self) -> Iterator[Mapping[str, Any]]:
        if not self.streamed:
            self.response.read()
            yield _object(self.response.text)
            return
        for line in _lines(self.response):
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip().decode("utf-8", "replace")
            if data == DONE:
                yield {DONE: True}
                return
            yield _object(data)


def _lines(response: httpx.Response) -> Iterator[bytes]:
    """Lines of a stream. Only line feeds separate them: text in JSON may hold every other line break."""
    parts: list[bytes] = []
    size = 0
    for block in response.iter_bytes():
        first, *others = block.split(b"\n")
        parts.append(first)
        size += len(first)
        if size > LONGEST_LINE:
            raise PassingError(f"a line of more than {LONGEST_LINE:,} bytes in the stream")
        for other in others:
            yield b"".join(parts)
            parts, size = [other], len(other)
    yield b"".join(parts)


def _object(data: str) -> Mapping[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PassingError(f"no JSON in the stream: {data[:100]!r}") from error
    if not isinstance(event, Mapping):
        raise PassingError(f"no object in the stream: {data[:100]!r}")
    return event
