"""Pairs in the layouts of trainers: TRL's preference and unpaired preference, and Step-DPO's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Message, Problem, Step, Trajectory
from stepreward.formats.agents.messages import answer_of, prompt_of
from stepreward.formats.files.rows_of_files import is_message
from stepreward.formats.format import Format, has
from stepreward.formats.preferences.public_preferences import read_binarised
from stepreward.formats.rows import Row, check_choice, compared, id_of, need, other_fields, text_or_none

Layout = Literal["text", "messages"]
"""A prompt and its completions as texts that follow each other, or as chat messages."""
_KEPT = ("margin", "strength", "annotator")
"""Entries of `meta` that are columns of a row; TRL's reward trainer reads `margin`."""


def is_trl_preference(row: Row) -> bool:
    """Whether a row is a pair, of texts or of messages, whose prompt is only in its two sides."""
    sides = [row.get("chosen"), row.get("rejected")]
    alike = all(isinstance(one, str) for one in sides) or all(
        isinstance(one, list) and one and all(map(is_message, one)) for one in sides
    )
    return alike and not row.keys() & {"prompt", "score_chosen", "query", "context", "intent", "observation"}


def read_trl_preference(row: Row, number: int) -> Iterator[Comparison]:
    """Reads `chosen` and `rejected`, texts or messages, after the `prompt` or, without one, after what both begin with.

    Args:
        row: the row; other fields, such as `margin`, are kept in `meta`.
        number: its 1-based number, used where the row has no `id`.

    Raises:
        InputError: a field is missing or of another shape, or the sides share no beginning.
    """
    prompt, pair = row.get("prompt"), [row.get("chosen"), row.get("rejected")]
    if prompt is None and not any(isinstance(side, str) for side in pair):
        yield from read_binarised(row, number)
        return
    texts = [answer_of(side, name) for side, name in zip(pair, ("chosen", "rejected"), strict=True)]
    if prompt is None:
        shared = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
        # A word that both begin with belongs to the answers.
        shared = max((i + 1 for i in range(shared) if texts[0][i].isspace()), default=0)
        prompt, texts = texts[0][:shared], [text[shared:] for text in texts]
    problem = Problem(f"trl-{row.get('id', number)}", prompt_of(prompt, "prompt"))
    meta = other_fields(row, "prompt", "chosen", "rejected", "id")
    yield compared(problem, [[Step(text)] for text in texts], (1.0, 0.0), meta=meta)


def write_trl_preference(item: Comparison, *, layout: Layout = "messages", separator: str = "\n") -> dict[str, Any]:
    """One row of TRL's preference layout: `prompt`, `chosen`, `rejected`, and `margin` and `strength` where known.

    Args:
        layout: `messages`, in which steps that both share begin both sides, or `text`, in which they end the prompt.
        separator: between the problem and the first step, in texts.
    """
    check_choice("layout", layout, Layout)
    better, worse = _two(item)
    kept = {name: item.meta[name] for name in _KEPT if item.meta.get(name) is not None}
    if layout == "messages":
        sides = {name: [_said(one.text)] for name, one in (("chosen", better), ("rejected", worse))}
        return {"prompt": [dict(message) for message in item.problem.messages], **sides, **kept}
    shared = _shared(better.steps, worse.steps)
    prompt = item.problem.text + separator + "".join(step.text for step in better.steps[:shared])
    chosen, rejected = ("".join(step.text for step in one.steps[shared:]) for one in (better, worse))
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **kept}


