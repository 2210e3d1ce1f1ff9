"""What follows from formulas: by their models where those can be listed, by Z3 in a process of its own where not.

Monadic logic without equality cannot count: whether a formula can hold depends on which combinations of predicates
occur in the domain, which letters hold, and of which combination each named thing is. These models are listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import ModelError
from stepreward.core.optional import require_installed
from stepreward.core.sandbox.bounded import Bounded, Unbounded
from stepreward.tasks.logic import z3_child
from stepreward.tasks.logic.formulas import Formula, atoms

Answer = Literal["yes", "no", "vacuous", "unknown", "limit"]
MOST_MODELS = 1 << 16
"""Models that are listed; beyond them Z3 decides."""
SECONDS = 10.0
"""Time limit of one question to Z3."""
Truth = NDArray[np.bool_]
"""(M,) whether a formula holds in each model."""


def follows_from(premises: Sequence[Formula], conclusion: Formula) -> Answer:
    """Whether a formula follows from others.

    Args:
        premises: none for what holds always.
        conclusion: what is to follow.

    Returns:
        `vacuous` where the premises contradict each other, so that everything follows; `unknown` where the solver gives
        up, `limit` where it was ended at its limits of time and memory.

    Raises:
        ModelError: there are too many models to list, and Z3 is not installed.
    """
    every = (*premises, conclusion)
    if number_of_models(every) <= MOST_MODELS:
        return by_models(premises, conclusion)
    return by_z3(premises, conclusion)


def by_models(premises: Sequence[Formula], conclusion: Formula) -> Answer:
    """As `follows_from`, by listing all models, however many."""
    models = _Models((*premises, conclusion))
    held = reduce(np.logical_and, [models.truth(one) for one in premises], models.possible)
    if not held.any():
        return "vacuous"
    return "no" if (held & ~models.truth(conclusion)).any() else "yes"


def by_z3(premises: Sequence[Formula], conclusion: Formula) -> Answer:
    """As `follows_from`, by Z3 alone.

    Raises:
        ModelError: it is not installed.
    """
    require_installed("z3")
    try:
        made: Answer = _z3()({"premises": list(premises), "conclusion": conclusion, "seconds": SECONDS / 2})
    except Unbounded:
        return "limit"
    except ValueError as error:
        raise ModelError(f"Z3 failed: {error}") from error
    return made


@cache
def _z3() -> Bounded:
    return Bounded(z3_child.decide, seconds=SECONDS)


@dataclass(frozen=True)
class _Vocabulary:
    letters: tuple[str, ...]
    predicates: tuple[str, ...]
    things: tuple[str, ...]


def _names(formulas: Sequence[Formula]) -> _Vocabulary:
    found = [one for formula in formulas for one in atoms(formula)]
    letters = sorted({name for name, argument, _ in found if not argument})
    predicates = sorted({name for name, argument, _ in found if argument})
    things = sorted({argument for _, argument, bound in found if argument and not bound})
    return _Vocabulary(tuple(letters), tuple(predicates), tuple(things))


def number_of_models(formulas: Sequence[Formula]) -> int:
    """How many models there are to list."""
    names = _names(formulas)
    if len(names.predicates) > 4:
        return MOST_MODELS + 1
    kinds = 1 << len(names.predicates)
    domains = (1 << kinds) - 1 if names.predicates else 1
    return int(domains * kinds ** len(names.things) << len(names.letters))


class _Models:
    """All models of the names in some formulas, and what holds in each."""

    def __init__(self, formulas: Sequence[Formula]) -> None:
        names = _names(formulas)
        kinds = 1 << len(names.predicates)
        domains = (1 << kinds) - 1 if names.predicates else 1
        sizes = [domains, *(kinds for _ in names.things), *(2 for _ in names.letters)]
        digits = np.unravel_index(np.arange(int(np.prod(sizes))), sizes)
        self._predicate = {name: at for at, name in enumerate(names.predicates)}
        self._kinds = range(kinds)
        domain = digits[0] + 1
        self._occurs = [(domain >> kind) % 2 == 1 for kind in self._kinds]
        """(M,) of each combination of predicates, whether something is of it."""
        self._thing: Mapping[str, Any] = dict(zip(names.things, digits[1 : 1 + len(names.things)], strict=True))
        """(M,) the combination of each named thing."""
        self._letter = dict(zip(names.letters, digits[1 + len(names.things) :], strict=True))
        self.possible: Truth = np.ones(len(domain), bool)
        """(M,) whether each named thing is of a combination that occurs."""
        for kind in self._thing.values():
            self.possible &= (domain >> kind) % 2 == 1

    def truth(self, formula: Formula, bound: Mapping[str, int] | None = None) -> Truth:
        """Where a formula holds; `bound` has the combination of each variable."""
        kind, parts, given = formula[0], formula[1:], bound or {}
        if kind == "atom":
            if len(parts) == 1:
                return np.asarray(self._letter[parts[0]] == 1)
            what = given[parts[1]] if parts[1] in given else self._thing[parts[1]]
            held: Truth = np.broadcast_to((what >> self._predicate[parts[0]]) % 2 == 1, self.possible.shape)
            return held
        if kind == "~":
            return ~self.truth(parts[0], given)
        if kind in ("all", "some"):
            each = [(self._occurs[at], self.truth(parts[1], {**given, parts[0]: at})) for at in self._kinds]
            if kind == "all":
                return reduce(np.logical_and, [~occurs | holds for occurs, holds in each])
            return reduce(np.logical_or, [occurs & holds for occurs, holds in each])
        one, other = (self.truth(part, given) for part in parts)
        return {"->": ~one | other, "|": one | other, "&": one & other}[kind]
