"""A bad row or problem costs no other its labels or solutions: it is named, and the exit status is 1."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepreward import load
from stepreward.cli.app import app
from stepreward.core.errors import PolicyError
from stepreward.core.runtime.flows import Continuation, Policy, Propose
from stepreward.core.table import read_table
from stepreward.core.types import Problem
from stepreward.policies.named import policy_at
from stepreward.tasks.arithmetic import generate
from tests.cli.running import invoke, refused, solved

LABEL = (
    "label --problems hard.jsonl --grader arithmetic --out labels --samples 2 --rollouts 2 --estimator math-shepherd"
)


class Refusing:
    """The built-in policy behind a server that refuses solutions, or prefixes, of some problems."""

    batch_size, concurrency = 64, 1

    def __init__(self, inner: Policy, problems: set[str], *, prefixes: bool) -> None:
        self.inner, self.problems, self.prefixes = inner, problems, prefixes
        self.name = inner.name

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        for question in questions:
            if question.problem.id in self.problems and bool(question.prefix) == self.prefixes:
                raise PolicyError("the server answered 400: too long")
        return self.inner.propose(questions)


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """Three problems of the built-in world, in hard.jsonl of the current folder."""
    monkeypatch.chdir(tmp_path)
    made = list(generate("train", 3, seed=5))
    Path("hard.jsonl").write_text("".join(row(one) for one in made))
    return made


def row(problem: Problem) -> str:
    return json.dumps({"id": problem.id, "prompt": problem.text, "reference": problem.reference}) + "\n"


def labelled() -> set[str]:
    """Ids of the problems whose solutions have labels."""
    return {one.problem.id for one in read_table(Path("labels/labels.parquet"))}


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("prefixes", "count"), [(False, 1), (True, 2)], ids=["samples", "rollouts"])
def test_what_fails_costs_no_other_its_labels(
    prefixes: bool, count: int, problems: list[Problem], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    inner, hard = policy_at("builtin:arithmetic"), problems[1].id

    def refuse(names: set[str]) -> None:
        monkeypatch.setattr(
            "stepreward.cli.flags.policies.policy_at", lambda *_, **how: Refusing(inner, names, prefixes=prefixes)
        )

    refuse({hard})
    assert f"{hard} could not be labelled: the server answered 400: too long" in refused(
        f"{LABEL} --strict --json", capsys, monkeypatch
    )
    assert not Path("labels/labels.parquet").exists()
    done = CliRunner().invoke(app, f"{LABEL} --json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["failed"] == count
    assert done.stderr.count(f"stepreward: left out: {hard}: the server answered 400: too long") == count
    assert "--skip-failed" in done.stderr
    assert labelled() == {problems[0].id, problems[2].id}
    # The next run tries it again, unless it was left out for good.
    refuse(set())
    Path("labels").rename("first")
    shutil.copytree("first", "labels")
    assert json.loads(invoke(f"{LABEL} --json"))["failed"] == 0
    assert labelled() == {one.id for one in problems}
    shutil.rmtree("labels")
    shutil.copytree("first", "labels")
    refuse({hard})
    assert json.loads(invoke(f"{LABEL} --skip-failed --json"))["failed"] == count
    assert labelled() == {problems[0].id, problems[2].id}
    refuse({one.id for one in problems})
    shutil.rmtree("labels")
    assert refused(f"{LABEL} --json", capsys, monkeypatch) == "stepreward: the server answered 400: too long"


def test_rows_that_are_no_problem_cost_no_other_its_labels(
    problems: list[Problem], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = map(row, problems)
    without = json.dumps({"id": "none", "prompt": "1 + 1?"}) + "\n"
    Path("hard.jsonl").write_text(first + without + '{"prompt": \n' + third)
    done = CliRunner().invoke(app, f"{LABEL} --json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["failed"] == 2
    said = [line.removeprefix("stepreward: left out: ") for line in done.stderr.splitlines()]
    assert said[0].startswith("hard.jsonl, row 2: problem 'none' has no reference to grade rollouts with; add it")
    assert said[1].startswith("hard.jsonl, row 3: broken JSON")
    assert labelled() == {problems[0].id, problems[2].id}
    assert refused(f"{LABEL} --strict", capsys, monkeypatch).startswith("stepreward: hard.jsonl, row 2: problem 'none'")
    # A repaired row is labelled by the same command in the same folder.
    Path("hard.jsonl").write_text(first + second + third)
    assert json.loads(invoke(f"{LABEL} --json"))["failed"] == 0
    assert labelled() == {one.id for one in problems}


def test_search_finds_for_the_good_rows_and_names_the_bad_ones(
    problems: list[Problem], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("hard.jsonl").write_text(row(problems[0]) + '{"text": "?"}\n')
    line = "search --problems hard.jsonl --grader arithmetic --method majority --samples 1 --out found.jsonl"
    done = CliRunner().invoke(app, f"{line} --json")
    assert done.exit_code == 1
    assert (json.loads(done.stdout)["problems"], json.loads(done.stdout)["failed"]) == (1, 1)
    assert done.stderr.startswith("stepreward: left out: hard.jsonl, row 2: a problem needs a text under 'prompt'")
    assert [one["problem"] for one in solved(Path("found.jsonl"))] == [problems[0].id]
    assert "hard.jsonl, row 2: a problem needs a text" in refused(f"{line} --strict", capsys, monkeypatch)


def test_a_tree_takes_values_from_a_reward_model(
    problems: list[Problem], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "label --problems hard.jsonl --grader arithmetic --out trees.parquet --estimator alphamath --transform soft"
    assert "pass --model" in refused(words, capsys, monkeypatch)
    invoke(f"{words} --set simulations=3 --model tool")
    rows = [*read_table(Path("trees.parquet"))]
    assert {one.problem.id for one in rows} == {one.id for one in problems}
    assert {"value", "visits", "score", "advantage"} <= rows[0].columns.keys()
    (by,) = rows[0].provenance
    assert (by.estimator, by.settings["scorer"], by.settings["simulations"]) == ("alphamath", load("tool").name, 3)
    # Another reward model is another run.
    assert "begun with" in refused(f"{words} --set simulations=3 --model length", capsys, monkeypatch)
    other = words.replace("alphamath", "masprm") + " --model tool"
    assert "reads no reward model" in refused(other, capsys, monkeypatch)
