"""Grading of programs by the tests of their problem, in sandboxes: HumanEval, MBPP, APPS and layouts made after them.

Nothing of a program, and nothing of a test, runs in this process. A program that fails, is ended at a limit or cannot
be read is wrong; where the tests cannot be read, or say nothing, the grade is NaN.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from stepreward.core.program_text import program_of
from stepreward.core.sandbox.isolation import SandboxLimits
from stepreward.core.sandbox.programs import ProgramVerdict, Sandbox
from stepreward.core.types import Problem, Step

_LONGEST = 100_000
"""Characters of a program; a longer text is no program."""
_CALLS = """
import json
def plain(value):
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value
for given, wanted in json.loads({cases!r}):
    call = getattr(Solution(), {name!r}) if "Solution" in globals() else {name}
    found = plain(call(*given))
    assert found == wanted or [found] == wanted, "a wrong result"
"""
"""A test that calls a function, or a method of the class `Solution`, with each list of arguments."""


@dataclass(frozen=True)
class UnitTests:
    """What a program must do: pass a test, or write an output for each input; one of the two is empty."""

    code: str = ""
    """Calls the program's functions by their names, or as `candidate` in its function `check`."""
    entry: str = ""
    """Name of the function that is `candidate`."""
    inputs: tuple[str, ...] = ()
    """Standard input of each run."""
    outputs: tuple[str, ...] = ()
    """What each run must write."""


def unit_tests_of(problem: Problem) -> UnitTests | None:
    """The tests in a problem's `meta`, or in its reference where that is an object of JSON; None where there are none.

    Read are `test` with `entry_point` (HumanEval), `test_list` with `test_imports` or `test_setup_code` (MBPP),
    `input_output` (APPS, TACO), lists of `input` and `output` (LiveCodeBench, CodeContests) and `tests`, which holds
    one of these or is a list of assertions.
    """
    meta: dict[str, Any] = {**problem.meta}
    if problem.reference is not None and problem.reference.lstrip().startswith(("{", "[")):
        meta["tests"] = meta.get("tests", problem.reference)
    name = str(meta.get("entry_point") or meta.get("fn_name") or "")
    if isinstance(meta.get("test"), str) and meta["test"].strip():
        return UnitTests(meta["test"], name)
    if _texts(meta.get("test_list")):
        before = meta.get("test_imports") or [meta.get("test_setup_code") or ""]
        return UnitTests("\n".join([*map(str, before), *meta["test_list"]]))
    lists = [_object(meta.get(part)) for part in ("public_test_cases", "private_test_cases", "generated_tests")]
    cases = [case for one in lists for case in _cases(one)]
    if cases:
        nested = _object(meta.get("metadata"))
        name = name or str(nested.get("func_name") or "") if isinstance(nested, Mapping) else name
        return _of_cases(cases, name)
    for part in ("input_output", "tests", "test_cases"):
        found = _object(meta.get(part))
        if _texts(found):
            return UnitTests("\n".join(found), name)
        if isinstance(found, Mapping):
            name = str(found.get("fn_name") or name)
        if _cases(found):
            return _of_cases(_cases(found), name)
    return None


class UnitTestGrader:
    """Grades a program 1 if it passes all tests of its problem, else 0; may be used from any thread.

    Args:
        limits: of one program; 5 seconds and 1 GiB where none are given.

    Raises:
        ModelError: at the first grade: there is no sandbox on this machine.
    """

    # The number goes up with every change of a grade: logs of answers and step labels are keyed by this name.
    name = "unit-tests-1"

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self._limits, self._lock = limits or SandboxLimits(), threading.Lock()
        self._sandbox: Sandbox | None = None

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1.0 or 0.0; NaN if the problem has no tests, or they cannot be run."""
        passed = self.verdict(problem, steps).passed
        return float("nan") if passed is None else float(passed)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The program, as it was written; None if there is none."""
        return _program(problem, steps).strip() or None

    def verdict(self, problem: Problem, steps: Sequence[Step]) -> ProgramVerdict:
        """Whether the program passes, and why not."""
        tests, code = unit_tests_of(problem), _program(problem, steps)
        if tests is None:
            return ProgramVerdict(None, "the problem has no tests")
        if not code.strip():
            return ProgramVerdict(False, "there is no program")
        if len(code) > _LONGEST:
            return ProgramVerdict(False, f"a program of more than {_LONGEST} characters")
        with self._lock:
            sandbox = self._sandbox = self._sandbox or Sandbox(self._limits)
        if tests.code:
            return sandbox.test(code, tests.code, tests.entry)
        made = sandbox.outputs(code, tests.inputs)
        for at, (found, wanted) in enumerate(zip(made, tests.outputs, strict=True)):
            if found.status != 0:
                return ProgramVerdict(False, f"test {at}: {found.why or f'it ended with status {found.status}'}")
            if not same_output(found.text, wanted):
                return ProgramVerdict(False, f"test {at}: another output")
        return ProgramVerdict(True)


def same_output(found: str, wanted: str) -> bool:
    """Whether two outputs have the same words, where numbers are equal by value."""
    one, other = found.split(), wanted.split()
    return len(one) == len(other) and all(a == b or _equal_numbers(a, b) for a, b in zip(one, other, strict=True))


def _equal_numbers(one: str, other: str) -> bool:
    try:
        return max(len(one), len(other)) < 400 and Decimal(one) == Decimal(other)
    except InvalidOperation:
        return False


def _program(problem: Problem, steps: Sequence[Step]) -> str:
    return program_of(problem, "".join(step.text for step in steps if step.kind == "action"))


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and "assert" in one for one in value)


def _object(value: object) -> Any:
    """The value, or what it is the JSON of; None for other text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _cases(value: object) -> list[tuple[Any, Any]]:
    """Pairs of input and output, out of two lists or a list of pairs; empty where it is neither."""
    if isinstance(value, Mapping):
        names = next((two for two in (("inputs", "outputs"), ("input", "output")) if {*two} <= value.keys()), None)
        lists = [value[name] for name in names] if names else []
        if len(lists) == 2 and all(isinstance(one, list) for one in lists) and len(lists[0]) == len(lists[1]):
            return [*zip(*lists, strict=True)]
    if isinstance(value, list) and all(isinstance(one, Mapping) and {"input", "output"} <= one.keys() for one in value):
        return [(one["input"], one["output"]) for one in value]
    return []


def _of_cases(cases: list[tuple[Any, Any]], name: str) -> UnitTests | None:
    """Tests of a function by its name, or of a whole program without one; None where a case is of another kind."""
    if name:
        calls = [(_arguments(given), _object(out) if isinstance(out, str) else out) for given, out in cases]
        return UnitTests(_CALLS.format(cases=json.dumps(calls), name=name)) if name.isidentifier() else None
    texts = [tuple("\n".join(map(str, one)) if isinstance(one, list) else one for one in case) for case in cases]
    if not all(isinstance(one, str) for case in texts for one in case):
        return None
    return UnitTests(inputs=tuple(one for one, _ in texts), outputs=tuple(one for _, one in texts))


def _arguments(given: object) -> list[Any]:
    """The arguments of a call: a list, or a line of JSON for each."""
    if isinstance(given, str):
        return [_object(line) for line in given.splitlines()]
    return given if isinstance(given, list) else [given]
