"""Environments of this package in TRL's own loop: its tools are called, and rewards of actions reach the loss."""

from __future__ import annotations

import inspect
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")
import trl
from datasets import Dataset
from tests.environments.counting import Counting
from tests.policies.tiny_models import byte_level
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils import get_json_schema
from trl import GRPOConfig

from stepreward.connect.audits import HeldOutAudit
from stepreward.connect.trl import StepGRPOTrainer
from stepreward.connect.trl_environments import EpisodeOutcome, line_chat, trl_environment, trl_rows, trl_tools
from stepreward.connect.trl_sources import EnvironmentNumbers
from stepreward.core.catalog import generate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.types import Problem
from stepreward.environments.by_address import environment_at
from stepreward.environments.tools.shop import nodes_of, shop_checks
from stepreward.environments.tools.shop_writers import call
from stepreward.policies import loading
from stepreward.tasks.mathematics import MathGrader

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using 'environment_factory':UserWarning"),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]
PROBLEM = next(islice(generate["shop"].take({"key": Key.seed(0)}, most=1), 1))


def test_an_environment_has_no_public_method_but_its_tools() -> None:
    made = trl_tools(PROBLEM)()
    public = {name for name, _ in inspect.getmembers(made, inspect.ismethod) if not name.startswith("_")}
    assert public == {"reset", "get_reward", "price", "calculate"}
    schema = get_json_schema(made.price)["function"]
    assert schema["name"] == "price"
    assert schema["parameters"]["properties"]["item"]["type"] == "string"
    assert schema["parameters"]["required"] == ["item"]
    counting = trl_environment(Counting)()
    public = {name for name, _ in inspect.getmembers(counting, inspect.ismethod) if not name.startswith("_")}
    assert public == {"reset", "get_reward", "act"}
    assert get_json_schema(counting.act)["function"]["parameters"]["required"] == ["action"]


def test_acting_in_it() -> None:
    made = trl_environment(Counting)()
    assert made.reset(prompt="Count.", reference="4", seed=None) == "value 1\n"
    assert [made.act(one) for one in ("*2", "*2", "*2")] == ["value 2\n", "value 4\n", "The episode is over."]
    assert made.get_reward() == 1.0
    # One number a call, as a trainer counts turns: also of one that came too late.
    np.testing.assert_array_equal(made.step_rewards, [0.0, 1.0, np.nan])
    made.reset(prompt="Count.", reference="9")
    assert made.step_rewards == []


class Written(StepGRPOTrainer):
    """The policy's turns are written down, all else is TRL's loop: the second of two generations slips."""

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *_: Any, **__: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        made, item = [], nodes_of(PROBLEM)[0].item
        for i, ids in enumerate(prompt_ids):
            heard = self._tokenizer.decode(ids)
            wrong = int("yacht" in heard) if "<tool_response>" in heard else i % 2
            asked = json.loads(call("price", item="yacht" if wrong else item))
            text = "Done." if "<tool_response>" in heard else f"<tool_call>\n{json.dumps(asked)}\n</tool_call>"
            made.append(self._tokenizer(f"{text}<|im_end|>")["input_ids"])
        return made, None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.given = super()._generate_and_score_completions(inputs)
        return self.given

    def _credit_all(self, *arguments: Any) -> Any:
        self.data, made = super()._credit_all(*arguments)
        return self.data, made


