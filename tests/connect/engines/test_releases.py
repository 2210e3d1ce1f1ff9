"""Adapters on the released packages, where they are (`make engines` puts them beside the environment); no GPU is used.

What they import that no CPU holds is hollow: DeepSpeed and FlashAttention under OpenRLHF, servers under AReaL.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import typing
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typing_extensions

from stepreward.connect.engines import areal, verifiers_traces
from stepreward.connect.engines.engine_rollouts import StepCredit
from stepreward.core.catalog import credit
from stepreward.core.errors import InputError
from stepreward.formats.registry import by_name

from .hollow import bare, hollow
from .standins import VALIDATOR, totals, valid
from .test_standins import EXPECTED, OUTCOMES, REWARDS, Lengths

pytestmark = pytest.mark.filterwarnings("ignore")
CREDIT = StepCredit("step-rloo")


def released(name: str) -> str:
    """The folder of an engine's package; skips where it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed: make engines")
    return next(iter(spec.submodule_search_locations))


# SkyRL 0.3.0.


@pytest.fixture(scope="module")
def skyrl() -> Any:
    released("skyrl")
    # Under Python 3.11 SkyRL's own types need this class, which pydantic asks for.
    kept, typing.TypedDict = typing.TypedDict, typing_extensions.TypedDict
    try:
        made = importlib.import_module("stepreward.connect.engines.skyrl")
        made.theirs = importlib.import_module("skyrl.backends.skyrl_train.utils.ppo_utils")
    finally:
        typing.TypedDict = kept
    made.names = made.register({"step-rloo": {"weight": 0.5}})
    return made


