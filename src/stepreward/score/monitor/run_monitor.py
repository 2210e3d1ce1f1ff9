"""The monitor: a statistic, a bound for its false alarms, and objects that watch one run each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import read_object, write_json
from stepreward.core.measure.false_alarms import GUARANTEES, SLACK, AlarmBound, Guarantee
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.segment.tool_calls import step_of_message
from stepreward.core.types import Problem, Step
from stepreward.score.monitor.statistic import Statistic
from stepreward.score.monitor.turn_signals import TurnSignals, agent_turns

Action = Literal["continue", "warn", "stop"]
FILE = "monitor.json"
SCHEMA = "stepreward/monitor/1"
_SETTINGS = ("alpha", "warn", "guarantee", "confidence", "column", "about")
_ANEW = "fit it with `stepreward monitor fit`"


@dataclass(frozen=True)
class MonitorVerdict:
    """What a monitor says after a turn."""

    action: Action
    turn: int
    """Number of the turn, from 1."""
    statistic: float
    """After this turn; NaN where nothing could be measured."""
    p_value: float
    """How often a good run's statistic ever comes as high as this run's did so far; it only falls."""
    e_value: float
    """Evidence against a good run so far; it only rises."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        row = asdict(self)
        return {**row, "statistic": None if np.isnan(self.statistic) else self.statistic}


@dataclass(frozen=True)
class Monitor:
    """Says after each turn of an agent *continue, warn or stop*.

    A good run is ever stopped with a chance of at most `alpha`, and ever warned of with at most `warn`, over the draw
    of the runs calibrated on and the one watched, or with `confidence` for this monitor alone;
    `core.measure.false_alarms` says what is assumed. A verdict counts after turns at which the run would go on: after
    its last one there is nothing to stop.
    """

    statistic: Statistic
    bound: AlarmBound
    alpha: float = 0.1
    """Chance that a good run is ever stopped."""
    warn: float = 0.25
    """Chance that a good run is ever warned of; at least `alpha`."""
    guarantee: Guarantee = "p-value"
    confidence: float = 0.9
    """Of the guarantee `confidence` alone: how sure it is that this monitor's own rates are at most these."""
    column: str = ""
    """Step column of the scorer that it was fitted with; "" where it needs no scores."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What it was fitted on; JSON values."""
    seen: frozenset[str] = frozenset()
    """Digests of the problems that it was fitted or calibrated on (`digest_of`)."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= self.warn < 1:
            raise InputError(f"rates must satisfy 0 < alpha <= warn < 1, got {self.alpha:g} and {self.warn:g}")
        if self.guarantee not in GUARANTEES:
            raise InputError(f"a guarantee is one of {', '.join(GUARANTEES)}, got {self.guarantee!r}")
        if not 0 < self.confidence < 1:
            raise InputError(f"a confidence must be in (0, 1), got {self.confidence:g}")

    @property
    def can_stop(self) -> bool:
        """Whether enough problems are known for it to ever stop a run; by rank that is K + 1 >= 1 / alpha."""
        return self.action_of(np.inf) == "stop"

    def knows(self, problem: Problem) -> bool:
        """Whether it was fitted or calibrated on runs of the problem."""
        return digest_of(problem) in self.seen

    def action_of(self, highest: float) -> Action:
        """What to do in a run whose statistic came this high."""
        rate = float(self.bound.rates(highest, self.guarantee, self.confidence))
        # As `AlarmBound.alarming` compares.
        return "stop" if rate <= self.alpha * SLACK else "warn" if rate <= self.warn * SLACK else "continue"

    def watch(self, problem: Problem | str = "", scorer: Scorer | None = None) -> RunWatcher:
        """Watches one run from its beginning.

        Args:
            problem: the task, for a scorer to read.
            scorer: gives the scores that the monitor was fitted with; not needed where `column` is "", or where
                `after_turn` is told each score.
        """
        return RunWatcher(self, problem if isinstance(problem, Problem) else Problem("watched", problem), scorer)

    def at(self, alpha: float, warn: float | None = None) -> Monitor:
        """The same monitor at other rates."""
        return replace(self, alpha=alpha, warn=max(alpha, self.warn) if warn is None else warn)

    def save(self, folder: str | Path) -> Path:
        """Writes the monitor as JSON into a folder, whole or not at all; returns the file.

        Raises:
            StoreError: it cannot be written.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / FILE
        # JSON has no infinity: null is a run that was never looked at.
        maxima = [None if np.isinf(one) else one for one in self.bound.maxima.tolist()]
        settings = {name: getattr(self, name) for name in _SETTINGS}
        write_json(path, {
            "schema": SCHEMA, **settings, "statistic": self.statistic.to_json(), "seen": sorted(self.seen),
            "bound": {"maxima": maxima, "problem": self.bound.problem.tolist()},
        })  # fmt: skip
        return path

    @staticmethod
    def load(folder: str | Path) -> Monitor:
        """The monitor that `save` wrote.

        Raises:
            InputError: there is none.
            StoreError: it cannot be read.
        """
        path = Path(folder)
        path = path / FILE if path.is_dir() else path
        row = read_object(path, remedy=_ANEW)
        if row.get("schema") != SCHEMA:
            raise InputError(f"expected the schema {SCHEMA!r}, got {row.get('schema')!r}", source=path, remedy=_ANEW)
        try:
            bound = row["bound"]
            maxima = [-np.inf if one is None else one for one in bound["maxima"]]
            settings = {name: row[name] for name in _SETTINGS}
            statistic, seen = Statistic.from_json(row["statistic"]), frozenset(row["seen"])
            return Monitor(statistic, AlarmBound(maxima, bound["problem"]), **settings, seen=seen)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a saved monitor has wrong values: {error}", source=path, remedy=_ANEW) from error


