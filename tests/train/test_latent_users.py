"""Users who are inferred from pairs that they compared: what the encoder is, its context, and users it never saw."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.cli.running import invoke
from tests.train.test_annotators import SETTINGS, trained
from tests.train.toy import toy_model

import stepreward
from stepreward.cli.flags.scorers import RecipeFlags
from stepreward.core.catalog import loss as family
from stepreward.core.errors import InputError, ModelError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.encode.record import PerStep
from stepreward.score.encode.record_file import load_record
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.user_encoder import ENCODER_FILE, UserEncoder, context_of
from stepreward.train.annotator_scores import readout_of_pairs
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.order import epoch_batches
from stepreward.train.objectives.annotators import gaussian_kl
from stepreward.train.trainer import train

PAIR = {"pairs": torch.tensor([[0, 1]]), "annotator": torch.tensor([0])}


def value(data: dict[str, torch.Tensor], **settings: Any) -> float:
    return float(family["vpl"].take({**PAIR, **data}, **settings))


def test_numbers_by_hand() -> None:
    """Mean (1/2, 0), log-variance (0, -1): 1/2 (1/4 + e^-1) = 0.3089; f differ by (1, 2), w = (1, 0): d = 1."""
    latents = torch.tensor([[0.5, 0.0, 0.0, -1.0]])
    assert float(gaussian_kl(*latents.chunk(2, -1))) == pytest.approx(0.3089, abs=1e-4)
    data = {"ends": torch.tensor([[1.5, 2.0], [0.5, 0.0]]), "users": torch.tensor([[1.0, 0.0]]), "latents": latents}
    assert value(data, kl=0.0) == pytest.approx(0.3133, abs=1e-4)
    assert value(data, kl=2.0) == pytest.approx(0.3133 + 2 * 0.3089, abs=2e-4)
    # Beyond what the encoder says the divergence grows no more.
    assert value(data | {"latents": 9 * torch.ones(1, 4)}, kl=1.0) == pytest.approx(0.3133 + (1 - 2 + math.e), abs=1e-3)
    assert value(data | {"annotator": torch.tensor([-1])}) == 0
    with pytest.raises(ValueError, match="kl must not be negative"):
        value(data, kl=-1.0)


def test_without_divergence_and_with_one_user_it_is_bradley_terry() -> None:
    rng = torch.Generator().manual_seed(0)
    ends, pairs = torch.randn(6, 3, generator=rng), torch.tensor([[0, 1], [2, 3], [5, 4]])
    one = torch.tensor([0.3, -1.0, 0.5])
    data = {"ends": ends, "users": one.expand(3, 3), "latents": torch.randn(3, 6, generator=rng), "pairs": pairs}
    data["annotator"] = torch.tensor([0, 1, 0])
    plain = family["bradley-terry"].take({"totals": ends @ one, "pairs": pairs})
    assert value(data, kl=0.0) == pytest.approx(float(plain), abs=1e-6)


def test_the_mean_over_one_pair_is_that_pairs_value() -> None:
    """With one pair attention has nothing to choose from; the rest is linear."""
    encoder = UserEncoder(2, 4, seed=3).eval()
    better, worse = torch.randn(2, 1, 2)
    each = encoder.pair(torch.cat([better, worse], -1))
    expected = encoder.latent(encoder.value(each))[0].clamp(-1, 1)
    torch.testing.assert_close(encoder.posterior(better, worse, torch.ones(1, dtype=torch.bool)), expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_pairs_and_padding_do_not_matter(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    encoder = UserEncoder(3, 2, seed=seed).eval()
    better, worse = torch.randn(2, 5, 3, generator=rng)
    whole = encoder.posterior(better, worse, torch.ones(5, dtype=torch.bool))
    order = torch.randperm(5, generator=rng)
    torch.testing.assert_close(encoder.posterior(better[order], worse[order], torch.ones(5, dtype=torch.bool)), whole)
    wide = torch.cat([better, 1e3 * torch.ones(4, 3)]), torch.cat([worse, -1e3 * torch.ones(4, 3)])
    torch.testing.assert_close(encoder.posterior(*wide, torch.arange(9) < 5), whole)
    # Which side was better does matter, and a slow loop says the same.
    assert not torch.allclose(encoder.posterior(worse, better, torch.ones(5, dtype=torch.bool)), whole, atol=1e-3)
    each = encoder.pair(torch.cat([better, worse], -1))
    rows = []
    for i in range(5):
        alike = torch.stack([encoder.query(each[i]) @ encoder.key(each[j]) / 8 for j in range(5)]).exp()
        rows.append(sum(alike[j] / alike.sum() * encoder.value(each[j]) for j in range(5)))
    torch.testing.assert_close(encoder.latent(sum(rows) / 5).clamp(-1, 1), whole)


def test_nobody_is_inferred_from_nothing() -> None:
    encoder = UserEncoder(2, 2)
    made = encoder.posterior(torch.zeros(4, 0, 2), torch.zeros(4, 0, 2), torch.zeros(4, 0, dtype=torch.bool))
    assert (made == 0).all()
    better = torch.randn(1, 3, 2, requires_grad=True)
    made = encoder.posterior(better, better, torch.zeros(1, 3, dtype=torch.bool))
    made.sum().backward()
    assert (made == 0).all()
    assert better.grad is not None
    assert (better.grad == 0).all()
    # The prior in training, its mean otherwise.
    draws = encoder.train().sampled(torch.zeros(4000, 4))
    assert draws.std() == pytest.approx(1, abs=0.05)
    assert (encoder.eval().sampled(torch.zeros(2, 4)) == 0).all()
    wide = encoder.train().sampled(torch.cat([torch.ones(4000, 2), -torch.ones(4000, 2)], -1))
    assert wide.mean() == pytest.approx(1, abs=0.05)
    assert wide.std() == pytest.approx(math.exp(-0.5), abs=0.05)


def test_a_context_has_other_pairs_of_the_same_user_from_other_problems() -> None:
    rng = np.random.default_rng(0)
    for most in (1, 3, 40):
        annotator, problem = torch.tensor(rng.integers(-1, 3, 25)), torch.tensor(rng.integers(0, 9, 25))
        real = torch.tensor(rng.random(25) < 0.8)
        made = context_of(annotator, problem, real, most=most)
        for p in range(25):
            may = {
                q for q in range(25)
                if annotator[p] >= 0 and annotator[q] == annotator[p] and problem[q] != problem[p] and real[q]
            }  # fmt: skip
            found = [q for q in made[p].tolist() if q >= 0]
            assert set(found) <= may
            assert len(found) == len({*found}) == min(most, len(may))
    assert context_of(*(torch.zeros(0, dtype=torch.long),) * 2, torch.zeros(0, dtype=torch.bool)).shape == (0, 0)


def test_a_pair_tells_nothing_of_itself() -> None:
    """A user's numbers for a pair do not change with the pair, nor with others of its problem."""
    encoder = UserEncoder(2, 3).eval()
    ends = torch.randn(6, 2, requires_grad=True)
    pairs, annotator = torch.tensor([[0, 1], [2, 3], [4, 5]]), torch.zeros(3, dtype=torch.long)
    users, latents = encoder(ends, pairs, annotator, ["a", "a", "a", "a", "b", "b"])
    (users[0].sum() + latents[0].sum()).backward()
    assert ends.grad is not None
    assert (ends.grad[:4] == 0).all()
    assert (ends.grad[4:] != 0).any()
    # A solution without a step is nobody's context.
    lost = ends.detach().clone()
    lost[4] = torch.nan
    users, latents = encoder(lost, pairs, annotator, ["a", "a", "a", "a", "b", "b"])
    assert (latents[0] == 0).all()
    assert users.isfinite().all()


