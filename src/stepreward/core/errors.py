"""The errors that stepreward raises on purpose.

    SteprewardError
    |-- InputError        ValueError    a file, row or value of the user's is wrong
    |-- MissingDataError  ValueError    a method needs data that this batch does not have
    |-- UnknownNameError  LookupError   no method, checkpoint or format has that name
    |-- ModelError        RuntimeError  a model, tokenizer or checkpoint cannot do what the caller wants
    |-- PolicyError       RuntimeError  a policy or its server failed
    |-- EpisodeError      RuntimeError  an environment failed, or shows something else than it did before
    |-- StoreError        OSError       a folder or shard cannot be written or read
    |-- BudgetExhausted   RuntimeError  a flow needs more than its budget allows
    |-- ContractError     AssertionError  a policy, scorer, grader or method breaks a rule of its contract
    |-- HackedError       RuntimeError  a training was stopped, as its rewards look hacked
    `-- Unanswered        RuntimeError  some of a flow's questions could not be answered

Each inherits the root and the built-in error that a stranger would catch. A message says what was expected, what
came, where, and what to do. A failed rollout is data, never one of these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class SteprewardError(Exception):
    """Root of all errors raised on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By what it is, and not by another call of its constructor: workers send their errors to other processes.
        return _unpickled, (type(self), self.args, self.__dict__)


def _unpickled(kind: type[SteprewardError], args: tuple[Any, ...], state: dict[str, Any]) -> SteprewardError:
    made = kind.__new__(kind)
    made.args = args
    made.__dict__.update(state)
    return made


class InputError(SteprewardError, ValueError):
    """Tells the user which value of which row of which file is wrong, and what to do about it.

    Args:
        problem: what was expected and what came.
        source: file or server the value came from.
        row: 1-based line or row in the source.
        remedy: what to do.
    """

    def __init__(self, problem: str, *, source: object = None, row: int | None = None, remedy: str = "") -> None:
        where = "" if source is None else f"{source}" + ("" if row is None else f", row {row}") + ": "
        super().__init__(f"{where}{problem}" + (f"; {remedy}" if remedy else ""))
        self.problem, self.source, self.row, self.remedy = problem, source, row, remedy


class MissingDataError(SteprewardError, ValueError):
    """A method needs data by a name that the caller did not provide."""

    def __init__(
        self, method: str, missing: Iterable[str], present: Iterable[str], remedy: str = "pass what is missing by name"
    ) -> None:
        has = ", ".join(f"'{name}'" for name in sorted(present)) or "nothing"
        needs = ", ".join(f"'{name}'" for name in missing)
        super().__init__(f"{method} needs {needs}; this batch has {has}: {remedy}")


class UnknownNameError(SteprewardError, LookupError):
    """No entry of a table has this name; the closest ones are suggested, whatever their case.

    Args:
        kind: of what the table holds.
        name: the unknown name.
        known: names in the table.
        instead: names of entries that are meant, where that is known.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], instead: Iterable[str] = ()) -> None:
        names = sorted(known)
        cased = {known.lower(): known for known in names}
        close = list(instead) or [cased[known] for known in difflib.get_close_matches(name.lower(), cased, n=3)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
        super().__init__(f"no {kind} is called {name!r}; {hint}")


class ModelError(SteprewardError, RuntimeError):
    """A model, tokenizer or checkpoint cannot do what the caller wants."""


class PolicyError(SteprewardError, RuntimeError):
    """A policy, or the server behind it, failed after its retries."""


class EpisodeError(SteprewardError, RuntimeError):
    """An environment failed, or shows something else after the same actions than it did before."""


class ServerWarning(UserWarning):
    """A server answers, but not as the policy's settings suppose: what comes of it may be worth less than it looks."""


class IncompleteWarning(UserWarning):
    """Some rows could not be read, labelled, scored or searched; the others are there."""


class PluginWarning(UserWarning):
    """A plug-in of another package could not be loaded and is left out."""


class StoreError(SteprewardError, OSError):
    """A folder or shard cannot be written or read."""


class HackedError(SteprewardError, RuntimeError):
    """A training was stopped, as it looks as if the policy learns the faults of its step rewards."""


class BudgetExhausted(SteprewardError, RuntimeError):  # noqa: N818 - the end of a budget is an event, not a fault
    """A question would exceed the flow's budget; thrown into the flow, which may return what it has.

    Args:
        message: which budget.
        answers: to the questions that were under way, as far as they came: of a `Propose` that takes partial answers
            the continuations there are, of any other question None.
    """

    def __init__(self, message: str, answers: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.answers = list(answers)


class Unanswered(SteprewardError, RuntimeError):  # noqa: N818 - thrown into a flow that may go on without
    """Some samples of a question that takes partial answers could not be had; its cause is the fault.

    Thrown into the flow. One that does not catch it ends with the cause.

    Args:
        message: what failed.
        answers: as in `BudgetExhausted`.
    """

    def __init__(self, message: str, answers: Sequence[Any]) -> None:
        super().__init__(message)
        self.answers = list(answers)


class ContractError(SteprewardError, AssertionError):
    """An object breaks a rule of its contract; raised by the checks of `stepreward.testing`.

    Args:
        who: name of the object.
        rule: short name of the rule.
        found: what the object did.
        remedy: what its author should do.
    """

    def __init__(self, who: str, rule: str, found: str, remedy: str) -> None:
        super().__init__(f"{who} breaks the rule '{rule}': {found}; {remedy}")
        self.who, self.rule, self.found, self.remedy = who, rule, found, remedy
