"""MAST (arXiv:2503.13657): traces of multi-agent systems, with which of 14 modes they fail by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, annotated, need, shown

MODES: Mapping[str, str] = {
    "1.1": "disobey task specification", "1.2": "disobey role specification", "1.3": "step repetition",
    "1.4": "loss of conversation history", "1.5": "unaware of termination conditions",
    "2.1": "conversation reset", "2.2": "fail to ask for clarification", "2.3": "task derailment",
    "2.4": "information withholding", "2.5": "ignored other agent's input", "2.6": "reasoning-action mismatch",
    "3.1": "premature termination", "3.2": "no or incomplete verification", "3.3": "incorrect verification",
}  # fmt: skip
"""The failure modes by number: of the system's design, between agents, and of verification."""


def _modes(value: object, name: str) -> dict[str, int | None]:
    """0, 1 or None for each mode.

    Raises:
        InputError: it is no object, or a value is none of these.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"'{name}' must hold 0 or 1 by mode, got {shown(value)}")
    made: dict[str, int | None] = {}
    for mode in MODES:
        one = value.get(mode)
        if one is not None and (not isinstance(one, bool | int | float) or one not in (0, 1)):
            raise InputError(f"mode {mode} of '{name}' must be 0 or 1, got {shown(one)}", remedy="null if unknown")
        made[mode] = None if one is None else int(one)
    return made


def _failed(modes: Mapping[str, int | None]) -> float:
    """0 if any mode is there, 1 if none is; NaN where that is not known."""
    if 1 in modes.values():
        return 0.0
    return float("nan") if None in modes.values() else 1.0


def read(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads `mast_annotation`, 0 or 1 for each of the 14 modes, and what judges say in the same layout.

    The trace, a text in `trace.trajectory`, is one step: its label, and the score of a judge, is 1 where no failure is
    seen and 0 where one is. `judged` is ours: it holds modes by the judge's name; a mode without an entry is unknown.
    The facts `modes` and `modes:JUDGE` hold what is said of each mode. The layout is the data card's; no file was seen.

    Args:
        row: the row; `benchmark_name` becomes the subset.
        number: its 1-based number, used where the row has no `trace_id`.

    Raises:
        InputError: a field is missing, or a mode is not 0, 1 or null.
    """
    trace: Mapping[str, Any] = need(row, "trace", Mapping)
    text = need(trace, "trajectory")
    if not text.strip():
        raise InputError("'trace.trajectory' is empty", remedy="drop the row")
    judged = row.get("judged") or {}
    if not isinstance(judged, Mapping):
        raise InputError(f"'judged' must hold modes by each judge's name, got {shown(judged)}")
    gold = _modes(row.get("mast_annotation"), "mast_annotation")
    said = {str(name): _modes(value, f"judged.{name}") for name, value in judged.items()}
    system, model = str(row.get("mas_name") or ""), str(row.get("llm_name") or "")
    subset = str(row.get("benchmark_name") or "")
    name = "-".join(part for part in (system, model, subset, str(row.get("trace_id", number))) if part)
    yield annotated(
        Problem(f"mast-{name}", ""), (Step(text),), np.array([_failed(gold)]), "mast annotators", policy=model,
        scores={judge: np.array([_failed(modes)]) for judge, modes in said.items()},
        facts={"subset": subset, "system": system, "modes": gold, **{f"modes:{one}": of for one, of in said.items()}},
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("mast", "MAST: failure modes of multi-agent traces", has(mast_annotation=Mapping, trace=Mapping), read),
)
