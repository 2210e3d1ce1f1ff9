"""Layouts of other libraries: each is loaded by them, or as their code computes, and gives the scores that it had."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.score.tiny_checkpoints import qwen
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerPrefix, PerStep
from stepreward.score.load import load
from stepreward.score.model.layouts import LAYOUTS
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import fresh_backbone, train_tokenizer
from stepreward.score.model.write_layout import require_layout, write_layout

QUESTION = "What is 12 + 5?"
STEPS = ("12 + 5 = 17\n", "So it is 17.", "Answer: 17\n\n")
# What `train` writes: line breaks at the end of a step are taken off and one is put there.
ENCODING = PerStep(clean=("chomp",))
HEADS = {
    "sigmoid": Readout(),
    "value": Readout("value"),
    "tanh": Readout("tanh"),
    "softmax": Readout("softmax", n_labels=2, positive=1),
    "softmax, right label first": Readout("softmax", n_labels=2, positive=0),
    "difference": Readout("difference", n_labels=2, positive=1),
    "quantiles": Readout("value", n_labels=3, positive=1),
    "columns": Readout("sigmoid", n_labels=2, positive=0),
    "three classes": Readout("softmax", n_labels=3, positive=2, also=(1,)),
    "mean of heads": Readout("mean-sigmoid", n_labels=4),
}
TWO_LABELS = ["sigmoid", "tanh", "softmax", "softmax, right label first", "difference"]
"""Heads whose scores are those of a wrong and a right label."""
FIT = {
    "stepreward": [*HEADS],
    "token-classification": [*HEADS],
    "sequence-classification": [*HEADS],
    "trl-prm": TWO_LABELS,
    "qwen-prm": TWO_LABELS,
    "qwen-reward": [*TWO_LABELS, "value"],
}
"""The heads that each layout can hold."""


def tiny(
    readout: Readout, kind: str = "qwen2", encoding: Any = ENCODING, *, bias: bool = True, tokenizer: Any = None
) -> StepRewardModel:
    """A model whose head is far from zero, bias included."""
    tokenizer = tokenizer or train_tokenizer([QUESTION, *STEPS] * 20, 300)
    torch.manual_seed(3)
    head = torch.nn.Linear(32 + readout.surprise, readout.n_labels, bias=bias)
    torch.nn.init.normal_(head.weight, 0, 0.3)
    backbone = fresh_backbone(tokenizer, hidden=32, layers=2, kind=kind)
    return StepRewardModel(backbone, tokenizer, EncoderRecord(encoding, readout), head=head)


def literal_ids(tokenizer: Any, steps: Sequence[str]) -> tuple[list[int], list[int]]:
    """Ids of the default encoding in plain words, and the token that ends each step."""
    ids = tokenizer(QUESTION + "\n", add_special_tokens=False)["input_ids"]
    ends = []
    for step in steps:
        ids = ids + tokenizer(step.rstrip("\n"), add_special_tokens=False)["input_ids"]
        ids += tokenizer("\n", add_special_tokens=False)["input_ids"]
        ends.append(len(ids) - 1)
    return ids, ends


def token_outputs(folder: Path, ids: list[int], ends: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForTokenClassification.from_pretrained(folder).eval()(torch.tensor([ids])).logits[0, ends]


def sequence_outputs(folder: Path, ids: list[int], ends: list[int]) -> torch.Tensor:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.cat([model(torch.tensor([ids[: end + 1]])).logits for end in ends])


def qwen_outputs(folder: Path, ids: list[int], ends: list[int]) -> torch.Tensor:
    """As vLLM and SGLang compute Qwen's reward models: linear, ReLU, linear."""
    state = load_file(folder / "model.safetensors")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0, ends]
        inner = torch.relu(hidden @ state["score.0.weight"].T + state["score.0.bias"])
        return inner @ state["score.2.weight"].T + state["score.2.bias"]


OUTPUTS: dict[str, Callable[[Path, list[int], list[int]], torch.Tensor]] = {
    "token-classification": token_outputs, "sequence-classification": sequence_outputs, "trl-prm": token_outputs,
    "qwen-prm": qwen_outputs, "qwen-reward": qwen_outputs,
}  # fmt: skip


