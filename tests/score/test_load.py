"""Finding a checkpoint, telling how it is scored, and reading its weights without running what it holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markdown.extensions.toc import slugify
from safetensors.torch import load_file, save_file
from tests.score.models import model as own_model
from tests.score.tiny_checkpoints import build, qwen
from transformers import AutoModelForCausalLM

from stepreward.core.errors import InputError, ModelError, UnknownNameError
from stepreward.core.files import hub
from stepreward.core.runtime.flows import Policy, Score
from stepreward.core.types import Problem, Step
from stepreward.policies.scripted import ScriptedPolicy
from stepreward.score.checkpoints.describe import checkpoints_page
from stepreward.score.checkpoints.known_checkpoints import by_name, checkpoints, judge_by_name, judges, recognised
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode import record as records
from stepreward.score.encode.per_step import EncoderRecord, StepEncoder
from stepreward.score.encode.readout import Readout
from stepreward.score.implicit import ImplicitScorer
from stepreward.score.judges.generative import GenerativeScorer
from stepreward.score.load import load
from stepreward.score.model.devices import device_of, saved_dtype
from stepreward.score.model.heads import build_head
from stepreward.score.model.weights import read_weights

QUESTION, STEPS = "What is 12 + 5?", ["12 + 5 = 17.", "So 17."]
QWEN = "Qwen/Qwen2.5-Math-PRM-7B"


def test_every_name_of_the_table_stands_once_and_finds_its_row() -> None:
    names = [name for row in checkpoints.values() for name in row.names]
    assert len(names) == len(set(names))
    for row in checkpoints.values():
        assert all(by_name(name) is row for name in row.names)
        assert row.source
    with pytest.raises(UnknownNameError, match=r"Qwen2.5-Math-PRM-7B"):
        by_name("Qwen/Qwen2.5-Math-PRM-7b")


def test_a_row_is_found_by_name_then_by_the_configuration_then_by_architecture() -> None:
    assert recognised("qwen/qwen2.5-math-prm-7b", "", []) == [by_name(QWEN)]
    assert recognised("/models/Qwen2.5-Math-PRM-7B/", "", []) == [by_name(QWEN)]
    assert recognised("/models/mine", QWEN, ["Qwen2ForEnsemblePRM"]) == [by_name(QWEN)]
    twice = "/models/Qwen2.5-Math-7B-PRM800K"
    assert [row.name for row in recognised(twice, "", [])] == ["Qwen/Qwen2.5-Math-7B-PRM800K", "jinachris/PURE-PRM-7B"]
    assert [row.name for row in recognised(twice, "", ["Qwen2ForTokenClassification"])] == ["jinachris/PURE-PRM-7B"]
    named = recognised(twice, "", ["Qwen2ForProcessRewardModel"])
    assert [row.name for row in named] == ["Qwen/Qwen2.5-Math-7B-PRM800K"]
    assert recognised("/models/mine", "", ["Qwen2ForEnsemblePRM"]) == [by_name("sail/ActPRM")]
    assert recognised("/models/mine", "/there", ["Qwen2ForCausalLM"]) == []


def test_a_folder_named_like_a_checkpoint_is_scored_like_it(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen2.5-Math-PRM-7B"
    build(folder, "qwen", "score-mlp", "Qwen2ForProcessRewardModel")
    by_folder, by_row = load(folder), load(folder, like=QWEN)
    np.testing.assert_array_equal(by_folder.score(QUESTION, STEPS), by_row.score(QUESTION, STEPS))
    assert by_folder.name == str(folder)
    told = load(
        folder, record=replace(by_name(QWEN).record, encoding=replace(by_name(QWEN).record.encoding, system=None))
    )
    assert np.abs(told.score(QUESTION, STEPS) - by_row.score(QUESTION, STEPS)).max() > 1e-4


def test_what_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    build(tmp_path / "a", "qwen", "score-mlp", "Qwen2ForProcessRewardModel")
    with pytest.raises(ModelError, match=r"as are Qwen/Qwen2.5-Math-PRM-7B, .*ReasonFlux.*: pass like="):
        load(tmp_path / "a")
    build(tmp_path / "b", "qwen", "token-classification-2")
    with pytest.raises(ModelError, match=r"does not know: pass like= .* a name of the table .*trl-prm"):
        load(tmp_path / "b")
    with pytest.raises(UnknownNameError):
        load(tmp_path / "b", like="trl-prn")
    with pytest.raises(ModelError, match=r"no checkpoint folder './nowhere': pass a folder written by"):
        load("./nowhere")


@pytest.mark.parametrize(
    ("layout", "record"),
    [
        ("token-classification-1", EncoderRecord()),
        (
            "token-classification-2",
            EncoderRecord(readout=Readout("softmax", n_labels=2, positive=1)),
        ),
        (
            "sequence-classification-1",
            EncoderRecord(readout=Readout("value")),
        ),
        (
            "tokens",
            EncoderRecord(readout=Readout("softmax", n_labels=2, label_tokens=("+", "-"))),
        ),
    ],
)
def test_any_model_is_scored_by_flags(tmp_path: Path, layout: str, record: EncoderRecord) -> None:
    one = build(tmp_path, "qwen", layout)
    got = load(tmp_path, record=record).score(QUESTION, STEPS)
    encoder = StepEncoder(record, one.tokenizer)
    ids, ends = one.tokenizer.encode(QUESTION + "\n"), []
    for step in STEPS:
        ids = ids + one.tokenizer.encode(step) + encoder.separator_ids
        ends.append(len(ids) - 1)
    inner = getattr(one.model, "model", one.model)
    with torch.no_grad():
        hidden = inner(input_ids=torch.tensor([ids])).last_hidden_state[0, ends]
        z = hidden @ (one.model.lm_head if layout == "tokens" else one.model.score).weight.T
        z = z + getattr(getattr(one.model, "score", None), "bias", None) if "token-" in layout else z
    if layout == "tokens":
        expected = z[:, [one.tokenizer.encode(t)[0] for t in "+-"]].softmax(-1)[:, 0]
    else:
        expected = {"sigmoid": z[:, 0].sigmoid(), "value": z[:, 0], "softmax": z.softmax(-1)[:, -1]}[
            record.readout.kind
        ]
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


def test_a_hub_name_is_fetched_once_without_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "hub", "qwen", "score-mlp", "Qwen2ForProcessRewardModel")
    asked: list[tuple[str, list[str]]] = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path / "hub")

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    scorer = load(QWEN)
    np.testing.assert_array_equal(
        scorer.score(QUESTION, STEPS), load(tmp_path / "hub", like=QWEN).score(QUESTION, STEPS)
    )
    assert [name for name, _ in asked] == [QWEN]
    assert not any(pattern.endswith(".py") or pattern == "*" for pattern in asked[0][1])

    def offline(name: str, **_: Any) -> str:
        raise OSError("no network here\nlong trace")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match="cannot fetch 'sail/ActPRM' from the hub: no network here; download it"):
        load("sail/ActPRM")


def test_pickled_weights_are_read_as_tensors_or_not_at_all(tmp_path: Path) -> None:
    build(tmp_path, "qwen", "score-mlp", "Qwen2ForProcessRewardModel")
    expected = load(tmp_path, like=QWEN).score(QUESTION, STEPS)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(dict(state), tmp_path / "pytorch_model.bin")
    np.testing.assert_array_equal(load(tmp_path, like=QWEN).score(QUESTION, STEPS), expected)

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "exploded").touch, ())

    torch.save({"model": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"more than tensors.*convert it to safetensors"):
        load(tmp_path, like=QWEN)
    assert not (tmp_path / "exploded").exists()
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "weights.pkl")
    with pytest.raises(ModelError, match=r"only weights.pkl: save the model with save_pretrained"):
        load(tmp_path, like=QWEN)


def test_a_broken_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    build(tmp_path, "qwen", "score-mlp", "Qwen2ForProcessRewardModel")
    # Copies: some releases of safetensors map the file, which is written over below.
    state = {name: tensor.clone() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file({k: v for k, v in state.items() if not k.startswith("score")}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="found none: name the label tokens"):
        load(tmp_path, like=QWEN)
    save_file({k: v for k, v in state.items() if "layers.1.mlp.up" not in k}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks 1 weights of its backbone, first layers.1.mlp.up_proj.weight"):
        load(tmp_path, like=QWEN)
    save_file({**state, "v_head.summary.weight": torch.zeros(1, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"found score, v_head.summary"):
        load(tmp_path, like=QWEN)
    save_file(dict(state), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="has 2 outputs, the record says n_labels=3"):
        load(tmp_path, record=replace(by_name(QWEN).record, readout=Readout("softmax", n_labels=3)))
    (tmp_path / "model.safetensors").write_bytes(b"12345678junk")
    with pytest.raises(ModelError, match=r"cannot read .*model.safetensors"):
        load(tmp_path, like=QWEN)
    (tmp_path / "config.json").write_text('{"model_type": "no such"}')
    with pytest.raises(ModelError):
        load(tmp_path, like=QWEN)
    with pytest.raises(ModelError, match="no known head has the weights a, b"):
        build_head({"a": torch.zeros(1), "b": torch.zeros(1)}, EncoderRecord())


def test_an_adapter_is_merged_into_its_base(tmp_path: Path) -> None:
    base = build(tmp_path / "base", "qwen", "tokens")
    rank, alpha, state = 4, 8, base.model.state_dict()
    generator = torch.Generator().manual_seed(1)
    adapter, merged = {}, dict(state)
    for name in ("q_proj", "v_proj"):
        key = f"model.layers.0.self_attn.{name}"
        a = torch.randn((rank, 32), generator=generator)
        b = torch.randn((state[f"{key}.weight"].shape[0], rank), generator=generator)
        adapter |= {f"base_model.model.{key}.lora_A.weight": a, f"base_model.model.{key}.lora_B.weight": b}
        merged[f"{key}.weight"] = state[f"{key}.weight"] + alpha / rank * b @ a
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file(adapter, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "base"), "r": rank, "lora_alpha": alpha}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    got = load(folder, like="openreasoner/Math-psa").score(QUESTION, STEPS)
    plain = AutoModelForCausalLM.from_config(base.model.config).eval()
    plain.load_state_dict(merged)
    plain.save_pretrained(tmp_path / "merged")
    qwen().save_pretrained(tmp_path / "merged")
    expected = load(tmp_path / "merged", like="openreasoner/Math-psa").score(QUESTION, STEPS)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert np.abs(got - load(tmp_path / "base", like="openreasoner/Math-psa").score(QUESTION, STEPS)).max() > 1e-3
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(ModelError, match="adapter of another kind"):
        load(folder, like="openreasoner/Math-psa")


def test_an_adapter_may_bring_its_own_head(tmp_path: Path) -> None:
    build(tmp_path / "base", "qwen", "tokens")
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "base"), "r": 1, "lora_alpha": 1}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    head = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    save_file({"base_model.model.score.modules_to_save.weight": head}, folder / "adapter_model.safetensors")
    assert torch.equal(read_weights(folder)["score.weight"], head)
    assert load(folder, like="MASPRM").score(QUESTION, STEPS).shape == (2,)


@pytest.mark.parametrize("layout", ["score-mlp", "ensemble", "tokens"])
def test_a_public_checkpoint_saved_again_needs_no_row(tmp_path: Path, layout: str) -> None:
    like = {"score-mlp": QWEN, "ensemble": "sail/ActPRM", "tokens": "UW-Madison-Lee-Lab/VersaPRM"}[layout]
    build(tmp_path / "a", "qwen", layout)
    first = load(tmp_path / "a", like=like)
    assert isinstance(first, DiscriminativeScorer)
    first.model.save_pretrained(tmp_path / "b")
    again = load(tmp_path / "b")
    assert isinstance(again, DiscriminativeScorer)
    assert again.model.record == first.model.record
    np.testing.assert_allclose(again.score(QUESTION, STEPS), first.score(QUESTION, STEPS), atol=1e-6)


def test_an_implicit_score_needs_its_reference(tmp_path: Path) -> None:
    build(tmp_path, "qwen", "two-models")
    published = by_name("PRIME-RL/EurusPRM-Stage2").record
    record = replace(published, readout=replace(published.readout, reference=""))
    with pytest.raises(ModelError, match="pass reference="):
        load(tmp_path, record=record)
    own = replace(published, readout=replace(published.readout, reference=str(tmp_path)))
    np.testing.assert_allclose(load(tmp_path, record=own).score(QUESTION, STEPS), 0, atol=1e-9)
    scorer = load(tmp_path, record=record, reference=tmp_path)
    assert isinstance(scorer, ImplicitScorer)
    np.testing.assert_allclose(scorer.score(QUESTION, STEPS), 0, atol=1e-9)
    unnamed, named = (ImplicitScorer.load(tmp_path, tmp_path, record, name=name) for name in ("", "mine"))
    assert (unnamed.name, named.name) == (f"{tmp_path} - {tmp_path}", f"mine - {tmp_path}")


def test_a_checkpoint_of_an_older_version_scores_the_same_and_one_of_a_newer_does_not_load(tmp_path: Path) -> None:
    own_model().save_pretrained(tmp_path)
    expected = load(tmp_path).score(QUESTION, STEPS)
    path = tmp_path / "stepreward.json"
    new = json.loads(path.read_text())
    assert new["version"] == 3
    old = json.loads((Path(__file__).parent / "records_of_version_2.json").read_text())
    for name in ("default", "version 1"):
        path.write_text(json.dumps({**old[name], "surprise": False, "probe": new["probe"]}))
        np.testing.assert_array_equal(load(tmp_path).score(QUESTION, STEPS), expected)
    for changes, message in (
        ({"version": 4}, "version 4; upgrade"),
        ({"new_field": 1}, "fields this version does not know"),
        ({"readout": {"kind": "softmax"}}, "no possible record: a softmax readout needs"),
        ({"readout": "softmax"}, "no possible record: a softmax readout needs"),
        ({"readout": 1}, "no possible record: readout must be an object"),
    ):
        path.write_text(json.dumps({**new, **changes}))
        with pytest.raises(ModelError, match=message):
            load(tmp_path)
    path.write_text("[]")
    with pytest.raises(ModelError, match="is not a record"):
        load(tmp_path)


def test_the_page_of_checkpoints_tells_every_row() -> None:
    page = checkpoints_page()
    for row in checkpoints.values():
        assert f"## {row.name}\n" in page
        assert all(name in page for name in row.names)
        assert row.notes in page
        anchor = re.search(rf"\[{re.escape(row.name)}\]\(#([a-z0-9_-]+)\)", page)
        assert anchor
        assert anchor[1] == slugify(row.name, "-")
    for judge in judges.values():
        assert f"### {judge.name}\n" in page
        assert judge.notes in page
    assert "(#verifiers-that-write)" in page
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    made = [eval(block, vars(records)) for block in blocks]
    assert made == [row.record for row in checkpoints.values()]


VISUAL, URSA = "OpenGVLab/VisualPRM-8B", "URSA-MATH/URSA-RM-8B"


@pytest.mark.parametrize(
    ("name", "family", "layout"), [(VISUAL, "intern", "intern-vl"), (URSA, "qwen", "ursa")], ids=["visual", "ursa"]
)
def test_the_language_model_of_a_vision_language_checkpoint_refuses_images(
    tmp_path: Path, name: str, family: str, layout: str
) -> None:
    build(tmp_path, family, layout, by_name(name).architectures[0])
    scorer = load(tmp_path)
    assert isinstance(scorer, DiscriminativeScorer)
    assert scorer.model.record == by_name(name).record, "found by its architecture"
    steps = tuple(Step(text) for text in STEPS)
    assert np.isfinite(scorer.score(QUESTION, STEPS)).all()
    seen = (steps[0], replace(steps[1], images=("a.png",)))
    for problem, path in ((Problem("p", QUESTION, meta={"images": ["a.png"]}), steps), (Problem("p", QUESTION), seen)):
        with pytest.raises(ModelError, match="not its image tower: drop the images"):
            scorer.score_many([Score(problem, path)])
    blind = load(
        tmp_path,
        record=replace(by_name(name).record, encoding=replace(by_name(name).record.encoding, images="ignored")),
        head=by_name(name).head,
    )
    np.testing.assert_array_equal(blind.score_many([Score(problem, path)])[0].scores, scorer.score(QUESTION, STEPS))


def test_a_tokenizer_that_is_code_is_read_from_its_json_or_told(tmp_path: Path) -> None:
    build(tmp_path, "intern", "intern-vl", "InternVLRewardModel")
    expected = load(tmp_path).score(QUESTION, STEPS)
    path = tmp_path / "tokenizer_config.json"
    code = {"tokenizer_class": "InternLM2Tokenizer", "auto_map": {"AutoTokenizer": ["tokenization_of_others.T", None]}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **code}))
    np.testing.assert_array_equal(load(tmp_path).score(QUESTION, STEPS), expected)
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer.model")
    with pytest.raises(ModelError, match=r"Python code, which is not run: save it as tokenizer\.json"):
        load(tmp_path)


def test_a_language_model_of_no_known_family_is_told(tmp_path: Path) -> None:
    build(tmp_path, "qwen", "ursa")
    path = tmp_path / "config.json"
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "text_config": {"model_type": "nobody"}}))
    with pytest.raises(ModelError, match=r"cannot load the configuration .* nobody"):
        load(tmp_path, like=URSA)


def test_a_head_in_a_file_of_its_own_is_read_and_must_be_there(tmp_path: Path) -> None:
    build(tmp_path, "qwen", "reward-head-file")
    name = "Gen-Verse/ReasonFlux-PRM-1.5B"
    assert np.isfinite(load(tmp_path, like=name).score(QUESTION, STEPS)).all()
    (tmp_path / "reward_head.pt").unlink()
    with pytest.raises(ModelError, match=r"expected one head among the weights .* found none"):
        load(tmp_path, like=name)


def test_the_tool_is_loaded_by_its_name_and_follows_no_recipe() -> None:
    # 12 + 5 is 17: the first step holds, the second does not, and the third says nothing that could be checked.
    assert load("tool").score(QUESTION, ["12 + 5 = 17", "12 + 5 = 18", "So be it."]).tolist() == [1.0, 0.0, 0.8]
    with pytest.raises(InputError, match="no weights, and no recipe"):
        load("tool", like="trl-prm")


def test_a_scorer_s_name_says_which_recipe_it_follows_from_the_start(tmp_path: Path) -> None:
    folder, file = tmp_path / "model", tmp_path / "record.json"
    build(folder, "qwen", "score-mlp")
    file.write_text('{"max_length": 99}')
    assert load(folder, like=QWEN).name == f"{folder} like {QWEN}"
    by_file = load(folder, like=QWEN, record=file)
    by_record = load(
        folder,
        like=QWEN,
        record=replace(by_name(QWEN).record, encoding=replace(by_name(QWEN).record.encoding, max_length=99)),
    )
    assert by_file.name == by_record.name
    assert re.fullmatch(rf"{re.escape(str(folder))} by record [0-9a-f]{{8}}", by_file.name)
    np.testing.assert_array_equal(by_file.score(QUESTION, STEPS), by_record.score(QUESTION, STEPS))


def test_a_verifier_that_writes_is_a_policy_that_the_caller_opens() -> None:
    opened: list[tuple[str, bool, str]] = []

    def open_policy(source: str, /, *, raw: bool, dtype: str) -> Policy:
        opened.append((source, raw, dtype))
        return ScriptedPolicy({}, name="scripted")

    judge = judge_by_name("launch/ThinkPRM-1.5B")
    made = load("mine", like=judge.name, answers=3, dtype="bfloat16", open_policy=open_policy)
    assert isinstance(made, GenerativeScorer)
    assert (made.judge, made.n, opened) == (judge, 3, [("mine", judge.raw, "bfloat16")])
    with pytest.raises(InputError, match="open_policy"):
        load(judge.name)
    with pytest.raises(InputError, match="no encoder record says"):
        load(judge.name, record=EncoderRecord(), open_policy=open_policy)


def test_a_scorer_without_weights_is_loaded_without_torch() -> None:
    score = "stepreward.load('tool').score('1 + 1?', ['1 + 1 = 3'])"
    code = f"import sys, stepreward; print(*{score}, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["0.0", "False"]


@pytest.mark.parametrize("steps", ["12 + 5 = 17", None, [1, 2], (text for text in STEPS)])
def test_steps_are_a_list_of_texts(steps: Any) -> None:
    with pytest.raises(InputError, match=r"must be a (list of texts|text)"):
        load("tool").score(QUESTION, steps)


def test_weights_in_fewer_bits_score_alike_under_a_name_of_their_own(tmp_path: Path) -> None:
    build(tmp_path, "qwen", "score-mlp")
    exact = load(tmp_path, like=QWEN)
    for name, wanted in [("bfloat16", torch.bfloat16), ("float16", torch.float16), (torch.bfloat16, torch.bfloat16)]:
        scorer = load(tmp_path, like=QWEN, dtype=name)
        assert isinstance(scorer, DiscriminativeScorer)
        assert {one.dtype for one in scorer.model.parameters()} == {wanted}
        got = scorer.score(QUESTION, STEPS)
        assert 0 < np.abs(got - exact.score(QUESTION, STEPS)).max() < 0.02
        assert scorer.name == f"{exact.name} in {str(wanted).removeprefix('torch.')}"
    assert load(tmp_path, like=QWEN, dtype="auto").name == load(tmp_path, like=QWEN, dtype="float32").name == exact.name


def test_a_cache_in_fewer_bits_takes_half_the_memory(tmp_path: Path) -> None:
    build(tmp_path, "qwen", "score-mlp")
    held = []
    for dtype in ("float32", "bfloat16"):
        scorer = load(tmp_path, like=QWEN, dtype=dtype, cache_bytes="1MiB")
        assert isinstance(scorer, DiscriminativeScorer)
        assert scorer.growing is not None
        assert scorer.growing.max_bytes == 1 << 20
        scorer.score(QUESTION, STEPS)
        held.append(scorer.growing.nbytes)
    assert held[0] == 2 * held[1] > 0


def test_a_checkpoint_says_what_it_was_saved_in(tmp_path: Path) -> None:
    cuda = torch.device("cuda")
    (tmp_path / "base").mkdir()
    for config, wanted in [
        ({"torch_dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": "float16"}, torch.float16),
        ({"text_config": {"dtype": "bfloat16"}}, torch.bfloat16),
        ({}, torch.float32),
    ]:
        (tmp_path / "base" / "config.json").write_text(json.dumps(config))
        assert saved_dtype(tmp_path / "base", cuda) == wanted
        assert saved_dtype(tmp_path / "base", torch.device("cpu")) == torch.float32
    (tmp_path / "base" / "config.json").write_text('{"dtype": "bfloat16"}')
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    assert saved_dtype(tmp_path, cuda) == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"dtype": "bfloat"}, UnknownNameError, r"no dtype is called 'bfloat'; did you mean bfloat16"),
        ({"dtype": torch.int8}, InputError, r"no model is run in torch.int8; pass float32, bfloat16, float16 or auto"),
        ({"device": "cude"}, UnknownNameError, r"no torch device is called 'cude'; did you mean cuda"),
        ({"device": "cuda:x"}, UnknownNameError, r"no torch device is called 'cuda:x'"),
        ({"device": "xpu"}, InputError, r"device 'xpu' is not here; pass cpu"),
        ({"cache_bytes": "2 gigs"}, InputError, r"a size of memory cannot be '2 gigs'"),
    ],
)
def test_where_and_in_what_a_model_runs_is_told_clearly(
    tmp_path: Path, settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    build(tmp_path, "qwen", "score-mlp")
    with pytest.raises(kind, match=message):
        load(tmp_path, like=QWEN, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_a_device_that_is_not_here_is_told_before_anything_is_read() -> None:
    with pytest.raises(InputError, match=r"device 'cuda' is not here; pass cpu .* see `stepreward doctor`"):
        load("./nowhere", device="cuda")
    assert device_of("auto") == torch.device("cpu")


def test_what_a_folder_lacks_is_told_with_the_remedy(tmp_path: Path) -> None:
    build(tmp_path / "runs" / "checkpoint-90", "qwen", "token-classification-2")
    (tmp_path / "runs" / "checkpoint-1000").mkdir()
    (tmp_path / "runs" / "checkpoint-best").mkdir()
    with pytest.raises(ModelError, match=r"holds checkpoints of a training, .* the newest is .*checkpoint-1000$"):
        load(tmp_path / "runs", like="trl-prm")
    bare = tmp_path / "runs" / "checkpoint-90"
    for path in [*bare.glob("tokenizer*"), *bare.glob("special*")]:
        path.unlink()
    with pytest.raises(
        ModelError, match=r"cannot load the tokenizer of .*: there is none; copy the base model's there"
    ):
        load(bare, like="trl-prm")


@pytest.mark.parametrize("name", ["TRL", "TRL-PRM", "trl_prm"])
def test_a_row_in_another_case_is_suggested(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean .*trl-prm"):
        by_name(name)
