"""A language model as the critic of its own steps: what is read of it, its loss, and what it learns."""

from __future__ import annotations

import itertools
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
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.token_logits import likelihoods, policy_outputs
from stepreward.score.remote.head_outputs import HeadReader
from stepreward.score.remote.token_outputs import TokenOutputs
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import make_batches
from stepreward.train.memory import predict
from stepreward.train.objective import Objective
from stepreward.train.trainer import TrainSettings, train

NAN = float("nan")
RECORD = Objective.of("b-coder").record(PerStep())


def tensor(*values: Any) -> torch.Tensor:
    return torch.tensor(np.array(values, np.float64))


class TestOutputs:
    def test_the_advantage_keeps_the_policy(self) -> None:
        """Logits of 2 and 0: A = 0 and -2; with V = 0.3 Q = 0.3 and -1.7, whose softmax is that of the logits."""
        hidden, head = torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.eye(2)
        a, logprob = likelihoods(hidden, head, torch.tensor([0, 1])).unbind(-1)
        assert a.tolist() == [0, -2]
        q = 0.3 + a
        assert q.tolist() == pytest.approx([0.3, -1.7])
        torch.testing.assert_close(q.log_softmax(0), logprob)
        assert logprob.exp().tolist() == pytest.approx([0.8808, 0.1192], abs=1e-4)

    def test_a_packed_tree_says_what_each_trajectory_says_alone(self) -> None:
        """Token by token, by a plain causal pass over each trajectory; observations stand between steps."""
        model = toy_model(record=RECORD).eval()
        objective = Objective.of("b-coder")
        rows = rows_with_observations()
        (batch,) = make_batches(
            labelled_trees(rows, objective), model.encoder, objective, row_tokens=512, batch_tokens=9999
        )
        with torch.no_grad():
            found = batch.gather(model(batch.packed))
        assert len(found) == len(rows)
        assert len(batch.packed.read_row) < sum(3 for _ in rows), "prefixes are shared"
        for b, row in enumerate(rows):
            tree = labelled_trees([row], objective)[0]
            encoded = model.encoder.encode_tree(tree)
            ids = torch.from_numpy(encoded.ids)
            with torch.no_grad():
                hidden = model.backbone(input_ids=ids[None])[0][0]
                logits = hidden @ model.backbone.get_input_embeddings().weight.T
                v = model.head(hidden)[:, 0]
            at = np.cumsum([0, *encoded.length])
            actions = [k for k, step in enumerate(row.steps) if step.kind == "action"]
            for s, k in enumerate(actions):
                begin, end = int(at[k + 1]), int(at[k + 2])
                before = logits[begin - 1 : end - 1]
                chosen = before[torch.arange(end - begin), ids[begin:end]]
                wanted = torch.stack([
                    v[end - 1], v[begin - 1], (chosen - before.amax(1)).sum(), (chosen - before.logsumexp(1)).sum(),
                ])  # fmt: skip
                torch.testing.assert_close(found[b, s], wanted, rtol=1e-4, atol=1e-4)

    def test_nothing_to_read_is_nothing(self) -> None:
        model = toy_model(record=RECORD)
        objective = Objective.of("b-coder")
        (batch,) = make_batches(
            labelled_trees(toy_labels(1, 0), objective), model.encoder, objective, row_tokens=512, batch_tokens=9999
        )
        packed = batch.packed
        names = ("read_row", "read_column", "tree", "node")
        empty = type(packed)(**{**packed.__dict__, **{name: getattr(packed, name)[:0] for name in names}})
        hidden = torch.zeros(*packed.input_ids.shape, 32)
        made = policy_outputs(model.head, hidden, empty, model.backbone.get_input_embeddings().weight)
        assert made.shape == (0, 4)