def literal_scores(outputs: torch.Tensor, readout: Readout) -> torch.Tensor:
    """The formulas of the readouts, from what another library returns."""
    right = [readout.positive, *readout.also]
    return {
        "sigmoid": lambda: 1 / (1 + torch.exp(-outputs[:, readout.positive])),
        "value": lambda: outputs[:, readout.positive],
        "tanh": lambda: torch.tanh(outputs[:, readout.positive]),
        "softmax": lambda: (outputs.exp() / outputs.exp().sum(-1, keepdim=True))[:, right].sum(-1),
        "difference": lambda: 2 * (outputs.exp() / outputs.exp().sum(-1, keepdim=True))[:, right].sum(-1) - 1,
        "mean-sigmoid": lambda: (1 / (1 + torch.exp(-outputs))).mean(-1),
    }[readout.kind]()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("layout", [*OUTPUTS])
@pytest.mark.parametrize("head", [*HEADS])
def test_scores_of_a_layout_are_those_of_the_model(head: str, layout: str, tmp_path: Path) -> None:
    model = tiny(HEADS[head], bias=layout != "sequence-classification")
    if head not in FIT[layout]:
        with pytest.raises(InputError, match=f"the layout {layout} cannot hold this model") as refused:
            write_layout(model, tmp_path / "out", layout)
        able = [name for name, fit in FIT.items() if head in fit and name != "sequence-classification"]
        assert str(refused.value).endswith(f"layouts that can: {', '.join(able)}")
        assert not (tmp_path / "out").exists()
        return
    wanted = DiscriminativeScorer(model).score(QUESTION, STEPS)
    record = write_layout(model, tmp_path / "out", layout)
    ids, ends = literal_ids(AutoTokenizer.from_pretrained(tmp_path / "out"), STEPS)
    outputs = OUTPUTS[layout](tmp_path / "out", ids, ends)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert outputs.shape == (3, config.get("num_labels", len(config.get("id2label", "ab"))))
    np.testing.assert_allclose(literal_scores(outputs.double(), record.readout), wanted, atol=1e-5)
    np.testing.assert_allclose(load(tmp_path / "out").score(QUESTION, STEPS), wanted, atol=1e-5)
    if layout in ("trl-prm", "qwen-prm") and record.readout.kind == "softmax":
        # TRL's and Qwen's own way: two labels, the second one right.
        np.testing.assert_allclose(outputs.double().softmax(-1)[:, 1], wanted, atol=1e-5)


def test_a_layout_of_our_own_holds_everything(tmp_path: Path) -> None:
    model = tiny(Readout(surprise=True))
    wanted = DiscriminativeScorer(model).score(QUESTION, STEPS)
    write_layout(model, tmp_path / "out", "stepreward")
    np.testing.assert_array_equal(load(tmp_path / "out").score(QUESTION, STEPS), wanted)


