"""The tokens that stand before what a policy writes: the prompt and the steps so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step


class PromptTokens:
    """Builds prompts by a tokenizer: its chat template over the problem's messages, or a template of text.

    Args:
        tokenizer: a transformers tokenizer.
        template: text with `{prompt}` in it that replaces the chat template.
        chat: what the chat template is told beside the messages, such as `enable_thinking` or `reasoning_effort`.

    Raises:
        InputError: the template has no place for the prompt, or there is no chat template to be told anything.
    """

    def __init__(self, tokenizer: Any, template: str | None = None, chat: Mapping[str, Any] | None = None) -> None:
        if template is not None and "{prompt}" not in template:
            raise InputError(f"expected '{{prompt}}' in the template, got {template!r}")
        if chat and (template is not None or not tokenizer.chat_template):
            what = f"{', '.join(sorted(chat))} reach a chat template, and none is used here"
            raise InputError(what, remedy="drop them, or take a model with a chat template")
        self.tokenizer, self.template, self.chat = tokenizer, template, dict(chat or {})

    def prompt(self, problem: Problem) -> tuple[int, ...]:
        """The tokens that stand before a problem's first step.

        Raises:
            InputError: there are none.
        """
        tokenizer = self.tokenizer
        if self.template is None and tokenizer.chat_template:
            text = tokenizer.apply_chat_template(
                list(problem.messages), add_generation_prompt=True, tokenize=False, **self.chat
            )
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            text = (self.template or "{prompt}\n").replace("{prompt}", problem.text)
            ids = tokenizer(text)["input_ids"]
            # Some tokenizers close every text; a closed prompt has nothing to continue.
            if ids and ids[-1] == tokenizer.eos_token_id:
                ids = ids[:-1]
        if not ids:
            raise InputError(f"the prompt of problem {problem.id!r} has no tokens", remedy="give it text")
        return tuple(ids)

    def prefix(self, steps: Sequence[Step]) -> tuple[int, ...]:
        """The tokens of steps: their own where they have them, else those of each step's text by itself."""
        ids: list[int] = []
        for step in steps:
            if step.tokens is not None:
                ids.extend(step.tokens)
            elif step.text:
                ids.extend(self.tokenizer(step.text, add_special_tokens=False)["input_ids"])
        return tuple(ids)
