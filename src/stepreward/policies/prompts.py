"""The tokens before a continuation: the prompt and the steps so far."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.optional import optional
from stepreward.core.runtime.flows import EFFORT, TEMPLATE_KWARGS
from stepreward.core.types import TOOLS, Problem, Step
from stepreward.policies.chat_messages import messages_of, template_fields

_OWN_ARGUMENTS = frozenset({"messages", "conversation", "add_generation_prompt", "tokenize", "chat_template", "tools"})
"""Arguments that are passed to the chat template here, or would replace it."""
_SAID = "\u27e6said\u27e7"
"""Stands for what the model wrote while a template writes what comes behind it."""


class PromptTokens:
    """Builds prompts by a tokenizer: its chat template over the problem's messages, or a template of text.

    Args:
        tokenizer: a transformers tokenizer.
        template: text with `{prompt}` in it that replaces the chat template.
        chat: arguments of the chat template beside the messages, such as `enable_thinking` or `reasoning_effort`.

    Raises:
        InputError: the template has no place for the prompt, or the chat template does not read an entry of `chat`.
    """

    def __init__(self, tokenizer: Any, template: str | None = None, chat: Mapping[str, Any] | None = None) -> None:
        if template is not None and "{prompt}" not in template:
            raise InputError(f"expected '{{prompt}}' in the template, got {template!r}")
        self.tokenizer, self.template, self.chat = tokenizer, template, dict(chat or {})
        self._require_read(self.chat)

    @property
    def takes(self) -> frozenset[str]:
        """The names in `core.runtime.flows.READ_BY_POLICIES` that the chat template reads; none without a template."""
        if not self._chats:
            return frozenset()
        return frozenset({TEMPLATE_KWARGS} | {name for name in (EFFORT, TOOLS) if self._reads(name)})

    def prompt(self, problem: Problem, shown: Sequence[Step] = ()) -> tuple[int, ...]:
        """The tokens before a problem's first step, or the first action where something is shown before it.

        Raises:
            InputError: there are none, or the chat template refuses the messages.
        """
        tokenizer = self.tokenizer
        if self._chats:
            text = self._chat_text(problem, _messages(problem, shown))
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            text = (self.template or "{prompt}\n").replace("{prompt}", problem.text)
            ids = tokenizer(text)["input_ids"]
            # Some tokenizers end every text with an end token, after which a model would not continue.
            if ids and ids[-1] == tokenizer.eos_token_id:
                ids = ids[:-1]
        if not ids:
            raise InputError(f"the prompt of problem {problem.id!r} has no tokens", remedy="give it text")
        return tuple(ids)

    @property
    def _chats(self) -> bool:
        return self.template is None and bool(self.tokenizer.chat_template)

    def _chat_text(self, problem: Problem, messages: Sequence[Mapping[str, Any]]) -> str:
        own = template_fields(problem, {})
        own = {**own.pop(TEMPLATE_KWARGS, {}), **own}
        self._require_read(own)
        own |= {"tools": problem.meta[TOOLS]} if problem.meta.get(TOOLS) and self._reads(TOOLS) else {}
        try:
            made: str = self.tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=False, **{**self.chat, **own}
            )
        except (optional("jinja2").TemplateError, TypeError, ValueError) as error:
            what = f"the chat template refuses problem {problem.id!r}: {' '.join(str(error).split())[:200]}"
            raise InputError(what, remedy="send the roles and the content that it knows") from error
        return made

    def _require_read(self, settings: Mapping[str, Any]) -> None:
        """Refuses settings that the chat template does not read: it would silently ignore them."""
        if settings and not self._chats:
            what = f"{', '.join(sorted(settings))} are settings of a chat template, and none is used here"
            raise InputError(what, remedy="drop them, or take a model with a chat template")
        for name in sorted(settings):
            if name in _OWN_ARGUMENTS or not self._reads(name):
                what = f"the chat template of this model does not read {name!r}"
                raise InputError(what, remedy="drop it, or check its name in the model's chat template")

    def _reads(self, name: str) -> bool:
        return re.search(rf"\b{re.escape(name)}\b", str(self.tokenizer.chat_template)) is not None

    def ids(self, problem: Problem, steps: Sequence[Step], prompts: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """The tokens of a problem and of steps, which are followed by what the policy writes.

        Steps have their own tokens where they have them, else those of each step's text by itself. In a chat, what the
        chat template writes around it is about an observation, and before the action behind it.

        Args:
            problem, steps: what is continued.
            prompts: tokens of the prompts of a batch, by the problem's id; it is added to.

        Raises:
            InputError: as `prompt`, or the template changes what an assistant says.
        """
        # Only what is shown before the first action is in the prompt.
        first = next((at for at, step in enumerate(steps) if step.kind == "action"), len(steps)) if self._chats else 0
        if first:
            ids = [*self.prompt(problem, steps[:first])]
        else:
            if problem.id not in prompts:
                prompts[problem.id] = self.prompt(problem)
            ids = [*prompts[problem.id]]
        for observed, group in groupby(steps[first:], lambda step: self._chats and step.kind == "observation"):
            some = [*group]
            ids += self._between(problem, some) if observed else self._written(some)
        return tuple(ids)

    def _written(self, steps: Iterable[Step]) -> Iterator[int]:
        for step in steps:
            if step.tokens is not None:
                yield from step.tokens
            elif step.text:
                yield from self.tokenizer(step.text, add_special_tokens=False)["input_ids"]

    def _between(self, problem: Problem, shown: Sequence[Step]) -> list[int]:
        """Tokens from the end of an action to the beginning of the next one, with what is shown between them."""
        text = self._chat_text(problem, _messages(problem, [Step(_SAID), *shown]))
        if text.count(_SAID) != 1:
            what = f"the chat template of this model changes what an assistant says, in problem {problem.id!r}"
            raise InputError(what, remedy="take a model whose template keeps the turns of a chat")
        ids: list[int] = self.tokenizer(text.partition(_SAID)[2], add_special_tokens=False)["input_ids"]
        return ids


def _messages(problem: Problem, steps: Sequence[Step]) -> list[dict[str, Any]]:
    # Messages in a client's own form may have parts that no template reads.
    return messages_of(replace(problem, meta={}), steps)
