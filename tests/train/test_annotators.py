"""Pairs that several annotators compared, and pairs that several facts decide: numbers by hand, and training."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.toy import toy_model

import stepreward
from stepreward.core.catalog import loss as family
from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.encode.record import PerStep
from stepreward.train.annotator_scores import annotator_formulas, readout_of_annotators
from stepreward.train.data.factors import Factor, better_by
from stepreward.train.data.fingerprint import fingerprint
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.objective import Objective
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train
from stepreward.train.training_result import TrainResult

NAN = float("nan")
PAIR = {"pairs": torch.tensor([[0, 1]]), "annotator": torch.tensor([0])}
SETTINGS = TrainSettings(epochs=30, learning_rate=3e-3, batch_tokens=512, row_tokens=256, evaluations=1, outputs=2)


def value(name: str, data: dict[str, torch.Tensor], **settings: Any) -> float:
    return float(family[name].take(data, **settings))


def test_reward_features() -> None:
    """f_w - f_l = (1, 2), w = (1/2, -1/4): d = 0, log 2. One feature of weight 1 is Bradley-Terry: 0.3133 at d = 1."""
    ends, users = torch.tensor([[1.5, 2.0], [0.5, 0.0]]), torch.tensor([[0.5, -0.25]])
    data = {"ends": ends, "users": users, **PAIR}
    assert value("reward-features", data) == pytest.approx(math.log(2), abs=1e-6)
    assert value("reward-features", data, prior=2.0) == pytest.approx(math.log(2) + 2 * 0.3125, abs=1e-6)
    angle = torch.tensor(0.7)
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    other = {"ends": torch.tensor([[3.0, -1.0], [1.0, 0.5]]), "users": torch.tensor([[0.2, 0.9]]), **PAIR}
    turned = other | {"ends": other["ends"] @ turn, "users": other["users"] @ turn}
    assert value("reward-features", turned) == pytest.approx(value("reward-features", other), abs=1e-6)
    one = {"ends": torch.tensor([[1.0], [0.0]]), "users": torch.ones(1, 1), **PAIR}
    assert value("reward-features", one) == pytest.approx(0.3133, abs=1e-4)
    assert value("reward-features", one | {"annotator": torch.tensor([-1])}) == 0


def test_ideal_point() -> None:
    """The point at 0, x = (3, 4) and (0, 1): distances 5 and 1. The nearer one better: hinge 0; the other one: 5."""
    data = {"ends": torch.tensor([[0.0, 1.0], [3.0, 4.0]]), "users": torch.zeros(1, 2), **PAIR}
    assert value("ideal-point", data) == 0
    assert value("ideal-point", data | {"pairs": torch.tensor([[1, 0]])}) == 5
    assert value("ideal-point", data, link="logistic") == pytest.approx(math.log1p(math.exp(-4)), abs=1e-6)


def test_mixture() -> None:
    """f = (1/2, 1/2), d = (2, -1): -log((0.8808 + 0.2689) / 2) = 0.5536, and the entropy's part is -spread log 2."""
    ends = torch.tensor([[2.0, 0.0, 1.0, 0.0], [0.0, 1.0, -1.0, 0.0]])
    data = {"ends": ends, "pairs": PAIR["pairs"]}
    assert value("mixture", data, spread=0.0) == pytest.approx(0.5536, abs=1e-4)
    assert value("mixture", data, spread=0.5) == pytest.approx(0.5536 - 0.5 * math.log(2), abs=1e-4)
    equal = torch.tensor([[1.0, 1.0, 3.0, -2.0], [0.0, 0.0, 5.0, 0.0]])
    assert value("mixture", {"ends": equal, "pairs": PAIR["pairs"]}, spread=0.0) == pytest.approx(0.3133, abs=1e-4)
    with pytest.raises(ValueError, match="even number of outputs"):
        value("mixture", {"ends": ends[:, :3], "pairs": PAIR["pairs"]})


def comparisons(n: int = 12) -> list[Trajectory]:
    """Ann prefers good solutions, bob bad ones; in each problem both compare the same two."""
    made = []
    for i in range(n):
        for name, liked in (("ann", "good"), ("bob!", "bad")):
            for word in ("good", "bad"):
                steps = (Step(f"{('fine', 'nice', 'well')[i % 3]}\n"), Step(f"{word}\n"))
                facts = {"annotator": name}
                made.append(Trajectory(Problem(f"p{i}", f"Say {i % 4}"), steps, float(word == liked), facts=facts))
    return made


