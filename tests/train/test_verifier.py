"""A verifier reads the problem's reference answer: in training, in scoring, in updates beside a policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.cli.running import invoke, refused
from tests.train.test_online import implicit
from tests.train.toy import toy_model

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer
from stepreward.score.calibrate.calibrators import Identity
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.tools.equations import ToolScorer
from stepreward.train.data.fingerprint import fingerprint
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.online import online_objective, outcome_cross_entropy, right_over_wrong

WORDS = ("red", "blue")


def verdicts(n: int) -> list[dict[str, Any]]:
    """Rows in TRL's layout: an answer is right iff it is the reference, which no question tells."""
    return [
        {"prompt": f"Ball {i}", "reference": WORDS[i % 2], "completions": [word], "labels": [right]}
        for i in range(n)
        for word, right in ((WORDS[i % 2], True), (WORDS[1 - i % 2], False))
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verifier")
    data = write(folder / "rows.jsonl", verdicts(60))
    fast = "--backbone scratch --epochs 14 --batch-tokens 256 --row-tokens 64 --held-out 0.25"
    made = json.loads(
        invoke(f"train --data {data} --out {folder / 'model'} {fast} --prompt-format '{{prompt}} {{reference}}' --json")
    )
    assert made["metrics"]["auroc"] == 1
    return folder / "model"


def test_a_trained_verifier_judges_an_answer_by_the_reference(verifier: Path) -> None:
    scorer = stepreward.load(verifier)
    assert isinstance(scorer, DiscriminativeScorer)
    for word in WORDS:
        same, other = (
            float(scorer.score("Ball 7", [word], reference=known)[0]) for known in (word, *({*WORDS} - {word}))
        )
        assert same > 0.5 > other
    # Updates beside a policy read the number that scoring reads.
    rows = [Trajectory(Problem("b", "Ball", word), (Step("red"),), float(word == "red")) for word in WORDS]
    p = np.array([one.scores[0] for one in scorer.score_many([Score(one.problem, one.steps) for one in rows])])
    loss = sum(outcome_cross_entropy(scorer, rows))
    assert isinstance(loss, torch.Tensor)
    assert loss.item() == pytest.approx(-(np.log(p[0]) + np.log(1 - p[1])) / 2, rel=1e-4)


def test_a_continued_verifier_keeps_its_prompt_or_takes_another(verifier: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", verdicts(8))
    line = f"train --data {data} --backbone {verifier} --keep-head --epochs 1 --held-out 0 --out {tmp_path / 'more'}"
    for flags, form in (
        ("", "{prompt} {reference}"),
        ("--overwrite --prompt-format '{reference}? {prompt}'", "{reference}? {prompt}"),
    ):
        invoke(f"{line} {flags}")
        assert stepreward.load(tmp_path / "more").model.record.encoding.prompt_format == form


def test_data_without_references_are_refused_with_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = verdicts(4)
    del rows[2]["reference"], rows[3]["reference"]
    data = write(tmp_path / "some.jsonl", rows)
    line = f"train --data {data} --backbone scratch --epochs 1 --out {tmp_path / 'model'}"
    said = refused(f"{line} --prompt-format '{{prompt}} {{reference}}'", capsys, monkeypatch)
    assert "some.jsonl: 2 of 8 solutions have no reference answer, which the prompt holds; that of problem" in said
    assert "give their rows a 'reference'" in said
    assert "prompt_format must hold {prompt}" in refused(f"{line} --prompt-format x", capsys, monkeypatch)
    with pytest.raises(InputError, match="2 of 8 solutions have no reference"):
        stepreward.train(data, tmp_path / "model", backbone="scratch", prompt_format="{prompt} {reference}")
    # A prompt without the reference needs none.
    invoke(f"{line} --held-out 0")


def test_references_are_part_of_the_data_of_a_verifier_alone() -> None:
    def trees(reference: str | None) -> Any:
        problem = Problem("p", "Ball", reference)
        return labelled_trees([Trajectory(problem, (Step("red"),), columns={"label": np.ones(1)})])

    assert fingerprint(trees("red")) == fingerprint(trees("blue")) == fingerprint(trees(None))
    assert fingerprint(trees("red"), references=True) != fingerprint(trees("blue"), references=True)


def test_another_reference_is_another_training(verifier: Path, tmp_path: Path) -> None:
    """A finished training is that of the same data only where its references are the same."""
    line = f"--backbone {verifier} --keep-head --epochs 1 --held-out 0 --out {tmp_path / 'more'} --json"
    rows = verdicts(6)
    invoke(f"train --data {write(tmp_path / 'rows.jsonl', rows)} {line}")
    steps = json.loads(invoke(f"train --data {tmp_path / 'rows.jsonl'} {line}"))["steps"]
    assert steps == 1
    swapped = [row | {"reference": WORDS[1 - WORDS.index(row["reference"])]} for row in rows]
    write(tmp_path / "rows.jsonl", swapped)
    invoke(f"train --data {tmp_path / 'rows.jsonl'} {line}", status=1)


def pairs_of(*logits: tuple[float, float]) -> Any:
    """A stand-in for the last logits: of each problem, those of its right and its wrong solution."""
    weights = torch.tensor(logits, requires_grad=True)
    return weights, lambda _, rows: [([*range(len(rows))], weights[int(rows[0].problem.id)][: len(rows)])]


@pytest.mark.parametrize(
    ("wrong", "loss"),
    # -log sigmoid(1) = 0.3133, -log sigmoid(-1) = 1.3133: the first alone, both, none.
    [((0,), 0.3133), ((0, 1), 0.8133), ((), 0.0)],
)
def test_the_loss_of_pairs_is_a_mean_over_the_problems_that_have_one(
    wrong: tuple[int, ...], loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, last = pairs_of((1.0, 0.0), (0.0, 1.0))
    monkeypatch.setattr("stepreward.train.online._last_logits", last)
    rows = [Trajectory(Problem(str(i), "?"), (Step("r"),), 1.0) for i in range(2)]
    rows += [Trajectory(Problem(str(i), "?"), (Step("w"),), 0.0) for i in wrong]
    total = sum(right_over_wrong(None, rows, pairs="first"), torch.zeros((), requires_grad=True))  # type: ignore[arg-type]
    assert total.item() == pytest.approx(loss, abs=1e-4)
    total.backward()
    gradient = torch.zeros(2, 2) if weights.grad is None else weights.grad
    assert (gradient != 0).any() == (loss > 0)
    # Pairs move a right and a wrong solution apart by as much: nothing holds the zero of the scores.
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(2))


def test_the_kind_of_model_decides_what_outcomes_teach() -> None:
    scorer, _, _ = implicit()
    assert online_objective("outcomes", scorer).__name__ == "implicit_cross_entropy"  # type: ignore[attr-defined]
    headed = DiscriminativeScorer(toy_model())
    assert online_objective("outcomes", headed) is outcome_cross_entropy
    assert online_objective("pairs", headed) is right_over_wrong
    for name, other in (("pairs", scorer), ("outcomes", ToolScorer()), ("pairs", CalibratedScorer(headed, Identity()))):
        with pytest.raises(InputError, match=f"cannot learn by {name}"):
            online_objective(name, other)
