"""Diagnostics of Python files by pyflakes, in a process of its own: a text of a stranger may end its parser.

    python -I diagnostics_child.py < job.json

This file imports nothing of the package, so that it starts in no time.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import sys
from typing import Any


def main() -> None:
    """Reads a job, and answers each item, a text, with its diagnostics as pairs of a line and what is wrong there."""
    checker, resource = importlib.import_module("pyflakes.checker"), importlib.import_module("resource")
    job = json.load(sys.stdin)
    if user := job.get("user"):
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    print("ready", flush=True)
    for text in job["items"]:
        print(json.dumps(_found(checker, text)), flush=True)


def _found(checker: Any, text: str) -> list[tuple[int, str]]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return [(error.lineno or 0, f"syntax error: {error.msg}")]
    except (ValueError, RecursionError, MemoryError) as error:
        return [(0, f"it cannot be read: {error}")]
    try:
        found = checker.Checker(tree, "module.py").messages
    except RecursionError:
        return [(0, "it is nested too deeply")]
    return sorted((one.lineno, one.message % one.message_args) for one in found)


if __name__ == "__main__":
    main()
