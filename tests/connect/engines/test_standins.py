"""Adapters of engines whose packages do not fit here, on stand-ins of the signatures of the versions that are named."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stepreward.connect.engines import areal, nemo_gym, slime, verifiers_traces
from stepreward.connect.engines.engine_rollouts import EngineRollout, StepCredit
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scored
from stepreward.formats.registry import by_name

from .standins import VALIDATOR, adapter, totals, valid

CREDIT = StepCredit("step-rloo")
REWARDS, OUTCOMES = [[0.5, 1.0], [0.25], [0.0, 0.75]], [1.0, 0.0, 1.0]
EXPECTED = totals(REWARDS, OUTCOMES)


class Lengths:
    """A scorer: an action's score is a tenth of its characters; one that says `skip` is left out."""

    name = "lengths"

    def score_many(self, questions: list[Score]) -> list[Scored]:
        def of(step: Any) -> float:
            return np.nan if step.kind != "action" or step.text == "skip" else len(step.text) / 10

        return [Scored(np.array([of(step) for step in question.steps])) for question in questions]


# verifiers 0.4.0 and prime-rl 0.8.0 (559b447): traces with nodes; `test_releases.py` has the released classes.


@dataclass
class Node:
    mask: list[bool]
    advantages: list[float] | None = None

    @property
    def token_ids(self) -> list[int]:
        return [7] * len(self.mask)


@dataclass
class Trace:
    nodes: list[Node]
    rewards: dict[str, Any]
    info: dict[str, Any]
    task: Any = field(default_factory=lambda: SimpleNamespace(key="t", hash=None, data=None))
    id: str = "x"


def traces() -> list[Trace]:
    """A prompt, then messages that the model sampled behind the template's own token, with answers of tools between."""
    made = []
    for rewards, outcome in zip(REWARDS, OUTCOMES, strict=True):
        nodes = [Node([False] * 3)]
        for at in range(len(rewards)):
            nodes += [Node([False] + [True] * (2 + at)), Node([False] * 2)]
        made.append(Trace(nodes, {"right": SimpleNamespace(value=outcome)}, {"step_rewards": rewards}))
    return made


def test_verifiers_nodes_get_the_advantage_of_their_step() -> None:
    made = traces()
    verifiers_traces.assign(made, CREDIT)
    for trace, expected in zip(made, EXPECTED, strict=True):
        valid(verifiers_traces.rollout_of(trace), CREDIT)
        sampled = verifiers_traces.sampled_nodes(trace)
        for at, (node, value) in enumerate(zip(sampled, expected, strict=True)):
            assert node.advantages == pytest.approx([value] * (2 + at))
        assert all(node.advantages is None for node in trace.nodes if not any(node.mask))


def test_verifiers_traces_that_were_not_scored_change_no_other() -> None:
    made = [*traces(), Trace([Node([True])], {"right": None}, {"step_rewards": [5.0]}), Trace([Node([True])], {}, {})]
    verifiers_traces.assign(made, CREDIT)
    assert made[3].nodes[0].advantages == made[4].nodes[0].advantages == [0.0]
    assert made[0].nodes[1].advantages == pytest.approx([EXPECTED[0][0]] * 2)
    with pytest.raises(InputError, match="a rollout of 't' has 1 rewards for 2 steps"):
        verifiers_traces.rollout_of(Trace([Node([True]), Node([True])], {}, {"step_rewards": [1.0]}))


