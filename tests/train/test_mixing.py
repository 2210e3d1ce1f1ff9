"""Several data sets in one training: shares of tokens, the same for a seed, through a kill, and metrics of each."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cli.running import invoke, refused
from tests.train.toy import toy_labels, toy_model

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.types import Trajectory
from stepreward.train.data.domains import named
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.order import mixed
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.trainer import TrainSettings, train

NAMES = ("math", "code", "agents")


def of(name: str, rows: list[Trajectory]) -> list[Trajectory]:
    return [replace(row, facts={"domain": name}) for row in rows]


@settings(deadline=None)
@given(st.data())
def test_shares_of_tokens_are_right_to_a_tree_in_every_pass(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=30), min_size=1, max_size=3))
    mix = dict(zip(NAMES, data.draw(st.lists(st.floats(0.1, 10), min_size=3, max_size=3))[: len(sizes)], strict=False))
    lengths = [length for some in sizes for length in some]
    starts = np.cumsum([0, *map(len, sizes)])
    domains = {name: range(starts[i], starts[i + 1]) for i, name in enumerate(mix)}
    passes = mixed(lengths, domains, mix, Key.seed(data.draw(st.integers(0, 99))))
    seen: Counter[int] = Counter()
    for number in range(1, 5):
        seen.update(next(passes))
        for name, numbers in domains.items():
            tokens = sum(seen[i] * lengths[i] for i in numbers)
            wanted = number * sum(lengths) * mix[name] / sum(mix.values())
            assert -1e-6 <= tokens - wanted < max(lengths) + 1e-6
            # No tree is taken again before each other one of its domain is.
            times = [seen[i] for i in numbers]
            assert max(times) - min(times) <= 1


def test_a_mix_is_decided_by_the_seed_and_packed_into_whole_batches() -> None:
    trees = labelled_trees([*of("math", toy_labels(30, 0)), *of("code", toy_labels(10, 1))])

    def data(seed: int) -> TrainingSet:
        encoder = toy_model().encoder
        mix = {"math": 1, "code": 3}
        return TrainingSet(
            trees, encoder, row_tokens=128, batch_tokens=256, epochs=2, mix=mix, key=Key.seed(seed)
        )  # fmt: skip

    first = data(0)
    assert first.plans == data(0).plans
    assert first.plans != data(1).plans
    tokens = first.tokens_by_domain()
    assert tokens["code"] == pytest.approx(3 * tokens["math"], rel=0.05)
    assert sum(tokens.values()) == int(first.sizes.sum()) == sum(batch.packed.tokens for batch in first)
    # A quarter of the data is three quarters of each pass: its trees come three times, also twice in one batch.
    assert sum(tokens.values()) == pytest.approx(2 * first.tokens, rel=0.05)


def test_a_mix_names_every_domain_once() -> None:
    trees = labelled_trees([*of("math", toy_labels(3, 0)), *of("code", toy_labels(3, 1))])
    with pytest.raises(InputError, match="the data has the domains 'code', 'math', the mix names 'math'"):
        TrainingSet(trees, toy_model().encoder, row_tokens=128, batch_tokens=256, mix={"math": 1})
    with pytest.raises(ValueError, match=r"must be positive numbers, got \{'math': 0\}"):
        TrainSettings(mix={"math": 0})


def test_data_sets_are_named_by_their_files() -> None:
    assert named([Path("x/a.parquet")]) == {"": Path("x/a.parquet")}
    assert [*named([Path("x/a.parquet"), Path("b.jsonl")])] == ["a", "b"]
    assert [*named([Path("x/a.parquet"), Path("y/a.parquet"), Path("c")])] == ["x/a.parquet", "y/a.parquet", "c"]
    with pytest.raises(InputError, match="a data set is given twice"):
        named([Path("a"), Path("a")])


FLAGS = "train --data math.parquet --data code.parquet --backbone scratch --batch-tokens 256 --row-tokens 128"


def test_the_command_mixes_files_and_measures_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stepreward.write("math.parquet", toy_labels(30, 0))
    # Equal ids in two files are two problems; a row's own domain stays.
    stepreward.write("code.parquet", [*toy_labels(12, 0), *of("agents", toy_labels(12, 1))])
    mix = "--mix math=1 --mix code=2 --mix agents=1"
    printed = invoke(f"{FLAGS} {mix} --epochs 2 --held-out 0.3 --out model --json")
    kept = json.loads(Path("model/training.json").read_text())
    assert kept["settings"]["mix"] == {"math": 1.0, "code": 2.0, "agents": 1.0}
    domains = kept["domains"]
    assert json.loads(printed)["domains"] == domains
    assert domains.keys() == {"math", "code", "agents"}
    assert domains["code"]["tokens"] == pytest.approx(2 * domains["math"]["tokens"], rel=0.1)
    assert all(np.isfinite(one["loss"]) for one in domains.values())
    again = invoke(f"{FLAGS} {mix} --epochs 2 --held-out 0.3 --out model")
    assert "this training has finished already" in again
    for wrong, said in (
        ("--mix math", "--mix expects name=weight"),
        ("--mix math=-1", "--mix expects name=weight"),
        ("--mix math=1 --mix math=2", "each name once"),
        ("--mix math=1", "the data has the domains 'agents', 'code', 'math', the mix names 'math'"),
    ):
        assert said in refused(f"{FLAGS} {wrong} --out other", capsys, monkeypatch)


def test_metrics_of_a_domain_are_those_of_its_trees_alone(tmp_path: Path) -> None:
    """Labels of one domain are turned round: what is learned of the other is wrong there."""
    right, wrong = toy_labels(60, 0), toy_labels(20, 1)
    turned = [row.with_columns({"label": 1 - row.labels}) for row in wrong]
    held_out = labelled_trees([*of("right", toy_labels(20, 2)), *of("turned", turned)])
    quick = TrainSettings(epochs=12, learning_rate=3e-3, batch_tokens=512, row_tokens=256)
    result = train(labelled_trees(of("right", right)), toy_model(), tmp_path, quick, held_out=held_out)
    assert result.domains["right"]["auroc"] > 0.95
    assert result.domains["turned"]["auroc"] < 0.05
    assert result.domains["turned"]["tokens"] == 0
    assert result.domains["right"]["tokens"] > 0


def test_a_mixture_continues_after_a_stop_as_if_there_was_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = labelled_trees([*of("math", toy_labels(20, 0)), *of("code", toy_labels(10, 1))])
    mix = TrainSettings(
        epochs=3, batch_tokens=256, row_tokens=128, mix={"math": 1, "code": 2}, save_seconds=0, learning_rate=3e-3
    )
    whole = train(trees, toy_model(), tmp_path / "whole", mix)
    read, left = TrainingSet.__getitem__, iter(range(whole.steps // 2))

    def stopping(self: TrainingSet, index: int) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return read(self, index)

    monkeypatch.setattr(TrainingSet, "__getitem__", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(trees, toy_model(), tmp_path / "stopped", mix)
    monkeypatch.setattr(TrainingSet, "__getitem__", read)
    again = train(trees, toy_model(), tmp_path / "stopped", mix)
    assert again.steps == whole.steps
    first, second = (stepreward.load(one.folder) for one in (whole, again))
    for mine, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
