"""Tournaments from the command line: a policy, or the reward model's totals, compares solutions."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from stepreward.policies.local import LocalPolicy
from tests.cli.running import invoke, refused, solved

SEARCH = "search --problems problems.jsonl --grader arithmetic --samples 4 --json"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", ["knockout", "elo"])
def test_a_tournament_by_the_reward_model_s_totals(inside: Path, method: str) -> None:
    out = f"{method}.jsonl"
    outcome = json.loads(invoke(f"{SEARCH} --method {method} --judge score --model tool --out {out}"))
    found = solved(inside / out)
    assert outcome["bill"]["comparisons"] > 0
    assert "judge" not in outcome
    assert all(row["chosen"] for row in found)
    best = max(found, key=lambda row: len(row["candidates"]))
    top = max(candidate["total"] for candidate in best["candidates"])
    assert best["total"] == top, "the winner of the tournament is chosen"


def test_totals_by_another_aggregate_and_flags_in_a_file(inside: Path) -> None:
    (inside / "judged.toml").write_text(
        '[search]\nmethod = "knockout"\njudge = "score?aggregate=mean"\nmodel = ["tool"]\nsamples = 3\n'
    )
    invoke("--config judged.toml search --problems problems.jsonl --grader arithmetic --out by_mean.jsonl")
    assert solved(inside / "by_mean.jsonl")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", ["knockout", "elo"])
def test_a_policy_judges_and_what_it_writes_beside_the_point_is_counted(
    inside: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The built-in policy writes arithmetic, never a verdict: all are ties, and the earliest stays."""
    # Asked for a verdict it writes to its limit; 64 tokens hold every solution and are as far beside the point as 512.
    monkeypatch.setattr(LocalPolicy, "load", partial(LocalPolicy.load, max_tokens=64))
    (inside / "few.jsonl").write_text("".join((inside / "problems.jsonl").read_text().splitlines(True)[:2]))
    search = SEARCH.replace("problems.jsonl", "few.jsonl")
    out = f"{method}_policy.jsonl"
    outcome = json.loads(invoke(f"{search} --method {method} --judge builtin:arithmetic --out {out}"))
    usage = outcome["judge"]
    assert usage["answers"] == usage["unread"] == outcome["bill"]["comparisons"] > 0
    assert usage["swayed"] == 0
    assert usage["tokens"] > 0
    assert all(row["chosen"] for row in solved(inside / out))
    told = invoke(f"{search.removesuffix(' --json')} --method {method} --judge builtin:arithmetic --out again.jsonl")
    assert "verdicts of the judge" in told


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--method knockout", "knockout needs a judge, who compares solutions; pass --judge POLICY, or --judge score"),
        ("--method elo --judge score", "--judge score compares by a reward model; pass --model"),
        ("--method elo --judge score?agregate=last --model tool", "did you mean aggregate?"),
        ("--method elo --judge score?aggregate=lust --model tool", "no aggregate method is called 'lust'"),
        ("--method beam --judge score --model tool", "beam uses no judge; drop --judge, or take --method knockout"),
        ("--compare --judge score --model tool", "--compare uses no judge; drop --judge"),
        ("--method elo --judge http://localhost:1", "http://localhost:1 names no model"),
        ("--method self-certainty --policy http://localhost:1#m", "servers and engines do not return; take a policy"),
    ],
)
def test_what_does_not_fit_is_told(
    inside: Path, flags: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in refused(f"search --problems problems.jsonl --out x.jsonl {flags}", capsys, monkeypatch)


def test_a_policy_on_this_machine_votes_by_its_own_certainty(inside: Path) -> None:
    invoke(f"{SEARCH} --method self-certainty --out certain.jsonl")
    for row in solved(inside / "certain.jsonl"):
        assert all(candidate["total"] > 0 for candidate in row["candidates"])
