"""What programs say of the files of a repository: its tests, in the sandbox, and a linter's diagnostics.

The tests that count are those of the problem. Their functions run in one sandbox, and what they call of the repository
in another (`core.sandbox.programs`), so that no file can pass them by anything but its values.
"""

from __future__ import annotations

import ast
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stepreward.core.optional import require_installed
from stepreward.core.sandbox.isolated_items import answers_of
from stepreward.core.sandbox.isolation import SandboxLimits
from stepreward.core.sandbox.programs import Sandbox
from stepreward.environments.repositories import diagnostics_child

Files = Mapping[str, str]
Diagnostic = tuple[int, str]
"""A line, 0 for the whole file, and what is wrong there."""
SECONDS, MEMORY = 2.0, 1 << 30
KEPT = 4096
"""Results that are kept: forks of an episode come back to the same files."""
_PARSING = threading.Lock()
"""Held while Python is parsed: in CPython 3.11 parsers in several threads disturb each other (gh-106905)."""
_LOAD = """
import os, sys
_files = {files!r}
for _path, _text in _files.items():
    os.makedirs(os.path.dirname("/tmp/repository/" + _path), exist_ok=True)
    with open("/tmp/repository/" + _path, "w", encoding="utf-8", errors="surrogatepass") as _file:
        _file.write(_text)
sys.path.insert(0, "/tmp/repository")
{imports}
"""
_RUN = """
_failed = []
for _number, _name in enumerate({names!r}):
    try:
        globals()[_name]()
    except Exception as _error:
        _failed.append((_number, f"{{_name}}: {{type(_error).__name__}}: {{_error}}"))
if _failed:
    raise AssertionError(" ".join(str(_n) for _n, _ in _failed) + "|" + "\\n".join(_t[:90] for _, _t in _failed))
"""


@dataclass(frozen=True)
class TestResult:
    """What the tests say."""

    __test__ = False
    passed: int
    total: int
    told: str
    """Of the tests that failed, as far as there is room."""


class CheckedFiles:
    """Runs tests and a linter on files, each state of them once; may be used from any thread.

    Args:
        diagnostics: whether the linter runs, too.
        seconds: for all tests of a file.

    Raises:
        ModelError: there is no sandbox, or no linter, on this machine.
    """

    def __init__(self, *, diagnostics: bool = True, seconds: float = SECONDS) -> None:
        self.lints = diagnostics
        if diagnostics:
            require_installed("pyflakes")
        self._sandbox = Sandbox(SandboxLimits(seconds=seconds, memory=MEMORY))
        self._lock = threading.Lock()
        self._results: OrderedDict[tuple[str, ...], TestResult] = OrderedDict()
        self._found: OrderedDict[str, list[Diagnostic]] = OrderedDict()

    def tested(self, files: Files) -> TestResult:
        """The result of all files under `tests/`."""
        key = tuple(part for pair in sorted(files.items()) for part in pair)
        with self._lock:
            known = self._results.get(key)
        if known is None:
            known = self._run(files)
            with self._lock:
                self._results[key] = known
                while len(self._results) > KEPT:
                    self._results.popitem(last=False)
        return known

    def diagnostics(self, files: Files) -> dict[str, list[Diagnostic]]:
        """What the linter says of each Python file."""
        texts = {path: text for path, text in files.items() if path.endswith(".py")}
        with self._lock:
            unknown = [*dict.fromkeys(text for text in texts.values() if text not in self._found)]
        if unknown:
            made = answers_of(diagnostics_child.__file__, {"memory": MEMORY}, unknown, SECONDS, ("pyflakes",))
            with self._lock:
                for text, found in zip(unknown, made, strict=True):
                    given_up = [(0, "no diagnostics within the limits")]
                    self._found[text] = given_up if found is None else [(line, said) for line, said in found]
        with self._lock:
            found = {path: self._found[text] for path, text in texts.items()}
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
        return found

    def _run(self, files: Files) -> TestResult:
        passed, total, told = 0, 0, []
        for path, text in files.items():
            if not is_test(path):
                continue
            with _PARSING:
                imports, test, names = _parts(text, files)
            program = {other: one for other, one in files.items() if not is_test(other)}
            verdict = self._sandbox.test(_LOAD.format(files=program, imports=imports), test + _RUN.format(names=names))
            failed, _, said = verdict.why.removeprefix("AssertionError: ").partition("|")
            numbers = failed.split() if said else []
            total += len(names)
            passed += len(names) if verdict.passed else len(names) - len(numbers) if numbers else 0
            if not verdict.passed:
                told.append(said or f"no test of {path} was run: {verdict.why}")
        return TestResult(passed, total, "\n".join(told))


def is_test(path: str) -> bool:
    """Whether a file is one of the tests."""
    return path.startswith("tests/") and path.endswith(".py")


def _parts(text: str, files: Files) -> tuple[str, str, list[str]]:
    """The imports of a test from the repository, the rest of it, and the names of its functions.

    Raises:
        SyntaxError: it is no Python.
    """
    packages = {Path(path).parts[0].removesuffix(".py") for path in files}
    tree = ast.parse(text)
    own = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in packages
    ]
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    rest = ast.Module([node for node in tree.body if node not in own], [])
    return "\n".join(map(ast.unparse, own)), ast.unparse(rest) + "\n", names
