"""The flags of an engine: what fits, and what is said where Ray is not installed (`make ray` runs it)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.cli.flags.engines import EngineFlags
from stepreward.connect.ray_engine import RayEngine, engine_of
from stepreward.core.errors import InputError, UnknownNameError

ROW = '{"question": "1 + 1?", "steps": ["1 + 1 = 2"]}\n'


def said(line: str) -> str:
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 1
    return str(done.exception) if done.exception and not isinstance(done.exception, SystemExit) else done.output


def test_flags_and_texts_mean_the_same_engine() -> None:
    wanted = RayEngine(workers="4..32", address="auto", part=8, cpus=2.0, gpus=0.5)
    assert EngineFlags("ray", "4..32", "auto", 8, 2.0, 0.5).chosen() == wanted
    assert engine_of("ray?workers=4..32&address=auto&part=8&cpus=2&gpus=0.5") == wanted
    assert (wanted.range, RayEngine().range, RayEngine(workers="3").range) == ((4, 32), (2, 2), (3, 3))
    assert engine_of("") is engine_of(None) is EngineFlags().chosen() is None
    assert engine_of("ray") == EngineFlags("ray").chosen() == RayEngine()
    assert engine_of(wanted) is wanted


@pytest.mark.parametrize("workers", ["0", "4..2", "many", "-1", "2..", "0..3", "1.5", ""])
def test_workers_that_make_no_sense_are_refused(workers: str) -> None:
    with pytest.raises(InputError, match="workers must be a number or a range"):
        RayEngine(workers=workers)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no engine is called 'spark'"):
        engine_of("spark")
    with pytest.raises(UnknownNameError, match="no setting of the engine ray is called 'worker'"):
        engine_of("ray?worker=3")
    with pytest.raises(InputError, match="part must be a number, got 'x'"):
        engine_of("ray?part=x")
    with pytest.raises(InputError, match="at least one item"):
        engine_of("ray?part=0")
    with pytest.raises(InputError, match="cannot reserve -1"):
        engine_of("ray?cpus=-1")
    with pytest.raises(InputError, match="--part-size is of an engine"):
        EngineFlags(part_size=3).chosen()


def test_commands_that_no_engine_can_help(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROW)
    assert "an engine makes a table of a file" in said(f"score --data {tmp_path}/rows.jsonl --model tool --engine ray")
    assert "no engine is called" in said(f"evaluate --data {tmp_path}/rows.jsonl --model tool --engine spark")
    compared = f"search --problems {tmp_path}/rows.jsonl --out {tmp_path}/x --model tool --compare --engine ray"
    assert "a comparison is made in one process" in said(compared)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROW)
    line = f"score --data {tmp_path}/rows.jsonl --out {tmp_path}/x.parquet --model tool --engine ray"
    assert "ray is not installed: pip install 'stepreward[ray]'" in said(line)
