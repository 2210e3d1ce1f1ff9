"""What the doctor says of this machine: it tries everything once, and names what is broken with its remedy."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import sqlglot
import tokenizers
import torch
import transformers
import uvicorn
from packaging.version import Version
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.cli.doctor import packages as doctor_packages
from stepreward.cli.doctor.packages import Package, packages
from stepreward.cli.doctor.trial import TRIALS
from stepreward.credit.rules import sql as rules_sql
from stepreward.tasks import mathematics

pytestmark = pytest.mark.xdist_group("doctor")
Row = dict[str, Any]


def found() -> tuple[dict[str, Row], int]:
    """Each finding by what it is about, and the exit status."""
    done = CliRunner().invoke(app, ["doctor", "--json"])
    return {row["what"]: row for row in json.loads(done.stdout)}, done.exit_code


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Leaves one trial."""

    def leave(what: str) -> None:
        monkeypatch.setattr("stepreward.cli.doctor.trial.TRIALS", [one for one in TRIALS if one.what == what])

    return leave


def versions(monkeypatch: pytest.MonkeyPatch, **other: str) -> None:
    """Packages seem to be installed in other versions."""
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: other.get(name) or real(name))


def broken(*_: object, **__: object) -> None:
    raise TypeError("got an unexpected keyword argument 'cache'")


def test_everything_here_works_and_leaves_nothing_behind(tmp_path: Path) -> None:
    rows, status = found()
    assert {one.what for one in TRIALS} | {"python", "torch", "device", "folder"} <= set(rows)
    lanes = {"vllm", "bitsandbytes", "ray", "reasoning-gym", "textworld", "websockets", "miniwob", "playwright"}
    assert {what for what, row in rows.items() if not row["good"]} <= lanes
    assert status == 0
    assert rows["numpy"]["says"] == np.__version__
    assert list(tmp_path.iterdir()) == []


def test_every_dependency_is_looked_at_with_its_least_version() -> None:
    base = [one for one in importlib.metadata.requires("stepreward") or [] if ";" not in one]
    known = {one.name: one for one in packages()}
    assert {one.name for one in known.values() if not one.extra} == {re.split(r"[^\w-]", one)[0] for one in base}
    assert (known["mpmath"].extra, known["prometheus-client"].extra, known["vllm"].extra) == ("math", "serve", "vllm")
    declared = {re.split(r"[^\w-]", one)[0] for one in importlib.metadata.requires("stepreward") or []}
    for name, one in known.items():
        # What an extra's packages bring themselves is not declared here.
        assert one.wanted.contains("0.0.1") == (name not in declared), name


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, alone: Callable[[str], None]) -> None:
    alone("")
    monkeypatch.setattr("stepreward.cli.doctor.command.packages", lambda: [Package("no-such-package", "models")])
    rows, status = found()
    assert rows["no-such-package"]["says"] == "not installed; pip install 'stepreward[models]'"
    # A base installation works; only what nothing works without is an error.
    assert status == 0
    monkeypatch.setattr("stepreward.cli.doctor.command.packages", lambda: [Package("no-such-package")])
    done = CliRunner().invoke(app, ["doctor"])
    assert "no  no-such-package   not installed; pip install 'no-such-package'" in done.stdout
    assert done.exit_code == 1


