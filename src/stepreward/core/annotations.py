"""Solutions as data sets annotate them, and candidates as data sets compare them: what formats read and benchmarks use.

`Labels` are what this library measured; these are what somebody else states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.types import Labels, Problem, Provenance, Trajectory, first_error

Floats = NDArray[np.float64]
COLUMNS = ("value", "n_rollouts", "n_correct", "low", "high")
"""What rollouts measure of a step beside its label, as step columns."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """One solution as a data set annotates it."""

    trajectory: Trajectory
    labels: Floats
    """(S,) in [0, 1]; NaN where the data set says nothing."""
    provenance: Provenance
    """`estimator` names the annotators, `policy` the model that wrote the solution."""
    first_error: int | None = None
    """Index of the first wrong step, -1 if none; None where the data set does not say."""
    answer: str | None = None
    """The final answer, where the data set states it."""
    scores: Mapping[str, Floats] = field(default_factory=dict)
    """Recorded step scores by name of the verifier, each (S,); NaN where not recorded."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What a benchmark groups by (subset, category), and what a writer needs to give the row back; JSON values only."""

    columns: Mapping[str, Floats] = field(default_factory=dict)
    """Any other numbers of each step by name, each (S,), NaN where not measured; those of `COLUMNS` among them."""
    others: tuple[Mapping[str, Any], ...] = ()
    """Who measured the other columns: `what`, their names, and the fields of a provenance; JSON values only."""

    @classmethod
    def from_labels(cls, labels: Labels) -> Annotated:
        """Labels with all that was measured; the root's value and the transforms are facts."""
        known = bool((~np.isnan(labels.label)).any())
        facts: dict[str, Any] = {} if np.isnan(labels.root_value) else {"root_value": float(labels.root_value)}
        facts |= {"transforms": list(labels.transforms)} if labels.transforms else {}
        return cls(
            labels.trajectory, labels.label, labels.provenance, first_error(labels.label) if known else None,
            meta=facts, columns={name: np.asarray(getattr(labels, name), np.float64) for name in COLUMNS},
        )  # fmt: skip

    def to_labels(self) -> Labels:
        """The same as `Labels`; without rollouts, value and label are equal."""
        nothing = np.full(len(self.labels), np.nan)
        floats = {name: self.columns.get(name, nothing).copy() for name in COLUMNS}
        counts = {name: np.nan_to_num(floats[name]).astype(np.int64) for name in ("n_rollouts", "n_correct")}
        value = floats["value"] if "value" in self.columns else self.labels
        return Labels(
            self.trajectory, value=value, low=floats["low"], high=floats["high"], label=self.labels.copy(),
            n_rollouts=counts["n_rollouts"], n_correct=counts["n_correct"],
            root_value=float(self.meta.get("root_value", np.nan)), provenance=self.provenance,
            transforms=tuple(self.meta.get("transforms", ())),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate solutions or answers to one problem, with which of them a data set prefers.

    A pair of chosen and rejected is two candidates; best-of-k benchmarks have more.

    Raises:
        ValueError: the numbers of candidates and preferences differ.
    """

    problem: Problem
    candidates: tuple[Trajectory, ...]
    """At least two, all of `problem`; an answer that is no chain of steps is a trajectory of one step."""
    preferred: tuple[float, ...]
    """How good each candidate is held to be, higher is better; 1 and 0 for chosen and rejected."""
    subset: str = ""
    """Category by which results are grouped."""
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Recorded score of each candidate by name of the scorer."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Anything else of the row; JSON values only."""
    step_scores: Mapping[str, tuple[Floats, ...]] = field(default_factory=dict)
    """Recorded scores of each candidate's steps by name of the scorer, which an aggregation makes one; a recorded text
    may have been cut into other steps than the candidate's."""

    def __post_init__(self) -> None:
        if len(self.candidates) != len(self.preferred):
            raise ValueError(f"{len(self.candidates)} candidates have {len(self.preferred)} preferences")
