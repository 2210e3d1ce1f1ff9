"""The scores of all next tokens at once, by a head with an entry for each: what a search over tokens asks for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import torch

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Floats
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.packing import pack
from stepreward.score.encode.whole_text import Pass, grouped, trie
from stepreward.score.model.vocabulary_head import VocabularyHead


@torch.inference_mode()
def next_token_scores(
    scorer: DiscriminativeScorer, questions: Sequence[Score], unfinished: Sequence[Sequence[int]] = ()
) -> Floats:
    """(Q, V) the score behind each question's steps, an unfinished one and each token of the vocabulary.

    Where that token ends a step, it is the step's score. Shared prefixes are encoded once; no other pass is needed for
    any number of tokens that a search wants to compare.

    Args:
        scorer: of a model that was trained with an entry for each next token, as by the objective saffron.
        questions: whole steps so far; may be none.
        unfinished: token ids of the step that follows them in each question; none where empty.

    Returns:
        Scores; of tokens that training never saw those of an entry of -inf.

    Raises:
        InputError: the model has another head, or a formula of several numbers.
        ValueError: there are not as many unfinished steps as questions.
    """
    model, device = scorer.local_model
    head, readout = model.head, model.record.readout
    if not isinstance(head, VocabularyHead) or readout.formula:
        what = f"{scorer.name} has no entry for each next token" if not readout.formula else "its score is a formula"
        raise InputError(what, remedy="take a model that `train` made with the objective saffron, and no readout")
    passes = []
    for question, more in zip(questions, unfinished or repeat(()), strict=bool(unfinished)):
        ids = model.encoder.prompt_ids(question.problem)
        numbered = [(step, n) for n, step in enumerate(question.steps, 1)]
        for step in model.encoder.ids_of_steps(numbered, question.problem):
            ids += step
        passes.append(Pass(np.array([*ids, *more], np.int64), {}))
    made = np.empty((len(passes), len(head.weight)))
    for group in grouped(passes, scorer.row_tokens):
        merged = trie([passes[i] for i in group])
        batch = pack([merged.encoded]).to(device)
        hidden = model.hidden_states(batch)[0, [int(path[-1]) for path in merged.paths]]
        entries = head.entries(hidden)
        made[group] = readout.scores(entries.reshape(-1, 1)).reshape(entries.shape).double().cpu().numpy()
    return made
