"""The adapters on verl itself, where it is installed (`make verl` does that beside the environment): no GPU is used."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

pytest.importorskip("verl")
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.reward import load_reward_manager

from stepreward.connect import verl_rewards
from stepreward.connect.verl import estimators
from stepreward.core.catalog import credit
from stepreward.core.errors import InputError
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENIZER = AutoTokenizer.from_pretrained(resolve("builtin:arithmetic"))
PROMPT = [{"role": "user", "content": "Mia has 12 apples. Mia buys 5 more."}]
TEXTS = [
    "12 + 5 = 17\nAnswer: 17\n",
    "12 + 5 = 16\nAnswer: 16\n",
    "12 - 5 = 7\n12 + 5 = 17\nAnswer: 17\n",
    "Answer: 3\n",
]


def test_verl_loads_the_plug_in_by_itself() -> None:
    assert version("verl")
    for name, _ in estimators():
        assert name in core_algos.ADV_ESTIMATOR_REGISTRY


def batch(rewards: torch.Tensor, mask: torch.Tensor, uid: list[str]) -> DataProto:
    tensors = {"token_level_rewards": rewards, "response_mask": mask}
    return DataProto(
        batch=TensorDict(tensors, batch_size=len(uid)), non_tensor_batch={"uid": np.array(uid, dtype=object)}
    )


def advantages(name: str, rewards: torch.Tensor, mask: torch.Tensor, uid: list[str]) -> torch.Tensor:
    """As the trainer of verl calls it."""
    config = OmegaConf.create({"stepreward": {}})
    return compute_advantage(batch(rewards, mask, uid), adv_estimator=name, config=config).batch["advantages"]


OUTCOMES = torch.zeros(8, 6)
MASK = torch.tensor([[1] * (3 + i % 4) + [0] * (3 - i % 4) for i in range(8)])
for _row in range(8):
    OUTCOMES[_row, int(MASK[_row].sum()) - 1] = [1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 1.0, 0.25][_row]
UID = ["a"] * 4 + ["b"] * 4


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("stepreward_grpo_verl", "grpo_vectorized"), ("stepreward_rloo_verl", "rloo"), ("stepreward_opo", "opo")],
)
def test_outcome_estimators_give_what_verl_s_own_give(ours: str, theirs: str) -> None:
    own = advantages(ours, OUTCOMES, MASK, UID)
    given = advantages(theirs, OUTCOMES, MASK, UID)
    torch.testing.assert_close(own * MASK, given * MASK, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name, _ in estimators()])
def test_every_estimator_runs_in_verl_s_call(name: str) -> None:
    made = advantages(name, OUTCOMES, MASK, UID)
    assert made.shape == OUTCOMES.shape
    assert torch.isfinite(made).all()
    assert not made[MASK == 0].any()


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("scorer")
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord(), seed=5).save_pretrained(folder)
    config = OmegaConf.create(
        {
            "reward": {
                "custom_reward_function": {"path": None},
                "reward_manager": {
                    "source": "importlib",
                    "name": "StepRewardManager",
                    "module": {"path": "pkg://stepreward.connect.verl_rewards"},
                },
                "stepreward": {"scorer": str(folder)},
            }
        }
    )
    made = load_reward_manager(config, TOKENIZER)
    made.compute_score = lambda solution_str, **_: float("17" in solution_str.splitlines()[-1])
    return made


def episode(text: str) -> AgentLoopOutput:
    ids = [*TOKENIZER(text, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id]
    metrics = AgentLoopMetrics()
    return AgentLoopOutput(prompt_ids=[1, 2], response_ids=ids, response_mask=[1] * len(ids), metrics=metrics)


def rewarded(manager: Any, output: Any) -> dict[str, Any]:
    """What verl's agent-loop worker does between a loop's return and the queue."""
    width = len(output.response_ids)
    tensors = {
        "responses": torch.tensor([output.response_ids]),
        "attention_mask": torch.ones(1, 2 + width, dtype=torch.long),
    }
    extra = {
        "data_source": np.array(["x"], dtype=object), "reward_model": np.array([{"ground_truth": "17"}], dtype=object),
        "raw_prompt": np.array([PROMPT, None], dtype=object)[:1], "extra_info": np.array([{}], dtype=object),
        "tool_extra_fields": np.array([output.extra_fields], dtype=object),
    }  # fmt: skip
    data = DataProto(batch=TensorDict(tensors, batch_size=1), non_tensor_batch=extra)
    result = manager.loop.run_until_complete(manager.run_single(data))
    output.reward_score, output.extra_fields["reward_extra_info"] = result["reward_score"], result["reward_extra_info"]
    return output.as_dict()


def test_step_rewards_travel_from_the_manager_to_the_advantages(manager: Any) -> None:
    rows = [rewarded(manager, verl_rewards._with_steps(episode(text))) for text in TEXTS]
    rewards, mask = (
        torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True)
        for name in ("rm_scores", "response_mask")
    )
    scores = [manager.scorer.score(PROMPT[0]["content"], text.splitlines(keepends=True)) for text in TEXTS]
    for row, own, text in zip(rewards, scores, TEXTS, strict=True):
        stand = row[row != 0]
        right = float("17" in text.splitlines()[-1])
        np.testing.assert_allclose(stand[: len(own)], own, rtol=1e-5)
        assert stand[len(own) :].tolist() == ([1.0] if right else [])
    made = advantages("stepreward_step_rloo", rewards, mask, ["p"] * len(TEXTS))
    flat = {
        # The token that ends the response is a step of its own, and is paid the outcome alone.
        "rewards": np.concatenate([np.append(own, 0.0) for own in scores]),
        "offsets": np.cumsum([0, *(len(own) + 1 for own in scores)]),
        "outcome": np.array([float("17" in text.splitlines()[-1]) for text in TEXTS]),
        "group": np.zeros(len(TEXTS), int), "lengths": np.ones(sum(len(own) + 1 for own in scores)),
    }  # fmt: skip
    expected = credit["step-rloo"].take(flat)
    for row, (a, b) in enumerate(zip(flat["offsets"][:-1], flat["offsets"][1:], strict=True)):
        own = made[row][mask[row] == 1]
        np.testing.assert_allclose(own.unique_consecutive().numpy(), expected[a:b], rtol=1e-4, atol=1e-6)


def test_each_output_of_a_session_keeps_the_rewards_of_its_own_steps(manager: Any) -> None:
    outputs = [verl_rewards._with_steps(episode(text)) for text in TEXTS[1:3]]
    # As verl's worker asks for all outputs of a session at once, and copies the last one's answer to the others.
    ids = [torch.tensor(output.response_ids) for output in outputs]
    whole = [torch.cat([torch.tensor([1] * (2 + 3 * i)), one]) for i, one in enumerate(ids)]
    pad = torch.nn.utils.rnn.pad_sequence
    tensors = {
        "responses": pad(ids, batch_first=True),
        "attention_mask": pad([torch.ones_like(one) for one in whole], batch_first=True),
    }
    extra = {
        "data_source": np.array(["x"] * 2, dtype=object), "extra_info": np.array([{}] * 2, dtype=object),
        "reward_model": np.array([{"ground_truth": "17"}] * 2, dtype=object),
        "raw_prompt": np.array([PROMPT, PROMPT, None], dtype=object)[:2],
        "tool_extra_fields": np.array([output.extra_fields for output in outputs], dtype=object),
        "response_len": np.array([len(one) for one in ids]),
    }  # fmt: skip
    data = DataProto(batch=TensorDict(tensors, batch_size=2), non_tensor_batch=extra)
    result = manager.loop.run_until_complete(manager.run_single(data))
    for output in outputs:
        output.reward_score = result["reward_score"]
        output.extra_fields["reward_extra_info"] = result["reward_extra_info"]
        row = output.as_dict()
        alone = rewarded(manager, verl_rewards._with_steps(episode(TEXTS[1 + outputs.index(output)])))
        # The outcome is the last output's.
        torch.testing.assert_close(row["rm_scores"][:-1], alone["rm_scores"][:-1])
        assert row["rm_scores"][-1] == 1.0
    assert outputs[0].as_dict()["rm_scores"].ne(0).sum() < outputs[1].as_dict()["rm_scores"].ne(0).sum()


def test_an_output_that_was_not_scored_keeps_verl_s_own_reward(manager: Any) -> None:
    output = verl_rewards._with_steps(episode(TEXTS[0]))
    rewarded(manager, output)
    other = verl_rewards._with_steps(episode(TEXTS[3]))
    other.reward_score, other.extra_fields["reward_extra_info"] = 1.0, output.extra_fields["reward_extra_info"]
    assert other.as_dict()["rm_scores"].nonzero().tolist() == [[len(other.response_ids) - 1]]


def test_methods_that_need_a_sample_s_data_run_under_the_name_that_gets_it() -> None:
    values = torch.linspace(0, 1, 48).reshape(8, 6)
    data = batch(OUTCOMES, MASK, UID)
    data.batch["values"] = values
    config = OmegaConf.create({"stepreward": {"credit": "gae", "discount": 1.0}})
    made = compute_advantage(data, adv_estimator="gdpo", config=config).batch["advantages"]
    # One turn a row: outcome less the value before its first token.
    outcome = OUTCOMES.sum(1)
    torch.testing.assert_close(made, (outcome - values[:, 0])[:, None] * MASK)
    data.non_tensor_batch["entropy"] = np.array([f"[{i / 8}]" for i in range(8)], dtype=object)
    config = OmegaConf.create({"stepreward": {"credit": "empg"}})
    made = compute_advantage(data, adv_estimator="gdpo", config=config).batch["advantages"]
    flat = {"outcome": outcome.numpy(), "entropy": np.arange(8) / 8, "group": [0] * 4 + [1] * 4,
            "offsets": np.arange(9), "rewards": np.zeros(8), "lengths": MASK.sum(1).numpy()}  # fmt: skip
    torch.testing.assert_close(made, torch.tensor(credit["empg"].take(flat))[:, None].float() * MASK)


def test_verl_s_own_estimator_of_that_name_stays_where_no_method_is_named() -> None:
    data = batch(OUTCOMES, MASK, UID)
    data.batch["prompts"] = torch.ones(8, 2, dtype=torch.long)
    data.batch["attention_mask"] = torch.cat([torch.ones(8, 2, dtype=torch.long), MASK], dim=1)
    data.non_tensor_batch |= {"right": OUTCOMES.sum(1).numpy(), "form": np.ones(8)}
    config = OmegaConf.create({"gdpo_reward_keys": ["right", "form"]})
    made = compute_advantage(data, adv_estimator="gdpo", config=config).batch["advantages"]
    assert made.shape == OUTCOMES.shape
    assert made.any()


def test_loops_return_outputs_that_keep_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(self: Any, *_: Any, **__: Any) -> AgentLoopOutput:
        return episode(TEXTS[0])

    for loop in (verl_rewards.StepSingleTurn, verl_rewards.StepToolAgent):
        monkeypatch.setattr(loop.__mro__[1], "run", run)
        made = asyncio.run(loop.run(loop.__new__(loop)))
        assert isinstance(made, verl_rewards.StepOutput)
        assert made.extra_fields[verl_rewards.OWN] == made.response_mask


def test_the_last_step_s_reward_stands_before_the_outcome_s_place() -> None:
    assert verl_rewards.dense_scores(5, [(1, 0.5), (4, 0.25)], 1.0).tolist() == [0, 0.5, 0, 0.25, 1.0]
    assert verl_rewards.dense_scores(3, [(1, 0.5), (2, 0.25)], 1.0).tolist() == [0, 0.5, 1.25]
    assert verl_rewards.dense_scores(1, [(0, 0.25)], 1.0).tolist() == [1.25]


def test_an_unscored_step_leaves_the_outcome_where_both_would_stand_at_one_token() -> None:
    nan = float("nan")
    np.testing.assert_array_equal(verl_rewards.dense_scores(5, [(1, nan), (4, nan)], 1.0), [0, nan, 0, nan, 1.0])
    np.testing.assert_array_equal(verl_rewards.dense_scores(3, [(1, 0.5), (2, nan)], 1.0), [0, 0.5, 1.0])
    np.testing.assert_array_equal(verl_rewards.dense_scores(3, [(1, 0.5)], nan), [0, 0.5, nan])


def test_an_outcome_that_nobody_could_grade_costs_no_other_row_its_reward(manager: Any, monkeypatch: Any) -> None:
    outcomes = iter([1.0, 0.0, None, 1.0])
    monkeypatch.setattr(manager, "compute_score", lambda **_: next(outcomes))
    rows = [rewarded(manager, verl_rewards._with_steps(episode(text))) for text in TEXTS]
    rewards, mask = (
        torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True)
        for name in ("rm_scores", "response_mask")
    )
    # Of 1, 0, 1: mean 2/3, deviation 1/sqrt 3; the mean of the others is 1/2, 1, 1/2.
    for name, values in (("grpo", [0.57725, -1.1545, 0, 0.57725]), ("rloo", [0.5, -1, 0, 0.5])):
        made = advantages(f"stepreward_{name}", rewards, mask, ["p"] * 4)
        expected = torch.tensor(values)[:, None] * mask
        torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)
    made = advantages("stepreward_step_rloo", rewards, mask, ["p"] * 4)
    assert torch.isfinite(made).all()
    assert not made[2].any()
    others = advantages("stepreward_step_rloo", rewards[[0, 1, 3]], mask[[0, 1, 3]], ["p"] * 3)
    torch.testing.assert_close(made[[0, 1, 3]], others)


def test_a_scorer_that_leaves_a_step_out_leaves_its_tokens_out(manager: Any, monkeypatch: Any) -> None:
    ask = manager.scorer.score_many

    def forgetful(questions: Any) -> Any:
        answers = list(ask(questions))
        answers[0].scores[0] = np.nan
        return answers

    monkeypatch.setattr(manager.scorer, "score_many", forgetful)
    rows = [rewarded(manager, verl_rewards._with_steps(episode(text))) for text in TEXTS[:2]]
    rewards, mask = (
        torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True)
        for name in ("rm_scores", "response_mask")
    )
    made = advantages("stepreward_step_rloo", rewards, mask, ["p"] * 2)
    ends = [int(row.isnan().nonzero()[0, 0]) for row in rewards]
    for row, end in zip(made, ends, strict=True):
        assert torch.isfinite(row).all()
        assert not row[: end + 1].any()
        assert row[end + 1 :].any()


def test_a_manager_without_a_scorer_is_a_clear_error() -> None:
    config = OmegaConf.create({"reward": {}})
    with pytest.raises(InputError, match=r"reward\.stepreward\.scorer"):
        verl_rewards.StepRewardManager(config, TOKENIZER, SimpleNamespace())
