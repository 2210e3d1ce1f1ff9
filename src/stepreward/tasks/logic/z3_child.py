"""The part of `tasks.logic.consequence` that runs in a worker process: no signal of Python interrupts a call of Z3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepreward.core.optional import Deferred

z3: Any = Deferred("z3")


def decide(job: Mapping[str, Any]) -> str:
    """Whether a formula follows from others.

    Args:
        job: `premises` and `conclusion`, trees of `tasks.logic.formulas` as lists, and `seconds`.

    Returns:
        `yes`, `no`, `vacuous` where the premises contradict each other, or `unknown`.
    """
    z3.set_param("smt.random_seed", 0)
    names = _Symbols()
    solver = z3.Solver()
    solver.set("timeout", int(1000 * job["seconds"]))
    solver.add(*(names.formula(one, {}) for one in job["premises"]))
    alone = solver.check()
    if alone == z3.unsat:
        return "vacuous"
    solver.add(z3.Not(names.formula(job["conclusion"], {})))
    both = solver.check()
    # A solver that gives up has said nothing, of the premises either.
    if z3.unknown in (alone, both):
        return "unknown"
    return "yes" if both == z3.unsat else "no"


class _Symbols:
    """Z3's objects of names, in a sort of things that nothing is known of."""

    def __init__(self) -> None:
        self._sort = z3.DeclareSort("Thing")

    def formula(self, tree: Any, bound: Mapping[str, Any]) -> Any:
        kind, *parts = tree
        if kind == "atom":
            name, *argument = parts
            if not argument:
                return z3.Bool(f"letter {name}")
            thing = bound.get(argument[0])
            thing = z3.Const(f"thing {argument[0]}", self._sort) if thing is None else thing
            return z3.Function(f"predicate {name}", self._sort, z3.BoolSort())(thing)
        if kind in ("all", "some"):
            variable = z3.Const(f"variable {len(bound)} {parts[0]}", self._sort)
            inner = self.formula(parts[1], {**bound, parts[0]: variable})
            return z3.ForAll([variable], inner) if kind == "all" else z3.Exists([variable], inner)
        made = [self.formula(part, bound) for part in parts]
        return {"~": z3.Not, "->": z3.Implies, "|": z3.Or, "&": z3.And}[kind](*made)
