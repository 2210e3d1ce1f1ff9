"""Episodes of an environment: kept where they are, copied by a snapshot or by acting again, and checked.

A question names an episode by its steps. One that is there is gone on with; of one that can be forked a copy is; any
other is acted again from its beginning, and what is shown then must be what was shown before.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stepreward.core.errors import EpisodeError
from stepreward.core.prefix_names import Name, Prefix, prefix_of
from stepreward.core.runtime.acts import Act, Environment, Forkable, Observation, episode_of
from stepreward.core.types import Problem, Step

KNOWN = 65_536
"""Observations that are kept, so that a grade, or a step that is tried again, executes nothing."""
_Place = tuple[str, Name]
"""The id of the episode's problem, and the name of the steps."""


@dataclass
class _Live:
    """An episode, and what it showed last."""

    environment: Environment
    last: Observation


class EpisodePool:
    """Answers `Act` by running environments; a `core.runtime.acts.Episodes`.

    Args:
        make: makes an environment for one episode; called from several threads.
        name: identity of the environment and its settings.
        live: most episodes that are kept running between questions; the one that waited longest is ended.
        concurrency: actions that run at once, in threads; 1 for an environment that computes here.
        batch_size: actions of a batch, where they run one after another.
        prepare: the problem as the policy reads it; as it is where None.

    Raises:
        ValueError: a number is not positive.
    """

    def __init__(
        self, make: Callable[[], Environment], name: str, *, live: int = 64, concurrency: int = 1,
        batch_size: int = 64, prepare: Callable[[Problem], Problem] | None = None,
    ) -> None:  # fmt: skip
        if min(live, concurrency, batch_size) < 1:
            what = f"live={live}, concurrency={concurrency}, batch_size={batch_size}"
            raise ValueError(f"expected positive numbers of episodes, got {what}")
        self._make, self.name, self._most, self.concurrency = make, name, live, concurrency
        self._prepare = prepare
        self.batch_size = 1 if concurrency > 1 else batch_size
        self.executed = 0
        """Actions executed that were asked for."""
        self.repeated = 0
        """Actions executed again, to come to a state that no live episode was in."""
        self._lock = threading.Lock()
        self._live: OrderedDict[_Place, _Live] = OrderedDict()
        self._known: OrderedDict[_Place, Observation] = OrderedDict()

    def act_many(self, questions: Sequence[Act]) -> list[Observation]:
        """Answers the questions, in order.

        Raises:
            EpisodeError: the steps are not what the environment shows, or the environment failed.
        """
        return [self._answer(question.problem, prefix_of(question.steps)) for question in questions]

    def prepared(self, problem: Problem) -> Problem:
        """The problem as the policy reads it."""
        return problem if self._prepare is None else self._prepare(problem)

    def close(self) -> None:
        """Ends all episodes."""
        with self._lock:
            ended = [*self._live.values()]
            self._live.clear()
        for one in ended:
            one.environment.close()

    def _answer(self, problem: Problem, steps: Prefix) -> Observation:
        with self._lock:
            if (known := self._known.get((episode_of(problem), steps.name))) is not None:
                self._known.move_to_end((episode_of(problem), steps.name))
                return known
        start = time.monotonic()
        if steps and steps[-1].kind == "observation":
            live = self._at(problem, steps)
            shown = replace(live.last, steps=(), seconds=time.monotonic() - start)
        elif steps:
            live = self._at(problem, steps.first(len(steps) - 1))
            shown = self._acted(live, steps[-1])
            self.executed += 1
        else:
            live = self._begun(problem)
            shown = live.last
        self._keep(problem, steps, live, shown)
        return shown

    def _keep(self, problem: Problem, steps: Prefix, live: _Live, shown: Observation) -> None:
        after = steps.then(shown.steps)
        ended: list[_Live] = []
        with self._lock:
            self._known[episode_of(problem), steps.name] = shown
            if shown.steps:
                self._known[episode_of(problem), after.name] = replace(shown, steps=(), seconds=0.0)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
            place = (episode_of(problem), after.name)
            ended += [live] if shown.done or place in self._live else []
            if not ended:
                self._live[place] = _Live(live.environment, replace(shown, steps=()))
            while len(self._live) > self._most:
                ended.append(self._live.popitem(last=False)[1])
        for one in ended:
            one.environment.close()

    def _at(self, problem: Problem, steps: Prefix) -> _Live:
        """An episode at these steps for this caller alone: the live one or its copy, or one that is acted again."""
        length, live = self._nearest(problem, steps)
        if live is None:
            live = self._begun(problem)
            length = 0
        expected = [*live.last.steps]
        for step in steps[length:]:
            if step.kind == "observation":
                self._check(problem, expected.pop(0) if expected else None, step, live)
                continue
            if expected:
                self._check(problem, expected[0], None, live)
            live.last = self._acted(live, step)
            self.repeated += 1
            expected = [*live.last.steps]
        if expected:
            self._check(problem, expected[0], None, live)
        return live

    def _nearest(self, problem: Problem, steps: Prefix) -> tuple[int, _Live | None]:
        """The live episode at the longest beginning of the steps, and its length; one that is shorter only if forked.

        An episode that cannot be forked is taken: another that needs it acts again.
        """
        with self._lock:
            for length in range(len(steps), -1, -1):
                place = (episode_of(problem), steps.first(length).name)
                live = self._live.get(place)
                if live is None:
                    continue
                if isinstance(live.environment, Forkable):
                    self._live.move_to_end(place)
                    return length, _Live(live.environment.fork(), live.last)
                if length == len(steps):
                    return length, self._live.pop(place)
        return 0, None

    def _begun(self, problem: Problem) -> _Live:
        environment = self._make()
        try:
            return _Live(environment, environment.reset(problem))
        except Exception as error:
            environment.close()
            raise _failed(problem, "beginning an episode", error) from error

    def _acted(self, live: _Live, action: Step) -> Observation:
        if live.last.done:
            live.environment.close()
            raise EpisodeError(f"the episode was over before the action {action.text!r:.80}; end the steps there")
        start = time.monotonic()
        try:
            shown = live.environment.act(action)
        except EpisodeError:
            live.environment.close()
            raise
        except Exception as error:
            live.environment.close()
            raise EpisodeError(f"{self.name} failed at {action.text!r:.80}: {error}") from error
        return replace(shown, seconds=time.monotonic() - start)

    def _check(self, problem: Problem, shown: Step | None, given: Step | None, live: _Live) -> None:
        """Compares an observation with the one in the steps.

        Raises:
            EpisodeError: they differ.
        """
        texts = ["nothing" if one is None else repr(one.text)[:200] for one in (shown, given)]
        if texts[0] == texts[1]:
            return
        live.environment.close()
        what = f"after the same actions {self.name} shows {texts[0]} in problem {problem.id!r}, and the steps have"
        raise EpisodeError(f"{what} {texts[1]}; pass steps of this environment and version, or one that repeats itself")


def _failed(problem: Problem, what: str, error: Exception) -> EpisodeError:
    return error if isinstance(error, EpisodeError) else EpisodeError(f"{what} of {problem.id!r} failed: {error}")
