"""A reward model whose scores behind every token a head with an entry for each next token learns."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.score.by_recipe import encoder_of, scorer_by_recipe
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.packing import PackedBatch, StepTokens
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.vocabulary_head import VocabularyHead
from stepreward.score.model.weights import find
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.objective import Objective
from stepreward.train.other_models.frozen_numbers import Kept, Measure, require_same_tokens
from stepreward.train.settings import TrainSettings

_log = logging.getLogger(__name__)


def taught_record(teacher: str, objective: Objective, *, max_length: int = 0) -> EncoderRecord:
    """The record of a model that is fed as its teacher is, and whose scores are in the teacher's unit.

    A score that is the sigmoid of a logit stays one; one in [-1, 1] becomes the probability that it stands for.

    Args:
        teacher: folder or hub name of a reward model.
        objective: what is trained.
        max_length: most tokens of a trajectory; 0 for the teacher's own limit.

    Raises:
        InputError: the teacher has no score behind every token.
        ModelError: there is no such model, or nothing says how it is read.
    """
    own = encoder_of(teacher).record
    encoding, readout = own.encoding, own.readout
    if not isinstance(encoding, PerStep) or encoding.read != "at" or own.both_ways or own.second_pass:
        what = f"the teacher {teacher} is not read at the end of steps that are tokenised one by one"
        raise InputError(what, remedy="take a reward model with the encoding per-step, read at, one way")
    elsewhere = readout.next_token or readout.policy or readout.begins
    if readout.formula or elsewhere or readout.kind in ("implicit", "mean-sigmoid"):
        what = f"the score of the teacher {teacher} is no function of one number a token"
        raise InputError(what, remedy="take one whose score is the sigmoid of a logit, a softmax, or a bare number")
    made = objective.record(replace(encoding, max_length=max_length or encoding.max_length))
    if readout.kind != "value":
        made = replace(made, readout=replace(made.readout, kind="sigmoid"))
    halved = readout.kind in ("tanh", "difference")
    return replace(made, aggregation=own.aggregation, threshold=(own.threshold + 1) / 2 if halved else own.threshold)


def add_teacher(
    sets: Sequence[TrainingSet], model: StepRewardModel, settings: TrainSettings, device: str, work: Path
) -> None:
    """Gives sets of data what the teacher says behind each token of their steps, and the model the tokens that it sees.

    Tokens of the other sets that the first one's batches do not have get no target.

    Args:
        sets: those that are learned from first.
        model: whose head learns.
        settings: name the teacher.
        device: where to compute.
        work: folder of unfinished work: a resumed training finds the numbers there.

    Raises:
        InputError: the teacher has no head here.
        ModelError: it cannot be loaded, or cuts text into other tokens.
        StoreError: the folder cannot be written.
    """
    folder = find(settings.teacher)

    def encoded() -> Iterator[EncodedTree]:
        return (tree for one in sets for _, tree in one.parts)

    values = Kept(settings, device, work).numbers(folder, encoded, lambda: _logits_by(settings.teacher, model, device))
    head = model.head
    assert isinstance(head, VocabularyHead), "the trainer has checked it"
    learn, seen = sets[0], np.zeros(len(head.weight), bool)
    for i in sorted({i for rows in learn.plans for row in rows for i in row}):
        tree = learn.parts[i][1]
        seen[tree.ids[of_steps(tree)]] = True
    head.seen.copy_(torch.from_numpy(seen))
    for one in sets:
        one.taught, values = values[: len(one.parts)], values[len(one.parts) :]
    missed = whole = 0
    for one in sets[1:]:
        for (_, tree), numbers in zip(one.parts, one.taught, strict=True):
            steps, unseen = of_steps(tree), ~seen[tree.ids]
            numbers[unseen] = np.nan
            missed, whole = missed + int((steps & unseen).sum()), whole + int(steps.sum())
    _log.log(
        logging.WARNING if missed else logging.INFO,
        "training sees %d of %d tokens of the vocabulary; %d of %d held-out tokens are others, which score -inf",
        seen.sum(), len(seen), missed, whole,
    )  # fmt: skip


def of_steps(tree: EncodedTree) -> NDArray[np.bool_]:
    """(T,) whether a token belongs to a step that is scored."""
    # Depth-first numbers are unique to a node.
    return np.isin(tree.enter, tree.enter[tree.read[tree.read >= 0]])


def _logits_by(name: str, student: StepRewardModel, device: str) -> Measure:
    """What reads a reward model's logit, or its bare number, behind each token."""
    require_same_tokens(find(name), student.tokenizer, "a teacher scores the student's own tokens")
    scorer, _ = scorer_by_recipe(name, device=device, dtype="auto")
    if not isinstance(scorer, DiscriminativeScorer):
        raise InputError(f"the teacher {name} has no head", remedy="take a reward model that is loaded here")
    model = scorer.model

    def measure(batch: PackedBatch, said: StepTokens) -> torch.Tensor:
        return model.step_logits(model(replace(batch, read_row=said.row, read_column=said.column)))

    return measure
