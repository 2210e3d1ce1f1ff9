"""Programs graded by the tests of their problem: every layout, what is no program, and public data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.sandboxed import needs_sandbox

from stepreward.core.program_text import program_of
from stepreward.core.sandbox.isolation import SandboxLimits
from stepreward.core.types import Problem, Step
from stepreward.formats.problems import problem_of
from stepreward.tasks.graders import grader_by_name
from stepreward.tasks.unit_tests import UnitTestGrader, same_output, unit_tests_of

pytestmark = needs_sandbox
ADD = 'from typing import List\n\ndef add(a: int, b: int) -> int:\n    """ Adds.\n    """\n'
HUMAN_EVAL = {
    "task_id": "HumanEval/0", "prompt": ADD, "entry_point": "add", "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n",
}  # fmt: skip
MBPP = {"task_id": 2, "text": "Write a function to add.", "prompt": "Write a function to add.",
        "test_list": ["assert add(1, 2) == 3", "assert math.isclose(add(-1, 1), 0)"],
        "test_imports": ["import math"]}  # fmt: skip
CALLS = {"fn_name": "add", "inputs": [[1, 2], [-1, 1]], "outputs": [3, 0]}
WORDS = {"inputs": ["1 2\n", "-1 1\n"], "outputs": ["3\n", "0\n"]}
PROGRAM = "a, b = map(int, input().split())\nprint(a {} b)\n"
METHOD = "class Solution:\n    def add(self, a, b):\n        return a {} b\n"
FUNCTION = "def add(a, b):\n    return a {} b\n"
LIVE_CASES = [{"input": "1\n2", "output": "3", "testtype": "functional"}]
LIVE = {"question_id": "1", "question": "Add.", "public_test_cases": json.dumps(LIVE_CASES),
        "metadata": json.dumps({"func_name": "add"})}  # fmt: skip
CONTEST = {"name": "x", "prompt": "Add.", "public_test_cases": [{"input": "1 2", "output": "3"}],
           "private_test_cases": [{"input": "-1 1", "output": "0"}]}  # fmt: skip


@pytest.fixture(scope="module")
def grader() -> UnitTestGrader:
    return UnitTestGrader(SandboxLimits(seconds=2))


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (HUMAN_EVAL, "    return a {} b\n"),
        (HUMAN_EVAL, f"Here it is:\n```python\n{FUNCTION}```\nIt adds."),
        (MBPP, FUNCTION),
        ({"question": "Add.", "input_output": json.dumps(CALLS)}, FUNCTION),
        ({"question": "Add.", "input_output": CALLS}, METHOD),
        ({"question": "Add.", "input_output": json.dumps(WORDS)}, PROGRAM),
        ({"prompt": "Add.", "ground_truth": json.dumps(WORDS)}, f"```python\n{PROGRAM}```"),
        ({"prompt": "Add.", "tests": ["assert add(1, 2) == 3"]}, FUNCTION),
        ({"prompt": "Add.", "tests": [{"input": "1 2", "output": "3"}]}, PROGRAM),
        (LIVE, METHOD),
        (CONTEST, PROGRAM),
    ],
)
def test_every_layout_is_read_and_grades(row: dict[str, Any], code: str, grader: UnitTestGrader) -> None:
    problem = problem_of(row, 1)
    assert problem.gradable
    assert grader.grade(problem, [Step(code.format("+"))]) == 1.0
    assert grader.grade(problem, [Step(code.format("-"))]) == 0.0
    # Steps are joined; what a tool said between them is no part of the program.
    lines = [Step(line) for line in code.format("+").splitlines(keepends=True)]
    assert grader.grade(problem, [*lines[:1], Step("no code", "observation"), *lines[1:]]) == 1.0


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"test": " "},
        {"test_list": []},
        {"tests": "no JSON"},
        {"tests": [3]},
        {"input_output": {"inputs": ["1"], "outputs": []}},
        {"input_output": {"inputs": [1], "outputs": ["1"]}},
        {"input_output": {"inputs": [[1]], "outputs": [1], "fn_name": "no name"}},
    ],
)
def test_without_tests_the_grade_is_unknown(meta: dict[str, Any], grader: UnitTestGrader) -> None:
    problem = Problem("p", "Add.", meta=meta)
    assert unit_tests_of(problem) is None
    assert grader.grade(problem, [Step(FUNCTION)]) != grader.grade(problem, [Step(FUNCTION)])


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("", "there is no program"),
        ("I do not know.", "SyntaxError"),
        ("def add(a, b):\n    while True: pass\n", "more than 2 s"),
        ("x" * 200_000, "more than 100000 characters"),
    ],
)
def test_what_is_no_right_program_is_wrong(code: str, why: str, grader: UnitTestGrader) -> None:
    verdict = grader.verdict(problem_of(MBPP, 1), [Step(code)] if code else [])
    assert verdict.passed is False
    assert why in verdict.why


def test_a_program_that_fails_a_run_says_which(grader: UnitTestGrader) -> None:
    problem = problem_of({"prompt": "Add.", "tests": WORDS}, 1)
    for code, why in (
        (PROGRAM.format("-"), "test 0: another output"),
        ("import sys\nif input() == '1 2': print(3)\nelse: sys.exit(3)", "test 1: it ended with status 3"),
        ("if input() == '1 2': print(3)\nwhile True: pass", "test 0: a limit of time or memory"),
    ):
        assert grader.verdict(problem, [Step(code)]).why == why


def test_a_test_that_cannot_be_sent_grades_nothing(grader: UnitTestGrader) -> None:
    problem = Problem("p", "Call.", meta={"tests": ["assert call(lambda: 3) == 3"]})
    verdict = grader.verdict(problem, [Step("def call(one):\n    return one()\n")])
    assert (verdict.passed, verdict.why) == (None, "a value of type function cannot be sent to the program")


def test_the_last_block_is_the_program() -> None:
    problem = problem_of(HUMAN_EVAL, 1)
    assert program_of(problem, "    return 1\n") == ADD + "    return 1\n"
    text = "```python\nfirst\n```\nthen\n```py\ndef add(a, b):\n    return 2\n```"
    assert program_of(problem, text) == "from typing import List\n\n\ndef add(a, b):\n    return 2"
    assert program_of(Problem("p", "Add."), "```\nx = 1\n```") == "x = 1"
    assert program_of(Problem("p", "Add."), "a cut block: ```python\nx = 1") == "x = 1"


def test_outputs_are_equal_by_words_and_numbers() -> None:
    assert same_output("1 2\n\n", "1  2")
    assert same_output("0.50 yes", "0.5 yes")
    assert not same_output("1 2", "12")
    assert not same_output("1", "1 1")
    assert not same_output("Yes", "yes")
    assert not same_output("1e400000000", "2")


def test_the_grader_has_a_name() -> None:
    assert grader_by_name("unit-tests").answer(problem_of(MBPP, 1), [Step(" f\n")]) == "f"
