"""Which searches a server can run with the parts that it has."""

from __future__ import annotations

from typing import Any

from stepreward.core.catalog import Method
from stepreward.core.catalog import search as searches
from stepreward.core.runtime.flows import Policy
from stepreward.policies.expert import WithExpert
from stepreward.policies.local import LocalPolicy
from stepreward.serve.service import Served


def writer(policy: Policy | None) -> Policy | None:
    """The policy that is asked first, where there is a stronger one beside it."""
    return policy.policy if isinstance(policy, WithExpert) else policy


def parts_of(served: Served) -> set[str]:
    """What a server has of that which searches ask for, in words of `core.catalog.ASKS`.

    A policy is taken to follow requests in words, and does what a stronger one would where there is none.
    """
    policy = writer(served.policy)
    there = {who for who in ("policy", "scorer", "judge", "grader") if getattr(served, who) is not None}
    if policy is not None:
        there |= {"expert", "instructions"}
        there |= {told for told in ("logprobs", "self_certainty") if getattr(policy, told, False)}
    return there | ({"logprobs"} if isinstance(policy, LocalPolicy) else set())


def possible(served: Served) -> list[Method[..., Any]]:
    """The searches that a server can run."""
    there = parts_of(served)
    return [method for method in searches if there.issuperset(method.asks)]
