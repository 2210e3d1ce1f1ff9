"""The answer log: every paid answer on disk the moment it exists, so that a run resumes, replays and never pays twice.

One JSON line an answer, found again by a digest of the question and of who answered it. A line torn by a kill is cut
off when the log is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from stepreward.core.errors import StoreError
from stepreward.core.flows import Compare, Continuation, Judged, Propose, Score, Scored
from stepreward.core.prefix import prefix_of
from stepreward.core.types import Step

_STEP_DEFAULTS = asdict(Step(""))
_HEAD = b'{"answer_log":2}\n'
"""First line of a log: how its questions are named."""


def digest(question: Propose | Score | Compare, answerer: str) -> str:
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
        parts += ["expert"] if question.expert else []
    elif isinstance(question, Compare):
        parts += [prefix_of(side).name for side in (question.first, question.second)]
    else:
        parts += [prefix_of(question.steps).name]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


class AnswerLog:
    """Append-only file of answers to `Propose`, `Score` and `Compare` questions; also a context manager.

    Only file offsets are held in memory.

    Args:
        path: file to append to; made, with its folders, if absent.

    Raises:
        StoreError: the file cannot be opened or written, or is no log of this version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise StoreError(f"cannot open the answer log {self.path}: {error}; choose a writable folder") from error
        try:
            self._begin()
            self._offsets = self._index()
        except StoreError:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._offsets)

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def get(self, name: str) -> list[Continuation] | Scored | Judged | None:
        """The answer logged under a digest, or None."""
        offset = self._offsets.get(name)
        if offset is None:
            return None
        self._file.seek(offset)
        return _decode(json.loads(self._file.readline()))

    def put(self, answers: Iterable[tuple[str, Sequence[Continuation] | Scored | Judged]]) -> None:
        """Appends answers and forces them to disk."""
        lines = [
            (name, json.dumps({"question": name, **_encode(answer)}, separators=(",", ":")).encode() + b"\n")
            for name, answer in answers
        ]
        offset = self._file.seek(0, os.SEEK_END)
        self._write([line for _, line in lines])
        for name, line in lines:
            self._offsets[name] = offset
            offset += len(line)

    def _write(self, lines: Iterable[bytes]) -> None:
        try:
            self._file.writelines(lines)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(
                f"cannot write the answer log {self.path}: {error}; free some space and run again"
            ) from error

    def _begin(self) -> None:
        """Writes the first line where there is none yet, and reads it where there is."""
        self._file.seek(0)
        head = self._file.read(len(_HEAD))
        if head == _HEAD:
            return
        if not _HEAD.startswith(head):
            raise StoreError(
                f"{self.path} is no answer log of this version, which names questions otherwise than earlier ones: "
                "move the file away to ask anew, or choose another folder"
            )
        # A kill may have torn the very first line.
        self._file.truncate(0)
        self._write([_HEAD])

    def _index(self) -> dict[str, int]:
        offsets: dict[str, int] = {}
        offset = self._file.seek(len(_HEAD))
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                offsets[json.loads(line)["question"]] = offset
            except (ValueError, KeyError, TypeError):
                break
            offset += len(line)
        if offset < self._file.seek(0, os.SEEK_END):
            self._file.truncate(offset)
        return offsets


def _encode(answer: Sequence[Continuation] | Scored | Judged) -> dict[str, Any]:
    if isinstance(answer, Judged):
        return {"chance": answer.chance, "tokens": answer.tokens}
    if isinstance(answer, Scored):
        scores = [None if np.isnan(s) else float(s) for s in answer.scores]
        return {"scores": scores, "tokens": answer.tokens, "unshared": answer.tokens_unshared}
    return {
        "continuations": [
            {
                "steps": [_encode_step(step) for step in c.steps],
                "finished": c.finished,
                "n_tokens": c.n_tokens,
                "truncated": c.truncated,
                "n_prompt_tokens": c.n_prompt_tokens,
            }
            for c in answer
        ]
    }


def _encode_step(step: Step) -> dict[str, Any]:
    return {name: value for name, value in asdict(step).items() if name == "text" or value != _STEP_DEFAULTS[name]}


def _decode_step(row: dict[str, Any]) -> Step:
    lists = {name: tuple(row[name]) for name in ("images", "tokens", "logprobs") if row.get(name) is not None}
    return Step(**{**row, **lists})


def _decode(row: dict[str, Any]) -> list[Continuation] | Scored | Judged:
    if "chance" in row:
        return Judged(float(row["chance"]), row["tokens"])
    if "scores" in row:
        scores = np.array([np.nan if s is None else s for s in row["scores"]], dtype=np.float64)
        return Scored(scores, row["tokens"], row["unshared"])
    return [Continuation(**{**c, "steps": tuple(map(_decode_step, c["steps"]))}) for c in row["continuations"]]
