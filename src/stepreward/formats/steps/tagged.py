"""One text whose steps each end in a tag, with a list of labels beside it: OpenRLHF's process rows and ER-PRM's.

Math-Shepherd writes the labels into a second text instead; see `math_shepherd`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.labels import AfterError, Unknown, fully_labelled, labelled, signed_labels
from stepreward.formats.rows import Row, check_choice, id_of, need, other_fields, shown

TAG = "ки"
"""Math-Shepherd's: one token of Mistral's vocabulary, which occurs in no solution."""
MARK = "Step 1:"
Key = Literal["value", "label"]


def pieces_of(text: str, tag: str, *, name: str) -> list[str]:
    """The texts before each tag.

    Raises:
        InputError: no tag is there, or there is text after the last.
    """
    if not tag:
        raise InputError("tag must not be empty", remedy="name the characters that end each step")
    *pieces, rest = text.split(tag)
    if not pieces:
        raise InputError(f"'{name}' has no step: no '{tag}' in {shown(text)}", remedy="drop the row or name its tag")
    if rest.strip():
        raise InputError(f"text after the last '{tag}': {shown(rest)}", remedy=f"end the last step with '{tag}'")
    return pieces


def parted(text: str, mark: str) -> tuple[str, str]:
    """The question and the first step, which begins with `mark`; an empty mark leaves the question in the step.

    Raises:
        InputError: the mark is not there.
    """
    start = text.find(mark)
    if start < 0:
        raise InputError(
            f"'{mark}' must part the question from the steps; it is not in {shown(text)}",
            remedy="name with mark=... how the first step begins, or mark='' to leave the question inside it",
        )
    return text[:start].removesuffix(" "), text[start:]


def joined(item: Trajectory, tag: str, mark: str) -> str:
    """Question and steps as one text with the tag after each step; "Step i:" is put where the mark is "Step 1:".

    Raises:
        InputError: a text contains the tag.
    """
    lines = []
    for i, step in enumerate(item.steps, start=1):
        body, numbered = step.text.rstrip("\n"), f"Step {i}:"
        lines.append(body if mark != MARK or body.startswith(numbered) else f"{numbered} {body}")
    question = item.problem.text
    if any(tag in part for part in (question, *lines)):
        raise InputError(f"problem {item.problem.id} contains the tag '{tag}'", remedy="use another format")
    return (f"{question} " if question else "") + "\n".join(f"{line} {tag}" for line in lines)


def _solution(row: Row, by: str, name: str, key: str, *, tag: str, mark: str, **how: Any) -> Trajectory:
    """The text under `name` with the labels under `key`; `how` says what becomes of them, as in `labelled`."""
    pieces = pieces_of(need(row, name), tag, name=name)
    question, first = parted(pieces[0], mark)
    steps = tuple(Step(piece.removeprefix("\n").removesuffix(" ") + "\n") for piece in (first, *pieces[1:]))
    return labelled(
        Problem(id_of(by, question), question), steps, signed_labels(need(row, key, list), len(steps), name=key),
        f"{by} labels", facts=other_fields(row, name, key), **how,
    )  # fmt: skip


def is_openrlhf(row: Row) -> bool:
    """Whether a row looks like OpenRLHF's process rows."""
    labels = row.get("value", row.get("label"))
    return isinstance(row.get("input"), str) and TAG in row["input"] and isinstance(labels, list)


def read_openrlhf(
    row: Row,
    number: int,
    *,
    tag: str = TAG,
    mark: str = MARK,
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `input`, whose steps end in a placeholder, and `value` or `label`: a sign or a number for each of them.

    Args:
        number: its 1-based number; the problem's id is of its words.
        tag: the placeholder.
        mark: how the first step begins; the question comes before it.
        threshold: labels above it become 1; None keeps them soft.
        after_first_error: labels after the first 0.

    Raises:
        InputError: a field is missing, no tag or mark is there, or labels and tags differ in number.
    """
    # The framework's option `label_key` names the field: these are the names in use.
    key = "value" if "value" in row else "label"
    yield _solution(row, "openrlhf", "input", key, tag=tag, mark=mark, threshold=threshold,
                    after_first_error=after_first_error)  # fmt: skip


def write_openrlhf(
    item: Trajectory,
    *,
    tag: str = TAG,
    mark: str = MARK,
    key: Key = "value",
    threshold: float | None = None,
    unknown: Unknown = "cut",
) -> dict[str, Any]:
    """One OpenRLHF row.

    Args:
        tag: the placeholder to put after each step.
        mark: "Step i:" is put where a step has none, if this is "Step 1:".
        key: name of the field of labels.
        threshold: labels above it are written as "+", the others as "-"; None writes the numbers.
        unknown: what a label that was not measured becomes; the format cannot hold it.

    Raises:
        InputError: a text contains the tag, or an unknown option.
    """
    check_choice("key", key, Key)
    item = fully_labelled(item, unknown)
    numbers = item.labels.tolist()
    labels = numbers if threshold is None else ["+" if number > threshold else "-" for number in numbers]
    return {"input": joined(item, tag, mark), key: labels}


def is_er_prm(row: Row) -> bool:
    """Whether a row looks like ER-PRM's."""
    return isinstance(row.get("text"), str) and TAG in row["text"] and isinstance(row.get("value"), list)


def read_er_prm(
    row: Row,
    number: int,
    *,
    tag: str = TAG,
    mark: str = MARK,
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `text` and `value`, entropy-regularised values of arXiv:2412.11006.

    Args:
        number: its 1-based number; the problem's id is of its words.
        tag: what ends each step.
        mark: how the first step begins; the question comes before it.
        threshold: values above it become 1; None keeps them soft.
        after_first_error: values after the first 0.

    Raises:
        InputError: a field is missing, no tag or mark is there, or values and tags differ in number.
    """
    yield _solution(row, "er-prm", "text", "value", tag=tag, mark=mark, threshold=threshold,
                    after_first_error=after_first_error)  # fmt: skip


def write_er_prm(item: Trajectory, *, tag: str = TAG, mark: str = MARK, unknown: Unknown = "cut") -> dict[str, Any]:
    """One ER-PRM row.

    Args:
        tag: put after each step.
        mark: "Step i:" is put where a step has none, if this is "Step 1:".
        unknown: what a label that was not measured becomes; the format cannot hold it.

    Raises:
        InputError: a text contains the tag.
    """
    item = fully_labelled(item, unknown)
    return {"text": joined(item, tag, mark), "value": item.labels.tolist()}


FORMATS: tuple[Format, ...] = (
    Format("openrlhf", "tagged text and a list of labels", is_openrlhf, read_openrlhf, write_openrlhf),
    Format("er-prm", "tagged text and a list of soft values", is_er_prm, read_er_prm, write_er_prm),
)
