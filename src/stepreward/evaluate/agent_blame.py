"""Which agent, and which of its turns, lost a trace; and what each agent's turns are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import Estimate, bootstrap
from stepreward.core.types import Floats, Trajectory

Rule = Literal["lost", "drop", "lowest"]
"""Which turn is to blame: the first with a value at or below a threshold, the largest fall of it, or the lowest."""
UNNAMED = "unnamed"
"""Name of the agent of steps that name none."""
_NEAR = 1e-9
"""Values within it are equal."""


@dataclass(frozen=True)
class Blame:
    """The turn that is to blame for a failed trace."""

    problem: str
    row: int
    """Number of the trace among those given."""
    step: int
    """Its index; -1 where no turn is to blame."""
    agent: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {name: getattr(self, name) for name in ("problem", "row", "step", "agent", "text")}


@dataclass(frozen=True)
class AgentValue:
    """What an agent's turns are worth."""

    turns: int
    value: Estimate
    """Mean value after its turns."""
    advantage: Estimate
    """Mean of what a turn of its adds to the value; near 0 where the agents themselves wrote the traces."""
    lost: Estimate
    """Mean, over failed traces, of what its turns together took from the value; over the agents it adds up to what
    there was at first."""
    blamed: int
    """Failed traces for which it is to blame."""


@dataclass(frozen=True)
class BlameReport:
    """Who lost what."""

    rule: str
    column: str
    traces: int
    ungraded: int
    """Traces without an outcome: not among the failed."""
    failed: int
    unmeasured: int
    """Failed traces without a number on some turn: no agent is blamed for them."""
    agents: Mapping[str, AgentValue]
    blames: Sequence[Blame]
    accuracy: Mapping[str, Estimate]
    """Of step and agent against the known decisive errors, beside two guesses; empty where none is known."""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        agents = {
            name: {
                "turns": one.turns, "value": one.value.to_json(), "advantage": one.advantage.to_json(),
                "lost": one.lost.to_json(), "blamed": one.blamed,
            }
            for name, one in self.agents.items()
        }  # fmt: skip
        counts = {
            name: getattr(self, name) for name in ("rule", "column", "traces", "ungraded", "failed", "unmeasured")
        }
        accuracy = {name: one.to_json() for name, one in self.accuracy.items()}
        return {**counts, "agents": agents, "blames": [one.to_json() for one in self.blames], "accuracy": accuracy}


def blamed_step(numbers: Floats, root: float, rule: Rule = "lost", threshold: float = 0.0) -> int:
    """The index of the turn that is to blame; -1 where none is.

        lost: min { t : v_t <= threshold }     drop: argmax_t v_{t-1} - v_t     lowest: argmin_t v_t

    Of equals the earliest.

    Args:
        numbers: (S,) v, the value or score of each turn; NaN at observations.
        root: v_{-1}, before the first turn; NaN where it is not known, and the first turn no fall.
        rule: which.
        threshold: of `lost`.
    """
    if rule == "lost":
        return int(first_error(numbers, threshold))
    turns = np.flatnonzero(~np.isnan(numbers))
    if not len(turns):
        return -1
    own = numbers[turns]
    if rule == "lowest":
        return int(turns[np.flatnonzero(own <= own.min() + _NEAR)[0]])
    falls = np.r_[own[0] if np.isnan(root) else root, own[:-1]] - own
    return int(turns[np.flatnonzero(falls >= falls.max() - _NEAR)[0]]) if falls.max() > _NEAR else -1


def _roots(traces: Sequence[Trajectory], column: str) -> dict[str, float]:
    """By problem, the value before the first turn: the fact `root_value`, or else the mean after the first turn.

    A value is the mean of those of what may follow, so that this mean, over traces sampled by the agents, is unbiased.
    """
    stated, after = dict[str, float](), dict[str, list[float]]()
    for one in traces:
        if not np.isnan(root := float(one.facts.get("root_value", np.nan))):
            stated[one.problem.id] = root
        if one.action.any() and not np.isnan(first := float(one.column(column)[one.action][0])):
            after.setdefault(one.problem.id, []).append(first)
    return {problem: float(np.mean(some)) for problem, some in after.items()} | stated


def blame_agents(
    traces: Iterable[Trajectory], truth: Iterable[Trajectory] = (), *, column: str = "value", rule: Rule = "lost",
    threshold: float = 0.0, success: float = 0.5, seed: int = 0,
) -> BlameReport:  # fmt: skip
    """Blames a turn of each failed trace, and says what each agent's turns are worth.

    Where decisive errors are known, the share of traces blamed rightly is measured, as in Who&When (arXiv:2505.00212),
    beside that of a turn drawn at random and of the last turn.

    Args:
        traces: with step columns; `Step.agent` is who speaks.
        truth: the same attempts, whose `first_error` is the decisive error; the fact `mistake_agent`, where it is
            there, is the agent that people blame.
        column: of the values or scores.
        rule, threshold: of `blamed_step`.
        success: a trace with an outcome below it failed.
        seed: of the intervals.

    Raises:
        InputError: no trace has the column, or a number in it is infinite.
    """
    given = list(traces)
    known = [(row, one) for row, one in enumerate(given) if column in one.columns]
    if not known:
        have = sorted({name for one in given for name in one.columns})
        remedy = f"label or score them first; there are {', '.join(have) or 'no columns'}"
        raise InputError(f"no trace has the step column {column!r}", remedy=remedy)
    for row, one in known:
        own = one.column(column)
        if len(at := np.flatnonzero(np.isinf(own) & one.action)):
            what = f"trace {row + 1}, of problem {one.problem.id!r}: {column} of step {at[0]} is {own[at[0]]}"
            raise InputError(what, remedy="give a finite number, or null where it is not known")
    failed = sum(one.outcome < success for one in given)
    whole = [
        (row, one) for row, one in known if one.outcome < success and not np.isnan(one.column(column)[one.action]).any()
    ]
    roots = _roots([one for _, one in known], column)
    blames = [
        _blame(row, one, blamed_step(one.column(column), roots.get(one.problem.id, np.nan), rule, threshold))
        for row, one in whole
    ]
    key = Key.seed(seed).fold("blame")
    agents = _agents([one for _, one in known], [one for _, one in whole], column, roots, blames, key)
    accuracy = _accuracy([one for _, one in whole], blames, truth, key)
    ungraded = sum(bool(np.isnan(one.outcome)) for one in given)
    return BlameReport(rule, column, len(given), ungraded, failed, failed - len(whole), agents, blames, accuracy)


