"""SIGTERM ends every long command, says that it may be run again, and what was paid for is still there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stepreward.tasks.arithmetic import generate
from tests.cli.running import trl_model

LONG = {
    "label": ("label --problems p.jsonl --grader arithmetic --samples 8 --rollouts 8 --out lab", "lab/samples.sqlite"),
    "search": ("search --problems p.jsonl --grader arithmetic --model tool --out o.jsonl", "o.jsonl.answers.sqlite"),
    "run": ("run --out r", "r/answers.sqlite"),
    "train": ("train --data labels.jsonl --epochs 4000 --out trained", "trained"),
    "score": ("score --model prm --like trl-prm --data rows.jsonl", "rows.jsonl"),
}


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
    program = "import sys; from stepreward.cli.app import main; sys.argv[0] = 'stepreward'; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *line.split()], cwd=tmp_path, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as running:  # fmt: skip
        end = time.monotonic() + 120
        while not (tmp_path / sign).exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1.0 if name != "score" else 8.0)
        assert running.poll() is None, running.stderr.read() if running.stderr else ""
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=30)
    assert running.returncode == 128 + signal.SIGTERM, said
    resume = "" if name == "score" else "; run the same command again to resume"
    assert f"stepreward: interrupted{resume}\n" in said
    assert "Traceback" not in said
