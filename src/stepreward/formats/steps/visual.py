"""Steps about images: VisualPRM400K as measured, and VisualProcessBench (both arXiv:2503.10291)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterError, Neutral, label_array, labelled, null_for_nan, relabel, three_valued
from stepreward.formats.rows import (
    Row,
    annotated,
    need,
    other_fields,
    shown,
    steps_of,
    text_or_none,
    texts_of,
    written_by,
)
from stepreward.formats.steps.rlhflow import images_of


def read_measured(
    row: Row,
    number: int,
    *,
    separator: str = "\n\n",
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `image`, `question`, `answer` and `steps_with_score`; image paths are the problem's `meta["images"]`.

    Args:
        number: its 1-based number, used where the row has no `id`.
        separator: put at the end of each step.
        threshold: scores above it become 1, as the authors train with 0; None keeps them soft.
        after_first_error: scores after the first 0.

    Raises:
        InputError: a field is missing, there is no step, or a score is outside [0, 1].
    """
    entries = need(row, "steps_with_score", list)
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise InputError(f"'steps_with_score' must hold objects, got {shown(entries)}")
    steps = steps_of([entry.get("step") for entry in entries], separator, name="steps_with_score")
    labels = label_array([entry.get("score") for entry in entries], len(steps), name="score")
    problem = Problem(
        str(row.get("id", f"visual-prm-{number}")), need(row, "question"), reference=text_or_none(row.get("answer")),
        meta={"images": images_of(row.get("image"))},
    )  # fmt: skip
    # How many rollouts there were, and how many right: a score of 1/16 and one of 1/2 are not equally sure.
    counts = [{name: entry[name] for name in ("num_mc_correct", "num_mc_total") if name in entry} for entry in entries]
    yield labelled(
        problem, steps, labels, "visual-prm rollouts", threshold=threshold, after_first_error=after_first_error,
        facts={**other_fields(row, "id", "image", "question", "answer", "steps_with_score"), "counts": counts},
    )  # fmt: skip


def write_measured(item: Trajectory, *, separator: str = "\n\n") -> dict[str, Any]:
    """One row of VisualPRM400K as measured; a label that was not measured is null.

    Args:
        separator: taken from the end of each step.
    """
    texts, labels = texts_of(item.steps, separator), null_for_nan(item.labels)
    counts = item.facts.get("counts") or [{}] * len(texts)
    problem = item.problem
    return {
        "image": problem.meta.get("images", []),
        "question": problem.text,
        "answer": problem.reference,
        "response": separator.join(texts),
        "steps_with_score": [
            {"step": text, "score": label, **count} for text, label, count in zip(texts, labels, counts, strict=True)
        ],
    }


def is_bench(row: Row) -> bool:
    """Whether a row looks like VisualProcessBench."""
    response = row.get("response")
    return isinstance(response, Mapping) and {"steps", "process_correctness"} <= response.keys()


def read_bench(
    row: Row,
    number: int,
    *,
    separator: str = "\n\n",
    neutral: Neutral = "mask",
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `image`, `question`, `answer`, `response` and its 1, 0, -1 for right, neutral and wrong steps.

    People judged every step, those after the first error too.

    Args:
        number: its 1-based number; the problem's id.
        separator: put at the end of each step.
        neutral: label 0; not supervised by default, as the benchmark leaves it out.
        after_first_error: labels after the first wrong step.

    Raises:
        InputError: a field is missing, or a label is not 1, 0 or -1.
    """
    response = need(row, "response", Mapping)
    steps = steps_of(response.get("steps"), separator)
    ratings = need(response, "process_correctness", list)
    labels = three_valued(ratings, len(steps), neutral=neutral, name="process_correctness")
    labels = relabel(labels, after_first_error=after_first_error)
    problem = Problem(
        f"visual-process-bench-{number}", need(row, "question"), reference=text_or_none(row.get("answer")),
        meta={"images": images_of(row.get("image"))},
    )  # fmt: skip
    yield annotated(
        problem, steps, labels, "visual-process-bench annotators", policy=str(row.get("policy_model", "")),
        # From the ratings: a neutral step has no label, and would hide the first error behind it.
        first_error=ratings.index(-1) if -1 in ratings else -1,
        facts={"subset": str(row.get("data_source", "")), "ratings": list(ratings)},
    )  # fmt: skip


def write_bench(item: Trajectory, *, separator: str = "\n\n") -> dict[str, Any]:
    """One row of VisualProcessBench: labels 1 and 0 are 1 and -1; the rest is neutral unless the row's ratings say.

    Args:
        separator: taken from the end of each step.
    """
    ratings = item.facts.get("ratings") or [{1.0: 1, 0.0: -1}.get(label, 0) for label in item.labels.tolist()]
    problem = item.problem
    return {
        "image": problem.meta.get("images", []),
        "question": problem.text,
        "answer": problem.reference,
        "response": {"steps": texts_of(item.steps, separator), "process_correctness": ratings},
        "policy_model": written_by(item),
        "data_source": item.facts.get("subset", ""),
    }


FORMATS: tuple[Format, ...] = (
    Format("visual-prm", "steps about images with expected accuracies", has("question", "steps_with_score"),
           read_measured, write_measured),
    Format("visual-process-bench", "steps about images rated 1, 0, -1 by people", is_bench, read_bench, write_bench),
)  # fmt: skip
