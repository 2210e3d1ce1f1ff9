"""Any preference data in one layout of our own: a prompt, chosen and rejected candidates, their steps where known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Floats, Problem, Step
from stepreward.formats.agents.messages import answer_of, prompt_of
from stepreward.formats.format import Format
from stepreward.formats.labels import null_for_nan
from stepreward.formats.preferences.public_preferences import is_reward_bench
from stepreward.formats.rows import Row, compared, need, other_fields, shown, text_or_none

_OWN = ("id", "prompt", "chosen", "rejected", "candidates", "preferred", "subset", "reference", "scores", "meta",
        "problem_meta")  # fmt: skip
_ELSEWHERE = frozenset({"num_correct", "domain", "score_chosen", "initial_reason_steps"})
"""Fields by which RewardBench 2, RM-Bench, binarised preferences and Step-DPO differ from this layout."""


def matches(row: Row) -> bool:
    """Whether a row has the fields of this layout, and not those of a benchmark that has them too."""
    there = {name for name, value in row.items() if value is not None}
    if "prompt" not in there or _ELSEWHERE & there:
        return False
    named = {"chosen", "rejected"} <= there and not is_reward_bench(row)
    return named or {"candidates", "preferred"} <= there


def _step(value: object, separator: str) -> Step:
    """A text, which the separator ends, or an object with the step's `text` as it is."""
    if isinstance(value, str):
        return Step(value + separator)
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
        raise InputError(f"a step must be text, or an object with a 'text', got {shown(value)}")
    kind, images, meta = value.get("kind", "action"), value.get("images") or (), value.get("meta") or {}
    if kind not in ("action", "observation") or not isinstance(images, list | tuple) or not isinstance(meta, Mapping):
        what = f"'kind' of a step must be action or observation, 'images' a list, 'meta' an object: {shown(value)}"
        raise InputError(what, remedy="or leave them out")
    return Step(
        value["text"], kind=kind, role=str(value.get("role") or "assistant"), agent=text_or_none(value.get("agent")),
        images=tuple(map(str, images)), meta=dict(meta),
    )  # fmt: skip


def _steps(value: object, separator: str) -> tuple[Step, ...]:
    if isinstance(value, str):
        return (Step(value),)
    if not isinstance(value, list) or not value:
        raise InputError(f"a candidate must be text or a list of steps, got {shown(value)}")
    return tuple(_step(one, separator) for one in value)


def _side(value: object, name: str) -> list[Any]:
    """The candidates under a field: a list of them, or one, as a text or as messages that end with it."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise InputError(f"'{name}' must hold candidates, got {shown(value)}", remedy="write a list of texts")
    if value and all(isinstance(one, Mapping) and "role" in one for one in value):
        return [answer_of(value, name)]
    return value


def _candidates(row: Row) -> tuple[list[Any], list[float]]:
    """The value of each candidate's field, and how good the data says it is."""
    if row.get("candidates") is None:
        good, bad = (_side(row.get(name), name) for name in ("chosen", "rejected"))
        return [*good, *bad], [1.0] * len(good) + [0.0] * len(bad)
    every, worth = need(row, "candidates", list), need(row, "preferred", list)
    if len(worth) != len(every):
        raise InputError(f"{len(every)} candidates have {len(worth)} in 'preferred'", remedy="give one number each")
    for value in worth:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"'preferred' must hold numbers, got {shown(value)}", remedy="higher is better")
    return every, [float(value) for value in worth]


def _recorded(values: object, count: int) -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[Floats, ...]]]:
    """Recorded scores by name: of whole candidates, and of their steps."""
    whole: dict[str, tuple[float, ...]] = {}
    by_step: dict[str, tuple[Floats, ...]] = {}
    if not isinstance(values, Mapping):
        raise InputError(f"'scores' must name scorers, got {shown(values)}", remedy="or leave it out")
    for name, given in values.items():
        if given is None:
            continue  # A column of Parquet that other rows fill.
        if not isinstance(given, list) or len(given) != count:
            raise InputError(f"'scores' of {name} must be {count}, got {shown(given)}", remedy="one a candidate")
        if any(isinstance(one, list) for one in given):
            by_step[name] = tuple(_numbers(one if isinstance(one, list) else [one], name) for one in given)
        else:
            whole[name] = tuple(_numbers(given, name).tolist())
    return whole, by_step


