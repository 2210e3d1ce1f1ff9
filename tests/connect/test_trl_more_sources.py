"""Further sources of `StepGRPOTrainer`: rollouts of prefixes, likelihoods, teachers, environments, weights, twins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")
from tests.connect.test_trl_sources import MODEL, TOKENIZER, episodes, lengths, policy, trainer
from transformers import AutoModelForCausalLM

from stepreward.connect.hidden_weights import HiddenRewardWeights
from stepreward.connect.step_data import agents
from stepreward.connect.trl import StepGRPOTrainer
from stepreward.connect.trl_sources import (
    EnvironmentNumbers,
    RolloutValues,
    reference_likelihood,
    teacher_log_ratios,
)
from stepreward.connect.twin_votes import TwinVotes, cross_votes
from stepreward.core.catalog import credit, shape
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.credit.outcome import MovingThreshold
from stepreward.score.implicit import LanguageModel
from stepreward.score.language import LikelihoodScorer
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func':UserWarning"),
]
NAN = float("nan")


class Spied:
    """A source that keeps the trajectories that it is asked about."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.seen, self.given = inner, [], []
        self.attach = getattr(inner, "attach", lambda _: None)

    def __call__(self, trajectories: Sequence[Trajectory]) -> Any:
        self.seen += trajectories
        made = self.inner(trajectories)
        self.given += list(made)
        return made


def test_rollouts_value_prefixes_and_the_end_has_its_outcome(tmp_path: Path) -> None:
    after = Spied(RolloutValues(ArithmeticGrader(), n=3, key=Key.seed(3)))
    before = Spied(RolloutValues(ArithmeticGrader(), n=3, key=Key.seed(3), before=True, root=True))
    made = trainer(tmp_path, credit="vineppo", step_rewards=after, step_data={"values": before})
    made.train()
    grader = ArithmeticGrader()
    for one, behind, ahead in zip(after.seen, after.given, before.given, strict=True):
        assert behind[-1] == one.outcome
        # Three rollouts each: thirds.
        np.testing.assert_allclose(behind[:-1] * 3, np.round(behind[:-1] * 3))
        assert 0 <= ahead[0] <= 1
        if len(one) > 1:
            assert ahead.shape == behind.shape
    np.testing.assert_allclose(made.made, credit["vineppo"].take(made.data))
    assert after.inner.tokens > 0
    assert made.model.training
    # A step that states the answer wins every rollout from behind it where it is right, and none where it is wrong.
    problem = after.seen[0].problem
    assert grader.grade(problem, after.seen[0].steps) in (0.0, 1.0)


def test_numbers_that_are_not_known_are_counted_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    made: Any = SimpleNamespace(
        sources={"rewards": None, "values": None, "prior": None, "agent": None},
        state=SimpleNamespace(global_step=3), _logged=set(),
    )  # fmt: skip
    known = {"rewards": np.array([NAN]), "prior": np.array(0.5), "agent": np.array(["a", "b"])}
    rows: Any = [SimpleNamespace(data={**known, "values": np.array(values)}) for values in ([NAN, NAN], [NAN])]
    for _ in range(2):
        assert StepGRPOTrainer._unscored(made, rows) == {"unscored_values": 1.0, "unscored_prior": 0.0}
    assert [one.getMessage() for one in caplog.records] == [
        "step 3: no number of 'values' is known, and what is unscored gets the advantage 0"
    ]
    half: Any = [SimpleNamespace(data={**known, "values": np.array(values)}) for values in ([1.0, NAN], [0.0, NAN])]
    assert StepGRPOTrainer._unscored(made, half)["unscored_values"] == 0.5


def test_a_reward_that_is_no_outcome_is_graded_for_the_rollouts() -> None:
    source = RolloutValues(ArithmeticGrader())
    problem = Problem("p", "Mia has 12 apples. Mia buys 5 more.", "17")
    won = Trajectory(problem, (Step("12 + 5 = 17\n"), Step("Answer: 17\n")), 2.5)
    assert source._graded(won).outcome == 1.0
    assert source._graded(Trajectory(problem, won.steps, 0.25)).outcome == 0.25
    with pytest.raises(InputError, match="attaches itself"):
        source([won])


