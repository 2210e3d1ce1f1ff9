"""Rows of JSON, JSON lines and Parquet files, plain or gzipped, one at a time."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import read_object
from stepreward.core.files.row_files import PARTS
from stepreward.formats.files.archives import archived
from stepreward.formats.files.arrow_rows import FAULTS, rows_of, unreadable
from stepreward.formats.files.row_limits import LARGEST_ROW, too_large
from stepreward.formats.files.saved_folders import SPLITS, is_saved, saved_rows

Numbered = tuple[int, Mapping[str, Any] | InputError]
"""A 1-based number of a line or row, and its object; an unreadable one is its error."""
Bytes = BinaryIO | gzip.GzipFile
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20
LABELS = "labels.parquet"
"""The file of labels in a run's folder."""
_LOGS = ("answers.jsonl", "samples.jsonl")
"""Logs of paid answers, which are beside results and are no rows."""
_NOTES = frozenset({
    "base_state.json", "metadata.json", "plan.json", "settings.json", "summary.json", "results.json", "compare.json",
    "config.json", "generation_config.json", "stepreward.json", "tokenizer.json", "tokenizer_config.json",
    "training.json", PARTS,
})  # fmt: skip
"""Files about a run beside its rows."""
_EVENT = re.compile(r"(?:event-)?\d+[^.]*\.json")
"""Names of files that hold an event each, as OpenHands writes them."""
_NAMED = frozenset({"conversation_id", "session_id", "thread_id", "trajectory_id", "episode_id", "uuid"})
"""Fields of messages that name the conversation of each."""
_DATABASE = b"SQLite format 3\0"
_BESIDE = "pass what the command wrote beside it, such as labels.parquet"
_AGAIN = "run the same command again, which goes on where it was"
_HEAD = 4096
_TOKEN = 12
"""More characters than any of JSON's words and escapes has."""
_BROKEN = "broken JSON"
_PACKED = {".zst": "zstd -d", ".bz2": "bunzip2", ".xz": "unxz", ".zip": "unzip"}
"""Endings of what the standard library cannot stream, or that holds several files, with what unpacks them."""
_FIELD = r'"(?:[^"\\]|\\.)*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|-?[\d.eE+]+|true|false|null)'
_LISTS = '"(?:data|rows|records|examples|instances|traces|runs)"'
_WRAPPED = re.compile(rf"\s*\{{\s*(?:{_FIELD}\s*,\s*)*{_LISTS}\s*:\s*\[(?=\s*(?:\{{|\]|$))")
"""An object whose rows are in a list, after plain fields at most."""
_COMMA, _CLOSED = re.compile(r'\s*,\s*"(?:[^"\\]|\\.)*"\s*:\s*'), re.compile(r"\s*\}")
CONVERSATIONS = "conversations"
"""Field under which a bare list of ShareGPT's messages is read; one of other messages is read as `messages`."""
_DECODER = json.JSONDecoder()


def open_bytes(path: Path) -> Bytes:
    """The file's bytes, unpacked if its name ends in .gz.

    Raises:
        InputError: it cannot be opened.
    """
    ending = path.suffix.lower()
    if ending in _PACKED:
        what = f"is packed as {ending}, of which only .gz is read"
        raise InputError(what, source=path, remedy=f"unpack it first: {_PACKED[ending]} {path.name}")
    try:
        return gzip.open(path, "rb") if ending == ".gz" else path.open("rb")
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", source=path, remedy="check the path and its permissions"
        ) from error