def trained(objective: str, out: Path, rows: list[Trajectory], **settings: Any) -> tuple[TrainResult, Any]:
    chosen = TrainSettings(**{**vars(SETTINGS), "objective": objective, **settings})
    loss = chosen.loss()
    model = toy_model(record=loss.record(PerStep()))
    trees = labelled_trees(rows, loss)
    return train(trees, model, out, chosen, held_out=trees), model


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("objective", "shared"), [("reward-features", math.log(2)), ("ideal-point", 1.0)])
def test_each_annotator_has_a_score_of_the_own(objective: str, shared: float, tmp_path: Path) -> None:
    result, model = trained(objective, tmp_path / "model", comparisons())
    # One reward for all could at best say that both solutions are equal.
    assert result.metrics["loss"] < shared - 0.2
    scores = {}
    for name in ("", "of_ann", "of_bob_"):
        scorer = stepreward.load(tmp_path / "model", readout=name)
        scores[name] = [scorer.score("Say 1", ["fine\n", f"{word}\n"])[-1] for word in ("good", "bad")]
    assert scores["of_ann"][0] > scores["of_ann"][1]
    assert scores["of_bob_"][0] < scores["of_bob_"][1]
    formulas = json.loads((tmp_path / "model" / "annotators.json").read_text())
    assert [*formulas] == ["", "ann", "bob!"]
    bob = stepreward.load(tmp_path / "model", readout=formulas["bob!"])
    assert bob.score("Say 1", ["fine\n", "bad\n"])[-1] == scores["of_bob_"][1]
    # The numbers in the record are those that were trained.
    vectors = model.users.weight.detach().double().numpy()
    outputs = [
        stepreward.load(tmp_path / "model", readout=f"out{k}").score("Say 1", ["fine\n", "good\n"])[-1] for k in (0, 1)
    ]
    mean = vectors.mean(0)
    linear = objective == "reward-features"
    for name, vector in (("of_ann", vectors[0]), ("of_bob_", vectors[1]), ("", mean)):
        expected = np.dot(vector, outputs) if linear else -np.linalg.norm(np.array(outputs) - vector)
        assert scores[name][0] == pytest.approx(expected, abs=1e-5)


def test_annotators_that_a_formula_has_no_room_for_are_in_their_file_alone() -> None:
    names = tuple(f"annotator {i}" for i in range(300))
    objective = replace(TrainSettings(objective="ideal-point", outputs=4).loss(), annotators=names)
    formulas = annotator_formulas(objective, objective.readout(), np.ones((300, 4), np.float32))
    assert readout_of_annotators(objective, objective.readout(), formulas).formula == formulas[""]
    alike = replace(objective, annotators=("a b", "a-b"))
    formulas = annotator_formulas(alike, alike.readout(), np.ones((2, 4), np.float32))
    assert "annotator0 = " in readout_of_annotators(alike, alike.readout(), formulas).formula


def test_a_mixture_of_judges_is_read_as_it_was_trained(tmp_path: Path) -> None:
    mixed, _ = trained("mixture", tmp_path / "mixed", comparisons(), outputs=4, objective_settings={"spread": 0.0})
    # Either way round is right half of the time: nobody who does not know the annotator can do better than log 2.
    assert mixed.metrics["loss"] == pytest.approx(math.log(2), abs=0.01)
    record = json.loads((tmp_path / "mixed" / "stepreward.json").read_text())["readout"]
    assert record["names"] == ["kind0", "kind1", "gate0", "gate1"]
    parts = {
        name: stepreward.load(tmp_path / "mixed", readout=name).score("Say 1", ["fine\n", "good\n"])
        for name in ("", *record["names"])
    }
    shares = np.exp(parts["gate0"]), np.exp(parts["gate1"])
    expected = (shares[0] * parts["kind0"] + shares[1] * parts["kind1"]) / sum(shares)
    np.testing.assert_allclose(parts[""], expected, atol=1e-5)


