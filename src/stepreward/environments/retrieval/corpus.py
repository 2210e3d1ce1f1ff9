"""Documents that an agent can find and read: a file of the user's own, or those of a generated world."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError

_END = re.compile(r"(?<=[.!?])\s+")
Fact = tuple[int, int]
"""A sentence: the number of its document, and its number there."""


@dataclass(frozen=True)
class Document:
    """A titled text, as its sentences."""

    id: str
    title: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """Title and sentences."""
        return f"{self.title}. {' '.join(self.sentences)}"


@dataclass(frozen=True)
class Corpus:
    """Documents with distinct ids and titles."""

    name: str
    """Equal names promise equal documents."""
    documents: tuple[Document, ...]

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Number of each document by its id."""
        return {one.id: number for number, one in enumerate(self.documents)}

    def sentence(self, fact: Fact) -> str:
        """Text of a sentence."""
        return self.documents[fact[0]].sentences[fact[1]]

    def facts(self, document: int) -> list[Fact]:
        """The sentences of a document."""
        return [(document, at) for at in range(len(self.documents[document].sentences))]


def read_corpus(path: Path) -> Corpus:
    """Reads documents of JSON lines: `title` and `text`, or `contents` with the title as first line; `id` if any.

    Raises:
        InputError: the file is not there or empty, or a row has no text, or an id or a title of another row.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = f"the corpus {path} cannot be read: {error}"
        raise InputError(what, remedy="name a file of JSON lines by corpus=FILE.jsonl") from error
    made: list[Document] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            made.append(_document(line, f"{path}, line {number}", len(made)))
    for what, seen in (("id", [one.id for one in made]), ("title", [one.title for one in made])):
        if twice := next((one for at, one in enumerate(seen) if one in seen[:at]), None):
            raise InputError(f"{path} has two documents with the {what} {twice!r}", remedy="make them distinct")
    if not made:
        raise InputError(f"{path} has no document", remedy='write rows like {"title": "Paris", "text": "A city."}')
    return Corpus(str(path), tuple(made))


def _document(line: str, where: str, number: int) -> Document:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is no JSON: {error}", remedy="write one object a line") from error
    fields = row if isinstance(row, Mapping) else {}
    title, text = fields.get("title"), fields.get("text")
    if text is None and isinstance(fields.get("contents"), str):
        first, _, text = fields["contents"].partition("\n")
        title = title or first.strip('" ')
    if not (isinstance(text, str) and text.strip() and isinstance(title, str) and title.strip()):
        what = f"{where} has no title or no text"
        raise InputError(what, remedy='write rows like {"id": "7", "title": "Paris", "text": "A city."}')
    return Document(str(fields.get("id", f"d{number}")), title.strip(), sentences_of(text))


def sentences_of(text: str) -> tuple[str, ...]:
    """A text cut behind the marks that end sentences."""
    return tuple(part for part in _END.split(text.strip()) if part)


def title_table(titles: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Number of each title by its words."""
    return {tuple(words_of(title)): at for at, title in enumerate(titles)}


def titles_in(text: str, table: Mapping[tuple[str, ...], int]) -> list[int]:
    """Numbers of the titles of a `title_table` that occur in a text as whole words, in any case."""
    words, longest = words_of(text), max(map(len, table), default=0)
    spans = (tuple(words[at : at + n]) for at in range(len(words)) for n in range(1, longest + 1))
    return sorted({table[span] for span in spans if span in table})


def words_of(text: str) -> list[str]:
    """Words and numbers in small letters."""
    return re.findall(r"\w+", text.lower())
