"""Every example runs by itself, is short, and prints what it says that it shows."""

from __future__ import annotations

import ast
import math
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation, Propose
from tests.forked import ran

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NUMBER = r"(\d+(?:\.\d+)?)"


def printed(name: str, tmp_path: Path) -> str:
    """What an example prints, run in a folder of its own."""
    folder = tmp_path / "own"
    folder.mkdir()
    done = ran(ROOT / "examples" / f"{name}.py", folder, tmp_path / "log")
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [], "an example leaves nothing behind"
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_explained_tested_and_listed(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) < 60
    assert len(ast.get_docstring(ast.parse(source)) or "") > 100
    assert f'printed("{path.stem}"' in Path(__file__).read_text()
    assert f"(examples/{path.name})" in (ROOT / "README.md").read_text()


def test_label_with_rollouts(tmp_path: Path) -> None:
    out = printed("label_with_rollouts", tmp_path)
    rows = re.findall(r"(\d of 8|not asked) +label (\d)  truth (\d)", out)
    assert len(rows) >= 3
    assert rows[0][2] == rows[1][2] == "1", "the first steps are right"
    for said, label, _ in rows:
        assert said == "not asked" or label == str(int(said != "0 of 8")), "hard: any rollout that succeeds"
    assert [label for _, label, _ in rows] == sorted((label for _, label, _ in rows), reverse=True)
    asked = [row for row in rows if row[0] != "not asked"]
    assert 1 <= len(asked) <= math.ceil(math.log2(len(rows) + 1))
    # The bill of the labelling alone, not of the samples before it.
    assert f"\n{8 * len(asked)} rollouts" in out


def test_train_and_score(tmp_path: Path) -> None:
    out = printed("train_and_score", tmp_path)
    share = re.search(r"in (\d+)% of pairs", out)
    assert share is not None
    assert int(share[1]) > 50
    right, wrong = ([float(s) for s in row.split(", ")] for row in re.findall(r"-> \[([\d., ]+)\]", out))
    assert len(right) == len(wrong) == 2
    assert all(0 < score < 1 for score in right + wrong)


def test_search_with_a_scorer(tmp_path: Path) -> None:
    rows = re.findall(
        rf"(\w+) .*solved {NUMBER} of 20: {NUMBER} tokens, {NUMBER} steps", printed("search_with_a_scorer", tmp_path)
    )
    made = {name: tuple(map(int, numbers)) for name, *numbers in rows}
    assert set(made) == {"majority", "weighted", "beam"}
    assert made["weighted"][0] >= made["majority"][0] - 1 >= 4
    assert made["weighted"][1] == made["majority"][1] > 1000, "both read the same samples"
    assert made["majority"][2] == 0 < made["weighted"][2]


def test_your_own_policy(tmp_path: Path) -> None:
    out = printed("your_own_policy", tmp_path)
    solved = re.search(r"(\d+) of 1000 right", out)
    assert solved is not None
    # Four standard errors of a share of 0.9 ** 4 over 1000 solutions.
    assert abs(int(solved[1]) / 1000 - 0.9**4) < 0.06
    values = [(float(a), float(b)) for a, b in re.findall(rf"value {NUMBER}, exactly {NUMBER}", out)]
    assert [exact for _, exact in values] == [0.73, 0.81, 0.90, 1.0]
    assert max(abs(value - exact) for value, exact in values) < 0.13
    assert values[-1] == (1.0, 1.0)


def test_your_own_policy_draws_each_sample_from_its_own_key_and_keeps_to_the_limits() -> None:
    made = runpy.run_path(str(ROOT / "examples" / "your_own_policy.py"))
    policy, problem = made["Halving"](), made["problem"]

    def asked(**how: Any) -> list[Continuation]:
        (answers,) = policy.propose([Propose(problem, (), Key.seed(3), **how)])
        return answers

    whole = asked(n=40)
    assert asked(n=20) + asked(n=20, first=20) == whole, "asking in parts draws the same samples"
    assert asked(n=20) != asked(n=20, first=20), "and the second part is new"
    assert all(one.finished and len(one.steps) == 4 and not one.truncated for one in whole)
    for limit in range(4):
        for one, full in zip(asked(n=40, max_tokens=limit), whole, strict=True):
            assert (one.steps, one.finished, one.truncated) == (full.steps[:limit], False, True)
    for one, full in zip(asked(n=40, until="step"), whole, strict=True):
        assert (one.steps, one.finished, one.truncated) == (full.steps[:1], False, False)
    assert all(one.truncated and not one.steps for one in asked(n=2, until="step", max_tokens=0))


def test_let_an_agent_act(tmp_path: Path) -> None:
    out = printed("let_an_agent_act", tmp_path)
    values = [(float(a), float(b)) for a, b in re.findall(rf"value {NUMBER}, exactly {NUMBER}", out)]
    assert 1 <= len(values) <= 4
    # Four standard errors of a share over 400 rollouts.
    assert max(abs(value - exact) for value, exact in values) <= 0.1
    alone, found, actions = re.findall(rf"alone {NUMBER}, with execution {NUMBER} after {NUMBER} actions", out)[0]
    # All of 16 episodes are equally likely, and 1, 2, 3, 6, 7 by two ways to 2 are the winning ones.
    assert (float(alone), float(found)) == (0.12, 1.0)
    assert int(actions) <= 32


def test_check_equations(tmp_path: Path) -> None:
    out = printed("check_equations", tmp_path)
    assert re.findall(r"^(\d\.\d\d)  ", out, re.MULTILINE) == ["1.00", "0.00", "1.00", "0.80"]
    assert "48 + 24 = 74 is wrong" in out
    assert out.endswith("first error: step 2\n")


def test_read_any_format(tmp_path: Path) -> None:
    out = printed("read_any_format", tmp_path)
    rows = re.findall(r"^([a-z-]+) +labels \[1\.0, (0\.0|nan)\]   left out: row 2$", out, re.MULTILINE)
    assert [name for name, _ in rows] == ["process-bench", "trl", "math-shepherd", "scan"]
    assert "written as TRL rows: 4; kept out: 0" in out


def test_credit_steps(tmp_path: Path) -> None:
    out = printed("credit_steps", tmp_path)
    rows = {name: [list(map(float, part.split())) for part in re.split(r" {3}", numbers.strip())]
            for name, numbers in re.findall(r"^([a-z-]+) +([+-].*)$", out, re.MULTILINE)}  # fmt: skip
    assert rows.keys() == {"rloo", "step-rloo", "clip-delta", "pure"}
    for right, wrong, talk in rows.values():
        assert (len(right), len(wrong)) == (3, 3)
        assert len(talk) == 5
        assert right[0] > wrong[0], "the right solution is preferred by all"
    assert rows["step-rloo"][2][0] > 0 > rows["rloo"][2][0], "summed scores pay for talking, outcomes do not"
    assert out.count("climbs") == 4