def test_rewards_of_calls_reach_the_loss(tmp_path: Path) -> None:
    specials = ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<tool_call>", "</tool_call>", "<think>", "</think>")
    tokenizer = byte_level(specials, size=400)
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=4096, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    settings = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=2, max_completion_length=900,
        max_steps=1, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
        gradient_checkpointing=False, seed=0,
    )  # fmt: skip
    kept = {name: json.dumps(PROBLEM.meta[name]) for name in ("nodes", "prices")}
    rows: dict[str, Any] = {
        "prompt": [[{"role": "user", "content": PROBLEM.text}]] * 2,
        "reference": [PROBLEM.reference] * 2,
    }
    data = Dataset.from_dict(
        {**rows, "functions": [["price"]] * 2, **{name: [text] * 2 for name, text in kept.items()}}
    )
    trainer = Written(
        Qwen3ForCausalLM(config), [lambda **_: [1.0] * 4], settings, data, processing_class=tokenizer,
        environment_factory=trl_tools(PROBLEM, reward="shop"), credit="pure",
        step_rewards=EnvironmentNumbers("step_rewards"), step_end="",
    )  # fmt: skip
    trainer.train()
    # The first call of a generation is right or useless; the last turn calls nothing and has no reward of its own.
    rewards = np.split(np.asarray(trainer.data["rewards"]), np.asarray(trainer.data["offsets"])[1:-1])
    assert [one[0] for one in rewards] == [1.0, 0.0] * 2
    assert all(np.isnan(one[1]) for one in rewards)
    assert trainer.given["advantages"].any()


def said(*calls: tuple[str, Any]) -> dict[str, Any]:
    """A turn as TRL keeps it: of calls, or of a text."""
    made = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in calls]
    return {"role": "assistant", "content": "", "tool_calls": made}


def answer(text: str) -> dict[str, Any]:
    """A turn without a call."""
    return {"role": "assistant", "content": text}


def played(*turns: dict[str, Any], most: int = 12) -> tuple[Any, list[float]]:
    """An episode of turns that TRL's loop would run, and what `EpisodeOutcome` then says."""
    made = trl_tools(PROBLEM, reward="shop", turns=most)()
    made.reset(**{name: column[0] for name, column in trl_rows([PROBLEM]).items()})
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages.append(turn)
        for call_ in turn.get("tool_calls") or ():
            function = call_["function"]
            # TRL refuses a tool that there is not, and arguments that are no object.
            try:
                shown = getattr(made, function["name"])(**function["arguments"])
            except (AttributeError, TypeError) as error:
                shown = str({"error": str(error)})
            messages.append({"role": "tool", "name": function["name"], "content": shown})
    return made, EpisodeOutcome(MathGrader())([messages], [made])


ITEM = nodes_of(PROBLEM)[0].item
LOOK = ("price", {"item": ITEM})
RIGHT = answer(f"Answer: {PROBLEM.reference}")


def test_the_last_turn_is_the_episode_s_answer() -> None:
    made, outcome = played(said(LOOK), RIGHT)
    assert outcome == [1.0]
    assert made.step_rewards == [1.0, 1.0]
    assert np.isnan(made.get_reward()), "TRL adds the two"
    made, outcome = played(said(LOOK), said(LOOK), answer("Answer: 100000"))
    assert outcome == [0.0]
    assert made.step_rewards == [1.0, 0.0, 0.0]


def test_step_rewards_are_of_turns_whatever_trl_refused() -> None:
    turns = said(LOOK), said(("prize", {"item": ITEM})), said(("price", ITEM)), said(LOOK, ("steal", {}), LOOK), RIGHT
    made, outcome = played(*turns)
    assert outcome == [1.0]
    # The second and third turn never came to the environment; the fourth asks twice for what is known.
    np.testing.assert_array_equal(made.step_rewards, [1.0, np.nan, np.nan, 0.0, 1.0])
    made, _ = played(said(("price", {"item": "yacht"}), LOOK), RIGHT)
    assert made.step_rewards == [0.5, 1.0]


def test_an_episode_without_an_answer_is_lost() -> None:
    assert played(said(LOOK))[1] == [0.0]
    assert played()[1] == [0.0]
    made, outcome = played(said(LOOK), answer('{"name": "price", "arguments": {"item"'))
    assert outcome == [0.0], "a call that cannot be read is no answer"
    assert made.step_rewards == [1.0, 0.0]
    made, outcome = played(said(LOOK), said(LOOK), RIGHT, most=2)
    assert np.isnan(outcome).all()
    assert made.get_reward() == 0.0, "the limit of turns: the environment itself says so"
    np.testing.assert_array_equal(made.step_rewards, [1.0, 0.0, np.nan])


