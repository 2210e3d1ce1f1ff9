"""Step data for credit methods, computed from trajectories: states before and after each step, and its turn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from stepreward.core.types import Step, Trajectory

Ids = NDArray[np.int64]
_NAMES = ("state", "edge", "node", "turn")


def places(trajectory: Trajectory) -> dict[str, Ids]:
    """Identities of each action's `state`, `edge`, `node` and `turn`, (A,) each; equal ids mean equal places.

    The state before an action is the last observation and the actions since, whatever came before: the anchor of GiGPO
    (arXiv:2505.10978) where a turn is one action. Before any observation it is the prompt and all actions so far. The
    edge is that state and the action. The node is everything up to the action, which only trajectories with the same
    steps share. A turn ends at an observation. Ids are hashes of texts, the same in every process.
    """
    said = state = _hash(0, repr(trajectory.problem.prompt))
    turn, acted = 0, False
    rows: list[tuple[int, int, int, int]] = []
    for step in trajectory.steps:
        said = _hash(said, _text(step))
        if step.kind == "observation":
            state = _hash(0, _text(step))
            turn, acted = turn + acted, False
            continue
        edge = _hash(state, _text(step))
        rows.append((state, edge, said, turn))
        state, acted = edge, True
    table = np.array(rows, np.int64).reshape(-1, 4)
    return {name: table[:, column] for column, name in enumerate(_NAMES)}


def _of(name: str) -> Callable[[Trajectory], Ids]:
    return lambda trajectory: places(trajectory)[name]


def agents(trajectory: Trajectory) -> Ids:
    """(A,) identity of who acts at each action; actions without an agent's name are one agent's."""
    return np.array([_hash(0, repr(step.agent)) for step in trajectory.steps if step.kind == "action"], np.int64)


DERIVED: Mapping[str, Callable[[Trajectory], Ids]] = {**{name: _of(name) for name in _NAMES}, "agent": agents}
"""Data of the credit vocabulary that follow from any trajectory."""


def _text(step: Step) -> str:
    return repr((step.kind, step.agent, step.text))


def _hash(before: int, text: str) -> int:
    """63 bits that identify a text after another one, given by its own hash."""
    digest = hashlib.blake2b(before.to_bytes(8, "little") + text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