def test_problems_of_a_user_share_batches() -> None:
    lengths, names = [10] * 60, [f"u{i % 6}" for i in range(60)]
    for rng in (None, np.random.default_rng(1)):
        made = list(epoch_batches(lengths, 50, 100, rng, names))
        assert sorted(i for batch in made for row in batch for i in row) == list(range(60))
        assert all(len({names[i] for row in batch for i in row}) == 1 for batch in made)
    mixed = list(epoch_batches(lengths, 50, 100, np.random.default_rng(1)))
    assert min(len({names[i] for row in batch for i in row}) for batch in mixed) > 1


def taste(name: str, liked: str, n: int, first: int = 0) -> list[Trajectory]:
    """What a user compared: the same two words behind another one, in problems of their own."""
    made = []
    for i in range(first, first + n):
        for word in ("good", "bad"):
            steps = (Step(f"{('fine', 'nice', 'well')[i % 3]}\n"), Step(f"{word}\n"))
            problem = Problem(f"{name}{i}", f"Say {i % 4}")
            made.append(Trajectory(problem, steps, float(word == liked), facts={"annotator": name} if name else {}))
    return made


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Path]:
    """The loss on two new users of a model of four with two tastes, and its folder."""
    out = tmp_path_factory.mktemp("users") / "model"
    chosen = replace(SETTINGS, objective="vpl", epochs=120, outputs=4, learning_rate=5e-3, batch_tokens=1024)
    objective = chosen.loss()
    rows = [row for i in range(4) for row in taste(f"user {i}", ("good", "bad")[i % 2], 4)]
    new = [*taste("carol", "good", 4, first=20), *taste("dan", "bad", 4, first=30)]
    trees, held_out = (labelled_trees(some, objective) for some in (rows, new))
    model = toy_model(record=objective.record(PerStep()))
    return train(trees, model, out, chosen, held_out=held_out).metrics["loss"], out


