"""Log-probabilities that do not change in training, computed once before it and kept beside its checkpoints."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from stepreward.core.errors import ModelError
from stepreward.core.files.atomic_files import in_one_move
from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.packing import pack, plan, step_tokens
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.implicit import LanguageModel
from stepreward.score.model.backbones import load_tokenizer
from stepreward.score.model.log_ratio_model import LogRatioModel
from stepreward.score.model.step_reward_model import PROBE
from stepreward.score.model.weights import find
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.settings import TrainSettings

_TOGETHER = 1024
"""Trees that are packed together."""
_log = logging.getLogger(__name__)
Logprobs = list[NDArray[np.float32]]
"""(T,) of each encoded tree, 0 at tokens of no scored step."""


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
    kept, name = _Kept(model, settings, device, work), model.record.readout.reference

    def encoded() -> Iterator[EncodedTree]:
        return (tree for one in sets for _, tree in one.parts)

    reference = kept.logprobs(name, encoded)
    guide: Logprobs = []
    if settings.guide:
        guided = kept.logprobs(settings.guide, encoded)
        guide = [one - other for one, other in zip(guided, reference, strict=True)]
    elif settings.contrast:
        better, worse = (
            kept.logprobs(name, partial(_prompted, sets, model.encoder, text)) for text in settings.contrast
        )
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


class _Kept:
    """Log-probabilities by frozen models, from a file where there is one."""

    def __init__(self, model: LogRatioModel, settings: TrainSettings, device: str, work: Path) -> None:
        self.model, self.settings, self.device, self.work = model, settings, device, work

    def logprobs(self, name: str, encoded: Callable[[], Iterator[EncodedTree]]) -> Logprobs:
        """Those by one model; the key of their file is a hash of the model's weights and of the tokens."""
        folder = find(name)
        digest = hashlib.blake2b(f"{weights_hash(folder)} {self.settings.precision}".encode(), digest_size=16)
        ends = [0]
        for tree in encoded():
            ends.append(ends[-1] + len(tree))
            for array in (tree.ids, tree.position, tree.read):
                digest.update(array.tobytes() + b"|")
        path = self.work / f"reference-{digest.hexdigest()}.safetensors"
        found = _read(path)
        if found is None or len(found) != ends[-1]:
            found = np.concatenate([np.empty(0, np.float32), *self._computed(folder, encoded())])
            with in_one_move(path) as unfinished:
                save_file({"logprobs": found}, unfinished)
        return [found[begin:end] for begin, end in pairwise(ends)]

    def _computed(self, folder: Path, encoded: Iterator[EncodedTree]) -> Logprobs:
        if (
            load_tokenizer(folder)(PROBE, add_special_tokens=False)["input_ids"]
            != self.model.tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        ):
            what = f"the tokenizer of {folder} cuts text into other tokens than that of the trained model"
            raise ModelError(f"{what}: a log-ratio needs two models of one tokenizer")
        language = LanguageModel.load(folder).to(self.device)
        half = self.settings.precision == "bf16"
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=half):
            return tree_logprobs(language, encoded, self.settings.row_tokens, self.settings.batch_tokens)


def _read(path: Path) -> NDArray[np.float32] | None:
    try:
        return load_file(path)["logprobs"] if path.is_file() else None
    except (OSError, SafetensorError, KeyError) as error:
        _log.warning("%s is damaged (%s): it is computed again", path, error)
        return None


def weights_hash(folder: Path) -> str:
    """Hash of the weights and the configuration in a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".bin")):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


@torch.no_grad()
def tree_logprobs(model: LanguageModel, encoded: Iterable[EncodedTree], row_tokens: int, batch_tokens: int) -> Logprobs:
    """Log-probabilities of the tokens of scored steps, each after its predecessor on its trajectory.

    Args:
        model: on the device to compute on.
        encoded: the trees.
        row_tokens, batch_tokens: as of training.
    """
    left, made = iter(encoded), list[NDArray[np.float32]]()
    while some := list(islice(left, _TOGETHER)):
        found: Logprobs = [np.empty(0, np.float32)] * len(some)
        for rows in plan([len(tree) for tree in some], row_tokens, batch_tokens):
            for row, values in zip(rows, _batch_logprobs(model, some, rows), strict=True):
                ends = np.cumsum([len(some[i]) for i in row])
                for i, part in zip(row, np.split(values, ends), strict=False):
                    found[i] = part
        made += found
    return made


def _batch_logprobs(
    model: LanguageModel, encoded: Sequence[EncodedTree], rows: Sequence[Sequence[int]]
) -> NDArray[np.float32]:
    """(R, T) those of a packed batch, 0 at other tokens."""
    batch, device = pack(encoded, rows), model.unembedding.device
    said = step_tokens(batch)
    there = said.to(device)
    made = np.zeros(batch.input_ids.shape, np.float32)
    values = model.logprobs(batch.to(device), there.row, there.column, there.before)
    made[said.row.numpy(), said.column.numpy()] = values.cpu().numpy()
    return made
