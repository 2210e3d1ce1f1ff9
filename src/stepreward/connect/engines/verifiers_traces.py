"""Step credit in verifiers: traces of its version 1 to rollouts, and advantages onto their nodes.

    from stepreward.connect.engines.verifiers_traces import assign
    assign(traces, StepCredit("step-rloo"))    # node.advantages of every sampled node

A step is a message that the model sampled. Its reward stands in `trace.info["step_rewards"]`, one a sampled message,
which a method of the task that is marked as reward or metric writes. Needs no import of verifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepreward.connect.engines.engine_rollouts import (
    STEP_REWARDS,
    EngineRollout,
    Number,
    StepCredit,
    read_rewards,
    spread,
)
from stepreward.formats.samples.step_rewards import tiles


def sampled_nodes(trace: Any) -> list[Any]:
    """The messages that the model sampled, in the order of the trace's nodes."""
    return [node for node in trace.nodes if any(node.mask)]


def rollout_of(trace: Any, key: str = STEP_REWARDS) -> EngineRollout:
    """A trace as a rollout; its response is the sampled tokens, one message after another.

    Args:
        trace: of verifiers 1.
        key: where `trace.info` holds the step rewards.
    """
    spans = tiles(sum(node.mask) for node in sampled_nodes(trace))
    task = trace.task
    group = task.key or task.hash or str(getattr(task.data, "idx", trace.id))
    rewards = read_rewards(trace.info, key, len(spans))
    return EngineRollout(group, rewards, outcome_of(trace), spans, spans[-1][1] if spans else 0)


def outcome_of(trace: Any) -> Number:
    """The sum of the weighted rewards; None where one was not computed, or there is none."""
    rewards = list(trace.rewards.values())
    return None if not rewards or None in rewards else float(sum(one.value for one in rewards))


def assign(traces: Sequence[Any], credit: StepCredit, key: str = STEP_REWARDS) -> None:
    """Writes the advantages of its step to each sampled token of every trace; groups are tasks."""
    rollouts = [rollout_of(trace, key) for trace in traces]
    for trace, rollout, made in zip(traces, rollouts, credit(rollouts), strict=True):
        by_token = spread(rollout, made).tolist()
        for node, (start, end) in zip(sampled_nodes(trace), rollout.spans, strict=True):
            node.advantages = by_token[start:end]
