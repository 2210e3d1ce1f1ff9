"""Tables, lines and bars by rich, in which text of others is text: no markup, no emoji names, nothing that steers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.text import Text

from stepreward.cli.terminal.plain_streams import BAR, printable

WIDTH = 160
"""Characters of a line where the output is no terminal, so that no name is cut."""


class _PlainConsole(Console):
    """Takes every string as it is. Rich writes to the terminal itself, so its strings are made printable here."""

    def render_str(self, text: str, **named: Any) -> Text:
        """The string as it is shown."""
        return super().render_str(printable(text), **named)


def plain_console(*, stderr: bool = False) -> Console:
    """A console for names and texts of files, models and servers.

    Strings hold no markup: what shall be styled is a `rich.text.Text` of our own words.

    Args:
        stderr: write to standard error.
    """
    stream = sys.stderr if stderr else sys.stdout
    # The stream below, which takes rich's own sequences, and stays the same while a bar holds the standard streams.
    below = getattr(stream, "rich_proxied_file", stream)
    made = _PlainConsole(file=below, stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = WIDTH
    return made


class _Above(FileProxy):
    """Shows lines above a bar, as plain as where there is none; bars of libraries are left out."""

    def write(self, text: str) -> int:
        return len(text) if BAR.match(text) else super().write(printable(text))


@contextmanager
def lines_above(console: Console) -> Iterator[None]:
    """Lines that are printed meanwhile stand above what is live on the console, unless they go into a file."""
    before = sys.stdout, sys.stderr
    made = [_Above(console, stream) if stream.isatty() else stream for stream in before]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in made)
    try:
        yield
    finally:
        for stream in made:
            stream.flush()
        sys.stdout, sys.stderr = before
