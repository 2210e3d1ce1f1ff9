from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled
from tiny_models import byte_level, sentence_piece

from stepreward.core.errors import InputError
from stepreward.policies.token_pieces import Pieces, spans

BYTE_LEVEL = byte_level()
SENTENCE_PIECE = sentence_piece()
TOKENIZERS = {"byte_level": BYTE_LEVEL, "sentence_piece": SENTENCE_PIECE}
# Token runs that say whole characters: ASCII bytes and words one by one, "東" as its three bytes.
WHOLE = [[i] for i in range(len(SENTENCE_PIECE)) if not 3 + 128 <= i < 3 + 256]
WHOLE += [SENTENCE_PIECE.convert_tokens_to_ids(["<0xE6>", "<0x9D>", "<0xB1>"])] * 40
PIECES = {(n, s): Pieces(t, len(t), s) for n, t in TOKENIZERS.items() for s in ("\n", "\n\n", "。", "=3\n")}


def mark(pieces: Pieces, tokens: list[int]) -> list[bool]:
    """The slow and obvious loop: look at every token with the whole step before it."""
    start, marks = 0, []
    for i in range(len(tokens)):
        marks.append(pieces.ends(tokens[start : i + 1]))
        start = i + 1 if marks[-1] else start
    return marks


def cut(pieces: Pieces, tokens: list[int]) -> list[str]:
    import numpy as np

    return [pieces.text(tokens[a:b]) for a, b in spans(np.array(mark(pieces, tokens), dtype=bool))]


texts = st.text(st.sampled_from("ab 。\n=3é東👩\u200d\ufffd"), max_size=30) | st.text(max_size=20)


@pytest.mark.parametrize("separator", ["\n", "\n\n", "。", "=3\n"])
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=scaled(60), deadline=None)
@given(text=texts)
def test_steps_of_encoded_text_join_to_the_text(name: str, separator: str, text: str) -> None:
    pieces, tokenizer = PIECES[name, separator], TOKENIZERS[name]
    tokens = tokenizer("a" + text, add_special_tokens=False)["input_ids"][1 if name == "byte_level" else 0 :]
    assert "".join(cut(pieces, tokens)) == pieces.text(tokens)


@pytest.mark.parametrize("separator", ["\n", "\n\n", "。"])
@settings(max_examples=scaled(150), deadline=None)
@given(tokens=st.lists(st.integers(0, len(BYTE_LEVEL) - 1), max_size=40))
def test_steps_of_any_tokens_join_to_what_the_tokens_decode_to(separator: str, tokens: list[int]) -> None:
    # Any ids: characters split over tokens, broken ones, special tokens.
    pieces = PIECES["byte_level", separator]
    assert "".join(cut(pieces, tokens)) == BYTE_LEVEL.decode(tokens, skip_special_tokens=False)


@settings(max_examples=scaled(150), deadline=None)
@given(groups=st.lists(st.sampled_from(WHOLE), max_size=20))
def test_after_other_text_a_leading_space_is_kept(groups: list[list[int]]) -> None:
    tokens = [token for group in groups for token in group]
    context = SENTENCE_PIECE("a", add_special_tokens=False)["input_ids"]
    whole = SENTENCE_PIECE.decode(context + tokens, skip_special_tokens=False)
    pieces = PIECES["sentence_piece", "\n"]
    assert "a" + "".join(cut(pieces, tokens)) == whole


@pytest.mark.parametrize("separator", ["\n", "\n\n", "。", "=3\n"])
@settings(max_examples=scaled(100), deadline=None)
@given(text=texts)
def test_the_tables_agree_with_the_slow_loop(separator: str, text: str) -> None:
    pieces = PIECES["byte_level", separator]
    tokens = BYTE_LEVEL(text, add_special_tokens=False)["input_ids"]
    for token, ended in zip(tokens, mark(pieces, tokens), strict=True):
        assert ended or not pieces.certain[token]
        assert not ended or pieces.certain[token] or pieces.possible[token]


def test_a_step_ends_where_the_separator_is_completed() -> None:
    ids = BYTE_LEVEL("a\nb\n\nc", add_special_tokens=False)["input_ids"]
    assert cut(PIECES["byte_level", "\n"], ids)[0] == "a\n"
    assert cut(PIECES["byte_level", "\n\n"], ids) == ["a\nb\n\n", "c"]


def test_a_step_does_not_end_inside_a_character() -> None:
    # One token holds the separator and the first byte of "é"; the step goes on to the second byte.
    class Odd:
        """Three tokens: "a", newline with half a character, the other half."""

        bytes_ = (b"a", b"\n\xc3", b"\xa9")

        def __len__(self) -> int:
            return 3

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [0] if text == "a" else []}

        def decode(self, ids: list[int], **_: Any) -> str:
            return b"".join(self.bytes_[i] for i in ids).decode(errors="replace")

    assert cut(Pieces(Odd(), 3, "\n"), [0, 1, 2, 0]) == ["a\né", "a"]


def test_a_byte_newline_after_half_a_character_is_decided_by_the_text() -> None:
    # "<0x0A>" is a newline by itself; byte fallback turns <0xE6><0x0A> into two replacement characters.
    newline, half = SENTENCE_PIECE.convert_tokens_to_ids(["<0x0A>", "<0xE6>"])
    pieces = PIECES["sentence_piece", "\n"]
    assert pieces.possible[newline]
    assert pieces.ends([newline])
    assert not pieces.ends([half, newline])


def test_no_tokens_are_no_steps_and_an_empty_separator_is_an_error() -> None:
    assert cut(PIECES["byte_level", "\n"], []) == []
    with pytest.raises(InputError, match="separator"):
        Pieces(BYTE_LEVEL, len(BYTE_LEVEL), "")


def test_logits_beyond_the_vocabulary_say_nothing() -> None:
    pieces = Pieces(BYTE_LEVEL, len(BYTE_LEVEL) + 10, "\n")
    assert len(pieces.certain) == len(pieces.possible) == len(BYTE_LEVEL) + 10
    assert not pieces.certain[-10:].any()
