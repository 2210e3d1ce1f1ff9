"""Graders by name: those of this package, and those of plug-ins."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.plugins import Plugin, PluginRegistry
from stepreward.core.runtime.flows import Grader
from stepreward.tasks.arithmetic_truth import ArithmeticGrader
from stepreward.tasks.generated.calculations import CalculationGrader
from stepreward.tasks.generated.reasoning_gym_tasks import ReasoningGymGrader
from stepreward.tasks.generated.satisfiability import SatGrader
from stepreward.tasks.logic.proofs import LogicGrader
from stepreward.tasks.mathematics import MathGrader
from stepreward.tasks.unit_tests import UnitTestGrader


def _of_plugin(plugin: Plugin) -> dict[str, Callable[[], Grader]]:
    maker = plugin.load()
    if not callable(maker):
        raise InputError(
            f"expected a class or function that makes a grader, got {plugin.point.value}, a {type(maker).__name__}",
            remedy="name a class or function without arguments",
        )
    return {plugin.name: maker}


graders: Mapping[str, Callable[[], Grader]] = PluginRegistry(
    lambda: {
        "mathematics": MathGrader, "arithmetic": ArithmeticGrader, "unit-tests": UnitTestGrader, "logic": LogicGrader,
        "sat": SatGrader, "calculation": CalculationGrader, "reasoning-gym": ReasoningGymGrader,
    },
    "stepreward.graders", _of_plugin,
)  # fmt: skip
"""What makes each grader, by name."""


def grader_by_name(name: str) -> Grader:
    """An outcome grader.

    Raises:
        UnknownNameError: there is none of that name.
        InputError: what a plug-in makes is no grader.
    """
    if name not in graders:
        raise UnknownNameError("grader", name, graders)
    grader = graders[name]()
    missing = [part for part in ("name", "grade", "answer") if not hasattr(grader, part)]
    if missing:
        raise InputError(f"{type(grader).__name__} has no {missing[0]}", remedy="see `core.runtime.flows.Grader`")
    return grader