@pytest.fixture
def prime_rl(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Algorithm:
        def __init__(self, config: Any, policy_pool: Any) -> None:
            self.policy_pool = policy_pool

    def iter_trainable_traces(episodes: list[Any]) -> Any:
        for episode in episodes:
            for trace in episode.traces:
                if any(any(node.mask) for node in trace.nodes):
                    yield episode, trace

    def assign_advantages(trace: Trace, values: float | list[float]) -> None:
        nodes = [node for node in trace.nodes if any(node.mask)]
        assert isinstance(values, list)
        assert len(values) == sum(sum(node.mask) for node in nodes)
        for node in nodes:
            node.advantages, values = values[: sum(node.mask)], values[sum(node.mask) :]

    classes: dict[str, type] = {"grpo": Algorithm, "opd": Algorithm}
    place = "prime_rl.orchestrator.algo"
    made = adapter(monkeypatch, "prime_rl", {
        place: {"ALGORITHM_CLASSES": classes},
        f"{place}.base": {"Algorithm": Algorithm, "iter_trainable_traces": iter_trainable_traces},
        f"{place}.routing": {"assign_advantages": assign_advantages},
    })  # fmt: skip
    return made, classes


def test_prime_rl_s_cohort_gets_step_credit(prime_rl: Any) -> None:
    module, classes = prime_rl
    before = classes["opd"]
    module.install(CREDIT)
    assert classes["opd"] is before
    algorithm = classes["grpo"](SimpleNamespace(type="grpo"), "pool")
    assert algorithm.policy_pool == "pool"
    made = traces()
    asyncio.run(algorithm.score_group([SimpleNamespace(traces=made[:1]), SimpleNamespace(traces=made[1:])]))
    for trace, expected in zip(made, EXPECTED, strict=True):
        sampled = verifiers_traces.sampled_nodes(trace)
        assert [node.advantages[0] for node in sampled if node.advantages] == pytest.approx(expected)


# slime 0.3.1 (624b824): `Sample` and the two functions of `slime/ray/rollout.py` and `megatron_utils/loss.py`.


@dataclass
class Sample:
    group_index: int
    response_length: int
    loss_mask: list[int] | None
    reward: float | None
    metadata: dict[str, Any] | None

    def get_reward_value(self, args: Any) -> float | None:
        return self.reward


def samples() -> list[Sample]:
    masks: list[list[int] | None] = [[1, 1, 0, 1], None, [1, 0, 0, 1, 1]]
    lengths = [4, 3, 5]
    return [
        Sample(9, length, mask, outcome, {"step_rewards": rewards})
        for length, mask, outcome, rewards in zip(lengths, masks, OUTCOMES, REWARDS, strict=True)
    ]


def test_slime_s_rewards_carry_advantages_from_driver_to_trainer() -> None:
    made, args = slime.SlimeCredit(CREDIT), SimpleNamespace(context_parallel_size=1)
    for sample in samples():
        valid(made.rollout_of(args, sample), CREDIT)
    raw, rewards = made.post_process(args, samples())
    assert raw == OUTCOMES
    # What slime copies to a trainer: the fields that it knows, by index.
    data: dict[str, Any] = {
        "rewards": rewards,
        "response_lengths": [4, 3, 5],
        "kl": [torch.zeros(n) for n in (4, 3, 5)],
    }
    made.advantages(args, data)
    (a, b), (c,), (d, e) = EXPECTED
    for row, expected in zip(data["advantages"], [[a, a, 0, b], [c] * 3, [d, 0, 0, e, e]], strict=True):
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float32))
    assert [row.tolist() for row in data["returns"]] == [row.tolist() for row in data["advantages"]]


def test_slime_s_adapter_refuses_what_it_cannot_place() -> None:
    made = slime.SlimeCredit(CREDIT)
    with pytest.raises(InputError, match="context-parallel-size 1"):
        made.advantages(SimpleNamespace(context_parallel_size=2), {})
    data = {"rewards": [1.0], "response_lengths": [3]}
    with pytest.raises(InputError, match="custom-reward-post-process-path"):
        made.advantages(SimpleNamespace(), data)
    bare = Sample(9, 2, None, 1.0, None)
    assert made.post_process(SimpleNamespace(), [bare, *samples()])[1][0] == [0.0, 0.0]


# rLLM 0.3.0.pre (9beb6e0): `Step`, `Trajectory` and the grouping hook of `trainer/algorithms/transform.py`.


