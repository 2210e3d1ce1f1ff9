"""What OmegaPRM (arXiv:2406.06592) of OpenR writes: a tree of steps with Monte Carlo values, or its prefixes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.labels import AfterError, labelled
from stepreward.formats.rows import Row, need, shown, text_or_none


@dataclass(frozen=True, slots=True)
class _Path:
    """The steps from the problem to a leaf."""

    texts: tuple[str, ...]
    values: tuple[float, ...]


def is_tree(row: Row) -> bool:
    """Whether a row looks like a tree of OmegaPRM."""
    tree = row.get("reasoning_steps")
    return "question" in row and isinstance(tree, Mapping) and {"text", "children"} <= tree.keys()


def is_prefixes(row: Row) -> bool:
    """Whether a row looks like OmegaPRM's prefixes."""
    found = row.get("reasoning_steps")
    return "question" in row and isinstance(found, list) and isinstance(found[0] if found else None, Mapping)


def _value(node: object, where: str) -> float:
    value = node.get("mc_value") if isinstance(node, Mapping) else None
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"'mc_value' of {where} must be in [0, 1], got {shown(value)}", remedy="null if unknown")
    return float(value)


def _leaves(root: Mapping[str, Any]) -> Iterator[_Path]:
    """Paths to all leaves, first child first; a stack, since a tree may be deeper than Python calls."""
    stack: list[tuple[Mapping[str, Any], _Path]] = [(root, _Path((), ()))]
    while stack:
        node, path = stack.pop()
        children = node.get("children") or []
        if not children and path.texts:
            yield path
        for child in reversed(children):
            if not isinstance(child, Mapping) or not isinstance(child.get("text"), str):
                raise InputError(f"a node needs a 'text', got {shown(child)}")
            value = _value(child, f"a step at depth {len(path.texts) + 1}")
            stack.append((child, _Path((*path.texts, child["text"]), (*path.values, value))))


def _solutions(
    row: Row, number: int, paths: Iterator[_Path], root: float, *, separator: str, **how: Any
) -> Iterator[Trajectory]:
    """The paths as solutions; `how` says what becomes of labels, as in `labelled`."""
    answer = text_or_none(row.get("final_answer"))
    meta = {} if math.isnan(root) else {"root_value": root}
    problem = Problem(f"omega-prm-{row.get('question_id', number)}", need(row, "question"), answer, meta)
    any_path = False
    for path in paths:
        any_path = True
        steps = tuple(Step(text + separator) for text in path.texts)
        yield labelled(problem, steps, np.array(path.values), "omega-prm rollouts", **how)
    if not any_path:
        raise InputError("there is no step after the question")


def read_tree(
    row: Row,
    number: int,
    *,
    separator: str = "\n",
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `question`, `final_answer` and the nested `reasoning_steps`: one solution for each leaf.

    The root is the question; its value is the problem's `meta["root_value"]`. Solutions share their prefixes, so a
    step tree of them is the tree of the file.

    Args:
        number: its 1-based number, used where the row has no `question_id`.
        separator: put at the end of each step; the file drops what stood between them.
        threshold: values above it become 1, as OpenR trains with 1/2; None keeps them soft.
        after_first_error: values after the first 0.

    Raises:
        InputError: a field is missing, a value is outside [0, 1], or the root is a leaf.
    """
    root = need(row, "reasoning_steps", Mapping)
    yield from _solutions(
        row, number, _leaves(root), _value(root, "the root"), separator=separator, threshold=threshold,
        after_first_error=after_first_error,
    )  # fmt: skip


def _prefix_paths(question: str, values: Mapping[str, list[float]]) -> Iterator[_Path]:
    """Paths of the prefixes that no other extends; sorted, each follows directly those that it extends."""
    # In the order of texts a prefix comes directly before those that extend it: the chain is the path to the last one.
    chain: list[str] = []
    ordered = sorted(values)
    for prefix, following in zip(ordered, [*ordered[1:], ""], strict=True):
        while chain and not prefix.startswith(chain[-1]):
            chain.pop()
        chain.append(prefix)
        if not following.startswith(prefix):
            texts = tuple(full[len(above) :].strip() for above, full in zip([question, *chain], chain, strict=False))
            yield _Path(texts, tuple(float(np.mean(values[full])) for full in chain))


def read_prefixes(
    row: Row,
    number: int,
    *,
    separator: str = "\n",
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `question` and flat `reasoning_steps`: each a prefix, question and all, with its value.

    The steps are won back: where one prefix extends another, what it adds is the next step. One solution comes out
    for each prefix that no other extends; a prefix that occurs twice has the mean of its values.

    Args:
        number: its 1-based number, used where the row has no `question_id`.
        separator: put at the end of each step; white space between prefixes is dropped.
        threshold: values above it become 1, as OpenR trains with 1/2; None keeps them soft.
        after_first_error: values after the first 0.

    Raises:
        InputError: a field is missing, a value is outside [0, 1], or a prefix does not begin with the question.
    """
    question = need(row, "question")
    values: dict[str, list[float]] = {}
    root = math.nan
    for i, entry in enumerate(need(row, "reasoning_steps", list)):
        text = entry.get("solution_prefix") if isinstance(entry, Mapping) else None
        if not isinstance(text, str) or not text.startswith(question):
            raise InputError(f"prefix {i} must begin with the question, got {shown(text)}")
        value = _value(entry, f"prefix {i}")
        if text[len(question) :].strip():
            values.setdefault(text.rstrip(), []).append(value)
        else:
            root = value
    yield from _solutions(
        row, number, _prefix_paths(question, values), root, separator=separator, threshold=threshold,
        after_first_error=after_first_error,
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("omega-prm-tree", "nested steps with Monte Carlo values", is_tree, read_tree),
    Format("omega-prm-prefixes", "flat prefixes with Monte Carlo values", is_prefixes, read_prefixes),
)
