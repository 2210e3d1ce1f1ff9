"""Learning curves of an agent in the shop by TRL's GRPO: outcomes only, step credits, and two runs that hack.

    python -m benchmarks.agent_training [--quick] [--seeds N] [--arm NAME] [--model FOLDER] [--write] [--out FOLDER]

The built-in agent `builtin:shop` calls tools in TRL's own loop (`connect.trl_environments`), on one core of a CPU. All
trainings start from the same weights; those of a seed get the same problems, updates and number of episodes. Each is
kept in the folder as it ends, and is not repeated. Turns are rewarded by exact truth, by a reward model that learned
of labels by rollouts alone, as `stepreward run --world tools` makes it, or by rollouts from forks of the episodes.
`--write` makes the page docs/results/agent-training.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import SKIPPED
from benchmarks.agent_training_page import Run, page, summary

if find_spec("trl") is None:
    sys.stderr.write("needs TRL, which is absent: pip install 'stepreward[trl]'\n")
    raise SystemExit(SKIPPED)

from datasets import Dataset  # type: ignore[import-untyped]
from transformers import PrinterCallback, TrainerCallback

from stepreward.connect.alarms import HackingAlarms
from stepreward.connect.audits import HeldOutAudit
from stepreward.connect.trl import StepGRPOTrainer, StepNumbers, from_scorer
from stepreward.connect.trl_environments import EpisodeOutcome, line_chat, trl_rows, trl_tools
from stepreward.connect.trl_sources import EnvironmentNumbers, InEnvironment, RolloutValues
from stepreward.core.catalog import generate
from stepreward.core.files.atomic_files import write_json
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Episodes
from stepreward.core.segment.tool_calls import stated_calls
from stepreward.core.types import Problem, Trajectory
from stepreward.environments.by_address import environment_at
from stepreward.pipeline import whole_run
from stepreward.pipeline.reinforce import grpo_config
from stepreward.pipeline.run_settings import OF_WORLD, RunSettings
from stepreward.policies import loading
from stepreward.score.load import load
from stepreward.tasks.graders import grader_by_name

PAGE = Path(__file__).parents[1] / "docs" / "results" / "agent-training.md"
TURNS, LINE, ROLLOUTS = 12, 64, 4
"""Most calls of an episode, most tokens of a turn in an audit and a rollout, and rollouts of each prefix."""


@dataclass(frozen=True)
class Settings:
    """Sizes of all trainings."""

    seeds: int = 5
    updates: int = 20
    faulty_updates: int = 30
    problems: int = 8
    """Of an update."""
    generations: int = 4
    """Episodes of each problem: a group."""
    learning_rate: float = 5e-4
    items: int = 2
    """Most items of a problem."""
    every: int = 5
    """Updates between audits of the held-out problems."""
    held_out: int = 100
    samples: int = 2
    """Episodes of each held-out problem, at temperature 1."""
    window: int = 12
    """Updates that an alarm compares."""


QUICK = Settings(seeds=2, updates=4, faulty_updates=4, problems=2, every=2, held_out=4, window=4)


def none(trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
    """Step rewards of 0: what is then credited is the outcome alone."""
    return [np.zeros(int(one.action.sum())) for one in trajectories]


def answered_calls(trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
    """1 for each turn whose call a tool answered with a number, however useless it was."""
    made = []
    for one in trajectories:
        heard = [*one.steps[1:], None]
        paid = [
            float(after is not None and after.kind == "observation" and after.text.strip().lstrip("-").isdigit())
            for step, after in zip(one.steps, heard, strict=True)
            if step.kind == "action"
        ]
        made.append(np.array(paid))
    return made


def call_fees(trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
    """-1 for each turn that calls a tool, 0 for the answer: least is charged where nothing is looked up."""
    turns = [[step for step in one.steps if step.kind == "action"] for one in trajectories]
    return [np.array([-float(bool(stated_calls(step))) for step in mine]) for mine in turns]


@dataclass(frozen=True)
class Arm:
    """What a training credits."""

    credit: str
    rewards: Callable[[Path], StepNumbers] | None
    """Makes the source of step rewards; the path is that of the learned reward model."""
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def in_shop() -> Episodes:
    """The environment in which episodes are forked, scored and audited."""
    return environment_at(f"tools?turns={TURNS}")


def exact(_: Path) -> StepNumbers:
    """What TRL's environments know of each turn."""
    return EnvironmentNumbers()


