"""The model at the start of training: a pretrained backbone, a reward model, or a small one with random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.tree import StepTree
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.backbones import load_config
from stepreward.score.model.log_ratio_model import LogRatioModel, Trainable
from stepreward.score.model.public_checkpoints import unembedding
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import fresh_backbone, train_tokenizer
from stepreward.score.model.vocabulary_head import VocabularyHead
from stepreward.score.model.weights import find, read_weights
from stepreward.train.continued import continued_model, continued_record
from stepreward.train.objective import Objective
from stepreward.train.other_models.teacher import taught_record
from stepreward.train.settings import SCRATCH


def longest(backbone: str | Path) -> int:
    """Most tokens of a trajectory that a backbone takes, by its configuration; 4096 where that does not say.

    Raises:
        ModelError: there is no such backbone.
    """
    if str(backbone) == SCRATCH:
        return PerStep().max_length
    config = load_config(find(backbone, weights=False))
    return int(getattr(config, "max_position_embeddings", 0) or PerStep().max_length)


def starting_record(
    backbone: str | Path, objective: Objective, *, keep_head: bool = False, like: str = "", max_length: int = 0,
    prompt_format: str = "", teacher: str = "", surprise: bool = False, both_ways: bool = False,
) -> EncoderRecord:  # fmt: skip
    """How the model that an objective trains is fed and read.

    Args:
        backbone: as of `starting_model`.
        objective: what is trained.
        keep_head: the backbone is a reward model, whose input is kept and whose head becomes that of the objective.
        like: row of the table of checkpoints whose recipe that reward model follows.
        max_length: most tokens of a trajectory; 0 for as many as the backbone takes.
        prompt_format: as of `RecipeFields`; empty for the default, or that of the reward model.
        teacher: reward model as which the model is fed, where the objective learns its scores.
        surprise, both_ways: as of `Objective.record`; a reward model decides them itself.

    Raises:
        InputError: none of the outputs is a score, or settings contradict each other.
        ModelError: there is no such backbone, or nothing says how the reward model is read.
    """
    if teacher:
        if keep_head or surprise or both_ways or prompt_format:
            what = f"{objective.method.name} starts from a language model's own head, fed one way, as its teacher is"
            raise InputError(what, remedy="leave out keep_head, surprise, both_ways and prompt_format")
        return taught_record(teacher, objective, max_length=max_length)
    if not keep_head:
        if like:
            raise InputError("like says how a reward model is read", remedy="pass keep_head too, or leave it out")
        # Formats end steps in one line break or several, and a user's lists in none: to the model they are one text.
        encoding = PerStep(clean=("chomp",), max_length=max_length or longest(backbone))
        made = objective.record(encoding, surprise=surprise, both_ways=both_ways)
    elif surprise or both_ways or str(backbone) == SCRATCH:
        what = (
            "a reward model decides itself what its head reads" if str(backbone) != SCRATCH else "scratch has no head"
        )
        raise InputError(what, remedy="leave out keep_head, or surprise and both_ways")
    else:
        made = continued_record(backbone, objective, like=like, max_length=max_length)
    return replace(made, encoding=replace(made.encoding, prompt_format=prompt_format or made.encoding.prompt_format))


def starting_model(
    backbone: str | Path,
    trees: Iterable[StepTree] = (),
    *,
    record: EncoderRecord | None = None,
    keep_head: bool = False,
    like: str = "",
    bias: bool = True,
    hidden: int = 128,
    layers: int = 4,
    vocabulary: int = 1024,
    seed: int = 0,
    loading: Mapping[str, Any] | None = None,
) -> Trainable:
    """A model to train: with a head, or by a record with an implicit readout one of log-ratios.

    Args:
        backbone: a local folder or hub name of a causal language model, whose head is left out, or `"scratch"`: a fresh
            small Qwen2-shaped model with a tokenizer learned from the trees.
        trees: texts for a fresh tokenizer; not needed for a pretrained backbone.
        record: input and readout of the model, by `starting_record`; the defaults where None.
        keep_head, like: as of `starting_record`.
        bias: of a fresh head; the layout of a sequence classifier has none.
        hidden: width of a fresh model, a multiple of 8.
        layers: depth of a fresh model.
        vocabulary: tokens of a fresh tokenizer, at least 258.
        seed: of every fresh weight.
        loading: how a pretrained backbone is quantized, by `parameters.loading`.

    Raises:
        InputError: a fresh tokenizer has nothing to learn from, a size is out of range, or a fresh model, one of
            log-ratios or a reward model should be quantized.
        ModelError: the backbone cannot be loaded, or cannot do what the record asks.
    """
    record = record or EncoderRecord()
    if loading and (keep_head or record.readout.kind == "implicit" or str(backbone) == SCRATCH):
        raise InputError("only a pretrained backbone with a fresh head is quantized", remedy="leave load_in out")
    if keep_head:
        return continued_model(backbone, record, like=like)
    if record.readout.kind == "implicit":
        if str(backbone) == SCRATCH:
            raise InputError("log-ratios need a model that has learned a language", remedy="pass another backbone")
        return LogRatioModel.from_policy(backbone, record)
    if str(backbone) != SCRATCH:
        # Training keeps what it changes in float32, and the rest as it was saved or in the numbers of the forward pass.
        model = StepRewardModel.from_backbone(backbone, record, seed=seed, dtype="auto", loading=loading)
        if record.readout.next_token:
            state = read_weights(find(backbone))
            model.head = VocabularyHead(unembedding(state), state.get("lm_head.bias"))
        return _with_head(model, bias)
    if hidden % 8 or hidden <= 0 or layers <= 0 or vocabulary < 258:
        raise InputError(
            f"a fresh model cannot have hidden={hidden}, layers={layers}, vocabulary={vocabulary}",
            remedy="take hidden a positive multiple of 8, layers >= 1 and vocabulary >= 258",
        )
    texts = (text for tree in trees for text in (tree.problem.text, *(step.text for step in tree.steps)))
    first = next(texts, None)
    if first is None:
        raise InputError("there is no text to learn a tokenizer from", remedy="pass labelled trees or a backbone")
    tokenizer = train_tokenizer(chain([first], texts), vocabulary)
    made = fresh_backbone(tokenizer, hidden=hidden, layers=layers, seed=seed)
    return _with_head(StepRewardModel(made, tokenizer, record, seed=seed), bias)


def _with_head(model: StepRewardModel, bias: bool) -> StepRewardModel:
    """A fresh model whose head has a bias or none."""
    if not bias:
        model.head.register_parameter("bias", None)
    return model
