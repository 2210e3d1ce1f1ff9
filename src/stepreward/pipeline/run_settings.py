"""The settings of a run: the flags of `stepreward run`, with defaults that take at most three minutes on two cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from stepreward.core.vocabulary import Count, Flag

WorldName = Literal["arithmetic", "tools", "retrieval", "graph-retrieval", "repository", "textworld", "web"]


@dataclass(frozen=True)
class RunSettings:
    """Settings of the main job on the built-in world or on the user's problems and models."""

    world: WorldName = "arithmetic"
    """Built-in world: word problems, or one where an agent acts: a shop with tools, documents, repositories, games, web
    pages."""
    policy: str = ""
    """A model folder, a hub name, or a built-in policy; empty: the world's own, which may be no model but an agent that
    errs by chance."""
    problems: str = ""
    """JSONL of problems with id, prompt and reference; graded as mathematics. Empty: those of the world."""
    seed: int = 0
    """Seed of everything that is random."""
    seeds: Count = 2
    """Reward models trained on the same labels, with the seeds from `seed` on; the headline is over all of them, the
    searches take the first."""
    train_problems: Count = 400
    """Problems to label and learn from."""
    validation_problems: Count = 50
    """Problems on which the threshold and the checkpoint are chosen."""
    held_out_problems: Annotated[int, Flag(low=2)] = 200
    """Problems to measure on."""
    train_samples: Count = 3
    """Solutions of each training problem."""
    held_out_samples: Count = 16
    """Solutions of each held-out problem."""
    search_problems: Count = 50
    """Held-out problems that the searches solve, the first ones."""
    estimator: str = "bisection"
    """How steps are labelled; `stepreward methods estimate`."""
    rollouts: Count = 8
    """Rollouts of each probed prefix."""
    at_once: Annotated[int, Flag(low=0)] = 4
    """Rollouts requested at a time, none after one succeeded, where the estimator only needs to know whether any
    succeeds; 0: all together."""
    transform: str = ""
    """Labels of measurements; `stepreward methods transform`. Left out: the one that the estimator declares."""
    objective: str = "bce"
    """What training minimises; `stepreward methods loss`."""
    surprise: bool = True
    """The reward model also reads how surprised its own language model is; needs tied embeddings. Not where the agent
    is no model, and the reward model starts from random weights."""
    epochs: Annotated[float, Flag(low=0.01)] = 3.0
    """Passes over the labelled trees."""
    learning_rate: float = 3e-4
    """Peak learning rate."""
    batch_tokens: Annotated[int, Flag(low=64)] = 1024
    """Tokens of a training batch."""
    aggregate: str = "min"
    """Aggregate of step scores, for best-of-N, votes and beams; `stepreward methods aggregate`."""
    beams: Count = 4
    """Beams kept in beam search, subtrees in DVTS."""
    width: Count = 4
    """Continuations of each beam; beams x width is the number of samples it is compared with."""


QUICK = {
    "train_problems": 120,
    "validation_problems": 15,
    "held_out_problems": 60,
    "search_problems": 15,
}
"""Settings of `stepreward run --quick`: a whole report in about a minute, with wide intervals."""

_AGENTS: dict[str, Any] = {
    "train_problems": 200, "validation_problems": 25, "held_out_samples": 8, "search_problems": 25,
}  # fmt: skip
_SLOW: dict[str, Any] = {
    "train_problems": 120, "validation_problems": 15, "train_samples": 2, "held_out_samples": 2, "epochs": 6.0,
    "estimator": "math-shepherd", "transform": "soft", "rollouts": 2,
}  # fmt: skip
"""Few of these agents' errors lose all that follows: what an action is worth is the share that is won."""
OF_WORLD: dict[WorldName, dict[str, Any]] = {
    "arithmetic": {},
    "tools": _AGENTS,
    "retrieval": _AGENTS,
    "graph-retrieval": _AGENTS,
    "repository": _SLOW,
    "textworld": _SLOW,
    "web": _SLOW,
}
"""Settings of a world where no flag sets them: an episode costs more than a solution."""
