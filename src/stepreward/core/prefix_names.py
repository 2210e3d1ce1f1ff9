"""Prefixes: steps that know the names of the places they lead to, so that nothing is read again from the problem on.

The name of a place is a digest of the name above it and of the step between them: equal iff all steps up to it are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from stepreward.core.types import Step

Name = bytes
TOP: Name = b""
"""Name of the place without steps."""


def named(above: Name, what: object) -> Name:
    """Name of any object after the prefix of another name, by its `repr`."""
    return hashlib.blake2b(above + repr(what).encode(), digest_size=16).digest()


def below(name: Name, step: Step) -> Name:
    """Name of a step after the prefix of another name: equal steps after equal prefixes have equal names."""
    return named(name, step.identity)


class Prefix(tuple[Step, ...]):
    """Steps with the names of all places on their way.

    Args:
        steps: from the problem on.
        names: of the first of them, as far as they are known.
    """

    names: tuple[Name, ...]
    """(S,) name of the place behind each step."""

    def __new__(cls, steps: Iterable[Step] = (), names: Sequence[Name] = ()) -> Prefix:
        made = super().__new__(cls, steps)
        known = list(names)
        for step in made[len(known) :]:
            known.append(below(known[-1] if known else TOP, step))
        made.names = tuple(known)
        return made

    @property
    def name(self) -> Name:
        """Name of the place where they end."""
        return self.names[-1] if self.names else TOP

    def then(self, steps: Sequence[Step]) -> Prefix:
        """These steps and more behind them."""
        return Prefix((*self, *steps), self.names)

    def first(self, length: int) -> Prefix:
        """The first `length` steps."""
        return Prefix(self[:length], self.names[:length])


def prefix_of(steps: Sequence[Step]) -> Prefix:
    """The steps with names; read from the first one only where they have none yet."""
    return steps if isinstance(steps, Prefix) else Prefix(steps)