def test_an_environment_of_actions_knows_its_outcome() -> None:
    made = trl_environment(Counting)()
    made.reset(prompt="Count.", reference="4")
    messages = []
    for action in ("*2", "*2"):
        messages += [said(("act", {"action": action})), {"role": "tool", "name": "act", "content": made.act(action)}]
    assert np.isnan(EpisodeOutcome(MathGrader())([[*messages, answer("Done.")]], [made])).all()
    assert made.get_reward() == 1.0
    np.testing.assert_array_equal(made.step_rewards, [0.0, 1.0, np.nan])
    with pytest.raises(InputError, match="int is no environment"):
        EpisodeOutcome(MathGrader())([messages], [3])


def test_rows_of_trl_are_the_problems() -> None:
    problems = list(islice(generate["shop"].take({"key": Key.seed(1)}), 3))
    plain = Problem("p", ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hm?"}))
    for problem, row in zip([*problems, plain], Dataset.from_dict(trl_rows([*problems, plain])), strict=True):
        made = trl_tools(PROBLEM)()
        made.reset(**row)
        assert (made.problem.id, made.problem.messages) == (problem.id, problem.messages)
        assert (made.problem.reference, made.problem.meta) == (problem.reference, problem.meta)


def test_the_built_in_agent_acts_in_trl_as_in_its_own_environment(tmp_path: Path) -> None:
    problems = list(islice(generate["shop"].take({"key": Key.seed(2)}, most=1), 2))
    model, tokenizer = loading.load("builtin:shop", "cpu", "float32")
    settings = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=4, max_completion_length=200,
        max_steps=1, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
        gradient_checkpointing=False, seed=0,
    )  # fmt: skip
    kept: list[Any] = []

    def keep(trajectories: Any) -> Any:
        kept.extend(trajectories)
        return EnvironmentNumbers.__call__(rewards, trajectories)

    rewards = EnvironmentNumbers()
    rewards.attach(trainer := Kept(
        model, EpisodeOutcome(MathGrader()), settings, Dataset.from_dict(trl_rows(problems)),
        processing_class=line_chat(tokenizer), environment_factory=trl_tools(problems[0], reward="shop"),
        credit="pure", step_rewards=keep, step_end="",
    ))  # fmt: skip
    audit = HeldOutAudit(
        trainer, problems, MathGrader(), every=1, samples=2, max_tokens=64, environment=environment_at("tools")
    )
    trainer.add_callback(audit)
    trainer.train()
    by_text = {one.text: one for one in problems}
    given = np.split(np.asarray(trainer.data["rewards"]), np.asarray(trainer.data["offsets"])[1:-1])
    assert len(kept) == 8
    for trajectory, outcome, row in zip(kept, trainer.data["outcome"], given, strict=True):
        problem = by_text[trajectory.problem.text]
        checks = [one.right for one in shop_checks(problem, trajectory.steps) if one.right is not None]
        assert row.tolist() == [float(one) for one in checks], "what TRL ran is what the shop knows"
        assert outcome == MathGrader().grade(problem, trajectory.steps)
        assert [step.text[-1] for step in trajectory.steps] == ["\n"] * len(trajectory), "a line is a turn"
    assert np.diff(trainer.data["offsets"]).max() > 2
    assert len(audit.found) == 2
    assert max(audit.found) > 0, "an audit of an agent plays whole episodes"


class Kept(StepGRPOTrainer):
    """Keeps what credit was given of."""

    def _credit_all(self, *arguments: Any) -> Any:
        self.data, made = super()._credit_all(*arguments)
        return self.data, made


def test_a_chat_of_lines_needs_an_end_of_line() -> None:
    with pytest.raises(InputError, match="the end of a line is 2 tokens"):
        line_chat(lambda text: {"input_ids": [1, 2]})
