"""Trains the built-in tiny agent: a Qwen2-shaped model of about a million parameters that calls tools in the shop.

    python -m recipes.shop_agent --out src/stepreward/policies/checkpoints/shop

It reads a chat as lines, one a message, and writes a call as JSON, or `Answer: N`. Training minimises cross-entropy on
the agent's turns. The episodes are by writers who slip, some rarely, some often (`environments.tools.shop_writers`):
the agent can solve most problems, and at temperature 1 it errs as its writers do. The shipped checkpoint had 4,000
steps with marks around its messages, and then 1,400 with lines (`--start first --seed 1 --rate 3e-3 --steps 1400`).
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from recipes.arithmetic_policy import batches, optimizers
from stepreward.core.catalog import generate
from stepreward.core.keys import Key
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.types import Problem
from stepreward.environments.by_address import environment_at
from stepreward.environments.tools.shop import ITEMS
from stepreward.environments.tools.shop_writers import written_episode
from stepreward.label.samples import graded_samples
from stepreward.policies.local import LocalPolicy
from stepreward.score.model.tiny_models import fresh_config, train_tokenizer
from stepreward.tasks.graders import grader_by_name

CAREFUL, CARELESS, CAREFUL_SHARE = 0.04, 0.5, 0.5
TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
"""A line a message: the agent reads what a reward model reads that takes one step a line."""
WORDS = (
    '{"name": "price", "arguments": {"item": "', '{"name": "calculate", "arguments": {"expression": "', '"}}',
    "Answer: ",
    *(f"{item}{s}" for item in ITEMS for s in ("", "s")),
)  # fmt: skip
"""Tokens of their own, so that an episode is short."""
Row = tuple[list[int], list[int]]
"""Token ids, and 1 where one is the agent's."""


def encode(tokenizer: Qwen2Tokenizer, problem: Problem, rng: np.random.Generator) -> Row:
    """A chat with an episode by a careful or a careless writer."""
    rate = CAREFUL if rng.random() < CAREFUL_SHARE else CARELESS
    line_end = tokenizer("\n")["input_ids"]
    ids = tokenizer(f"{problem.text}\n")["input_ids"]
    own = [0] * len(ids)
    for step in written_episode(problem, rng, rate):
        made = tokenizer(step.text)["input_ids"] + line_end
        ids += made
        own += [int(step.kind == "action")] * len(made)
    return ids, own


def collate(batch: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and labels, -100 where a token is not the agent's."""
    longest = max(len(ids) for ids, _ in batch)
    ids, labels = torch.full((len(batch), longest), pad), torch.full((len(batch), longest), -100)
    for row, (tokens, own) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(tokens)] = torch.where(torch.tensor(own) == 1, torch.tensor(tokens), -100)
    return ids, labels


def train(model: Qwen2ForCausalLM, rows: list[Row], pad: int, options: argparse.Namespace) -> None:
    """Warm-up, then a rate that falls linearly to zero; prints loss and speed."""
    made, steps = optimizers(model, options.rate), options.steps
    warm = max(1, min(100, steps // 10))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: min((step + 1) / warm, (steps - step) / (steps - warm)))
        for one in made
    ]
    stream, start, tokens, seen = batches(rows, options.batch, np.random.default_rng(options.seed)), time.time(), 0, []
    for step in range(1, steps + 1):
        ids, labels = collate(next(stream), pad)
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        wanted = labels[:, 1:]
        logits = model.lm_head(hidden[wanted != -100])
        loss = torch.nn.functional.cross_entropy(logits, wanted[wanted != -100])
        for one in made:
            one.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(made, schedules, strict=True):
            optimizer.step()
            schedule.step()
        tokens += ids.numel()
        seen.append(loss.item())
        if step % 50 == 0 or step == steps:
            rate = tokens / (time.time() - start)
            print(f"step {step}/{steps} loss {np.mean(seen[-50:]):.4f} ({rate:,.0f} tokens/s)", flush=True)
        if options.save_every and step % options.save_every == 0:
            save(model, options)


def save(model: Qwen2ForCausalLM, options: argparse.Namespace) -> None:
    """The model as it is now, in bfloat16, and its tokenizer."""
    copy = Qwen2ForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict({name: value.to(torch.bfloat16) for name, value in model.state_dict().items()})
    copy.save_pretrained(options.out)
    options.tokenizer.save_pretrained(options.out)


def solved(folder: Path, problems: list[Problem], seed: int) -> float:
    """Share of episodes that end in the right answer, at temperature 1, in the environment itself."""
    agent = Agent(LocalPolicy.load(folder, device="cpu", max_tokens=64), environment_at("tools"))
    driver = Driver(policy=agent, grader=grader_by_name("mathematics"))
    flows = (graded_samples(one, Key.seed(seed), n=2, temperature=None) for one in problems)
    return float(np.mean([t.outcome for one in driver.run(flows) for t in one.result]))


def main() -> None:
    """Trains, measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps")
    parser.add_argument("--batch", type=int, default=32, help="episodes a step")
    parser.add_argument("--problems", type=int, default=60_000, help="training problems")
    parser.add_argument("--rate", type=float, default=5e-3, help="peak learning rate")
    parser.add_argument("--start", type=Path, help="checkpoint to go on from")
    parser.add_argument("--save-every", type=int, default=0, help="steps after which it is saved meanwhile")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    made = generate["shop"].take({"key": Key.seed(options.seed)}, split="train", most=4)
    problems, rng = list(itertools.islice(made, options.problems)), np.random.default_rng(options.seed)
    if options.start is None:
        texts = [p.text + "".join(s.text for s in written_episode(p, rng, CARELESS)) for p in problems[:5000]]
        tokenizer = train_tokenizer(texts, 320)
        tokenizer.add_tokens([*WORDS])
        model = Qwen2ForCausalLM(fresh_config(tokenizer, hidden=128, layers=4))
    else:
        model = Qwen2ForCausalLM.from_pretrained(options.start, dtype=torch.float32)
        tokenizer = Qwen2Tokenizer.from_pretrained(options.start)
    tokenizer.chat_template = TEMPLATE
    # A line is a turn.
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer("\n")["input_ids"][0]
    options.tokenizer = tokenizer
    rows = [encode(tokenizer, p, rng) for p in problems]
    lengths = [len(ids) for ids, _ in rows]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens, "
          f"{np.mean(lengths):.0f} tokens an episode", flush=True)  # fmt: skip
    train(model, rows, tokenizer.pad_token_id, options)
    save(model, options)
    made = generate["shop"].take({"key": Key.seed(options.seed + 1)}, split="held_out")
    print(f"solves {solved(options.out, list(itertools.islice(made, 200)), options.seed):.1%} of held-out problems")


if __name__ == "__main__":
    main()
