"""Training in rounds: what each round adds, a curve worked by hand, and a run that was killed."""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepreward
from stepreward.core.errors import IncompleteWarning, InputError, SteprewardError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.pipeline.rounds_report import summarise
from stepreward.pipeline.rounds_settings import RoundsSettings
from stepreward.tasks.arithmetic import generate
from stepreward.train.settings import TrainSettings
from stepreward.verbs import found_in_round
from stepreward.verbs import train_in_rounds as module
from stepreward.verbs.train_in_rounds import train_in_rounds
from tests.cli.running import invoke
from tests.forked import COMMAND, begun
from tests.train.toy import toy_labels

FEW = TrainSettings(epochs=1, batch_tokens=512, evaluations=1)
SURE = ("above=0.5", "below=0.5")
"""All scores but exact ties are labels: after one pass no model is sure of anything."""


def world(n: int, seed: int) -> list[Trajectory]:
    """Labelled solutions of the toy world whose problems differ by their prompts."""
    return [replace(one, problem=Problem(one.problem.id, f"{one.problem.id}?")) for one in toy_labels(n, seed)]


@pytest.fixture
def settings(tmp_path: Path) -> RoundsSettings:
    for name, n, seed in (("labelled", 8, 0), ("solutions", 6, 1), ("held", 6, 2)):
        stepreward.write(tmp_path / f"{name}.parquet", world(n, seed))
    return RoundsSettings(
        tmp_path / "held.parquet", tmp_path / "labelled.parquet", tmp_path / "solutions.parquet", rounds=2,
        settings=SURE, backbone="scratch",
    )  # fmt: skip


