"""TDRM's rows (arXiv:2509.15110): two states of a solution, the later one or three steps on, and rewards between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, need, shown


def matches(row: Row) -> bool:
    """Whether a row looks like TDRM's."""
    inner = row.get("conversations")
    return isinstance(inner, Mapping) and {"question", "state1"} <= inner.keys()


def read(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads `conversations`: `question`, `state1`, `state2` or `state3`, rewards, `label` and `done`.

    The first step is the text of state1, the second what the later state adds. A value target needs a critic, so
    steps have no labels, but for the last one where `done` says that the solution ends: its answer's label. Rewards
    are kept in `meta`.

    Args:
        number: its 1-based number; the problem's id.

    Raises:
        InputError: a field is missing, the later state does not begin with the first, or the label is no number in
            [0, 1].
    """
    inner = need(row, "conversations", Mapping)
    first = need(inner, "state1")
    # A row has state3 where the solution continues that far, else state2, else only state1.
    later = next((inner[name] for name in ("state3", "state2") if isinstance(inner.get(name), str)), "")
    if later and not later.startswith(first):
        raise InputError(f"the later state must begin with 'state1', got {shown(later)}")
    texts = [text for text in (first, later[len(first) :]) if text]
    if not texts:
        raise InputError("'state1' is empty and there is no later state")
    label = need(inner, "label", (bool, int, float))
    if not 0 <= label <= 1:
        raise InputError(f"'label' must be in [0, 1], got {shown(label)}")
    labels = np.full(len(texts), np.nan)
    if inner.get("done"):
        labels[-1] = float(label)
    rewards = {name: inner[name] for name in inner if name.startswith("reward") or name == "state3_mask"}
    yield annotated(
        Problem(f"tdrm-{number}", need(inner, "question")), tuple(Step(text) for text in texts), labels,
        "tdrm answers", outcome=float(label), facts=rewards,
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (Format("tdrm", "two states of a solution with rewards", matches, read),)
