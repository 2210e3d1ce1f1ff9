"""What a step reward model's head says at every token of plain token sequences, as reward servers give it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from numpy.typing import NDArray

from stepreward.core.errors import InputError, ModelError
from stepreward.score.encode.readout import activate
from stepreward.score.model.step_reward_model import StepRewardModel

Ids = Sequence[int]


class TokenOutputs:
    """Computes a head's outputs at every token of sequences.

    Args:
        model: the model, in evaluation mode.
        device: where it is.
        batch_tokens: most tokens, padding included, of a forward pass; at least one sequence.
        most: tokens of a sequence at most.

    Raises:
        ModelError: the head reads more than tokens show.
    """

    def __init__(
        self, model: StepRewardModel, *, device: str = "cpu", batch_tokens: int = 16_384, most: int = 32_768
    ) -> None:
        if model.record.readout.reads_language:
            what = "surprise or a policy is read of steps, which tokens alone do not show"
            raise ModelError(f"{what}: send steps instead")
        if model.record.readout.begins:
            raise ModelError("some outputs are read where a step begins, which tokens alone do not show: send steps")
        if model.record.readout.next_token:
            raise ModelError("the head has an entry for each next token, not a number a token: send steps instead")
        if model.record.both_ways or model.record.readout.looks_back:
            raise ModelError("scores depend on other steps, which tokens alone do not show: send steps instead")
        self.model, self.device, self.batch_tokens = model, device, batch_tokens
        config = model.backbone.config
        self.most = min(most, int(getattr(config, "max_position_embeddings", None) or most))
        self.n_ids = int(model.backbone.get_input_embeddings().num_embeddings)
        self.tag = model.encoder.step_end
        """The token that ends a step, where it is one."""

    @property
    def n_labels(self) -> int:
        """Numbers at each token."""
        return self.model.record.readout.n_labels

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text, with the tokenizer's own special ones around it if `special`."""
        return self.model.encoder.plain(text, special=special)

    def chat_ids(
        self, messages: Sequence[dict[str, Any]], *, opened: bool = False, continued: bool = False
    ) -> list[int]:
        """Tokens of a conversation by the tokenizer's chat template.

        Args:
            messages: of the conversation.
            opened: whether the opening of an answer follows.
            continued: whether the last message stays open.

        Raises:
            InputError: there is no template, or it refuses the messages.
        """
        tokenizer = self.model.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise InputError("the model's tokenizer has no chat template", remedy="send input instead of messages")
        try:
            text = tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=opened, continue_final_message=continued
            )
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            raise InputError(f"the chat template refuses these messages: {error}") from error
        return self.ids(str(text), special=False)

    def rows(
        self, sequences: Sequence[Ids], *, turn: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> list[NDArray[np.float64]]:
        """(T, n_labels) outputs of each sequence, before any activation.

        Args:
            sequences: token ids.
            turn: entered around each forward pass, where others use the model too; what it raises ends the work.

        Raises:
            InputError: a sequence is empty or too long, or an id is not in the vocabulary.
        """
        for ids in sequences:
            if not ids:
                raise InputError("an input has no tokens", remedy="send some text")
            if len(ids) > self.most:
                raise InputError(f"an input has {len(ids):,} tokens, more than {self.most:,}", remedy="shorten it")
            if min(ids) < 0 or max(ids) >= self.n_ids:
                raise InputError(f"token ids must be in [0, {self.n_ids}), got {min(ids)} to {max(ids)}")
        made: list[NDArray[np.float64]] = [np.zeros((0, self.n_labels))] * len(sequences)
        for batch in self._batches(sequences):
            with turn():
                found = self._forward([sequences[i] for i in batch])
            for i, own in zip(batch, found, strict=True):
                made[i] = own
        return made

    @torch.inference_mode()
    def _forward(self, sequences: Sequence[Ids]) -> list[NDArray[np.float64]]:
        """Outputs of sequences that are one batch."""
        lengths = np.array([len(ids) for ids in sequences])
        padded = np.zeros((len(sequences), lengths.max()), np.int64)
        for row, ids in enumerate(sequences):
            padded[row, : lengths[row]] = ids
        real = np.arange(padded.shape[1]) < lengths[:, None]
        given = (torch.from_numpy(part).to(self.device) for part in (padded, lengths, *np.nonzero(real)))
        found = self.model.forward_padded(*given).double().cpu().numpy()
        return np.split(found, np.cumsum(lengths)[:-1])

    def activated(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Softmax over two or more labels, sigmoid of one."""
        return np.asarray(activate(rows))

    def scores(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T,) scores by the model's readout."""
        return self.model.scores(torch.from_numpy(rows)).double().numpy()

    def _batches(self, sequences: Sequence[Ids]) -> Iterator[list[int]]:
        batch: list[int] = []
        for i in sorted(range(len(sequences)), key=lambda i: -len(sequences[i])):
            if batch and (len(batch) + 1) * len(sequences[batch[0]]) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch
