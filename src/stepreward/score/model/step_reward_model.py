"""A step reward model: any transformers backbone with a linear head read at step ends."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.cache_utils import Cache

from stepreward.core.errors import ModelError, StoreError
from stepreward.core.files.hub import fetch
from stepreward.core.optional import cache_argument
from stepreward.score.encode.packing import PackedBatch, begins
from stepreward.score.encode.per_step import EncoderRecord, StepEncoder
from stepreward.score.encode.record_file import CALIBRATOR_FILE, RECORD_FILE, load_record, save_record
from stepreward.score.model.backbones import load_backbone, save_weights, tokenizer_folder
from stepreward.score.model.exit_head import ExitHead
from stepreward.score.model.heads import build_head, fresh_head, head_state
from stepreward.score.model.quantized_base import without_repacking
from stepreward.score.model.token_logits import least_logprob, policy_outputs, refuse_rescaled
from stepreward.score.model.user_encoder import ENCODER_FILE, UserEncoder
from stepreward.score.model.weights import ADAPTER_FILE, read_weights

HEAD_FILE = "step_head.safetensors"
PROBE = "Mia has 12.5 + 307 = 319.5 'apples'\n\n  na\u00efve \u6f22\u5b57 don't\r\n<|x|>\t"
"""A difficult text whose token ids a checkpoint keeps: they detect a tokenizer that was rebuilt by other rules."""


class StepRewardModel(nn.Module):
    """Backbone, head, tokenizer and encoder record: a checkpoint in memory.

    Args:
        backbone: a transformers model whose first output is (R, T, hidden) hidden states.
        tokenizer: its tokenizer.
        record: how it is fed and read.
        head: maps (..., hidden) to (..., n_labels); None for a fresh linear one.
        seed: seed of a fresh head's weights.

    Raises:
        ModelError: the record reads its language model, and its embeddings are not tied or its logits are changed.
    """

    def __init__(
        self, backbone: Any, tokenizer: Any, record: EncoderRecord, *, head: nn.Module | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.record = backbone, tokenizer, record
        self.encoder = StepEncoder(record, tokenizer)
        if record.readout.reads_language and not backbone.config.tie_word_embeddings:
            what = "reading surprise or a policy needs a backbone whose input and output embeddings are tied"
            raise ModelError(f"{what}: take another one, or set surprise=False")
        if record.readout.policy:
            refuse_rescaled(backbone.config)
        self.head = fresh_head(backbone, record, seed) if head is None else head
        self.users: nn.Embedding | UserEncoder | None = None
        """Numbers of the annotators in training, which a checkpoint has in its readout, or what makes them of pairs."""
        self.with_features = False
        """Whether a forward pass also returns what the last layer of the head reads, behind the outputs."""

    @classmethod
    def from_backbone(
        cls,
        name: str | Path,
        record: EncoderRecord,
        *,
        seed: int = 0,
        dtype: torch.dtype | Literal["auto"] = torch.float32,
        loading: Mapping[str, Any] | None = None,
    ) -> StepRewardModel:
        """A fresh head on a local folder or hub model; the language-model head is left out.

        Args:
            name: folder or hub name.
            record: how the model is fed and read.
            seed: of the head's weights, which are in float32.
            dtype: of the backbone's weights; `auto` is what they were saved in.
            loading: how its weights are quantized, by `quantized_base.loading`; None for whole ones.

        Raises:
            ModelError: the model cannot be loaded.
        """
        folder = name if Path(name).is_dir() else fetch(str(name))
        try:
            if (Path(folder) / ADAPTER_FILE).is_file():
                if loading:
                    raise ModelError("a base with adapters of its own is not quantized: merge them first")
                backbone: Any = load_backbone(Path(folder), read_weights(Path(folder)), dtype)
                tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(Path(folder)))
            else:
                backbone = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa", **(loading or {}))
                without_repacking(backbone)
                tokenizer = AutoTokenizer.from_pretrained(folder)
            # An adapter's file names its base by this.
            backbone.name_or_path = str(Path(name).resolve()) if Path(name).is_dir() else str(name)
        except (OSError, ValueError, RuntimeError, SafetensorError, RecursionError, KeyError, TypeError) as error:
            raise ModelError(f"cannot load a backbone from {name}: {error}") from error
        return cls(backbone, tokenizer, record, seed=seed)

    @property
    def pretrained(self) -> Any:
        """The model of transformers that a checkpoint holds."""
        return self.backbone

    @property
    def _no_split_modules(self) -> Any:
        """Names of the backbone's layer classes: what a sharded training gathers at a time."""
        return self.backbone._no_split_modules

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """(Q, n_labels) logits of the batch's reads, in order of tree and node; or of its pairs (N, 2).

        Of a head with an entry for each next token (N, 1) entries of the batch's step tokens, where it has some.
        """
        hidden = self.hidden_states(batch)
        if self.record.readout.next_token:
            entries: torch.Tensor = self.head(hidden, batch)
            return entries
        features = self._head_inputs(hidden, batch.input_ids, batch.first)[batch.read_row, batch.read_column]
        if self.record.readout.policy:
            table = self.backbone.get_input_embeddings().weight
            logits = policy_outputs(self._read, hidden, batch, table)
        elif self.record.readout.begins:
            begin = hidden[batch.read_row, begins(batch)]
            logits = self.record.readout.joined(self._read(features), self._read(begin))
        else:
            logits = self._read(features) if batch.pairs is None else self._read(*features[batch.pairs.T])
        return torch.cat([logits, self._last_features(features).to(logits)], -1) if self.with_features else logits

    def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
        """(R, T, hidden) last hidden states of the batch's tokens; those of several layers, one behind another, where
        the head has exits."""
        return self._states(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.mask_of(self.backbone),
            use_cache=False,
        )

    def _states(self, **inputs: Any) -> torch.Tensor:
        """(R, T, hidden) last hidden states of the backbone, or those of several layers."""
        if isinstance(self.head, ExitHead):
            return self.head.joined(self.backbone(**inputs, output_hidden_states=True).hidden_states)
        hidden: torch.Tensor = self.backbone(**inputs)[0]
        return hidden

    def _last_features(self, features: torch.Tensor) -> torch.Tensor:
        """(..., H) what the last layer of the head reads."""
        if not isinstance(self.head, nn.Sequential):
            return features
        made: torch.Tensor = self.head[:-1](features.to(next(self.head.parameters()).dtype))
        return made

    def step_features(self, outputs: torch.Tensor) -> torch.Tensor:
        """(Q, H) what the last layer of the head reads, of a forward pass `with_features`."""
        assert outputs.shape[1] > self.record.readout.n_labels, "the pass was made without features"
        return outputs[:, self.record.readout.n_labels :]

    @property
    def last_layer(self) -> nn.Linear:
        """The head's last layer, which reads the features.

        Raises:
            ModelError: that layer is not linear.
        """
        last: Any = self.head[-1] if isinstance(self.head, nn.Sequential) else self.head
        if not isinstance(last, nn.Linear):
            raise ModelError("features are read of heads that end in a linear layer: this one does not")
        return last

    def slope(self) -> torch.Tensor:
        """() detached length of the weights by which that layer makes a step's logit of its features."""
        length: torch.Tensor = torch.linalg.vector_norm(self.step_logits(self.last_layer.weight.detach().T))
        return length

    def _read(self, *features: torch.Tensor) -> torch.Tensor:
        """(..., n_labels) logits of what the head reads; a head may have more precise weights than the backbone."""
        numbers = next(self.head.parameters()).dtype
        logits: torch.Tensor = self.head(*(one.to(numbers) for one in features))
        return logits

    def add_annotators(self, n: int, *, seed: int = 0) -> None:
        """Gives the model numbers of n annotators to train, one for each output of the head."""
        width = self.record.readout.n_labels
        self.users = nn.Embedding(n, width)
        with torch.no_grad():
            # All begin near each other, so that at first there is one reward.
            self.users.weight.normal_(width**-0.5, 0.1, generator=torch.Generator().manual_seed(seed))

    def annotator_numbers(self, annotator: torch.Tensor) -> torch.Tensor:
        """(P, K) the numbers of some annotators, arbitrary for those that are unknown (-1)."""
        assert isinstance(self.users, nn.Embedding), "the trainer adds them"
        made: torch.Tensor = self.users(annotator.clamp(min=0))
        return made

    def step_outputs(self, outputs: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """(Q, n_labels) outputs of each read, out of what the forward pass returned."""
        if self.record.readout.next_token and batch.said is not None:
            return outputs[batch.said.last(len(batch.read_row))]
        return outputs[:, : self.record.readout.n_labels]

    def _head_inputs(self, hidden: torch.Tensor, input_ids: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """(R, T, hidden) what the head reads at each token; with surprise, one number more."""
        if not self.record.readout.surprise:
            return hidden
        least = least_logprob(hidden, input_ids, first, self.backbone.get_input_embeddings().weight)
        return torch.cat([hidden, least[:, :, None].to(hidden.dtype)], dim=-1)

    def forward_cached(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        first: torch.Tensor,
        mask: torch.Tensor,
        cache: Cache,
    ) -> torch.Tensor:
        """(R, q, n_labels) logits at every new token, given the keys and values of earlier ones.

        Args:
            input_ids, position_ids: (R, q) new tokens, steps whole.
            first: (R, q) column of the first token of each token's step; a token of a prompt is its own.
            mask: (R, 1, q, k) bool, True where a new token may see one of the cache's columns, the new ones last.
            cache: holds the earlier tokens and receives the new ones.
        """
        device = next(self.head.parameters()).device
        hidden = self._states(
            input_ids=input_ids.to(device),
            position_ids=position_ids.to(device),
            attention_mask=mask.to(device),
            use_cache=True,
            **{cache_argument(self.backbone): cache},
        )
        return self._read(self._head_inputs(hidden, input_ids.to(device), first.to(device)))

    def forward_padded(
        self,
        input_ids: torch.Tensor,
        lengths: torch.Tensor,
        row: torch.Tensor,
        column: torch.Tensor,
        first: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(Q, n_labels) logits of right-padded single trajectories: the plain way, kept as the reference.

        Args:
            input_ids: (R, T).
            lengths: (R,) tokens of each row.
            row, column: (Q,) where to read.
            first: (R, T) column of the first token of each token's step; needed for surprise alone.
        """
        # Padding on the right needs no positions: causal attention hides it from every real token.
        real = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]
        hidden = self._states(input_ids=input_ids, attention_mask=real.long(), use_cache=False)
        features = hidden if first is None else self._head_inputs(hidden, input_ids, first)
        return self._read(features[row, column])

    def scores(self, logits: torch.Tensor, previous: NDArray[np.int64] | None = None) -> torch.Tensor:
        """(Q,) float32 scores of logits (Q, n_labels), by the record's readout.

        Args:
            logits: of reads.
            previous: (Q,) the read of the scored step before each, -1 for none; for a formula that looks back.
        """
        # In float32 also for weights in 16 bits, which near 1 have steps of 0.4 %.
        scores: torch.Tensor = self.record.readout.scores(logits.float(), previous=previous)
        return scores

    def score_parts(self, logits: torch.Tensor, *, all_outputs: bool = False) -> NDArray[np.float64]:
        """(Q, M) what the readout's `combined` makes scores of, from logits (Q, n_labels); see `Readout.parts`."""
        parts = self.record.readout.parts(logits.float(), all_outputs=all_outputs)
        made: NDArray[np.float64] = parts.double().cpu().numpy()
        return made

    def step_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """(Q,) one float32 logit a read, whose sigmoid is the score without a formula; differentiable.

        Raises:
            ModelError: the readout is no function of one logit.
        """
        try:
            made: torch.Tensor = self.record.readout.step_logits(logits.float())
        except ValueError as error:
            raise ModelError(str(error)) from error
        return made

    def save_pretrained(self, folder: str | Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Writes a checkpoint: standard transformers files, the head, the record. A calibrator of other weights goes.

        Args:
            folder: where to.
            state: all weights by their names in `state_dict()`, where this process holds a part of them.

        Raises:
            StoreError: the folder cannot be written.
        """
        own, head = (None, None) if state is None else (_below(state, "backbone."), _below(state, "head."))
        write_checkpoint(folder, self.backbone, self.tokenizer, self.record, own, head_state(self.head, head))
        (Path(folder) / ENCODER_FILE).unlink(missing_ok=True)
        if isinstance(self.users, UserEncoder):
            self.users.save(Path(folder))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        record: EncoderRecord | None = None,
        *,
        dtype: torch.dtype | Literal["auto"] = torch.float32,
    ) -> StepRewardModel:
        """Reads a checkpoint written by `save_pretrained`; no code and no pickle in it is run.

        Args:
            folder: the checkpoint; adapters are merged into the base that they name.
            record: in place of its own.
            dtype: of the backbone's weights; `auto` is what they were saved in.

        Raises:
            ModelError: the folder is not such a checkpoint.
        """
        folder = Path(folder)
        own, probe = load_record(folder)
        record = record or own
        model = cls.from_backbone(folder, record, dtype=dtype)
        require_probe(model.tokenizer, probe, folder)
        try:
            model.head = build_head(load_file(folder / HEAD_FILE), record)
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            raise ModelError(f"cannot load the step head {folder / HEAD_FILE}: {error}") from error
        model.users = UserEncoder.load(folder)
        return model.eval()


def require_probe(tokenizer: Any, probe: list[int], folder: Path) -> None:
    """Checks that a tokenizer cuts a difficult text as it did when its checkpoint was written.

    Raises:
        ModelError: it does not: releases of transformers rebuild some tokenizers by other rules, without a warning.
    """
    found = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if found != probe:
        raise ModelError(
            f"the tokenizer of {folder} was loaded with other rules than it was trained with: it cuts {PROBE!r} "
            f"into {found}, not {probe}; scores would be wrong. Use the library versions of its training"
        )


def write_checkpoint(
    folder: str | Path, model: Any, tokenizer: Any, record: EncoderRecord,
    state: Mapping[str, torch.Tensor] | None = None, head: Mapping[str, torch.Tensor] | None = None,
) -> None:  # fmt: skip
    """Writes a model of transformers, or its adapters, with its tokenizer, its head and its record.

    Args:
        folder: where to; a calibrator of other weights goes.
        model: the model of transformers.
        tokenizer: its tokenizer.
        record: how it is fed and read.
        state: all weights of the model, where this process holds a part of them.
        head: weights of a step head; None for a model without one.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CALIBRATOR_FILE).unlink(missing_ok=True)
        save_weights(model, folder, None if state is None else dict(state))
        tokenizer.save_pretrained(folder)
        if head is not None:
            save_file(dict(head), folder / HEAD_FILE)
        save_record(record, folder, probe=tokenizer(PROBE, add_special_tokens=False)["input_ids"])
        for path in folder.glob("*.safetensors"):
            # Safetensors makes its files private to their owner, unlike the rest of a checkpoint.
            shutil.copymode(folder / RECORD_FILE, path)
    except OSError as error:
        raise StoreError(f"cannot write the checkpoint {folder}: {error}; choose a writable folder") from error


def _below(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The weights of one part of the model, under its own names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
