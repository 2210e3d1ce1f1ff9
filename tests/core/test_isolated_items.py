"""Scripts over untrusted items: the same answers in a sandbox and without one, and nothing in reach in a sandbox."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from tests.sandboxed import needs_sandbox

from stepreward.core.errors import InputError, ModelError
from stepreward.core.sandbox import isolated_items
from stepreward.core.sandbox.isolated_items import answers_of, is_isolated

SCRIPT = """
import json, os, sys, time
job = json.load(sys.stdin)
if user := job.get("user"):
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
if job.get("broken"):
    raise ValueError("a bolt is loose")
print("ready", flush=True)
for item in job["items"]:
    made = None
    if item == "sleep":
        time.sleep(60)
    elif item == "die":
        os._exit(1)
    elif item == "root":
        made = os.getuid() == 0
    elif isinstance(item, str):
        try:
            made = open(item).read()
        except OSError as error:
            made = type(error).__name__
    else:
        made = item * job["times"]
    print(json.dumps(made), flush=True)
"""
BOTH = pytest.mark.parametrize("sandbox", [pytest.param(True, marks=needs_sandbox), False], ids=["sandbox", "plain"])


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return str(path)


def choose(monkeypatch: pytest.MonkeyPatch, sandbox: bool) -> None:
    if not sandbox:
        monkeypatch.setattr(isolated_items, "is_isolated", lambda: False)


@BOTH
def test_each_item_has_an_answer_and_one_that_ends_the_process_costs_no_other(
    sandbox: bool, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, sandbox)
    begun = time.monotonic()
    assert answers_of(script, {"times": 2}, [1, "sleep", 2, "die", [3]], 0.3) == [2, None, 4, None, [3, 3]]
    assert time.monotonic() - begun < 30
    with pytest.raises(InputError, match="ValueError: a bolt is loose"):
        answers_of(script, {"broken": True}, [1], 0.3)


@needs_sandbox
def test_in_a_sandbox_no_file_is_in_reach_and_nobody_is_root(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_isolated()
    there: Any = str(Path(__file__).resolve())
    assert answers_of(script, {}, [there, "/etc/passwd", "root"], 1.0) == ["FileNotFoundError"] * 2 + [False]
    choose(monkeypatch, False)
    assert answers_of(script, {}, [there, "root"], 1.0) == [Path(there).read_text(), os.getuid() == 0]


def test_where_there_is_no_sandbox_scripts_run_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ModelError("no bubblewrap")

    is_isolated.cache_clear()
    monkeypatch.setattr(isolated_items, "refuse_unless_isolated", refuse)
    assert not is_isolated()
    is_isolated.cache_clear()