MASK = torch.tensor([[1, 1, 0, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
DENSE = torch.zeros(4, 6)
DENSE[0, 1], DENSE[0, 4], DENSE[1, 2], DENSE[2, 0], DENSE[3, 5] = 0.5, 1.0, 0.25, 0.75, 1.0
UID = np.array(["a", "a", "b", "b"], dtype=object)


def advantages(skyrl: Any, name: str, **more: Any) -> torch.Tensor:
    """As SkyRL's trainer calls it."""
    config = skyrl.theirs.AlgorithmConfig()
    made, returns = skyrl.theirs.compute_advantages_and_returns(
        token_level_rewards=DENSE, response_mask=MASK, index=UID, adv_estimator=name, config=config, **more
    )
    assert made.shape == returns.shape == DENSE.shape
    assert not made[MASK == 0].any()
    return made


def test_skyrl_finds_every_estimator_in_its_registry(skyrl: Any) -> None:
    assert version("skyrl") == "0.3.0"
    assert set(skyrl.names) <= set(skyrl.theirs.AdvantageEstimatorRegistry.list_available())
    for name in skyrl.names:
        assert advantages(skyrl, name, values=torch.zeros(4, 6)).isfinite().all()


def test_skyrl_s_outcome_estimators_are_ours(skyrl: Any) -> None:
    outcome = DENSE.clone()
    outcome[0, 1] = outcome[2, 0] = 0
    for ours, theirs in (("stepreward_rloo_verl", "rloo"), ("stepreward_grpo_verl", "grpo")):
        given = {"token_level_rewards": outcome, "response_mask": MASK, "index": UID, "config": None}
        own, _ = skyrl.theirs.AdvantageEstimatorRegistry.get(ours)(**given)
        config = skyrl.theirs.AlgorithmConfig()
        want, _ = skyrl.theirs.compute_advantages_and_returns(**{**given, "config": config}, adv_estimator=theirs)
        torch.testing.assert_close(own, want * MASK, atol=1e-5, rtol=1e-5)


def test_skyrl_s_step_rewards_reach_their_tokens(skyrl: Any) -> None:
    made = advantages(skyrl, "stepreward_step_rloo")
    # Weight .5: totals of the two rollouts of "a" are .5 * .5 + 1 and .25.
    first, second = 1.25 - 0.25, 1.0 - 0.25
    torch.testing.assert_close(made[0], torch.tensor([first, first, 0, second, second, 0]))
    torch.testing.assert_close(made[1, :3], torch.full((3,), 0.25 - 1.25))
    by_value = advantages(skyrl, "stepreward_gae", values=torch.ones(4, 6) * 0.5)
    torch.testing.assert_close(by_value[0], torch.tensor([1.0, 1.0, 0, 0.5, 0.5, 0]))


# verifiers 0.4.0.


def test_verifiers_own_traces_get_advantages_and_read_as_rows() -> None:
    released("verifiers")
    graph, trace = (importlib.import_module(f"verifiers.v1.{name}") for name in ("graph", "trace"))
    types = importlib.import_module("verifiers.v1.types")
    assert version("verifiers") == "0.4.0"
    made = []
    for rewards, outcome in zip(REWARDS, OUTCOMES, strict=True):
        nodes = [graph.MessageNode(message=types.UserMessage(content="Find it."), token_ids=[1, 2], mask=[False] * 2)]
        for at in range(len(rewards)):
            ids = [3, *range(4, 6 + at)]
            nodes.append(graph.MessageNode(
                message=types.AssistantMessage(content=f"look {at}"), sampled=True, token_ids=ids,
                parent=len(nodes) - 1, mask=[False] + [True] * (len(ids) - 1), logprobs=[-0.5] * (len(ids) - 1),
            ))  # fmt: skip
        task = trace.TraceTask.model_construct(type="T", data={}, key="p", hash=None)
        made.append(trace.Trace.model_construct(
            id=f"t{len(made)}", task=task, nodes=nodes,
            rewards={"right": trace.Reward(score=outcome)}, info={"step_rewards": rewards},
        ))  # fmt: skip
    verifiers_traces.assign(made, CREDIT)
    for one, expected in zip(made, EXPECTED, strict=True):
        sampled = [node for node in one.nodes if node.sampled]
        for node, value in zip(sampled, expected, strict=True):
            # verifiers checks the layout when a node is made: one a sampled token.
            again = graph.MessageNode.model_validate(node.model_dump())
            assert again.advantages == pytest.approx([value] * sum(node.mask))
        valid(verifiers_traces.rollout_of(one), CREDIT)
        row = {"nodes": [node.model_dump(mode="json") for node in one.nodes], "task": {"key": "p"}, "rewards": {}}
        (item,) = by_name("verifiers-trace").read(row, 1)
        assert [step.meta["advantages"][0] for step in item.steps] == pytest.approx(expected)


# OpenEnv 0.10.0.


def test_openenv_s_rubric_rewards_steps() -> None:
    folder = released("openenv")
    assert version("openenv") == "0.10.0"
    bare("openenv.core", f"{folder}/core")
    module = importlib.import_module("stepreward.connect.engines.openenv")

    class Said:
        def __init__(self, done: bool = False, **fields: Any) -> None:
            self.done, self.fields = done, fields

        def model_dump(self, **_: Any) -> dict[str, Any]:
            return self.fields

    rubric = module.ScorerRubric(Lengths(), "Find the key.")
    assert rubric(Said(text="look"), Said(found="a box")) == 0.0
    assert rubric(Said(tool="open", at=3), Said(done=True, found="key")) == pytest.approx(0.4)
    assert rubric.last_score == pytest.approx(0.4)
    assert rubric.compute_step_rewards() == pytest.approx([0.4, len('{"tool": "open", "at": 3}') / 10])
    record = rubric.record()
    VALIDATOR.validate(record)
    assert [step["reward"] is None for step in record["steps"]] == [False, True, False, True]
    assert record["outcome"] == pytest.approx(0.4)
    won = module.ScorerRubric(Lengths(), "Find the key.", outcome=lambda pairs: 2.0 + len(pairs))
    won(Said(text="skip"), Said(done=True, found="key"))
    assert np.isnan(won.compute_step_rewards()).all()
    assert won.record()["outcome"] == won.last_score == 3.0
    won.reset()
    assert won.compute_step_rewards() == []


# OpenRLHF 0.11.0.


@pytest.fixture(scope="module")
def openrlhf() -> Any:
    released("openrlhf")
    hollow("deepspeed", "flash_attn", "ring_flash_attn", "vllm", "liger_kernel", "optree")
    assert version("openrlhf") == "0.11.0"
    return importlib.import_module("stepreward.connect.engines.openrlhf")


def test_openrlhf_s_agent_tells_all_its_rewards_in_the_last_turn(openrlhf: Any) -> None:
    agents = importlib.import_module("openrlhf.utils.agent")

    class Agent(openrlhf.StepAgent):  # type: ignore[misc, name-defined]
        most = 3

        async def turn(self, states: dict[str, Any], **_: Any) -> dict[str, Any]:
            done = len(self.kept) == 1
            own = {} if done else {"step_reward": 0.25}
            return {
                "rewards": torch.tensor(float(done)),
                "environment_feedback": "" if done else " no",
                "done": done,
                **own,
            }

    class Tokens:
        def __call__(self, text: str, **_: Any) -> Any:
            return {"input_ids": torch.tensor([[ord(one) for one in text]], dtype=torch.long).reshape(1, -1)}

    class RLEngine:
        async def generate(self, tokens: list[int], sampling: Any, **_: Any) -> Any:
            return SimpleNamespace(outputs=[SimpleNamespace(token_ids=[65, 66], text="AB")])

    executor = agents.MultiTurnAgentExecutor(Agent)
    sampling = SimpleNamespace(max_tokens=4, logprobs=None)
    made = asyncio.run(executor.execute("ask", "label", sampling, 64, Tokens(), RLEngine()))
    assert made["reward"] == 1.0
    logs = made["extra_logs"]
    assert (logs["turns"], logs["step_00"], logs["step_02"]) == (2.0, 0.25, 0.0)
    assert np.isnan(logs["step_01"])
    # And what OpenRLHF makes of it is a sample that the experience maker reads.
    samples = importlib.import_module("openrlhf.trainer.ppo_utils.samples_generator")
    generator = next(one for one in vars(samples).values() if hasattr(one, "_process_response_into_experience"))
    experience = generator._process_response_into_experience(None, made, max_len=64)
    experience.index = [3]
    rollout = openrlhf.rollout_of(experience, 0, 2)
    assert (rollout.group, rollout.outcome, rollout.length) == (1, 1.0, 3 + 2 + 3 + 2 - 1)
    assert rollout.spans == [(2, 4), (7, 9)]
    np.testing.assert_array_equal(rollout.rewards, [0.25, np.nan])
    valid(rollout)


def experiences() -> list[Any]:
    """Three samples of one prompt, two in a batch, in turns of two tokens with one between."""
    padded = [[*row, 0.0, 0.0][:3] for row in REWARDS]
    info = {f"step_{at:02d}": torch.tensor([row[at] for row in padded]) for at in range(3)}
    info |= {"turns": torch.tensor([float(len(row)) for row in REWARDS]), "response_clip_ratio": torch.zeros(3).bool()}
    mask = torch.tensor([[1, 1, 0, 1, 1] if len(row) == 2 else [1, 1, 0, 0, 0] for row in REWARDS])

    def part(rows: slice) -> Any:
        return SimpleNamespace(
            index=[0, 1, 2][rows], action_mask=mask[rows], rewards=torch.tensor(OUTCOMES)[rows],
            kl=torch.zeros(3, 5)[rows], info={name: values[rows] for name, values in info.items()},
        )  # fmt: skip

    return [part(slice(0, 2)), part(slice(2, 3))]


def test_openrlhf_s_experience_gets_step_credit_over_all_batches(openrlhf: Any) -> None:
    openrlhf.install(CREDIT)
    maker = openrlhf.trainer_module.RemoteExperienceMaker
    theirs = importlib.import_module("openrlhf.trainer.ppo_utils.experience_maker")
    assert issubclass(maker, theirs.RemoteExperienceMaker)
    own = maker.__new__(maker)
    own.strategy = SimpleNamespace(args=SimpleNamespace(rollout=SimpleNamespace(n_samples_per_prompt=3)))
    made = own.compute_advantages_and_returns(experiences())
    rows = torch.cat([one.advantages for one in made])
    (a, b), (c,), (d, e) = totals(REWARDS, OUTCOMES)
    torch.testing.assert_close(rows, torch.tensor([[a, a, 0, b, b], [c, c, 0, 0, 0], [d, d, 0, e, e]]).float())
    assert made[0].info["return"].tolist() == OUTCOMES[:2]
    assert made[0].kl is None


def test_openrlhf_s_turns_without_a_token_between_them_are_told(openrlhf: Any) -> None:
    (first, _) = experiences()
    first.action_mask = torch.ones(2, 5)
    with pytest.raises(InputError, match="2 rewards for 1 turns"):
        openrlhf.rollout_of(first, 0, 3)
    first.info["response_clip_ratio"] = torch.tensor([True, False])
    assert openrlhf.rollout_of(first, 0, 3).rewards == [0.5]


# AReaL 1.0.4: the cache of interactions.


def test_areal_s_own_cache_holds_advantages() -> None:
    folder = released("areal")
    hollow("colorlog", "sglang")
    for name in ("areal", "areal.api", "areal.utils", "areal.experimental", "areal.experimental.openai"):
        bare(name, folder + name.removeprefix("areal").replace(".", "/"))
    api = importlib.import_module("areal.api")
    api.ModelResponse = object  # type: ignore[attr-defined]
    try:
        cache = importlib.import_module("areal.experimental.openai.cache")
        types = importlib.import_module("areal.experimental.openai.types")
    except ImportError as error:
        pytest.skip(str(error))
    made = []
    for rewards in REWARDS:
        own = cache.InteractionCache()
        for at in range(len(rewards)):
            answer = SimpleNamespace(output_tokens=[1] * (at + 1))
            messages = [{"role": "user", "content": f"{at}"}]
            own[f"c{at}"] = types.InteractionWithTokenLogpReward(model_response=answer, messages=messages)
        made.append(own)
    areal.reward_interactions(made, OUTCOMES, REWARDS, CREDIT)
    for own, expected in zip(made, EXPECTED, strict=True):
        assert [one.reward for one in own.values()] == pytest.approx(expected)
        assert own.total_reward == pytest.approx(sum(expected))


def test_what_the_adapters_pass_on_is_what_credit_gives() -> None:
    flat = {"rewards": np.concatenate(REWARDS), "outcome": OUTCOMES, "offsets": [0, 2, 3, 5], "group": [0, 0, 0]}
    np.testing.assert_allclose(np.concatenate(EXPECTED), credit["step-rloo"].take(flat))
