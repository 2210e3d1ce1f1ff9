"""What readers and writers of formats share: checked fields, steps of texts, and trajectories made of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import LABEL, Comparison, Floats, Problem, Provenance, Step, Trajectory, score_column

Row = Mapping[str, Any]


def check_choice(name: str, value: object, choices: Any) -> None:
    """Checks an option against the choices of its Literal type.

    Raises:
        InputError: it is none of them.
    """
    *first, last = get_args(choices)
    if value not in (*first, last):
        raise InputError(f"{name} must be {', '.join(first)} or {last}, got {value!r}")


def steps_of(texts: object, separator: str, *, name: str = "steps") -> tuple[Step, ...]:
    """Steps out of a list of strings, each with the separator at its end; `texts_of` takes it away again.

    Raises:
        InputError: not a list of strings, or an empty one.
    """
    if not isinstance(texts, Sequence | np.ndarray) or isinstance(texts, str) or not len(texts):
        what = f"'{name}' must be a list of at least one step, got {shown(texts)}"
        raise InputError(what, remedy="drop or fill the row")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"step {i} of '{name}' must be text, got {shown(text)}", remedy="quote it")
    return tuple(Step(text + separator) for text in texts)


def cut_steps(text: str, separator: str) -> tuple[Step, ...]:
    """The steps of a text, which joined are the text: each but the last ends in the separator; '' cuts nothing."""
    *whole, rest = text.split(separator) if separator else [text]
    # A text that ends in the separator has no further, empty step; an empty text is one step.
    return tuple(Step(part + separator) for part in whole) + ((Step(rest),) if rest or not whole else ())


def id_of(form: str, prompt: object) -> str:
    """An id made of the problem's words, where the rows give none: solutions of one problem share it."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    # Data sets have halves of surrogate pairs, where someone cut a text by UTF-16 units: no error, and an id.
    return f"{form}-{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}"


def texts_of(steps: Iterable[Step], separator: str) -> list[str]:
    """The texts without the one separator that `steps_of` added."""
    return [step.text.removesuffix(separator) for step in steps]


def need(row: Row, name: str, kind: type | tuple[type, ...] = str) -> Any:
    """The field of a row.

    Raises:
        InputError: the field is absent or not of this kind.
    """
    if name not in row:
        fields = ", ".join(map(str, row)) or "none"
        raise InputError(f"field '{name}' is missing; the row has {fields}", remedy=f"add '{name}' or name its format")
    value = row[name]
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # Parquet and pandas turn a column of integers with gaps into floats, -1 into -1.0.
    # In Python `True` is an int; in JSON `true` is no number.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, (int, float))):
        raise InputError(f"field '{name}' has the wrong type: {shown(value)}", remedy="see the format's description")
    return value


def other_fields(row: Row, *without: str) -> dict[str, Any]:
    """The other fields of a row, as far as they are JSON values."""
    return {
        name: value
        for name, value in row.items()
        if name not in without and isinstance(value, str | int | float | list | dict | None)
    }


def text_or_none(value: object) -> str | None:
    """A reference answer as text; None stays None."""
    return None if value is None else str(value)


def annotated(
    problem: Problem,
    steps: tuple[Step, ...],
    labels: Floats | None,
    by: str,
    *,
    policy: str = "",
    outcome: float = float("nan"),
    answer: str | None = None,
    first_error: int | None = None,
    scores: Mapping[str, Floats] | None = None,
    facts: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Trajectory:
    """A trajectory as a data set annotates it.

    Args:
        problem, steps: the attempt.
        labels: (S,) in [0, 1], NaN where the data set says nothing; None where it labels no step.
        by: who annotated.
        policy: the model that wrote the solution, where it is named.
        outcome, answer, first_error, facts: as of `Trajectory`.
        scores: (S,) recorded step scores by name of the verifier.
        settings: of the annotation.
    """
    columns = {} if labels is None or np.isnan(labels).all() else {LABEL: labels}
    who = Provenance(by, policy=policy, settings=settings or {}, what=tuple(columns))
    columns |= {score_column(name): values for name, values in (scores or {}).items()}
    return Trajectory(
        problem, steps, outcome, answer=answer, first_error=first_error, columns=columns, facts=facts or {},
        provenance=(who,),
    )  # fmt: skip


def compared(
    problem: Problem,
    candidates: Iterable[Sequence[Step]],
    preferred: Sequence[float],
    subset: str = "",
    *,
    terminal: bool = True,
    **rest: Any,
) -> Comparison:
    """A comparison of the candidates' steps.

    Args:
        problem: of all candidates.
        candidates: the steps of each.
        preferred: how good the data set says each is; a value in [0, 1] is the candidate's outcome too.
        subset: category by which results are grouped.
        terminal: whether candidates are whole attempts; False for next steps.
        rest: other fields of `Comparison`.
    """
    made = tuple(
        Trajectory(problem, tuple(steps), outcome=worth if 0 <= worth <= 1 else math.nan, terminal=terminal)
        for steps, worth in zip(candidates, preferred, strict=True)
    )
    return Comparison(problem, made, tuple(preferred), subset, **rest)


def written_by(item: Trajectory) -> str:
    """The name of the model that wrote the solution, "" where it is unknown."""
    return item.provenance[0].policy if item.provenance else ""


def shown(value: object) -> str:
    """The value as Python writes it, short enough for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