def digest_of(problem: Problem) -> str:
    """What tells problems apart: a hash of id and prompt."""
    said = f"{problem.id}\n{problem.text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, digest_size=8).hexdigest()


Said = Step | str | Mapping[str, Any]
"""A step, the text of an action, or a chat message of OpenAI's form."""


class RunWatcher:
    """One run as a monitor sees it: call `after_turn` after each turn; memory is bounded where no scorer reads texts.

    Args:
        monitor: whose verdicts.
        problem: the task.
        scorer: of actions.
    """

    def __init__(self, monitor: Monitor, problem: Problem, scorer: Scorer | None = None) -> None:
        self.monitor, self.problem, self.scorer = monitor, problem, scorer
        self._signals, self._highest = TurnSignals(), float("-inf")
        self._steps: list[Step] = []

    @property
    def size(self) -> int:
        """Bytes that it takes, or a little more."""
        return self._signals.size + sum(len(step.text) for step in self._steps)

    def after_turn(self, *said: Said, score: float | Sequence[float] | None = None) -> MonitorVerdict:
        """The verdict after one more turn.

        Args:
            said: the action, then what the world answered; an action may also be several, each then a turn of its own.
            score: of the action, where no scorer was given; one for each where there are several.

        Raises:
            InputError: nothing was done, or the monitor reads scores and got none.
        """
        steps = [_step(one) for one in said]
        turns = agent_turns(steps)
        if not turns:
            raise InputError("a turn needs an action", remedy="pass the agent's step first, then what was answered")
        scores = [float(one) for one in np.broadcast_to(np.nan if score is None else score, len(turns))]
        if self.monitor.column and score is None:
            if self.scorer is None:
                what = f"this monitor reads the scores {self.monitor.column!r}"
                raise InputError(what, remedy="pass scorer=... to watch, or score=... to after_turn")
            self._steps += steps
            (scored,) = self.scorer.score_many([Score(self.problem, tuple(self._steps))])
            new = scored.scores[len(self._steps) - len(steps) :]
            scores = [float(new[turn.place]) for turn in turns]
        for turn, one in zip(turns, scores, strict=True):
            value = float(self.monitor.statistic.values(self._signals.after(turn, one)[None])[0])
            self._highest = float(np.fmax(self._highest, value))
        bound, highest = self.monitor.bound, np.asarray(self._highest)
        return MonitorVerdict(
            self.monitor.action_of(self._highest), self._signals.turn, value, float(bound.p_values(highest)),
            float(bound.e_values(highest)),
        )  # fmt: skip


def _step(said: Said) -> Step:
    if isinstance(said, Step):
        return said
    return Step(said) if isinstance(said, str) else step_of_message(said)
