"""Checks for authors of policies, scorers, graders, environments and methods, and small worlds whose truth is known.

Each check calls an object by its contract and raises `ContractError`, an AssertionError that names the broken rule and
the remedy:

    from stepreward.testing import check_policy
    check_policy(MyPolicy(), problem)

`ScriptedPolicy` and `TabularPolicy` answer searches and estimators in milliseconds; `EnumerableWorld` knows the exact
value of every prefix.
"""

from __future__ import annotations

from stepreward.core.errors import ContractError
from stepreward.policies.scripted import ScriptedPolicy
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.enumerable import EnumerableWorld
from stepreward.testing.check_environment import check_environment
from stepreward.testing.check_grader import check_grader
from stepreward.testing.check_method import check_method
from stepreward.testing.check_policy import check_policy
from stepreward.testing.check_scorer import check_scorer

__all__ = [
    "ContractError",
    "EnumerableWorld",
    "ScriptedPolicy",
    "TabularPolicy",
    "check_environment",
    "check_grader",
    "check_method",
    "check_policy",
    "check_scorer",
]
