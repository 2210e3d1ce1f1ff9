"""Two agents on the same problems: every number of their runs, with the paired difference and its interval."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import plain
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate, bootstrap, crossed_mean
from stepreward.core.types import SCORE, Floats, Trajectory
from stepreward.evaluate.measures.run_numbers import RUN_MEASURES, run_numbers

BY_ID, BY_TEXT = "id", "text"
"""Problems of two files are the same if their ids are, or their texts."""
NAMED = 5
"""Problems without a partner that are named; further ones are counted."""
_EQUAL = 1e-9
"""Differences up to it are none: those of sums in another order."""


@dataclass
class AgentRuns:
    """The runs of an agent as numbers."""

    ids: list[str] = field(default_factory=list)
    """The id of each run's problem."""
    texts: list[str] = field(default_factory=list)
    """A hash of its words."""
    fields: list[str] = field(default_factory=list)
    """The value of the field that problems are joined by, "" where a run has none."""
    seeds: list[str] = field(default_factory=list)
    """The value of the field that names the seed, "" where a run has none."""
    rows: list[Floats] = field(default_factory=list)
    """(M,) numbers of each run."""

    def names(self, by: str) -> list[str]:
        """What says which problem each run is of."""
        return {BY_ID: self.ids, BY_TEXT: self.texts}.get(by, self.fields)


def agent_runs(runs: Iterable[Trajectory], *, column: str = SCORE, by: str = "", seeds: str = "") -> AgentRuns:
    """Reads the runs of an agent, of which only numbers are kept.

    Args:
        runs: in any order, several of a problem or one.
        column: step column of scores.
        by: field of a run's facts, or of its problem's `meta`, that names the problem; "", id and text need none.
        seeds: the same of the seed.
    """
    made = AgentRuns()
    for run in runs:
        made.ids.append(run.problem.id)
        # Layouts treat white space at the ends of texts in their own ways.
        words = " ".join(run.problem.text.split()).encode("utf-8", "surrogatepass")
        made.texts.append(hashlib.blake2b(words, digest_size=12).hexdigest())
        made.fields.append(_field(run, by) if by not in ("", BY_ID, BY_TEXT) else "")
        made.seeds.append(_field(run, seeds))
        made.rows.append(run_numbers(run, column))
    return made


def _field(run: Trajectory, name: str) -> str:
    value = run.facts.get(name, run.problem.meta.get(name)) if name else None
    return "" if value is None or isinstance(value, Mapping | list) else str(value)