def numbers(summary: dict[str, Any]) -> Any:
    """The summary without times."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clean(part) for name, part in value.items() if name != "seconds"}
        return [clean(part) for part in value] if isinstance(value, list) else value

    return clean(summary)


def test_the_second_round_learns_from_the_labels_of_the_first_model(tmp_path: Path, settings: RoundsSettings) -> None:
    out = tmp_path / "out"
    summary = train_in_rounds(out, settings, FEW)
    assert json.loads((out / "rounds.json").read_text()) == summary
    assert "Held-out curve" in (out / "rounds.html").read_text()
    first, second = (one["0"] for one in summary["rounds"])
    assert {name: value for name, value in first["label"].items() if name != "seconds"} == {}
    added = second["label"]["pseudo"]
    assert (added["solutions"], added["steps"]) == (24, 72)
    # The labels are those of the first model, and not the ones that were in the file; these say how many agree.
    pseudo = [*stepreward.read(out / "seed-0/round-2/pseudo.parquet")]
    model = stepreward.load(out / "seed-0/round-1/model")
    again = stepreward.score(world(6, 1), model)
    for one, scored in zip(pseudo, again, strict=True):
        np.testing.assert_array_equal(one.labels, scored.column("score") > 0.5)
    agree = np.mean([one.labels == truth.labels for one, truth in zip(pseudo, world(6, 1), strict=True)])
    assert added["agree"] == pytest.approx(agree)
    assert added["labelled"] == 72
    learned = [
        json.loads((out / f"seed-0/round-{k}/model/training.json").read_text())["sizes"] for k in (1, 2)
    ]  # fmt: skip
    assert [sum(part["solutions"] for part in one.values()) for one in learned] == [32, 56]
    assert set(summary["curve"]) == {"steps", "outcomes", "best_of_n", "chance"}
    assert summary["versus_first"]["steps"][0] is None


def test_finished_rounds_are_not_done_again_and_more_may_follow(
    tmp_path: Path, settings: RoundsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = train_in_rounds(out, replace(settings, rounds=1), FEW)
    trained: list[Path] = []
    real = module.train
    monkeypatch.setattr(module, "train", lambda data, to, **how: (trained.append(to), real(data, to, **how)))
    # A kill between the end of a training and the note of its stage trains nothing again.
    (out / "stages/seed-0-round-1-train.json").unlink()
    assert numbers(train_in_rounds(out, replace(settings, rounds=1), FEW)) == numbers(first)
    assert trained == []
    more = train_in_rounds(out, settings, FEW)
    assert trained == [out / "seed-0/round-2/model"]
    assert more["curve"]["steps"][0] == first["curve"]["steps"][0]
    with pytest.raises(InputError, match="last_only"):
        train_in_rounds(out, replace(settings, last_only=True), FEW)
    stepreward.write(settings.solutions, world(7, 1))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="other settings: reads"):
        train_in_rounds(out, settings, FEW)


def test_a_run_that_was_killed_ends_with_the_numbers_of_one_that_was_not(
    tmp_path: Path, settings: RoundsSettings
) -> None:
    line = f"--labelled {settings.labelled} --solutions {settings.solutions} --held-out-data {settings.held_out}"
    line += " --rounds 2 --set above=0.5 --set below=0.5 --backbone scratch --epochs 1 --batch-tokens 512"
    out = tmp_path / "killed"
    (tmp_path / "program.py").write_text(COMMAND.format(before=""))
    words = shlex.split(f"rounds --out {out} {line} --evaluations 1")
    process = begun(tmp_path / "program.py", tmp_path, tmp_path / "log", words=words)
    note = out / "stages/seed-0-round-1-train.json"
    until = time.monotonic() + 180
    while not note.exists() and time.monotonic() < until and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    assert note.exists(), (tmp_path / "log/err").read_text()
    assert not (out / "rounds.json").exists()
    kept = (out / "seed-0/round-1/model/model.safetensors").stat().st_mtime_ns
    said = invoke(f"rounds --out {out} {line} --evaluations 1 --json")
    assert (out / "seed-0/round-1/model/model.safetensors").stat().st_mtime_ns == kept
    assert numbers(json.loads(said)) == numbers(train_in_rounds(tmp_path / "whole", settings, FEW))


@pytest.mark.parametrize("label_by", ["rollouts", "outcomes"])
def test_a_policy_finds_solutions_and_a_search_by_the_last_model_more(tmp_path: Path, label_by: Any) -> None:
    for name, problems in (("problems", generate("train", 4)), ("held", generate("held_out", 3))):
        rows = [{"id": one.id, "prompt": one.text, "reference": one.reference} for one in problems]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    beam = ("beam.beams=2", "beam.width=2")
    settings = RoundsSettings(
        tmp_path / "held.jsonl", problems=tmp_path / "problems.jsonl", rounds=2, label_by=label_by, search="beam",
        samples=3, held_out_samples=3, grader="arithmetic", share_kept=0.0,
        settings=(*beam, "bisection.n=2") if label_by == "rollouts" else beam,
    )  # fmt: skip
    training = replace(FEW, objective="bce" if label_by == "rollouts" else "outcome")
    summary = train_in_rounds(tmp_path / "out", settings, training)
    first, second = ([*stepreward.read(tmp_path / f"out/seed-0/round-{k}/sampled.parquet")] for k in (1, 2))
    assert all(not np.isnan(one.outcome) or not one.terminal for one in (*first, *second))
    assert {one.provenance[0].estimator for one in second} == {"beam"}
    measured = {one.estimator for row in second for one in row.provenance}
    assert ("bisection" in measured) == (label_by == "rollouts")
    assert any(not np.isnan(one.labels).all() for one in second) == (label_by == "rollouts")
    # The second model learns from what both rounds found, a solution of both once.
    sizes = json.loads((tmp_path / "out/seed-0/round-2/model/training.json").read_text())["sizes"]
    assert sizes["data"]["solutions"] == len({(one.problem.id, one.text) for one in (*first, *second)})
    assert summary["problems"] == 3


def arithmetic(folder: Path, **settings: Any) -> RoundsSettings:
    """Two rounds on a few problems of the built-in world, written to a folder."""
    for name, problems in (("problems", generate("train", 4)), ("held", generate("held_out", 3))):
        rows = [{"id": one.id, "prompt": one.text, "reference": one.reference} for one in problems]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RoundsSettings(
        folder / "held.jsonl", problems=folder / "problems.jsonl", samples=3, held_out_samples=3, grader="arithmetic",
        share_kept=0.0, **{"rounds": 2, **settings},
    )  # fmt: skip


def test_a_tree_takes_its_values_from_the_last_model(tmp_path: Path) -> None:
    own = ("alphamath.simulations=4", "alphamath.width=2", "bisection.n=2")
    settings = arithmetic(tmp_path, estimator="alphamath", transform="soft", settings=own)
    train_in_rounds(tmp_path / "out", settings, FEW)
    first, second = ([*stepreward.read(tmp_path / f"out/seed-0/round-{k}/sampled.parquet")] for k in (1, 2))
    assert {one.provenance[-1].estimator for one in first} == {"bisection"}
    assert {one.provenance[-1].estimator for one in second} == {"alphamath"}
    assert all(str(one.provenance[-1].settings["scorer"]) for one in second)
    assert not any(np.isnan(one.labels).all() for one in second)


def test_rollouts_are_mixed_with_the_last_model_s_scores(tmp_path: Path) -> None:
    own = ("n=2", "weight=0.25")
    settings = arithmetic(tmp_path, label_by="both", estimator="math-shepherd", transform="soft", settings=own)
    train_in_rounds(tmp_path / "out", settings, FEW)
    first, second = ([*stepreward.read(tmp_path / f"out/seed-0/round-{k}/sampled.parquet")] for k in (1, 2))
    for one in first:
        np.testing.assert_array_equal(one.labels, one.column("value"))
    for one in second:
        np.testing.assert_allclose(one.labels, 0.75 * one.column("value") + 0.25 * one.column("score"))


def test_the_temperature_with_the_best_balance_draws(tmp_path: Path) -> None:
    settings = arithmetic(tmp_path, label_by="outcomes", temperatures=(0.25, 4.0), rounds=1, tried=4)
    summary = train_in_rounds(tmp_path / "out", settings, replace(FEW, objective="outcome"))
    told = summary["rounds"][0]["0"]["label"]["sampled"]
    # Nothing right is written at a temperature of 4.
    assert told["balance"]["0.25"] > told["balance"]["4.0"]
    assert told["temperature"] == 0.25
    found = [*stepreward.read(tmp_path / "out/seed-0/round-1/sampled.parquet")]
    names = {one.problem.id for one in found}
    parts = []
    for one in generate("train", 4):
        outcomes = [row.outcome > 0.5 for row in found if row.problem.id == one.id]
        # With no model the least total of a right sample is 1, and every threshold from 0 on keeps the right ones.
        parts.append(min(1.0, sum(outcomes) / 3) if one.id in names else 0.0)
    assert told["balance"]["0.25"] == pytest.approx(np.mean(parts))
    assert ">0.25<" in (tmp_path / "out/rounds.html").read_text()
    line = (
        f"rounds --out {tmp_path / 'out'} --held-out-data {tmp_path / 'held.jsonl'} --problems "
        f"{tmp_path / 'problems.jsonl'} --label-by outcomes --temperatures 0.25 --temperatures 4 --rounds 1 --tried 4 "
        "--samples 3 --held-out-samples 3 --grader arithmetic --share-kept 0 --objective outcome --epochs 1 "
        "--batch-tokens 512 --evaluations 1 --json"
    )
    assert numbers(json.loads(invoke(line))) == numbers(summary)


def test_a_round_learns_from_the_last_model_s_own_ranks(tmp_path: Path) -> None:
    seed = replace(arithmetic(tmp_path, label_by="outcomes", rounds=1), samples=6)
    ranked = replace(FEW, objective="outcome")
    train_in_rounds(tmp_path / "seed", seed, ranked)
    labelled = tmp_path / "seed/seed-0/round-1/sampled.parquet"
    settings = arithmetic(tmp_path, label_by="ranks", labelled=labelled, temperatures=(2.0,))
    summary = train_in_rounds(tmp_path / "out", settings, ranked)
    told = summary["rounds"][1]["0"]["label"]["sampled"]
    found = [*stepreward.read(tmp_path / "out/seed-0/round-2/sampled.parquet")]
    assert told["solutions"] == len(found) > 0
    model = stepreward.load(tmp_path / "out/seed-0/round-1/model")
    for name in {one.problem.id for one in found}:
        right, wrong = sorted((one for one in found if one.problem.id == name), key=lambda one: -one.outcome)
        assert (right.outcome, wrong.outcome) == (1, 0)
        best, worst = (float(np.nanmin(one.column("score"))) for one in stepreward.score([right, wrong], model))
        assert best > worst
    alike = [(one.outcome > 0.5) == (one.facts["graded"] > 0.5) for one in found]
    assert told["graded_alike"] == np.mean(alike)
    assert not (tmp_path / "out/seed-0/round-1/sampled.parquet").exists()
    # The same by the command, in the same folder: nothing is done again.
    line = (
        f"rounds --out {tmp_path / 'out'} --held-out-data {tmp_path / 'held.jsonl'} --labelled {labelled} --problems "
        f"{tmp_path / 'problems.jsonl'} --label-by ranks --temperatures 2 --rounds 2 --samples 3 --held-out-samples 3 "
        "--grader arithmetic --share-kept 0 --objective outcome --epochs 1 --batch-tokens 512 --evaluations 1 --json"
    )
    assert numbers(json.loads(invoke(line))) == numbers(summary)


def test_the_curve_is_worked_by_hand() -> None:
    def solutions(scores: list[list[float]]) -> list[Trajectory]:
        """Two problems with a right and a wrong solution of two steps; the last step of a wrong one is wrong."""
        return [
            Trajectory(
                Problem(str(i // 2), "?"), (Step("a"), Step("b")), float(i % 2 == 0),
                columns={"label": np.array([1.0, float(i % 2 == 0)]), "score": np.array(some)},
            )
            for i, some in enumerate(scores)
        ]  # fmt: skip

    good = solutions([[0.9, 0.8], [0.9, 0.1], [0.8, 0.7], [0.9, 0.2]])
    # In the first problem the wrong solution has the higher least score, in the second the lower one.
    mixed = solutions([[0.9, 0.3], [0.9, 0.4], [0.8, 0.7], [0.9, 0.2]])
    summary = summarise([[mixed, mixed], [good, mixed]])
    values = {name: [one["value"] for one in rows] for name, rows in summary["curve"].items()}
    assert values["best_of_n"] == [0.5, 0.75]
    assert values["chance"] == [0.5, 0.5]
    # Of 6 right and 2 wrong steps: 11 of 12 pairs are in order, as 0.3 is below 0.4, or all.
    assert values["steps"] == pytest.approx([11 / 12, 23 / 24])
    # Least scores of right ones 0.3 and 0.7, of wrong ones 0.4 and 0.2: 3 of 4 pairs.
    assert values["outcomes"] == pytest.approx([3 / 4, 7 / 8])
    assert summary["curve"]["best_of_n"][1]["seeds"] == [1.0, 0.5]
    gain = summary["versus_first"]["best_of_n"][1]
    assert gain["value"] == 0.25
    # 1 where the seed that gains and the problem that it gains are drawn twice, one draw in 16, whichever seed it is.
    other = summarise([[mixed, mixed], [mixed, good]])["versus_first"]["best_of_n"][1]
    assert (gain["low"], gain["high"]) == (other["low"], other["high"]) == (0.0, 1.0)
    # A model that changes nothing loses nothing and gains nothing, but two problems do not exclude either.
    same = summarise([[mixed], [mixed]])["versus_first"]["best_of_n"][1]
    assert same["low"] == pytest.approx(-same["high"])
    assert same["low"] < 0
    # A solution without any score is the last choice, not the first.
    silent = solutions([[0.9, 0.8], [np.nan, np.nan], [0.8, 0.7], [0.9, 0.2]])
    assert summarise([[silent]])["curve"]["best_of_n"][0]["value"] == 1.0
    assert "chance" not in summary["versus_first"]


def test_what_cannot_be_done_is_refused_before_anything_is(tmp_path: Path, settings: RoundsSettings) -> None:
    out = tmp_path / "out"
    for change, said in [
        ({"labelled": None}, "the first round has nothing to learn from"),
        ({"solutions": None}, "every round would be the first one again"),
        ({"search": "beam"}, "a search needs problems"),
        ({"keep": ("consensus",)}, "no second source"),
        ({"settings": ("n=3",)}, "setting of bce or pseudo-label"),
        ({"temperatures": (1.0,)}, "--temperatures are of samples, and there are none"),
        ({"problems": settings.held_out, "first_estimator": "alphamath"}, "the first round has no reward model"),
        (
            {"problems": settings.held_out, "estimator": "alphamath", "search": "beam"},
            "alphamath grows solutions of its own, and --search beam finds others",
        ),
        ({"held_out": settings.solutions}, "6 of 6 held-out problems are learned from"),
    ]:
        with pytest.raises(SteprewardError, match=said):
            train_in_rounds(out, replace(settings, **change), FEW)
        if "held_out" not in change:
            assert not out.exists()


def test_a_round_that_adds_nothing_says_why_and_has_the_model_before_it(
    tmp_path: Path, settings: RoundsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, trained = tmp_path / "out", list[Path]()
    real, scored = module.train, list[int]()
    monkeypatch.setattr(module, "train", lambda data, to, **how: (trained.append(to), real(data, to, **how)))
    real_score = module.score
    for place in (module, found_in_round):
        monkeypatch.setattr(
            place, "score", lambda rows, *a, **k: (scored.append(len(rows)), real_score(rows, *a, **k))[1]
        )
    # After one pass no score is above 0.999 or below 0.001.
    unsure = replace(settings, settings=("above=0.999", "below=0.001"), rounds=3)
    said = (
        "2 of 3 rounds added nothing to learn from, round 2 of seed 0 first: the last model is sure of none of 72 steps"
    )
    with pytest.warns(IncompleteWarning, match=said) as told:
        summary = train_in_rounds(out, unsure, FEW)
    assert trained == [out / "seed-0/round-1/model"]
    # The solutions are scored in the second round alone: the third one has the same model. The held-out data once.
    assert scored == [24, 24]
    assert [one["place"] for one in summary["idle"]] == ["round 2 of seed 0", "round 3 of seed 0"]
    assert [one["model_of_round"] for one in summary["idle"]] == [1, 1]
    values = [one["value"] for one in summary["curve"]["steps"]]
    assert values == [values[0]] * 3
    assert summary["versus_first"]["steps"][2]["value"] == 0
    assert not (out / "seed-0/round-2/pseudo.parquet").exists()
    low, high = (float(part) for part in re.findall(r"from ([\d.]+) to ([\d.]+) ", str(told[0].message))[0])
    found = [*stepreward.score(world(6, 1), stepreward.load(out / "seed-0/round-1/model"))]
    scores = np.concatenate([one.column("score") for one in found])
    assert (low, high) == (float(f"{scores.min():.3g}"), float(f"{scores.max():.3g}"))
    assert "has the model of an earlier one: round 2 of seed 0 that of round 1" in (out / "rounds.html").read_text()
    # A later call says it again, and trains nothing.
    with pytest.warns(IncompleteWarning, match="3 of 4 rounds"):
        train_in_rounds(out, replace(unsure, rounds=4), FEW)
    assert len(trained) == 1


def test_a_round_that_filters_empty_goes_on_where_the_policy_may_find_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Solutions of the second round alone are left out; the third one learns again, by the first one's model."""
    for name, n, part in (("problems", 4, "train"), ("held", 3, "held_out")):
        rows = [{"id": one.id, "prompt": one.text, "reference": one.reference} for one in generate(part, n)]  # type: ignore[arg-type]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = RoundsSettings(
        tmp_path / "held.jsonl", problems=tmp_path / "problems.jsonl", rounds=3, label_by="outcomes", samples=6,
        held_out_samples=3, grader="arithmetic", share_kept=0.0,
    )  # fmt: skip
    real, seen = module._Job._kept, list[int]()

    def kept(job: Any, rows: Any) -> Any:
        seen.append(len(rows))
        return [] if len(seen) == 2 else real(job, rows)

    monkeypatch.setattr(module._Job, "_kept", kept)
    with pytest.warns(IncompleteWarning, match=r"1 of 3 rounds .* leaves out all of \d+ solutions"):
        summary = train_in_rounds(tmp_path / "out", settings, replace(FEW, objective="outcome"))
    assert [one["round"] for one in summary["idle"]] == [2]
    assert [(tmp_path / f"out/seed-0/round-{k}/model").is_dir() for k in (1, 2, 3)] == [True, False, True]
    values = [one["value"] for one in summary["curve"]["outcomes"]]
    assert values[1] == values[0]