def test_a_context_in_the_prompt_turns_a_preference_round(tmp_path: Path) -> None:
    """The same two solutions under two criteria: a model that ignores them would have a loss of log 2."""
    rows = []
    for i in range(12):
        for want in ("good", "bad"):
            for word in ("good", "bad"):
                problem = Problem(f"p{i}-{want}", f"Say {want} nice {i % 3}")
                rows.append(Trajectory(problem, (Step(f"{word}\n"),), float(word == want)))
    result, _ = trained("bradley-terry", tmp_path / "model", rows, outputs=0, epochs=60)
    assert result.metrics["loss"] < 0.2
    scorer = stepreward.load(tmp_path / "model")
    for want, other in (("good", "bad"), ("bad", "good")):
        right, wrong = (scorer.score(f"Say {want} nice 1", [f"{word}\n"])[-1] for word in (want, other))
        assert right > wrong


def test_what_one_annotator_said_is_not_compared_with_what_another_said() -> None:
    objective = Objective.of("bradley-terry")
    trees, encoder = labelled_trees(comparisons(1), objective), toy_model().encoder
    batch = TrainingSet(trees, encoder, objective, row_tokens=256, batch_tokens=512)[0]
    assert batch.data["pairs"].tolist() == [[0, 1], [3, 2]]
    # Both annotators' solutions are the same two branches: each is encoded once.
    alone = TrainingSet(
        labelled_trees(comparisons(1)[:2], objective), encoder, objective, row_tokens=256, batch_tokens=512
    )[0]
    assert batch.packed.tokens == alone.packed.tokens


def test_annotators_are_part_of_the_data_and_must_be_named(tmp_path: Path) -> None:
    objective = Objective.of("bradley-terry")
    one, other = labelled_trees(comparisons(1), objective), labelled_trees(comparisons(1), objective)
    assert fingerprint(one, objective) == fingerprint(other, objective)
    nameless = [Trajectory(row.problem, row.steps, row.outcome) for row in comparisons(2)[::2]]
    renamed = [Trajectory(r.problem, r.steps, r.outcome, facts={"annotator": "x"}) for r in comparisons(1)]
    assert fingerprint(one, objective) != fingerprint(labelled_trees(renamed, objective), objective)
    rows = [Trajectory(r.problem, r.steps, float(i % 2)) for i, r in enumerate(nameless)]
    rows = [*rows, Trajectory(rows[0].problem, (Step("well\n"),), 1.0)]
    with pytest.raises(
        InputError, match="needs to know who compared each pair; pass solutions with the fact 'annotator'"
    ):
        trained("reward-features", tmp_path, rows)


def test_the_first_factor_that_is_clear_decides() -> None:
    """HERON: (1, 0) against (0.8, 5) is not clear at a (0.2 <= 0.5), so b decides; and an infinite margin drops a."""
    a, b = np.array([1.0, 0.8]), np.array([0.0, 5.0])
    factors = [Factor.parse("a:0.5"), Factor.parse("b")]
    assert better_by(factors, [a, b]).tolist() == [[False, False], [True, False]]
    assert better_by([Factor("a"), Factor("b")], [a, b]).tolist() == [[False, True], [False, False]]
    assert better_by([Factor("a", 1e9), Factor("b", lower=True)], [a, b]).tolist() == [[False, True], [False, False]]
    assert not better_by([Factor("a")], [np.array([1.0, NAN])]).any()
    for wrong in ("", "-", "a:x", "a:-1"):
        with pytest.raises(InputError, match="is no factor"):
            Factor.parse(wrong)


def test_pairs_are_decided_by_facts_in_order(tmp_path: Path) -> None:
    rows = [
        Trajectory(Problem("p", "Say"), (Step(f"{word}\n"),), NAN, facts={"passed": passed, "length": length})
        for word, passed, length in (("good", 1, 9), ("fine", 1, 3), ("bad", 0, 1))
    ]
    settings = TrainSettings(objective="bradley-terry", factors=("passed", "-length"))
    objective = settings.loss()
    trees = labelled_trees(rows, objective)
    batch = TrainingSet(trees, toy_model().encoder, objective, row_tokens=256, batch_tokens=512)[0]
    assert batch.data["pairs"].tolist() == [[0, 2], [1, 0], [1, 2]]
    with pytest.raises(InputError, match="bce compares no pairs"):
        TrainSettings(factors=("passed",)).loss()
    with pytest.raises(InputError, match="a better and a worse solution"):
        labelled_trees(rows, Objective.of("bradley-terry"))
    result, _ = trained("bradley-terry", tmp_path / "model", rows, outputs=0, factors=("passed", "-length"))
    assert result.metrics["loss"] < 0.2
