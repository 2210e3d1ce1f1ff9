"""A problem whose solution is known, and what says that an outcome is another."""

from __future__ import annotations

from stepreward.core.types import Problem, Step

SUM = Problem("doctor", "Mia has 12 apples. Mia buys 5 more. How many apples does Mia have now?", reference="17")
RIGHT, WRONG, ANSWER = Step("12 + 5 = 17\n"), Step("12 + 5 = 18\n"), Step("Answer: 17\n")


class WrongError(Exception):
    """The outcome of a trial is not the known one."""


def expect(outcome: object, known: object) -> None:
    """Compares an outcome with the known one.

    Raises:
        WrongError: they differ.
    """
    if outcome != known:
        raise WrongError(f"the outcome is {outcome!r}, not {known!r}")