def read_rows(path: str | Path) -> Iterator[Numbered]:
    """Rows of a file: Parquet and Inspect archives by name, a JSON array if it starts with `[`, else lines or objects.

    Lines that are lists of chat messages each are rows of `messages`.

    An object that holds its rows in a list, `{"data": [...]}`, is read as that list, and a folder as what
    `Dataset.save_to_disk` wrote, as the labels of a run, as the files that are its parts, or as the events, a file
    each, of a session of OpenHands. All but events stream: no more than a row and a block is in memory. Objects may be
    written over several lines. A line that cannot be read is given as its error and costs no other; in an array or
    among objects it ends the file, since where the next one starts is not known.

    Raises:
        InputError: the file cannot be opened or unpacked at all.
    """
    path = Path(path)
    if path.is_dir():
        yield from _folder(path)
        return
    if path.suffix.lower() in (".parquet", ".eval"):
        yield from _parquet(path) if path.suffix.lower() == ".parquet" else archived(path)
        return
    number = 0
    try:
        for number, row in _json(path):
            yield number, row
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        broken = InputError(f"a broken .gz: {error}", source=path, row=number + 1, remedy="fetch it again")
        if not number:
            raise broken from error
        yield number + 1, broken


def is_own_folder(folder: Path) -> bool:
    """Whether a command wrote the folder: its files are one whole, not a subset each."""
    notes = (LABELS, "plan.json", PARTS)
    return any((folder / name).is_file() for name in notes) or any(folder.glob("labels-*.parquet"))


def parts_of(folder: Path) -> list[Path]:
    """The files of a folder that hold its rows: labels.parquet, or else its shards or parts, in the order of names.

    Raises:
        InputError: there is none, or the run that writes them has not ended.
        StoreError: the note of what is there cannot be read.
    """
    if (folder / LABELS).is_file():
        return [folder / LABELS]
    if (folder / PARTS).is_file() and not read_object(folder / PARTS, remedy=_AGAIN).get("complete"):
        raise InputError("the run that writes this folder of parts has not ended", source=folder, remedy=_AGAIN)
    parts = sorted(folder.glob("labels-*.parquet")) or sorted(folder.glob("*.parquet"))
    if not parts and (folder / "plan.json").is_file():
        what = "no finished shard of labels is here"
        raise InputError(what, source=folder, remedy="run `label` to its end first")
    for ending in (".jsonl", ".json"):
        found = [*folder.glob(f"*{ending}"), *folder.glob(f"*{ending}.gz")]
        parts = parts or sorted(path for path in found if path.name not in _NOTES and not path.name.endswith(_LOGS))
    if not parts:
        notes = sorted(path.name for path in folder.iterdir() if path.name in _NOTES) if folder.is_dir() else []
        what = "no labels.parquet, no parts, .parquet, .jsonl or .json, and no events are in this folder"
        what += f"; {', '.join(notes)} are notes and results" if notes else ""
        raise InputError(what, source=folder, remedy="name a file, or what `label`, `run` or save_to_disk wrote")
    return parts


def _folder(folder: Path) -> Iterator[Numbered]:
    """The rows of a folder, numbered through all of its parts."""
    if is_saved(folder) or (folder / SPLITS).is_file():
        yield from saved_rows(folder)
        return
    runs = [(one, files) for one in (folder, folder / "events", *sorted(folder.glob("*/events")))
            if (files := _event_files(one))]  # fmt: skip
    rows = _events(runs) if runs else (row for part in parts_of(folder) for row in _part(part))
    for number, (_, row) in enumerate(rows, start=1):
        yield number, row


def _event_files(folder: Path) -> list[Path]:
    """The files of a folder of events, one a file, in the order of their numbers; none where it is no such folder."""
    files = sorted(folder.glob("*.json"), key=lambda path: [int(one) for one in re.findall(r"\d+", path.name)[:1]])
    if not files or not all(_EVENT.fullmatch(path.name) for path in files):
        return []
    first = next(read_rows(files[0]), (1, None))[1]
    return files if isinstance(first, InputError) or (isinstance(first, Mapping) and "source" in first) else []


def _events(runs: Sequence[tuple[Path, Sequence[Path]]]) -> Iterator[Numbered]:
    """A row a folder, its `events`; a file that cannot be read is its error and costs no other."""
    for folder, files in runs:
        events = []
        for path in files:
            for number, row in read_rows(path):
                if isinstance(row, InputError):
                    yield number, row
                else:
                    events.append(row)
        name = folder.parent.name if folder.name == "events" else folder.name
        yield 1, {"id": name, "events": events}


