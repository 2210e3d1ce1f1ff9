"""Encoder records that cannot be, and tokenizers that cannot do what a record asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.score.tiny_checkpoints import llama3, metaspace, qwen

from stepreward.core.errors import InputError, ModelError
from stepreward.core.types import Problem, Step
from stepreward.score.checkpoints.known_checkpoints import by_name, checkpoints
from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.encode.per_prefix import pass_encoder
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import Conversation, EncoderRecord, PerPrefix, PerStep, WholeText
from stepreward.score.encode.whole_text import Pass, grouped, trie


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positive": 1}, "below n_labels=1, got 1"),
        ({"n_labels": 3, "kind": "softmax", "also": (3,)}, "below n_labels=3, got 3"),
        ({"kind": "difference"}, "n_labels >= 2"),
        ({"n_labels": 2, "also": (1,)}, "summed by a softmax"),
        ({"n_labels": 2, "kind": "softmax", "also": (1,)}, "must leave a wrong one"),
        ({"label_tokens": ("+", "-")}, "as many as n_labels=1"),
        ({"label_tokens": ("+",), "surprise": True}, "head of its own"),
    ],
)
def test_an_impossible_readout_is_an_error(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Readout(**fields)


@pytest.mark.parametrize(
    ("encoding", "fields", "message"),
    [
        (PerStep, {"prompt_format": "x"}, "must hold {prompt}"),
        (PerStep, {"step_format": "x"}, "must hold {step}"),
        (PerStep, {"later_format": "{previous}{step}"}, "belongs to the encoding PerPrefix"),
        (PerStep, {"max_length": 0}, "at least 1"),
        (PerStep, {"clean": ("lines",), "tokenise": "segment"}, "'lines' needs a separator"),
        (PerStep, {"clean": ("lines",), "separator": ""}, "'lines' needs a separator"),
        (Conversation, {"answer": "+"}, "with a dummy answer prompt_format must hold {step}"),
        (WholeText, {"read": "recounted"}, "for chats"),
        (PerPrefix, {"end": ""}, "an open message"),
        (PerPrefix, {"second": "x"}, "second pass needs a tag"),
        (PerPrefix, {"second": "x", "tag": "y"}, "second pass needs a tag"),
    ],
)
def test_an_impossible_encoding_is_an_error(encoding: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoding(**fields)


@pytest.mark.parametrize(
    ("encoding", "readout", "message"),
    [
        (WholeText(), Readout(surprise=True), "surprise reads"),
        (PerPrefix(), Readout("implicit"), "take the encoding PerStep or WholeText"),
        (PerStep(read="before"), Readout("implicit"), "set read='at'"),
        (PerPrefix(second="x<t>", tag="<t>"), Readout(), "two label_tokens"),
    ],
)
def test_a_readout_of_another_encoding_is_an_error(encoding: Any, readout: Readout, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderRecord(encoding, readout)


def test_a_row_of_the_table_is_checked_and_knows_its_record_and_head() -> None:
    with pytest.raises(ValueError, match="take the encoding PerStep or WholeText"):
        Checkpoint(("org/prm",), PerPrefix(), Readout("implicit"), source="a test")
    labels = Readout("softmax", n_labels=2, label_tokens=("+", "-"))
    row = Checkpoint(("org/prm",), PerStep(), labels, source="a test", aggregation="mean", threshold=0.2)
    assert row.record == EncoderRecord(PerStep(), labels, "mean", 0.2)
    assert replace(row, threshold=0.3).record.threshold == 0.3
    heads = [row, replace(row, readout=Readout()), replace(row, readout=Readout(), mean=True)]
    assert [one.head for one in heads] == ["tokens", "weights", "mean"]
    assert replace(row, encoding=WholeText(), readout=Readout("implicit")).head == "none"


def test_a_tokenizer_that_cannot_do_what_a_record_asks_is_an_error() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        StepEncoder(EncoderRecord(Conversation(prompt_format="{prompt} {step}", answer="+")), metaspace())
    plain = EncoderRecord(PerStep(tokenise="segment", separator="<extra_0>"))
    with pytest.raises(ModelError, match="no added token is in the prompt"):
        StepEncoder(plain, qwen()).prompt_ids(Problem("p", "q"))
    with pytest.raises(ModelError, match="tokens, not one"):
        StepEncoder(by_name("Qwen/Qwen2.5-Math-PRM-7B").record, llama3())
    with pytest.raises(ValueError, match="pass the problem"):
        StepEncoder(by_name("Qwen/Qwen2.5-Math-PRM-7B").record, qwen()).step_ids(Step("x"))


def test_a_separator_that_melts_into_a_step_is_refused_or_leaves_it_without_a_score() -> None:
    record = EncoderRecord(WholeText(separator="\n", too_long="drop"))
    steps, problem = (Step("fine"), Step("one line break too many\n"), Step("fine")), Problem("p", "q")
    (one,) = pass_encoder(StepEncoder(record, qwen())).passes(problem, steps)
    assert sorted(one.reads) == [0, 2]
    strict = StepEncoder(replace(record, encoding=replace(record.encoding, too_long="error")), qwen())
    with pytest.raises(InputError, match="step 2 of problem 'p' melts into its separator"):
        pass_encoder(strict).passes(problem, steps)


@pytest.mark.parametrize(
    "row", [r for r in checkpoints.values() if r.record.per_step], ids=lambda r: r.name.split("/")[-1]
)
def test_braces_in_texts_are_texts(row: Any) -> None:
    tokenizer = llama3() if "ReasonEval" in row.name else qwen()
    encoder = StepEncoder(row.record, tokenizer)
    problem, step = Problem("p", "{step} {n} {bos} {prompt}"), Step("{prompt} {previous} {0} \\boxed{17}")
    ids = encoder.prompt_ids(problem) + encoder.step_ids(step, problem)
    text = tokenizer.decode(ids)
    assert "{step} {n} {bos} {prompt}" in text
    assert "{prompt} {previous} {0} \\boxed{17}" in text


SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8)


@given(SEQUENCES, st.integers(1, 12))
def test_a_trie_holds_each_prefix_once_and_shows_each_token_its_own_past(rows: list[list[int]], limit: int) -> None:
    passes = [Pass(np.array(row), {0: len(row) - 1, 1: 0}) for row in rows]
    merged = trie(passes)
    one = merged.encoded
    prefixes = {tuple(row[:k]) for row in rows for k in range(1, len(row) + 1)}
    assert len(one) == len(prefixes) == sum(merged.new)
    for row, path in zip(rows, merged.paths, strict=True):
        assert one.ids[path].tolist() == row
        assert one.position[path].tolist() == list(range(len(row)))
        for k, token in enumerate(path):
            seen = [j for j in range(token + 1) if one.enter[j] <= one.enter[token] < one.leave[j]]
            assert seen == path[: k + 1].tolist()
    for i, p in enumerate(passes):
        for token in p.reads.values():
            assert one.read[merged.read(i, token)] == merged.paths[i][token]
    groups = grouped(passes, limit)
    assert sorted(i for group in groups for i in group) == list(range(len(rows)))
    for group in groups:
        assert len(group) == 1 or len(trie([passes[i] for i in group]).encoded) <= limit


class Counting:
    """A tokenizer that counts its calls."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.calls = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, text: Any, **options: Any) -> Any:
        self.calls += 1
        return self.tokenizer(text, **options)


