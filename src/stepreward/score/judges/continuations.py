"""How likely each of a few texts is to come next, by a causal language model: for verdicts that are probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from stepreward.core.errors import ModelError
from stepreward.core.runtime.flows import Propose
from stepreward.score.model.backbones import load_tokenizer
from stepreward.score.model.weights import find
from stepreward.score.remote.label_tokens_server import chat_ids, plain_ids


class LanguageModelChooser:
    """Weighs options behind a chat and the beginning of its answer; a `score.judges.generative.Chooser`.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer, with a chat template.

    Raises:
        ModelError: the tokenizer has no chat template.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise ModelError("a verifier that writes needs a chat, and the tokenizer has no chat template")
        self.model, self.tokenizer = model.eval(), tokenizer

    @classmethod
    def load(cls, name: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LanguageModelChooser:
        """Loads a folder or hub name; no code in it is run.

        Raises:
            ModelError: there is no such model, or it cannot be read.
        """
        folder = find(name)
        try:
            model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"cannot load {folder}: {str(error).strip().splitlines()[0]}") from error
        return cls(model.to(device), load_tokenizer(folder))

    def choose(self, questions: Sequence[Propose], options: Sequence[str]) -> NDArray[np.float64]:
        """(Q, O) log-probabilities of the options behind each question's prompt and prefix."""
        rows = [
            [self._log_probability(chat_ids(self.tokenizer, question), option) for option in options]
            for question in questions
        ]
        return np.array(rows, np.float64).reshape(len(questions), len(options))

    @torch.inference_mode()
    def _log_probability(self, before: list[int], option: str) -> float:
        # The option's tokens are built by themselves, as the beginning of the answer may end inside a word.
        own = torch.tensor(plain_ids(self.tokenizer, option))
        ids = torch.tensor([before + own.tolist()], device=self.model.device)
        logits = self.model(input_ids=ids, logits_to_keep=len(own) + 1).logits[0, :-1].float().cpu()
        return float(logits.log_softmax(-1).gather(1, own[:, None]).sum())
