"""Environments of Gymnasium, whose episodes are texts: actions are read from a turn, observations are written out."""

from __future__ import annotations

import copy
import re
import zlib
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np

from stepreward.core.catalog import environment
from stepreward.core.errors import InputError
from stepreward.core.optional import optional
from stepreward.core.runtime.acts import REWORDS, Observation
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Flag
from stepreward.environments.episode_pool import EpisodePool

UNREAD = 20
"""Turns that state no action after which an episode is over."""
_NUMBER = re.compile(r"-?\d+")
ReadAction = Callable[[str, Any], Any]
"""From the text of a turn and the action space to an action; None where it states none."""


def read_action(text: str, space: Any) -> Any:
    """The last whole number that a turn states, where the space has it; the text itself in a space of texts."""
    if type(space).__name__ == "Text":
        return text
    found = _NUMBER.findall(text)
    if type(space).__name__ != "Discrete" or not found:
        return None
    action = int(found[-1])
    return action if space.contains(action) else None


class GymnasiumEpisode:
    """An episode of a `gymnasium.Env`; a `core.runtime.acts.Environment` that forks by a deep copy.

    The reset's seed is `meta["seed"]` of the problem, or else a digest of its id, of the original's where it is one in
    other words. The outcome is `info["success"]`
    where the environment gives it, else whether the sum of rewards is positive at the end.

    Args:
        env: a fresh environment of this episode's own.
        read: reads actions.
        unread: turns that state no action after which the episode is over.
    """

    def __init__(self, env: Any, read: ReadAction = read_action, unread: int = UNREAD) -> None:
        self._env, self._read, self._left, self._total = env, read, unread, 0.0

    def reset(self, problem: Problem) -> Observation:
        """Begins an episode."""
        own = str(problem.meta.get(REWORDS, problem.id))
        seed = int(problem.meta.get("seed", zlib.crc32(own.encode())))
        shown, _ = self._env.reset(seed=seed)
        return Observation.of(self._text(shown), outcome=0.0)

    def act(self, action: Step) -> Observation:
        """Executes the action that a turn states; one that states none changes nothing and is told so."""
        chosen = self._read(action.text, self._env.action_space)
        if chosen is None:
            self._left -= 1
            said = f"No action of {self._env.action_space} was read; write one."
            return Observation.of(said, done=self._left < 1, outcome=0.0)
        shown, reward, terminated, truncated, info = self._env.step(chosen)
        self._total += float(reward)
        done = bool(terminated or truncated)
        won = float(info["success"]) if "success" in info else float(done and self._total > 0)
        return Observation.of(self._text(shown), reward=float(reward), done=done, outcome=min(max(won, 0.0), 1.0))

    def fork(self) -> GymnasiumEpisode:
        """A deep copy."""
        return copy.deepcopy(self)

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _text(self, shown: Any) -> str:
        return shown if isinstance(shown, str) else str(np.asarray(shown).tolist())


@environment.method("gymnasium", note="Gymnasium's own interface, 1.0 and later; wording of observations ours")
def gymnasium_episodes(
    *, env: str = "", unread: Annotated[int, Flag(low=1)] = UNREAD, live: Annotated[int, Flag(low=1)] = 64
) -> EpisodePool:
    """Episodes of a registered environment of Gymnasium.

    Args:
        env: as `gymnasium.make` takes it, such as `FrozenLake-v1`.
        unread: turns that state no action after which the episode is over.
        live: most episodes kept between actions.

    Raises:
        InputError: there is no such environment.
        ModelError: Gymnasium is not installed.
    """
    gymnasium = optional("gymnasium")
    try:
        gymnasium.spec(env)
    except gymnasium.error.Error as error:
        what = f"Gymnasium has no environment {env!r}: {error}"
        raise InputError(what, remedy="write gymnasium?env=NAME") from error
    return EpisodePool(partial(_made, env, unread), f"gymnasium {env} unread={unread}", live=live)


def _made(name: str, unread: int) -> GymnasiumEpisode:
    return GymnasiumEpisode(optional("gymnasium").make(name), unread=unread)