def _numbers(values: Sequence[object], name: str) -> Floats:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise InputError(f"a score of {name} must be a number, got {shown(value)}", remedy="null if not measured")
    return np.array([math.nan if value is None else value for value in values], np.float64)


def read(row: Row, number: int, *, separator: str = "\n\n") -> Iterator[Comparison]:
    """Reads `prompt` (text or messages), `chosen` and `rejected`, or `candidates` with a number each in `preferred`.

    A candidate is a text, or the list of its steps: texts, or objects with `text`, and `kind` ("action" or
    "observation"), `role`, `agent`, `images` and `meta` where they matter. Each field may hold one candidate or a list.
    `subset`, `id`, `reference`, `meta`, `problem_meta` and `scores` (by name of the scorer a number, or one a step, for
    each candidate, the chosen before the rejected) may be left out.

    Args:
        row: the row; other fields are kept in `meta`.
        number: its 1-based number, used where the row has no `id`.
        separator: put at the end of each step that is written as a text in a list.

    Raises:
        InputError: a field is missing or of another shape, or there are fewer than two candidates.
    """
    every, worth = _candidates(row)
    if len(every) < 2:
        raise InputError(f"there must be two candidates to compare, got {len(every)}")
    about, meta = row.get("problem_meta") or {}, row.get("meta") or {}
    if not isinstance(about, Mapping) or not isinstance(meta, Mapping):
        raise InputError("'meta' and 'problem_meta' must be objects", remedy="or leave them out")
    problem = Problem(
        text_or_none(row.get("id")) or f"comparisons-{number}", prompt_of(row.get("prompt"), "prompt"),
        reference=text_or_none(row.get("reference")), meta=dict(about),
    )  # fmt: skip
    whole, by_step = _recorded(row.get("scores") or {}, len(every))
    yield compared(
        problem, [_steps(one, separator) for one in every], worth, text_or_none(row.get("subset")) or "", scores=whole,
        step_scores=by_step, meta={**meta, **other_fields(row, *_OWN)},
    )  # fmt: skip


def write(item: Comparison, *, separator: str = "\n\n") -> dict[str, Any]:
    """One row: `chosen` and `rejected` where these say which candidates are preferred, else `candidates`.

    Args:
        separator: taken from the end of each step; a step that ends otherwise is written as an object.
    """
    problem, texts = item.problem, [_written(one.steps, separator) for one in item.candidates]
    # As `read` numbers candidates: the chosen first, since recorded scores are in that order.
    row: dict[str, Any] = {"id": problem.id, "prompt": problem.prompt}
    if isinstance(problem.prompt, tuple):
        row["prompt"] = [dict(message) for message in problem.prompt]
    good = item.preferred.count(1.0)
    if 0 < good < len(texts) and item.preferred == (1.0,) * good + (0.0,) * (len(texts) - good):
        row |= {"chosen": texts[:good], "rejected": texts[good:]}
    else:
        row |= {"candidates": texts, "preferred": list(item.preferred)}
    scores: dict[str, Any] = {name: null_for_nan(np.array(values)) for name, values in item.scores.items()}
    scores |= {name: [null_for_nan(one) for one in values] for name, values in item.step_scores.items()}
    row |= {} if problem.reference is None else {"reference": problem.reference}
    rest = {"scores": scores, "meta": dict(item.meta), "problem_meta": dict(problem.meta)}
    return {**row, "subset": item.subset, **{name: value for name, value in rest.items() if value}}


def _written(steps: Sequence[Step], separator: str) -> str | list[Any]:
    """A candidate as `read` takes it: its text, or its steps."""
    if len(steps) == 1 and _is_only_text(steps[0]):
        return steps[0].text
    made: list[Any] = []
    for step in steps:
        if _is_only_text(step) and step.text.endswith(separator):
            made.append(step.text.removesuffix(separator))
            continue
        more = {"agent": step.agent, "images": list(step.images), "meta": dict(step.meta)}
        given = {name: value for name, value in more.items() if value}
        made.append({"text": step.text, "kind": step.kind, "role": step.role, **given})
    return made


def _is_only_text(step: Step) -> bool:
    return (step.kind, step.role, step.agent, step.images, dict(step.meta)) == ("action", "assistant", None, (), {})


FORMATS: tuple[Format, ...] = (
    Format("comparisons", "any preferences: a prompt, chosen and rejected candidates", matches, read, write,
           kind="comparisons"),
)  # fmt: skip