def learned(model: Path) -> StepNumbers:
    """Scores of turns by the reward model."""
    return InEnvironment(from_scorer(load(model)), in_shop())


def forked(_: Path) -> StepNumbers:
    """Values of turns by rollouts that go on in forks of the episode."""
    grader = grader_by_name("mathematics")
    return RolloutValues(grader, n=ROLLOUTS, environment=in_shop(), policy={"max_tokens": LINE})


ARMS: Mapping[str, Arm] = {
    "outcome": Arm("rloo", None, "the outcome less the mean of the group's others, on every turn"),
    "gigpo": Arm(
        "gigpo", lambda _: none, "the outcome, compared in the group, and among its turns behind the same observation",
        {"discount": 0.95},
    ),
    "pure": Arm("pure", exact, "the outcome, and the soft minimum of the turns' exact truth"),
    "mt-grpo": Arm(
        "mt-grpo", exact, "the outcome, and each turn's exact truth among turns of the same number"
    ),
    "learned": Arm(
        "pure", learned, "the outcome, and the soft minimum of the turns' scores by a reward model that learned of "
        "labels by rollouts alone",
    ),
    "forks": Arm(
        "potential", forked, f"the outcome, and what it adds to the share of {ROLLOUTS} rollouts that win, each in a "
        "fork of the episode",
    ),
}  # fmt: skip
"""The first one is what the others are compared with."""
FAULTY: Mapping[str, Arm] = {
    "charged": Arm("total-rloo", lambda _: call_fees, "charge 1 for every call, to save calls"),
    "paid": Arm(
        "step-rloo",
        lambda _: answered_calls,
        "pay 1 for every call that a tool answers with a number; an answer, which no call follows, is compared with "
        "the whole returns of others",
    ),
}
"""Step rewards that can be exploited, beside the outcome."""


