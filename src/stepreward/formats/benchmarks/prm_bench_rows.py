"""PRMBench (arXiv:2501.03124) and Socratic-PRMBench (arXiv:2505.23474): solutions with errors put in, and originals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.labels import AfterError, relabel
from stepreward.formats.rows import Row, annotated, check_choice, need, other_fields, shown, steps_of, texts_of

CLASSES = frozenset(
    ("circular", "confidence", "counterfactual", "deception", "domain_inconsistency", "missing_condition",
     "multi_solutions", "redundency", "step_contradiction")
)  # fmt: skip
"""Of PRMBench; the spelling is the file's."""
PATTERNS = (
    "transformation_", "decomposition_", "regather_", "deduction_", "verification_", "integration_", "premise_",
    "repeat_", "conclusion_", "detection_", "correction_",
)  # fmt: skip
"""How the classes of Socratic-PRMBench begin; a class of neither is taken for one added to PRMBench."""
Which = Literal["modified", "original", "both"]


def _fits(row: Row) -> bool:
    return {"modified_process", "error_steps", "classification"} <= row.keys()


def is_prm_bench(row: Row) -> bool:
    """Whether a row looks like PRMBench."""
    return _fits(row) and not is_socratic(row)


def is_socratic(row: Row) -> bool:
    """Whether a row looks like Socratic-PRMBench."""
    known = row.get("classification")
    return _fits(row) and isinstance(known, str) and known not in CLASSES and known.startswith(PATTERNS)


def read(
    row: Row, number: int, *, which: Which = "modified", separator: str = "\n\n", after_first_error: AfterError = "keep"
) -> Iterator[Trajectory]:
    """Reads a modified solution and its `error_steps`, which count from 1; labels are 0 there and 1 elsewhere.

    A number past the last step is kept in `meta["error_steps"]` and labels nothing, as in the authors' evaluation.
    `meta` holds the whole row besides, so that the row can be written again and results grouped by `classification`.

    Args:
        number: its 1-based number, used where the row has no `idx`.
        which: the modified solution, the original one (all steps right), or both in this order.
        separator: put at the end of each step.
        after_first_error: labels after the first wrong step; every step was judged.

    Raises:
        InputError: a field is missing, or an error step is no number.
    """
    check_choice("which", which, Which)
    errors: list[int] = need(row, "error_steps", list)
    for error in errors:
        if isinstance(error, bool) or not isinstance(error, int):
            raise InputError(f"'error_steps' must hold step numbers from 1, got {shown(error)}")
    name = f"{need(row, 'classification')}_{row.get('idx', number)}"
    for side in ("modified", "original"):
        if which not in (side, "both"):
            continue
        steps = steps_of(row.get(f"{side}_process"), separator, name=f"{side}_process")
        labels = np.ones(len(steps))
        inside = sorted(error - 1 for error in errors if 1 <= error <= len(steps)) if side == "modified" else []
        labels[inside] = 0.0
        question = need(row, f"{side}_question") if f"{side}_question" in row else need(row, "question")
        # Where every number is past the end the row claims an error that it does not show.
        first = inside[0] if inside else None if errors and side == "modified" else -1
        problem = Problem(name if side == "modified" else f"{name}-original", question)
        yield annotated(
            problem, steps, relabel(labels, after_first_error=after_first_error), "prm-bench annotators",
            first_error=first, facts={**other_fields(row, f"{side}_process", f"{side}_question"), "side": side},
        )  # fmt: skip


def write(item: Trajectory, *, separator: str = "\n\n", threshold: float = 0.5) -> dict[str, Any]:
    """One row of either benchmark: what `meta` kept, with this solution as its side; "unknown" where no class is known.

    Args:
        separator: taken from the end of each step.
        threshold: labels at or below it are error steps, where `meta` does not name them.
    """
    rest = dict(item.facts)
    side = rest.pop("side", "modified")
    texts, question = texts_of(item.steps, separator), item.problem.text
    wrong = [i + 1 for i in np.flatnonzero(item.labels <= threshold).tolist()]
    made = {f"{side}_question": question, f"{side}_process": texts}
    empty = {
        "original_question": question, "modified_question": question, "original_process": texts,
        "modified_process": texts, "modified_steps": wrong, "error_steps": wrong, "reason": "",
        "idx": item.problem.id, "question": question, "classification": "unknown",
    }  # fmt: skip
    return {**empty, **rest, **made}


FORMATS: tuple[Format, ...] = (
    Format("prm-bench", "solutions with errors put in, nine classes", is_prm_bench, read, write),
    Format("socratic-prm-bench", "solutions with errors put in, twenty classes", is_socratic, read, write),
)
