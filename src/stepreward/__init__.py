"""stepreward: label, train, score, search, credit, evaluate and serve process rewards.

    import stepreward
    stepreward.load("tool").score("1 + 1 = ?", ["1 + 1 = 2"])

Nouns are `Problem`, `Step`, `Trajectory`, `StepTree`, `Key`; verbs are functions that take a path, an address or an
object alike. `stepreward.score` is both: the folder of that name, and the verb when it is called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stepreward.core.keys import Key
from stepreward.core.on_demand import on_demand
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Step, Trajectory

if TYPE_CHECKING:  # imported at the first use: some of them load torch or scipy
    import stepreward.testing as testing
    from stepreward.core.catalog import families as methods
    from stepreward.pipeline.compose import compose
    from stepreward.pipeline.export_model import export
    from stepreward.score.monitor.run_monitor import Monitor
    from stepreward.verbs.compare_agents import compare_agents
    from stepreward.verbs.credit_steps import credit
    from stepreward.verbs.evaluate_scorer import evaluate
    from stepreward.verbs.label_rows import label
    from stepreward.verbs.monitor_runs import evaluate_monitor, fit_monitor
    from stepreward.verbs.names import grader, load, policy
    from stepreward.verbs.read_rows import read, write
    from stepreward.verbs.score_logs import score_log
    from stepreward.verbs.score_rows import score
    from stepreward.verbs.search_problems import search
    from stepreward.verbs.serve_models import serve
    from stepreward.verbs.train_in_rounds import rounds
    from stepreward.verbs.train_model import train
    from stepreward.verbs.view_run import view

__all__ = [
    "Key", "Monitor", "Problem", "Provenance", "Step", "StepTree", "Trajectory", "compare_agents", "compose", "credit",
    "evaluate", "evaluate_monitor", "export", "fit_monitor", "grader", "label", "load", "methods", "policy", "read",
    "rounds", "score", "score_log", "search", "serve", "testing", "train", "view", "write",
]  # fmt: skip
__version__ = "0.1.0"

_imported = on_demand(__file__)


if not TYPE_CHECKING:  # a type checker then refuses names that are not above

    def __getattr__(name: str) -> Any:
        """Imports a noun or verb at its first use."""
        found = _imported(name)
        # Its import may have bound the folder of that name, which can be called too: one object for both.
        return sys.modules.get(f"{__name__}.{name}", found)


def __dir__() -> list[str]:
    """Every public name, those that are not imported yet among them."""
    return [*__all__, "__version__"]


class _Verb(ModuleType):
    """The folder of a verb's code, which is called as the verb."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _imported(self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """This package: folders with the name of a verb can be called, whichever way they were imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in __all__ and name != "testing":
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
