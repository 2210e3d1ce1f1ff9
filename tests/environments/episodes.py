"""What holds of episodes in any environment: forks equal replays, and a killed run goes on in their middle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act, Environment, Observation
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Flow, Propose
from stepreward.core.types import Problem, Step
from stepreward.environments.episode_pool import EpisodePool
from stepreward.policies.tabular import TabularPolicy


class Unforked:
    """The same environment without its `fork`: it is copied by acting again."""

    def __init__(self, environment: Environment) -> None:
        self.reset, self.act, self.close = environment.reset, environment.act, environment.close


def shown_along(pool: EpisodePool, problem: Problem, actions: Sequence[str]) -> list[Observation]:
    """What is shown first and after each action, the time that it took left out."""
    steps: tuple[Step, ...] = ()
    made = []
    for action in [None, *actions]:
        steps += () if action is None else (Step(action),)
        (answer,) = pool.act_many([Act(problem, steps)])
        steps += answer.steps
        made.append(replace(answer, seconds=0.0))
        if answer.done:
            break
    return made


def require_forks_equal_replays(
    make: Callable[[], Environment], problem: Problem, paths: Sequence[Sequence[str]]
) -> None:
    """Acts along paths in episodes that are forked, replayed, and kept alone."""
    pools = [
        EpisodePool(make, "forked"), EpisodePool(lambda: Unforked(make()), "replayed", live=1),
        EpisodePool(lambda: Unforked(make()), "kept"),
    ]  # fmt: skip
    try:
        for path in paths:
            forked, *others = (repr(shown_along(pool, problem, path)) for pool in pools)
            assert [forked, forked] == others
    finally:
        for pool in pools:
            pool.close()
    assert pools[0].repeated == 0
    assert pools[1].repeated > 0


def require_resumes(
    pool: Callable[[], EpisodePool], problem: Problem, actions: Sequence[str], folder: Path, *, after: int = 2
) -> None:
    """Kills a run after some actions of its episodes; the next one takes them from the log."""

    def flow() -> Flow[list[Continuation]]:
        (made,) = yield [Propose(problem, (), Key.seed(0), n=3)]
        return list(made)

    policy = TabularPolicy(lambda *_: [(Step(one), 1 / len(actions), True) for one in actions], "drawn")

    def run(episodes: EpisodePool, log: AnswerLog | None) -> tuple[list[Continuation], Driver]:
        driver = Driver(policy=Agent(policy, episodes), log=log)
        try:
            return next(iter(driver.run([flow()]))).result, driver
        finally:
            episodes.close()

    wanted, alone = run(pool(), None)
    killed = pool()
    ended = _Killing(killed, after)
    with AnswerLog(folder / "log.sqlite") as log, pytest.raises(KeyboardInterrupt):
        run(ended, log)  # type: ignore[arg-type]
    killed.close()
    with AnswerLog(folder / "log.sqlite") as log:
        made, driver = run(pool(), log)
    assert made == wanted
    assert 0 < driver.bill.actions < alone.bill.actions


class _Killing:
    """Episodes of a process that is killed after some actions."""

    batch_size, concurrency = 1, 1

    def __init__(self, pool: EpisodePool, after: int) -> None:
        self._pool, self._left, self.name, self.close = pool, after, pool.name, pool.close
        self.prepared = pool.prepared

    def act_many(self, questions: Sequence[Act]) -> list[Observation]:
        for question in questions:
            self._left -= question.acts
        if self._left < 0:
            raise KeyboardInterrupt
        return self._pool.act_many(questions)
