"""Step credit in AReaL: an interaction is a step, and its reward becomes its advantage.

    clients = [ArealOpenAI(...) for _ in range(group_size)]     # one a rollout of the same problem
    ...                                                         # run the agents, score their interactions
    reward_interactions(clients, outcomes, step_rewards, StepCredit("step-rloo"))
    rows = [client.export_interactions(style="individual") for client in clients]

Rewards are centred here, so switch AReaL's own normalisation and discount off (`reward_norm`, `adv_norm` to none, no
`apply_reward_discount`): each interaction is then a row whose tokens get its advantage. Needs no import of AReaL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepreward.connect.engines.engine_rollouts import EngineRollout, Number, StepCredit
from stepreward.core.errors import InputError
from stepreward.formats.samples.step_rewards import tiles


def interactions_of(client: Any) -> Mapping[str, Any]:
    """The interactions of a client, or of its cache, by id in the order in which they were made."""
    made: Mapping[str, Any] = getattr(client, "_cache", client)
    return made


def rollout_of(client: Any, group: str | int, outcome: Number, rewards: Sequence[Number]) -> EngineRollout:
    """A client's interactions as a rollout, one step each."""
    spans = tiles(_tokens(one) for one in interactions_of(client).values())
    return EngineRollout(group, rewards, outcome, spans, spans[-1][1] if spans else 0)


def _tokens(interaction: Any) -> int:
    """Tokens that the model wrote; 1 where the client keeps none."""
    answer = interaction.model_response
    return 1 if answer is None else len(answer.output_tokens)


def reward_interactions(
    clients: Sequence[Any],
    outcomes: Sequence[Number],
    step_rewards: Sequence[Sequence[Number]],
    credit: StepCredit,
    groups: Sequence[str | int] | None = None,
) -> None:
    """Sets the reward of every interaction to its advantage.

    Args:
        clients: of the rollouts, or their caches.
        outcomes: raw reward of each rollout.
        step_rewards: of each rollout's interactions, in order.
        credit: the method.
        groups: the rollouts' problems; one problem where None.

    Raises:
        InputError: the numbers of rollouts, or of rewards and interactions, differ.
    """
    names = [0] * len(clients) if groups is None else groups
    if not len(clients) == len(outcomes) == len(step_rewards) == len(names):
        raise InputError(f"{len(clients)} clients, {len(outcomes)} outcomes, {len(step_rewards)} lists of rewards")
    rollouts = [rollout_of(*one) for one in zip(clients, names, outcomes, step_rewards, strict=True)]
    for client, made in zip(clients, credit(rollouts), strict=True):
        for name, advantage in zip(interactions_of(client), made.tolist(), strict=True):
            client.set_reward(name, advantage)
