"""Trees packed, and grown on cached prefixes, against the same model run on each trajectory with padding.

    python -m benchmarks.packing [--quick]

The work is real: the built-in policy writes 16 solutions of each problem at temperature 1, and a beam search with 4
beams of 4 candidates asks for scores level by level. The reward model is random, of a size at which arithmetic and not
overhead decides. Rows of the plain way are sorted by length, so that it pads as little as it can. Both ways run the
same number of threads, in turns, and each counts its best round. Every case checks that both ways agree.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Propose, Score, Scored
from stepreward.core.tree import StepTree, group_trees
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies import loading
from stepreward.policies.local import LocalPolicy
from stepreward.score.baselines import uniform
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.packing import pack, plan
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import fresh_backbone
from stepreward.search.beams.beam import beam_search
from stepreward.tasks.arithmetic import Difficulty, generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

PROBLEMS, SAMPLES, OPERATIONS = 4, 16, 5
HIDDEN, LAYERS = 256, 6
ROW, BATCH = 512, 4096
ROUNDS = 2

Run = Callable[[], tuple[int, list[float]]]
"""Does the work once; tokens encoded and what came out, for comparison."""


@dataclass
class Recorder:
    """Answers with chance and keeps the questions of each call: what a search asks of its scorer."""

    calls: list[list[Score]] = field(default_factory=list)
    name: str = "recorder"
    batch_size: int = 512

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.calls.append(list(questions))
        return uniform().score_many(questions)


def padded_batches(model: StepRewardModel, asked: Sequence[Score]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Inputs of `forward_padded` for every trajectory by itself, similar lengths together, `BATCH` tokens a batch."""
    rows: list[tuple[list[int], list[int]]] = []
    for question in asked:
        ids, reads = model.encoder.prompt_ids(question.problem), []
        for step in question.steps:
            ids = ids + model.encoder.step_ids(step)
            reads.append(len(ids) - 1)
        rows.append((ids, reads))
    rows.sort(key=lambda row: -len(row[0]))
    at = 0
    while at < len(rows):
        width = len(rows[at][0])
        part = rows[at : at + max(1, BATCH // width)]
        at += len(part)
        yield (
            torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in part]),
            torch.tensor([len(ids) for ids, _ in part]),
            torch.tensor([r for r, (_, reads) in enumerate(part) for _ in reads]),
            torch.tensor([c for _, reads in part for c in reads]),
        )


def padded_scoring(model: StepRewardModel, calls: Sequence[Sequence[Score]]) -> tuple[int, list[float]]:
    """Scores each call's trajectories one by one."""
    tokens, made = 0, []
    with torch.inference_mode():
        for asked in calls:
            for batch in padded_batches(model, asked):
                tokens += int(batch[1].sum())
                made += model.scores(model.forward_padded(*batch)).tolist()
    return tokens, made


def shared_scoring(scorer: DiscriminativeScorer, calls: Sequence[Sequence[Score]]) -> tuple[int, list[float]]:
    """Scores each call through the scorer, packed or on cached prefixes."""
    if scorer.growing is not None:
        scorer.growing.clear()
    answers = [answer for asked in calls for answer in scorer.score_many(asked)]
    return sum(a.tokens for a in answers), [float(s) for a in answers for s in a.scores]


def padded_training(model: StepRewardModel, asked: Sequence[Score]) -> tuple[int, list[float]]:
    """Gradient of the sum of logits over all trajectories' steps, each trajectory encoded by itself."""
    model.zero_grad()
    tokens, total = 0, 0.0
    for batch in padded_batches(model, asked):
        tokens += int(batch[1].sum())
        loss = torch.nn.functional.softplus(model.forward_padded(*batch)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return tokens, [total, _norm(model)]


def packed_training(model: StepRewardModel, trees: Sequence[StepTree]) -> tuple[int, list[float]]:
    """The same gradient through packed trees: a step that m trajectories share weighs m times."""
    model.zero_grad()
    encoded = [model.encoder.encode_tree(tree) for tree in trees]
    weights = [np.bincount(tree.paths[tree.mask], minlength=tree.n) for tree in trees]
    tokens, total = 0, 0.0
    for rows in plan([len(tree) for tree in encoded], ROW, BATCH):
        batch = pack(encoded, rows)
        weight = torch.tensor([weights[t][n] for t, n in zip(batch.tree.tolist(), batch.node.tolist(), strict=True)])
        tokens += batch.tokens
        loss = (torch.nn.functional.softplus(model(batch))[:, 0] * weight).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return tokens, [total, _norm(model)]


def _norm(model: StepRewardModel) -> float:
    return float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())


