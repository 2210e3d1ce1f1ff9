"""A table made in parts, anywhere: a part is made of some consecutive items by the call that makes a whole table.

A folder holds `plan.json` (what is made) and one `STEM-<number>-<digest of its items>.parquet` for each part, written
in one move as soon as the part is there. A part that is there is not made again. One some of whose items failed ends in
`-unfinished.parquet`: it can be read, and the next run makes it again, with the answers that were paid for it, which
are kept in `answers/` until then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from shutil import rmtree
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from stepreward.core.errors import InputError
from stepreward.core.failures import Failures
from stepreward.core.files.atomic_files import claim, in_one_move, locked_folder
from stepreward.core.files.row_files import is_whole
from stepreward.core.runtime.spending import Bill
from stepreward.core.table import read_table, row_of, write_table
from stepreward.core.types import Problem, Trajectory

UNFINISHED = "-unfinished"
"""End of the name of a part that the next run makes again."""
LOST = 4
"""Parts of which nothing could be made, one after the other, before the run itself fails."""
Part = TypeVar("Part")
Result = TypeVar("Result")
Item = Problem | Trajectory
Build = Callable[[], Callable[[Part], Result]]
"""Makes what makes a part, where parts are made: it loads models once for many parts. Other processes must know it."""


class Workers(Protocol):
    """Processes that make parts."""

    def made(self, parts: Iterable[Part]) -> Iterator[tuple[int, Any]]:
        """The result of each part with its number, from 0, in the order in which they are done."""


class Engine(Protocol):
    """Where parts are made."""

    @property
    def part(self) -> int:
        """Items of a part."""

    def open(self, build: Build[Any, Any]) -> AbstractContextManager[Workers]:
        """Starts processes that make parts by what `build` makes; they end with the context."""


class PartItems(list[Any]):
    """The items of a part."""

    paid: Mapping[str, bytes] = MappingProxyType({})
    """By name of its files, what an earlier run kept that could not finish the part."""


@dataclass
class MadePart:
    """What became of the items of a part, or of all parts."""

    rows: list[Trajectory] = field(default_factory=list)
    failed: Failures = field(default_factory=Failures)
    """Items that the next run tries again."""
    ungraded: Failures = field(default_factory=Failures)
    """Solutions that are left out, as the grader gave them no grade."""
    bills: dict[str, Bill] = field(default_factory=dict)
    """What it cost, by stage."""
    lost: Exception | None = None
    """The error, where none of the items could be worked on."""
    paid: dict[str, bytes] = field(default_factory=dict)
    """Files to be given to whoever makes the part again, where items failed."""

    def add(self, other: MadePart) -> None:
        """Adds what became of another part, but for its rows."""
        self.failed.join(other.failed)
        self.ungraded.join(other.ungraded)
        for stage, bill in other.bills.items():
            self.bills.setdefault(stage, Bill()).add(bill)


def make_parts(
    folder: Path,
    stem: str,
    items: Iterable[Item],
    build: Build[PartItems, MadePart],
    engine: Engine,
    plan: Mapping[str, Any],
    *,
    multiple: int = 1,
    skip_failed: bool = False,
    strict: bool = False,
    on_part: Callable[[int, MadePart], None] | None = None,
) -> MadePart:
    """Makes the parts of a table that are not in a folder yet, and returns what became of their items, without rows.

    Args:
        folder: made if absent; `read_parts` reads the table.
        stem: of the names of files.
        items: streamed; a second run must give the same ones in the same order.
        build: makes what makes the part of some items.
        engine: where.
        plan: what is made, JSON values; secrets in addresses are left out.
        multiple: parts have a multiple of so many items, where they are worked on so many at a time.
        skip_failed: leave the items that failed out for good, instead of trying them again in the next run.
        strict: raise at the first part with an item that failed.
        on_part: called with the number of items done, those of earlier runs included, and the sum of all parts.

    Raises:
        InputError: the folder is for another plan or other items.
        StoreError: it cannot be written, or another process uses it.
        SteprewardError: strict and an item failed; or nothing could be made of all parts, or of several in a row.
    """
    total, places, finished, lost = MadePart(), list[tuple[Path, int]](), set[Path](), 0
    tell = on_part or (lambda done, total: None)
    done, size_of_parts = 0, -(-engine.part // multiple) * multiple

    def missing() -> Iterator[PartItems]:
        nonlocal done
        source = iter(items)
        for number in count():
            if not (chunk := PartItems(islice(source, size_of_parts))):
                return
            path = folder / f"{stem}-{number:06d}-{_digest(chunk)}.parquet"
            if is_whole(path):
                finished.add(path)
                done += len(chunk)
                tell(done, total)
                continue
            _refuse_others(folder, stem, number, path)
            places.append((path, len(chunk)))
            chunk.paid = {file.name: file.read_bytes() for file in _answers(path).glob("*.sqlite")}
            yield chunk

    with locked_folder(folder):
        _claim(folder, {**plan, "part": size_of_parts})
        with engine.open(build) as workers:
            for index, made in workers.made(missing()):
                path, size = places[index]
                lost = lost + 1 if made.lost is not None else 0
                if made.lost is not None and lost == LOST:
                    raise made.lost
                if strict:
                    made.failed.refuse("could not be done")
                finished.add(_keep(path, made, final=skip_failed or not made.failed))
                total.add(made)
                total.lost = made.lost
                done += size
                tell(done, total)
        if lost and lost == len(finished) and total.lost is not None:
            raise total.lost
        # A run of the same plan that had more items left these; a reader would take them too.
        for old in set(folder.glob(f"{stem}-*.parquet")) - finished:
            old.unlink()
    total.lost = None
    return total


def read_parts(folder: Path, stem: str) -> Iterator[Trajectory]:
    """Yields the rows of all parts in the order of their items, streaming."""
    for path in sorted(folder.glob(f"{stem}-*.parquet")):
        yield from read_table(path)


def _keep(path: Path, made: MadePart, *, final: bool) -> Path:
    """Writes a part, final or to be made again, and returns where."""
    again, answers = path.with_stem(path.stem + UNFINISHED), _answers(path)
    for name, content in made.paid.items() if not final else ():
        answers.mkdir(parents=True, exist_ok=True)
        with in_one_move(answers / name) as file:
            file.write_bytes(content)
    write_table(path if final else again, made.rows)
    if final:
        again.unlink(missing_ok=True)
        rmtree(answers, ignore_errors=True)
    return path if final else again


def _answers(path: Path) -> Path:
    """The folder of what was paid for a part that is not finished."""
    return path.parent / "answers" / path.stem


def _refuse_others(folder: Path, stem: str, number: int, path: Path) -> None:
    """Removes the unfinished part of this number that is made again; a finished one of other items is an error."""
    for other in folder.glob(f"{stem}-{number:06d}-*.parquet"):
        if not other.stem.endswith(UNFINISHED):
            what = f"the items of part {number} are not those of {other.name}"
            raise InputError(what, source=folder, remedy="pass the items of the first run, or another folder")
        if other.stem.removesuffix(UNFINISHED) != path.stem:
            other.unlink()


def _digest(items: Iterable[Item]) -> str:
    """Name of a part's content: all that a row of the table holds of its items."""
    text = hashlib.blake2b(digest_size=8)
    for item in items:
        row = row_of(Trajectory(item, ()) if isinstance(item, Problem) else item)
        text.update(json.dumps(row).encode())
    return text.hexdigest()


def _claim(folder: Path, plan: Mapping[str, Any]) -> None:
    if differing := claim(folder / "plan.json", plan):
        old, new = ({name: pair[i] for name, pair in differing.items()} for i in (0, 1))
        what = f"the folder was begun with {old}, and {new} is wanted now"
        raise InputError(what, source=folder, remedy="choose another")
