"""An implicit reward model to train: the reward of a step is a language model's log-ratio to a frozen reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepreward.core.errors import ModelError
from stepreward.core.files.hub import fetch
from stepreward.score.encode.packing import PackedBatch
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.implicit import LanguageModel
from stepreward.score.model.step_reward_model import StepRewardModel, write_checkpoint


class LogRatioModel(LanguageModel):
    """A policy, its tokenizer and an encoder record whose readout is `implicit`: a checkpoint in memory.

        reward of a step = beta sum_{t in step} log pi(y_t) - log pi_ref(y_t)

    The reference's log-probabilities are data of a batch; only its name is kept.

    Args:
        causal: a causal model of transformers, which learns.
        tokenizer: its tokenizer.
        record: how it is fed and read.

    Raises:
        ModelError: its log-probabilities are not those of hidden states and a language-model head.
    """

    def __init__(self, causal: Any, tokenizer: Any, record: EncoderRecord) -> None:
        head = causal.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise ModelError("a language-model head with a bias is not supported: take another model")
        super().__init__(causal.base_model, head.weight)
        self.tokenizer, self.record = tokenizer, record
        self.encoder = StepEncoder(record, tokenizer)
        # In a tuple, its weights are not registered a second time.
        self._causal = (causal,)

    @classmethod
    def from_policy(cls, name: str | Path, record: EncoderRecord) -> LogRatioModel:
        """Starts from a local folder or hub name of a causal language model.

        Raises:
            ModelError: the model cannot be loaded.
        """
        folder = name if Path(name).is_dir() else fetch(str(name))
        try:
            causal = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
            # An adapter's file names its base by this.
            causal.name_or_path = str(Path(name).resolve()) if Path(name).is_dir() else str(name)
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, RuntimeError, SafetensorError, RecursionError, KeyError, TypeError) as error:
            raise ModelError(f"cannot load a language model from {name}: {error}") from error
        return cls(causal, tokenizer, record)

    @property
    def pretrained(self) -> Any:
        """The model of transformers that a checkpoint holds."""
        return self._causal[0]

    @property
    def _no_split_modules(self) -> Any:
        """Names of the backbone's layer classes: what a sharded training gathers at a time."""
        return self.backbone._no_split_modules

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """(N,) log-ratio of each token of the batch's steps.

        Raises:
            ValueError: the batch was packed without them.
        """
        if batch.said is None:
            raise ValueError("a batch for log-ratios needs its step tokens: set said=step_tokens(batch)")
        said = batch.said
        return self.logprobs(batch, said.row, said.column, said.before) - said.reference

    def step_outputs(self, outputs: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """(Q, 1) reward of each read's own step, out of what the forward pass returned."""
        assert batch.said is not None, "the forward pass has checked it"
        sums = outputs.new_zeros(len(batch.read_row)).index_add(0, batch.said.read, outputs)
        return self.record.readout.beta * sums[:, None]

    def step_logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """(Q,) reward of each step, out of those of `step_outputs`."""
        return outputs[:, 0]

    def score_parts(self, outputs: torch.Tensor) -> NDArray[np.float64]:
        """(Q, 2) what the readout's `combined` makes scores of, out of the rewards of `step_outputs`."""
        made: NDArray[np.float64] = self.record.readout.parts(outputs).double().cpu().numpy()
        return made

    def save_pretrained(self, folder: str | Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Writes a checkpoint: a causal language model in transformers format, and the record.

        Args:
            folder: where to.
            state: all weights by their names in `state_dict()`, where this process holds a part of them.

        Raises:
            StoreError: the folder cannot be written.
        """
        own = None if state is None else self._causal_names(state)
        write_checkpoint(folder, self.pretrained, self.tokenizer, self.record, own)

    def _causal_names(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights by the names that the causal model has for them."""
        (causal,) = self._causal
        head = next(name for name, module in causal.named_modules() if module is causal.get_output_embeddings())
        names = {"backbone.": f"{causal.base_model_prefix}.", "own_unembedding": f"{head}.weight"}
        return {
            now + name.removeprefix(old): weight
            for name, weight in state.items() for old, now in names.items() if name.startswith(old)
        }  # fmt: skip


Trainable = StepRewardModel | LogRatioModel
"""A model that is trained: with a head, or of log-ratios."""
