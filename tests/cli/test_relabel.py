"""`stepreward relabel`: labels by a model's own scores, and filters of labelled solutions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import stepreward
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from tests.cli.running import invoke, refused

NAN = float("nan")


def scored(name: str, scores: list[float], outcome: float = NAN) -> Trajectory:
    steps = tuple(Step(f"{i}\n", "observation" if np.isnan(score) else "action") for i, score in enumerate(scores))
    made = Trajectory(Problem(name, f"{name}?"), steps, outcome)
    return made.with_columns({"score": np.array(scores)}, Provenance("some-model"))


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [scored("a", [0.95, NAN, 0.5, 0.1], 0.0), scored("a", [0.81, 0.8, 0.2, 0.19], 1.0), scored("b", [0.9], 1.0)]
    stepreward.write("scored.parquet", rows)
    return tmp_path


def test_confident_scores_become_labels_and_say_where_they_are_from(inside: Path) -> None:
    line = "relabel --data scored.parquet --transform pseudo-label --out pseudo.parquet"
    assert json.loads(invoke(f"{line} --json")) == {
        "out": "pseudo.parquet", "solutions": 3, "kept": 3, "steps": 8, "labelled": 5, "right": 3, "wrong": 2,
    }  # fmt: skip
    first, second, third = stepreward.read("pseudo.parquet")
    np.testing.assert_array_equal(first.labels, [1, NAN, NAN, 0])
    # The confidence must exceed the threshold: scores of exactly 0.8 and 0.2 are no labels.
    np.testing.assert_array_equal(second.labels, [1, NAN, NAN, 0])
    np.testing.assert_array_equal(third.labels, [1])
    assert [(one.estimator, one.policy, one.what) for one in first.provenance] == [
        ("some-model", "", ("score",)), ("pseudo-label", "some-model", ("label",)),
    ]  # fmt: skip
    assert "5 of 8 steps have a label, 3 above 1/2 and 2 not" in invoke(line)


def test_filters_follow_the_labels(inside: Path) -> None:
    line = "relabel --data scored.parquet --transform pseudo-label --set soft=true --set above=0.5 --set below=0.5"
    invoke(f"{line} --keep informative --out kept.parquet")
    first, second = stepreward.read("kept.parquet")
    assert {first.problem.id, second.problem.id} == {"a"}
    # Ties are no labels; soft labels are the scores.
    np.testing.assert_array_equal(first.labels, [0.95, NAN, NAN, 0.1])
    # Both sources have the first error of the first solution at its last step, of the second one at different steps.
    rows = [*stepreward.read("kept.parquet")]
    other = [rows[0].with_columns({"label": np.array([1, NAN, 1, 0])}), rows[1].with_columns({"label": np.zeros(4)})]
    stepreward.write("hard.parquet", [one.with_columns({"label": np.round(one.labels)}) for one in rows])
    stepreward.write("other.parquet", other)
    invoke("relabel --data hard.parquet --others other.parquet --keep consensus --out agreed.parquet")
    assert [*stepreward.read("agreed.parquet")] == rows[:1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "there is nothing to do; pass --transform, --keep or both"),
        ("--keep consensus", "consensus takes --others"),
        ("--keep informative --others scored.parquet", "informative reads no --others"),
        ("--transform hard", "hard gives no step a label"),
        ("--transform pseudo-label --set above=1 --set below=0", "pseudo-label gives no step a label"),
        ("--transform pseudo-label --set above=0.1", "below must not exceed above, got 0.2 and 0.1"),
        ("--keep self-accuracy --set lowest=0.6 --set highest=0.9", "none of 3 solutions is kept; loosen the filters"),
        ("--transform sfot", "no transform method is called 'sfot'; did you mean soft?"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    inside: Path, flags: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in refused(f"relabel --data scored.parquet --out out.parquet {flags}", capsys, monkeypatch)
    assert not Path("out.parquet").exists()


def test_all_other_sources_must_agree(inside: Path) -> None:
    rows = [scored(name, [0.9, 0.1], 0.0) for name in ("a", "b", "c")]
    labels = {"mc.parquet": ([1, 0], [1, 0], [1, 1]), "seed.parquet": ([1, 0], [0, 0], [1, 1]),
              "judge.parquet": ([1, 0], [1, 0], [1, 1])}  # fmt: skip
    for name, every in labels.items():
        made = [one.with_columns({"label": np.array(some, float)}) for one, some in zip(rows, every, strict=True)]
        stepreward.write(name, made)
    line = "relabel --data mc.parquet --keep consensus --others judge.parquet"
    invoke(f"{line} --out two.parquet")
    assert [one.problem.id for one in stepreward.read("two.parquet")] == ["a", "b", "c"]
    invoke(f"{line} --others seed.parquet --keep balance --out three.parquet")
    assert [one.problem.id for one in stepreward.read("three.parquet")] == ["a", "c"]


def test_values_are_scaled_over_all_solutions_of_a_problem(inside: Path) -> None:
    rows = [scored("a", [0.9, 0.4]), scored("b", [0.5]), scored("a", [0.9, 1.0]), scored("a", [0.2])]
    stepreward.write("values.parquet", [one.with_columns({"value": one.column("score")}) for one in rows])
    invoke("relabel --data values.parquet --transform minmax --out scaled.parquet")
    for one, expected in zip(stepreward.read("scaled.parquet"), [[0.875, 0.25], [0], [0.875, 1], [0]], strict=True):
        np.testing.assert_allclose(one.labels, expected)