def test_rllm_s_steps_get_lists_of_advantages(monkeypatch: pytest.MonkeyPatch) -> None:
    def default(episodes: list[Any], transform_config: Any, compact: Any = None) -> list[Any]:
        return [SimpleNamespace(group_id="t:solver", trajectories=[one for e in episodes for one in e.trajectories])]

    transform = {"_default_traj_grouping_hook": default}
    module = adapter(monkeypatch, "rllm", {"rllm.trainer.algorithms.transform": transform})

    def step(reward: float, at: int, info: dict[str, Any] | None = None) -> Any:
        return SimpleNamespace(reward=reward, response_ids=[1] * (at + 1), metadata=info, advantage=None)

    episodes = [
        SimpleNamespace(
            trajectories=[
                SimpleNamespace(reward=outcome, steps=[step(reward, at) for at, reward in enumerate(rewards)])
            ]
        )
        for rewards, outcome in zip(REWARDS, OUTCOMES, strict=True)
    ]
    (group,) = module.grouping_hook(CREDIT)(episodes, "transform", "compact")
    for trajectory, expected in zip(group.trajectories, EXPECTED, strict=True):
        valid(module.rollout_of(trajectory, "t"), CREDIT)
        for at, (one, value) in enumerate(zip(trajectory.steps, expected, strict=True)):
            assert one.advantage == pytest.approx([value] * (at + 1))
    unscored = SimpleNamespace(reward=1.0, steps=[step(0.5, 0, {"step_reward": None}), step(0.5, 0, {"other": 1})])
    assert module.rollout_of(unscored, "t").rewards == [None, 0.5]


# AReaL 2.0.0 (cbff54d): interactions of `areal/experimental/openai/cache.py`; `test_releases.py` has the released one.


def test_areal_s_interactions_are_rewarded_with_their_advantages() -> None:
    class Client(dict[str, Any]):
        def set_reward(self, name: str, reward: float) -> None:
            self[name].reward = reward

    clients = [
        Client({f"c{i}": SimpleNamespace(model_response=SimpleNamespace(output_tokens=[1] * (i + 2)), reward=None)
                for i in range(len(rewards))})
        for rewards in REWARDS
    ]  # fmt: skip
    areal.reward_interactions(clients, OUTCOMES, REWARDS, CREDIT)
    for client, rewards, outcome, expected in zip(clients, REWARDS, OUTCOMES, EXPECTED, strict=True):
        assert [one.reward for one in client.values()] == pytest.approx(expected)
        valid(areal.rollout_of(client, 0, outcome, rewards), CREDIT)
    with pytest.raises(InputError, match="3 clients, 2 outcomes"):
        areal.reward_interactions(clients, OUTCOMES[:2], REWARDS, CREDIT)
    apart = [Client({"c": SimpleNamespace(model_response=None, reward=None)}) for _ in range(2)]
    areal.reward_interactions(apart, [1.0, 0.0], [[1.0], [0.0]], StepCredit("step-rloo"), groups=["a", "a"])
    assert [client["c"].reward for client in apart] == [2.0, -2.0]


# NeMo-Gym 0.5.1 (07d6b0d): `GymnasiumServer` of `resources_servers/gymnasium/base.py`.


def response(text: str) -> Any:
    content = [SimpleNamespace(type="output_text", text=text), SimpleNamespace(type="refusal")]
    return SimpleNamespace(output=[
        SimpleNamespace(type="reasoning"), SimpleNamespace(type="message", content=content),
        SimpleNamespace(type="function_call", name="look", arguments="{}"),
    ])  # fmt: skip


def test_nemo_gym_s_server_rewards_every_step() -> None:
    class Server:
        async def reset(self, metadata: dict[str, Any], session_id: str | None = None) -> tuple[str | None, Any]:
            return "Find the key.", {"first": True}

        async def step(self, action: Any, metadata: Any, session_id: str | None = None) -> Any:
            over = "done" in action.output[1].content[0].text
            return (None if over else "nothing here"), float(over), over, False, {"own": 1}

    server = nemo_gym.scored(Server, Lengths(), weight=0.5)()

    async def episode() -> list[Any]:
        first = await server.reset({"id": "p"}, "s")
        return [first, await server.step(response("ab"), {}, "s"), await server.step(response("done"), {}, "s")]

    first, one, two = asyncio.run(episode())
    assert first == ("Find the key.", {"first": True})
    # "ab\nlook({})" has 11 characters, "done\nlook({})" 13.
    assert one[:4] == ("nothing here", pytest.approx(0.5 * 1.1), False, False)
    assert two[:4] == (None, pytest.approx(1 + 0.5 * 1.3), True, False)
    assert two[4] == {"own": 1, "step_rewards": pytest.approx([1.1, 1.3]), "outcome": 1.0}
    valid(EngineRollout("p", two[4]["step_rewards"], two[4]["outcome"], [(0, 3), (5, 8)], 8))


# Agent Lightning 1.0.0 (c632d8d): `RolloutHooks`, events, and a batch of `verl/rollout_adapter.py`.


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> Any:
    return adapter(
        monkeypatch, "agent_lightning", {"agentlightning.hooks": {"RolloutHooks": type("RolloutHooks", (), {})}}
    )


