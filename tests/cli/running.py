"""Runs command lines in this process, as a user would write them."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer
from typer.testing import CliRunner

from stepreward.cli.app import app, main
from stepreward.cli.commands import command_of
from stepreward.policies.model_sources import resolve

FAST = {
    "label": "--samples 4 --set n=4",
    "train": "--epochs 1 --batch-tokens 1024 --held-out 0.3",
    "search": "--set beams=2 --set width=2",
    "evaluate": "--threshold 0.5",
}


def example(command: str) -> str:
    """The documented example of a command."""
    documented = inspect.getdoc(command_of(command).callback) or ""
    found = re.search(r"^Example: stepreward (.*)$", documented, re.MULTILINE)
    assert found, f"{command} has no example"
    return found[1]


def trl_model(folder: Path) -> None:
    """Writes a small random model in the layout of TRL's PRMTrainer."""
    torch.manual_seed(0)
    small = resolve("builtin:arithmetic")
    model = AutoModelForTokenClassification.from_config(AutoConfig.from_pretrained(small, num_labels=2))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(small).save_pretrained(folder)


def invoke(line: str, status: int = 0) -> str:
    """Runs a command line in this process; what it printed."""
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == status, (line, done.output, done.exception)
    return done.stdout


def solved(path: Path) -> list[dict[str, Any]]:
    """What a search wrote, a problem each: the row of its chosen candidate with the facts, and all in `candidates`."""
    problems: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        problems.setdefault(row["problem"], []).append({**row, **json.loads(row["facts"])})
    return [{**next((r for r in rows if r["chosen"]), rows[0]), "candidates": rows} for rows in problems.values()]


def run_command(words: list[str]) -> None:
    """The command line of a process of its own."""
    sys.argv[:] = ["stepreward", *words]
    main()


def refused(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a command line that must fail; its one line of error."""
    monkeypatch.setattr(sys, "argv", ["stepreward", *shlex.split(line)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0, said
    return said