def test_what_cannot_be_tried_for_want_of_an_extra_is_no_error(
    monkeypatch: pytest.MonkeyPatch, alone: Callable[[str], None]
) -> None:
    alone("generates")
    monkeypatch.setattr(doctor_packages, "packages", lambda: [Package("no-such-package", "models")])
    rows, status = found()
    assert rows["generates"]["says"] == "needs no-such-package: pip install 'stepreward[models]'"
    assert (rows["generates"]["good"], status) == (False, 0)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("what", "module", "name", "library"),
    [
        ("generates", transformers.AutoModelForCausalLM, "from_pretrained", "transformers"),
        ("scores", torch.nn.Linear, "forward", "torch"),
        ("trains", transformers.Trainer, "train", "transformers"),
        ("trains", tokenizers.Tokenizer, "train_from_iterator", "tokenizers"),
        ("rules", sqlglot, "parse", "sqlglot"),
        ("serves", uvicorn.Server, "startup", "uvicorn"),
        ("stores", pyarrow.parquet, "ParquetWriter", "pyarrow"),
    ],
)
def test_a_broken_library_is_named_with_the_command_that_mends_it(
    what: str, module: Any, name: str, library: str, monkeypatch: pytest.MonkeyPatch, alone: Callable[[str], None]
) -> None:
    alone(what)
    rules_sql._parsed.cache_clear()
    monkeypatch.setattr(module, name, broken)
    rows, status = found()
    assert not rows[what]["good"]
    assert status == 1
    assert f"{library} {importlib.metadata.version(library)}" in rows[what]["says"]
    assert re.search(
        rf"pip install --force-reinstall --no-deps .*'{library}==[\d.]+'|pip install .*'\w", rows[what]["says"]
    )


def test_a_library_that_is_too_new_is_told_to_go_back_to_the_tested_release(
    monkeypatch: pytest.MonkeyPatch, alone: Callable[[str], None]
) -> None:
    alone("generates")
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", broken)
    versions(monkeypatch, transformers="99.1")
    rows, _ = found()
    tested = dict(
        line.split("==") for line in doctor_packages._TESTED.read_text().splitlines() if not line.startswith("#")
    )
    says = rows["generates"]["says"]
    assert says.startswith("TypeError: got an unexpected keyword argument 'cache' (")
    assert re.search(
        r"transformers.* newer than tested: pip install .*'transformers==" + re.escape(tested["transformers"]), says
    )
    assert rows["transformers"]["good"], "it is a version that is declared, and it may work"


def test_a_library_that_is_too_old_is_told_the_least_version(
    monkeypatch: pytest.MonkeyPatch, alone: Callable[[str], None]
) -> None:
    alone("generates")
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", broken)
    versions(monkeypatch, transformers="4.40.0")
    rows, status = found()
    least = str(next(one for one in packages() if one.name == "transformers").wanted)
    assert rows["transformers"]["says"] == f"4.40.0 is too old; pip install 'transformers{least}'"
    assert rows["generates"]["says"].endswith(f"transformers is too old: pip install 'transformers{least}'")
    assert status == 1


def test_an_error_inside_a_library_is_laid_to_it(monkeypatch: pytest.MonkeyPatch, alone: Callable[[str], None]) -> None:
    alone("generates")
    monkeypatch.setattr(transformers.PreTrainedModel, "_load_pretrained_model", broken)
    rows, _ = found()
    assert rows["generates"]["says"].startswith("TypeError in transformers: got an unexpected")


def test_a_library_that_cannot_be_imported_is_named(
    monkeypatch: pytest.MonkeyPatch, alone: Callable[[str], None]
) -> None:
    alone("credits in TRL")
    monkeypatch.setitem(sys.modules, "trl.trainer.grpo_trainer", None)
    for name in ("stepreward.connect.trl", "stepreward.cli.doctor.trials.rl_training"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    rows, status = found()
    assert "trl" in rows["credits in TRL"]["says"]
    assert (rows["credits in TRL"]["good"], status) == (False, 1)


def test_a_wrong_outcome_is_told_beside_the_right_one(
    monkeypatch: pytest.MonkeyPatch, alone: Callable[[str], None]
) -> None:
    alone("grades")
    monkeypatch.setattr(mathematics.MathGrader, "grade", lambda *_: 1.0)
    rows, status = found()
    assert rows["grades"]["says"].startswith("WrongError: the outcome is [1.0, 1.0], not [1.0, 0.0] (mpmath ")
    assert status == 1


def test_the_versions_tested_are_within_those_declared() -> None:
    tested = doctor_packages._tested()
    for one in packages():
        if one.name in tested:
            assert one.wanted.contains(Version(tested[one.name])), one
