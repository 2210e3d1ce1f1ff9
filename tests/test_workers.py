"""Tests in several workers: each is reported once, whatever becomes of its worker, and groups stay together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARKS = """
import os
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.name))
"""
DIES = """
import os
import pytest

def test_before(tmp_path): (tmp_path.parents[1] / "dies").write_text(str(os.getpid()))
def test_fails(): print("printed by the test"); assert 1 == 2
def test_dies(): os.kill(os.getpid(), 9)
def test_after(tmp_path): assert (tmp_path.parents[1] / "dies").read_text() != str(os.getpid())
def test_skips(): pytest.skip("for a reason")
"""
TOGETHER = """
import os

PROCESSES = set()

def test_one(): PROCESSES.add(os.getpid())
def test_two(capsys):
    print("seen")
    assert capsys.readouterr().out == "seen\\n"
    assert PROCESSES == {os.getpid()}
"""


def test_every_test_is_reported_once(tmp_path: Path) -> None:
    for name, text in {"conftest.py": MARKS, "test_dies.py": DIES, "test_together.py": TOGETHER}.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "tests.workers", "--workers", "2", str(tmp_path)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "temporary"), "-p", "no:cacheprovider"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1
    assert "2 failed, 4 passed, 1 skipped" in done.stdout, done.stdout
    assert "the worker died in this test with exit code -9" in done.stdout
    assert done.stdout.count("printed by the test") == 2, "in the source and in what was captured"
    assert re.findall(r"FAILED .*::(\w+)", done.stdout) == ["test_fails", "test_dies"]
