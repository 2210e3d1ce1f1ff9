"""White space alone is never a step, whichever policy writes it; the texts still join to what was written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.effort import scaled
from tests.vllm_engine import SamplingParams, StandIn
from tiny_models import byte_level, letters
from transformers import Qwen2Config

from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.answer_reader import step_ends
from stepreward.policies.decode import Decoder, Request, _Rows, _SampledTokens
from stepreward.policies.local import LocalPolicy
from stepreward.policies.token_pieces import Pieces
from stepreward.policies.vllm_policy import VllmPolicy

WORDS = letters("ab \n.")
BYTES = byte_level()


class Script(torch.nn.Module):
    """Writes a text: the token at each place is certain, and beyond the text it ends."""

    def __init__(self, tokenizer: Any, ids: list[int]) -> None:
        super().__init__()
        self.config = Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
            num_key_value_heads=1, max_position_embeddings=512,
        )  # fmt: skip
        self.config._attn_implementation = "eager"
        self.generation_config = None
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.eos, self.ids, self.start = tokenizer.eos_token_id, ids, 0

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def forward(
        self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, past_key_values: Any = None,
        use_cache: bool = True,
    ) -> Any:  # fmt: skip
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1])[None].expand_as(input_ids)
        logits = torch.full((*input_ids.shape, self.config.vocab_size), -50.0)
        for place in np.ndindex(*input_ids.shape):
            at = int(position_ids[place]) + 1 - self.start
            logits[(*place, self.ids[at] if 0 <= at < len(self.ids) else self.eos)] = 50.0
        return SimpleNamespace(logits=logits)


def expected(text: str, separator: str = "\n") -> list[str]:
    """The steps by the rule that answers of servers are cut by, which looks at the text alone."""
    stops = step_ends(text, separator)
    return [text[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def marks(pieces: Pieces, tokens: list[int]) -> list[bool]:
    """The decoder's own marks for these tokens, beside a row that writes letters."""
    decoder = Decoder.__new__(Decoder)
    decoder._pieces = pieces
    rows, log, found = _Rows(pieces.window), _SampledTokens(2), []
    rows.append([0, 1], [Request((0,), 0, 99, one_step=False)] * 2)
    other = BYTES("a", add_special_tokens=False)["input_ids"][0]
    for token in tokens:
        both = np.array([other, token])
        found.append(decoder._step_ends(rows, both, log))
        log.add(rows, both, np.zeros((2, 2)), found[-1], np.zeros(2, bool))
    assert not any(one[0] for one in found)
    return [bool(one[1]) for one in found]


@pytest.mark.parametrize("separator", ["\n", "\n\n", " a", "。"])
@settings(max_examples=scaled(200), deadline=None)
@given(text=st.text(st.sampled_from("ab \n\t。\u3000é."), max_size=24))
@example(text="\u3000\n\na\na")
@example(text="é ab\n\na\n\n")
def test_the_decoder_cuts_as_the_text_says(separator: str, text: str) -> None:
    pieces = Pieces(BYTES, len(BYTES), separator)
    tokens = [token for letter in text for token in BYTES(letter, add_special_tokens=False)["input_ids"]]
    found = np.array(marks(pieces, tokens), bool)
    steps = [pieces.text(tokens[a:b]) for a, b in pieces.steps(tokens, found)]
    assert steps == expected(text, separator)


CASES = [
    ("a\n\nb\n", ["a\n", "\nb\n"]),
    ("\n\n\na\nb", ["\n\n\na\n", "b"]),
    ("a\n   \n \nb.\n\n\n", ["a\n", "   \n \nb.\n\n\n"]),
    ("a" + " " * 30 + "\n" + "\n" * 12 + "b", ["a" + " " * 30 + "\n", "\n" * 12 + "b"]),
    ("\n \n", []),
    ("a", ["a"]),
]


def policies(text: str) -> tuple[LocalPolicy, VllmPolicy]:
    """The two policies over token ids, with a model that writes the text."""
    model = Script(WORDS, WORDS(text, add_special_tokens=False)["input_ids"])
    near = LocalPolicy(model, WORDS)
    model.start = len(near.prompt_ids(Problem("p", "ab")))
    return near, VllmPolicy(StandIn(model, WORDS), WORDS, SamplingParams, logprobs=True)


@pytest.mark.parametrize(("text", "steps"), CASES)
def test_solutions_have_the_right_steps_at_once_and_one_by_one(text: str, steps: list[str]) -> None:
    assert expected(text) == steps
    for policy in policies(text):
        ((whole,),) = policy.propose([Propose(Problem("p", "ab"), (), Key.seed(0))])
        assert [step.text for step in whole.steps] == steps
        assert (whole.finished, whole.truncated, whole.n_tokens) == (True, False, len(text) + 1)
        prefix: list[Step] = []
        for n in range(len(steps) + 1):
            ((one,),) = policy.propose([Propose(Problem("p", "ab"), tuple(prefix), Key.seed(n), until="step")])
            if one.finished:
                break
            assert len(one.steps) == 1
            assert not one.truncated
            prefix += one.steps
        said = [*prefix, *one.steps]
        assert [step.text.strip() for step in said] == [step.strip() for step in steps]
        assert all(len(step.tokens or ()) == len(step.logprobs or ()) for step in said)
        ((cut,),) = policy.propose([Propose(Problem("p", "ab"), (), Key.seed(0), until="step", max_tokens=2)])
        assert cut.n_tokens <= 2
        assert not [step for step in cut.steps if not step.text.strip()]


def test_what_follows_white_space_is_drawn_with_another_seed() -> None:
    _, far = policies("\n\na\n")
    far.propose([Propose(Problem("p", "ab"), (), Key.seed(0), until="step")])
    assert isinstance(far.engine, StandIn)
    asked = [one for _, given in far.engine.calls for one in given]
    assert len({one.seed for one in asked}) == len(asked) == 3
    assert [asked[0].max_tokens - one.max_tokens for one in asked] == [0, 1, 2]
