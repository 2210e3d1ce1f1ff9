"""Ready configurations of training: each is read, and its costs are computed without a card."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from tests.train.toy import toy_labels
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.cli.train import TrainFlags
from stepreward.formats.registry import write
from stepreward.formats.trajectories import OWN
from stepreward.train.settings import TrainSettings

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "train").glob("*.toml"))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read_by_the_command(path: Path, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", toy_labels(4, 0), OWN, strict=True)
    text = path.read_text(encoding="utf-8")
    # What needs a card is replaced; all else is as people have it.
    for of_cards in ('device = "cuda"', 'attention = "flex"', "shard = true"):
        text = text.replace(of_cards, "")
    text = text.replace("backbone.layers.1?.*", "backbone.layers.[01].*").replace(
        "backbone.layers.?.*", "backbone.norm.*"
    )
    (tmp_path / "recipe.toml").write_text(text)
    line = ["--config", str(tmp_path / "recipe.toml"), "train", "--data", str(tmp_path / "rows.jsonl"), "--dry-run"]
    done = CliRunner().invoke(app, [*line, "--out", str(tmp_path / "model"), "--json"])
    assert done.exit_code == 0, done.output
    said, memory = tomllib.loads(text)["train"], json.loads(done.stdout)["memory"]
    assert (memory["trained"] < memory["parameters"]) == bool({"lora-rank", "freeze"} & {*said})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_name_in_a_recipe_is_a_flag_of_train(path: Path) -> None:
    known = {field.name for kind in (TrainFlags, TrainSettings) for field in fields(kind)}
    said = tomllib.loads(path.read_text(encoding="utf-8"))
    assert set(said) == {"train"}
    assert {name.replace("-", "_") for name in said["train"]} <= known
