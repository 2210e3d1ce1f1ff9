"""Answers as bytes: JSON that gives back equal answers, NaN and lone surrogates included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.runtime.acts import Observation
from stepreward.core.runtime.flows import Continuation, Judged, Scored
from stepreward.core.types import Step

Answered = Sequence[Continuation] | Scored | Judged | Observation | float | str | None
"""The answer to a `Propose`, `Score`, `Compare`, `Act`, `Grade` (a float, NaN where unknown) or `Extract` (a str or
None)."""
_STEP_DEFAULTS = asdict(Step(""))


def encode(answer: Answered) -> bytes:
    """The answer as one line of ASCII."""
    return json.dumps(_row(answer), separators=(",", ":")).encode()


def decode(data: bytes) -> Answered:
    """The answer that was encoded.

    Raises:
        ValueError, KeyError, TypeError: the bytes are no answer.
    """
    row = json.loads(data)
    if "chance" in row:
        return Judged(float(row["chance"]), row["tokens"])
    if "scores" in row:
        columns = {name: _floats(values) for name, values in row.get("columns", {}).items()}
        return Scored(_floats(row["scores"]), row["tokens"], row["unshared"], columns)
    if "shown" in row:
        reward, outcome = (np.nan if row[name] is None else float(row[name]) for name in ("reward", "outcome"))
        shown = tuple(map(_decode_step, row["shown"]))
        paid = {name: row[name] for name in ("cost", "tokens") if name in row}
        return Observation(shown, row["done"], reward, outcome, row["answer"], row["seconds"], **paid)
    if "grade" in row:
        return np.nan if row["grade"] is None else float(row["grade"])
    if "stated" in row:
        stated: str | None = row["stated"]
        return stated
    return [Continuation(**{**c, "steps": tuple(map(_decode_step, c["steps"]))}) for c in row["continuations"]]


def _row(answer: Answered) -> dict[str, Any]:
    if answer is None or isinstance(answer, str):
        return {"stated": answer}
    if isinstance(answer, Judged):
        return {"chance": answer.chance, "tokens": answer.tokens}
    if isinstance(answer, Scored):
        row = {"scores": _plain(answer.scores), "tokens": answer.tokens, "unshared": answer.tokens_unshared}
        columns = {name: _plain(values) for name, values in answer.columns.items()}
        return row | ({"columns": columns} if columns else {})
    if isinstance(answer, Observation):
        known = {name: getattr(answer, name) for name in ("done", "answer", "seconds")}
        known |= {name: None if np.isnan(value := getattr(answer, name)) else value for name in ("reward", "outcome")}
        known |= {name: value for name in ("cost", "tokens") if (value := getattr(answer, name))}
        return {"shown": [*map(_encode_step, answer.steps)], **known}
    if isinstance(answer, float | int):
        return {"grade": None if np.isnan(answer) else float(answer)}
    kept = ("finished", "n_tokens", "truncated", "n_prompt_tokens")
    return {
        "continuations": [
            {"steps": [*map(_encode_step, one.steps)], **{name: getattr(one, name) for name in kept}} for one in answer
        ]
    }


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    """Numbers as JSON has them: null for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _encode_step(step: Step) -> dict[str, Any]:
    values = {name: getattr(step, name) for name in _STEP_DEFAULTS}
    return {name: value for name, value in values.items() if name == "text" or value != _STEP_DEFAULTS[name]}


def _decode_step(row: dict[str, Any]) -> Step:
    lists = {name: tuple(row[name]) for name in ("images", "tokens", "logprobs") if row.get(name) is not None}
    return Step(**{**row, **lists})
