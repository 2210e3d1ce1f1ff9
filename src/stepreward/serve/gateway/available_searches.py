"""Which searches a server can run with the parts that it has."""

from __future__ import annotations

from typing import Any

from stepreward.core.catalog import search as searches
from stepreward.core.method import Method
from stepreward.core.runtime.flows import measured_by
from stepreward.serve.service import Served


def parts_of(served: Served) -> frozenset[str]:
    """The needs of searches that a server meets, in words of `core.vocabulary.ASKS`.

    Its policy is assumed to follow instructions, and serves as the expert where there is none.
    """
    parts = {"policy": served.policy, "scorer": served.scorer, "judge": served.judge, "grader": served.grader}
    there = frozenset(name for name, part in parts.items() if part is not None)
    if served.policy is None:
        return there
    return there | {"expert", "instructions"} | measured_by(served.policy)


def possible(served: Served) -> list[Method[..., Any]]:
    """The searches that a server can run."""
    there = parts_of(served)
    return [method for method in searches if there.issuperset(method.asks)]