def _part(path: Path) -> Iterator[Numbered]:
    """The rows of a part; where they are all chat messages they are one conversation, and not one with other parts."""
    rows = read_rows(path)
    first = next(rows, None)
    if first is None or not _is_bare(first[1]) or path.suffix == ".parquet":
        yield from rows if first is None else chain([first], rows)
        return
    rest = [first, *rows]
    if all(_is_bare(row) for _, row in rest):
        talk: list[Any] = [row for _, row in rest]
        yield 1, {CONVERSATIONS if "from" in talk[0] else "messages": talk}
    else:
        yield from rest


def _is_bare(row: object) -> bool:
    return is_message(row) and isinstance(row, Mapping) and not _NAMED & row.keys()


def _json(path: Path) -> Iterator[Numbered]:
    with open_bytes(path) as file:
        start = file.readline(LARGEST_ROW).removeprefix(_BOM)
        if start.startswith(_DATABASE):
            raise InputError("a log of paid answers, which holds no rows", source=path, remedy=_BESIDE)
        while start and not start.strip():
            start = file.readline(LARGEST_ROW)
        is_list = start.lstrip().startswith(b"[") and not (_is_messages(start) and file.readline().lstrip()[:1] == b"[")
    matched = _WRAPPED.match(start[:_HEAD].decode("utf-8", "replace"))
    if matched or is_list or (start.lstrip().startswith(b"{") and not _is_json(start)):
        values = _values(path)
        first = list(islice(values, 1))
        # A first line that is broken does not begin an object of several lines: the file is JSON lines.
        if matched or is_list or not any(isinstance(row, InputError) for _, row in first):
            yield from chain(first, values)
            return
    with open_bytes(path) as file:
        for number, line in enumerate(_lines(file), start=1):
            text = line.removeprefix(_BOM) if number == 1 else line
            if text.strip():
                yield number, _row(path, number, text)


def _lines(file: Bytes) -> Iterator[bytes]:
    """The lines of a file; of one that is too long its beginning, which `_row` refuses."""
    while line := file.readline(LARGEST_ROW + 1):
        yield line
        if len(line) > LARGEST_ROW:
            while line and not line.endswith(b"\n"):
                line = file.readline(16 * _BLOCK)


def _is_json(line: bytes) -> bool:
    if too_large(line):
        return True  # The line is refused later, with its own error.
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _row(path: Path, number: int, line: bytes) -> Mapping[str, Any] | InputError:
    if large := too_large(line):
        return InputError(f"not read: {large}", source=path, row=number, remedy="drop the line")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        near = line[:40].decode("utf-8", "replace")
        what = f"broken JSON: {error} near {near!r}"
        return InputError(what, source=path, row=number, remedy="repair or drop the line")
    return _object(path, number, row)


def is_message(value: object) -> bool:
    """Whether a value is a chat message: of a role, or of a speaker as ShareGPT has it."""
    return isinstance(value, Mapping) and ("role" in value or {"from", "value"} <= value.keys())


def _is_messages(line: bytes) -> bool:
    """Whether a line is a whole list of chat messages, as opposed to an array of rows."""
    if too_large(line):
        return True  # The line is refused later, with its own error.
    value = json.loads(line) if _is_json(line) else None
    return isinstance(value, list) and bool(value) and all(map(is_message, value))


def _object(path: Path, number: int, row: object) -> Mapping[str, Any] | InputError:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, list) and row and all(map(is_message, row)):
        return {CONVERSATIONS if "from" in row[0] else "messages": row}
    return InputError(f"expected an object, got {type(row).__name__}", source=path, row=number, remedy="drop it")


class _Blocks:
    """A file's text as a window that grows to the right and is cut from the left."""

    def __init__(self, file: Bytes) -> None:
        self.file, self.text, self.at = file, "", 0
        self.decode = codecs.getincrementaldecoder("utf-8-sig")(errors="strict").decode
        self.ended = False

    def more(self) -> bool:
        """Reads as much again as the window holds, so that one long value costs no more than twice its length."""
        block = self.file.read(max(_BLOCK, len(self.text) - self.at))
        self.text, self.at = self.text[self.at :] + self.decode(block, final=not block), 0
        self.ended = not block
        return not self.ended

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self.at < len(self.text):
                if not self.text[self.at].isspace():
                    return self.text[self.at]
                self.at += 1
            if not self.more() and self.at >= len(self.text):
                return ""


