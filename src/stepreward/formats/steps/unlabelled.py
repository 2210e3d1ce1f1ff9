"""Solutions without labels: a question and its steps, under the names that others give them."""

from __future__ import annotations

from collections.abc import Iterator

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, id_of, need, shown, steps_of, text_or_none

QUESTIONS = ("question", "prompt", "problem")
STEPS = ("steps", "completions")
_REMEDY = 'write {"question": "...", "steps": ["...", ...]}, or name its format'


def is_unlabelled(row: Row) -> bool:
    """Whether a row has a question and a list of steps, whatever else it has."""
    return any(isinstance(row.get(name), str) for name in QUESTIONS) and any(
        isinstance(row.get(name), list) for name in STEPS
    )


def read_unlabelled(row: Row, number: int, *, separator: str = "") -> Iterator[Trajectory]:
    """Reads a question and its steps; no label is known.

    Args:
        row: the row, with `question`, `prompt` or `problem`, `steps` or `completions`, and perhaps a `reference`.
        number: its 1-based number; the problem's id is of its words.
        separator: put at the end of each step.

    Raises:
        InputError: a field is missing or of the wrong type.
    """
    question, name = (next((name for name in names if name in row), names[0]) for names in (QUESTIONS, STEPS))
    prompt, texts = need(row, question), row.get(name)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"'{name}' must be a list of texts; got {shown(texts)}", remedy=_REMEDY)
    steps = steps_of(texts, separator, name=name)
    problem = Problem(id_of("unlabelled", prompt), prompt, reference=text_or_none(row.get("reference")))
    yield annotated(problem, steps, None, "none")


UNLABELLED = Format("unlabelled", "question, steps, no labels", is_unlabelled, read_unlabelled)
"""Not in the table of formats, since its fields are those of many others: `score` uses it where no label is needed."""
