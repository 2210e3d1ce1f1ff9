"""The command line's boundary: one line for any error, and no text of others that steers the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepreward.cli import app as application
from stepreward.cli.app import main
from stepreward.cli.terminal import plain_output, printable
from stepreward.core.errors import InputError

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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deep.toml", "a = " + "[" * 5000), ("deep.yaml", "a: " + "[" * 5000), ("keys.yaml", "1: {2: 3}\nnull: {x: 1}"),
        ("keys.yaml", "score: {1: 2}"), ("esc.yaml", "sc\x1bore: {}"),
    ],
)  # fmt: skip
def test_a_hostile_configuration_is_one_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    done = command(f"--config {name} score --model tool", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("stepreward: ")
    assert done.stderr.count("\n") == 1
    assert "not foreseen" not in done.stderr
    assert "\x1b" not in done.stderr
