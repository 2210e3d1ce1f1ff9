"""Tiny models of real architectures, built here: what sampling and scoring ask of transformers is what it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose, Score
from stepreward.core.types import Problem, Step
from stepreward.policies.local import LocalPolicy
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from tests.policies.tiny_models import byte_level

KINDS = ["llama", "qwen2", "qwen3", "mistral", "olmo2", "phi3"]
TOKENIZER = byte_level()
PROBLEM = Problem("p", "Mia has 12 + 5 apples.")


def built(kind: str) -> torch.nn.Module:
    """A random model with logits far enough from even that a mistake shows."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=256, initializer_range=0.3,
        sliding_window=None, bos_token_id=None, eos_token_id=TOKENIZER.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_samples_are_the_model_s_likeliest_tokens(kind: str) -> None:
    model = built(kind)
    policy = LocalPolicy(model, TOKENIZER, temperature=0, max_tokens=12, separator="\x00")
    ((made,),) = policy.propose([Propose(PROBLEM, (), Key.seed(0), 1)])
    sampled = [token for step in made.steps for token in step.tokens or ()]
    prompt = TOKENIZER.encode(PROBLEM.text + "\n")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + sampled])).logits[0]
    assert sampled == logits[len(prompt) - 1 : len(prompt) - 1 + len(sampled)].argmax(-1).tolist()
    assert len(sampled) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_solutions_in_one_pass_score_as_each_by_itself(kind: str) -> None:
    backbone = built(kind).base_model
    scorer = DiscriminativeScorer(
        StepRewardModel(
            backbone,
            TOKENIZER,
            EncoderRecord(),
        )
    )
    first = Step("12 + 5 = 17\n")
    asked = [Score(PROBLEM, (first, Step(last))) for last in ("Answer: 17\n", "17 - 3 = 14\n", "Done.")]
    together = [one.scores for one in scorer.score_many(asked)]
    for question, scores in zip(asked, together, strict=True):
        np.testing.assert_allclose(scores, scorer.score_many([question])[0].scores, atol=1e-5)
    assert len({float(scores[1]) for scores in together}) == 3
