"""SIGTERM ends every long command, says that it may be run again, and what was paid for is still there."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from stepreward.tasks.arithmetic import generate
from tests.cli.running import trl_model
from tests.forked import COMMAND, begun, ended

LONG = {
    "label": ("label --problems p.jsonl --grader arithmetic --samples 8 --rollouts 8 --out lab", "lab/samples.sqlite"),
    "search": ("search --problems p.jsonl --grader arithmetic --model tool --out o.jsonl", "o.jsonl.answers.sqlite"),
    "run": ("run --out r", "r/answers.sqlite"),
    "train": ("train --data labels.jsonl --epochs 4000 --out trained", "trained/unfinished"),
    "score": ("score --model prm --like trl-prm --data rows.jsonl", "log/out"),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", LONG)
def test_a_long_command_is_interrupted(name: str, tmp_path: Path) -> None:
    problems = list(generate("train", 400, seed=1))
    rows = [{"id": p.id, "prompt": p.text, "reference": p.reference} for p in problems]
    steps = [{"prompt": p.text, "completions": ["1 + 1 = 2\n", "2\n"], "labels": [True, i % 2 == 0]}
             for i, p in enumerate(problems)]  # fmt: skip
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    many = [{"problem": p.text, "steps": ["1 + 1 = 2\n"] * 30} for p in problems] * 20
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    if name == "score":
        trl_model(tmp_path / "prm")
    line, sign = LONG[name]
    (tmp_path / "program.py").write_text(COMMAND.format(before=""))
    running = begun(tmp_path / "program.py", tmp_path, tmp_path / "log", words=line.split())
    end = time.monotonic() + 120
    while not written(tmp_path / sign) and time.monotonic() < end:
        assert running.is_alive(), (tmp_path / "log" / "err").read_text()
        time.sleep(0.05)
    assert running.pid is not None
    os.kill(running.pid, signal.SIGTERM)
    done = ended(running, tmp_path / "log", 30)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    resume = "" if name == "score" else "; run the same command again to resume"
    assert f"stepreward: interrupted{resume}\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert written(tmp_path / sign), "what was paid for is lost"


def written(path: Path) -> bool:
    """Whether a file has content, in a log itself or in what is not yet merged into it, or a folder is there."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return path.is_dir() or any(file.exists() and file.stat().st_size > 0 for file in files)
