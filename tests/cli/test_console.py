"""Names of files, models and servers in tables and bars: text is text, whatever rich or a terminal would make of it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from rich.table import Table
from tqdm import tqdm
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app, main
from stepreward.cli.doctor.servers import Finding
from stepreward.cli.terminal.console import plain_console
from stepreward.cli.terminal.plain_streams import plain_output
from stepreward.cli.terminal.progress import StageProgress

HOSTILE = "m[red]x[/] [/] [link=http://a]b :smile: \x1b]0;t\x07\x1b[2J\r\x9b31m\u202e[bold"
SHOWN = "m[red]x[/] [/] [link=http://a]b :smile: \\x1b]0;t\\x07\\x1b[2J\\r\\x9b31m\\u202e[bold"
OWN = re.compile(r"\x1b\[[\d;]*m|\x1b\[(?:\?25[hl]|[12]K|1A)|\r")
"""What rich itself writes: colours, the cursor, and lines written anew."""


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")


def shown_on(master: int) -> str:
    """All that was written to a terminal that has been closed."""
    parts = []
    with suppress(OSError):
        while part := os.read(master, 65536):
            parts.append(part)
    os.close(master)
    return b"".join(parts).decode()


@pytest.mark.parametrize("terminal", [False, True])
def test_every_place_of_a_table_shows_a_name_as_it_is(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if terminal:
        on_terminal(monkeypatch)
    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE, footer=HOSTILE)
    table.show_footer = True
    table.add_row(HOSTILE)
    console = plain_console()
    assert console.is_terminal == terminal
    console.print(table)
    console.print(HOSTILE, soft_wrap=True)
    said = capsys.readouterr().out
    assert said.count("\x1b") == (len(re.findall(r"\x1b\[[\d;]*m", said)) if terminal else 0)
    assert OWN.sub("", said).count(SHOWN) == 6


def test_a_bar_shows_a_name_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on_terminal(monkeypatch)
    with StageProgress() as show:
        show(HOSTILE, 1, 2, HOSTILE)
    said = OWN.sub("", capsys.readouterr().err)
    assert said.count(SHOWN) >= 2
    assert "\x1b" not in said


def test_on_a_terminal_the_bar_writes_its_own_sequences_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    master, slave = pty.openpty()
    with open(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        with plain_output():
            with StageProgress() as show:
                show("score", 1, 2, "")
                print(HOSTILE)
                print(HOSTILE, file=sys.stderr)
                print("half a line\x9b", end="", file=sys.stderr)
            print("end\x1b", file=sys.stderr)
        monkeypatch.undo()
    raw = shown_on(master)
    assert "\x1b[2K" in raw
    said = OWN.sub("", raw)
    assert said.count(SHOWN) == 2
    assert "half a line\\x9b" in said
    assert "end\\x1b\n" in said
    assert "\x1b" not in said
    assert "\\x1b[2K" not in said.replace(SHOWN, "")


@pytest.mark.parametrize("beside_ours", [False, True])
def test_bars_of_downloads_are_lines_that_begin_anew(beside_ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    with open(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        with plain_output():
            with StageProgress(quiet=not beside_ours):
                for _ in tqdm(range(3), desc=f"model {HOSTILE}"):
                    tqdm.write("x\x1b", file=sys.stderr)
            print("\rout\x1b[A")
            print("end", file=sys.stderr)
        monkeypatch.undo()
    raw = shown_on(master)
    assert "\\r" not in raw.replace(SHOWN, "").replace("\\rout", "")
    assert ("3/3" in raw) != beside_ours
    assert raw.count("\r") > 3
    assert "\\rout\\x1b[A\r\n" in raw, "standard output has no bars"
    said = OWN.sub("", raw)
    assert "\x1b" not in said
    assert said.endswith("end\n")
    if not beside_ours:
        assert SHOWN in said


def test_rows_that_go_into_a_file_stay_out_of_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    with (tmp_path / "rows").open("w") as rows:
        monkeypatch.setattr(sys, "stdout", rows)
        with StageProgress() as show:
            show("score", 1, 2, "")
            print("row")
        monkeypatch.undo()
    assert (tmp_path / "rows").read_text() == "row\n"


def ran(line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints on a terminal, without what rich itself writes; both streams."""
    monkeypatch.setattr(sys, "argv", ["stepreward", *line])
    on_terminal(monkeypatch)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr()
    return OWN.sub("", said.out + said.err)


def test_scorers_of_a_file_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [{"id": f"b-{i}", "problem": f"{i}?", "steps": ["One.", "Two."], "label": -i} for i in (0, 1)]
    scored = [{"id": f"b-{i}", "label": -i, "n_scored": 2, "scores": {HOSTILE: [0.9, 0.1]}} for i in (0, 1)]
    path = tmp_path / "scores" / "two.jsonl"
    for target, rows in ((path, scored), (tmp_path / "processbench" / "two.json", texts)):
        target.parent.mkdir()
        target.write_text("".join(json.dumps(one) + "\n" for one in rows))
    said = ran(["evaluate", "--data", str(path), "--threshold", "0.5"], monkeypatch, capsys)
    assert "2 solutions" in said
    assert said.count(SHOWN) >= 1
    assert "\x1b" not in said
    line = ["evaluate", "--data", str(path), "--benchmark", "process-bench", "--set", "threshold=0.5"]
    said = ran(line, monkeypatch, capsys)
    assert SHOWN in said
    assert "\x1b" not in said


def test_a_subset_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    rows = [
        {"id": f"{i}", "generator": "m", "problem": "2 + 3?", "final_answer_correct": bool(i),
         "steps": ["2 + 3 = 5", f"2 * 5 = {10 + 2 * i}"], "label": 1 if i else -1}
        for i in (0, 1)
    ]  # fmt: skip
    (folder / "[red]a[bold\x1b[2J.json").write_text(json.dumps(rows))
    said = ran(
        ["evaluate", "--benchmark", "process-bench", "--data", str(folder), "--scorer", "tool"], monkeypatch, capsys
    )
    assert "[red]a[bold\\x1b[2J" in said
    assert "\x1b" not in said


def test_what_a_server_says_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding(HOSTILE[:30], True, HOSTILE), Finding("server", False, HOSTILE)]
    monkeypatch.setattr("stepreward.cli.doctor.command.policy_findings", lambda *_: iter(found))
    said = CliRunner().invoke(app, ["doctor", "--policy", "http://127.0.0.1:1/v1#m"]).stdout
    assert said.count(SHOWN) == 2
    assert "\x1b" not in said


def test_what_a_reader_that_is_gone_did_not_take_is_dropped_in_silence() -> None:
    program = """
import sys
from stepreward.cli.terminal.plain_streams import plain_output
with plain_output():
    sys.__stdout__.write("a line that a library buffers")
"""
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False, env=buffered
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_rich_is_reached_through_the_plain_console_alone() -> None:
    folder = Path(stepreward.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
    direct = [
        path.name
        for path, text in sources.items()
        if re.search(r"rich\.console import|rich import|\bConsole\(\)", text)
    ]
    assert direct == ["console.py"]
    columns = re.findall(r"TextColumn\((.*)\)", sources[folder / "cli" / "terminal" / "progress.py"])
    assert [column for column in columns if "markup=False" not in column] == ['"{task.fields[pace]}"']
