"""Prefixes with names, so that caches and logs find a prefix without reading its steps again.

The name of a prefix is a digest of the shorter prefix's name and of the last step: names are equal iff all steps are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from stepreward.core.types import Step

Name = bytes
TOP: Name = b""
"""Name of the prefix without steps."""


def named(above: Name, what: object) -> Name:
    """Name of any object after the prefix of another name, by its `repr`."""
    return hashlib.blake2b(above + repr(what).encode(), digest_size=16).digest()


def below(name: Name, step: Step) -> Name:
    """Name of a step after the prefix of another name: equal steps after equal prefixes have equal names."""
    return named(name, step.identity)


class Prefix(tuple[Step, ...]):
    """Steps with the names of all their prefixes.

    Args:
        steps: from the problem on.
        names: of the first prefixes, as far as they are known.
    """

    names: tuple[Name, ...]
    """(S,) name of the prefix that ends with each step."""

    def __new__(cls, steps: Iterable[Step] = (), names: Sequence[Name] = ()) -> Prefix:
        made = super().__new__(cls, steps)
        known = list(names)
        for step in made[len(known) :]:
            known.append(below(known[-1] if known else TOP, step))
        made.names = tuple(known)
        return made

    @property
    def name(self) -> Name:
        """Name of the whole prefix."""
        return self.names[-1] if self.names else TOP

    def then(self, steps: Sequence[Step]) -> Prefix:
        """These steps and more behind them."""
        return Prefix((*self, *steps), self.names)

    def first(self, length: int) -> Prefix:
        """The first `length` steps."""
        return Prefix(self[:length], self.names[:length])


def prefix_of(steps: Sequence[Step]) -> Prefix:
    """The steps with names; hashed only where they have none yet."""
    return steps if isinstance(steps, Prefix) else Prefix(steps)
