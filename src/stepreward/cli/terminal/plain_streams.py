"""Text of others on the terminal: files, servers and models name things, and none of it may steer the terminal.

All that the commands print goes through the streams that `plain_output` sets up, which escape control characters. Rich,
which writes its own sequences, finds the streams below.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for line feeds and tabs, and those that turn the direction of writing."""


BAR = re.compile(r"\r|(?:\x1b\[A)+\Z")
"""How a write of tqdm begins, by which libraries show downloads: back to the line's start, or lines up and no more."""


def printable(text: str) -> str:
    """The text with what would steer a terminal as escapes such as `\\x1b`."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Plain(io.TextIOWrapper):
    """Writes printable text; half a surrogate pair, and what the terminal's encoding lacks, as escapes.

    Args:
        below: where to.
        bars: let bars of libraries begin their line anew where this is a terminal.
    """

    def __init__(self, below: TextIO, *, bars: bool = False) -> None:
        self.rich_proxied_file = below
        self._bars = bars and below.isatty()
        super().__init__(below.buffer, below.encoding, errors="backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        begins = BAR.match(text) if self._bars else None
        own = begins[0] if begins else ""
        super().write(own + printable(text[len(own) :]))
        return len(text)

    def close(self) -> None:
        """Writes what is buffered, and no more: loggers write here until the interpreter ends."""
        with suppress(OSError, ValueError):
            self.flush()


def _drop_unread(stream: TextIO) -> None:
    """Drops what a reader that is gone did not take: the end of the process would report it."""
    try:
        stream.flush()
    except BrokenPipeError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def plain_output() -> Iterator[None]:
    """Puts plain streams in the place of standard output and standard error."""
    # What is buffered above would otherwise come after what the new streams write.
    before = sys.stdout, sys.stderr
    for stream in before:
        stream.flush()
    made = [_Plain(sys.stdout), _Plain(sys.stderr, bars=True)]
    sys.stdout, sys.stderr = made
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in made:
            stream.close()
        for stream in before:
            _drop_unread(stream)
