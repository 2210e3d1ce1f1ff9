"""Tokens a second of `LocalPolicy` against transformers' `generate`: same model, prompts, threads and distribution.

    python -m benchmarks.sampling [--quick]

Only useful tokens count: those up to and with each solution's end token. `generate` runs the rows that have ended until
the longest ends, which costs the more the more uneven the lengths: `built_in` are the main job's problems (2 to 4
operations), `uneven` ones of 1 to 10 operations. With `even=True` all solutions have the same length, so that this cost
is out of the comparison.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from stepreward.core.errors import ModelError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose
from stepreward.core.types import Problem
from stepreward.policies import loading
from stepreward.policies.local import LocalPolicy
from stepreward.tasks.arithmetic import Difficulty, generate

SOLUTIONS = 256
LIMIT = 256
ROUNDS = 3


def stand_in() -> tuple[Any, Any]:
    """A random model of the built-in one's size, in which every token, the end too, has a chance of about 1 in 96."""
    torch.manual_seed(0)
    characters = {chr(32 + i): i for i in range(94)} | {"\n": 94, "<eos>": 95}
    core = Tokenizer(models.WordLevel(characters, unk_token="?"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")
    config = Qwen2Config(
        vocab_size=96, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, eos_token_id=95, pad_token_id=95, bos_token_id=None,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval(), tokenizer


def timed(run: Callable[[], int]) -> float:
    """Useful tokens a second, the best of several rounds."""
    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        tokens = run()
        rates.append(tokens / (time.perf_counter() - start))
    return max(rates)


def compare(model: Any, tokenizer: Any, problems: list[Problem], *, n: int = 1, even: bool = False) -> dict[str, float]:
    """Both samplers, `n` solutions a problem; with `even` no solution ends before the limit."""
    limit = 96 if even else LIMIT
    policy = LocalPolicy(model, tokenizer, batch_size=SOLUTIONS, max_tokens=limit)
    if even:
        policy._decoder._eos[:] = False
    lengths: list[int] = []

    def ours() -> int:
        seeds = Key.seed(len(lengths))
        answers = policy.propose([Propose(problem, (), seeds.fold(problem.id), n=n) for problem in problems])
        lengths[:] = [answer.n_tokens for some in answers for answer in some]
        return sum(lengths)

    rows = [policy.prompt_ids(problem) for problem in problems for _ in range(n)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    ends = loading.end_tokens(model, tokenizer).tolist()

    def theirs() -> int:
        torch.manual_seed(1)
        settings = {"min_new_tokens": limit} if even else {}
        out = model.generate(
            ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=limit,
            eos_token_id=ends, pad_token_id=ends[0], **settings,
        )[:, width:]  # fmt: skip
        ended = torch.isin(out, torch.tensor(ends)).int()
        return int((ended.cumsum(-1) - ended == 0).sum())

    ours()
    mine, other = timed(ours), timed(theirs)
    return {
        "ours_tokens_per_s": mine,
        "generate_tokens_per_s": other,
        "ratio": mine / other,
        "mean_length": sum(lengths) / len(lengths),
        "longest": float(max(lengths)),
    }


def main() -> dict[str, Any]:
    """Measures both cases and says what was measured on."""
    name = "builtin:arithmetic"
    try:
        model, tokenizer = loading.load(name, "cpu", "float32")
    except ModelError:
        (model, tokenizer), name = stand_in(), "random model of the same size"
    problems = list(generate("held_out", SOLUTIONS))
    uneven = list(generate("held_out", SOLUTIONS, difficulty=Difficulty(operations=(1, 10))))
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "solutions": SOLUTIONS,
        "built_in": compare(model, tokenizer, problems),
        "built_in_16_a_problem": compare(model, tokenizer, problems[: SOLUTIONS // 16], n=16),
        "uneven": compare(model, tokenizer, uneven),
        "uneven_16_a_problem": compare(model, tokenizer, uneven[: SOLUTIONS // 16], n=16),
        "even": compare(model, tokenizer, problems, even=True),
    }


if __name__ == "__main__":
    if "--quick" in sys.argv:
        SOLUTIONS, LIMIT, ROUNDS = 32, 64, 1
    print(json.dumps(main(), indent=2))
