"""The answer log: every paid answer on disk the moment it exists, so that a run resumes, replays and never pays twice.

One SQLite file in WAL mode, one row an answer, found by a digest of the question and of who answered it. A row holds
the checksum of its name and its answer, so that damage costs what it hit and never gives a question another's answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from stepreward.core.errors import StoreError
from stepreward.core.prefix_names import prefix_of
from stepreward.core.runtime.acts import Act
from stepreward.core.runtime.answer_codec import Answered, decode, encode
from stepreward.core.runtime.flows import READ_BY_POLICIES, UNREAD, Compare, Extract, Grade, Graded, Propose, Question
from stepreward.core.runtime.sqlite_recovery import PAGE, rows, wal_rows

T = TypeVar("T")
Row = tuple[int, bytes, bytes, bytes]
"""Key, name, answer, checksum."""
SLOW_GRADE = 1.0
"""Seconds from which a grade is worth a place in the log: a rerun reads it."""
_log = logging.getLogger(__name__)
_VERSION = 3
"""How questions are named and answers are kept."""
_OLD_HEAD = b'{"answer_log":2}\n'
"""First line of a log in JSON lines, which names questions as this version does."""
_MAGIC = b"SQLite format 3\0"
_TABLE = "create table if not exists answers (key integer primary key, name blob, answer blob, checksum blob)"
_PUT = "insert or replace into answers values (?, ?, ?, ?)"


def digest(question: Question, answerer: str) -> str:
    """Name of a question in the log: equal iff the same answerer would have to give the same answer.

    Takes time in the length of its steps only where they are no `Prefix`, which has their names.
    """
    problem = question.problem
    parts: list[object] = [type(question).__name__, answerer, problem.id, problem.text]
    if isinstance(question, Propose):
        parts += [question.key.bits, question.n, question.first, question.until, question.max_tokens]
        parts += [prefix_of(question.prefix).name]
        if question.temperature is not None or question.top_p is not None:
            parts += [("sampled at", question.temperature, question.top_p)]
        if question.top_k is not None or question.min_p is not None:
            parts += [("cut at", question.top_k, question.min_p)]
        if read := {name: problem.meta[name] for name in READ_BY_POLICIES if problem.meta.get(name)}:
            parts += [json.dumps(read, sort_keys=True, default=repr)]
        parts += ["expert"] if question.expert else []
    elif isinstance(question, Compare):
        parts += [prefix_of(side).name for side in (question.first, question.second)]
    else:
        parts += [prefix_of(question.steps).name]
        if isinstance(question, Grade | Extract | Act):
            # What a grader or an environment reads beside the steps: the reference, and facts such as unit tests.
            parts += [problem.reference, json.dumps(dict(problem.meta), sort_keys=True, default=repr)]
        elif problem.reference is not None:
            # A scorer may read it too.
            parts += [("reference", problem.reference)]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def keeps_grade(question: Grade | Extract, graded: Graded) -> bool:
    """Whether a grade goes into the log: it was slow, or it failed and might be slow to fail again."""
    if graded.seconds >= SLOW_GRADE:
        return True
    if isinstance(question, Extract):
        return isinstance(graded.answer, str) and graded.answer.startswith(UNREAD)
    return isinstance(graded.answer, float) and question.is_ungraded(graded.answer)


class AnswerLog:
    """Answers by the names of their questions, in one file that one process holds at a time; also a context manager.

    May be used from any thread. Damaged answers are left out, counted in `damaged` and logged as a warning;
    their questions are answered again. Where there is a log in JSON lines of the same name (`answers.jsonl` beside
    `answers.sqlite`), as earlier versions wrote it, its answers are taken over once.

    Args:
        path: the file; made, with its folders, if absent.

    Raises:
        StoreError: the file cannot be opened or written, another process holds it, or it is no log of this version.
    """

    damaged: int
    """Answers that could not be read back."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.damaged = Path(path), 0
        # One connection for all threads: SQLite would let them use it, but a transaction belongs to the connection.
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_strangers(self.path)
            # Before SQLite opens the file: it would drop all of the write-ahead log behind the first damage.
            left = [row for row in map(_sound, wal_rows(self.path)) if row is not None] if self.path.exists() else []
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"cannot open the answer log {self.path}: {error}; choose a writable folder") from error
        self._open()
        try:
            self._guarded(lambda: self._take_hold(left))
        except StoreError:
            self._db.close()
            raise

    def __len__(self) -> int:
        return int(self._guarded(lambda: self._db.execute("select count(*) from answers").fetchone()[0]))

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and lets other processes use it."""
        with self._lock:
            self._db.close()

    def get(self, name: str, default: Any = None) -> Any:
        """The answer logged under a digest, as it was put; `default` where there is none, or none that is sound."""
        key, wanted = _key(name), name.encode()
        found = self._guarded(lambda: self._db.execute("select * from answers where key = ?", (key,)).fetchone())
        if found is None:
            return default
        row = _sound(list(found))
        if row is None:
            self._warn_of_loss(1, f"the answer named {name} is damaged")
            return default
        return decode(row[2]) if row[1] == wanted else default

    def put(self, answers: Iterable[tuple[str, Answered]]) -> None:
        """Keeps answers, all or none of them, and forces them to disk."""
        made = [_made(name.encode(), encode(answer)) for name, answer in answers]

        def write() -> None:
            with self._transaction():
                self._db.executemany(_PUT, made)

        self._guarded(write)

    def _open(self) -> None:
        try:
            self._db = sqlite3.connect(self.path, timeout=0.5, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"cannot open the answer log {self.path}: {error}; choose a writable folder") from error

    def _take_hold(self, left: list[Row]) -> None:
        """Takes hold of the file, and makes the table where it is new.

        Args:
            left: rows of the write-ahead log that a kill left; SQLite drops everything after damage in it.
        """
        # Exclusive locking refuses a second writer, and the kernel gives the lock back when the process ends, however
        # it ends. `synchronous=full` has each commit on the disk before an algorithm sees the answer that was paid.
        for pragma in (f"page_size={PAGE}", "locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
            self._db.execute(f"pragma {pragma}").fetchall()
        with self._transaction():
            version = self._db.execute("pragma user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise StoreError(f"{self.path} is an answer log of another version, {version}: choose another folder")
            if version == 0:
                self._db.execute(_TABLE)
                self._db.executemany(_PUT, self._earlier())
                self._db.execute(f"pragma user_version={_VERSION}")
            if left:
                before = self._db.total_changes
                self._db.executemany(_PUT.replace("replace", "ignore"), left)
                again = self._db.total_changes - before
        if version and left and again:
            _log.warning("%s: its write-ahead log is damaged; %d answers behind the damage were kept", self.path, again)
        # A damaged table shows itself here, where it can be mended before any answer is looked up.
        self._db.execute("select count(*) from answers where key = 0").fetchone()

    def _earlier(self) -> Iterator[Row]:
        """The answers of a log in JSON lines of the same name."""
        old, torn, taken = self.path.with_suffix(".jsonl"), 0, 0
        if old == self.path or not _is_old(old):
            return
        with old.open("rb") as file:
            for line in chain(file.readlines(len(_OLD_HEAD))[1:], file):
                try:
                    row = json.loads(line)
                    name = row.pop("question").encode()
                    decode(answer := json.dumps(row, separators=(",", ":")).encode())
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    torn += 1
                    continue
                taken += 1
                yield _made(name, answer)
        lost = f"; {torn} lines could not be read" if torn else ""
        _log.warning("%s: %d answers were taken over into %s%s", old, taken, self.path.name, lost)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
            self._db.execute("commit")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise

    def _guarded(self, what: Callable[[], T]) -> T:
        """Works on the file; where it turns out damaged, saves what is sound and works on that.

        Raises:
            StoreError: the file cannot be read or written, or another process holds it.
        """
        with self._lock:
            try:
                return what()
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) and "no such table" not in str(error):
                    raise self._store_error(error, code) from error
                first = error
            self._rescue(first)
            try:
                return what()
            except sqlite3.Error as error:
                raise self._store_error(error, getattr(error, "sqlite_errorcode", 0) & 0xFF) from error

    def _store_error(self, error: sqlite3.Error, code: int) -> StoreError:
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreError(f"{self.path} is in use by another process: wait for its end, or choose another folder")
        full = code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
        remedy = "free some space and run again" if full else "choose a writable folder"
        if isinstance(error, sqlite3.ProgrammingError):
            remedy = "open it again"
        return StoreError(f"cannot use the answer log {self.path}: {error}; {remedy}")

    def _rescue(self, error: sqlite3.Error) -> None:
        """Writes all sound rows into a new file, and keeps the damaged one beside it."""
        self._db.close()
        kept, broken = self.path.with_name(self.path.name + ".saved"), 0
        try:
            kept.unlink(missing_ok=True)
            with closing(sqlite3.connect(kept, isolation_level=None)) as db:
                db.execute(f"pragma page_size={PAGE}")
                db.execute("begin")
                db.execute(_TABLE)
                for values in rows(self.path):
                    row = _sound(values)
                    broken += row is None and len(values) == 4
                    if row is not None:
                        db.execute(_PUT, row)
                taken = db.execute("select count(*) from answers").fetchone()[0]
                db.execute(f"pragma user_version={_VERSION}")
                db.execute("commit")
            # The damaged file stays: the rows in it cost money, and better tools may read them.
            names = (self.path.with_name(f"{self.path.name}.damaged{'-' + str(i) if i else ''}") for i in count())
            damaged = next(name for name in names if not name.exists())
            self.path.rename(damaged)
            for ending in ("-wal", "-shm"):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
            kept.replace(self.path)
        except (OSError, sqlite3.Error) as fault:
            raise StoreError(f"{self.path} is damaged ({error}) and cannot be mended: {fault}") from fault
        self._open()
        for pragma in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
            self._db.execute(f"pragma {pragma}").fetchall()
        message = f"is damaged ({error}); {taken} answers were saved, the damaged file is {damaged.name}"
        self._warn_of_loss(max(broken, 1), message)

    def _warn_of_loss(self, lost: int, what: str) -> None:
        self.damaged += lost
        _log.warning("%s: %s; lost answers will be paid for again", self.path, what)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def _made(name: bytes, answer: bytes) -> Row:
    return _key(name.decode()), name, answer, _checksum(name, answer)


def _checksum(name: bytes, answer: bytes) -> bytes:
    return hashlib.blake2b(name + b"\0" + answer, digest_size=8).digest()


def _sound(values: list[Any]) -> Row | None:
    """A row whose checksum is right; None otherwise."""
    if len(values) != 4 or not all(isinstance(value, bytes) for value in values[1:]):
        return None
    _, name, answer, checksum = values
    return _made(name, answer) if checksum == _checksum(name, answer) else None


def _is_old(path: Path) -> bool:
    """Whether a file is a log in JSON lines that names questions as this version does.

    Raises:
        StoreError: it is a log of a version that names them otherwise.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_OLD_HEAD))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"cannot read the earlier answer log {path}: {error}; make it readable") from error
    if head == _OLD_HEAD:
        return True
    if _OLD_HEAD.startswith(head):
        return False  # A kill tore its very first line.
    raise StoreError(
        f"{path} is an answer log of a version that names questions otherwise; no answer in it can be found: "
        "move the file away to ask anew, or choose another folder"
    )


def _refuse_strangers(path: Path) -> None:
    """Leaves a file as it is that no version of this log wrote, or that is a log in JSON lines."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        return
    if head.startswith(b"{"):
        raise StoreError(
            f"{path} is an answer log in JSON lines: open {path.with_suffix('.sqlite').name} beside it, "
            f"which takes over what a file called {path.with_suffix('.jsonl').name} holds"
        )
    if head and head[:16] not in (_MAGIC, bytes(16)) and not any(_sound(values) is not None for values in rows(path)):
        raise StoreError(f"{path} is no answer log: move the file away, or choose another folder")
