"""The public face: every name, light to import, and each verb with a path, an address and an object."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepreward
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.scripted import ScriptedPolicy

NAMES = {
    "Problem", "Provenance", "Step", "Trajectory", "StepTree", "Key", "load", "read", "write", "search", "credit",
    "serve", "policy", "grader", "methods", "view", "compose", "testing",
}  # fmt: skip
PROBLEM = Problem("p", "Mia has 12 apples and buys 5 more. How many?", reference="17")
RIGHT = Trajectory(PROBLEM, (Step("12 + 5 = 17\n"), Step("Answer: 17")))
WRONG = Trajectory(PROBLEM, (Step("12 + 5 = 16\n"), Step("Answer: 16")))


def test_every_name_is_public_and_listed() -> None:
    assert set(stepreward.__all__) == NAMES
    assert set(dir(stepreward)) >= NAMES
    for name in sorted(NAMES):
        assert callable(getattr(stepreward, name)) or name in ("methods", "testing"), name
    with pytest.raises(AttributeError, match="nothing"):
        _ = stepreward.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "code",
    [
        "import stepreward; dir(stepreward)",
        'import stepreward; assert stepreward.load("tool").score("?", ["1 + 1 = 3"]).tolist() == [0]',
        "import stepreward; stepreward.methods['credit']['pure']",
        "from stepreward import search, credit, read, write, policy, grader, view",
    ],
)
def test_what_needs_no_model_loads_no_torch(code: str) -> None:
    code += "; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


@pytest.mark.parametrize("first", ["import stepreward.credit.verify", "import stepreward.verbs.credit", "pass"])
def test_a_verb_can_be_called_whichever_way_its_folder_was_imported(first: str) -> None:
    code = (
        f"import stepreward; {first}\n"
        "from stepreward.credit.verify import OBJECTIVES\n"
        "from stepreward import credit\n"
        "made = credit('rloo', outcome=[1.0, 0.0], group=[0, 0], offsets=[0, 2, 3])\n"
        "assert list(made) == [1, 1, -1]\n"
        "assert stepreward.credit is credit and stepreward.credit.verify.OBJECTIVES is OBJECTIVES\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_what_is_read_is_written_as_the_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"schema": "stepreward/trajectories/1", "prompt": "1 + 1?", "steps": [{"text": "1 + 1 = 2"}]}) + "\n"
    )
    assert stepreward.write(tmp_path / "table.parquet", stepreward.read(path)) == []
    (again,) = stepreward.read(tmp_path / "table.parquet")
    assert [step.text for step in getattr(again, "trajectory", again).steps] == ["1 + 1 = 2"]


def script(question: Propose, i: int) -> Any:
    """After a wrong sum the policy never recovers, after a right one it always ends well."""
    wrong = i % 2 if not question.prefix else "16" in question.prefix[0].text
    lines = ("12 + 5 = 16\n", "Answer: 16") if wrong else ("12 + 5 = 17\n", "Answer: 17")
    return Continuation(tuple(map(Step, lines[len(question.prefix) :])), True, 2)


def test_search_takes_names_and_objects(tmp_path: Path) -> None:
    policy = ScriptedPolicy(script)
    (one,) = stepreward.search(PROBLEM, policy=policy, scorer="tool", grader="arithmetic", method="best-of-n", budget=4)
    assert (one.answer, one.outcome, one.bill.proposals) == ("17", 1.0, 4)
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"prompt": PROBLEM.prompt, "reference": "17"}) + "\n")
    (other,) = stepreward.search(path, policy=policy, grader=stepreward.grader("arithmetic"), n=3)
    assert other.answer == "17"
    with pytest.raises(InputError, match="occur twice"):
        stepreward.search([PROBLEM, PROBLEM], policy=policy)


def test_credit_takes_data_and_settings_by_name() -> None:
    # One group of two with outcomes 1 and 0: leave-one-out baselines are 0 and 1.
    made = stepreward.credit("rloo", outcome=[1.0, 0.0], group=[0, 0], offsets=[0, 2, 3])
    assert np.asarray(made).tolist() == [1, 1, -1]
    with pytest.raises(UnknownNameError, match="temprature"):
        stepreward.credit("grpo", outcome=[0.5], group=[0], offsets=[0, 1], temprature=1.0)


def test_policies_and_graders_pass_through() -> None:
    policy = ScriptedPolicy(script)
    assert stepreward.policy(policy) is policy
    grader = stepreward.grader("arithmetic")
    assert (grader.name, stepreward.grader(grader)) == ("arithmetic", grader)
    assert stepreward.policy("builtin:arithmetic", max_tokens=7).max_tokens == 7  # type: ignore[attr-defined]
    with pytest.raises(UnknownNameError, match="warmth"):
        stepreward.policy("builtin:arithmetic", warmth=1)


def test_view_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no report"):
        stepreward.view(tmp_path)
    (tmp_path / "report.html").write_text("")
    assert stepreward.view(tmp_path).startswith("file://")
