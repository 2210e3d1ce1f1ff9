"""Step credit in prime-rl: an algorithm in place of one of its own.

    # entry script, before the orchestrator starts
    from stepreward.connect.engines.prime_rl import install
    install(StepCredit("pure", {"temperature": 0.1}))    # configurations with algo.type = "grpo" now get it

prime-rl has no hook for algorithms of others, and its configuration knows only the names of its own. Step rewards stand
in `trace.info["step_rewards"]`, as for verifiers. Needs prime-rl.
"""

from __future__ import annotations

from typing import Any

from prime_rl.orchestrator.algo import ALGORITHM_CLASSES  # type: ignore[import-not-found]
from prime_rl.orchestrator.algo.base import Algorithm, iter_trainable_traces  # type: ignore[import-not-found]
from prime_rl.orchestrator.algo.routing import assign_advantages  # type: ignore[import-not-found]

from stepreward.connect.engines.engine_rollouts import STEP_REWARDS, StepCredit
from stepreward.connect.engines.verifiers_traces import rollout_of


def step_algorithm(credit: StepCredit, key: str = STEP_REWARDS) -> type[Any]:
    """An algorithm of prime-rl that gives each step its credit.

    Args:
        credit: the method.
        key: where `trace.info` holds the step rewards.
    """

    class StepAlgorithm(Algorithm):  # type: ignore[misc]  # prime-rl is untyped here
        """Credit by steps, with the statistics of the cohort that prime-rl hands over."""

        async def score_group(self, episodes: list[Any]) -> None:
            """Writes advantages to the sampled tokens of all trainable traces."""
            traces = [trace for _, trace in iter_trainable_traces(episodes)]
            for trace, made in zip(traces, credit.by_token([rollout_of(one, key) for one in traces]), strict=True):
                assign_advantages(trace, made.tolist())

    return StepAlgorithm


def install(credit: StepCredit, *, name: str = "grpo", key: str = STEP_REWARDS) -> None:
    """Lets configurations that name one of prime-rl's algorithms get step credit.

    Args:
        credit: the method.
        name: of the algorithm that gives way; it must train on advantages (`grpo`, `max_rl`).
        key: where `trace.info` holds the step rewards.
    """
    ALGORITHM_CLASSES[name] = step_algorithm(credit, key)
