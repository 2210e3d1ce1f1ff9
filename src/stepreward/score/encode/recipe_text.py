"""The text of a recipe: the prompt, each step and the text between them, before any tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stepreward.core.errors import InputError, ModelError
from stepreward.core.segment.tool_calls import said_of
from stepreward.core.types import TOOLS, Problem, Step
from stepreward.score.encode.record import Clean, Conversation, Encoding, PerPrefix, PerStep

_MARK = "\u2045step\u2046"
"""A placeholder for a content while a chat template is rendered; no template changes it."""
_NUMBER = re.compile(r"^\s*Step \d+:")


def valid(text: str) -> str:
    """The text, if tokenizers can read it: half a surrogate pair, such as a cut emoji leaves, has no UTF-8.

    Raises:
        InputError: they cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"character {error.start} of {text[:40]!r} is half a surrogate pair, which is no text"
        raise InputError(what, remedy="repair or drop the row") from error
    return text


def cleaned(text: str, clean: Sequence[Clean]) -> str:
    """A step's text after the changes that work on it alone."""
    for how in clean:
        if how == "unnumber":
            text = _NUMBER.sub("", text)
        elif how == "chomp":
            text = text.rstrip("\r\n")
        elif how == "strip":
            text = text.strip()
        elif how == "no-blank-lines":
            text = text.replace("\n\n", "")
    return text


