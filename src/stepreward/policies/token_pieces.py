"""The text of each token of a vocabulary: where steps end, and the text of steps, without loss."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError, ModelError

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_MORE_TOKENS = 4


class Pieces:
    """The texts of a tokenizer's tokens, and which of them end a step.

    A step ends with the token that completes the separator. Where that token also begins a character that it does not
    finish, the step continues until the character is whole, so that steps are text. A step's text is that of its
    tokens alone. It equals their text within the solution, except with byte fallback: such tokenizers decode a run of
    bytes that is not valid UTF-8 to replacement characters only, across the separator.

    White space alone is no step: separators before the first other character do not count, and white space after the
    last separator belongs to the last step.

    Args:
        tokenizer: any transformers tokenizer.
        size: number of the model's logits, which may exceed the tokenizer's vocabulary.
        separator: text that ends a step, at least one character.

    Raises:
        InputError: the separator is empty.
        ModelError: the tokenizer has no text for plain letters.
    """

    def __init__(self, tokenizer: Any, size: int, separator: str) -> None:
        if not separator:
            raise InputError(
                "expected a separator of at least one character, got ''", remedy='"\\n" ends steps at lines'
            )
        self._tokenizer = tokenizer
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        self._separator = separator
        self._anchor = self._find_anchor()
        known = np.arange(min(size, len(tokenizer)))
        alone = self._decode_many([[int(token)] for token in known])
        after = self._decode_many([[*self._anchor, int(token)] for token in known])
        start = len(self._decode(self._anchor))
        texts = [text[start:] for text in after] + [""] * (size - len(known))
        # With byte-level BPE a token has the same text alone and after another, so steps are decoded alone.
        self._context_free = texts[: len(known)] == alone
        self.certain = np.array([separator in text and not text.endswith(_UNKNOWN) for text in texts])
        uncertain = self._not_after_half(np.flatnonzero(self.certain), texts)
        self.certain[uncertain] = False
        """(V,) True where the token ends a step in any context."""
        endings = tuple(self._separator[k:] for k in range(1, len(self._separator)))
        self.possible = np.array([text.startswith(endings) for text in texts]) & ~self.certain
        self.possible[uncertain] = True
        """(V,) True where it depends on the tokens before."""
        if any(separator in text and text.endswith(_UNKNOWN) for text in texts) or not separator.isascii():
            self.possible |= np.array([_UNKNOWN in text for text in texts]) & ~self.certain
        self.blank = np.array([not text.strip() for text in texts])
        """(V,) True where the token is white space alone."""
        self.void = np.array([not text.replace(_UNKNOWN, "").strip() for text in texts])
        """(V,) True where the token may be white space alone: it is, or it is a part of a character."""
        self.window = len(separator.encode()) + _MORE_TOKENS
        """Tokens that decide whether a step ends: each holds at least a byte of the separator."""

    def ends(self, tokens: Sequence[int], *, whole: bool = False) -> bool:
        """Whether the last of these tokens ends the step.

        Args:
            tokens: of one step, the last `window` of them or more.
            whole: whether they are the whole step, but for white space at its beginning: white space alone is none.
        """
        text = self.text(tokens).lstrip() if whole else self.text(tokens)
        return self._separator in text and not text.endswith(_UNKNOWN)

    def leading(self, tokens: Sequence[int]) -> int:
        """How many of a step's first tokens are white space, also where a character of it is several tokens."""
        return max((k for k in range(1, len(tokens) + 1) if not self.text(tokens[:k]).strip()), default=0)

    def steps(self, tokens: Sequence[int], ends: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """Start and stop of each step of tokens with these end marks; none of them is white space alone."""
        found = spans(ends)
        if found and not self.text(tokens[slice(*found[-1])]).strip():
            _, stop = found.pop()
            found[-1:] = [(start, stop) for start, _ in found[-1:]]
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens after other text, so that a leading space is kept."""
        if self._context_free:
            return self._decode(tokens)
        return self._decode([*self._anchor, *tokens])[len(self._decode(self._anchor)) :]

    def _not_after_half(self, ending: NDArray[np.int64], texts: Sequence[str]) -> list[int]:
        """The ending tokens that end no step after half a character, which byte fallback merges with them."""
        half = next((token for token, text in enumerate(texts) if text.endswith(_UNKNOWN)), None)
        if half is None:
            return []
        after = self._decode_many([[*self._anchor, half, int(token)] for token in ending])
        return [int(t) for t, text in zip(ending, after, strict=True) if self._separator not in text]

    def _find_anchor(self) -> list[int]:
        for letter in "aeXx1.":
            ids: list[int] = self._tokenizer(letter, add_special_tokens=False)["input_ids"]
            if ids and self._decode(ids).strip() == letter:
                return ids
        raise ModelError("the tokenizer cannot encode and decode a plain letter: it cannot turn tokens into steps")

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._decode_many([tokens])[0]

    def _decode_many(self, rows: Sequence[Sequence[int]]) -> list[str]:
        if self._fast is not None:
            decoded: list[str] = self._fast.decode_batch([list(row) for row in rows], skip_special_tokens=False)
            return decoded
        return [
            self._tokenizer.decode(list(row), skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for row in rows
        ]


def spans(ends: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of each step of a token sequence with these end marks; a rest after the last mark is a step."""
    stops = [int(i) + 1 for i in np.flatnonzero(ends)]
    if ends.size and (not stops or stops[-1] < ends.size):
        stops.append(int(ends.size))
    return list(itertools.pairwise([0, *stops]))
