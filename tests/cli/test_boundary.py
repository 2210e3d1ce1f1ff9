"""The command line's boundary: one line for any error, and no text of others that steers the terminal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepreward.cli import app as application
from stepreward.cli.app import app, main
from stepreward.cli.terminal.plain_streams import plain_output, printable
from stepreward.core.errors import InputError, ModelError
from stepreward.score.model.weights import read_weights
from tests.cli.running import invoke, refused

ROW = '{"question": "1 + 1?", "steps": ["1 + 1 = 2"]}\n'


def ended(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    def raising() -> None:
        raise error

    monkeypatch.setattr(application, "app", raising)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_an_unforeseen_error_is_one_line_that_says_how_to_see_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ended(ZeroDivisionError("by\nzero"), monkeypatch, capsys)
    assert said == (
        "stepreward: an error that was not foreseen, ZeroDivisionError: by zero; "
        "STEPREWARD_TRACEBACK=1 shows where: please report it\n"
    )
    assert "RecursionError" in ended(RecursionError(), monkeypatch, capsys)
    assert "MemoryError" in ended(MemoryError(), monkeypatch, capsys)
    monkeypatch.setenv("STEPREWARD_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        ended(ZeroDivisionError(), monkeypatch, capsys)


def test_escapes_in_errors_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ended(InputError("model \x1b[31mred\x9b2J \x07 \u202eflow \ud83d", source="a\x1b]0;x"), monkeypatch, capsys)
    assert said == "stepreward: a\\x1b]0;x: model \\x1b[31mred\\x9b2J \\x07 \\u202eflow \\ud83d\n"


def test_lines_tabs_and_letters_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\tb\nc é 漢 😀") == "a\tb\nc é 漢 😀"
    assert printable("\x00\r\x7f\x85\u2067") == "\\x00\\r\\x7f\\x85\\u2067"
    with plain_output():
        print("é 漢 \ud83d")
        print("x\x1b", file=sys.stderr)
    assert tuple(capsys.readouterr()) == ("é 漢 \\ud83d\n", "x\\x1b\n")


def command(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} -m stepreward {line}"], cwd=folder, capture_output=True, text=True,
        check=False, env={**os.environ},
    )  # fmt: skip


def test_a_full_output_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROW * 3)
    done = command("score --model tool --data rows.jsonl > /dev/full", tmp_path)
    assert (done.returncode, done.stderr) == (
        1, "stepreward: cannot write: No space left on device; free some space and run again\n",
    )  # fmt: skip


def test_a_closed_pipe_is_silent(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROW * 3000)
    assert command("score --model tool --data rows.jsonl | head -1", tmp_path).stderr == ""


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deep.toml", "a = " + "[" * 5000), ("deep.yaml", "a: " + "[" * 5000), ("keys.yaml", "1: {2: 3}\nnull: {x: 1}"),
        ("keys.yaml", "score: {1: 2}"), ("esc.yaml", "sc\x1bore: {}"),
    ],
    ids=["deep toml", "deep yaml", "keys", "key of a flag", "escape"],
)  # fmt: skip
def test_a_hostile_configuration_is_one_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    done = command(f"--config {name} score --model tool", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("stepreward: ")
    assert done.stderr.count("\n") == 1
    assert "not foreseen" not in done.stderr
    assert "\x1b" not in done.stderr


def test_half_a_surrogate_pair_costs_its_row_alone(inside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "1 + 1?", "completions": [f"1 + 1 = {text}"], "labels": [text == "2"]} for text in "23\ud83d"]
    Path("half.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [rows[2], *rows[:2]]))
    made = CliRunner().invoke(app, ["score", "--model", "model", "--data", "half.jsonl"])
    first, *others = (json.loads(line) for line in made.stdout.splitlines())
    assert "half a surrogate pair" in first["error"]
    assert [len(line["scores"]) for line in others] == [1, 1]
    done = json.loads(invoke("train --data half.jsonl --out half --epochs 1 --held-out 0 --json"))
    assert done["trees"] == 2 or done["steps"] > 0
    invoke("evaluate --data half.jsonl --model model --json")


@pytest.mark.parametrize("damage", ["half", "empty", "zeros", "lying"])
@pytest.mark.parametrize("name", ["model.safetensors", "head.safetensors"])
def test_a_damaged_checkpoint_is_one_line(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    broken = inside / f"broken-{name}-{damage}"
    shutil.copytree(inside / "model", broken)
    file = next(path for path in broken.glob("*.safetensors") if (path.name == "model.safetensors") == (name[0] == "m"))
    content = file.read_bytes()
    file.write_bytes({
        "half": content[: len(content) // 2], "empty": b"", "zeros": bytes(len(content)),
        "lying": b"\xff" * 8 + content[8:],
    }[damage])  # fmt: skip
    (inside / "ask.jsonl").write_text('{"question": "1 + 1?", "steps": ["1 + 1 = 2"]}\n')
    said = refused(f"score --model {broken.name} --data ask.jsonl", capsys, monkeypatch)
    assert "cannot load" in said
    assert "not foreseen" not in said


def test_an_adapter_on_itself_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "."}')
    with pytest.raises(ModelError, match="an adapter whose base is itself"):
        read_weights(tmp_path)
