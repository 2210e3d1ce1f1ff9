"""Trajectories whose tokens depend on their context: encoded one by one, equal prefixes merged afterwards.

A recipe that tokenises joined text gives no step tokens of its own, so prefixes are compared as tokens: a trie of all
sequences holds each shared prefix once, and since attention looks back only, scores are those of each sequence alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step
from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.recipe_text import valid
from stepreward.score.encode.record import WholeText


@dataclass(frozen=True)
class Pass:
    """One sequence of tokens and where it is read."""

    ids: NDArray[np.int64]
    """(T,) token ids."""
    reads: dict[int, int]
    """Index of a step -> token at which it is read; further reads of a step have that key plus multiples of S."""
    answer: int = 0
    """First token that counts for an implicit score."""
    others: tuple[tuple[int, int], ...] = ()
    """Begins and ends of what the policy did not write, such as tool output: it counts in no implicit score."""

    def counted(self) -> NDArray[np.int64]:
        """(N,) tokens that count for an implicit score: those of the answer, up to the last read."""
        # Behind the last read there are tokens of the template alone.
        real = np.zeros(len(self.ids), bool)
        real[self.answer : max(self.reads.values(), default=-1) + 1] = True
        for begin, end in self.others:
            real[begin:end] = False
        return np.flatnonzero(real)


class StepPasses:
    """Builds the sequence of a trajectory whose steps have token ids of their own.

    Args:
        encoder: gives them.
    """

    def __init__(self, encoder: StepEncoder) -> None:
        self.encoder = encoder

    def passes(self, problem: Problem, steps: Sequence[Step]) -> list[Pass]:
        """The one sequence that scores a trajectory.

        Raises:
            InputError: a scored step is empty, or the trajectory too long where the record says to refuse.
        """
        ids = self.encoder.prompt_ids(problem)
        answer, reads, others = len(ids), {}, []
        for i, step in enumerate(steps):
            begin = len(ids)
            ids += self.encoder.step_ids(step, problem, i + 1)
            fits = self.encoder.fits(len(ids), problem)
            if step.kind != "action":
                others.append((begin, len(ids)))
            elif fits:
                reads[i] = len(ids) - 1
        return [Pass(np.asarray(ids, np.int64), reads, answer, tuple(others))]


class WholeTextPasses:
    """Builds the sequence of a trajectory that is tokenised as one text.

    Args:
        encoder: its tokenizer must map tokens to characters.
        encoding: of its record.
    """

    def __init__(self, encoder: StepEncoder, encoding: WholeText) -> None:
        self.encoder, self.encoding, self.text = encoder, encoding, encoder.text
        tag = [] if encoding.tag is None else encoder.plain(encoding.tag or encoding.separator)
        self.tag = tag[-1] if tag else None

    def passes(self, problem: Problem, steps: Sequence[Step]) -> list[Pass]:
        """The one sequence that scores a trajectory.

        Raises:
            InputError: a scored step is empty, or lost where the record says to refuse.
        """
        for step in steps:
            self.encoder.check(step)
        recounted = self.encoding.read == "recounted"
        return [self._pass_by_counts(problem, steps) if recounted else self._pass_by_offsets(problem, steps)]

    def _pass_by_offsets(self, problem: Problem, steps: Sequence[Step]) -> Pass:
        text, ends = self.text.head(problem), []
        opened = len(text)
        for n, step in enumerate(steps, 1):
            text += (self.encoding.between if n > 1 else "") + self.text.body(step, n) + self.encoding.separator
            ends.append(len(text))
        made = self.encoder.tokenizer(
            valid(text), add_special_tokens=self.encoding.special_tokens, return_offsets_mapping=True
        )
        ids, spans = np.asarray(made["input_ids"], np.int64), np.asarray(made["offset_mapping"], np.int64)
        wanted = np.ones(len(ids), bool) if self.tag is None else ids == self.tag
        # Some tokenizers report a token of white space as the empty span at its end: only ends are reliable. Where two
        # tokens end at one character, such as halves of an emoji, the last one is meant.
        last = {int(end): int(t) for t, end in enumerate(spans[:, 1]) if wanted[t] and end > 0}
        reads = {i: last.get(end, -1) - self.encoder.back for i, end in enumerate(ends) if steps[i].kind == "action"}
        return self._without_lost_reads(problem, Pass(ids, reads, int(np.argmax(spans[:, 1] > opened))))

    def _without_lost_reads(self, problem: Problem, made: Pass) -> Pass:
        """The sequence without the reads that have no token or lie past the limit."""
        reads = {}
        for i, token in made.reads.items():
            if token < 0 and self.encoding.too_long == "error":
                raise InputError(
                    f"step {i + 1} of problem {problem.id!r} melts into its separator {self.encoding.separator!r}: "
                    "they share a token, and none is left to read",
                    remedy="strip the step, or set too_long='drop' to leave it without a score",
                )
            if token >= 0 and self.encoder.fits(token + 1, problem):
                reads[i] = token
        return Pass(made.ids, reads, made.answer)

    def _pass_by_counts(self, problem: Problem, steps: Sequence[Step]) -> Pass:
        """Positions counted in chats up to each step, as if the message ended there."""
        messages, between = self.text.messages(problem), self.encoding.between
        texts = [self.text.body(step, n) for n, step in enumerate(steps, 1)]
        answers = [{"role": "assistant", "content": between.join(texts[:n])} for n in range(len(texts) + 1)]
        chats = [self.text.render([*messages, answer]) for answer in answers]
        # The published recipe strips each chat and puts the text between steps behind all but the first and the last.
        ends = ["", *[between] * (len(texts) - 1), ""]
        counts = [len(self.encoder.plain(chat.strip() + end)) for chat, end in zip(chats, ends, strict=False)]
        ids = self.encoder.plain(chats[-1])
        reads = {i: min(count, len(ids)) - 1 for i, count in enumerate(counts[1:]) if steps[i].kind == "action"}
        # The mask of the published recipe begins two tokens before the end of the chat with an empty answer.
        return self._without_lost_reads(problem, Pass(np.asarray(ids, np.int64), reads, max(counts[0] - 2, 0)))


@dataclass(frozen=True)
class Trie:
    """Sequences with equal prefixes merged."""

    encoded: EncodedTree
    """Its reads are the distinct tokens that are read, in order."""
    paths: list[NDArray[np.int64]]
    """(T,) token of the trie for each token of each sequence, in the order of the sequences."""
    new: list[int]
    """Tokens that no earlier sequence had."""

    def read(self, sequence: int, token: int) -> int:
        """Index into the reads for a token of a sequence."""
        return int(np.searchsorted(self.encoded.read, self.paths[sequence][token]))


def trie(passes: Sequence[Pass]) -> Trie:
    """Merges the equal prefixes of sequences, token by token."""
    # In lexicographic order each sequence shares its longest prefix with its neighbour, and the tokens come out in
    # depth-first order.
    order = sorted(range(len(passes)), key=lambda i: passes[i].ids.tolist())
    ids: list[NDArray[np.int64]] = []
    position: list[NDArray[np.int64]] = []
    leave = np.empty(sum(len(one.ids) for one in passes), np.int64)
    paths: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(passes)
    owner = np.empty_like(leave)
    at, before, path = 0, np.empty(0, np.int64), np.empty(0, np.int64)
    for i in order:
        own = passes[i].ids
        same = common_prefix(before, own)
        # Tokens that this sequence leaves have no descendants from here on.
        leave[path[same:]] = at
        new = len(own) - same
        ids.append(own[same:])
        position.append(np.arange(same, len(own)))
        path = np.r_[path[:same], np.arange(at, at + new)]
        # The caller's first sequence with a token pays for it, whatever the order here.
        owner[path[same:]] = i
        owner[path[:same]] = np.minimum(owner[path[:same]], i)
        paths[i], before, at = path, own, at + new
    leave[path] = at
    reads = np.unique([paths[i][t] for i, one in enumerate(passes) for t in one.reads.values()]).astype(np.int64)
    # Each token is a node of its own: its depth-first number is its index.
    one = np.arange(at)
    encoded = EncodedTree(
        np.concatenate([np.empty(0, np.int64), *ids]),
        np.concatenate([np.empty(0, np.int64), *position]),
        one, leave[:at], one, reads, np.ones(at, np.int64), at,
    )  # fmt: skip
    return Trie(encoded, paths, np.bincount(owner[:at], minlength=len(passes)).tolist())


def common_prefix(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """Number of equal tokens at the start of two sequences."""
    shorter = min(len(one), len(other))
    differ = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(differ[0]) if differ.size else shorter


def grouped(passes: Sequence[Pass], row_tokens: int) -> list[list[int]]:
    """Groups of sequences whose trie has at most `row_tokens` tokens (one sequence may be longer)."""
    # In lexicographic order a sequence shares most with its neighbour: what it adds to the trie are its other tokens.
    groups: list[list[int]] = []
    used, before = 0, np.empty(0, np.int64)
    for i in sorted(range(len(passes)), key=lambda i: passes[i].ids.tolist()):
        more = len(passes[i].ids) - common_prefix(before, passes[i].ids)
        if not groups or used + more > row_tokens:
            groups.append([])
            used, more = 0, len(passes[i].ids)
        groups[-1].append(i)
        used, before = used + more, passes[i].ids
    return groups
