"""Step scores from head outputs that a server or engine computes: read positions, and scores from the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from stepreward.core.errors import ModelError
from stepreward.core.prefix_names import named
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Floats
from stepreward.score.cache.first_scores import FirstScores
from stepreward.score.encode.per_prefix import pass_encoder
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import PerPrefix
from stepreward.score.encode.whole_text import Pass

OpenPass = tuple[Score, Pass]
"""A question, and one of its sequences with the reads that are open."""
Answer = tuple[Floats, bool | None, int]
"""(Q, n_labels) outputs at the reads, whether they are probabilities (None: see by their sums), tokens encoded."""
_REMEMBERED = 1 << 20


class HeadReader:
    """Turns questions into token sequences, and outputs at the read positions into scores.

    With causal attention a score depends only on the tokens up to its read position, and with a formula that looks back
    on the reads before it: the first score is kept, and returned again wherever these are the same.

    Args:
        encoder: the record, and the model's tokenizer.

    Raises:
        ModelError: the record needs more than head outputs at fixed positions.
    """

    def __init__(self, encoder: StepEncoder) -> None:
        self.encoder, self.record = encoder, encoder.record
        readout = self.record.readout
        more = readout.reads_steps or readout.exits or self.record.both_ways
        if readout.kind == "implicit" or self.record.second_pass or more:
            raise ModelError(
                "a server or an engine returns head outputs: an implicit score, a second pass, surprise, a policy, "
                "exits, begins, next_token and both_ways need more and are scored locally"
            )
        if readout.looks_back and isinstance(self.record.encoding, PerPrefix):
            raise ModelError("each step is a request of its own here: a formula that looks back is scored locally")
        self._first_scores = FirstScores(_REMEMBERED)

    def score_many(
        self, questions: Sequence[Score], ask: Callable[[Sequence[OpenPass]], Sequence[Answer]]
    ) -> list[Scored]:
        """Scores of each question's steps, NaN at observations.

        Args:
            questions: the questions.
            ask: answers sequences, all open ones at once; not called where there is none.
        """
        scores = [np.full(len(question.steps), np.nan) for question in questions]
        paid, whole = [0] * len(questions), [0] * len(questions)
        open_passes: list[tuple[int, Pass, dict[int, bytes]]] = []
        back = self.record.readout.looks_back
        for row, question in enumerate(questions):
            for one in self._passes(question):
                whole[row] += len(one.ids)
                names = self._names(one)
                new = {}
                for i, name in names.items():
                    known = self._first_scores.get(name)
                    if known is None:
                        new[i] = one.reads[i]
                    else:
                        scores[row][i] = known
                if new:
                    # A formula that looks back needs the outputs at all steps, not at the new ones alone.
                    new = one.reads if back else new
                    open_passes.append((row, replace(one, reads=new), names))
        answers = ask([(questions[row], one) for row, one, _ in open_passes]) if open_passes else ()
        for (row, one, names), (outputs, done, tokens) in zip(open_passes, answers, strict=True):
            done = are_activated(self.record.readout, outputs, done)
            before = np.arange(len(one.reads)) - 1
            made = self.record.readout.scores(outputs, previous=before, activated=done)
            # Equal prefixes of one call are open twice: `keep` gives both the score that came first.
            scores[row][list(one.reads)] = self._first_scores.keep([names[i] for i in one.reads], made.tolist())
            paid[row] += tokens
        return [Scored(*parts) for parts in zip(scores, paid, whole, strict=True)]

    def _names(self, one: Pass) -> dict[int, bytes]:
        """What decides each score: tokens up to its read, and with a formula that looks back the reads before it."""
        reads = np.array([*one.reads.values()], np.int64)
        back = self.record.readout.looks_back
        return {
            i: named(b"", one.ids[: at + 1].tobytes() + (reads[: k + 1].tobytes() if back else b""))
            for k, (i, at) in enumerate(one.reads.items())
        }

    def _passes(self, question: Score) -> list[Pass]:
        if not self.record.per_step:
            return pass_encoder(self.encoder).passes(question.problem, question.steps)
        ids, reads = self.encoder.prompt_ids(question.problem), {}
        for i, step in enumerate(question.steps):
            own = self.encoder.step_ids(step, question.problem, i + 1)
            ids = ids + own
            # As in `StepEncoder.read_index`: before a short step that is the last token of the text above it.
            back = self.encoder.back if len(own) > self.encoder.back else len(own)
            if step.kind == "action" and self.encoder.fits(len(ids), question.problem):
                reads[i] = len(ids) - 1 - back
        return [Pass(np.asarray(ids, np.int64), reads)]


def are_activated(readout: Readout, rows: Floats, stated: bool | None) -> bool:
    """Whether head outputs (Q, n_labels) are probabilities already, as the readout reads them.

    Args:
        readout: of the record.
        rows: the outputs.
        stated: what the caller or the server says of it; None to see by the numbers.

    Raises:
        ModelError: a softmax over labels that the readout reads one by one, or numbers that tell nothing.
    """
    each = readout.n_labels > 1 and not readout.compares
    # A softmax loses what a label's own logit was: a share is not its sigmoid.
    if each and stated is not False and are_probabilities(rows, within=1e-5):
        raise ModelError(
            f"the server compares its {readout.n_labels} labels by a softmax, and the record reads each by itself: "
            'start it with --hf-overrides \'{"problem_type": "multi_label_classification"}\''
        )
    if stated is not None:
        return stated
    if each and readout.kind != "value" and bool(((rows >= 0) & (rows <= 1)).all()):
        raise ModelError(
            f"all outputs are within 0 and 1, which shows not whether the server applied the sigmoid of each of its "
            f"{readout.n_labels} labels: pass probabilities=True if it did, False if it did not"
        )
    return not each and are_probabilities(rows)


def are_probabilities(rows: Floats, within: float = 1e-3) -> bool:
    """Whether head outputs (Q, n_labels) of two or more labels look like probabilities: every row is a distribution."""
    return rows.shape[1] > 1 and bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, rtol=0, atol=within))
