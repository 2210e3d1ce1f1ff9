"""`StepGRPOTrainer` on the installed TRL: what reaches the loss, for every loss of TRL, on the built-in policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, RLOOConfig, RLOOTrainer

from stepreward.connect.trl import StepGRPOTrainer, from_scorer
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.types import Step, Trajectory
from stepreward.policies.model_sources import resolve
from stepreward.score.baselines import RuleScorer
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

MODEL = resolve("builtin:arithmetic")
# TRL sets an option that transformers calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
LOSSES = ["dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
PROBLEMS = {problem.text + "\n": problem for problem in generate("train", 4)}
GRADER = ArithmeticGrader()


def right(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    return [
        GRADER.grade(PROBLEMS[p], [Step(line + "\n") for line in c.splitlines()])
        for p, c in zip(prompts, completions, strict=True)
    ]


class Watched(StepGRPOTrainer):
    """Keeps what it gave to the loss."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.given = super()._generate_and_score_completions(inputs)
        return self.given


def trainer(
    out: Path, *, steps: int = 1, settings: dict[str, Any] | None = None, functions: Any = right, **named: Any
) -> Watched:
    config = GRPOConfig(
        output_dir=str(out), per_device_train_batch_size=8, num_generations=4, max_completion_length=48, seed=0,
        max_steps=steps, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", learning_rate=1e-4,
        disable_tqdm=True, **(settings or {}),
    )  # fmt: skip
    return Watched(
        AutoModelForCausalLM.from_pretrained(MODEL), functions, config, Dataset.from_dict({"prompt": list(PROBLEMS)}),
        processing_class=AutoTokenizer.from_pretrained(MODEL), **named,
    )  # fmt: skip


