"""Which of two solutions is better by several facts, the most important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.types import Floats


@dataclass(frozen=True)
class Factor:
    """A fact of solutions that decides pairs."""

    name: str
    """The fact; `outcome` is the outcome."""
    margin: float = 0.0
    """Differences up to it leave a pair to the next factor."""
    lower: bool = False
    """Whether less is better."""

    @classmethod
    def parse(cls, text: str) -> Factor:
        """Reads `NAME`, `NAME:MARGIN`, and with a minus before it where less is better.

        Raises:
            InputError: it is none of these.
        """
        name, _, margin = text.removeprefix("-").partition(":")
        try:
            made = cls(name, float(margin or 0), text.startswith("-"))
        except ValueError:
            made = cls("")
        if not made.name or not 0 <= made.margin < np.inf:
            raise InputError(f"{text!r} is no factor", remedy="write a fact such as passed, -tokens or helpfulness:0.5")
        return made


def better_by(factors: Sequence[Factor], values: Sequence[Floats]) -> NDArray[np.bool_]:
    """(B, B) whether a solution is better than another: by the first factor that decides (HERON).

    The relation need not be transitive where there are margins. A factor that is NaN for one of both does not decide.

    Args:
        factors: the most important first.
        values: (B,) of each factor.
    """
    n = len(values[0]) if values else 0
    better, open_ = np.zeros((n, n), bool), np.ones((n, n), bool)
    for factor, value in zip(factors, values, strict=True):
        gain = (value[:, None] - value) * (-1 if factor.lower else 1)
        clear = open_ & (np.abs(gain) > factor.margin)
        better |= clear & (gain > 0)
        open_ &= ~clear
    return better
