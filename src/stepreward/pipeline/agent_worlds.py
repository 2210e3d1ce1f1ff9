"""The worlds that an agent acts in, as presets of one run: where, on which problems, and who acts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import check, generate
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step
from stepreward.environments.repositories.mender import mender
from stepreward.environments.retrieval.seeker import seeker
from stepreward.environments.text_games import wanderer
from stepreward.environments.web.clicker import clicker
from stepreward.pipeline.run_settings import WorldName
from stepreward.policies.tabular import NextSteps


@dataclass(frozen=True)
class AgentWorld:
    """Where an agent acts, on which problems, and who acts there where no policy is named."""

    environment: str
    """Address."""
    about: str
    """Who acts, and how it errs, in a sentence."""
    problems: str
    """Name of what makes them."""
    policy: str
    """A built-in model, or the name of `table`."""
    table: NextSteps | None = None
    """The turns of an agent that is no model: its reward model starts from random weights."""
    of_problems: Mapping[str, Any] = field(default_factory=dict)
    """Settings of what makes the problems."""
    of_a_key: int = 0
    """Problems made from one key, such as those about one collection of documents; 0: all."""
    checker: str = ""
    """What knows the truth of every action; empty where nothing does."""
    answers: bool = False
    """Whether episodes end in answers, which can vote."""
    window: int = 1024
    """Problems that are worked on at the same time; an environment keeps their episodes."""

    def drawn(self, seed: int, split: str) -> Iterator[Problem]:
        """Problems without end; those of different splits are different ones."""
        method, root = generate[self.problems], Key.seed(seed)
        if "split" in method.settings:
            yield from method.take({"key": root}, **self.of_problems, split=split)
        for number in count():
            made = method.take({"key": root.fold(split, number)}, **self.of_problems)
            yield from islice(made, self.of_a_key or None)

    def truth(self, problem: Problem, steps: Sequence[Step]) -> NDArray[np.float64]:
        """(S,) 1 for a right action, 0 for a wrong one, NaN where the checker cannot tell and at observations."""
        return np.array([np.nan if one.right is None else one.right for one in check[self.checker](problem, steps)])


_STRAY, _GUESS, _MISS, _HASTY = 0.2, 0.1, 0.3, 0.08
_SEEKS = (
    "A seeker that knows which facts an answer rests on, and is no model. "
    f"In {_STRAY:.0%} of its turns it searches by a part of a title alone, "
    f"in {_GUESS:.0%} it answers with the name of an entity on the way."
)
_SEEKER = seeker(stray=_STRAY, guess=_GUESS)
_MENDS = (
    "A mender that knows the bug, and is no model. "
    f"In {_MISS:.0%} of its turns it plants another bug, or views another file before that; "
    f"in {_HASTY:.0%} it submits whatever the tests say. After a wrong edit it tests and mends that."
)
_ANY = "{what} by chance, each equally often: no model, and no knowledge of the task."

AGENT_WORLDS: Mapping[WorldName, AgentWorld] = {
    "tools": AgentWorld(
        "tools", "The shop's built-in agent, a language model with a million parameters that calls tools and slips.",
        "shop", "builtin:shop", checker="shop", answers=True,
    ),
    "retrieval": AgentWorld(
        "retrieval", _SEEKS, "retrieval", "seeker", _SEEKER,
        of_a_key=25, checker="retrieval", answers=True,
    ),
    "graph-retrieval": AgentWorld(
        "graph-retrieval", _SEEKS, "retrieval", "seeker", _SEEKER,
        of_a_key=25, checker="retrieval", answers=True,
    ),
    "repository": AgentWorld(
        "repository?turns=10&diagnostics=false&workers=1", _MENDS, "repositories",
        "mender", mender(miss=_MISS, hasty=_HASTY), of_problems={"actions": "words"},
    ),
    "textworld": AgentWorld(
        "textworld?turns=15&live=256", _ANY.format(what="A wanderer that gives the commands that the game lists"),
        "textworld", "wanderer", wanderer, of_problems={"game": "treasure", "level": 6}, window=16,
    ),
    "web": AgentWorld(
        "web?turns=5&live=64",
        _ANY.format(what="A clicker that clicks, selects, or types a text that the request quotes,"),
        "miniwob", "clicker", clicker, of_problems={"actions": "words"}, window=8,
    ),
}  # fmt: skip
