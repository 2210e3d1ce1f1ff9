"""Critics of steps and states, and the lagging copy of which their targets are made."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.running import invoke
from tests.train.toy import rows_with_observations, toy_labels, toy_model

import stepreward
from stepreward.core.catalog import loss as family
from stepreward.core.errors import InputError, ModelError
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.remote.head_outputs import HeadReader
from stepreward.score.remote.token_outputs import TokenOutputs
from stepreward.train import step_trainer
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import make_batches
from stepreward.train.objective import Objective
from stepreward.train.other_models.lagging import LAGGING_FILE, LaggingCopy
from stepreward.train.trainer import TrainSettings, train

NAN = float("nan")
QUICK = TrainSettings(objective="archer", epochs=1, learning_rate=3e-3, batch_tokens=512, row_tokens=256, evaluations=1)


def tensor(*values: Any) -> torch.Tensor:
    return torch.tensor(np.array(values, np.float64))


def real(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def critics(**given: torch.Tensor) -> dict[str, torch.Tensor]:
    data = {"rewards": tensor([0.0, 0.0]), "outcome": tensor(1.0), "mask": real(1, 2)}
    return data | given


class TestTwinCritics:
    def test_a_step_before_the_end_and_the_last_one(self) -> None:
        """Lagging V of 0.5 and 0.7 before step 2: targets 0.45 and 0.63 of step 1, and the outcome 1 of step 2. Lagging
        Q of 0.8 and 0.2, then 0.6 and 0.1, are the targets of the states before the steps. All outputs are 0."""
        late = tensor([[0.8, 0.2, 9.0, 9.0], [0.6, 0.1, 0.5, 0.7]])
        data = critics(outputs=torch.zeros(1, 2, 4, dtype=torch.float64), lagging_outputs=late)
        by_steps = (0.45**2 + 0.63**2 + 1 + 1) / 2
        by_states = (0.8**2 + 0.2**2 + 0.6**2 + 0.1**2) / 2
        assert float(family["archer"].take(data)) == pytest.approx(by_steps + by_states)

    def test_each_critic_has_targets_of_its_own_copy(self) -> None:
        rng = np.random.default_rng(0)
        data = critics(outputs=tensor(*rng.normal(size=(1, 2, 4))), lagging_outputs=tensor(*rng.normal(size=(1, 2, 4))))
        one, other = (
            float(
                family["archer"].take(
                    data | {name: data[name][..., [k, k + 2]] for name in ("outputs", "lagging_outputs")}, critics=1
                )
            )
            for k in (0, 1)
        )
        assert float(family["archer"].take(data)) == pytest.approx(one + other)

    @given(st.integers(0, 10_000), st.floats(0, 1))
    def test_it_equals_a_loop_over_steps(self, seed: int, gamma: float) -> None:
        rng = np.random.default_rng(seed)
        z, late = rng.normal(size=(2, 3, 4, 4))
        r, o, lengths = rng.normal(size=(3, 4)), rng.normal(size=3), rng.integers(1, 5, 3)
        r[rng.random((3, 4)) < 0.2] = NAN
        o[rng.random(3) < 0.3] = NAN
        r[0] = NAN
        of_step, of_state = [], []
        for b in range(3):
            last = lengths[b] - 1
            earned = np.where(np.isnan(r[b, :last]).all() & ~np.isnan(o[b]), 0.0, r[b])
            earned[last] = o[b]
            for s in range(lengths[b]):
                if np.isnan(earned[s]):
                    continue
                of_step.append(
                    sum(
                        (z[b, s, i] - earned[s] - gamma * (late[b, s + 1, i + 2] if s < last else 0)) ** 2
                        for i in (0, 1)
                    )
                )
                of_state.append(sum((z[b, s, i + 2] - late[b, s, i]) ** 2 for i in (0, 1)))
        mask = torch.tensor(np.arange(4) < lengths[:, None])
        data = {
            "outputs": torch.tensor(z), "lagging_outputs": torch.tensor(late), "rewards": torch.tensor(r),
            "outcome": torch.tensor(o), "mask": mask,
        }  # fmt: skip
        wanted = sum(np.mean(one) if one else 0.0 for one in (of_step, of_state))
        assert float(family["archer"].take(data, gamma=gamma)) == pytest.approx(wanted)

    def test_settings_out_of_range_are_named(self) -> None:
        data = critics(outputs=torch.zeros(1, 2, 4), lagging_outputs=torch.zeros(1, 2, 4))
        for settings in ({"gamma": 1.1}, {"critics": 3}):
            with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got .*; .* outputs of"):
                family["archer"].take(data, **settings)


WORDS = ("good", "fine", "bad")
GAMMA = 0.9


def outcome_of(words: tuple[str, ...]) -> float:
    """Right unless "bad" was said once; said twice it is made good."""
    return float(words.count("bad") != 1)


def world(*, uneven: bool) -> list[Trajectory]:
    """Every solution of three steps; where uneven, "good" is said three times as often as another word."""
    made = []
    for words in itertools.product(WORDS, repeat=3):
        one = Trajectory(Problem("p", "Say something"), tuple(Step(f"{w}\n") for w in words), outcome_of(words))
        made += [one] * (3 ** words.count("good") if uneven else 1)
    return made


def value(words: tuple[str, ...], *, uneven: bool = False) -> float:
    """V of the state behind these steps, by recursion over all that may follow."""
    shares = [3.0 if uneven and w == "good" else 1.0 for w in WORDS]
    return float(np.average([worth((*words, w), uneven=uneven) for w in WORDS], weights=shares))


def worth(words: tuple[str, ...], *, uneven: bool = False) -> float:
    """Q of the last of these steps."""
    return outcome_of(words) if len(words) == 3 else GAMMA * value(words, uneven=uneven)


class TestLearnedValues:
    @pytest.mark.parametrize("uneven", [False, True])
    def test_free_numbers_learn_the_exact_values(self, uneven: bool) -> None:
        """Tables of numbers, a row a step and a row a state, under gradient descent with a lagging copy."""
        rows = world(uneven=uneven)
        paths = [tuple(step.text.strip() for step in row.steps) for row in rows]
        steps = sorted({path[: s + 1] for path in paths for s in range(3)})
        states = sorted({path[:s] for path in paths for s in range(3)})
        of_step = torch.tensor([[steps.index(path[: s + 1]) for s in range(3)] for path in paths])
        of_state = torch.tensor([[states.index(path[:s]) for s in range(3)] for path in paths])
        rng = np.random.default_rng(0)
        tables = [torch.tensor(rng.normal(size=(len(one), 2)), requires_grad=True) for one in (steps, states)]
        late, optimizer = [one.detach().clone() for one in tables], torch.optim.Adam(tables, lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
        data = {
            "rewards": torch.full((len(rows), 3), NAN).double(), "outcome": tensor(*[row.outcome for row in rows]),
            "mask": real(len(rows), 3),
        }  # fmt: skip
        for _ in range(400):
            outputs, lagging = (torch.cat([q[of_step], v[of_state]], -1) for q, v in (tables, late))
            made = family["archer"].take(data | {"outputs": outputs, "lagging_outputs": lagging}, gamma=GAMMA)
            optimizer.zero_grad()
            made.value.backward()
            optimizer.step()
            schedule.step()
            for old, now in zip(late, tables, strict=True):
                old.lerp_(now.detach(), 0.1)
        for table, wanted in (
            (tables[0], [worth(one, uneven=uneven) for one in steps]),
            (tables[1], [value(one, uneven=uneven) for one in states]),
        ):
            np.testing.assert_allclose(table.detach(), np.array(wanted)[:, None].repeat(2, 1), atol=5e-3)

    def test_a_trained_model_scores_the_exact_values_and_advantages(self, tmp_path: Path) -> None:
        settings = replace(QUICK, epochs=120, learning_rate=1e-2, polyak=0.3, row_tokens=512, batch_tokens=4096)
        objective = settings.loss()
        rows = world(uneven=False)
        train(labelled_trees(rows, objective), toy_model(record=objective.record(PerStep())), tmp_path, settings)
        read = [stepreward.load(tmp_path, readout=text) for text in ("", "v", "advantage")]
        for row in rows:
            path = tuple(step.text.strip() for step in row.steps)
            q, v, advantage = (one.score("Say something", [step.text for step in row.steps]) for one in read)
            np.testing.assert_allclose(q, [worth(path[: s + 1]) for s in range(3)], atol=0.06)
            np.testing.assert_allclose(v, [value(path[:s]) for s in range(3)], atol=0.06)
            np.testing.assert_allclose(advantage, q - v, atol=1e-5)


class TestWhereStepsBegin:
    @pytest.mark.parametrize("how", ["packed", "kept"])
    def test_values_of_states_are_read_behind_prompts_and_observations(self, how: str) -> None:
        """By a plain causal pass over each trajectory; whole trees, and trees that grow step by step."""
        record = Objective.of("archer").record(PerStep())
        model = toy_model(record=replace(record, readout=record.readout.with_formula("advantage"))).eval()
        scorer = DiscriminativeScorer(model, cache_bytes=0 if how == "packed" else 1 << 30)
        assert (scorer.growing is None) == (how == "packed")
        for row in rows_with_observations():
            encoded = model.encoder.encode_tree(labelled_trees([row], Objective.of("archer"))[0])
            with torch.no_grad():
                outputs = model.head(model.backbone(input_ids=torch.from_numpy(encoded.ids)[None])[0][0]).numpy()
            ends = np.cumsum(encoded.length) - 1
            wanted = outputs[ends[1:], :2].min(1) - outputs[ends[:-1], 2:].min(1)
            wanted[[step.kind == "observation" for step in row.steps]] = NAN
            for s in range(len(row)):
                (found,) = scorer.score_many([Score(row.problem, row.steps[: s + 1])])
                np.testing.assert_allclose(found.scores, wanted[: s + 1], atol=1e-5)
        questions = [Score(row.problem, row.steps) for row in rows_with_observations()]
        found = scorer.score_many(questions)
        for question, one in zip(questions, found, strict=True):
            (alone,) = scorer.score_many([question])
            np.testing.assert_allclose(one.scores, alone.scores, atol=1e-5)

    def test_what_cannot_read_there_says_so(self) -> None:
        record = Objective.of("archer").record(PerStep())
        model = toy_model(record=record)
        with pytest.raises(ModelError, match="begins, next_token and both_ways need more"):
            HeadReader(model.encoder)
        plain = replace(record, readout=replace(record.readout, formula=""))
        with pytest.raises(ModelError, match="read where a step begins"):
            TokenOutputs(toy_model(record=plain))
        for settings in ({"begins": 4}, {"begins": -1}, {"surprise": True}):
            with pytest.raises(ValueError, match=r"begins=.* of n_labels=4 outputs"):
                replace(record.readout, **settings)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="where steps begin is read forward"):
            replace(record, both_ways=True)
        for more in ({"surprise": True}, {"both_ways": True}):
            with pytest.raises(InputError, match="drop both_ways and surprise"):
                Objective.of("archer").record(PerStep(), **more)


def batch_of(objective: Objective, model: StepRewardModel) -> Any:
    (batch,) = make_batches(
        labelled_trees(toy_labels(3, 0), objective), model.encoder, objective, row_tokens=999, batch_tokens=9999
    )
    return batch


class TestLaggingCopy:
    def test_it_follows_by_a_share_and_its_outputs_are_those_of_its_weights(self) -> None:
        objective = Objective.of("archer")
        model = toy_model(record=objective.record(PerStep()))
        other = toy_model(seed=5, record=model.record)
        copy, batch = LaggingCopy(model, 0.25), batch_of(objective, model)
        first = {name: one.detach().clone() for name, one in model.named_parameters()}
        with torch.no_grad():
            torch.testing.assert_close(copy.outputs(batch.packed), model(batch.packed))
            model.load_state_dict(other.state_dict())
            copy.follow()
            now = dict(model.named_parameters())
            for name, one in copy.weights.items():
                torch.testing.assert_close(one, 0.75 * first[name] + 0.25 * now[name])
            made = copy.outputs(batch.packed)
            assert not made.requires_grad
            model.load_state_dict(copy.weights, strict=False)
            torch.testing.assert_close(made, model(batch.packed))

    def test_what_is_frozen_is_not_copied_and_dropout_has_no_part(self) -> None:
        model = toy_model(record=Objective.of("archer").record(PerStep()))
        for one in model.backbone.parameters():
            one.requires_grad_(False)
        copy, batch = LaggingCopy(model, 0.5), batch_of(Objective.of("archer"), model)
        assert {*copy.weights} == {"head.weight", "head.bias"}
        model.backbone.norm.register_forward_hook(
            lambda module, _, made: torch.nn.functional.dropout(made, 0.5, module.training)
        )
        model.train()
        with torch.no_grad():
            torch.testing.assert_close(copy.outputs(batch.packed), copy.outputs(batch.packed))
            assert not torch.equal(model(batch.packed), copy.outputs(batch.packed))
        assert model.training

    @pytest.mark.parametrize("name", ["archer", "beer"])
    def test_the_objective_reads_the_copy(self, name: str) -> None:
        """By hand, from the outputs of two models; without a copy the targets are of the model itself."""
        objective = Objective.of(name, **({"penalty": 5.0} if name == "beer" else {}))
        model = toy_model(record=objective.record(PerStep()))
        model.with_features = name == "beer"
        copy = LaggingCopy(toy_model(seed=7, record=model.record), 0.5)
        copy.model.with_features = model.with_features
        batch, late = batch_of(objective, model), None
        rewards = torch.where(batch.mask, 0.1, NAN)
        batch = replace(batch, data={**batch.data, "rewards": rewards})
        for late in (None, copy.outputs(batch.packed)):
            outputs = model(batch.packed).detach().requires_grad_()
            made = objective(model, outputs, replace(batch, lagging=late)).value
            made.backward()
            now, then = (batch.gather(one) for one in (outputs.detach(), outputs if late is None else late))
            k = objective.n_outputs
            given = {"outputs": now[..., :k], "logits": now[..., 0], "features": now[..., k:]}
            given |= {f"lagging_{one}": then[..., part].detach() for one, part in (
                ("outputs", slice(k)), ("logits", 0), ("features", slice(k, None)))}  # fmt: skip
            given |= {**batch.data, "mask": batch.mask, "slopes": model.slope().expand(batch.mask.shape)} if (
                name == "beer") else {**batch.data, "mask": batch.mask}  # fmt: skip
            free = given["outputs" if name == "archer" else "logits"].clone().requires_grad_()
            given["outputs" if name == "archer" else "logits"] = free
            wanted = objective.method.take({n: given[n] for n in objective.method.data}, **objective.settings).value
            assert float(made.detach()) == pytest.approx(float(wanted.detach()))
            wanted.backward()
            of_reads = torch.zeros_like(outputs[:, :k])
            of_reads.index_put_((batch.read[batch.mask],), free.grad[batch.mask].reshape(-1, k), accumulate=True)
            torch.testing.assert_close(outputs.grad[:, :k], of_reads)

    @pytest.mark.parametrize("name", ["archer", "beer"])
    def test_a_share_of_one_is_the_model_itself(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [row.with_columns({"reward": np.full(len(row), 0.1)}) for row in toy_labels(8, 0)]

        def run(folder: str, **more: Any) -> Mapping[str, torch.Tensor]:
            settings = replace(QUICK, objective=name, epochs=8, **more)
            objective = settings.loss()
            model = toy_model(record=objective.record(PerStep()))
            train(labelled_trees(rows, objective), model, tmp_path / folder, settings)
            return model.state_dict()

        whole, slow = run("whole", polyak=1.0), run("slow", polyak=0.1)
        # A copy that is made all the same, and has caught up after each step.
        monkeypatch.setattr(step_trainer, "LaggingCopy", lambda model, share: LaggingCopy(model, 1.0))
        copied = run("copied", polyak=0.999)
        assert any(not torch.allclose(one, slow[key], atol=1e-5) for key, one in whole.items())
        for key, one in whole.items():
            torch.testing.assert_close(one, copied[key], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("name", "share", "copies"), [("archer", 0.5, 1), ("archer", 1.0, 0), ("bce", 0.5, 0)])
    def test_there_is_a_copy_only_where_one_lags(
        self, name: str, share: float, copies: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[LaggingCopy] = []
        monkeypatch.setattr(
            step_trainer, "LaggingCopy", lambda model, share: made.append(LaggingCopy(model, share)) or made[-1]
        )
        settings = replace(QUICK, objective=name, polyak=share, epochs=0.1)
        objective = settings.loss()
        model = toy_model(record=objective.record(PerStep()))
        train(labelled_trees(toy_labels(3, 0), objective), model, tmp_path, settings)
        assert [one.share for one in made] == [share] * copies

    def test_accumulated_batches_are_one_large_one(self, tmp_path: Path) -> None:
        rows, made = toy_labels(8, 0), []
        for folder, batch_tokens, accumulate in (("large", 1024, 1), ("small", 128, 2)):
            settings = replace(
                QUICK, epochs=4, batch_tokens=batch_tokens, row_tokens=128, accumulate=accumulate, schedule="constant",
                optimizer="sgd", learning_rate=0.1,
            )  # fmt: skip
            objective = settings.loss()
            model = toy_model(record=objective.record(PerStep()))
            result = train(labelled_trees(rows, objective), model, tmp_path / folder, settings)
            made.append((result.steps, model.state_dict()))
        assert made[0][0] == made[1][0] > 1
        for key, one in made[0][1].items():
            torch.testing.assert_close(one, made[1][1][key], rtol=1e-4, atol=1e-5)

    def test_a_training_that_was_stopped_goes_on_with_the_same_copy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = replace(QUICK, epochs=6, save_seconds=1e-9, polyak=0.2)
        objective = settings.loss()
        trees = labelled_trees(toy_labels(10, 0), objective)

        def run(folder: Path) -> StepRewardModel:
            model = toy_model(record=objective.record(PerStep()))
            train(trees, model, folder, settings)
            return model

        whole, follow, seen = run(tmp_path / "whole"), LaggingCopy.follow, []

        def stopping(self: LaggingCopy) -> None:
            seen.append(self)
            if len(seen) == 4:
                raise KeyboardInterrupt
            follow(self)

        monkeypatch.setattr(LaggingCopy, "follow", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
        monkeypatch.setattr(LaggingCopy, "follow", follow)
        (kept, *_) = sorted((tmp_path / "stopped" / "unfinished").glob(f"checkpoint-3/{LAGGING_FILE}"))
        saved = torch.load(kept, weights_only=True)
        assert any(not torch.equal(one, seen[0].model.state_dict()[name]) for name, one in saved.items())
        continued = run(tmp_path / "stopped")
        for name, one in whole.state_dict().items():
            torch.testing.assert_close(one, continued.state_dict()[name], rtol=1e-5, atol=1e-6)

    def test_a_copy_that_is_lost_or_of_another_model_is_named(self, tmp_path: Path) -> None:
        copy = LaggingCopy(toy_model(record=Objective.of("archer").record(PerStep())), 0.1)
        with pytest.raises(ModelError, match="delete the folder of unfinished work to start over"):
            copy.load(tmp_path)
        LaggingCopy(toy_model(record=EncoderRecord()), 0.1).save(tmp_path)
        with pytest.raises(ModelError, match="has the weights of another model"):
            copy.load(tmp_path)

    def test_it_is_refused_in_shards(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        settings = replace(QUICK, shard=True)
        objective = settings.loss()
        model = toy_model(record=objective.record(PerStep()))
        with pytest.raises(InputError, match=r"archer makes targets of needs whole weights .* polyak=1"):
            train(labelled_trees(toy_labels(3, 0), objective), model, tmp_path, settings)
        for share in (0.0, 1.5):
            with pytest.raises(ValueError, match=r"polyak must be in \(0, 1\]"):
                replace(QUICK, polyak=share)


def test_the_command_trains_critics_whose_advantages_are_read(tmp_path: Path) -> None:
    rows = toy_labels(20, 0)
    stepreward.write(tmp_path / "rows.parquet", rows)
    line = f"train --data {tmp_path}/rows.parquet --backbone scratch --objective archer --set gamma=0.8 --polyak 0.5"
    invoke(f"{line} --epochs 1 --held-out 0.2 --out {tmp_path}/out")
    kept = json.loads((tmp_path / "out" / "training.json").read_text())
    assert kept["settings"]["polyak"] == 0.5
    assert kept["settings"]["objective_settings"] == {"gamma": 0.8}
    assert math.isfinite(kept["metrics"]["loss"])
    question, texts = rows[0].problem.text, [step.text for step in rows[0].steps]
    q1, q2, v1, v2, q, advantage = (
        stepreward.load(tmp_path / "out", readout=text).score(question, texts)
        for text in ("q1", "q2", "v1", "v2", "", "advantage")
    )
    np.testing.assert_allclose(q, np.minimum(q1, q2), atol=1e-6)
    np.testing.assert_allclose(advantage, q - np.minimum(v1, v2), atol=1e-6)