def read_trl_unpaired(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads `prompt`, `completion` and `label`, true where the completion is wanted: an outcome.

    Args:
        row: the row; other fields are facts.
        number: its 1-based number; the problem's id is of its words.

    Raises:
        InputError: a field is missing or of another type.
    """
    wanted, prompt = need(row, "label", bool), prompt_of(row.get("prompt"), "prompt")
    yield Trajectory(
        Problem(id_of("trl", row["prompt"]), prompt), (Step(answer_of(row.get("completion"), "completion")),),
        float(wanted), facts=other_fields(row, "prompt", "completion", "label"),
    )  # fmt: skip


def write_trl_unpaired(
    item: Trajectory, *, layout: Layout = "messages", separator: str = "\n", threshold: float = 0.5
) -> dict[str, Any]:
    """One row of TRL's unpaired preference layout: `prompt`, `completion`, `label`.

    Args:
        layout: `messages` or `text`.
        separator: between the problem and the first step, in texts.
        threshold: outcomes above it are true.
    """
    check_choice("layout", layout, Layout)
    if math.isnan(item.outcome):
        raise InputError("the outcome is not known", remedy="grade the solutions, or leave this one out")
    label = item.outcome > threshold
    if layout == "messages":
        prompt: Any = [dict(message) for message in item.problem.messages]
        return {"prompt": prompt, "completion": [_said(item.text)], "label": label}
    return {"prompt": item.problem.text + separator, "completion": item.text, "label": label}


def read_step_dpo(row: Row, number: int) -> Iterator[Comparison]:
    """Reads `prompt`, the right steps in `initial_reason_steps`, and the next step, `chosen` or `rejected`.

    Args:
        row: the row; `answer` is the reference; `full_chosen` and `full_rejected`, the texts from the step to the end,
            are kept in `meta`.
        number: its 1-based number.

    Raises:
        InputError: a field is missing or of another type.
    """
    prompt, before = need(row, "prompt"), need(row, "initial_reason_steps")
    problem = Problem(f"step-dpo-{number}", prompt, reference=text_or_none(row.get("answer")))
    shared = [Step(before)] if before else []
    pair = [[*shared, Step(need(row, name))] for name in ("chosen", "rejected")]
    meta = other_fields(row, "prompt", "initial_reason_steps", "chosen", "rejected", "answer", "dataset")
    subset = text_or_none(row.get("dataset")) or ""
    yield compared(problem, pair, (1.0, 0.0), subset, terminal=False, meta=meta)


def write_step_dpo(item: Comparison) -> dict[str, Any]:
    """One row of Step-DPO's layout; candidates must differ in their last step alone."""
    better, worse = _two(item)
    shared = _shared(better.steps, worse.steps)
    if {len(better), len(worse)} != {shared + 1}:
        raise InputError("the candidates differ in more than one next step", remedy="make pairs --by step-dpo")
    before = "".join(step.text for step in better.steps[:shared])
    chosen, rejected = better.steps[-1].text, worse.steps[-1].text
    full = {name: item.meta.get(name) or text for name, text in
            (("full_chosen", chosen), ("full_rejected", rejected))}  # fmt: skip
    return {"dataset": item.subset, "prompt": item.problem.text, "initial_reason_steps": before, "chosen": chosen,
            "rejected": rejected, **full, "answer": item.problem.reference or ""}  # fmt: skip


def _two(item: Comparison) -> tuple[Trajectory, Trajectory]:
    """The better and the worse candidate.

    Raises:
        InputError: there are more, or neither is preferred.
    """
    if len(item.candidates) != 2 or item.preferred[0] == item.preferred[1]:
        what = f"a pair has one better and one worse candidate, here {len(item.candidates)} are {list(item.preferred)}"
        raise InputError(what, remedy="leave ties out; write several candidates as 'comparisons' or 'stepreward'")
    first, second = item.candidates
    return (first, second) if item.preferred[0] > item.preferred[1] else (second, first)


def _shared(one: Sequence[Step], other: Sequence[Step]) -> int:
    """How many steps both begin with; at least one of each is left."""
    most = max(min(len(one), len(other)) - 1, 0)
    return next((i for i in range(most) if one[i].identity != other[i].identity), most)


def _said(text: str) -> Mapping[str, str]:
    message: Message = {"role": "assistant", "content": text}
    return message


FORMATS: tuple[Format, ...] = (
    Format("trl-preference", "TRL preference: prompt, chosen, rejected", is_trl_preference, read_trl_preference,
           write_trl_preference, kind="comparisons"),
    Format("trl-unpaired", "TRL unpaired preference: prompt, completion, label",
           has("prompt", "completion", label=bool), read_trl_unpaired, write_trl_unpaired),
    Format("step-dpo", "Step-DPO: a right and a wrong next step",
           has("prompt", "initial_reason_steps", "chosen", "rejected"), read_step_dpo, write_step_dpo,
           kind="comparisons"),
)  # fmt: skip
