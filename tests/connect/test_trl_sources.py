"""Where `StepGRPOTrainer` gets step data from: turns, rollout functions, the policy, online models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from stepreward.connect.online_reward_models import OnlineReward
from stepreward.connect.trl import OfPolicy, StepGRPOTrainer, from_scorer
from stepreward.connect.trl_rollouts import LocalRollouts
from stepreward.core.catalog import credit
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.model_sources import resolve
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, WholeText
from stepreward.score.implicit import ImplicitScorer, LanguageModel
from stepreward.score.language import EntropyScorer, LikelihoodScorer
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.tasks.arithmetic import generate
from stepreward.train.online import implicit_cross_entropy, right_over_wrong

MODEL = resolve("builtin:arithmetic")
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
PROBLEMS = list(generate("train", 4))
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func':UserWarning"),
]


def policy() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


class Watched(StepGRPOTrainer):
    """Keeps what it gave to the loss, and what credit was given."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.given = super()._generate_and_score_completions(inputs)
        return self.given

    def _credit_all(self, *arguments: Any) -> Any:
        self.data, self.made = super()._credit_all(*arguments)
        self.history = [*getattr(self, "history", []), self.data]
        return self.data, self.made


def lengths(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """An outcome that differs between rollouts."""
    return [float(len(text) % 3 == 0) for text in completions]


def trainer(
    out: Path, *, steps: int = 1, rollouts: Any = None, settings: dict[str, Any] | None = None, **named: Any
) -> Watched:
    given = {
        "output_dir": str(out), "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 48,
        "seed": 0, "max_steps": steps, "logging_steps": 1, "report_to": [], "use_cpu": True, "learning_rate": 1e-4,
        "disable_tqdm": True, "save_strategy": "no", "gradient_checkpointing": False,
    }  # fmt: skip
    config = GRPOConfig(**given | (settings or {}))
    data = Dataset.from_dict({"prompt": [p.text for p in PROBLEMS], "answer": [p.reference for p in PROBLEMS]})
    return Watched(
        policy(), lengths, config, data, processing_class=TOKENIZER,
        rollout_func=rollouts or LocalRollouts(Key.seed(1)), **named,
    )  # fmt: skip


ACTIONS, HALLS = ["12 + 5\n", "7 - 3\n"], ["17 apples\n", "4 pens\n"]


def episodes(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
    """Two turns with a tool's words between them; which words depends on the place in the batch."""
    tokenizer = trainer.processing_class

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    rows = [
        (ids(ACTIONS[i % 2]), ids(HALLS[i // 2 % 2]), [*ids("17\n"), tokenizer.eos_token_id])
        for i in range(len(prompts))
    ]
    return {
        "prompt_ids": [ids(p) for p in prompts],
        "completion_ids": [first + seen + last for first, seen, last in rows],
        "env_mask": [[1] * len(first) + [0] * len(seen) + [1] * len(last) for first, seen, last in rows],
        "logprobs": None,
        "turn_scores": [[0.25 * i, 1.0] for i in range(len(prompts))],
        "critic": [[0.5, 0.1 * i] for i in range(len(prompts))],
    }


def test_turns_of_an_environment_are_steps_with_states_and_rewards_of_their_own(tmp_path: Path) -> None:
    made = trainer(tmp_path, rollouts=episodes, credit="gigpo", step_rewards="turn_scores", step_end="")
    made.train()
    data = made.data
    assert data["offsets"].tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert data["rewards"].tolist() == [x for i in range(8) for x in (0.25 * i, 1.0)]
    state = data["state"].reshape(8, 2)
    assert len(set(state[:4, 0])) == 1, "all of a problem begin in one state"
    assert state[0, 1] == state[1, 1] != state[2, 1] == state[3, 1], "then where the tool's words put them"
    expected = credit["gigpo"].take(data)
    np.testing.assert_allclose(made.made, expected)
    advantages, tools = made.given["advantages"], made.given["tool_mask"].bool()
    assert not advantages[~tools].any(), "nothing for what the tool wrote"
    for row in range(8):
        values = advantages[row][tools[row] & made.given["completion_mask"][row].bool()].unique_consecutive()
        np.testing.assert_allclose(values, expected[2 * row : 2 * row + 2], rtol=1e-5)


def test_a_critic_s_values_come_by_name(tmp_path: Path) -> None:
    sources = {"step_rewards": "turn_scores", "step_data": {"values": "critic"}}
    made = trainer(tmp_path, rollouts=episodes, credit="gae", step_end="", **sources)
    made.train()
    np.testing.assert_allclose(made.made, credit["gae"].take(made.data))
    assert made.data["values"][3] == pytest.approx(0.1)


def test_a_list_that_no_rollout_gave_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'rewards' is read from 'scores', which some rollouts lack"):
        trainer(tmp_path, rollouts=episodes, credit="step-rloo", step_rewards="scores", step_end="").train()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("make", [EntropyScorer, partial(LikelihoodScorer, gain=True)], ids=["entropy", "gain"])
def test_numbers_of_the_policy_are_those_of_its_weights_at_sampling(make: Any, tmp_path: Path) -> None:
    seen: list[Trajectory] = []

    class Spy(OfPolicy):
        def __call__(self, trajectories: Sequence[Trajectory]) -> Sequence[np.ndarray]:
            seen.extend(trajectories)
            return super().__call__(trajectories)

    source = Spy(make)
    made = trainer(tmp_path, credit="igpo", step_rewards=source)
    made.train()
    expected = from_scorer(make(LanguageModel.of(policy().eval()), TOKENIZER))(seen)
    np.testing.assert_allclose(made.data["rewards"], np.concatenate(expected), rtol=1e-4, atol=1e-5)
    assert seen[0].problem.reference == PROBLEMS[[p.text for p in PROBLEMS].index(seen[0].problem.text)].reference
    with pytest.raises(InputError, match="attaches itself"):
        OfPolicy(make)(seen)


def implicit(beta: float = 0.05) -> ImplicitScorer:
    record = EncoderRecord(WholeText(), readout=Readout("implicit", beta=beta))
    return ImplicitScorer(LanguageModel.of(policy()), LanguageModel.of(policy()), StepEncoder(record, TOKENIZER))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("order", ["after", "before"])
def test_an_implicit_reward_model_learns_beside_the_policy(order: Any, tmp_path: Path) -> None:
    source = OnlineReward(implicit(), implicit_cross_entropy, learning_rate=1e-3, order=order, gain=True)
    made = trainer(tmp_path, steps=2, credit="prime", step_rewards=source)
    made.train()
    first = [given["rewards"] for given in made.history]
    assert len(source.losses) == 2
    assert source.losses[0] == pytest.approx(np.log(2)), "the model and its reference begin equal"
    assert made.state.log_history[0]["process/reward_model_loss"] == pytest.approx(source.losses[0])
    # Before its first lesson an implicit model has nothing to say.
    assert np.abs(first[0]).max() < 1e-6 if order == "after" else np.abs(first[0]).max() > 1e-4
    assert np.abs(first[1]).max() > 1e-4


def test_lessons_on_the_same_rollouts_come_to_tell_right_from_wrong() -> None:
    problem = Problem("p", "Mia has 12 apples. Mia buys 5 more.")
    texts = [("12 + 5 = 17\n", 1.0), ("12 + 5 = 16\n", 0.0), ("12 - 5 = 7\n", 0.0), ("5 + 12 = 17\n", 1.0)]
    rollouts = [Trajectory(problem, (Step(text),), outcome) for text, outcome in texts]
    scorer = DiscriminativeScorer(StepRewardModel.from_backbone(MODEL, EncoderRecord(), seed=1))
    source = OnlineReward(scorer, right_over_wrong, learning_rate=1e-3)
    for _ in range(12):
        scores = np.concatenate(source(rollouts))
    assert source.losses[0] == pytest.approx(np.log(2), abs=0.1)
    assert source.losses[-1] < 0.2
    assert min(scores[[0, 3]]) > max(scores[[1, 2]])


def test_a_resumed_training_goes_on_with_the_reward_model(tmp_path: Path) -> None:
    def run(steps: int, resume: bool) -> tuple[OnlineReward, dict[str, torch.Tensor]]:
        source = OnlineReward(implicit(), implicit_cross_entropy, learning_rate=1e-3, gain=True)
        settings = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
        trainer(tmp_path, steps=steps, credit="prime", step_rewards=source, settings=settings).train(
            resume_from_checkpoint=resume
        )
        return source, load_file(tmp_path / f"checkpoint-{steps}" / "step_reward" / "learned.safetensors")

    _, first = run(1, False)
    source, second = run(2, True)
    assert len(source.losses) == 1
    assert source.losses[0] != pytest.approx(np.log(2), abs=1e-6), "it has learned before the stop"
    assert (first["step.0"], second["step.0"]) == (1, 2), "the optimizer remembers its step"
    assert first.keys() == second.keys()
    assert not torch.equal(first["weight.1"], second["weight.1"])


def test_a_checkpoint_without_a_reward_model_is_named(tmp_path: Path) -> None:
    source = OnlineReward(implicit(), implicit_cross_entropy)
    with pytest.raises(InputError, match=r"checkpoint-7.*holds no reward model"):
        source.on_train_begin(SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(global_step=7), None)


def test_what_cannot_learn_is_refused() -> None:
    scorer = implicit()
    for p in scorer.model.parameters():
        p.requires_grad = False
    with pytest.raises(InputError, match="no weight"):
        OnlineReward(scorer, implicit_cross_entropy)
    with pytest.raises(ValueError, match="order"):
        OnlineReward(implicit(), implicit_cross_entropy, order="never")  # type: ignore[arg-type]
