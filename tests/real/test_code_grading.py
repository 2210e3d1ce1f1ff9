"""Programs of the public samples of HumanEval, graded in sandboxes as plain execution grades them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.sandboxed import needs_sandbox

from stepreward.core.program_text import program_of
from stepreward.core.sandbox.isolation import SandboxLimits
from stepreward.core.sandbox.programs import Sandbox
from stepreward.core.types import Step
from stepreward.formats.problems import problem_of
from stepreward.tasks.unit_tests import UnitTestGrader

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "humaneval_samples"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.exists(), reason="needs the real data"),
    needs_sandbox,
]


def rows(every: int) -> list[dict[str, Any]]:
    with gzip.open(DATA / "humaneval_codegen16b_100.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file][::every]


def test_public_solutions_pass_their_tests() -> None:
    grader = UnitTestGrader()
    for row in rows(8):
        verdict = grader.verdict(problem_of(row, 1), [Step(row["canonical_solution"])])
        assert verdict.passed, (row["task_id"], verdict.why)


def test_samples_pass_where_plain_execution_passes() -> None:
    sandbox, passed = Sandbox(SandboxLimits(seconds=3)), []
    for row in rows(11):
        problem = problem_of(row, 1)
        for sample in row["samples"][:3]:
            code = program_of(problem, sample)
            whole = f"{code}\n{row['test']}\ncheck({row['entry_point']})\n"
            (plain,) = sandbox.outputs(whole, [""])
            passed.append(sandbox.test(code, row["test"], row["entry_point"]).passed)
            assert passed[-1] is (plain.status == 0), (row["task_id"], sample)
    assert {*passed} == {True, False}