def filled(form: str, values: Mapping[str, str]) -> str:
    """The form with each `{name}` replaced once, in one pass: braces inside values stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), form)


def filled_prompt(form: str, problem: Problem, values: Mapping[str, str]) -> str:
    """The form of a prompt with the problem's text, its reference answer and other values in place of their names.

    Raises:
        InputError: the form asks for a reference and the problem has none.
    """
    if "{reference}" in form and not problem.reference:
        what = f"problem {problem.id!r} has no reference answer, which the model's prompt asks for"
        raise InputError(what, remedy="give each problem a 'reference', or take a model that reads none")
    return filled(form, {"prompt": problem.text, "reference": problem.reference or "", **values})


class RecipeText:
    """Builds the text of a recipe piece by piece, so that the whole is the concatenation of the pieces.

    A chat template is a program without parts: what it puts before, between and behind contents is found by rendering
    conversations with placeholders and comparing the texts.

    Args:
        encoding: of the encoder record.
        tokenizer: gives the chat template and the names of its tokens.

    Raises:
        ModelError: the encoding is a chat and there is no chat template, or the template cannot be cut at messages.
    """

    def __init__(self, encoding: Encoding, tokenizer: Any) -> None:
        self.encoding, self.tokenizer = encoding, tokenizer
        self.answer = encoding.answer if isinstance(encoding, Conversation) else ""
        self._tools = isinstance(encoding, Conversation) and encoding.tools
        self._plain = encoding.template == "plain"
        if not self._plain and not getattr(tokenizer, "chat_template", None):
            raise ModelError("the record asks for a chat prompt but the tokenizer has no chat template")
        if isinstance(encoding, Conversation):
            self._check_messages()

    def refuse_images(self, images: object) -> None:
        """Refuses images where the record says so.

        Raises:
            ModelError: there are images.
        """
        if images and self.encoding.images == "refused":
            raise ModelError(
                "there are images, and only the language model of this checkpoint is loaded here, not its image tower: "
                "drop the images, or score them with the checkpoint's own code"
            )

    def body(self, step: Step, n: int, previous: str = "") -> str:
        """The formatted text of the n-th step (from 1), without separator, behind the text of the previous ones."""
        encoding, text = self.encoding, cleaned(self.said(step), self.encoding.clean)
        # Steps that were cut at the separator may still have it: it is added once, behind the text.
        if isinstance(encoding, PerStep) and encoding.tokenise == "step":
            text = text.removesuffix(encoding.separator)
        if "own-number" in encoding.clean and text.lstrip()[:4].lower() == "step":
            return text
        form = encoding.later_format if n > 1 and encoding.later_format else encoding.step_format
        return filled(form, {"step": text, "n": str(n), "previous": previous})

    def said(self, step: Step) -> str:
        """The text of a step that the recipe shows, before it is cleaned."""
        return said_of(step) if self._tools else step.text

    def role(self, step: Step) -> str:
        """Of a conversation: the role of a step's message."""
        if self._tools and step.kind == "observation" and step.role == "tool":
            return step.role
        return "user" if self.answer or step.kind == "observation" else "assistant"

    def head(self, problem: Problem) -> str:
        """The text before the first step."""
        if self._plain:
            return self.prompt(problem)
        encoding, messages = self.encoding, self.messages(problem)
        # A prompt that is tokenised by itself ends as the template opens an answer. Otherwise the text is cut out of a
        # whole chat: a template may open an answer that is there in another way than one that is to be written.
        if isinstance(encoding, PerPrefix) or (isinstance(encoding, PerStep) and encoding.tokenise == "step"):
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        return self.render([*messages, {"role": "assistant", "content": _MARK}]).split(_MARK)[0]

    def prompt(self, problem: Problem) -> str:
        """`prompt_format` filled in; a tokenizer without a first token has none to put there."""
        self.refuse_images(problem.meta.get("images"))
        return filled_prompt(self.encoding.prompt_format, problem, {"bos": self.tokenizer.bos_token or ""})

    def messages(self, problem: Problem, body: str = "") -> list[dict[str, str]]:
        """The messages of a chat before the first step; the last one's content is `prompt_format` where it is a string.

        A problem that is a conversation keeps its messages, unless the recipe wraps the prompt. With a dummy answer,
        `body` is the first step, which is part of that message.
        """
        encoding = self.encoding
        self.refuse_images(problem.meta.get("images"))
        made = [dict(m) for m in problem.messages]
        if isinstance(problem.prompt, str) or encoding.prompt_format not in ("{prompt}", "{prompt}\n"):
            # The line break of the plain default is no part of a message.
            form = "{prompt}" if encoding.prompt_format == "{prompt}\n" else encoding.prompt_format
            made = [{"role": "user", "content": filled_prompt(form, problem, {"step": body})}]
        if encoding.system is not None:
            made.insert(0, {"role": "system", "content": encoding.system})
        return made

    def render(self, messages: Sequence[Mapping[str, str]], problem: Problem | None = None) -> str:
        """The chat as one text, the last message closed, with the problem's tools where the recipe shows them."""
        more = {"tools": problem.meta[TOOLS]} if problem and self._tools and problem.meta.get(TOOLS) else {}
        chat = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=False, **more)
        return str(chat)

    def opening(self, problem: Problem, step: Step) -> str:
        """Of a conversation: the text of the prompt and the first step."""
        body = self.body(step, 1)
        own = self._step_messages(step, body)
        # With a dummy answer the step is in the last message of the prompt already: the answer alone follows.
        return self.render([*self.messages(problem, body), *(own[1:] if self.answer else own)], problem)

    def turn(self, step: Step, n: int) -> str:
        """Of a conversation: the text that the n-th step (from 2) adds to the conversation."""
        # The same at every place of a conversation, which `_check_messages` made sure of: so any base will do.
        base = self._earlier_messages()
        return self.render([*base, *self._step_messages(step, self.body(step, n))]).removeprefix(self.render(base))

    def _step_messages(self, step: Step, body: str) -> list[dict[str, str]]:
        """Of a conversation: the step's message and, behind an action, the dummy answer if there is one."""
        own = {"role": self.role(step), "content": body}
        answered = self.answer and step.kind == "action"
        return [own, {"role": "assistant", "content": self.answer}] if answered else [own]

    def _earlier_messages(self) -> list[dict[str, str]]:
        system = self.encoding.system
        made = [{"role": "system", "content": system}] if system is not None else []
        return [*made, {"role": "user", "content": "x"}, {"role": "assistant", "content": self.answer or "x"}]

    def before_content(self, problem: Problem) -> str:
        """Of a conversation: the text of the prompt's first turn up to what depends on the first step."""
        if not self.answer:
            return self.render(self.messages(problem), problem)
        lead = self.messages(problem)[:-1]
        return self.render([*lead, {"role": "user", "content": _MARK}]).split(_MARK)[0]

    def closing(self) -> str:
        """Of a conversation: the dummy answer and what the template puts behind it."""
        more = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _MARK}]
        return self.answer + self.render([*self._earlier_messages(), *more]).split(_MARK)[1]

    def _check_messages(self) -> None:
        """Checks that a message adds the same text at every place of the conversation."""
        base = self._earlier_messages()
        more = [{"role": "user", "content": _MARK}, {"role": "assistant", "content": "y"}]
        texts = [self.render(base), self.render([*base, *more]), self.render([*base, *more, *more])]
        if not (texts[1].startswith(texts[0]) and texts[2].startswith(texts[1])):
            raise ModelError("the chat template rewrites earlier messages: steps cannot be messages of their own")
        if texts[1][len(texts[0]) :] != texts[2][len(texts[1]) :]:
            raise ModelError("the chat template writes a message differently later on: steps cannot be messages")
