"""What works with which RL engine, in which version, and how that was tested: data of a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Tested = Literal["released package", "stand-in"]


@dataclass(frozen=True, slots=True)
class RLEngine:
    """An engine of RL and what its adapter does."""

    name: str
    """Of the engine; after a comma, what the row is about where others are of the same one."""
    version: str
    """The version, or the commit, whose package or source the adapter was written to."""
    adapter: str
    """Its module below `connect`."""
    hook: str
    """Where the engine lets others in."""
    rewards: str
    """How step rewards come to the credit method."""
    advantages: str
    """What they become."""
    tested: Tested
    tests: str
    """The file that tests it, below `tests/connect`, and how its tests' names begin."""
    lacks: str
    """What does not work, and what was not tried."""


ENGINES: tuple[RLEngine, ...] = (
    RLEngine(
        "TRL", "1.16.0", "trl", "subclass of `GRPOTrainer`", "any scorer, function, environment or `rollout_func`",
        "tokens", "released package", "test_trl.py::test_",
        "its RLOO and asynchronous trainers",
    ),
    RLEngine(
        "TRL, groups that are trees", "1.16.0", "trl_trees", "`rollout_func`", "as above, and what lies below a step",
        "tokens; a shared one for each solution, or once", "released package", "test_trl_trees.py::test_",
        "sampling by vLLM; groups parted over processes; images",
    ),
    RLEngine(
        "verl", "0.9.1", "verl", "`verl.plugins` and `register_adv_est`", "`StepRewardManager`, or dense `rm_scores`",
        "tokens", "released package", "test_verl_release.py::test_",
        "data of samples only under `adv_estimator=gdpo`; no training was run",
    ),
    RLEngine(
        "SkyRL", "0.3.0", "engines.skyrl", "`AdvantageEstimatorRegistry`", "rewards of tokens by its generators",
        "tokens", "released package", "engines/test_releases.py::test_skyrl",
        "step-wise mode drops step rewards; no training was run",
    ),
    RLEngine(
        "verifiers", "0.4.0", "engines.verifiers_traces", "`MessageNode.advantages`", "`trace.info`",
        "sampled tokens", "released package", "engines/test_releases.py::test_verifiers",
        "-",
    ),
    RLEngine(
        "OpenEnv", "0.10.0", "engines.openenv", "`TrajectoryRubric`", "any scorer",
        "none: gives rewards", "released package", "engines/test_releases.py::test_openenv",
        "it sends one reward a step, and calls `compute_step_rewards` nowhere",
    ),
    RLEngine(
        "OpenRLHF", "0.11.0", "engines.openrlhf", "agent class and `RemoteExperienceMaker`",
        "`extra_logs` of the last turn", "tokens", "released package", "engines/test_releases.py::test_openrlhf",
        "turns need a token of the environment between them; DeepSpeed and FlashAttention hollow; no training was run",
    ),
    RLEngine(
        "AReaL", "1.0.4", "engines.areal", "`set_reward` of an interaction", "lists, one a rollout",
        "interactions", "released package", "engines/test_releases.py::test_areal",
        "whole-trajectory training, which has one score a sequence; only its cache was run",
    ),
    RLEngine(
        "prime-rl", "0.8.0 (559b447)", "engines.prime_rl", "`ALGORITHM_CLASSES`", "`trace.info`",
        "sampled tokens", "stand-in", "engines/test_standins.py::test_prime_rl",
        "it has no hook for others: an algorithm of its own gives way",
    ),
    RLEngine(
        "slime", "0.3.1 (624b824)", "engines.slime", "two functions by path", "`sample.metadata`",
        "tokens", "stand-in", "engines/test_standins.py::test_slime",
        "context parallelism",
    ),
    RLEngine(
        "rLLM", "0.3.0.pre (9beb6e0)", "engines.rllm", "`traj_grouping_hook`", "`step.reward` or `step.info`",
        "tokens", "stand-in", "engines/test_standins.py::test_rllm",
        "its verl backend, and filters of uniform groups in the asynchronous buffer",
    ),
    RLEngine(
        "NeMo-Gym", "0.5.1 (07d6b0d)", "engines.nemo_gym", "subclass of a `GymnasiumServer`", "any scorer",
        "none: gives rewards", "stand-in", "engines/test_standins.py::test_nemo_gym",
        "its trainers read the sum of an episode",
    ),
    RLEngine(
        "Agent Lightning", "1.0.0 (c632d8d)", "engines.agent_lightning", "`RolloutHooks` and the training batch",
        "any scorer", "rows: rewards of calls", "stand-in", "engines/test_standins.py::test_agent_lightning",
        "advantages are of verl's estimators over rows",
    ),
    RLEngine(
        "ROLL", "8eb27cc2", "engines.roll", "`compute_response_level_rewards`", "`step_scores` of its environments",
        "rows of steps", "stand-in", "engines/test_standins.py::test_roll",
        "-",
    ),
)  # fmt: skip
"""Engines whose released package runs here first."""


def engines_table() -> Iterator[str]:
    """The lines of a table in Markdown, one an engine."""
    yield "| engine | version | adapter | hook | step rewards from | advantages on | tested on | not there, not tried |"
    yield "|" + "---|" * 8
    for one in ENGINES:
        cells = (one.name, one.version, f"`connect.{one.adapter}`", one.hook, one.rewards, one.advantages)
        yield f"| {' | '.join(cells)} | {one.tested} | {one.lacks} |"
