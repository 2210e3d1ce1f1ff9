"""What `label` says and keeps where a policy cannot do some of the problems."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from stepreward.core.errors import PolicyError
from stepreward.core.runtime.flows import Continuation, Policy, Propose
from stepreward.core.table import read_table
from stepreward.policies.named import policy_at
from stepreward.tasks.arithmetic import generate
from tests.cli.running import invoke, refused

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


@pytest.mark.parametrize(
    ("prefixes", "says"), [(False, "1 problems could not be sampled"), (True, "2 items could not be labelled")]
)
def test_what_failed_is_told_asked_again_or_left_out(
    prefixes: bool, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    problems = list(generate("train", 3, seed=5))
    Path("hard.jsonl").write_text(
        "".join(json.dumps({"id": p.id, "prompt": p.text, "reference": p.reference}) + "\n" for p in problems)
    )
    inner, hard = policy_at("builtin:arithmetic"), problems[1].id

    def tried(names: set[str]) -> None:
        monkeypatch.setattr(
            "stepreward.cli.flags.policies.policy_at", lambda *_, **how: Refusing(inner, names, prefixes=prefixes)
        )

    tried({hard})
    said = refused(f"{LABEL} --json", capsys, monkeypatch)
    assert said.startswith(f"stepreward: {says}, {hard} first: the server answered 400: too long; run again")
    assert "--skip-failed" in said
    assert not Path("labels/labels.parquet").exists()
    made = json.loads(invoke(f"{LABEL} --skip-failed --json"))
    assert made["failed"] == int(says[0])
    left = {one.problem.id for one in read_table(Path("labels/labels.parquet"))}
    assert left == {problems[0].id, problems[2].id}
    tried({p.id for p in problems})
    Path("labels").rename("before")
    assert refused(f"{LABEL} --json", capsys, monkeypatch) == "stepreward: the server answered 400: too long"
