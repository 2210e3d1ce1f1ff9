"""Searches by step scores against its_hub's and against a plain loop: the same policy, reward model and budget.

    PYTHONPATH=FOLDER python -m benchmarks.search_peers [--quick]

FOLDER holds its_hub; its files are enough: `pip install --target FOLDER --no-deps its-hub==1.2.0`.

Four ways solve the same problems, with 4 beams of 4 continuations and at most 8 steps, or with 16 samples:

    ours              `stepreward.search`, all problems together, on cached prefixes
    lock_step         one problem at a time, every candidate encoded from its first token at each scoring call, as in
                      search-and-learn. Samples and search are ours, so it must find the same solutions: what differs is
                      how they are run. Equal candidates are dropped once scored (its `filter_duplicates`)
    its_hub           its own classes, one problem at a time, as its `infer` does
    its_hub_together  the same, all problems at the same time; what they ask together is answered in one batch, as a
                      batching server would do: the most that its interfaces allow

All call the same policy, the built-in one, and the same reward model, which is of the policy's size and reads steps at
their ends, on the same threads. `scorer_tokens` are those encoded, `scorer_positions` what passed through the backbone,
padding included. `cpu_seconds` are this process's own, which other work on the machine disturbs less. The reward models
of its_hub get whole texts: that is what its interfaces hand over.

What its_hub does otherwise changes how much it asks. Its beam search draws 4 first steps, not 16,
and keeps copies, so that copies of a finished candidate can fill its beams and end it. It stops at the answer's marker,
which spares it the question whether more comes. Its particle filter draws multinomially at every step and takes the
heaviest particle; ours draws systematically and votes. Its best-of-N scores equal texts once, as ours does. Its
`max_steps` of 7 gives 8 steps.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import SKIPPED
from benchmarks.its_hub_searches import ANSWER, LanguageModel, RewardModel, its_hub
from benchmarks.lock_step import Loop, Reencoder
from benchmarks.small_reward_models import BUILTIN, trained, untrained
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import paired_difference, proportion
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem, Step
from stepreward.policies.local import LocalPolicy
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.search.beams.beam import beam_search
from stepreward.search.candidates import Found
from stepreward.search.particles.particle_filters import particle_filter
from stepreward.search.samples.independent import best_of_n
from stepreward.tasks.arithmetic import Difficulty, generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

PROBLEMS = 64
BEAMS, WIDTH, DEPTH, SAMPLES = 4, 4, 8, 16
OPERATIONS, DEEP = 5, 7
"""Operations of the problems, and of those whose solutions take 8 steps."""
BATCH = 4096
"""Tokens to a forward pass of the reward model."""
TRAINING = 400
"""Problems that the reward model learns from."""
ALIKE = 0.95
"""Least share of problems on which the plain loop must answer as ours does; rounding may break a tie otherwise."""
GRADER = ArithmeticGrader()


@dataclass(frozen=True)
class World:
    """What all ways share."""

    policy: LocalPolicy
    model: StepRewardModel
    problems: list[Problem]
    key: Key
    peer: SimpleNamespace


@dataclass(frozen=True)
class Run:
    """How a way solved the problems."""

    answers: list[str | None]
    generated: int
    """Tokens that the policy wrote."""
    scored: int
    """Tokens that the reward model encoded, without padding."""


Way = Callable[[World], Run]
COSTS = ("seconds", "cpu_seconds", "scorer_tokens", "scorer_positions", "generated_tokens")


@dataclass(frozen=True)
class Timed:
    """A run, and what it cost."""

    run: Run
    right: NDArray[np.float64]
    """1.0 where the answer is right."""
    positions: int
    """That passed through the reward model's backbone."""
    seconds: float
    cpu_seconds: float

    def row(self) -> dict[str, Any]:
        """For the results."""
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "scorer_tokens": self.run.scored,
            "scorer_positions": self.positions,
            "generated_tokens": self.run.generated,
            "accuracy": proportion(int(self.right.sum()), len(self.right)).to_json(),
        }


def ours(method: Callable[..., Flow[Found]], **settings: int) -> Way:
    """A search of the library, all problems together."""

    def way(world: World) -> Run:
        scorer = DiscriminativeScorer(world.model, batch_tokens=BATCH, cache_bytes="2GiB")
        driver = Driver(policy=world.policy, scorer=scorer, grader=GRADER)
        flows = (method(problem, world.key.fold(problem.id), **settings) for problem in world.problems)
        finished = sorted(driver.run(flows), key=lambda one: one.index)
        answers = [one.result.answer for one in finished]
        return Run(answers, driver.bill.generated_tokens, driver.bill.scored_tokens)

    return way


def lock_step(method: str, **settings: int) -> Way:
    """A plain loop, one problem at a time."""

    def way(world: World) -> Run:
        scorer = Reencoder(world.model, BATCH)
        loop = Loop(world.policy, scorer)
        found = [getattr(loop, method)(p, world.key.fold(p.id), **settings) for p in world.problems]
        answers = [GRADER.answer(p, b.steps) for p, b in zip(world.problems, found, strict=True)]
        return Run(answers, loop.generated, scorer.tokens)

    return way


