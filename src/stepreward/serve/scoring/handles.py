"""Handles of scored prefixes: parts that solutions share are kept once, within a limit of memory."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepreward.core.types import Problem, Step
from stepreward.serve.requests.http_errors import ApiError

_PART = 200
"""Bytes of a part beside its text and scores: the object, its key, and its place in a table."""
_HANDLE = 200
"""Bytes of a handle: its name, and its place in a table."""


class ScoredPart:
    """A problem, or steps that were scored together, with a link to the part before them.

    Args:
        before: the part before; None for a problem.
        said: the problem or the steps, as JSON.
        scores: one a step, as bytes of float64.
        key: equal for equal parts after equal parts.
    """

    __slots__ = ("before", "key", "said", "scores", "uses")

    def __init__(self, before: ScoredPart | None, said: bytes, scores: bytes, key: bytes) -> None:
        self.before, self.said, self.scores, self.key = before, said, scores, key
        self.uses = 0
        """Handles and parts that link to it."""

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return _PART + sys.getsizeof(self.said) + sys.getsizeof(self.scores)


@dataclass(frozen=True)
class ScoredPrefix:
    """The scored steps of a solution so far."""

    problem: Problem
    steps: tuple[Step, ...] = ()
    scores: tuple[float, ...] = ()
    part: ScoredPart | None = None
    """Where it is kept; None where it is not."""


class Prefixes:
    """A cache of handles within a limit of bytes; the least recently used are removed first.

    A handle cannot be guessed. A client may continue from one handle many times, with solutions that share its prefix:
    each handle stores its new steps and a link to the part before them, and equal parts are stored once.

    Args:
        most: bytes.
    """

    def __init__(self, most: int = 64 << 20) -> None:
        self.most, self.size = most, 0
        self._kept: OrderedDict[str, ScoredPart] = OrderedDict()
        self._parts: dict[bytes, ScoredPart] = {}

    def put(self, before: ScoredPrefix, steps: Sequence[Step], scores: Sequence[float]) -> str:
        """The handle of a prefix.

        Args:
            before: what the steps follow.
            steps: those that are new.
            scores: theirs.
        """
        problem = before.problem
        asked = [problem.id, problem.prompt, dict(problem.meta), problem.reference]
        root = before.part or self._part(None, _said(asked), b"")
        # While the steps were scored, the part may have been removed, and an equal one stored.
        root = self._parts.get(root.key, root)
        # A step of defaults is its text alone, which most are.
        said = _said([[s.text, s.kind, s.role, s.agent] if s != Step(s.text) else [s.text] for s in steps])
        handle, part = f"prefix-{secrets.token_urlsafe(18)}", self._part(root, said, array("d", scores).tobytes())
        self._kept[handle] = part
        self._hold(part)
        self.size += _HANDLE
        # The handle just made stays, however large: its client would otherwise get one that is gone already.
        while self.size > self.most and len(self._kept) > 1:
            self._release(self._kept.popitem(last=False)[1])
            self.size -= _HANDLE
        return handle

    def get(self, handle: str) -> ScoredPrefix:
        """The prefix of a handle.

        Raises:
            ApiError: 404, it is not, or no longer, known.
        """
        if handle not in self._kept:
            raise ApiError(404, "this prefix is not kept: send the problem and all steps", param="prefix", code="gone")
        self._kept.move_to_end(handle)
        part = self._kept[handle]
        chain = [part]
        while chain[-1].before is not None:
            chain.append(chain[-1].before)
        root, *own = reversed(chain)
        steps = tuple(Step(*one) for each in own for one in json.loads(each.said))
        scores = tuple(score for each in own for score in array("d", each.scores))
        name, prompt, meta, reference = json.loads(root.said)
        problem = Problem(name, prompt if isinstance(prompt, str) else tuple(prompt), reference, meta)
        return ScoredPrefix(problem, steps, scores, part)

    def _part(self, before: ScoredPart | None, said: bytes, scores: bytes) -> ScoredPart:
        """The part with this content, kept or new."""
        key = hashlib.blake2b(b"" if before is None else before.key, digest_size=16)
        key.update(hashlib.blake2b(said, digest_size=16).digest() + scores)
        return self._parts.get(key.digest()) or ScoredPart(before, said, scores, key.digest())

    def _hold(self, part: ScoredPart | None) -> None:
        """Counts a new link to a part; the first link stores the part, which links to the part before it."""
        while part is not None:
            part.uses += 1
            if part.uses > 1:
                return
            self.size += part.size
            self._parts[part.key] = part
            if part.before is not None:
                # As above: the link must be to the part that is stored.
                part.before = self._parts.get(part.before.key, part.before)
            part = part.before

    def _release(self, part: ScoredPart | None) -> None:
        """Counts one link less to a part; a part without links is deleted."""
        while part is not None:
            part.uses -= 1
            if part.uses:
                return
            self.size -= part.size
            del self._parts[part.key]
            part = part.before


def _said(what: Any) -> bytes:
    """JSON as bytes; half a surrogate pair, which a client may send, survives."""
    return json.dumps(what, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