@pytest.mark.parametrize("layout", ["token-classification", "sequence-classification"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3", "gpt_neox", "gemma"])
def test_other_families(kind: str, layout: str, tmp_path: Path) -> None:
    model = tiny(Readout(), kind, bias=layout == "token-classification")
    wanted = DiscriminativeScorer(model).score(QUESTION, STEPS)
    write_layout(model, tmp_path / "out", layout)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    ending = "ForTokenClassification" if layout == "token-classification" else "ForSequenceClassification"
    assert config["architectures"][0].endswith(ending)
    outputs = OUTPUTS[layout](tmp_path / "out", *literal_ids(model.tokenizer, STEPS))
    np.testing.assert_allclose(outputs[:, 0].double().sigmoid(), wanted, atol=1e-5)
    np.testing.assert_allclose(load(tmp_path / "out").score(QUESTION, STEPS), wanted, atol=1e-5)


def trl_row(tokenizer: Any, prompt: str, completions: Sequence[str], separator: str) -> tuple[list[int], list[int]]:
    """Ids and ends of steps as TRL 1.13 built them: prompt, completion and separator each by itself."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = [tokenizer.bos_token_id, *ids] if tokenizer.bos_token_id is not None else ids
    ends = []
    for completion in completions:
        ids = ids + tokenizer(completion, add_special_tokens=False)["input_ids"]
        ids += tokenizer(separator, add_special_tokens=False)["input_ids"]
        ends.append(len(ids) - 1)
    return ids, ends


@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_the_layout_of_trl_on_rows_as_trl_builds_them(separator: str, tmp_path: Path) -> None:
    encoding = replace(ENCODING, prompt_format="{bos}{prompt}", separator=separator, separator_token=False)
    model = tiny(Readout(), encoding=encoding)
    wanted = DiscriminativeScorer(model).score(QUESTION, STEPS)
    write_layout(model, tmp_path / "out", "trl-prm")
    ids, ends = trl_row(model.tokenizer, QUESTION, [step.rstrip("\n") for step in STEPS], separator)
    # TRL's models had the labels that transformers gives where none are named.
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForTokenClassification"]
    outputs = token_outputs(tmp_path / "out", ids, ends)
    np.testing.assert_allclose(outputs.double().softmax(-1)[:, 1], wanted, atol=1e-5)
    np.testing.assert_allclose(load(tmp_path / "out").score(QUESTION, STEPS), wanted, atol=1e-5)
    if separator == "\n":
        # Without our record it is one of TRL's models.
        (tmp_path / "out" / "stepreward.json").unlink()
        np.testing.assert_allclose(load(tmp_path / "out", like="trl-prm").score(QUESTION, STEPS), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "layout", "reason"),
    [
        (lambda: tiny(Readout(formula="gain(score, 0.5)")), "token-classification", "its score is the formula"),
        (lambda: tiny(Readout(surprise=True)), "token-classification", "reads surprise"),
        (lambda: tiny(Readout(), "llama"), "qwen-prm", "Qwen2ForProcessRewardModel is a qwen2"),
        (lambda: tiny(Readout()), "sequence-classification", "its head has a bias"),
        (lambda: tiny(Readout(), encoding=PerPrefix()), "token-classification", "per-prefix text"),
        (
            lambda: tiny(Readout(), encoding=PerStep(template="chat", tokenise="segment"), tokenizer=qwen()),
            "token-classification",
            "text between added tokens",
        ),
        (
            lambda: tiny(Readout(), encoding=replace(ENCODING, clean=("lines",))),
            "qwen-reward",
            "its steps are changed by 'lines' first",
        ),
        (lambda: tiny(Readout(), encoding=replace(ENCODING, step_format="- {step}")), "trl-prm", "TRL writes a plain"),
        (lambda: tiny(Readout(), encoding=replace(ENCODING, read="before")), "trl-prm", "a separator behind it"),
        (lambda: tiny(Readout(), encoding=replace(ENCODING, separator="")), "trl-prm", "a separator behind it"),
        (
            lambda: tiny(Readout(), bias=False, encoding=replace(ENCODING, separator="<|pad|>")),
            "sequence-classification",
            "its padding token",
        ),
    ],
)
def test_what_a_layout_cannot_express_is_refused(
    model: Callable[[], StepRewardModel], layout: str, reason: str
) -> None:
    with pytest.raises(InputError, match=f"cannot hold this model: .*{reason}.*; layouts that can: stepreward"):
        require_layout(model(), layout)


def test_a_first_token_that_trl_would_add_is_refused() -> None:
    tokenizer = train_tokenizer([QUESTION, *STEPS] * 20, 300)
    tokenizer.bos_token = "<|endoftext|>"
    with pytest.raises(InputError, match=r"TRL begins a prompt with the first token '<\|endoftext\|>'"):
        require_layout(tiny(Readout(), tokenizer=tokenizer), "trl-prm")
    encoding = replace(ENCODING, prompt_format="{bos}{prompt}\n")
    assert require_layout(tiny(Readout(), encoding=encoding, tokenizer=tokenizer), "trl-prm") is LAYOUTS["trl-prm"]


def test_heads_of_more_than_one_layer_are_refused() -> None:
    model = tiny(Readout())
    model.head = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    with pytest.raises(InputError, match=r"no linear layer but a Sequential; layouts that can: stepreward$"):
        require_layout(model, "qwen-prm")


def test_a_model_that_reads_both_ways_is_refused() -> None:
    tokenizer = train_tokenizer([QUESTION, *STEPS] * 20, 300)
    record = EncoderRecord(ENCODING, both_ways=True)
    model = StepRewardModel(fresh_backbone(tokenizer, hidden=32, layers=2), tokenizer, record)
    with pytest.raises(InputError, match=r"in both directions \(both_ways=True\); layouts that can: stepreward$"):
        require_layout(model, "token-classification")


def test_an_unknown_layout_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean token-classification"):
        require_layout(tiny(Readout()), "token-clasification")


def test_a_layout_in_half_precision_stays_so(tmp_path: Path) -> None:
    model = tiny(Readout()).to(torch.bfloat16)
    for name in ("token-classification", "qwen-prm"):
        write_layout(model, tmp_path / name, name)
        state = load_file(tmp_path / name / "model.safetensors")
        assert {value.dtype for value in state.values()} == {torch.bfloat16}
        assert json.loads((tmp_path / name / "config.json").read_text())["dtype"] == "bfloat16"