def compare(plain: Run, shared: Run) -> dict[str, float]:
    """Tokens and seconds of both ways, in turns; fails if they disagree."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        found = []
        for run, times in zip((plain, shared), seconds, strict=True):
            start = time.perf_counter()
            found.append(run())
            times.append(time.perf_counter() - start)
    np.testing.assert_allclose(sorted(found[0][1]), sorted(found[1][1]), rtol=1e-3, atol=1e-5)
    (plain_tokens, _), (shared_tokens, _) = found
    plain_s, shared_s = min(seconds[0]), min(seconds[1])
    return {
        "plain_tokens": plain_tokens,
        "shared_tokens": shared_tokens,
        "fewer_tokens": round(plain_tokens / shared_tokens, 2),
        "plain_seconds": round(plain_s, 3),
        "shared_seconds": round(shared_s, 3),
        "faster": round(plain_s / shared_s, 2),
    }


def searched(policy: LocalPolicy, problems: Sequence[Problem]) -> list[list[Score]]:
    """The scorer calls of one beam search a problem, the searches of all problems together, level by level."""
    recorder = Recorder()
    driver = Driver(policy=policy, scorer=recorder, grader=ArithmeticGrader())
    flows = [beam_search(problem, Key.seed(1).fold(problem.id), beams=4, width=4) for problem in problems]
    list(driver.run(flows))
    return recorder.calls


def unmerged(problems: Sequence[Problem]) -> list[Trajectory]:
    """The worst case: 16 solutions that share nothing but the prompt."""
    return [
        Trajectory(problem, tuple(Step(f"{i} + {j} + 1 = {i + j + 1}.\n") for j in range(OPERATIONS)))
        for problem in problems
        for i in range(100, 100 + SAMPLES)
    ]


def main() -> dict[str, Any]:
    """Measures training and scoring on samples and on a beam search's tree."""
    language_model, tokenizer = loading.load("builtin:arithmetic", "cpu", "float32")
    policy = LocalPolicy(language_model, tokenizer)
    problems = list(generate("held_out", PROBLEMS, difficulty=Difficulty(operations=(OPERATIONS, OPERATIONS))))
    answers = policy.propose([Propose(p, (), Key.seed(0).fold(p.id), n=SAMPLES) for p in problems])
    sampled = [Trajectory(p, c.steps) for p, some in zip(problems, answers, strict=True) for c in some]
    beams = searched(policy, problems)
    model = StepRewardModel(fresh_backbone(tokenizer, hidden=HIDDEN, layers=LAYERS), tokenizer, EncoderRecord())
    packing = DiscriminativeScorer(model, row_tokens=ROW, batch_tokens=BATCH)
    growing = DiscriminativeScorer(model, row_tokens=ROW, batch_tokens=BATCH, cache_bytes="2GiB")

    def scoring(scorer: DiscriminativeScorer, calls: list[list[Score]]) -> dict[str, float]:
        return compare(lambda: padded_scoring(model, calls), lambda: shared_scoring(scorer, calls))

    def training(trajectories: Sequence[Trajectory]) -> dict[str, float]:
        asked = [Score(t.problem, t.steps) for t in trajectories]
        trees = group_trees(trajectories)
        return compare(lambda: padded_training(model, asked), lambda: packed_training(model, trees))

    everything = group_trees([Trajectory(q.problem, q.steps) for call in beams for q in call])
    ends = [
        Trajectory(tree.problem, tree.prefix(int(leaf)))
        for tree in everything
        for leaf in np.flatnonzero(~np.isin(np.arange(tree.n), tree.parent))
    ]
    lone = unmerged(problems)
    lengths = [len(model.encoder.step_ids(step)) for t in sampled for step in t.steps]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "problems": PROBLEMS,
        "samples": SAMPLES,
        "mean_prompt_tokens": float(np.mean([len(model.encoder.prompt_ids(p)) for p in problems])),
        "mean_step_tokens": float(np.mean(lengths)),
        "mean_steps": len(lengths) / len(sampled),
        "score_samples": scoring(packing, [[Score(t.problem, t.steps) for t in sampled]]),
        "train_samples": training(sampled),
        "score_samples_without_merges": scoring(packing, [[Score(t.problem, t.steps) for t in lone]]),
        "train_samples_without_merges": training(lone),
        "beam_search_on_cached_prefixes": scoring(growing, beams),
        "beam_search_packed_level_by_level": scoring(packing, beams),
        "train_beam_tree": training(ends),
    }


if __name__ == "__main__":
    if "--quick" in sys.argv:
        PROBLEMS, HIDDEN, LAYERS, ROUNDS = 1, 64, 2, 1
    print(json.dumps(main(), indent=2))
