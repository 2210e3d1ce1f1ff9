"""Files that are nested without end, damaged notes of a run, and folders that another process works in: one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.running import refused

DEEP = "[" * 100_000 + "]" * 100_000
ROW = {"id": "a", "prompt": "1 + 1?", "reference": "2"}
ASK = {"problem": "1 + 1?", "steps": ["1 + 1 = 2"]}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    nested = json.dumps(ROW | {"id": "b", "more": 0}).replace(": 0", f": {DEEP}")
    Path("deep.jsonl").write_text(json.dumps(ROW) + "\n" + nested + "\n")
    Path("deep.json").write_text(f"[{nested}]")
    Path("p.jsonl").write_text("".join(json.dumps(ROW | {"id": str(i)}) + "\n" for i in range(2)))
    Path("ask.jsonl").write_text(json.dumps(ASK) + "\n")
    Path("bomb.json").write_text(DEEP)
    for name in ("record", "config"):
        Path(name).mkdir()
    Path("record/stepreward.json").write_text(DEEP)
    Path("config/config.json").write_text(DEEP)
    Path("c.toml").write_text(f"[search]\nbeams = {DEEP}")
    Path("c.yaml").write_text(f"search: {DEEP}")
    return tmp_path


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("search --strict --problems deep.jsonl --method majority --out o.jsonl", "deep.jsonl, row 2"),
        ("search --problems deep.json --method majority --out o.jsonl", "deep.json, row 1"),
        ("label --strict --problems deep.jsonl --out lab", "deep.jsonl, row 2"),
        ("score --model tool --data ask.jsonl --calibrator bomb.json", "bomb.json: cannot read a calibrator"),
        ("score --model config --like trl-prm --data ask.jsonl --record bomb.json", "bomb.json: no readable JSON"),
        ("score --model record --data ask.jsonl", "record/stepreward.json"),
        ("score --model config --data ask.jsonl", "config/config.json"),
        ("search --problems p.jsonl --policy config --method majority --out o.jsonl", "from 'config'"),
        ("--config c.toml search --problems p.jsonl --out o.jsonl", "c.toml"),
        ("--config c.yaml search --problems p.jsonl --out o.jsonl", "c.yaml"),
    ],
)
def test_what_is_nested_without_end_is_named(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, named: str
) -> None:
    said = refused(line, capsys, monkeypatch)
    assert named in said
    assert "not foreseen" not in said
    assert len(said) < 500


@contextmanager
def worked_in(program: str) -> Iterator[None]:
    """Another process at work in a folder."""
    words = [sys.executable, "-c", f"{program}\n    print('ready', flush=True)\n    input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        yield
        other.communicate("\n")


LOG = "from stepreward.core.runtime.answer_log import AnswerLog\nwith AnswerLog('{}'):"
FOLDER = """from pathlib import Path
from stepreward.core.files.atomic_files import locked_folder
with locked_folder(Path('{}')):"""


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("search --problems p.jsonl --method majority --out o.jsonl", LOG.format("o.jsonl.answers.sqlite")),
        ("search --problems p.jsonl --compare --model tool --out c", LOG.format("c/answers.sqlite")),
        ("run --out r", LOG.format("r/answers.sqlite")),
        ("label --problems p.jsonl --out lab", LOG.format("lab/samples.sqlite")),
        ("label --problems p.jsonl --out lab --samples 1 --json", LOG.format("lab/answers.sqlite")),
        ("rl --out rl --model '' --credit rloo", FOLDER.format("rl")),
    ],
)
def test_a_second_writer_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, program: str
) -> None:
    with worked_in(program):
        said = refused(line, capsys, monkeypatch)
    assert "is in use by another process: wait for its end, or choose another folder" in said.splitlines()[-1]


def test_a_damaged_note_of_a_stage_is_named(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = "--train-problems 2 --validation-problems 2 --held-out-problems 2 --train-samples 1 --held-out-samples 1"
    for damage in ("", '{"a": ', DEEP, "[]"):
        Path("r/stages").mkdir(parents=True, exist_ok=True)
        Path("r/stages/sample.json").write_text(damage)
        said = refused(f"run --out r --json {few}", capsys, monkeypatch)
        assert "r/stages/sample.json" in said
        assert "delete this one file and run again" in said
