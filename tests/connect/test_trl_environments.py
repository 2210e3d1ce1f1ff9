"""`StepGRPOTrainer` with TRL's own environments: tools are called in its loop, and each turn is a step."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")
import trl
from datasets import Dataset
from tests.policies.tiny_models import byte_level
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig

from stepreward.connect.trl import StepGRPOTrainer
from stepreward.connect.trl_sources import EnvironmentNumbers
from stepreward.core.catalog import credit
from stepreward.core.types import Trajectory

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using 'environment_factory':UserWarning"),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]
GOAL = 3
WALKS: tuple[list[Any], ...] = ([1, 2], [2, -1, 2], [3], [1, "up"])
"""Moves of the generations; the last one makes a call that the tool cannot answer."""
PLACES: tuple[list[int], ...] = ([1, 3], [2, 1, 3], [3], [1, 1])
"""Where the walker stands after each."""


class Line:
    """A walker on a line, who is to stop at 3."""

    def reset(self, **_: Any) -> str:
        """Goes to the start."""
        self.place = 0
        self.scores: list[float | None] = []
        return " You stand at 0."

    def move(self, by: int) -> str:
        """Goes along the line.

        Args:
            by: how far.

        Returns:
            Where that is.
        """
        # A call that fails is a turn too: nobody can score it.
        self.scores.append(None)
        self.place += by
        self.scores[-1] = -0.25 * abs(GOAL - self.place)
        return f"at {self.place}."

    def get_reward(self) -> float:
        """Whether the walker stopped where it should."""
        return float(self.place == GOAL)


def closeness(trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
    """Rewards of moves by the place that the tool tells after them; an error and the answer at the end have none."""
    made = []
    for trajectory in trajectories:
        heard = [re.search(r"at (-?\d+)\.", step.text) for step in trajectory.steps if step.kind == "observation"]
        made.append(np.array([-0.25 * abs(GOAL - int(place[1])) if place else 0.0 for place in heard] + [0.0]))
    return made


class Scripted(StepGRPOTrainer):
    """The policy's turns are written down, all else is TRL's loop; keeps what was given to the loss."""

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *_: Any, **__: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        made = []
        for i, ids in enumerate(prompt_ids):
            heard = self._tokenizer.decode(ids)
            walk = int(said[1]) if (said := re.search(r"Walk (\d)", heard)) else i % len(WALKS)
            done = heard.count("\n<tool_response>")
            if done == len(WALKS[walk]):
                text = "Done."
            else:
                call = json.dumps({"name": "move", "arguments": {"by": WALKS[walk][done]}})
                text = f"Walk {walk}.\n<tool_call>\n{call}\n</tool_call>"
            made.append(self._tokenizer(f"{text}<|im_end|>")["input_ids"])
        return made, None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.given = super()._generate_and_score_completions(inputs)
        return self.given

    def _credit_all(self, *arguments: Any) -> Any:
        self.data, self.made = super()._credit_all(*arguments)
        return self.data, self.made


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", ["gigpo", "grpo", "mt-grpo"])
def test_turns_of_an_environment_that_trl_runs_are_steps(method: str, tmp_path: Path) -> None:
    specials = ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<tool_call>", "</tool_call>", "<think>", "</think>")
    tokenizer = byte_level(specials, size=400)
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=2048, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    settings = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=4, max_completion_length=600,
        max_steps=1, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
        gradient_checkpointing=False, seed=0,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": [[{"role": "user", "content": f"Go to {GOAL}, {i}."}] for i in range(4)]})
    asked = credit[method].data
    # What the environment says, or what it keeps.
    sources = {"gigpo": closeness, "grpo": None, "mt-grpo": EnvironmentNumbers("scores")}
    trainer = Scripted(
        Qwen3ForCausalLM(config), None, settings, data, processing_class=tokenizer, environment_factory=Line,
        credit=method, step_rewards=sources[method], step_end="",
    )  # fmt: skip
    trainer.train()
    assert np.diff(trainer.data["offsets"]).tolist() == [3, 4, 2, 3] * 2, "each call is a step, and so is the answer"
    assert trainer.data["outcome"].tolist() == [1, 1, 1, 0] * 2
    if "rewards" in asked:
        expected = [[-0.25 * abs(GOAL - place) for place in row] for row in PLACES]
        unscored = 0.0 if method == "gigpo" else np.nan
        expected[3][1] = unscored
        np.testing.assert_array_equal(trainer.data["rewards"], [x for row in expected for x in (*row, unscored)] * 2)
    np.testing.assert_allclose(trainer.made, credit[method].take(trainer.data))
    assert np.isfinite(trainer.made).all()
    assert trainer.made.any()
    advantages, own = trainer.given["advantages"], trainer.given["tool_mask"].bool()
    present = trainer.given["completion_mask"].bool()
    assert not advantages[~(own & present)].any(), "nothing for what the environment wrote"
    for row, steps in enumerate(np.split(trainer.made, trainer.data["offsets"][1:-1])):
        lengths = np.split(trainer.data["lengths"], trainer.data["offsets"][1:-1])[row]
        np.testing.assert_allclose(advantages[row][own[row] & present[row]], np.repeat(steps, lengths), rtol=1e-5)
