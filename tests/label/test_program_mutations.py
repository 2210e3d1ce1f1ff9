"""Changed programs and their labels: the identities of the notes, places in any text, and public programs."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.running import invoke
from tests.sandboxed import needs_sandbox

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.table import read_table
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.label.omega import tree_labels
from stepreward.label.planted.program_mutations import changed_steps, changes, program_mutations

ADD = {"entry_point": "add", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"}
PROGRAM = ("def add(a, b):\n", "    total = a + b\n", "    return total\n")


class Executed:
    """Grades programs of these tests, which are known, without a sandbox."""

    name = "executed"

    def __init__(self, *cases: tuple[int, int, int]) -> None:
        self.cases = cases

    def grade(self, problem: Problem, steps: tuple[Step, ...]) -> float:
        space: dict[str, object] = {}
        try:
            exec("".join(step.text for step in steps), space)
            return float(all(space["add"](a, b) == c for a, b, c in self.cases))  # type: ignore[operator]
        except Exception:
            return 0.0

    def answer(self, problem: Problem, steps: tuple[Step, ...]) -> str | None:
        return None


def labelled(program: tuple[str, ...], outcome: float, grader: Executed, **settings: object) -> StepTree:
    one = Trajectory(Problem("p", "Add.", meta=ADD), tuple(map(Step, program)), outcome)
    (made,) = Driver(grader=grader).run([program_mutations(one, Key.seed(3), n=20, **settings)])  # type: ignore[arg-type]
    return made.result


def labels(tree: StepTree) -> dict[str, float]:
    """The label of every step by its text, of the first node that has one."""
    found: dict[str, float] = {}
    for node in range(1, tree.n):
        text, value = tree.steps[tree.step_id[node]].text, float(tree.column("value")[node])
        if np.isnan(found.setdefault(text, value)):
            found[text] = value
    return found


def test_a_change_that_fails_is_wrong_and_what_passes_is_unknown() -> None:
    found = labels(labelled(PROGRAM, 1.0, Executed((1, 2, 3))))
    assert [found[line] for line in PROGRAM] == [1, 1, 1]
    assert found["    total = a - b\n"] == 0
    assert found["    return None\n"] == 0
    weak = labels(labelled(PROGRAM, 1.0, Executed((0, 0, 0))))
    assert np.isnan(weak["    total = a - b\n"])
    assert labels(labelled(PROGRAM, 1.0, Executed((0, 0, 0)), passing="right"))["    total = a - b\n"] == 1


def test_prefixes_are_shared_and_what_follows_a_change_has_no_label() -> None:
    tree = labelled(PROGRAM, 1.0, Executed((1, 2, 3)))
    rows = {row.text: row.labels.tolist() for row in tree_labels(tree, Provenance("mutations"))}
    assert rows["".join(PROGRAM)] == [1, 1, 1]
    changed = rows["def add(a, b):\n    total = a - b\n    return total\n"]
    assert changed[:2] == [1, 0]
    assert np.isnan(changed[2])


def test_a_half_right_program_is_none() -> None:
    class Half(Executed):
        def grade(self, problem: Problem, steps: tuple[Step, ...]) -> float:
            return 0.5

    assert np.isnan([*labels(labelled(PROGRAM, 0.5, Executed((1, 2, 3)))).values()]).all()
    assert labels(labelled(PROGRAM, 1.0, Half()))["    total = a - b\n"] == 0


def test_a_wrong_program_and_what_is_no_program_get_no_label() -> None:
    assert np.isnan([*labels(labelled(PROGRAM, 0.0, Executed((1, 2, 4)))).values()]).all()
    prose = labels(labelled(("The sum is 3.",), 1.0, Executed()))
    assert prose == {"The sum is 3.": 1.0}
    with pytest.raises(InputError, match="no step, or no outcome"):
        labelled(PROGRAM, float("nan"), Executed())


def test_steps_of_a_prompt_and_of_a_block_are_changed_in_their_places() -> None:
    problem = Problem("p", "def add(a, b):\n    limit = 3\n", meta=ADD)
    assert {"".join(s.text for s in steps) for _, steps in changed_steps(problem, [Step("    return a + b\n")])} == {
        "    return a - b\n",
        "    return None\n",
    }
    text = ["It is\n```python\n", "x = 'Ä€' * 2\n", "```\n", "with 1 + 1."]
    made = {(at, steps[at].text) for at, steps in changed_steps(Problem("p", "q"), [*map(Step, text)])}
    assert made == {(1, "x = 'Ä€' / 2\n"), (1, "x = 'Ä€' * 3\n")}
    assert (0, "1 - 2\n") in {(at, steps[at].text) for at, steps in changed_steps(Problem("p", "q"), [Step("1 + 2\n")])}
    seen = [Step("x = 1\n"), Step("1", "observation")]
    assert [*changed_steps(Problem("p", "q"), seen)] == []


def test_every_change_is_a_program_with_another_tree() -> None:
    code = """
def f(a, b):
    'Doc.'
    for i in range(0, 10):
        a += i
        print(f"{a + 1}", b)
    if a < b and not a == 3 or b in (1, 2):
        return a - b - i
    return max(a, b) if True else None
"""
    found = [*changes(code)]
    for start, end, text in found:
        other = code[:start] + text + code[end:]
        assert ast.dump(ast.parse(other)) != ast.dump(ast.parse(code))
    made = {(code[start:end], text) for start, end, text in found}
    assert {
        ("a < b", "a <= b"), ("a < b", "a > b"), ("range(0, 10)", "range(10, 0)"), ("0", "1"), ("a += i", "pass"),
        ("a - b - i", "a - b + i"), ("a - b", "a + b"), ("b in (1, 2)", "b not in (1, 2)"), ("True", "False"),
        ("max(a, b)", "max(b, a)"), ("a == 3", "a != 3"),
    } <= made  # fmt: skip
    assert not any('f"' in old or old == "a + 1" for old, _ in made if "print" not in old)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    for start, end, _ in changes(text):
        assert 0 <= start < end <= len(text)


@needs_sandbox
def test_the_command_labels_public_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = {
        "task_id": "t/0",
        "prompt": "def add(a, b):\n",
        **ADD,
        "samples": ["    c = a + b\n    return c\n", "    return 0\n"],
    }
    Path("programs.jsonl").write_text(json.dumps(row) + "\n")
    line = "label --data programs.jsonl --read cut=lines --grader unit-tests --estimator mutations --out labels --json"
    made = json.loads(invoke(line))
    assert made["without_labels"] == 1
    rows = {row.text: row.labels.tolist() for row in read_table(Path("labels") / "labels.parquet")}
    assert rows["    c = a + b\n    return c\n"] == [1, 1]
    assert rows["    c = a - b\n    return c\n"][0] == 0


def test_no_policy_is_loaded_where_none_is_asked() -> None:

    one = Trajectory(Problem("p", "Add.", meta=ADD), tuple(map(Step, PROGRAM)), 1.0)
    found = stepreward.label([one], grader=Executed((1, 2, 3)), method="mutations", transform="soft")
    assert {row.provenance[-1].policy for row in found} == {""}
    assert {tuple(row.labels[:1]) for row in found} == {(1.0,)}
    for rows, method, why in (([one], "bisection", "bisection rolls out"), ([one.problem], "mutations", "are sampled")):
        with pytest.raises(InputError, match=f"{why} by a policy, and there is none"):
            stepreward.label(rows, grader=Executed((1, 2, 3)), method=method)
