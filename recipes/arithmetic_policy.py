"""Trains the built-in tiny policy: a Qwen2-shaped model of about a million parameters for arithmetic word problems.

    python -m recipes.arithmetic_policy --out first --surprise 0
    python -m recipes.arithmetic_policy --out second --start first --steps 2500 --rate 3e-3 --seed 1 --problems 125000
    python -m recipes.arithmetic_policy --out src/stepreward/policies/checkpoints/arithmetic \\
        --start second --steps 500 --rate 2.5e-3 --seed 2 --problems 24000

It reads the problem's text, a newline, and writes one equation a line, then "Answer: N", then the end token. Training
minimises cross-entropy on the solution's tokens. The solutions are by writers who lose carries, some rarely, some often
(see `stepreward.tasks.arithmetic_writers`): the policy can solve most problems, and at temperature 1 it errs as its
writers do, which sets how many it solves. The first two stages of the shipped checkpoint ran on earlier writers, who
slipped in every way alike, and on sentences that compared people in both directions; the third one moved it to the
present world.

The second stage adds a task that needs no truth: at each token, to tell from the hidden state how surprised the policy
itself was by the least likely token of the step so far. Large language models carry such a sense of their own surprise;
one of this size learns it only if asked to. It is what a reward model, trained on this backbone from rollouts alone,
finds errors with. The linear layer of that task is thrown away.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from stepreward.core.types import Problem
from stepreward.score.model.tiny_models import fresh_config, train_tokenizer
from stepreward.tasks.arithmetic import Difficulty, generate, solution
from stepreward.tasks.arithmetic_writers import written_solution

TRAINING = Difficulty(operations=(1, 5))
"""Wider than the default problems."""
CAREFUL, CARELESS = 0.05, 0.8
"""How often each kind of writer slips at an equation."""
CAREFUL_SHARE = 0.45
Row = tuple[list[int], int]
"""Token ids and where the solution starts."""


def encode(tokenizer: Qwen2Tokenizer, problem: Problem, rng: np.random.Generator) -> Row:
    """The problem, a newline, a solution by a careful or a careless writer, and the end token."""
    prompt = tokenizer(problem.text + "\n")["input_ids"]
    slip_rate = CAREFUL if rng.random() < CAREFUL_SHARE else CARELESS
    written = [i for step in written_solution(problem, rng, slip_rate) for i in tokenizer(step.text)["input_ids"]]
    return [*prompt, *written, tokenizer.eos_token_id], len(prompt)


def batches(rows: list[Row], size: int, rng: np.random.Generator) -> Iterator[list[Row]]:
    """Endless batches of rows of similar length, in random order."""
    while True:
        order = rng.permutation(len(rows))
        for chunk in np.array_split(order, max(1, len(rows) // (size * 32))):
            near = chunk[np.argsort([len(rows[i][0]) for i in chunk], kind="stable")]
            for at in rng.permutation(range(0, len(near) - size + 1, size)):
                yield [rows[i] for i in near[at : at + size]]


def collate(batch: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and labels, -100 outside the solution."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.full((len(batch), longest), pad)
    labels = torch.full((len(batch), longest), -100)
    for row, (tokens, start) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
    return ids, labels


def losses(
    model: Qwen2ForCausalLM, monitor: torch.nn.Linear, ids: torch.Tensor, labels: torch.Tensor, line_end: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy on the solution's tokens, and the squared error of the policy's view of its own surprise."""
    hidden = model.model(input_ids=ids).last_hidden_state
    wanted = labels[:, 1:]
    chosen = wanted != -100
    logits = model.lm_head(hidden[:, :-1][chosen])
    target = worst_so_far(logits.detach(), wanted, line_end)[chosen]
    view = monitor(hidden[:, 1:][chosen])[:, 0]
    return torch.nn.functional.cross_entropy(logits, wanted[chosen]), torch.nn.functional.mse_loss(view, target)


def worst_so_far(logits: torch.Tensor, wanted: torch.Tensor, line_end: int) -> torch.Tensor:
    """(R, T) least log-probability among the tokens of each line up to each token, -6 at worst, scaled to [-2, 1]."""
    chosen = wanted != -100
    logprob = torch.zeros(wanted.shape)
    logprob[chosen] = logits.log_softmax(-1).gather(1, wanted[chosen][:, None])[:, 0].clamp(min=-6)
    ended = (wanted == line_end).long()
    line = torch.cumsum(ended, 1) - ended
    # Each line lies 10 below the one before, so that the running minimum starts anew with it.
    return (torch.cummin(logprob - 10 * line, 1).values + 10 * line) / 2 + 1