@pytest.mark.parametrize("make", [qwen, llama3, metaspace])
def test_steps_that_are_tokenised_together_have_the_ids_that_each_has_alone(make: Any) -> None:
    texts = ["17 + 4 = 21", "  na\u00efve\n\ntwo lines", "\u6f22\u5b57", "<0x41> </s>", "17 + 4 = 21", "a", " "]
    tokenizer = Counting(make())
    encoder = StepEncoder(EncoderRecord(PerStep(separator_token=False)), tokenizer)
    tokenizer.calls = 0
    together = encoder.ids_of_steps([(Step(text), n) for n, text in enumerate(texts, 1)])
    assert tokenizer.calls == 1
    separator = make()("\n", add_special_tokens=False)["input_ids"]
    assert together == [make()(text, add_special_tokens=False)["input_ids"] + separator for text in texts]
    # Known steps are not tokenised again, and a new one beside them is.
    again = encoder.ids_of_steps([(Step("b"), 1), (Step("a"), 2)])
    assert tokenizer.calls == 2
    assert again == [make()("b", add_special_tokens=False)["input_ids"] + separator, together[5]]


def test_a_limit_of_known_steps_changes_no_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepreward.score.encode.per_step.KEPT_STEPS", 3)
    tokenizer = Counting(qwen())
    encoder = StepEncoder(EncoderRecord(PerStep(separator_token=False)), tokenizer)
    first = encoder.ids_of_steps([(Step("a"), 1), (Step("b"), 2)])
    tokenizer.calls = 0
    assert encoder.ids_of_steps([(Step("b"), 1), (Step("a"), 2)]) == first[::-1]
    assert tokenizer.calls == 0, "known"
    # With the fourth step all earlier ones go.
    encoder.ids_of_steps([(Step("c"), 1), (Step("d"), 2)])
    assert encoder.ids_of_steps([(Step("a"), 1)]) == first[:1]
    assert tokenizer.calls == 2


def test_text_between_steps_is_before_all_but_the_first() -> None:
    encoder, tokenizer = StepEncoder(EncoderRecord(PerStep(between="= ", separator_token=False)), qwen()), qwen()
    found = encoder.ids_of_steps([(Step("a"), 1), (Step("a"), 2), (Step("a"), 3)])
    wanted = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "= a", "\n")]
    assert found == [wanted[0] + wanted[2], wanted[1] + wanted[2], wanted[1] + wanted[2]]
