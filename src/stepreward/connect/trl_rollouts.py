"""Rollouts for TRL by `LocalPolicy`: keyed randomness, each prompt encoded once, rows that end leave the batch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose
from stepreward.core.types import Message, Problem
from stepreward.policies import loading
from stepreward.policies.local import LocalPolicy


class LocalRollouts:
    """A `rollout_func` of TRL that samples from the weights in training.

    The sample depends on the key, the training step, the process and the place in the batch alone.

    Args:
        key: randomness of all rollouts.
        settings: of `LocalPolicy`: `separator`, `template`, `batch_size`.
    """

    def __init__(self, key: Key, **settings: Any) -> None:
        self.key, self.settings = key, settings
        self.tokens = 0
        """Tokens generated so far, end tokens included."""
        self.end = -1
        """The token that ends a completion, once there is a policy."""
        self._policy: LocalPolicy | None = None
        self._calls = 0

    def __call__(self, prompts: Sequence[str | Sequence[Message]], trainer: Any) -> dict[str, Any]:
        """Completions in TRL's form: token ids of prompts and completions; log-probabilities are left to TRL."""
        was_training = trainer.model.training
        policy = self.policy_of(trainer)
        key = self.key.fold("rollouts", self._calls, trainer.accelerator.process_index)
        self._calls += 1
        # TRL passes each prompt once for every generation, one after another.
        runs = [(prompt, len(list(same))) for prompt, same in itertools.groupby(prompts)]
        problems = [
            Problem(str(i), prompt if isinstance(prompt, str) else tuple(prompt)) for i, (prompt, _) in enumerate(runs)
        ]
        questions = [Propose(p, (), key.fold(p.id), n=n) for p, (_, n) in zip(problems, runs, strict=True)]
        # In training mode checkpointed layers keep no cache, and dropout would change what is sampled.
        trainer.model.eval()
        proposed = policy.propose(questions)
        trainer.model.train(was_training)
        prompt_ids, completion_ids = [], []
        for problem, answers in zip(problems, proposed, strict=True):
            for answer in answers:
                ids = [token for step in answer.steps for token in step.tokens or ()]
                prompt_ids.append(list(policy.prompt_ids(problem)))
                completion_ids.append([*ids, self.end] if answer.finished else ids or [self.end])
                self.tokens += answer.n_tokens
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None}

    def policy_of(self, trainer: Any) -> LocalPolicy:
        """The policy that samples from a trainer's weights, made once."""
        if self._policy is not None:
            return self._policy
        model = trainer.accelerator.unwrap_model(trainer.model)
        tokenizer = trainer.processing_class
        self.end = int(loading.end_tokens(model, tokenizer)[0])
        own: Mapping[str, Any] = {
            "temperature": trainer.temperature,
            "max_tokens": trainer.max_completion_length,
            "top_p": trainer.top_p,
            "top_k": trainer.top_k,
        }
        self._policy = LocalPolicy(model, tokenizer, **{**own, **self.settings})
        return self._policy
