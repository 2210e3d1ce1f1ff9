"""Recipes that read one text for each step, of all steps up to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stepreward.core.errors import ModelError
from stepreward.core.types import Problem, Step
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.recipe_text import cleaned
from stepreward.score.encode.record import PerPrefix, WholeText
from stepreward.score.encode.whole_text import Pass, StepPasses, WholeTextPasses


class PrefixPasses:
    """Builds the sequences of a trajectory's prefixes.

    Args:
        encoder: its tokenizer.
        encoding: of its record.
    """

    def __init__(self, encoder: StepEncoder, encoding: PerPrefix) -> None:
        self.encoder, self.encoding, self.text = encoder, encoding, encoder.text

    def passes(self, problem: Problem, steps: Sequence[Step]) -> list[Pass]:
        """The sequences that score a trajectory, one for each scored step.

        Raises:
            InputError: a scored step is empty, or lost where the record says to refuse.
        """
        for step in steps:
            self.encoder.check(step)
        return [self._prefix_pass(problem, steps, i) for i, step in enumerate(steps) if step.kind == "action"]

    def _prefix_pass(self, problem: Problem, steps: Sequence[Step], i: int) -> Pass:
        ids = self._prefix_ids(problem, self.prefix_text(steps, i))
        if self.encoding.too_long == "cut":
            ids = ids[: self.encoding.max_length]
        if not self.encoder.fits(len(ids), problem):
            return Pass(np.asarray(ids, np.int64), {})
        if not self.encoding.second:
            return Pass(np.asarray(ids, np.int64), {i: len(ids) - 1 - self.encoder.back})
        # The text of a step may hold tags too: those of the form are the last ones.
        places = self._before_tags(ids)[-self.encoding.step_format.count(self.encoding.tag) :]
        return Pass(np.asarray(ids, np.int64), {i + len(steps) * k: at for k, at in enumerate(places)})

    def _prefix_ids(self, problem: Problem, body: str) -> list[int]:
        encoding, encoder = self.encoding, self.encoder
        if encoding.template == "plain":
            return encoder.plain(self.text.prompt(problem) + body, special=encoding.special_tokens)
        # An open message: the recipe's end token is appended as an id, since as text it may not be one token.
        if encoding.end is not None:
            return encoder.plain(self.text.head(problem)) + encoder.plain(body) + self._end_token(encoding.end)
        chat = [*self.text.messages(problem), {"role": "assistant", "content": body}]
        return encoder.plain(self.text.render(chat), special=encoding.special_tokens)

    def _before_tags(self, ids: Sequence[int]) -> list[int]:
        """The tokens before those that stand for a label."""
        # A causal model says at each token what comes next: the label in place of a tag is read one token earlier.
        tag = self.encoder.plain(self.encoding.tag)
        if len(tag) != 1:
            raise ModelError(f"the tag {self.encoding.tag!r} is {len(tag)} tokens, not one: add it to the tokenizer")
        return [at - 1 for at, token in enumerate(ids) if token == tag[0]]

    def prefix_text(self, steps: Sequence[Step], i: int) -> str:
        """The text of the steps up to the i-th (from 0)."""
        previous = self.encoding.between.join(cleaned(step.text, self.encoding.clean) for step in steps[:i])
        return self.text.body(steps[i], i + 1, previous) + self.encoding.separator

    def second(
        self, problem: Problem, steps: Sequence[Step], first: Mapping[int, float]
    ) -> tuple[list[Pass], list[int]]:
        """The sequences of the second pass, and the steps that the first one found wrong.

        Args:
            problem: the problem.
            steps: the steps.
            first: what the first pass read, by the keys of its reads: the probability that a part is right.
        """
        encoding, readout, made, wrong = self.encoding, self.encoder.record.readout, [], []
        right = readout.label_tokens[readout.positive]
        for i in sorted(key for key in first if key < len(steps)):
            parts = [first[key] for key in sorted(first) if key % len(steps) == i]
            if min(parts) < 0.5:
                wrong.append(i)
                continue
            # Labels are filled in where the form has tags: a step may hold the same text.
            text = self.prefix_text(steps, i)
            for _ in parts:
                head, _, tail = text.rpartition(encoding.tag)
                text = head + right + tail
            ids = self._prefix_ids(problem, text + encoding.second)
            made.append(Pass(np.asarray(ids, np.int64), {i: self._before_tags(ids)[-1]}))
        return made, wrong

    def _end_token(self, end: str) -> list[int]:
        token = self.encoder.tokenizer.eos_token if end == "{eos}" else end
        ids = self.encoder.plain(token or "")
        if end and len(ids) != 1:
            raise ModelError(f"the recipe ends in the token {end!r}, which the tokenizer does not have")
        return ids


def pass_encoder(encoder: StepEncoder) -> WholeTextPasses | PrefixPasses | StepPasses:
    """What builds the sequences of trajectories by a record."""
    encoding = encoder.record.encoding
    if isinstance(encoding, WholeText):
        return WholeTextPasses(encoder, encoding)
    if isinstance(encoding, PerPrefix):
        return PrefixPasses(encoder, encoding)
    return StepPasses(encoder)
