"""Completions of a trainer as trajectories: the tokens of each step, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.types import Kind, Message, Problem, Step, Trajectory
from stepreward.credit.tokens import TokenSpans, from_mask
from stepreward.policies.token_pieces import Pieces

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]


class StepFinder:
    """Cuts completions into steps after each separator, and at the end of each turn.

    Args:
        tokenizer: the policy's.
        vocabulary: number of the policy's logits.
        separator: text that ends a step; empty leaves turns whole.
        ends: ids that end a completion; such a token belongs to the step before it.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, separator: str, ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._pieces = Pieces(tokenizer, vocabulary, separator) if separator else None
        self._ends = np.array(sorted(ends), np.int64)

    def spans(self, ids: Ids, own: Mask, cuts: Sequence[Sequence[int]] | None = None) -> TokenSpans:
        """The tokens of each step that the policy wrote.

        Args:
            ids: (B, T) completions.
            own: (B, T) True where the policy wrote the token.
            cuts: tokens of each completion before each place where a step ends, in place of the separator.
        """
        if cuts is not None:
            ends = np.zeros_like(own)
            for row, places in enumerate(cuts):
                ends[row, [at - 1 for at in places]] = True
            return from_mask(own, ends)
        return from_mask(own, None if self._pieces is None else self._step_ends(ids, own))

    def _step_ends(self, ids: Ids, own: Mask) -> Mask:
        assert self._pieces is not None
        ends = self._pieces.certain[ids] & own
        # For most tokens the vocabulary decides; the others need the tokens of their step so far.
        for row, column in np.argwhere(self._pieces.possible[ids] & own):
            start = int(column)
            while start > 0 and own[row, start - 1] and not ends[row, start - 1]:
                start -= 1
            start = max(start, int(column) + 1 - self._pieces.window)
            ends[row, column] = self._pieces.ends(ids[row, start : column + 1].tolist())
        ends[:, :-1] &= ~np.isin(ids[:, 1:], self._ends)
        return ends

    def trajectories(
        self, problems: Sequence[Problem], ids: Ids, present: Mask, own: Mask, spans: TokenSpans
    ) -> list[Trajectory]:
        """The completions as steps: the policy's tokens as actions, other tokens between them as observations.

        Args:
            problems: of each row.
            ids: (B, T).
            present: (B, T) True at all tokens of the completion.
            own: (B, T) True where the policy wrote the token.
            spans: of the policy's steps.
        """
        others = from_mask(present & ~own)
        rows: list[list[tuple[int, Step]]] = [[] for _ in problems]
        kinds: tuple[tuple[TokenSpans, Kind, str], ...] = (
            (spans, "action", "assistant"),
            (others, "observation", "tool"),
        )
        for found, kind, role in kinds:
            for row, start, end in zip(found.row, found.start, found.end, strict=True):
                own_ids = ids[row, start:end].tolist()
                text = self._tokenizer.decode(own_ids, skip_special_tokens=True)
                rows[row].append((int(start), Step(text, kind, role, tokens=tuple(own_ids))))
        return [
            Trajectory(problem, tuple(step for _, step in sorted(steps, key=lambda pair: pair[0])))
            for problem, steps in zip(problems, rows, strict=True)
        ]


def problem_of(prompt: str | Sequence[Message], row: Any, tokens: Sequence[int] = ()) -> Problem:
    """The problem of a data set's row; equal prompts are one problem, so that a scorer encodes them once.

    Args:
        prompt: text or messages.
        row: the other columns; `reference`, `answer` or `solution` becomes the reference.
        tokens: ids of the prompt as the policy saw it, kept in `meta["tokens"]`.
    """
    messages = prompt if isinstance(prompt, str) else tuple(dict(m) for m in prompt)
    reference = next(
        (str(row[name]) for name in ("reference", "answer", "solution") if row.get(name) is not None), None
    )
    return Problem(repr(messages), messages, reference, {"tokens": tuple(tokens)} if len(tokens) else {})
