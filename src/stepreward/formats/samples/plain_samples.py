"""Several answers to a problem in one row: search-and-learn's results with step scores, and distilabel's rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Message, Problem, Step, Trajectory
from stepreward.formats.agents.messages import message_list, prompt_of, turns_of
from stepreward.formats.agents.runs import trajectory_of
from stepreward.formats.fields import as_text, first_value, list_at, outcome_or_nan, text_at
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, id_of, need, other_fields, shown, text_or_none
from stepreward.formats.samples.rollout_logs import cut

_RENAMED = ("response", "completion")
"""What pipelines rename a generation to."""
_DISTILABEL = ("instruction", "generation", "generations", *_RENAMED, "conversation", "messages", "ratings", "rating",
               "system_prompt")  # fmt: skip
_SEARCH = ("problem", "completions", "scores", "pred", "agg_scores", "completion_tokens", "answer", "solution")


def is_search(row: Row) -> bool:
    """Whether a row looks like a result of search-and-learn."""
    return isinstance(row.get("completions"), list) and "scores" in row and bool(
        {"pred", "agg_scores", "completion_tokens"} & row.keys()
    ) and bool({"problem", "prompt", "question"} & row.keys())  # fmt: skip


def read_search(row: Row, number: int, *, separator: str = "\n\n") -> Iterator[Trajectory]:
    """Reads `completions` of a `problem` with the recorded step scores of `scores`, under the name `prm`.

    Steps end in the separator. Where their number is not that of the scores, the scores stay in meta and are NaN: which
    step they belong to is not known. `meta["chosen"]` says which completion is `pred`. There is no outcome.

    Args:
        number: its 1-based number, used where the row has no `unique_id`.
        separator: what ends a step.

    Raises:
        InputError: a field is missing or of another shape, or a completion is no text.
    """
    if not separator:
        raise InputError("the separator is empty", remedy="pass what ends a step")
    texts, scores = need(row, "completions", list), need(row, "scores", list)
    if len(scores) != len(texts):
        raise InputError(f"{len(scores)} lists of scores for {len(texts)} completions")
    prompt_text = need(row, next((name for name in ("problem", "prompt", "question") if name in row), "problem"))
    marked = row.get("unique_id")
    problem = Problem(
        f"search-{marked}" if marked is not None else id_of("search", prompt_text), prompt_text,
        text_or_none(row.get("answer")),
        {"solution": row["solution"]} if isinstance(row.get("solution"), str) else {},
    )  # fmt: skip
    shared = other_fields(row, *_SEARCH)
    for at, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise InputError(f"completion {at} must be a text, got {shown(text)}")
        steps = tuple(Step(part) for part in _parts(text, separator))
        values = scores[at] if isinstance(scores[at], list) else [scores[at]]
        fits = len(values) == len(steps) and all(value is None or isinstance(value, int | float) for value in values)
        made = [math.nan if value is None else float(value) for value in values] if fits else [math.nan] * len(steps)
        meta = {**shared, "sample": at, "chosen": text == row.get("pred")}
        for name in ("agg_scores", "completion_tokens"):
            meta |= {name: row[name][at]} if len(list_at(row, name)) == len(texts) else {}
        meta |= {} if fits else {"step_scores": values}
        yield annotated(problem, steps, None, "search-and-learn", scores={"prm": np.array(made)}, facts=meta)


def _parts(text: str, separator: str) -> list[str]:
    """The steps with their separators; more blank lines belong to the step before."""
    parts: list[str] = []
    for piece in text.split(separator):
        if parts:
            parts[-1] += separator
        if parts and not piece.strip():
            parts[-1] += piece
        else:
            parts.append(piece)
    return parts


def is_distilabel(row: Row) -> bool:
    """Whether a row looks like one that distilabel generated."""
    if {"chosen", "rejected"} & row.keys():
        return False
    made = isinstance(row.get("generation"), str) or isinstance(row.get("generations"), list)
    prompt_text = isinstance(row.get("instruction"), str)
    by = "distilabel_metadata" in row or bool(
        {"model_name", "model_names", "generation_models", "ratings"} & row.keys()
    )
    ours = "distilabel_metadata" in row and bool(
        made or "conversation" in row or (prompt_text and any(isinstance(row.get(name), str) for name in _RENAMED))
    )
    return ours or (by and prompt_text and made)


def read_distilabel(row: Row, number: int, *, scale: float = 5.0) -> Iterator[Trajectory]:
    """Reads `generation` or each of `generations` as an answer to `instruction` or `messages`, or a `conversation`.

    `ratings` are scores under the name `rating` at the answer's last step and stay in meta; as an outcome, a rating is
    divided by the scale. A generation that failed, null, is left out and counted in meta.

    Args:
        number: its 1-based number.
        scale: the largest rating.

    Raises:
        InputError: a field is missing or of another shape, or nothing was generated.
    """
    one = next((row[name] for name in ("generation", *_RENAMED) if row.get(name)), None)
    given: list[Any] = row["generations"] if isinstance(row.get("generations"), list) else [one]
    one = first_value(row, "rating", "score")
    ratings: list[Any] = row["ratings"] if isinstance(row.get("ratings"), list) else [one]
    models = next((row[name] for name in ("model_names", "generation_models", "generation_model", "model_name")
                   if row.get(name)), "")  # fmt: skip
    if any(isinstance(one, list) for one in given):  # Several of each model.
        inner = [one if isinstance(one, list) else [one] for one in given]
        models = [model for model, one in zip(models, inner, strict=False) for _ in one]
        given = [text for one in inner for text in one]
    meta = other_fields(row, *_DISTILABEL)
    prompt_text: str | tuple[Message, ...] | None = None
    if isinstance(row.get("instruction"), str):
        prompt_text = row["instruction"]
    elif "messages" in row:
        prompt_text = prompt_of(row["messages"], "messages")
    if prompt_text is None or not any(isinstance(one, str) and one for one in given):
        talk = turns_of(message_list(row.get("conversation"), "conversation"))
        yield trajectory_of(talk, f"distilabel-{number}", "distilabel", policy=text_at(row, "model_name"),
                            won=outcome_or_nan(ratings[0], scale), meta=meta)  # fmt: skip
        return
    system = text_at(row, "system_prompt")
    said = ({"role": "user", "content": prompt_text},) if isinstance(prompt_text, str) else prompt_text
    prompt = ({"role": "system", "content": system}, *said)
    problem = Problem(id_of("distilabel", prompt_text), prompt if system else prompt_text,
                      text_or_none(first_value(row, "reference", "answer")))  # fmt: skip
    failed = sum(not isinstance(one, str) or not one for one in given)
    for at, text in enumerate(given):
        if not isinstance(text, str) or not text:
            continue
        steps = cut(text)
        rating = ratings[at] if len(ratings) == len(given) else None
        marks = np.full(len(steps), np.nan)
        with suppress(TypeError, ValueError):  # Some data sets have their ratings as texts.
            marks[-1] = float(rating or "")
        model = models[at] if isinstance(models, list) and at < len(models) else models
        yield annotated(
            problem, steps, None, "distilabel", policy=as_text(model),
            outcome=outcome_or_nan(rating, scale), scores={} if np.isnan(marks).all() else {"rating": marks},
            facts={**meta, "sample": at} | ({"rating": rating} if rating is not None else {})
            | ({"failed_generations": failed} if failed else {})
            | ({"ratings": ratings} if len(ratings) != len(given) else {}),
        )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("search-and-learn", "search-and-learn results with step scores", is_search, read_search),
    Format("distilabel", "distilabel rows of generations and ratings", is_distilabel, read_distilabel),
)