def peer(method: str, *, together: bool) -> Way:
    """A search of its_hub's, one problem at a time or all at the same time."""

    def way(world: World) -> Run:
        by_prompt = {problem.text: problem for problem in world.problems}
        policy = LanguageModel(world.policy, by_prompt, world.key)
        scorer = Reencoder(world.model, BATCH)
        total = _last if method == "ParticleFiltering" else min
        algorithm = _algorithm(world.peer, method, RewardModel(scorer, by_prompt, total))
        random.seed(0)

        async def solve(problems: Sequence[Problem]) -> list[dict[str, str]]:
            made: list[dict[str, str]] = await asyncio.gather(
                *(algorithm.ainfer(policy, problem.text, SAMPLES) for problem in problems)
            )
            return made

        groups = [world.problems] if together else [[problem] for problem in world.problems]
        texts = [message["content"] for group in groups for message in asyncio.run(solve(group))]
        last = [text.splitlines()[-1:] for text in texts]
        answers = [GRADER.answer(p, [Step(line) for line in end]) for p, end in zip(world.problems, last, strict=True)]
        return Run(answers, policy.generated, scorer.tokens)

    return way


def peers(method: str) -> dict[str, Way]:
    """A search of its_hub's in both ways."""
    return {"its_hub": peer(method, together=False), "its_hub_together": peer(method, together=True)}


def _algorithm(its: SimpleNamespace, method: str, scorer: RewardModel) -> Any:
    if method == "BestOfN":
        return its.BestOfN(scorer, its.LMOrchestrator(max_concurrency=-1))
    steps = its.StepGeneration(
        DEPTH - 1, step_token="\n", stop_token=ANSWER, temperature=1.0, include_stop_str_in_output=True
    )
    return its.BeamSearch(steps, scorer, BEAMS) if method == "BeamSearch" else its.ParticleFiltering(steps, scorer)


def _last(scores: Sequence[float]) -> float:
    return scores[-1]


def compare(world: World, ways: dict[str, Way]) -> dict[str, Any]:
    """Costs and accuracy of each way, one after the other, and the ratios of the others to ours.

    Raises:
        ValueError: the plain loop found other answers.
    """
    done = {name: _timed(world, way) for name, way in ways.items()}
    own = done["ours"]
    if "lock_step" in done:
        alike = np.mean([a == b for a, b in zip(own.run.answers, done["lock_step"].run.answers, strict=True)])
        if alike < ALIKE:
            raise ValueError(f"the plain loop answers as our search does on {alike:.0%} of the problems alone")
    return {name: one.row() | (_beside(world, own, one, name) if one is not own else {}) for name, one in done.items()}


def _beside(world: World, own: Timed, other: Timed, name: str) -> dict[str, Any]:
    """What the other costs for 1 of ours, and by how much ours is more often right."""
    mine, costs = own.row(), other.row()
    ratios = {f"times_our_{cost}": round(costs[cost] / mine[cost], 2) for cost in COSTS}
    return ratios | {"our_accuracy_more": paired_difference(own.right, other.right, world.key.fold(name)).to_json()}


def _timed(world: World, way: Way) -> Timed:
    positions = 0

    def count(_: Any, __: Any, given: dict[str, Any]) -> None:
        nonlocal positions
        positions += given["input_ids"].numel()

    hook = world.model.backbone.register_forward_pre_hook(count, with_kwargs=True)
    start, cpu = time.perf_counter(), time.process_time()
    run = way(world)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    hook.remove()
    right = np.array([a == p.reference for a, p in zip(run.answers, world.problems, strict=True)], np.float64)
    return Timed(run, right, positions, seconds, cpu_seconds)


def problems_of(operations: int) -> list[Problem]:
    """Held-out problems of so many operations."""
    return list(generate("held_out", PROBLEMS, difficulty=Difficulty(operations=(operations, operations))))


def main(its: SimpleNamespace) -> dict[str, Any]:
    """Measures the searches; beam search on longer solutions too, and with a reward model that learned nothing."""
    policy = LocalPolicy.load(BUILTIN, device="cpu")
    model, key = trained(policy, TRAINING), Key.seed(0).fold("search")
    world = World(policy, model, problems_of(OPERATIONS), key, its)
    beam = {"beams": BEAMS, "width": WIDTH, "max_steps": DEPTH}
    beams = {
        "ours": ours(beam_search, **beam),
        "lock_step": lock_step("beam_search", **beam),
        **peers("BeamSearch"),
    }
    best = {
        "ours": ours(best_of_n, n=SAMPLES),
        "lock_step": lock_step("best_of_n", n=SAMPLES),
        **peers("BestOfN"),
    }
    particles = {"ours": ours(particle_filter, n=SAMPLES, max_steps=DEPTH), **peers("ParticleFiltering")}
    few = {name: beams[name] for name in ("ours", "its_hub_together")}
    beams["ours"](replace(world, problems=world.problems[:1]))
    return {
        "its_hub": its.version,
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "problems": PROBLEMS,
        "beam_search": compare(world, beams),
        "beam_search_deep": compare(replace(world, problems=problems_of(DEEP)), beams),
        "beam_search_untrained": compare(replace(world, model=untrained()), few),
        "best_of_n": compare(world, best),
        "particle_filter": compare(world, particles),
    }


if __name__ == "__main__":
    found = its_hub()
    if found is None:
        print("its-hub with its step-level searches is not installed", file=sys.stderr)
        sys.exit(SKIPPED)
    if "--quick" in sys.argv:
        PROBLEMS, TRAINING, BEAMS, WIDTH, SAMPLES = 2, 4, 2, 2, 4
    print(json.dumps(main(found), indent=2))
