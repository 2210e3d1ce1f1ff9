"""The nouns that every verb takes and returns: problems, steps, trajectories with what was measured of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepreward.core.html_table import html_table
from stepreward.core.optional import optional

Kind = Literal["action", "observation"]
Message = Mapping[str, str]
"""A chat message: `{"role": ..., "content": ...}`."""

Floats = NDArray[np.float64]
LABEL, SCORE = "label", "score"
"""Step columns that training and evaluation read; the scores of a verifier with a name are `score:NAME`."""
TESTS = (
    "test", "test_list", "tests", "test_cases", "input_output", "public_test_cases", "private_test_cases",
    "generated_tests",
)  # fmt: skip
"""Fields of a programming problem's `meta` that hold its tests, in the layouts of public data sets."""
TOOLS = "tools"
"""Key of a problem's `meta`: definitions of the tools that an agent may call, as chat templates take them."""
COLUMNS = ("value", "n_rollouts", "n_correct", "low", "high")
"""Step columns that rollouts measure beside the label."""

Steps = NDArray[np.floating[Any]]
"""(B, S) numbers of steps."""
StepMask = NDArray[np.bool_]
"""(B, S), True where a step is real."""
Groups = NDArray[np.integer[Any]]
"""(B,) problem index of each trajectory."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A task to solve, with the reference that its grader needs."""

    id: str
    """Unique within a run: random numbers, caches and shards are keyed by it."""
    prompt: str | tuple[Message, ...]
    """A plain string is sugar for one user message."""
    reference: str | None = None
    """Gold answer, or None where there is none."""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Anything else a grader or report needs; JSON values only."""

    @property
    def gradable(self) -> bool:
        """Whether it has what a grader compares with: a reference, or tests."""
        return self.reference is not None or any(self.meta.get(name) for name in TESTS)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt as chat messages."""
        return ({"role": "user", "content": self.prompt},) if isinstance(self.prompt, str) else self.prompt

    @property
    def read_by_scorers(self) -> tuple[str, str, str | None, str]:
        """Its id, and what scorers read of it: problems that differ in it do not share scores."""
        tools = self.meta.get(TOOLS)
        return self.id, self.text, self.reference, json.dumps(tools, sort_keys=True) if tools else ""

    @property
    def text(self) -> str:
        """The prompt as one string: the contents of its messages, joined by blank lines."""
        return self.prompt if isinstance(self.prompt, str) else "\n\n".join(m["content"] for m in self.prompt)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a trajectory; concatenating the texts gives the trajectory's text back."""

    text: str
    """The characters of the step, its own trailing separator included."""
    kind: Kind = "action"
    """`action` is scored and trained on, `observation` (tool output, other speakers) is context only."""
    role: str = "assistant"
    """Chat role of the text."""
    agent: str | None = None
    """Speaker in a multi-agent system."""
    images: tuple[str, ...] = ()
    """Paths or URIs of images that belong to the step."""
    tokens: tuple[int, ...] | None = None
    """Token ids as the policy sampled them; None where not known."""
    logprobs: tuple[float, ...] | None = None
    """Log-probability of each token under the policy, natural log; None where not measured."""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Anything else; JSON values only."""

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two steps the same step: everything but the measurements (`logprobs`, `meta`)."""
        return (self.text, self.kind, self.role, self.agent, self.images, self.tokens)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who measured step columns, and how: enough to measure them again."""

    estimator: str
    """Registered name of the method, or name of the data set's annotators."""
    policy: str = ""
    """Name of the policy that wrote the solution or whose rollouts were counted."""
    grader: str = ""
    """Name of the outcome grader."""
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters of the method; JSON values only."""
    what: tuple[str, ...] = (LABEL,)
    """Names of the step columns that were measured; empty where only the solution itself came from there."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One attempt at a problem, possibly unfinished, with all that was measured of it: a row of the table.

    Labels, scores and values are step columns: arrays (S,) by name, NaN where not measured, never 0. Two trajectories
    are equal if they are the same attempt; columns, facts and provenance do not count.

    Raises:
        ValueError: a step column has another length than the steps.
    """

    problem: Problem
    steps: tuple[Step, ...]
    outcome: float = float("nan")
    """Grade in [0, 1]; NaN where not measured."""
    terminal: bool = True
    """False if the trajectory was cut before its end."""
    answer: str | None = field(default=None, compare=False)
    """Final answer, where a data set or a grader states it."""
    first_error: int | None = field(default=None, compare=False)
    """0-based index of the first wrong step, -1 if none; None where it is not stated."""
    columns: Mapping[str, Floats] = field(default_factory=dict, compare=False)
    """Step columns (S,) by name: `label` in [0, 1], `score`, `score:NAME`, `value`, `n_rollouts`, any other name."""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Anything else of the attempt (subset, category, total, root_value); JSON values only."""
    provenance: tuple[Provenance, ...] = field(default=(), compare=False)
    """Who measured which columns."""

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if len(values) != len(self.steps):
                what = f"a trajectory of problem {self.problem.id!r} has {len(self.steps)} steps"
                raise ValueError(f"{what} and {len(values)} entries in the column {name!r}")

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        said = f"Trajectory of {self.problem.id!r}: {len(self):,} steps, outcome {self.outcome:.3g}"
        said += "" if self.answer is None else f", answer {self.answer!r:.60}"
        return f"<{said}{'' if self.terminal else ', cut'}; columns: {', '.join(self.columns) or 'none'}>"

    def _repr_html_(self) -> str:
        rows = step_rows(self, self.columns)
        return html_table(("step", "kind", "text", *self.columns), rows, caption=repr(self)[1:-1])

    def to_pandas(self) -> Any:
        """A pandas data frame with one row a step: `step`, `kind`, `text` and every step column.

        Raises:
            ModelError: pandas is not installed.
        """
        columns = ["step", "kind", "text", *self.columns]
        return optional("pandas").DataFrame(step_rows(self, self.columns), columns=columns)

    @property
    def text(self) -> str:
        """The text of all steps, as it was written."""
        return "".join(step.text for step in self.steps)

    @property
    def action(self) -> NDArray[np.bool_]:
        """(S,) True at actions, which alone are labelled and scored."""
        return np.array([step.kind == "action" for step in self.steps], bool)

    @property
    def labels(self) -> Floats:
        """(S,) what training reads, in [0, 1]; NaN where a step is not supervised."""
        return self.column(LABEL)

    @property
    def scores(self) -> dict[str, Floats]:
        """Step scores (S,) by name of the verifier; `score` where it has no name."""
        mine = ((name, values) for name, values in self.columns.items() if name.split(":")[0] == SCORE)
        return {name.removeprefix(f"{SCORE}:"): values for name, values in mine}

    def column(self, name: str) -> Floats:
        """(S,) a step column, NaN where it was not measured."""
        return self.columns[name] if name in self.columns else np.full(len(self.steps), np.nan)

    def prefix(self, length: int) -> tuple[Step, ...]:
        """The first `length` steps."""
        return self.steps[:length]

    def with_steps(self, steps: Sequence[Step]) -> Trajectory:
        """The attempt in other words: nothing is measured of its steps."""
        return replace(self, steps=tuple(steps), first_error=None, columns={}, provenance=())

    def only(self, keep: NDArray[np.bool_]) -> Trajectory:
        """The steps where `keep` (S,) is True, with their entries of every column; the first error stays as it is."""
        columns = {name: values[keep] for name, values in self.columns.items()}
        return replace(self, steps=tuple(s for s, kept in zip(self.steps, keep, strict=True) if kept), columns=columns)

    def with_columns(self, columns: Mapping[str, Floats], by: Provenance | None = None) -> Trajectory:
        """The trajectory with more step columns, in place of those of the same names.

        Args:
            columns: (S,) by name.
            by: who measured them; their names become its `what`, and no other provenance claims them any longer.
        """
        made = replace(self, columns={**self.columns, **columns})
        if by is None:
            return made
        others = []
        for one in self.provenance:
            left = tuple(name for name in one.what if name not in columns)
            others += [replace(one, what=left)] if left or not one.what else []
        return replace(made, provenance=(*others, replace(by, what=tuple(columns))))


def step_rows(trajectory: Trajectory, names: Iterable[str]) -> Iterator[tuple[object, ...]]:
    """One tuple a step: its index, kind and text, and its number in each of the columns, NaN where not measured."""
    columns = [trajectory.column(name).tolist() for name in names]
    for index, step in enumerate(trajectory.steps):
        yield (index, step.kind, step.text, *(column[index] for column in columns))


def score_column(name: str) -> str:
    """The step column of a verifier's scores."""
    return SCORE if name == SCORE else f"{SCORE}:{name}"


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
    """How good the data set says each candidate is, higher is better; 1 and 0 for chosen and rejected."""
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
