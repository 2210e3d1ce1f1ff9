"""Numbers of tokens by frozen models, computed once before a training and kept beside its checkpoints."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from stepreward.core.errors import ModelError
from stepreward.core.files.atomic_files import in_one_move
from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.packing import PackedBatch, StepTokens, pack, plan, step_tokens
from stepreward.score.model.backbones import load_tokenizer
from stepreward.score.model.step_reward_model import PROBE
from stepreward.train.settings import TrainSettings

_TOGETHER = 1024
"""Trees that are packed together."""
_log = logging.getLogger(__name__)
Numbers = list[NDArray[np.float32]]
"""(T,) of each encoded tree, 0 at tokens of no scored step."""
Trees = Callable[[], Iterator[EncodedTree]]
"""Gives encoded trees, each time from the first one on."""
Measure = Callable[[PackedBatch, StepTokens], torch.Tensor]
"""(N,) numbers of the step tokens of a batch, both on the device of the model that says them."""


class Kept:
    """Numbers by frozen models, from a file where there is one.

    Args:
        settings: of the training.
        device: where to compute.
        work: folder of unfinished work: a resumed training finds them there.
    """

    def __init__(self, settings: TrainSettings, device: str, work: Path) -> None:
        self.settings, self.device, self.work = settings, device, work

    def numbers(self, folder: Path, encoded: Trees, load: Callable[[], Measure]) -> Numbers:
        """Those by one model; the key of their file is a hash of the model's weights and of the tokens.

        Args:
            folder: of the model.
            encoded: gives the trees.
            load: makes what computes the numbers; not called where the file is there.
        """
        digest = hashlib.blake2b(f"{weights_hash(folder)} {self.settings.precision}".encode(), digest_size=16)
        ends = [0]
        for tree in encoded():
            ends.append(ends[-1] + len(tree))
            for array in (tree.ids, tree.position, tree.read):
                digest.update(array.tobytes() + b"|")
        path = self.work / f"frozen-{digest.hexdigest()}.safetensors"
        found = _read(path)
        if found is None or len(found) != ends[-1]:
            found = np.concatenate([np.empty(0, np.float32), *self._computed(load(), encoded())])
            with in_one_move(path) as unfinished:
                save_file({"numbers": found}, unfinished)
        return [found[begin:end] for begin, end in pairwise(ends)]

    def _computed(self, measure: Measure, encoded: Iterator[EncodedTree]) -> Numbers:
        half = self.settings.precision == "bf16"
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=half):
            limits = self.settings.row_tokens, self.settings.batch_tokens
            return tree_numbers(measure, encoded, *limits, self.device)


def require_same_tokens(folder: Path, tokenizer: Any, why: str) -> None:
    """Checks that the tokenizer of a folder cuts text as another one does.

    Raises:
        ModelError: it does not.
    """
    probe = load_tokenizer(folder)(PROBE, add_special_tokens=False)["input_ids"]
    if probe != tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
        what = f"the tokenizer of {folder} cuts text into other tokens than that of the trained model"
        raise ModelError(f"{what}: {why}")


def _read(path: Path) -> NDArray[np.float32] | None:
    try:
        return load_file(path)["numbers"] if path.is_file() else None
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
def tree_numbers(
    measure: Measure, encoded: Iterable[EncodedTree], row_tokens: int, batch_tokens: int, device: str
) -> Numbers:
    """Numbers of the tokens of scored steps, 0 at other tokens.

    Args:
        measure: what computes them.
        encoded: the trees.
        row_tokens, batch_tokens: as of training.
        device: where to compute.
    """
    left, made = iter(encoded), list[NDArray[np.float32]]()
    while some := list(islice(left, _TOGETHER)):
        found: Numbers = [np.empty(0, np.float32)] * len(some)
        for rows in plan([len(tree) for tree in some], row_tokens, batch_tokens):
            for row, values in zip(rows, _of_batch(measure, some, rows, device), strict=True):
                ends = np.cumsum([len(some[i]) for i in row])
                for i, part in zip(row, np.split(values, ends), strict=False):
                    found[i] = part
        made += found
    return made


def _of_batch(
    measure: Measure, encoded: Sequence[EncodedTree], rows: Sequence[Sequence[int]], device: str
) -> NDArray[np.float32]:
    """(R, T) those of a packed batch."""
    batch = pack(encoded, rows)
    said = step_tokens(batch)
    made = np.zeros(batch.input_ids.shape, np.float32)
    values = measure(batch.to(device), said.to(device))
    made[said.row.numpy(), said.column.numpy()] = values.float().cpu().numpy()
    return made
