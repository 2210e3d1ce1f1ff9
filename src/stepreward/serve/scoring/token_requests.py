"""Requests of the token interfaces as token sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepreward.core.errors import InputError
from stepreward.score.remote.token_outputs import TokenOutputs
from stepreward.serve.model_turns import Check, Turns
from stepreward.serve.requests.request_schemas import TokenInput

Ids = list[int]
WIDEST = 16
"""Most characters of a token, on average over a text: longer texts are refused without tokenising them."""
TASKS = ("token_classify", "classify")
"""vLLM's names for the tasks of these paths."""
PORTION = 65_536
"""Characters that are tokenised in one turn; a longer text is a portion of its own."""


class Reader:
    """Cuts texts into tokens; like the model, a tokenizer is used by one thread at a time.

    Args:
        outputs: of the model.
        turns: at the model.
    """

    def __init__(self, outputs: TokenOutputs, turns: Turns) -> None:
        self.outputs, self.turns = outputs, turns

    def admit(self, body: TokenInput) -> None:
        """Checks a request without tokenising it.

        Raises:
            InputError: there is not exactly one of input and messages, or a text is far too long.
        """
        if body.task not in (None, *TASKS):
            raise InputError(f"this model does not do {body.task!r}", remedy=f"leave task out, or send one of {TASKS}")
        if (body.input is None) == (body.messages is None):
            raise InputError("expected one of input and messages")
        if body.messages is not None:
            self.require_short(sum(len(message.text) for message in body.messages))
        elif body.truncate_prompt_tokens is None:
            for one in _inputs(body):
                self.require_short(len(one) if isinstance(one, str) else 0)

    def require_short(self, characters: int) -> None:
        """Refuses a text of too many characters for the model's context.

        Raises:
            InputError: the text is too long.
        """
        most = WIDEST * self.outputs.most
        if characters > most:
            raise InputError(
                f"an input has {characters:,} characters, more than {most:,} in any tokens of this model",
                remedy="shorten it, or send truncate_prompt_tokens=-1",
            )

    def sequences(self, body: TokenInput, check: Check) -> list[Ids]:
        """The token sequences of a request that was admitted.

        Args:
            body: the request.
            check: whether they are still wanted.

        Raises:
            InputError: one is too long.
        """
        if body.messages is not None:
            with self.turns.turn(check):
                messages = [{"role": m.role, "content": m.text} for m in body.messages]
                opened, continued = bool(body.add_generation_prompt), bool(body.continue_final_message)
                made = [self.outputs.chat_ids(messages, opened=opened, continued=continued)]
            return self.fitted(made, body.truncate_prompt_tokens, body.truncation_side)
        given, keep, side = _inputs(body), body.truncate_prompt_tokens, body.truncation_side
        if keep is not None:
            # The kept tokens are at one end of the text: the rest need not be tokenised.
            reach = WIDEST * (self.outputs.most if keep < 0 else keep)
            near = slice(-reach, None) if side == "left" else slice(reach)
            given = [one[near] if isinstance(one, str) and reach else one for one in given]
        texts = [one for one in given if isinstance(one, str)]
        cut = iter(self.ids(texts, check, special=body.add_special_tokens))
        return self.fitted([next(cut) if isinstance(one, str) else list(one) for one in given], keep, side)

    def ids(self, texts: Sequence[str], check: Check, *, special: bool = True) -> list[Ids]:
        """Tokens of texts.

        Args:
            texts: the texts.
            check: whether they are still wanted.
            special: with the tokenizer's own special tokens around each.
        """
        made: list[Ids] = []
        for portion in _portions(texts):
            with self.turns.turn(check):
                made += [self.outputs.ids(text, special=special) for text in portion]
        return made

    def fitted(self, sequences: Sequence[Ids], keep: int | None = None, side: str | None = None) -> list[Ids]:
        """Sequences cut to the model's context.

        Args:
            sequences: token ids.
            keep: tokens to keep of each; -1 keeps as many as the context has.
            side: "left" cuts off the beginning, anything else the end.

        Raises:
            InputError: a sequence, or `keep`, is longer than the context.
        """
        most = self.outputs.most
        if keep is not None and keep > most:
            raise InputError(f"truncate_prompt_tokens={keep:,} is more than the {most:,} that this model holds")
        if keep is not None:
            n = most if keep < 0 else keep
            sequences = [ids[max(0, len(ids) - n) :] if side == "left" else ids[:n] for ids in sequences]
        longest = max(map(len, sequences), default=0)
        if longest > most:
            raise InputError(
                f"an input has {longest:,} tokens, more than {most:,}",
                remedy="shorten it, or send truncate_prompt_tokens=-1",
            )
        return list(sequences)


def _inputs(body: TokenInput) -> list[str | Ids]:
    """The texts and token sequences of a request's `input`, which may be one of either."""
    given = body.input
    if given is None:
        return []
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [given]
    return given


def _portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in runs of at most `PORTION` characters."""
    begin = size = 0
    for i, text in enumerate(texts):
        if i > begin and size + len(text) > PORTION:
            yield texts[begin:i]
            begin, size = i, 0
        size += len(text)
    yield texts[begin:]
