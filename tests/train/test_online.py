"""Objectives of online reward models against plain forward passes, one sequence at a time."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.model_sources import resolve
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, WholeText
from stepreward.score.implicit import ImplicitScorer, LanguageModel
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.online import implicit_cross_entropy, outcome_cross_entropy, right_over_wrong

FOLDER = resolve("builtin:arithmetic")
TOKENIZER = AutoTokenizer.from_pretrained(FOLDER)
BETA = 0.05
RECORD = EncoderRecord(WholeText(prompt_format="{prompt}\n"), readout=Readout("implicit", beta=BETA))
PROBLEMS = [Problem("a", "Mia has 12 apples."), Problem("b", "Tom has 7 pens.")]


def rollout(problem: int, texts: list[str], outcome: float) -> Trajectory:
    return Trajectory(PROBLEMS[problem], tuple(Step(t) for t in texts), outcome)


ROLLOUTS = [
    rollout(0, ["12 + 5 = 17\n", "Answer: 17\n"], 1.0),
    rollout(0, ["12 + 5 = 17\n", "Answer: 18\n"], 0.0),
    rollout(0, ["12 + 5 = 16\n"], 0.25),
    rollout(1, ["7 - 3 = 4\n", "Answer: 4\n"], 1.0),
    rollout(1, [], 1.0),
    rollout(1, ["7 - 3 = 5\n"], float("nan")),
]
GRADED = [t for t in ROLLOUTS if t.steps and not np.isnan(t.outcome)]


def causal(seed: int) -> torch.nn.Module:
    """The built-in policy with its weights moved, so that two of them differ."""
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
    return model


def implicit() -> tuple[ImplicitScorer, torch.nn.Module, torch.nn.Module]:
    model, reference = causal(1), causal(2)
    scorer = ImplicitScorer(LanguageModel.of(model), LanguageModel.of(reference), StepEncoder(RECORD, TOKENIZER))
    return scorer, model, reference


def logprob(model: torch.nn.Module, trajectory: Trajectory) -> torch.Tensor:
    """Sum of log-probabilities of the solution's tokens, by one padless pass."""
    prompt = TOKENIZER(trajectory.problem.text + "\n", add_special_tokens=False)["input_ids"]
    ids = torch.tensor(
        [TOKENIZER(trajectory.problem.text + "\n" + trajectory.text, add_special_tokens=False)["input_ids"]]
    )
    said = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return said[len(prompt) - 1 :].sum()


def test_implicit_cross_entropy_is_that_of_whole_solutions_and_so_is_its_gradient() -> None:
    scorer, model, reference = implicit()
    total = sum(implicit_cross_entropy(scorer, ROLLOUTS))
    total.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    expected = torch.zeros(())
    for trajectory in GRADED:
        ratio = logprob(model, trajectory) - logprob(reference, trajectory).detach()
        p = torch.sigmoid(BETA * ratio)
        expected = expected - (trajectory.outcome * p.log() + (1 - trajectory.outcome) * (1 - p).log()) / len(GRADED)
    expected.backward()
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    for got, p in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(got, p.grad, atol=1e-5, rtol=1e-3)
    assert all(p.grad is None for p in reference.parameters())


def test_the_implicit_objective_sees_the_sum_that_scoring_ends_with() -> None:
    scorer, model, reference = implicit()
    for trajectory in GRADED:
        (answer,) = scorer.score_many([Score(trajectory.problem, trajectory.steps)])
        ratio = logprob(model, trajectory) - logprob(reference, trajectory)
        assert answer.scores[-1] == pytest.approx(BETA * ratio.item(), abs=1e-5)


def test_a_prompt_of_one_token_is_the_first_predecessor() -> None:
    scorer, model, reference = implicit()
    short = Trajectory(Problem("short", ""), (Step("7 - 3 = 4\n"),), 1.0)
    assert len(TOKENIZER(short.problem.text + "\n", add_special_tokens=False)["input_ids"]) == 1
    (answer,) = scorer.score_many([Score(short.problem, short.steps)])
    ratio = logprob(model, short) - logprob(reference, short)
    assert answer.scores[-1] == pytest.approx(BETA * ratio.item(), abs=1e-5)


def discriminative(readout: str, n_labels: int) -> DiscriminativeScorer:
    record = EncoderRecord(
        readout=Readout(readout, n_labels=n_labels, positive=n_labels - 1)  # type: ignore[arg-type]
    )
    return DiscriminativeScorer(StepRewardModel.from_backbone(FOLDER, record, seed=3), row_tokens=40)