def optimizers(model: Qwen2ForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers (about half the steps of AdamW alone), AdamW for all else."""
    inside = [p for p in model.model.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in inside}
    others = [p for p in model.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(inside, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(model: Qwen2ForCausalLM, rows: list[Row], tokenizer: Qwen2Tokenizer, options: argparse.Namespace) -> None:
    """Warm-up, then a rate that falls linearly to zero; prints both losses and speed."""
    steps = options.steps
    monitor = torch.nn.Linear(model.config.hidden_size, 1)
    line_end = tokenizer("\n")["input_ids"][0]
    made = [*optimizers(model, options.rate), torch.optim.AdamW(monitor.parameters(), lr=options.rate)]
    warm = max(1, min(100, steps // 10))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: min((step + 1) / warm, (steps - step) / (steps - warm)))
        for one in made
    ]
    stream = batches(rows, options.batch, np.random.default_rng(options.seed))
    start, tokens, seen = time.perf_counter(), 0, []
    for step in range(1, steps + 1):
        ids, labels = collate(next(stream), tokenizer.pad_token_id)
        text, surprise = losses(model, monitor, ids, labels, line_end)
        for one in made:
            one.zero_grad()
        (text + options.surprise * surprise).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(made, schedules, strict=True):
            optimizer.step()
            schedule.step()
        tokens += ids.numel()
        seen.append((text.item(), surprise.item()))
        if step % 100 == 0 or step == steps:
            now, view = np.mean(seen[-100:], axis=0)
            speed = tokens / (time.perf_counter() - start)
            print(f"step {step}/{steps} loss {now:.4f} surprise {view:.4f} ({speed:,.0f} tokens/s)", flush=True)


def starting_point(start: Path | None, sample: list[Problem]) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    """A checkpoint, or an untrained model with a tokenizer learned from some problems and their solutions."""
    if start is not None:
        model = Qwen2ForCausalLM.from_pretrained(start, dtype=torch.float32)
        return model, Qwen2Tokenizer.from_pretrained(start)
    tokenizer = train_tokenizer(p.text + "\n" + "".join(s.text for s in solution(p)) for p in sample)
    return Qwen2ForCausalLM(fresh_config(tokenizer, hidden=128, layers=6)), tokenizer


@torch.no_grad()
def solved(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, problems: list[Problem], seed: int) -> float:
    """Share of problems whose sample at temperature 1 states the right answer, by plain `generate`."""
    torch.manual_seed(seed)
    tokenizer.padding_side = "left"
    batch = tokenizer([p.text + "\n" for p in problems], return_tensors="pt", padding=True)
    batch.pop("token_type_ids", None)
    written = model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=160)
    texts = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [text.endswith(f"Answer: {p.reference}\n") for text, p in zip(texts, problems, strict=True)]
    return sum(right) / len(right)


def main() -> None:
    """Trains, measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=5000, help="optimiser steps")
    parser.add_argument("--batch", type=int, default=48, help="problems a step")
    parser.add_argument("--problems", type=int, default=250_000, help="training problems")
    parser.add_argument("--rate", type=float, default=5e-3, help="peak learning rate")
    parser.add_argument("--surprise", type=float, default=0.5, help="weight of the policy's view of its own surprise")
    parser.add_argument("--start", type=Path, help="checkpoint to go on from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    problems = list(generate("train", options.problems, seed=options.seed, difficulty=TRAINING))
    model, tokenizer = starting_point(options.start, problems[:5000])
    rng = np.random.default_rng(options.seed)
    rows = [encode(tokenizer, p, rng) for p in problems]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens", flush=True)
    train(model, rows, tokenizer, options)
    held_out = list(generate("held_out", 400, seed=options.seed + 1))
    print(f"solves {solved(model, tokenizer, held_out, options.seed):.1%} of 400 held-out problems at temperature 1")
    model.to(torch.bfloat16).save_pretrained(options.out)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
