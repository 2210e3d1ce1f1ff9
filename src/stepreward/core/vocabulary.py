"""The names of the data that methods take, and of what flows need beside data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Annotated

DATA: Mapping[str, str] = {
    "text": "str, the text of a solution",
    "problem": "Problem",
    "trajectory": "Trajectory",
    "trajectories": "list of Trajectory",
    "tree": "StepTree",
    "key": "Key, the randomness of the call",
    "labels": "(B, S) step labels in [0, 1]",
    "others": "a second source of labels for the same trajectories",
    "logits": "(B, S) raw outputs of a reward model",
    "outputs": "(B, S, K) raw outputs of a reward model with several outputs a step",
    "ends": "(B, K) its outputs at each trajectory's last step",
    "targets": "(B, S, K) what each output should be",
    "cells": "(B, S) number of the cell that each step is in",
    "judged": "(B, S) probability that a step is right, by an untrained model",
    "remaining": "(B, S) tokens of each trajectory behind each step",
    "draws": "(B, K) a random number in [0, 1) of each problem for each output",
    "pairs": "(P, 2) rows of a better and of a worse trajectory",
    "log_weights": "(B,) wanted log-weight of each trajectory among those of its problem",
    "strength": "(P,) how clear each preference is",
    "siblings": "(P, 4) row and step of a better step, row and step of a worse one behind the same prefix",
    "gap": "(P,) how much better it is",
    "annotator": "(P,) number of the annotator of each pair, -1 where unknown",
    "features": "(B, S, H) what the last layer of the head reads at each step",
    "views": "(B, S, H) the same of another pass",
    "slopes": "(B, S) length of the weights by which that layer makes a number of them",
    "lagging_outputs": "(B, S, K) outputs of a copy of the model whose weights lag behind",
    "lagging_logits": "(B, S) logits of that copy",
    "lagging_features": "(B, S, H) features of that copy",
    "users": "(P, K) numbers of each pair's annotator, which are learned with the model",
    "latents": "(P, 2 K) mean and log-variance of what other pairs of the same annotator say of them",
    "token_rewards": "(B, L) beta times the log-ratio of each token of a trajectory's steps",
    "token_values": "(B, L) what the head said of each token of a trajectory's steps before it came",
    "token_targets": "(B, L) what it should have said",
    "guide": "(B, L) another log-ratio of each token, which weighs it",
    "scores": "(B, S) step scores",
    "values": "(N,) value before each step",
    "outcome": "(B,) outcomes",
    "mask": "(B, S), True where a step is real",
    "group": "(B,) problem index",
    "answers": "(B,) final answers as integer ids, equal within a problem iff the answers are equal, -1 for none",
    "totals": "(B,) one score a trajectory",
    "steps": "tuple of Step",
    "state": "(N,) identity of the state before each step",
    "entropy": "(N,) mean entropy of the policy over each step's tokens",
    "rewards": "(N,) step rewards, one trajectory after another; (B, S) in training",
    "offsets": "(B + 1,) where each trajectory's steps begin and end in flat arrays",
    "lengths": "(N,) tokens of each step",
    "prior": "(B,) mean probability of the reference answer without any reasoning",
    "difficulty": "(B,) how hard each trajectory's problem is",
    "components": "(B, C) parts of the outcome reward",
    "references": "(B, M) rewards of reference answers to each trajectory's prompt, NaN where there are fewer",
    "node": "(N,) identity of the prefix that ends with each step: equal in a group iff all its steps are",
    "edge": "(N,) identity of state and action of each step",
    "root": "(B,) tree of each trajectory, where a problem has several",
    "turn": "(N,) turn of each step; a new turn begins where it changes",
    "place": "(N,) number of each step in its trajectory, derived from offsets",
    "action_values": "(N,) value of each step's action in its state",
    "duration": "(N,) time or work of each step",
    "said": "(N,) identity of each step's words",
    "agent": "(N,) identity of who acts",
    "grounding": "(N,) 1 where a step's action could be executed, else 0",
    "parent": "(n,) parent of each node",
    "weights": "weights of steps or trajectories",
    "scorer": "Scorer",
    "data": "rows of a benchmark",
    "open_policy": "makes a policy of an address",
    "open_environment": "makes the episodes of an environment of an address",
}
"""The closed vocabulary of data that a method may take."""


ASKS: Mapping[str, str] = {
    "policy": "a policy",
    "grader": "a grader, which reads answers",
    "scorer": "a reward model",
    "judge": "a judge of pairs",
    "expert": "a stronger policy",
    "instructions": "a policy that follows requests in words",
    "logprobs": "a policy that reports log-probabilities",
    "self_certainty": "a policy that measures its certainty",
    "reference": "a frozen language model, which the trained one is compared with",
    "teacher": "a reward model, whose scores behind every token are learned",
    "meta": "graded solutions that the weights of domains are learned from",
}
"""The closed vocabulary of what a flow may need beside data."""


class Flag:
    """What the command line needs of a field of settings beyond its name, type, default and docstring.

    It is metadata of the field's type: `rollouts: Annotated[int, Flag(low=1)] = 8`.

    Args:
        names: of the flag, where it is not the field's name with dashes; the first is the one to write.
        low, high: least and greatest value.
        choices: what may be given, such as the methods of a family; the help lists them where the docstring says
            {choices}.
        hidden: the field has no flag.
    """

    def __init__(
        self,
        *names: str,
        low: float | None = None,
        high: float | None = None,
        choices: Iterable[object] = (),
        hidden: bool = False,
    ) -> None:
        self.names, self.low, self.high, self.choices, self.hidden = names, low, high, choices, hidden


Count = Annotated[int, Flag(low=1)]
"""The type of a whole-number setting that must be at least 1."""


class Draws(Enum):
    """What a whole-number setting of a search does to the samples that a request draws: metadata of its type."""

    TOGETHER = "multiplies the candidates of a round; so does a setting that declares nothing"
    IN_TURN = "counts rounds, each of which draws a sample at least"
    NONE = "draws no more"


MaxSteps = Annotated[int, Flag(low=1), Draws.NONE]
"""The type of a limit on the steps of a solution."""
Rounds = Annotated[int, Draws.IN_TURN]
"""The type of a number of rounds that run one after another."""
NoDraws = Annotated[int, Draws.NONE]
"""The type of a whole-number setting that decides when or how, not how often, a search samples."""
