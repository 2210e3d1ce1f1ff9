"""Checks a model's tool calls against JSON schemas, in a process of its own: patterns and sets may take for ever.

    python -I calls_child.py < job.json

This file imports nothing of the package, so that it starts in no time.
"""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    """Reads a job, and answers each item `[tool, arguments]` with true or false."""
    jsonschema, referencing = importlib.import_module("jsonschema"), importlib.import_module("referencing")
    resource = importlib.import_module("resource")
    job = json.load(sys.stdin)
    if user := job.get("user"):
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    registry = referencing.Registry()
    checks = {k: jsonschema.Draft202012Validator(s, registry=registry) for k, s in job["schemas"].items()}
    print("ready", flush=True)
    for name, arguments in job["items"]:
        try:
            valid = bool(checks[name].is_valid(arguments))
        except Exception:  # The boundary: a call that cannot be checked is not well formed.
            valid = False
        print(json.dumps(valid), flush=True)


if __name__ == "__main__":
    main()
