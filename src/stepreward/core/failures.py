"""What could not be read, labelled, scored or searched: counted and named, and no reason to lose the rest."""

from __future__ import annotations

import warnings
from typing import TypeAlias

from stepreward.core.errors import IncompleteWarning, InputError, SteprewardError

Failure: TypeAlias = tuple[str, Exception]
"""The name of what failed (a problem's id, a row of a file; "" where the error says it) and its error."""


MOST_KEPT = 10_000
"""Errors that are kept: a file may have more bad rows than memory holds."""


class Failures(list[Failure]):
    """What failed; where that is very much, the errors of the first."""

    more = 0
    """Failures whose errors are not here."""

    @property
    def total(self) -> int:
        """Number of all failures."""
        return len(self) + self.more

    def add(self, one: Failure) -> None:
        """Keeps a failure, or counts it where too many are kept."""
        if len(self) < MOST_KEPT:
            self.append(one)
        else:
            self.more += 1

    def join(self, other: Failures) -> None:
        """Adds those of another list."""
        self += other
        self.more += other.more

    def refuse(self, what: str) -> None:
        """Ends strict work with the first failure, if there is one.

        Args:
            what: what could not be done, such as "could not be labelled".

        Raises:
            SteprewardError: there is one.
        """
        for name, error in self:
            raise SteprewardError(f"{name} {what}: {error}" if name else str(error)) from error


def shown_failure(failure: Failure) -> str:
    """A failure in one line; an error that names its row needs no other name."""
    name, error = failure
    located = isinstance(error, InputError) and error.row is not None
    return str(error) if located or not name else f"{name}: {error}"


def warn_of_failures(failed: Failures, what: str) -> None:
    """Warns once of all that failed: how many, and the first by name and error.

    Args:
        failed: what failed.
        what: what could not be done, such as "could not be labelled".
    """
    if failed:
        name, error = failed[0]
        warnings.warn(f"{failed.total:,} {what}, {name} first: {error}", IncompleteWarning, stacklevel=3)
