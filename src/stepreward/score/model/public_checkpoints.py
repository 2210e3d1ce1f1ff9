"""Reward models of others in memory: backbone, head and tokenizer by the layout of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stepreward.core.errors import ModelError
from stepreward.score.checkpoints.row import Head, head_of
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.encode.record_file import load_record
from stepreward.score.model.backbones import EMBEDDINGS, UNEMBEDDINGS, load_backbone, load_config, load_tokenizer
from stepreward.score.model.heads import build_head, mean_head, split_head, token_head
from stepreward.score.model.step_reward_model import HEAD_FILE, StepRewardModel, require_probe
from stepreward.score.model.vision_language import language_weights
from stepreward.score.model.weights import State, read_weights


def load_public(folder: Path, record: EncoderRecord, head: Head, dtype: torch.dtype = torch.float32) -> StepRewardModel:
    """A checkpoint of others as a step reward model; no code and no pickled object in it is run.

    Args:
        folder: in transformers format, or an adapter's.
        record: how it is fed and read.
        head: where its labels come from; not `none`.
        dtype: of its weights.

    Raises:
        ModelError: it cannot be read, or is not laid out as said.
    """
    state, tokenizer = language_weights(read_weights(folder), load_config(folder)), load_tokenizer(folder)
    if head == "weights":
        state, own = split_head(state)
        module = build_head(own, record)
    elif head == "tokens":
        module = token_head(unembedding(state), label_ids(record, tokenizer))
    else:
        module = mean_head(unembedding(state))
    return StepRewardModel(load_backbone(folder, state, dtype), tokenizer, record, head=module.to(dtype)).eval()


def load_own(folder: Path, record: EncoderRecord | None = None) -> StepRewardModel:
    """A checkpoint with a record of its own: as `train` writes it, or as `export` does in a layout of others.

    Args:
        folder: of the checkpoint.
        record: in place of its own.

    Raises:
        ModelError: it cannot be read.
    """
    if (folder / HEAD_FILE).is_file():
        return StepRewardModel.from_pretrained(folder, record)
    own, probe = load_record(folder)
    record = record or own
    model = load_public(folder, record, head_of(record.readout))
    require_probe(model.tokenizer, probe, folder)
    return model


def unembedding(state: State) -> torch.Tensor:
    """(V, hidden) rows of the language-model head; the embeddings where the two are tied.

    Raises:
        ModelError: there is neither.
    """
    for name in (*UNEMBEDDINGS, *EMBEDDINGS):
        if name in state:
            return state[name]
    raise ModelError(f"expected a language-model head ({', '.join(UNEMBEDDINGS)}) among the weights, found none")


def label_ids(record: EncoderRecord, tokenizer: Any) -> list[int]:
    """Ids of the record's label tokens.

    Raises:
        ModelError: it names none, or two share an id.
    """
    # Two texts may begin or end with the same token, such as a space: the labels would then be one.
    readout = record.readout
    if not readout.label_tokens:
        raise ModelError("reading a language-model head needs label_tokens, such as ('+', '-')")
    piece = 0 if readout.label_piece == "first" else -1
    ids = [int(tokenizer(text, add_special_tokens=False)["input_ids"][piece]) for text in readout.label_tokens]
    if len(set(ids)) < len(ids):
        raise ModelError(f"the label tokens {readout.label_tokens} have the ids {ids}: they must differ")
    return ids