def test_likelihoods_of_the_reference_are_outcome_and_prior_and_the_filter_moves(tmp_path: Path) -> None:
    after, prior = Spied(reference_likelihood()), Spied(reference_likelihood(prior=True))
    moving = MovingThreshold(start=1)
    made = trainer(
        tmp_path, steps=2, credit="rlpr", credit_settings={"least": moving}, settings={"learning_rate": 0.0},
        step_data={"outcome": after, "prior": prior},
    )  # fmt: skip
    made.train()
    model = LanguageModel.of(policy().eval())
    scorer, gains = (LikelihoodScorer(model, TOKENIZER, mean="arithmetic", gain=gain) for gain in (False, True))
    for one, s, p in zip(after.seen[:4], after.given[:4], prior.given[:4], strict=True):
        (score,), (gain,) = (which.score_many([Score(one.problem, one.steps)]) for which in (scorer, gains))
        assert s[0] == pytest.approx(score.scores[-1], rel=1e-4)
        # What reasoning adds in all is the sum of its steps' gains.
        assert s[0] - p[0] == pytest.approx(gain.scores.sum(), abs=1e-5)
    assert moving.seen == 2
    assert moving.least > 0
    first, second = made.history
    np.testing.assert_allclose(second["outcome"], [row[0] for row in after.given[8:]], rtol=1e-6)
    expected = credit["rlpr"].take(second, least=_least_after(first))
    np.testing.assert_allclose(made.made, expected, atol=1e-6)


def _least_after(first: Any) -> float:
    """Half of the mean deviation of the gains in the groups of four."""
    gained = np.clip(np.array(first["outcome"]) - np.array(first["prior"]), 0, 1).reshape(-1, 4)
    return 0.5 * float(gained.std(axis=1, ddof=1).mean())


def test_a_teacher_s_log_ratios_are_what_it_finds_likelier(tmp_path: Path) -> None:
    teacher = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.mul_(1.02)
    source = Spied(teacher_log_ratios(LanguageModel.of(teacher.eval()), scale=0.5))
    made = trainer(tmp_path, credit="step-rloo", step_rewards=source)
    made.train()
    student = policy().eval()
    one, given = source.seen[0], source.given[0]
    ids = [*one.problem.meta["tokens"], *(token for step in one.steps for token in step.tokens or ())]
    with torch.no_grad():
        logs = [model(torch.tensor([ids])).logits[0].log_softmax(-1) for model in (teacher, student)]
    at = len(one.problem.meta["tokens"])
    for step, reward in zip(one.steps, given, strict=True):
        own = range(at, at + len(step.tokens or ()))
        ratio = sum(float(logs[0][t - 1, ids[t]] - logs[1][t - 1, ids[t]]) for t in own)
        at += len(own)
        assert reward == pytest.approx(0.5 * ratio, abs=2e-3)
    assert np.abs(np.concatenate(source.given)).max() > 1e-3


def test_environments_carry_the_rewards_of_their_turns() -> None:
    source = EnvironmentNumbers("scores")
    turns = (Step("look"), Step("a box", "observation"), Step("open"), Step("empty", "observation"), Step("done"))
    rows = [Trajectory(Problem("p", "?"), turns), Trajectory(Problem("p", "?"), turns[:3])]
    with pytest.raises(InputError, match="environment_factory"):
        source(rows)
    source.attach(SimpleNamespace(environments=[SimpleNamespace(scores=[0.5, None]), SimpleNamespace(scores=[1, 2])]))
    made = source(rows)
    np.testing.assert_array_equal(made[0], [0.5, NAN, NAN])
    np.testing.assert_array_equal(made[1], [1, 2])
    source.attach(SimpleNamespace(environments=[SimpleNamespace(), SimpleNamespace()]))
    with pytest.raises(InputError, match="no attribute 'scores'"):
        source(rows)


