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

from stepreward.connect.trl import StepGRPOTrainer
from stepreward.connect.trl_environments import trl_environment, trl_tools
from stepreward.connect.trl_sources import EnvironmentNumbers
from stepreward.core.catalog import generate
from stepreward.core.keys import Key
from stepreward.environments.tools.shop import nodes_of
from stepreward.environments.tools.shop_writers import call

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
    assert (made.get_reward(), made.step_rewards) == (1.0, [0.0, 1.0])
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