def test_users_who_want_different_things_are_told_apart(users: tuple[float, Path]) -> None:
    loss, folder = users
    # One reward for all could at best say that both are equal.
    assert loss < math.log(2) - 0.2
    for i in range(4):
        scorer = stepreward.load(folder, readout=f"of_user_{i}")
        good, bad = (scorer.score("Say 1", ["fine\n", f"{word}\n"])[-1] for word in ("good", "bad"))
        assert (good > bad) == (i % 2 == 0)
    assert [*json.loads((folder / "annotators.json").read_text())] == ["", *(f"user {i}" for i in range(4))]


@pytest.mark.parametrize("liked", ["good", "bad"])
def test_a_new_user_is_scored_by_their_own_pairs(users: tuple[float, Path], liked: str) -> None:
    _, folder = users
    other = {"good": "bad", "bad": "good"}[liked]
    formula = readout_of_pairs(taste("", liked, 4, first=20), folder)
    scorer = stepreward.load(folder, readout=formula)
    right, wrong = (scorer.score("Say 2", ["nice\n", f"{word}\n"])[-1] for word in (liked, other))
    assert right > wrong
    # The name of the user does not matter, nor the order of the pairs.
    named = readout_of_pairs(taste("carol", liked, 4, first=20)[::-1], folder)
    again = stepreward.load(folder, readout=named).score("Say 2", ["nice\n", f"{liked}\n"])[-1]
    assert again == pytest.approx(right, abs=1e-4)
    with pytest.raises(InputError, match="the pairs are of ann, bob; keep those of one user"):
        readout_of_pairs([*taste("ann", liked, 2), *taste("bob", liked, 2)], folder)


def test_a_user_is_inferred_by_so_many_pairs_at_most(
    users: tuple[float, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = users
    encoder = StepRewardModel.from_pretrained(folder).users
    assert isinstance(encoder, UserEncoder)
    monkeypatch.setattr("stepreward.train.annotator_scores._MOST_PAIRS", 0)
    found = readout_of_pairs(taste("", "good", 3), folder)[9:-1].split(",")
    # By none the mean of z is 0.
    np.testing.assert_allclose(np.array(found, np.float64), encoder.weights.bias.detach().numpy(), atol=1e-6)


def test_the_encoder_is_a_part_of_the_checkpoint(users: tuple[float, Path], tmp_path: Path) -> None:
    _, folder = users
    model = StepRewardModel.from_pretrained(folder)
    assert isinstance(model.users, UserEncoder)
    model.save_pretrained(tmp_path)
    rows = taste("x", "bad", 3)
    assert readout_of_pairs(rows, tmp_path) == readout_of_pairs(rows, folder)
    assert load_record(tmp_path)[0] == load_record(folder)[0]
    # A user of the training has the numbers that their own pairs give.
    own = json.loads((folder / "annotators.json").read_text())["user 3"]
    numbers, mine = (
        np.array(text[9:-1].split(","), np.float64) for text in (own, readout_of_pairs(taste("", "bad", 4), folder))
    )
    np.testing.assert_allclose(mine, numbers, atol=1e-5)
    model.users = None
    model.save_pretrained(tmp_path)
    assert not (tmp_path / ENCODER_FILE).exists()
    with pytest.raises(InputError, match="infers no user from pairs"):
        readout_of_pairs(rows, tmp_path)
    (tmp_path / ENCODER_FILE).write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot load the encoder of users"):
        StepRewardModel.from_pretrained(tmp_path)


def test_a_user_is_learned_from_several_problems(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody compared two"):
        trained("vpl", tmp_path, [*taste("ann", "good", 1), *taste("bob", "bad", 1)])
    objective = replace(SETTINGS, objective="vpl").loss()
    assert objective.compares_problems
    with pytest.raises(InputError, match="drop both_ways"):
        objective.record(PerStep(), both_ways=True)


def test_from_the_command_line(tmp_path: Path) -> None:
    rows, mine, found = (tmp_path / name for name in ("rows.parquet", "mine.jsonl", "scored.jsonl"))
    stepreward.write(rows, [row for i in range(4) for row in taste(f"u{i}", ("good", "bad")[i % 2], 3)])
    stepreward.write(mine, taste("", "bad", 3, first=30))
    invoke(
        f"train --data {rows} --out {tmp_path / 'rm'} --objective vpl --outputs 2 --set kl=0.02 --epochs 1 --held-out 0"
    )
    invoke(f"score --data {mine} --model {tmp_path / 'rm'} --user-pairs {mine} --out {found}")
    formula = readout_of_pairs(taste("", "bad", 3, first=30), tmp_path / "rm")
    scorer = stepreward.load(tmp_path / "rm", readout=formula)
    for row in stepreward.read(found):
        expected = scorer.score(row.problem.text, [step.text for step in row.steps])
        np.testing.assert_allclose(row.column("score"), expected, atol=1e-6)
    with pytest.raises(InputError, match="pass it or --readout, not both"):
        RecipeFlags(user_pairs=mine, readout="out0").scorer(str(tmp_path / "rm"))
    with pytest.raises(InputError, match="say how a model is scored"):
        RecipeFlags(user_pairs=mine).require(model=False)