@dataclass(frozen=True)
class ComparedMeasure:
    """A number of the runs of both agents, over the problems for which both have it."""

    a: Estimate
    b: Estimate
    difference: Estimate
    """A's less B's, paired by problem."""
    higher: int
    """Problems in which it is higher for A; where it is the outcome, A wins."""
    lower: int
    equal: int
    runs_without: tuple[int, int]
    """Runs of A and of B, of matched problems, that do not tell it: they are not counted."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        numbers = {name: getattr(self, name).to_json() for name in ("a", "b", "difference")}
        return {**numbers, "higher": self.higher, "lower": self.lower, "equal": self.equal,
                "runs_without": [*self.runs_without]}  # fmt: skip


@dataclass(frozen=True)
class AgentComparison:
    """Two agents, A and B, on the problems that both have runs of."""

    by: str
    """What says that two problems are the same: their id, their text, or a field."""
    problems: tuple[str, ...]
    """Names of the matched problems, in A's order; their ids where they are joined by text."""
    runs: tuple[int, int]
    """Runs of matched problems."""
    only: tuple[tuple[str, ...], tuple[str, ...]]
    """Problems of which the other agent has no run."""
    nameless: tuple[int, int]
    """Runs without the field that problems are joined by; they are left out."""
    other_text: int
    """Matched problems of which no run of A has the text of a run of B: other prompts, or other problems."""
    seeds: tuple[str, ...]
    """Seeds that both have, crossed with the problems in the intervals; none where runs are samples of a problem."""
    other_seeds: tuple[int, int]
    """Runs left out, as the other agent has no run with their seed."""
    measures: Mapping[str, ComparedMeasure]
    """By name of `RUN_MEASURES`, those that both agents have."""
    numbers: Floats
    """(P, 2, M) mean over the runs of each problem, by agent, NaN where none tells."""
    counts: NDArray[np.int64]
    """(P, 2) runs."""

    @property
    def apart(self) -> tuple[str, ...]:
        """Numbers that runs of matched problems tell, and no problem of both agents: they are not compared."""
        told = {name for at, name in enumerate(RUN_MEASURES) if not np.isnan(self.numbers[:, :, at]).all()}
        return tuple(name for name in RUN_MEASURES if name in told and name not in self.measures)

    def to_json(self) -> dict[str, Any]:
        """Plain values, NaN as None; `rows` has what differs from problem to problem."""
        return {
            "by": self.by,
            "problems": len(self.problems),
            "runs": {"a": self.runs[0], "b": self.runs[1]},
            "only": {name: {"problems": len(some), "first": [*some[:NAMED]]}
                     for name, some in zip("ab", self.only, strict=True)},
            "nameless": {"a": self.nameless[0], "b": self.nameless[1]},
            "other_text": self.other_text,
            "seeds": [*self.seeds],
            "other_seeds": {"a": self.other_seeds[0], "b": self.other_seeds[1]},
            "measures": {name: one.to_json() for name, one in self.measures.items()},
            "apart": [*self.apart],
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """A row a problem: all numbers, and whose outcome is higher, `a`, `b` or `tie`, None where it is not known."""
        made = []
        for at, name in enumerate(self.problems):
            won = self.numbers[at, 0, 0] - self.numbers[at, 1, 0]
            result = None if np.isnan(won) else "tie" if abs(won) <= _EQUAL else "a" if won > 0 else "b"
            row: dict[str, Any] = {"problem": name, "result": result}
            row |= {f"runs_{who}": int(self.counts[at, place]) for place, who in enumerate("ab")}
            for measure in self.measures:
                own = self.numbers[at, :, [*RUN_MEASURES].index(measure)]
                row |= {f"{measure}_a": float(own[0]), f"{measure}_b": float(own[1]),
                        f"{measure}_difference": float(own[0] - own[1])}  # fmt: skip
            made.append(plain(row))
        return made


def compared_agents(a: AgentRuns, b: AgentRuns, *, by: str = "", seed: int = 0, draws: int = 2000) -> AgentComparison:
    """Compares two agents on the problems that both ran.

    Each problem counts once: the mean over an agent's runs of it. The difference is paired, and its 95 % interval is a
    bootstrap over problems, widened for few of them (`percentile_interval`): what makes problems hard cancels, and runs
    of one problem are no independent evidence. With seeds, such as those of two trainings, problems and seeds are drawn
    independently (`crossed_mean`): then a difference is one of ways of training, beyond these very models.

    Args:
        a: runs of one agent.
        b: of the other.
        by: id, text, or the field that both were read by; "": id, or text where no id is in both.
        seed: of the bootstrap.
        draws: resamples.

    Raises:
        InputError: no problem is in both, or runs have seeds and fewer than two are in both.
    """
    by = by or (BY_ID if {*a.ids} & {*b.ids} else BY_TEXT)
    names = (a.names(by), b.names(by))
    nameless = (names[0].count(""), names[1].count(""))
    both = [name for name in dict.fromkeys(names[0]) if name and name in {*names[1]}]
    if not both:
        raise _unmatched(by, names, a, b)
    seeds, place = _seeds(a, b), {name: at for at, name in enumerate(both)}
    sides = [_Side(runs, own, place, seeds) for runs, own in zip((a, b), names, strict=True)]
    key = Key.seed(seed).fold("compare", "agents")
    measures = {}
    for at, (name, one) in enumerate(RUN_MEASURES.items()):
        first, second = (side.cells[:, :, at] for side in sides)
        without = sides[0].without(at), sides[1].without(at)
        if (found := _compared(first, second, one.is_share, key.fold(name), draws, without)) is not None:
            measures[name] = found
    shown = dict(zip(names[0], a.ids, strict=True))
    texts = [_texts(side, own, place) for side, own in zip((a, b), names, strict=True)]
    others = [dict(zip(own, side.ids, strict=True)) for side, own in zip((a, b), names, strict=True)]
    only = [tuple(ids[name] if by == BY_TEXT else name for name in ids if name and name not in place) for ids in others]
    return AgentComparison(
        by=by,
        problems=tuple(shown[name] if by == BY_TEXT else name for name in both),
        runs=(sides[0].runs, sides[1].runs),
        only=(only[0], only[1]),
        nameless=nameless,
        other_text=sum(not (texts[0][at] & texts[1][at]) for at in range(len(both))),
        seeds=seeds,
        other_seeds=(sides[0].left_out, sides[1].left_out),
        measures=measures,
        numbers=np.stack([side.by_problem() for side in sides], axis=1),
        counts=np.stack([side.counts for side in sides], axis=1),
    )


def _unmatched(by: str, names: Sequence[Sequence[str]], a: AgentRuns, b: AgentRuns) -> InputError:
    shown = [sorted({*(one.ids if by in (BY_ID, BY_TEXT) else own)} - {""})[:3] for one, own in
             zip((a, b), names, strict=True)]  # fmt: skip
    ids = " and ".join(", ".join(map(repr, some)) or "none" for some in shown)
    return InputError(
        f"no problem is in both, by their {by}: the first are {ids}",
        remedy="compare runs of the same problems, or name the field of facts or of meta that both share (by)",
    )


def _seeds(a: AgentRuns, b: AgentRuns) -> tuple[str, ...]:
    """Seeds that both have; none where no run names one."""
    found = [[name for name in dict.fromkeys(one.seeds) if name] for one in (a, b)]
    if not any(found):
        return ()
    both = tuple(name for name in found[0] if name in found[1])
    if len(both) < 2:
        shown = " and ".join(", ".join(some[:5]) or "none" for some in found)
        raise InputError(
            f"seeds are crossed with problems from two on, and both have {len(both)}: there are {shown}",
            remedy="leave the seeds out: runs of a problem are then its samples",
        )
    return both


def _texts(one: AgentRuns, names: Sequence[str], place: Mapping[str, int]) -> list[set[str]]:
    """The texts of each matched problem."""
    made: list[set[str]] = [set() for _ in place]
    for name, text in zip(names, one.texts, strict=True):
        if name in place:
            made[place[name]].add(text)
    return made


class _Side:
    """The numbers of one agent on matched problems: (K, P, M) means of each cell of a seed and a problem."""

    def __init__(self, one: AgentRuns, names: Sequence[str], place: Mapping[str, int], seeds: Sequence[str]) -> None:
        rows = {name: at for at, name in enumerate(seeds)} if seeds else {"": 0}
        at = [(rows.get(seed), place.get(name)) for seed, name in zip(one.seeds, names, strict=True)]
        kept = [number for number, (k, p) in enumerate(at) if k is not None and p is not None]
        self.left_out = sum(k is None and p is not None for k, p in at)
        self.runs = len(kept)
        cell = np.array([at[number] for number in kept], np.int64).reshape(-1, 2)
        self._values = np.array([one.rows[number] for number in kept]).reshape(-1, len(RUN_MEASURES))
        shape = (len(rows), len(place), len(RUN_MEASURES))
        self._sums, self._known = np.zeros(shape), np.zeros(shape)
        np.add.at(self._sums, (cell[:, 0], cell[:, 1]), np.nan_to_num(self._values))
        np.add.at(self._known, (cell[:, 0], cell[:, 1]), ~np.isnan(self._values))
        self.cells = _mean(self._sums, self._known)
        self.counts = np.bincount(cell[:, 1], minlength=len(place))

    def by_problem(self) -> Floats:
        """(P, M) means over all runs of a problem."""
        return _mean(self._sums.sum(axis=0), self._known.sum(axis=0))

    def without(self, at: int) -> int:
        """Runs that do not tell the number."""
        return int(np.isnan(self._values[:, at]).sum())


def _mean(sums: Floats, counts: Floats) -> Floats:
    return np.where(counts > 0, sums / np.where(counts > 0, counts, 1), np.nan)


def _compared(
    a: Floats, b: Floats, is_share: bool, key: Key, draws: int, without: tuple[int, int]
) -> ComparedMeasure | None:
    """A number of (K, P) cells of both; None where no problem has it from both."""
    known = ~np.isnan(a - b).any(axis=0)
    if not known.any():
        return None
    a, b = a[:, known], b[:, known]

    def estimate(cells: Floats, lowest: float) -> Estimate:
        bounds = (lowest, 1.0) if is_share else None
        made = (
            crossed_mean(cells, key, draws=draws, bounds=bounds) if len(cells) > 1
            else bootstrap(cells[0], key, draws=draws, bounds=bounds, expanded=True)
        )  # fmt: skip
        # One problem says nothing of others; where a number has no bounds, there is no interval to widen.
        lone = made.n < 2 and not is_share
        return Estimate(made.value, float("nan"), float("nan"), made.n) if lone else made

    difference = (a - b).mean(axis=0)
    return ComparedMeasure(
        estimate(a, 0.0), estimate(b, 0.0), estimate(a - b, -1.0),
        higher=int((difference > _EQUAL).sum()), lower=int((difference < -_EQUAL).sum()),
        equal=int((np.abs(difference) <= _EQUAL).sum()), runs_without=without,
    )  # fmt: skip