def position(trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
    """A reward that tells which step it is of."""
    return [np.arange(1.0, len(t.steps) + 1) for t in trajectories]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_on_step_advantages(loss: str, tmp_path: Path) -> None:
    made = trainer(tmp_path, settings={"loss_type": loss, "gradient_checkpointing": False}, credit="rloo")
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    made.train()
    assert made.given["advantages"].shape == made.given["completion_ids"].shape
    moved = max(float((p.detach() - before[name]).abs().max()) for name, p in made.model.named_parameters())
    assert np.isfinite(moved)
    assert moved > 0


def test_outcome_credit_gives_what_trl_itself_gives(tmp_path: Path) -> None:
    made = trainer(tmp_path, credit="grpo")
    made.train()
    given = made.given
    by_row = torch.tensor(list(made._logs["advantages"]))
    mask = given["completion_mask"].bool()
    for row, own, value in zip(given["advantages"], mask, by_row, strict=True):
        torch.testing.assert_close(row[own], value.expand(int(own.sum())), atol=1e-5, rtol=1e-4)
        assert not row[~own].any()


def first(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
    return [1.0, 0.0, None, 1.0, None, 2.0, None, None]


def second(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
    return [0.5, None, None, 0.0, 1.0, None, None, 0.25]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("functions", [[first], [first, second]], ids=["one", "two"])
@pytest.mark.parametrize(
    ("credit", "settings"),
    [
        ("grpo", {}), ("lite-ppo", {"scale_rewards": "batch"}), ("dr-grpo", {"scale_rewards": "none"}),
        ("gdpo", {"multi_objective_aggregation": "normalize_then_sum"}),
    ],
)  # fmt: skip
def test_missing_rewards_are_what_they_are_in_trl(
    credit: str, settings: dict[str, Any], functions: list[Any], tmp_path: Path
) -> None:
    weights = {"reward_weights": [2.0, 0.5]} if len(functions) == 2 else {}
    made = trainer(tmp_path, settings=settings | weights, credit=credit, functions=functions)
    made.train()
    theirs = torch.tensor(list(made._logs["advantages"]))
    own = made.given["completion_mask"].bool()
    for row, mask, value in zip(made.given["advantages"], own, theirs, strict=True):
        torch.testing.assert_close(row[mask], value.expand(int(mask.sum())), atol=1e-5, rtol=1e-5)
    assert not made.given["advantages"][2].any()
    assert made.state.log_history[0]["process/unscored"] == pytest.approx(4 / 8 if len(functions) == 1 else 2 / 8)


def test_rloo_with_missing_rewards_is_what_trl_s_rloo_trainer_gives(tmp_path: Path) -> None:
    made = trainer(tmp_path, credit="rloo", functions=[first, second], settings={"reward_weights": [2.0, 0.5]})
    made.train()
    config = RLOOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=4, max_completion_length=8,
        max_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, beta=0.0,
        reward_weights=[2.0, 0.5],
    )  # fmt: skip
    theirs = RLOOTrainer(
        AutoModelForCausalLM.from_pretrained(MODEL), [first, second], config,
        Dataset.from_dict({"prompt": list(PROBLEMS)}), processing_class=AutoTokenizer.from_pretrained(MODEL),
    )  # fmt: skip
    theirs.train()
    own = made.given["completion_mask"].bool()
    for row, mask, value in zip(made.given["advantages"], own, theirs._logs["advantages"], strict=True):
        torch.testing.assert_close(row[mask], torch.full((int(mask.sum()),), value), atol=1e-5, rtol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("as_none", [False, True], ids=["nan", "none"])
def test_an_unscored_step_has_no_advantage_and_its_solution_keeps_the_rest(as_none: bool, tmp_path: Path) -> None:
    seen: list[Trajectory] = []

    def rewards(trajectories: Sequence[Trajectory]) -> list[Any]:
        """0.1 at each step, but the first of every other solution is unscored, and all of the last one's are."""
        seen.extend(trajectories)
        rows = [np.full(len(t.steps), 0.1) for t in trajectories]
        for row in rows[::2]:
            row[0] = np.nan
        rows[7][:] = np.nan
        return [[None if np.isnan(v) else v for v in row] for row in rows] if as_none else rows

    def outcome(prompts: list[str], **_: Any) -> list[float | None]:
        return [1.0, 0.0, None, 1.0, 0.0, 1.0, 1.0, 0.0]

    made = trainer(tmp_path, credit="step-rloo", functions=outcome, step_rewards=rewards)
    made.train()
    # A step's return: the outcome and 0.1 for each scored step from it on; less the mean of the others' whole returns.
    results = outcome([])
    scored = [
        [not (i % 2 == 0 and k == 0) and i not in (2, 7) for k in range(len(t.steps))] for i, t in enumerate(seen)
    ]
    whole = {i: results[i] + 0.1 * sum(marks) for i, marks in enumerate(scored) if any(marks)}
    assert sorted(whole) == [i for i in (0, 1, 3, 4, 5, 6) if any(scored[i])]
    for i, marks in enumerate(scored):
        others = [total for j, total in whole.items() if j != i and j // 4 == i // 4]
        expected = [
            results[i] + 0.1 * sum(marks[k:]) - float(np.mean(others)) if mark and others else 0.0
            for k, mark in enumerate(marks)
        ]
        by_token = np.repeat(expected, [len(step.tokens) for step in seen[i].steps])
        mask = made.given["completion_mask"][i].bool()
        np.testing.assert_allclose(made.given["advantages"][i][mask], by_token, atol=1e-5)
    told = made.state.log_history[0]
    assert told["process/unscored"] == pytest.approx(1 / 8)
    assert 0 < told["process/unscored_steps"] < 1
    assert told["process/process"] == pytest.approx(0.1)
    assert np.isfinite(told["loss"])


def test_steps_are_the_lines_of_the_solution(tmp_path: Path) -> None:
    seen: list[Trajectory] = []

    def rewards(trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        seen.extend(trajectories)
        return position(trajectories)

    made = trainer(tmp_path, credit="rloo", step_rewards=rewards)
    made.train()
    tokenizer = made.processing_class
    for row, mask, trajectory in zip(made.given["completion_ids"], made.given["completion_mask"], seen, strict=True):
        text = tokenizer.decode(row[mask.bool()], skip_special_tokens=True)
        assert trajectory.text == text
        assert [step.text for step in trajectory.steps] == text.splitlines(keepends=True)
        assert trajectory.problem.text in PROBLEMS
    assert len({t.problem.id for t in seen}) == 2
    metrics = made.state.log_history[0]
    assert metrics["process/steps"] == pytest.approx(np.mean([len(t.steps) for t in seen]))
    assert metrics["process/process"] == pytest.approx(np.mean([(len(t.steps) + 1) / 2 for t in seen]))
    assert metrics["process/outcome"] == pytest.approx(metrics["reward"])
    assert metrics["process/alarm/diverging"] == 0


def test_a_scorer_of_another_tokenizer_gives_step_rewards(tmp_path: Path) -> None:
    scorer = RuleScorer(lambda problem, prefix: float(len(prefix)), name="length")
    made = trainer(tmp_path, credit="rloo", step_rewards=from_scorer(scorer))
    made.train()
    assert made.state.log_history[0]["process/process"] > 1


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"credit": "gae", "step_rewards": position}, "needs values"),
        ({"credit": "gae"}, "needs rewards, values"),
        ({"credit": "rloo", "step_rewards": lambda ts: [np.ones(99) for _ in ts]}, "of [0-9]+ actions"),
        ({"credit": "rloo", "step_rewards": lambda ts: [np.full(len(t.steps), np.inf) for t in ts]}, "finite"),
    ],
)
def test_what_cannot_be_credited_is_a_clear_error(named: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        trainer(tmp_path, **named).train()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("late", [False, True], ids=["declared", "annealed"])
def test_two_credits_are_added_as_declared(late: bool, tmp_path: Path) -> None:
    given = {}
    for name in ("grpo", "step-rloo", "both"):
        named: dict[str, Any] = {"credit": name, "step_rewards": position}
        if name == "both":
            named["credit"] = {"terms": [{"credit": "grpo"}, {"credit": "step-rloo", "weight": 0.5}]}
            if late:
                named["credit_settings"] = {"term_weights": lambda update: (1.0, 2.0 / (update + 1))}
        made = trainer(tmp_path, **named)
        made.train()
        given[name] = made.given["advantages"]
    weight = 2.0 if late else 0.5
    torch.testing.assert_close(given["both"], given["grpo"] + weight * given["step-rloo"], atol=1e-5, rtol=1e-5)


def test_weights_of_rewards_that_a_sum_does_not_read_are_told(tmp_path: Path) -> None:
    named = {"functions": [first, second], "settings": {"reward_weights": [2.0, 1.0]}}
    with pytest.raises(InputError, match=r"does not read reward_weights.*gdpo\(weights"):
        trainer(tmp_path, credit="gdpo + grpo", **named)
    trainer(tmp_path, credit="gdpo(weights=[2, 1]) + grpo", functions=[first, second])


def test_unknown_credit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="grpo"):
        trainer(tmp_path, credit="grppo")