def _blame(row: int, trace: Trajectory, at: int) -> Blame:
    step = trace.steps[at] if at >= 0 else None
    agent, text = ("", "") if step is None else (step.agent or UNNAMED, step.text.strip()[:200])
    return Blame(trace.problem.id, row, at, agent, text)


def _agents(
    traces: Sequence[Trajectory], whole: Sequence[Trajectory], column: str, roots: Mapping[str, float],
    blames: Sequence[Blame], key: Key,
) -> dict[str, AgentValue]:  # fmt: skip
    turns = [turn for one in traces for turn in _turns(one, column, roots)]
    names = [*dict.fromkeys(name for name, _, _ in turns)]
    problems = [one.problem.id for one in traces for step in one.steps if step.kind == "action"]

    def means(name: str, place: int, what: str) -> Estimate:
        some = dict[str, list[float]]()
        for problem, turn in zip(problems, turns, strict=True):
            if turn[0] == name:
                some.setdefault(problem, []).append(float(turn[place]))
        return _mean(some, key.fold(what, name))

    def lost(name: str) -> Estimate:
        took = dict[str, list[float]]()
        for one in whole:
            gains = [gain for agent, _, gain in _turns(one, column, roots) if agent == name]
            took.setdefault(one.problem.id, []).append(-sum(gains))
        return _mean(took, key.fold("lost", name))

    return {
        name: AgentValue(
            sum(agent == name for agent, _, _ in turns), means(name, 1, "value"), means(name, 2, "advantage"),
            lost(name), sum(one.agent == name for one in blames),
        )
        for name in names
    }  # fmt: skip


def _turns(trace: Trajectory, column: str, roots: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Speaker, value and advantage of each turn."""
    values = trace.column(column)[trace.action]
    before = np.r_[roots.get(trace.problem.id, np.nan), values[:-1]] if len(values) else values
    speakers = [step.agent or UNNAMED for step in trace.steps if step.kind == "action"]
    return [*zip(speakers, values.tolist(), (values - before).tolist(), strict=True)]


def _mean(by_problem: Mapping[str, Sequence[float]], key: Key) -> Estimate:
    """Mean over problems of the mean of each, over what is known."""
    means = [np.mean(known) for some in by_problem.values() if (known := [x for x in some if not np.isnan(x)])]
    return bootstrap(np.array(means), key, bounds=None) if means else Estimate(np.nan, np.nan, np.nan, 0)


def _accuracy(
    whole: Sequence[Trajectory], blames: Sequence[Blame], truth: Iterable[Trajectory], key: Key
) -> dict[str, Estimate]:
    decisive = {
        _name(one): _guilty(one, one.first_error)
        for one in truth
        if one.first_error is not None and one.first_error >= 0
    }
    known = [
        (one, said, decisive[_name(one)]) for one, said in zip(whole, blames, strict=True) if _name(one) in decisive
    ]
    if not known:
        return {}
    guesses = {"": [[said.step] for _, said, _ in known]}
    turns = [np.flatnonzero(one.action).tolist() for one, _, _ in known]
    guesses |= {"_of_last_turn": [own[-1:] for own in turns], "_at_random": turns}
    made = {}
    for name, guess in guesses.items():
        step = [np.mean([at == gold[0] for at in own]) for (_, _, gold), own in zip(known, guess, strict=True)]
        agent = [
            np.mean([at >= 0 and (one.steps[at].agent or UNNAMED) == gold[1] for at in own])
            for (one, _, gold), own in zip(known, guess, strict=True)
        ]
        for what, hits in (("step", step), ("agent", agent)):
            made[f"{what}{name}"] = bootstrap(np.array(hits, np.float64), key.fold("accuracy", what, name))
    return made


def _name(trace: Trajectory) -> tuple[str, tuple[str, ...]]:
    return trace.problem.id, tuple(step.text for step in trace.steps)


def _guilty(trace: Trajectory, decisive: int) -> tuple[int, str]:
    """The decisive step, -1 where there is none, and the agent that people blame, or else the one that speaks there."""
    speaker = trace.steps[decisive].agent if decisive >= 0 else ""
    return decisive, str(trace.facts.get("mistake_agent") or speaker or UNNAMED)
