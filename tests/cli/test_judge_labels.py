"""Labels by judges from the command line: votes of several answers and models, merged, and held against others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from tests.cli.judging import judging
from tests.cli.running import invoke, refused

NAN = float("nan")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with judging() as address:
        yield address


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    sums = {"a": "1 + 1 = 2|2 + 2 = 5|5 + 1 = 6", "b": "1 + 2 = 3|3 + 3 = 6", "c": "4 + 4 = 9|9 + 1 = 10"}
    rows = [
        Trajectory(Problem(name, "Add up.", "6"), tuple(Step(f"{one}\n") for one in said.split("|")), 0.0)
        for name, said in sums.items()
    ]
    stepreward.write("solutions.parquet", rows)
    return tmp_path


TRUTH = {"a": [1, 0, NAN], "b": [1, 1], "c": [0, NAN]}


def test_answers_are_votes_whose_majority_labels(url: str, inside: Path) -> None:
    invoke(f"score --model {url}#moody --like first-error --answers 7 --data solutions.parquet --out judged.parquet")
    (first, *_) = stepreward.read("judged.parquet")
    assert [name for name in first.columns if "vote" in name] == [f"score:vote{i}" for i in range(1, 8)]
    told = json.loads(invoke("relabel --data judged.parquet --transform first-error-vote --out labels.parquet --json"))
    assert (told["kept"], told["labelled"], told["wrong"]) == (3, 5, 2)
    assert told["votes_read"] + told["votes_unread"] == 21
    assert told["votes_unread"] > 0
    said = invoke("relabel --data judged.parquet --transform step-vote --out steps.parquet")
    assert f"{told['votes_unread']:,} of 21 votes could not be read, and are missing" in said
    for one in stepreward.read("labels.parquet"):
        np.testing.assert_array_equal(one.labels, TRUTH[one.problem.id])
        votes = one.facts["votes"]
        assert votes["read"] + votes["unread"] == 7
        assert votes["agree"] == votes["read"] > 0
    by = one.provenance[-1]
    assert by.estimator == "first-error-vote"
    assert "as first-error, 7 answers" in by.policy


def test_one_command_makes_the_labels_of_a_judge(url: str, inside: Path) -> None:
    """Those of `score` and then `relabel`; a second run asks nothing, also for another merge of the votes."""
    asked = f"--model {url}#moody --like first-error --answers 7"
    line = f"label --data solutions.parquet --estimator judge {asked} --out made --json"
    told = json.loads(invoke(line))
    assert (told["trajectories"], told["labelled_steps"], told["bill"]["scorings"]) == (3, 5, 3)
    assert told["votes_read"] + told["votes_unread"] == 21
    assert told["votes_unread"] > 0
    again = json.loads(invoke(line.replace("--json", "--transform step-vote --json")))
    assert (again["bill"]["scorings"], again["bill"]["cached"], again["labelled_steps"]) == (0, 0, 5)
    json.loads(invoke(line))
    invoke(f"score {asked} --data solutions.parquet --out judged.parquet")
    invoke("relabel --data judged.parquet --transform first-error-vote --out labels.parquet")
    for one, other in zip(stepreward.read("made"), stepreward.read("labels.parquet"), strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.column("value"), other.column("score"))
        for name in ("score", *(f"score:vote{i}" for i in range(1, 8))):
            np.testing.assert_array_equal(one.column(name), other.column(name))
        assert one.facts["votes"] == other.facts["votes"]
        measured, by = one.provenance[-2:]
        assert (measured.estimator, by.estimator) == ("judge", "first-error-vote")
        assert measured.settings["scorer"] == by.policy
        assert "as first-error, 7 answers" in by.policy


@pytest.mark.parametrize(
    ("like", "shown"),
    [
        ("first-error", False),
        ("first-error-with-reference", True),
        ("meta-critique", False),
        ("reverse-verification", True),
        ("good-ok-bad", True),
        ("error-kinds", False),
    ],
)
def test_every_prompt_is_a_judge_whose_provenance_says_what_it_was_shown(
    url: str, inside: Path, like: str, shown: bool
) -> None:
    invoke(f"label --data solutions.parquet --estimator judge --model {url}#good --like {like} --out made.parquet")
    for one in stepreward.read("made.parquet"):
        np.testing.assert_array_equal(one.labels, TRUTH[one.problem.id])
        assert one.provenance[-1].policy.endswith(", shown the reference") == shown
        assert ("score:mathematics" in one.columns) == (like == "error-kinds")


def test_several_models_vote_together(url: str, inside: Path) -> None:
    models = f"--model {url}#good --model {url}#first --model {url}#moody"
    invoke(
        f"label --data solutions.parquet --estimator judge {models} --like first-error --answers 3 --out made.parquet"
    )
    for one in stepreward.read("made.parquet"):
        names = {name for name in one.columns if "vote" in name}
        assert names == {f"score:{model}:vote{i}" for model in (1, 2, 3) for i in (1, 2, 3)}
        # `first` calls every first step wrong, as often as `good` is asked, with which `moody` sides.
        np.testing.assert_array_equal(one.labels, TRUTH[one.problem.id])


def test_what_cannot_be_judged_is_told_and_costs_no_other(
    url: str, inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*stepreward.read("solutions.parquet")]
    stepreward.write("some.parquet", [*rows, Trajectory(Problem("d", "Add up."), rows[0].steps)])
    line = f"label --data some.parquet --estimator judge --model {url}#good --like first-error-with-reference"
    told = json.loads(invoke(f"{line} --out made.parquet --json", status=1))
    assert (told["failed"], told["trajectories"]) == (1, 3)
    assert [one.problem.id for one in stepreward.read("made.parquet")] == ["a", "b", "c"]
    (inside / "references.jsonl").write_text('{"prompt": "Add up.", "reference": "6"}\n')
    told = json.loads(invoke(f"{line} --references references.jsonl --out whole.parquet --json"))
    assert (told["failed"], told["trajectories"]) == (0, 4)
    with pytest.raises(InputError, match="gives numbers of steps and no votes; name a verifier that writes"):
        stepreward.label(rows, scorer="tool", method="judge")
    line = "label --data solutions.parquet --estimator judge --out none.parquet"
    assert "judge asks a reward model or a judge; pass --model" in refused(line, capsys, monkeypatch)


def test_several_models_vote_in_one_table(url: str, inside: Path) -> None:
    score = "score --like first-error --data {} --out {} --column score:{} --model " + url
    for at, model in enumerate(("first", "good", "mute", "fine")):
        before, after = "solutions.parquet" if not at else f"{at - 1}.parquet", f"{at}.parquet"
        invoke(f"{score.format(before, after, model)}#{model}")
    invoke("relabel --data 3.parquet --transform first-error-vote --out labels.parquet")
    for one in stepreward.read("labels.parquet"):
        np.testing.assert_array_equal(one.labels, TRUTH[one.problem.id])
    # All must agree: only the third solution's error is at the first step, and one model says nothing.
    invoke("relabel --data 3.parquet --transform unanimous-vote --keep labelled --out agreed.parquet")
    (only,) = stepreward.read("agreed.parquet")
    assert only.problem.id == "c"
    assert only.facts["votes"] == {"read": 3, "unread": 1, "agree": 3}
    invoke("relabel --data 3.parquet --transform step-vote --set votes=score:good:vote* --out good.parquet")
    assert [one.facts["votes"]["read"] for one in stepreward.read("good.parquet")] == [1, 1, 1]


def test_the_provenance_names_a_reference(url: str, inside: Path) -> None:
    how = "--like first-error-with-reference --data solutions.parquet --out judged.parquet"
    invoke(f"score --model {url}#good {how}")
    (first, *_) = stepreward.read("judged.parquet")
    assert first.provenance[-1].estimator.endswith("shown the reference")


def test_errors_are_planted_by_a_policy_or_by_changed_numbers(url: str, inside: Path) -> None:
    rows = [one for one in stepreward.read("solutions.parquet") if one.problem.id == "b"]
    stepreward.write("right.parquet", [Trajectory(one.problem, one.steps, 1.0) for one in rows])
    line = f"label --data right.parquet --estimator planted-errors --policy {url}#planter --set n=3"
    said = invoke(f"{line} --out planted.parquet")
    assert re.search(r"of 3 errors asked for \d could not be read or said nothing new, and 0 were not confirmed", said)
    own, *copies = stepreward.read("planted.parquet")
    assert own.facts["planted"]["asked"] == 3
    assert own.facts["planted"]["unread"] == 3 - len(copies)
    for one in copies:
        assert one.steps[-1].text == "1 + 1 = 7\n"
        np.testing.assert_array_equal(one.labels, [NAN] * (len(one) - 1) + [0])
    told = json.loads(invoke("label --data right.parquet --estimator changed-numbers --out changed.parquet --json"))
    assert told["trajectories"] == 5
    for one in [*stepreward.read("changed.parquet")][1:]:
        np.testing.assert_array_equal(one.labels, [1] * (len(one) - 1) + [0])