class TestLoss:
    @given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0.1, 3))
    def test_it_equals_a_loop_over_steps(self, seed: int, gamma: float, alpha: float) -> None:
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(3, 4, 4)) * 2
        r, o, lengths = rng.normal(size=(3, 4)), rng.choice([1.0, -0.3, NAN], 3), rng.integers(1, 5, 3)
        r[rng.random((3, 4)) < 0.2] = NAN
        r[0] = NAN
        bellman, ends, far, unlikely = [], [], [], []
        for b in range(3):
            last = lengths[b] - 1
            earned = np.where(np.isnan(r[b, :last]).all() & ~np.isnan(o[b]), 0.0, r[b])
            earned[last] = o[b]
            for s in range(lengths[b]):
                after = z[b, s + 1, 1] if s < last else 0.0
                if not np.isnan(earned[s]):
                    q = z[b, s, 1] + alpha * z[b, s, 2]
                    bellman.append((q - earned[s] - gamma * min(after, 0.8)) ** 2)
                if not np.isnan(earned[min(s + 1, last)]):
                    ends.append((z[b, s, 0] - after) ** 2)
            if o[b] == 1:
                far.append(np.abs(z[b, : last + 1, 2]).sum())
                unlikely.append(-z[b, : last + 1, 3].sum())
        wanted = sum(
            weight * np.mean(one) if one else 0.0
            for weight, one in ((1, bellman), (1, ends), (0.5, far), (0.25, unlikely))
        )
        data = {
            "outputs": torch.tensor(z), "rewards": torch.tensor(r), "outcome": torch.tensor(o),
            "mask": torch.tensor(np.arange(4) < lengths[:, None]),
        }  # fmt: skip
        settings = {"gamma": gamma, "alpha": alpha, "cap": 0.8, "advantage": 0.5, "likelihood": 0.25}
        assert float(family["b-coder"].take(data, **settings)) == pytest.approx(wanted)

    def test_targets_have_no_gradient(self) -> None:
        """V of step 2 is the target of Q of step 1 and of V' behind it: its own gradient is that of Q of step 2."""
        z = tensor([[0.2, 0.1, -0.3, -1.0], [0.0, 0.7, -0.1, -1.0]]).requires_grad_()
        data = {"outputs": z, "rewards": tensor([0.0, 0.0]), "outcome": tensor(1.0),
                "mask": torch.ones(1, 2, dtype=torch.bool)}  # fmt: skip
        family["b-coder"].take(data, advantage=0.0, likelihood=0.0).value.backward()
        assert z.grad is not None
        behind, value, below, logprob = z.grad[0].unbind(-1)
        first, second = 0.1 - 0.3 - 0.7, 0.7 - 0.1 - 1.0
        np.testing.assert_allclose(value, [first, second])
        np.testing.assert_allclose(below, [first, second])
        np.testing.assert_allclose(behind, [0.2 - 0.7, 0.0])
        assert logprob.tolist() == [0, 0]

    def test_the_true_values_of_a_greedy_policy_are_a_fixed_point(self) -> None:
        """V* = 1 before each step, A = Q* - V*: 0 of the best step and -1 of one that loses all: the loss is 0."""
        best = [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
        lost = [[0.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
        data = {
            "outputs": tensor(best, lost), "rewards": torch.zeros(2, 2), "outcome": tensor(1.0, 0.0),
            "mask": torch.ones(2, 2, dtype=torch.bool),
        }  # fmt: skip
        assert float(family["b-coder"].take(data, likelihood=0.0, advantage=7.0)) == 0
        twice = {**data, "outputs": data["outputs"] * tensor(1, 1, 2, 1)}
        assert float(family["b-coder"].take(twice, likelihood=0.0, alpha=0.5)) == 0

    @pytest.mark.parametrize(
        ("settings", "said"),
        [({"alpha": 0.0}, "alpha must be positive"), ({"gamma": 1.5}, "gamma in"), ({"advantage": -1.0}, "negative")],
    )
    def test_settings_out_of_range_are_named(self, settings: dict[str, float], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Objective.of("b-coder", **settings)
        data = {"outputs": torch.zeros(1, 1, 3), "rewards": torch.zeros(1, 1), "outcome": torch.zeros(1),
                "mask": torch.ones(1, 1, dtype=torch.bool)}  # fmt: skip
        with pytest.raises(ValueError, match="a step has 4 outputs"):
            family["b-coder"].take(data)


class TestLearned:
    def test_a_trained_model_recovers_the_rewards_and_the_values_of_the_best_steps(self, tmp_path: Path) -> None:
        """Wrong once "bad" was said: V* is 1 until then; it loses 1. Where all is lost the value is not determined, and
        its advantages make up for it: the recovered rewards are those of the world everywhere."""
        rows = [
            Trajectory(Problem("p", "Say something"), tuple(Step(f"{w}\n") for w in words), float("bad" not in words))
            for words in itertools.product(("good", "fine", "bad"), repeat=2)
        ]
        settings = TrainSettings(
            objective="b-coder", objective_settings={"likelihood": 0.01}, epochs=120, learning_rate=1e-2,
            batch_tokens=4096, row_tokens=512, evaluations=1,
        )  # fmt: skip
        objective = settings.loss()
        train(labelled_trees(rows, objective), toy_model(record=objective.record(PerStep())), tmp_path, settings)
        read = [stepreward.load(tmp_path, readout=name) for name in ("", "before", "value", "advantage", "q")]
        assert objective.record(PerStep()).aggregation == "sum"
        for row in rows:
            words = [step.text.strip() for step in row.steps]
            reward, before, value, advantage, q = (
                one.score("Say something", [step.text for step in row.steps]) for one in read
            )
            np.testing.assert_allclose(reward, [0.0, row.outcome], atol=0.08)
            lost = "bad" in words[:1]
            np.testing.assert_allclose(before[: 2 - lost], [1.0, 1.0][: 2 - lost], atol=0.08)
            if not lost:
                np.testing.assert_allclose(advantage, [0.0, -float("bad" in words)], atol=0.08)
            assert (advantage <= 0).all()
            np.testing.assert_allclose(q, before + advantage, atol=1e-5)
            np.testing.assert_allclose(value[0], before[1], atol=1e-5)
            # The sum of rewards is V_0 - V_end + sum A.
            assert reward.sum() == pytest.approx(before[0] - value[-1] + advantage.sum(), abs=1e-4)

    def test_the_values_may_be_trained_first_and_alone(self, tmp_path: Path) -> None:
        """By the command: the language model stays as it is, then all of it goes on from there."""
        rows = toy_labels(12, 0)
        stepreward.write(tmp_path / "rows.parquet", rows)
        toy_model(seed=2).save_pretrained(tmp_path / "base")
        line = f"train --data {tmp_path}/rows.parquet --held-out 0 --epochs 2 --objective b-coder"
        invoke(f"{line} --backbone {tmp_path}/base --freeze backbone.* --out {tmp_path}/values --set alpha=0.5")
        first = StepRewardModel.from_pretrained(tmp_path / "values")
        base = toy_model(seed=2).state_dict()
        for name, one in first.backbone.state_dict().items():
            torch.testing.assert_close(one, base[f"backbone.{name}"])
        assert first.record.readout.formula == "q = before + 0.5 * advantage; reward = q - 1 * value; reward"
        flags = "--keep-head --learning-rate 1e-12 --set alpha=0.5"
        invoke(f"{line} --backbone {tmp_path}/values {flags} --out {tmp_path}/both")
        question, texts = rows[0].problem.text, [step.text for step in rows[0].steps]
        one, other = (stepreward.load(tmp_path / name).score(question, texts) for name in ("values", "both"))
        np.testing.assert_allclose(one, other, atol=1e-5)


class TestRefusals:
    def test_what_cannot_read_a_policy_says_so(self, tmp_path: Path) -> None:
        model = toy_model(record=RECORD)
        with pytest.raises(ModelError, match="a policy"):
            HeadReader(model.encoder)
        with pytest.raises(ModelError, match="a policy is read of steps"):
            TokenOutputs(model)
        with pytest.raises(InputError, match="log-probabilities are read"):
            predict(None, None, RECORD, TrainSettings(), None)  # type: ignore[arg-type]
        assert RECORD.grows
        assert not RECORD.caches
        model.backbone.config.tie_word_embeddings = False
        with pytest.raises(ModelError, match="a policy needs a backbone whose input and output embeddings are tied"):
            StepRewardModel(model.backbone, model.tokenizer, RECORD)
        model.backbone.config.tie_word_embeddings, model.backbone.config.final_logit_softcapping = True, 30.0
        with pytest.raises(ModelError, match="changes its logits by final_logit_softcapping"):
            StepRewardModel(model.backbone, model.tokenizer, RECORD)

    def test_records_that_contradict_themselves(self) -> None:
        for settings in ({"kind": "sigmoid"}, {"n_labels": 3}, {"surprise": True}):
            with pytest.raises(ValueError, match="a policy is read as 4 values a step"):
                Readout(**{"kind": "value", "n_labels": 4, "policy": True, **settings})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a policy is read forward"):
            EncoderRecord(PerStep(read="before"), RECORD.readout)
        with pytest.raises(InputError, match="drop both_ways and surprise"):
            Objective.of("b-coder").record(PerStep(), surprise=True)
