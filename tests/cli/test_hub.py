"""Models by their names on a hub: fetched once, without code or second copies; what is wrong is one line."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepreward.policies.model_sources import resolve
from tests.cli.running import trl_model
from tests.forked import command
from tests.hub import serving

SEARCH = (
    "search --problems problems.jsonl --grader arithmetic --method majority --set n=2 --policy {} --out found.jsonl"
)
SCORE = "score --data rows.jsonl --model owner/trl --like trl-prm"
TRAIN = "train --data rows.jsonl --backbone owner/policy --out model --epochs 1 --held-out 0"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(resolve("builtin:arithmetic"), folder / "owner/policy")
    trl_model(folder / "owner/trl")
    for name in ("policy", "trl"):
        (folder / "owner" / name / "modeling_own.py").write_text("raise SystemExit('code of a model was run')\n")
    (folder / "owner/policy/consolidated.safetensors").write_bytes(b"a second copy of the weights")
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    problem = "Kai has 10 nuts. Kai finds 1 more nuts. How many nuts does Kai have now?"
    (tmp_path / "problems.jsonl").write_text(json.dumps({"prompt": problem, "reference": "11"}) + "\n")
    row = {"prompt": problem, "completions": ["10 + 1 = 11", "Answer: 12"], "labels": [True, False]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


@pytest.fixture(scope="module")
def hub(models: Path) -> Iterator[tuple[str, list[str]]]:
    with serving(models) as served:
        yield served


SETTINGS_AGAIN = """
import importlib, os
import huggingface_hub.constants
importlib.reload(huggingface_hub.constants)
assert huggingface_hub.constants.ENDPOINT == os.environ["HF_ENDPOINT"]
"""
"""The library reads its environment when it is loaded, which a forked process finds done."""


def settings(folder: Path, endpoint: str) -> dict[str, str]:
    """Environment variables of a user whose hub is at `endpoint`."""
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"}


def run(line: str, folder: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    return command(line, folder, SETTINGS_AGAIN, environment=settings(folder, endpoint))


def run_cold(line: str, folder: Path, endpoint: str, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """The same in a fresh interpreter, where a download may show its progress."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    return subprocess.run(
        [sys.executable, "-m", "stepreward", *shlex.split(line)], cwd=folder, stdout=subprocess.PIPE, stderr=stderr,
        env=environment | settings(folder, endpoint), text=True, check=False,
    )  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize("line", [SEARCH.format("owner/policy"), SCORE, TRAIN])
def test_a_model_of_the_hub_is_fetched_once(line: str, work: Path, hub: tuple[str, list[str]]) -> None:
    endpoint, sent = hub
    sent.clear()
    done = (run_cold if line == SCORE else run)(line, work, endpoint)
    assert done.returncode == 0, done.stderr
    assert sent.count(WEIGHTS) == 1
    assert not [name for name in sent if name.endswith(".py") or name.startswith("consolidated")]
    shutil.rmtree(work / "model", ignore_errors=True)
    again = run(line, work, endpoint)
    assert again.returncode == 0, again.stderr
    assert sent.count(WEIGHTS) == 1
    assert "%|" not in done.stderr, "a bar in a file of messages"


@pytest.mark.parametrize("line", [SEARCH.format("owner/none"), SCORE.replace("owner/trl", "owner/none")])
def test_an_unknown_name_is_one_line(line: str, work: Path, hub: tuple[str, list[str]]) -> None:
    done = run(line, work, hub[0])
    assert done.returncode == 1
    assert done.stderr.startswith("stepreward: the hub has no 'owner/none', or shows it to its members alone")
    assert done.stderr.count("\n") == 1


def test_without_a_network_the_cache_serves_and_else_one_line_says_so(work: Path, hub: tuple[str, list[str]]) -> None:
    nowhere = "http://127.0.0.1:9"
    done = run(SEARCH.format("owner/policy"), work, nowhere)
    assert done.returncode == 1
    assert done.stderr.startswith("stepreward: cannot fetch 'owner/policy' from the hub: ")
    assert done.stderr.count("\n") == 1
    assert run(SEARCH.format("owner/policy"), work, hub[0]).returncode == 0
    (work / "found.jsonl").unlink()
    assert run(SEARCH.format("owner/policy"), work, nowhere).returncode == 0


def test_a_download_shows_its_progress_on_a_terminal(work: Path, hub: tuple[str, list[str]]) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    try:
        done = run_cold(SCORE, work, hub[0], stderr=theirs)
        said = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, said
    assert "Fetching" in said
    assert "100%" in said
