"""Trials that need no model: the store, grading, rewards by rule, and programs in sandboxes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from stepreward.cli.doctor.trials.known import RIGHT, SUM, expect
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.table import read_table, write_table
from stepreward.core.types import LABEL, Problem, Provenance, Step, Trajectory
from stepreward.credit.rules.call_rewards import well_formed
from stepreward.credit.rules.sql import partial_sql
from stepreward.tasks.mathematics import MathGrader
from stepreward.tasks.unit_tests import UnitTestGrader


def stores() -> str:
    """Grades and tables come back from disk as they were written."""
    with tempfile.TemporaryDirectory(dir=".", prefix=".doctor-") as folder:
        kept = Path(folder) / "answers.sqlite"
        with AnswerLog(kept) as answers:
            answers.put([("doctor", 0.5)])
        with AnswerLog(kept) as answers:
            expect(answers.get("doctor"), 0.5)
        row = Trajectory(SUM, (RIGHT,), columns={LABEL: np.array([1.0])}, provenance=(Provenance("doctor"),))
        path = Path(folder) / "labels.parquet"
        write_table(path, [row])
        (back,) = read_table(path)
    expect((back.text, back.labels.tolist()), (RIGHT.text, [1.0]))
    return "an answer and a table were written and read again"


def grades() -> str:
    """Of two answers one is equal to the reference."""
    grader, half = MathGrader(), Problem("doctor", "What is 1/2?", reference="0.5")
    expect([grader.grade(half, [Step(f"\\boxed{{\\frac{{1}}{{{n}}}}}")]) for n in (2, 3)], [1.0, 0.0])
    return "a right answer was accepted and a wrong one refused"


def rules() -> str:
    """Calls are checked against a JSON schema, and a query is parsed and run."""
    tool = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    calls = [Step(f'<tool_call>{{"name": "add", "arguments": {{"a": {a}}}}}</tool_call>') for a in ("1", '"one"')]
    expect(well_formed(Problem("doctor", "Add.", meta={"tools": [tool]}), calls).tolist(), [1.0, -1.0])
    query = "select a from t where a > 1"
    tables = {"database": ["create table t(a int)", "insert into t values (1), (2)"]}
    problem = Problem("doctor", "Which are more than 1?", reference=query, meta=tables)
    expect(partial_sql(problem, [Step(f"```sql\n{query}\n```")], engine="duckdb").tolist(), [6.0])
    return "tool calls were checked, a query was run"


def runs_programs() -> str:
    """Of two programs one passes the test, each in a sandbox."""
    grader, add = UnitTestGrader(), Problem("doctor", "Add.", meta={"tests": ["assert add(1, 2) == 3"]})
    expect([grader.grade(add, [Step(f"def add(a, b):\n    return a {sign} b\n")]) for sign in "+-"], [1.0, 0.0])
    return "a right program passed its test in a sandbox and a wrong one failed"