def test_agent_lightning_s_hook_adds_an_event_of_the_contract(lightning: Any) -> None:
    def request(messages: list[Any], said: str) -> Any:
        data = {"request": {"messages": messages}, "response": {"choices": [{"message": {"content": said}}]}}
        return SimpleNamespace(event_type="model_request", data=data)

    ask = [{"role": "user", "content": "Find the key."}]
    then = [*ask, {"role": "assistant", "content": "look"}, {"role": "tool", "content": "a box"}]
    events = {
        "0": [request(ask, "look"), request(then, "skip"), SimpleNamespace(event_type="reward", data={"value": 2.5})],
        "1": [],
    }
    added: list[Any] = []
    store = SimpleNamespace(add_event=lambda *given: added.append(given))
    lightning.step_hooks(Lengths())().on_succeeded(SimpleNamespace(rollout_id="r1"), events, store)
    ((rollout, attempt, kind, record),) = added
    assert (rollout, attempt, kind) == ("r1", "0", "step_rewards")
    VALIDATOR.validate(record)
    assert [step["reward"] for step in record["steps"]] == [0.4, None, None]
    assert [step["kind"] for step in record["steps"]] == ["action", "observation", "action"]
    assert record["outcome"] == 2.5
    (item,) = by_name("step-rewards").read(record, 1)
    assert item.problem.messages == ({"role": "user", "content": "Find the key."},)


def test_agent_lightning_s_rows_get_the_reward_of_their_call(lightning: Any) -> None:
    attention = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    data = SimpleNamespace(
        batch={"token_level_scores": torch.full((3, 3), 0.5), "attention_mask": attention},
        non_tensor_batch={"rollout_id_list": np.array(["a", "a", "b"]), "turn_index_list": np.array([0, 1, 0])},
    )
    lightning.place_rewards(data, {"a": [0.25, None], "b": [0.75]})
    expected = torch.tensor([[0, 0.25, 0], [0, 0, torch.nan], [0.75, 0, 0]])
    torch.testing.assert_close(data.batch["token_level_scores"], expected, equal_nan=True)


# ROLL 8eb27cc2: rows of steps, and `compute_response_level_rewards` of `roll/pipeline/agentic/utils.py`.


def test_roll_s_rows_of_steps_get_their_advantages(monkeypatch: pytest.MonkeyPatch) -> None:
    module = adapter(monkeypatch, "roll", {"roll.pipeline.agentic.agentic_pipeline": {}})
    # Rows in any order: (trajectory, step).
    order = [("b", 0), ("a", 1), ("c", 1), ("a", 0), ("c", 0)]
    at = {name: i for i, name in enumerate("abc")}
    rows = {
        "traj_id": np.array([name for name, _ in order], dtype=object),
        "traj_group_id": np.array(["g"] * 5, dtype=object),
        "step": np.array([step for _, step in order], dtype=object),
        "step_scores": np.array([REWARDS[at[name]][step] for name, step in order], dtype=object),
        "episode_scores": np.array([OUTCOMES[at[name]] for name, _ in order], dtype=object),
        "state_hash": np.array([f"s{step}" for _, step in order], dtype=object),
    }
    batch = SimpleNamespace(batch={"response_mask": torch.ones(5, 2)}, non_tensor_batch=rows)
    module.install(CREDIT)
    made, metrics = module.pipeline.compute_response_level_rewards(batch=batch, pipeline_config=None)
    found = made.batch["response_level_rewards"]
    torch.testing.assert_close(
        found, torch.tensor([EXPECTED[at[name]][step] for name, step in order], dtype=torch.float32)
    )
    assert metrics["critic/step_credit/mean"] == pytest.approx(float(found.mean()))
    for _, rollout in module.rollouts_of(batch):
        valid(rollout, CREDIT)
    # GiGPO's anchor states are ROLL's hashes.
    module.install(StepCredit("gigpo"))
    assert (
        module.pipeline.compute_response_level_rewards(batch, None)[0].batch["response_level_rewards"].isfinite().all()
    )
    rows["step_scores"][0] = None
    module.install(CREDIT)
    again = module.pipeline.compute_response_level_rewards(batch, None)[0].batch["response_level_rewards"]
    assert again[0] == 0
