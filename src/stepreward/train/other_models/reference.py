"""Log-probabilities by the reference and the guide of a training of log-ratios."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.implicit import LanguageModel
from stepreward.score.model.log_ratio_model import LogRatioModel
from stepreward.score.model.weights import find
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.other_models.frozen_numbers import (
    Kept,
    Measure,
    Numbers,
    Trees,
    require_same_tokens,
    tree_numbers,
)
from stepreward.train.settings import TrainSettings


def add_references(
    sets: Sequence[TrainingSet], model: LogRatioModel, settings: TrainSettings, device: str, work: Path
) -> None:
    """Gives sets of data their log-probabilities by the reference, and the log-ratio that weighs tokens.

    Args:
        sets: for one objective of log-ratios.
        model: whose record names the reference.
        settings: name a guide or prompts to contrast, if the objective reads one.
        device: where to compute.
        work: folder of unfinished work: a resumed training finds them there.

    Raises:
        ModelError: a model cannot be loaded, or cuts text into other tokens.
        StoreError: the folder cannot be written.
    """
    kept, name = Kept(settings, device, work), model.record.readout.reference

    def logprobs(of: str, trees: Trees) -> Numbers:
        folder = find(of)
        return kept.numbers(folder, trees, lambda: _language(folder, model, device))

    def encoded() -> Iterator[EncodedTree]:
        return (tree for one in sets for _, tree in one.parts)

    reference = logprobs(name, encoded)
    guide: Numbers = []
    if settings.guide:
        guided = logprobs(settings.guide, encoded)
        guide = [one - other for one, other in zip(guided, reference, strict=True)]
    elif settings.contrast:
        better, worse = (logprobs(name, partial(_prompted, sets, model.encoder, text)) for text in settings.contrast)
        guide = [_behind_prompts(*parts) for parts in zip(better, worse, encoded(), strict=True)]
    for one in sets:
        n = len(one.parts)
        one.reference, reference = reference[:n], reference[n:]
        one.guide, guide = guide[:n], guide[n:]


def _prompted(sets: Sequence[TrainingSet], encoder: StepEncoder, prompt: str) -> Iterator[EncodedTree]:
    """The trees of sets behind another prompt."""
    encoding = replace(encoder.record.encoding, prompt_format=prompt)
    other = StepEncoder(replace(encoder.record, encoding=encoding), encoder.tokenizer)
    return (other.encode_tree(tree) for one in sets for tree, _ in one.parts)


def _behind_prompts(better: NDArray[np.float32], worse: NDArray[np.float32], tree: EncodedTree) -> NDArray[np.float32]:
    """(T,) log-ratio of a tree's tokens behind two other prompts."""
    # The prompt's tokens come first, and those of the steps are the same behind any prompt.
    steps, made = len(tree) - int(tree.length[0]), np.zeros(len(tree), np.float32)
    made[len(tree) - steps :] = better[len(better) - steps :] - worse[len(worse) - steps :]
    return made


def _language(folder: Path, model: LogRatioModel, device: str) -> Measure:
    """What computes the log-probabilities of step tokens by the language model in a folder."""
    require_same_tokens(folder, model.tokenizer, "a log-ratio needs two models of one tokenizer")
    return _logprobs_by(LanguageModel.load(folder).to(device))


def _logprobs_by(model: LanguageModel) -> Measure:
    return lambda batch, said: model.logprobs(batch, said.row, said.column, said.before)


def tree_logprobs(model: LanguageModel, encoded: Iterable[EncodedTree], row_tokens: int, batch_tokens: int) -> Numbers:
    """Log-probabilities of the tokens of scored steps, each after its predecessor on its trajectory.

    Args:
        model: on the device to compute on.
        encoded: the trees.
        row_tokens, batch_tokens: as of training.
    """
    return tree_numbers(_logprobs_by(model), encoded, row_tokens, batch_tokens, str(model.unembedding.device))