class Listener(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Notes at which update each alarm rang first; behind the audit, whose alarm it hears too."""

    def __init__(self, trainer: StepGRPOTrainer) -> None:
        self.trainer, self.alarms = trainer, dict[str, int]()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Looks for new ones."""
        for name in sorted(self.trainer.alarmed - self.alarms.keys()):
            self.alarms[name] = int(state.global_step)


def rewarded(path: Path, quick: bool) -> Path:
    """The reward model of the arm `learned`: trained in a folder as `stepreward run --world tools` trains it.

    Its labels are those of rollouts. Few problems are held out, since its own numbers are not measured here.
    """
    sizes = {**OF_WORLD["tools"], "held_out_problems": 20, "search_problems": 2}
    if quick:
        few = {"train_problems": 8, "validation_problems": 4, "held_out_problems": 4, "held_out_samples": 2}
        sizes |= {**few, "rollouts": 2, "epochs": 1.0, "width": 2, "beams": 2}
    whole_run.Run(path, RunSettings("tools", seeds=1, **sizes)).execute()
    return path / "model"


def problems_of(split: str, count: int, seed: int, items: int) -> list[Problem]:
    """Problems of the shop."""
    return list(islice(generate["shop"].take({"key": Key.seed(seed)}, split=split, most=items), count))


def train(name: str, arm: Arm, seed: int, sizes: Settings, updates: int, reward_model: Path) -> Run:
    """One training, from the built-in agent's own weights."""
    began = time.process_time()
    model, tokenizer = loading.load("builtin:shop", "cpu", "float32")
    problems = problems_of("train", updates * sizes.problems, seed, sizes.items)
    grader, rewards = grader_by_name("mathematics"), arm.rewards(reward_model) if arm.rewards else None
    with tempfile.TemporaryDirectory() as folder:
        config = grpo_config(
            folder, sizes.problems, sizes.generations, max_completion_length=400, max_steps=updates,
            learning_rate=sizes.learning_rate, seed=seed, logging_steps=1,
        )  # fmt: skip
        trainer = StepGRPOTrainer(
            model,
            EpisodeOutcome(grader),
            config,
            Dataset.from_dict(trl_rows(problems)),
            processing_class=line_chat(tokenizer),
            environment_factory=trl_tools(problems[0], reward="shop", turns=TURNS),
            credit=arm.credit,
            credit_settings=arm.settings,
            step_rewards=rewards,
            step_end="",
            alarms=HackingAlarms(window=sizes.window),
        )
        held = problems_of("held_out", sizes.held_out, 0, sizes.items)
        audit = HeldOutAudit(
            trainer, held, grader, every=sizes.every, samples=sizes.samples, max_tokens=LINE,
            environment=in_shop(),
        )  # fmt: skip
        heard = Listener(trainer)
        trainer.add_callback(audit)
        trainer.add_callback(heard)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    seconds = time.process_time() - began
    beside = rewards.tokens if isinstance(rewards, RolloutValues) else 0
    return read_run(name, seed, audit.found, heard.alarms, trainer.state.log_history, sizes, seconds, beside)


def read_run(
    name: str, seed: int, held_out: list[float], alarms: dict[str, int], history: Sequence[Mapping[str, Any]],
    sizes: Settings, seconds: float, beside: int = 0,
) -> Run:  # fmt: skip
    """A training by what its trainer logged, update by update, and the tokens of rollouts beside it."""
    rows = [row for row in history if "process/outcome" in row]
    return Run(
        name, seed, held_out,
        outcome=[row["process/outcome"] for row in rows],
        process=[row["process/process"] for row in rows if "process/process" in row],
        steps=[row["process/steps"] for row in rows],
        tokens=sizes.problems * sizes.generations * sum(row["completions/mean_length"] for row in rows) + beside,
        alarms=alarms, seconds=seconds,
        unscored=[row["process/unscored_steps"] for row in rows if "process/unscored_steps" in row],
    )  # fmt: skip


def trained(
    name: str, arm: Arm, seed: int, sizes: Settings, updates: int, folder: Path, reward_model: Callable[[], Path]
) -> Run:
    """The training, or what an earlier call kept of it."""
    path = folder / f"{name}-{seed}.json"
    if not path.is_file():
        sys.stderr.write(f"{name}, seed {seed}\n")
        model = reward_model() if arm.rewards is learned else Path()
        write_json(path, asdict(train(name, arm, seed, sizes, updates, model)))
    return Run(**json.loads(path.read_text()))


def measure(
    sizes: Settings, folder: Path, model: Path | None = None, arms: Sequence[str] = tuple(ARMS)
) -> dict[str, Any]:
    """All trainings and their summary.

    Args:
        sizes: of them.
        folder: that keeps each.
        model: reward model of the arm `learned`; made in the folder where None.
        arms: that are trained and compared with the first one.

    Raises:
        SystemExit: the folder has trainings of other sizes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A later call may add seeds.
    about, kept = folder / "settings.json", {name: n for name, n in asdict(sizes).items() if name != "seeds"}
    if about.is_file() and json.loads(about.read_text()) != kept:
        raise SystemExit(f"{folder} holds trainings of other sizes; choose another folder by --out")
    write_json(about, kept)

    def reward_model() -> Path:
        return model or rewarded(folder / "reward-model", sizes.updates == QUICK.updates)

    runs = []
    # Arm by arm: what is finished of one can be read while others are trained.
    for name in (one for one in ARMS if one in arms):
        runs += [
            trained(name, ARMS[name], seed, sizes, sizes.updates, folder, reward_model) for seed in range(sizes.seeds)
        ]
    faulty = {
        name: trained(name, arm, 0, sizes, sizes.faulty_updates, folder, reward_model) for name, arm in FAULTY.items()
    }
    told = {name: {"credit": arm.credit, "about": arm.about} for name, arm in {**ARMS, **FAULTY}.items()}
    return {
        "settings": asdict(sizes), "told": told, "arms": summary(runs),
        "faulty": {name: asdict(run) for name, run in faulty.items()},
    }  # fmt: skip


def main() -> None:
    """Trains, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes; the numbers mean little")
    parser.add_argument("--seeds", type=int, default=Settings.seeds, help="trainings of each arm")
    parser.add_argument("--arm", action="append", choices=ARMS, help="only this arm; may be repeated")
    parser.add_argument("--model", type=Path, help="reward model of the arm `learned`; trained in the folder if absent")
    parser.add_argument("--write", action="store_true", help=f"writes {PAGE.name}")
    parser.add_argument("--out", type=Path, help="folder of the trainings; a temporary one with --quick")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary if options.quick else "runs/agent-training")
        sizes = QUICK if options.quick else replace(Settings(), seeds=options.seeds)
        found = measure(sizes, folder, options.model, options.arm or tuple(ARMS))
    if options.write:
        PAGE.write_text(page(found), encoding="utf-8")
        write_json(PAGE.with_suffix(".json"), found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