def test_a_first_round_without_anything_to_learn_from_ends_the_run(tmp_path: Path) -> None:
    rows = [{"id": one.id, "prompt": one.text, "reference": one.reference} for one in generate("train", 2)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stepreward.write(tmp_path / "held.parquet", world(3, 2))
    settings = RoundsSettings(
        tmp_path / "held.parquet", problems=tmp_path / "problems.jsonl", label_by="outcomes", samples=1, rounds=1,
        grader="arithmetic",
    )  # fmt: skip
    said = "round 1 of seed 0 has nothing to learn from: bradley-terry finds nothing to learn from in 2 solutions; pass"
    for _ in range(2):
        # One solution of each problem is no pair; a second run looks again.
        with pytest.raises(InputError, match=said):
            train_in_rounds(tmp_path / "out", settings, replace(FEW, objective="bradley-terry"))


def test_rounds_are_a_verb_with_settings_by_name(tmp_path: Path, settings: RoundsSettings) -> None:
    files = {name: str(getattr(settings, name)) for name in ("held_out", "labelled", "solutions")}
    how = {"backbone": "scratch", "settings": SURE, "epochs": 1, "batch_tokens": 512, "evaluations": 1}
    made = stepreward.rounds(tmp_path / "out", **files, **how, rounds=1)
    assert numbers(made) == numbers(train_in_rounds(tmp_path / "again", replace(settings, rounds=1), FEW))
    with pytest.raises(InputError, match="held-out data; pass held_out="):
        stepreward.rounds(tmp_path / "out", labelled=files["labelled"])
    with pytest.raises(TypeError, match="nothing"):
        stepreward.rounds(tmp_path / "out", **files, nothing=1)
