"""Joins steps that are too short to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from stepreward.core.types import Step


def merge_short(steps: Sequence[Step], minimum_characters: int) -> list[Step]:
    """Joins short steps to the next one, so that no step is a lone "So," or heading.

    From left to right a step takes in the ones after it until it has `minimum_characters`, white space at the ends of
    steps not counted; a short rest joins the step before. Only neighbours of the same kind, role and agent are joined,
    so a step may stay short between two observations. The joined text is unchanged. Token ids and log-probabilities are
    joined where all steps have them and are None otherwise; of `meta` the later step's entries win.

    Args:
        steps: steps of one trajectory.
        minimum_characters: at least 0; 0 changes nothing.

    Raises:
        ValueError: `minimum_characters` is negative.
    """
    if minimum_characters < 0:
        raise ValueError(f"minimum_characters must not be negative, got {minimum_characters}")
    groups: list[list[Step]] = []
    length = 0
    for step in steps:
        if groups and length < minimum_characters and same_speaker(groups[-1][-1], step):
            groups[-1].append(step)
        else:
            groups.append([step])
            length = 0
        length += _characters(step)
    merged: list[list[Step]] = []
    for group in groups:
        short = sum(map(_characters, group)) < minimum_characters
        if short and merged and same_speaker(merged[-1][-1], group[0]):
            merged[-1] += group
        else:
            merged.append(group)
    return [joined(group) for group in merged]


def same_speaker(one: Step, other: Step) -> bool:
    """Whether two steps are of one kind, role and agent."""
    return (one.kind, one.role, one.agent) == (other.kind, other.role, other.agent)


def _characters(step: Step) -> int:
    return len(step.text.strip())


def joined(group: Sequence[Step]) -> Step:
    """Steps as one, as `merge_short` joins them."""
    if len(group) == 1:
        return group[0]
    tokens = [step.tokens for step in group if step.tokens is not None]
    logprobs = [step.logprobs for step in group if step.logprobs is not None]
    return replace(
        group[0],
        text="".join(step.text for step in group),
        images=tuple(chain.from_iterable(step.images for step in group)),
        tokens=tuple(chain.from_iterable(tokens)) if len(tokens) == len(group) else None,
        logprobs=tuple(chain.from_iterable(logprobs)) if len(logprobs) == len(group) else None,
        meta={name: value for step in group for name, value in step.meta.items()},
    )