def _values(path: Path) -> Iterator[Numbered]:
    """The values of a JSON array, or values one after the other, up to the first that is broken."""
    number = 1
    with open_bytes(path) as file:
        blocks = _Blocks(file)
        try:
            inside, wrapper = blocks.peek() == "[", _WRAPPED.match(blocks.text, blocks.at)
            if wrapper is not None:
                inside, blocks.at = True, wrapper.end() - 1
            blocks.at += inside
            while True:
                if inside and number > 1 and blocks.peek() == ",":
                    blocks.at += 1
                if blocks.peek() in (("", "]") if inside else ("",)):
                    break
                row = _next(blocks, path, number)
                yield number, row
                if isinstance(row, InputError) and row.problem.startswith(_BROKEN):
                    return
                number += 1
            if inside and blocks.peek() != "]":
                what = f"{_BROKEN} array: no ']' at its end"
                yield number, InputError(what, source=path, row=number, remedy="repair it, or write JSON lines")
            elif inside:
                blocks.at += 1
                if wrapper is not None:
                    _skip_wrapper(blocks)
                if blocks.peek():
                    what = f"{_BROKEN}: more text after the end of the array is left out"
                    yield number, InputError(what, source=path, row=number, remedy="write one array, or JSON lines")
        except UnicodeDecodeError as error:
            yield number, InputError(f"not UTF-8 text: {error}", source=path, row=number, remedy="fetch it again")


def _skip_wrapper(blocks: _Blocks) -> None:
    """Skips the fields after the rows of an object that has them in a list, up to its end."""
    while blocks.more():
        pass
    at = blocks.at
    try:
        while (field := _COMMA.match(blocks.text, at)) is not None:
            _, at = _DECODER.raw_decode(blocks.text, field.end())
    except (ValueError, RecursionError):
        return
    end = _CLOSED.match(blocks.text, at)
    blocks.at = end.end() if end is not None else blocks.at


def _next(blocks: _Blocks, path: Path, number: int) -> Mapping[str, Any] | InputError:
    """The next value, for which the window grows as far as needed."""
    while True:
        try:
            value, end = _DECODER.raw_decode(blocks.text, blocks.at)
        except (ValueError, RecursionError) as error:
            large = too_large(blocks.text)
            # A value that the window cuts fails in an open string or at the end; an error elsewhere is one.
            cut = isinstance(error, json.JSONDecodeError) and (
                error.msg.startswith("Unterminated string") or error.pos >= len(blocks.text) - _TOKEN
            )
            if large or not cut or not blocks.more():
                error = ValueError(f"not read: {large}") if large else error
                what = f"{_BROKEN}: {error} in value {number}; the rest of the file is left out"
                return InputError(what, source=path, row=number, remedy="repair it, or write JSON lines")
            continue
        # A number at the end of the window may continue after it.
        if end == len(blocks.text) and not isinstance(value, dict | list | str) and blocks.more():
            continue
        blocks.at = end
        return _object(path, number, value)


def _parquet(path: Path) -> Iterator[Numbered]:
    try:
        file = pq.ParquetFile(path, buffer_size=_BLOCK, page_checksum_verification=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"not a readable Parquet file: {error}", source=path, remedy="check the path") from error
    number = 0
    # Group by group: a reader over all groups would keep more and more of the file in memory.
    for group in range(file.num_row_groups):
        end = number + file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(batch_size=256, row_groups=[group]):
                for row in rows_of(batch):
                    number += 1
                    yield number, unreadable(row, path, number) if isinstance(row, str) else row
        except FAULTS as error:
            what = f"rows {number + 1} to {end} cannot be read: {' '.join(str(error).split())}"
            yield number + 1, InputError(what, source=path, row=number + 1, remedy="write the file again")
            number = end