def with_more(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
    """The episodes of two turns, with what their environment knows of them."""
    count = len(prompts)
    return episodes(prompts, trainer) | {
        "seconds": [[1.0 + i, 2.0] for i in range(count)],
        "who": [["solver", "critic" if i % 2 else "solver"] for i in range(count)],
        "references": [[0.1, 0.5, None][: 1 + i % 3] for i in range(count)],
        "tree": [f"t{i // 2}" for i in range(count)],
    }


def test_durations_and_agents_come_by_name(tmp_path: Path) -> None:
    data = {"duration": "seconds"}
    made = trainer(tmp_path, rollouts=with_more, credit="duration-aware", step_data=data, step_end="")
    made.train()
    assert made.data["duration"].tolist() == [x for i in range(8) for x in (1.0 + i, 2.0)]
    np.testing.assert_allclose(made.made, credit["duration-aware"].take(made.data))
    named = {"step_rewards": "turn_scores", "step_data": {"agent": "who"}}
    made = trainer(tmp_path, rollouts=with_more, credit="multi-agent", step_end="", **named)
    made.train()
    assert made.data["agent"][:4].tolist() == ["solver", "solver", "solver", "critic"]
    np.testing.assert_allclose(made.made, credit["multi-agent"].take(made.data))
    # Without a source, agents are read off the steps: here all are one.
    made = trainer(tmp_path, rollouts=with_more, credit="multi-agent", step_end="", step_rewards="turn_scores")
    made.train()
    assert len(set(made.data["agent"].tolist())) == 1
    acts = (Step("a", agent="x"), Step("b", "observation"), Step("c", agent="y"), Step("d", agent="x"))
    ids = agents(Trajectory(Problem("p", "?"), acts))
    assert ids[0] == ids[2] != ids[1]


def test_references_of_a_prompt_shape_rewards_and_trees_have_roots(tmp_path: Path) -> None:
    asked = {"shape": "par", "shape_settings": {"slope": 2.0}, "step_data": {"references": "references"}}
    made = trainer(tmp_path, rollouts=with_more, credit="step-rloo", step_rewards="turn_scores", step_end="", **asked)
    made.train()
    raw = np.array([x for i in range(8) for x in (0.25 * i, 1.0)])
    rows = [[0.1, 0.5, None][: 1 + i % 3] for i in range(8)]
    expected = shape["par"].take({"rewards": raw, "references": rows, "offsets": np.arange(0, 17, 2)}, slope=2.0)
    np.testing.assert_allclose(made.data["rewards"], expected)
    by_root = {"step_data": {"root": "tree"}}
    made = trainer(tmp_path, rollouts=with_more, credit="tree-grpo", step_end="", **by_root)
    made.train()
    np.testing.assert_allclose(made.made, credit["tree-grpo"].take(made.data))
    with pytest.raises(InputError, match="shape 'par' need references, for which there is no source"):
        trainer(tmp_path, rollouts=with_more, credit="step-rloo", step_rewards="turn_scores", shape="par")
    with pytest.raises(UnknownNameError, match="shape"):
        trainer(tmp_path, rollouts=with_more, credit="step-rloo", step_rewards="turn_scores", shape="pra")


def test_a_setting_may_follow_training(tmp_path: Path) -> None:
    settings = {"step": lambda step: step, "horizon": 2.0}
    made = trainer(
        tmp_path, steps=2, rollouts=episodes, credit="step-rloo", step_rewards="turn_scores", step_end="",
        shape="trust", shape_settings=settings, settings={"learning_rate": 0.0},
    )  # fmt: skip
    made.reward_funcs = [alternating]
    made.train()
    # Trust-GRPO: the rewards of the same episodes weigh e^(-1/2) as much one update later, where they count at all.
    first, second = (np.array(data["rewards"]) for data in made.history)
    np.testing.assert_allclose(second, first * np.exp(-0.5), atol=1e-12)
    assert np.abs(first).max() > 0.1


def alternating(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """Every other rollout is right."""
    return [float(i % 2) for i in range(len(completions))]


def test_token_weights_lean_towards_what_makes_right_solutions_likelier(tmp_path: Path) -> None:
    weights = HiddenRewardWeights(lean=0.1, least=0.0)
    plain = trainer(tmp_path, credit="grpo", settings={"learning_rate": 0.0})
    made = trainer(tmp_path, credit="grpo", token_weights=weights, settings={"learning_rate": 0.0})
    for one in (plain, made):
        one.reward_funcs = [alternating]
        one.train()
    before, after = plain.given["advantages"], made.given["advantages"]
    moved = before != 0
    ratio = (after[moved] / before[moved]).round(decimals=4)
    assert set(ratio.tolist()) <= {torch.tensor(x).item() for x in (0.9, 1.1, 0.0)}
    assert len(set(ratio.tolist())) > 1
    # By hand for one group: the sum over right solutions' tokens of products of gradients and of states.
    model, out = policy().eval(), made.given
    own = out["completion_mask"].bool()
    outcome = np.array(made.data["outcome"])
    rows = range(4)
    ids = torch.cat([out["prompt_ids"], out["completion_ids"]], 1)
    mask = torch.cat([out["prompt_mask"], out["completion_mask"]], 1)
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, attention_mask=mask)[0]
        logits = model.get_output_embeddings()(hidden)
    width = own.shape[1]

    def parts(row: int, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        at = ids.shape[1] - width + t - 1
        gradient = -logits[row, at].softmax(-1)
        gradient[ids[row, at + 1]] += 1
        return gradient, hidden[row, at]

    right = [row for row in rows if outcome[row] > 0.5]
    wanted = next(row for row in rows if moved[row].any())
    for t in own[wanted].nonzero()[:3, 0].tolist():
        g, h = parts(wanted, t)
        total = 0.0
        for row in right:
            tokens = own[row].nonzero()[:, 0].tolist()
            for other in tokens:
                g2, h2 = parts(row, other)
                total += float(g @ g2) * float(h @ h2) / len(tokens)
        lean = 1 + 0.1 * np.sign(total) * np.sign(float(before[wanted, t]))
        assert float(after[wanted, t] / before[wanted, t]) == pytest.approx(lean, abs=1e-4)


def test_a_group_that_is_parted_is_refused() -> None:
    weights = HiddenRewardWeights()
    weights.attach(SimpleNamespace(num_generations=4))
    with pytest.raises(InputError, match="no whole groups of 4"):
        weights({}, np.ones((3, 1), bool), np.ones((3, 1)), np.ones(3))


def test_twins_are_each_other_s_labels() -> None:
    answers = ["4", "4", "5", "5", "5", None, "7", "7"]
    forms = ["a", "a", "a", "b", "b", "b", "c", "c"]
    twins = ["p"] * 6 + ["q"] * 2
    # "a" said 4, 4, 5 and "b" 5, 5 and nothing; "c" has no twin here.
    assert cross_votes(answers, forms, twins) == [0, 0, 1, 0, 0, 0, None, None]
    assert cross_votes([None, "4"], ["a", "b"], ["p", "p"]) == [0.0, None]
    assert cross_votes([], [], []) == []
    rng = np.random.default_rng(0)
    drawn = [str(x) for x in rng.integers(0, 3, 40)]
    of = [f"f{x}" for x in rng.integers(0, 2, 40)]
    made = cross_votes(drawn, of, ["p"] * 40)
    for i, reward in enumerate(made):
        votes = Counter(drawn[j] for j in range(40) if of[j] != of[i])
        assert reward == float(votes[drawn[i]] == max(votes.values()) and drawn[i] == votes.most_common(1)[0][0])


def test_twins_reward_rollouts_in_trl(tmp_path: Path) -> None:
    votes = TwinVotes(ArithmeticGrader())
    prompts = ["Mia has 12 apples.", "There are 12 apples of Mia."]
    said = ["Answer: 12\n", "Answer: 12\n", "Answer: 3\n", "Answer: 12\n"]
    made = votes([prompts[i // 2] for i in range(4)], said, twin=["m"] * 4)
    assert made == [0.0, 0.0, 0.0, 1.0] or made == [1.0, 1.0, 0.0, 1.0]
    chat = [[{"role": "assistant", "content": text}] for text in said]
    assert votes([prompts[i // 2] for i in range(4)], chat, twin=["m"] * 4) == made
    with pytest.raises(InputError, match="no column 'twin'"):
        votes(prompts, said[:2])
    assert partial(lengths)(prompts, said[:2])