def chances(scorer: DiscriminativeScorer, rows: list[Trajectory]) -> np.ndarray:
    return np.array([a.scores[-1] for a in scorer.score_many([Score(t.problem, t.steps) for t in rows])])


@pytest.mark.parametrize(("readout", "n_labels"), [("sigmoid", 1), ("softmax", 2), ("softmax", 3)])
def test_outcome_cross_entropy_is_that_of_the_last_scores(readout: str, n_labels: int) -> None:
    scorer = discriminative(readout, n_labels)
    p, o = chances(scorer, GRADED), np.array([t.outcome for t in GRADED])
    expected = -np.mean(o * np.log(p) + (1 - o) * np.log(1 - p))
    assert sum(outcome_cross_entropy(scorer, ROLLOUTS)).item() == pytest.approx(expected, rel=1e-4)


def test_right_solutions_are_ranked_over_wrong_ones_of_their_problem_alone() -> None:
    scorer = discriminative("sigmoid", 1)
    p = chances(scorer, GRADED[:3])
    z = np.log(p / (1 - p))
    # Problem a has one right and two wrong rollouts, problem b no wrong one.
    expected = np.mean([np.log1p(np.exp(z[wrong] - z[0])) for wrong in (1, 2)])
    assert sum(right_over_wrong(scorer, ROLLOUTS)).item() == pytest.approx(expected, rel=1e-4)


def test_one_pair_a_problem_is_the_first_right_rollout_and_the_first_wrong_one() -> None:
    scorer = discriminative("sigmoid", 1)
    p = chances(scorer, GRADED[:3])
    z = np.log(p / (1 - p))
    again = replace(GRADED[0], steps=GRADED[0].steps[:1])
    found = sum(right_over_wrong(scorer, [*GRADED[:3], again], pairs="first")).item()
    assert found == pytest.approx(np.log1p(np.exp(z[1] - z[0])), rel=1e-4)
    with pytest.raises(ValueError, match="'all' or 'first'"):
        list(right_over_wrong(scorer, ROLLOUTS, pairs="one"))  # type: ignore[arg-type]


def test_negatives_may_be_written_by_another() -> None:
    scorer = discriminative("sigmoid", 1)

    def corrupt(trajectory: Trajectory) -> Trajectory:
        return replace(trajectory, steps=(*trajectory.steps[:-1], Step("Answer: 99\n")))

    pairs = [(t, corrupt(t)) for t in GRADED if t.outcome > 0.5]
    p = np.array([chances(scorer, list(pair)) for pair in pairs])
    z = np.log(p / (1 - p))
    expected = np.mean(np.log1p(np.exp(z[:, 1] - z[:, 0])))
    assert sum(right_over_wrong(scorer, ROLLOUTS, corrupt=corrupt)).item() == pytest.approx(expected, rel=1e-4)


def test_a_negative_that_is_not_wrong_makes_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(_: object, rows: list[Trajectory]) -> list[tuple[list[int], torch.Tensor]]:
        # Of problem a the right one stands 1 above the wrong one, of problem b 1 below it.
        return [([0, 1], torch.tensor([1.0, 0.0] if rows[0].problem.id == "a" else [0.0, 1.0]))]

    monkeypatch.setattr("stepreward.train.online._last_logits", ends)

    def loss(kept: str) -> float:
        def corrupt(t: Trajectory) -> Trajectory | None:
            return replace(t, steps=(Step("Answer: 99\n"),)) if t.problem.id in kept else None

        return float(sum(right_over_wrong(None, ROLLOUTS, corrupt=corrupt, pairs="first")))  # type: ignore[arg-type]

    # -log sigmoid(1) = 0.3133 and -log sigmoid(-1) = 1.3133.
    assert loss("a") == pytest.approx(0.3133, abs=1e-4)
    assert loss("ab") == pytest.approx(0.8133, abs=1e-4)
    assert loss("") == 0


@pytest.mark.parametrize("objective", [outcome_cross_entropy, right_over_wrong])
def test_what_teaches_nothing_costs_nothing(objective: object) -> None:
    assert list(objective(discriminative("sigmoid", 1), ROLLOUTS[4:])) == []  # type: ignore[operator]


def test_the_reference_stays_where_it_is() -> None:
    scorer, _, reference = implicit()
    before = copy.deepcopy(reference.state_dict())
    optimizer = torch.optim.SGD(scorer.model.parameters(), 0.1)
    sum(implicit_cross_entropy(scorer, ROLLOUTS)).backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in reference.state_dict().items())
