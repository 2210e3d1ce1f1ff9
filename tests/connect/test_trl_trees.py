"""Trees of rollouts in TRL: what is shared is generated once, and what reaches the weights, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")
from datasets import Dataset
from tests.connect.test_trl import GRADER, PROBLEMS, Watched, trainer
from tests.environments.counting import policy as counter
from tests.environments.counting import pool
from tests.policies.tiny_models import byte_level, letters, tiny
from transformers import GPT2Config, GPT2LMHeadModel
from trl import GRPOConfig

from stepreward.connect.rollout_trees import RECIPES, Forks, Levels, Shape, TreeSolution
from stepreward.connect.trl_rollouts import LocalRollouts
from stepreward.connect.trl_trees import TreeRollouts, rollout_outcomes, tree_arguments
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation
from stepreward.core.types import Problem, Step
from stepreward.policies.prompts import PromptTokens

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func':UserWarning"),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]
KEY = Key.seed(0)


def weights_after(out: Path, **named: Any) -> tuple[Watched, torch.Tensor]:
    made = trainer(out, steps=2, **named)
    made.train()
    return made, torch.cat([one.detach().flatten() for one in made.model.parameters()])


def test_trees_without_forks_are_plain_grpo_to_the_last_bit(tmp_path: Path) -> None:
    plain, expected = weights_after(tmp_path, credit="grpo", rollout_func=LocalRollouts(KEY))
    named = {"rollout_func": TreeRollouts(KEY, Forks(rounds=0)), "step_cuts": "cuts"}
    made, found = weights_after(tmp_path, credit="grpo", **named)
    assert torch.equal(made.given["completion_ids"], plain.given["completion_ids"])
    assert torch.equal(found, expected)
    assert named["rollout_func"].tokens == named["rollout_func"].unshared  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [Forks(rounds=0), Levels(width=1, roots=4)], ids=["solutions", "steps"])
def test_trees_of_one_solution_have_no_advantage_but_that_of_their_group(shape: Shape, tmp_path: Path) -> None:
    given = []
    for credit in ("tree-grpo", "grpo(epsilon=1e-6)"):
        made = trainer(
            tmp_path, credit=credit, rollout_func=TreeRollouts(KEY, shape), step_cuts="cuts", step_data={"root": "root"}
        )
        made.train()
        given.append(made.given["advantages"])
    assert given[0].any()
    assert torch.equal(*given)


LETTERS = letters("abcdfx\n")
ROWS = ("ab", "ac", "af", "d")
OUTCOMES = (1.0, 1.0, 0.0, 0.0)


def scripted(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
    """Four solutions: 'a' goes on in three ways, 'd' stands alone."""
    ids = [LETTERS(row)["input_ids"] for row in ROWS]
    return {
        "prompt_ids": [LETTERS("x")["input_ids"]] * 4, "completion_ids": ids, "logprobs": None,
        "outcome": list(OUTCOMES), "root": [0, 0, 0, 1], "cuts": [[1], [1], [1], []],
    }  # fmt: skip


def change_of_letters(out: Path, credit: str, **named: Any) -> dict[str, float]:
    """How one step of gradient ascent from a uniform policy changes the logit of each letter, times 4 rows of 2."""
    settings = GPT2Config(
        vocab_size=len(LETTERS), n_positions=8, n_embd=4, n_layer=1, n_head=1, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=LETTERS.eos_token_id, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(settings)
    with torch.no_grad():
        # The last layer's output is (1, 0, 0, 0) everywhere, so that a letter's logit is one weight.
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        model.lm_head.weight.zero_()
    config = GRPOConfig(
        output_dir=str(out), per_device_train_batch_size=4, num_generations=4, max_completion_length=2, max_steps=1,
        report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, optim="sgd", learning_rate=1.0,
        lr_scheduler_type="constant", max_grad_norm=0.0, weight_decay=0.0, loss_type="dr_grpo", beta=0.0,
        gradient_checkpointing=False, bf16=False,
    )  # fmt: skip
    made = Watched(
        model, rollout_outcomes, config, Dataset.from_dict({"prompt": ["x"]}), processing_class=LETTERS,
        rollout_func=scripted, credit=credit, step_cuts="cuts", **named,
    )  # fmt: skip
    made.train()
    moved = made.model.lm_head.weight.detach()[:, 0] * 4 * 2
    return dict(zip("abcdfx", moved.tolist(), strict=False))


def logits(advantages: dict[str, float]) -> dict[str, float]:
    """Sum over letters said of advantage times (1 at the letter, less its chance of 1/8)."""
    total = sum(advantages.values())
    return {letter: advantages.get(letter, 0.0) - total / 8 for letter in "abcdfx"}


# The root is worth 1/2 and 'a' 2/3. Local and global gains are 1/6 and 1/6 at 'a', 1/3 and 1/2 behind it where it is
# right, -2/3 and -1/2 where it is wrong, and twice -1/2 at 'd'. Three rows hold 'a': each has its gain over root 3, so
# that their sum is (1/3) root 3 under TreeRL, 1/3 if it counts once and 1 if it counts for each leaf.
TAIL = {"b": 5 / 6, "c": 5 / 6, "f": -7 / 6, "d": -1.0}
ONE = 0.5 / (3**-0.5 + 1e-6)
"""A right solution of four of which two are: 1/2 over the deviation of 1, 1, 0, 0, the root of 1/3."""
IN_TREE = 1 / (3 * (3**-0.5 + 1e-6))
"""The same among 1, 1, 0: 1/3 over the root of 1/3; a wrong one has twice as much below nought."""


@pytest.mark.parametrize(
    ("credit", "named", "advantages"),
    [
        ("treerl", {}, {"a": 3**0.5 / 3, **TAIL}),
        ("treerl", {"credit_settings": {"power": 1.0}}, {"a": 1 / 3, **TAIL}),
        ("treerl", {"credit_settings": {"power": 0.0}}, {"a": 1.0, **TAIL}),
        # Repeated rows: 'a' has the sum of three advantages, which in its tree cancel.
        (
            "tree-grpo", {"step_data": {"root": "root"}},
            {"a": ONE, "b": ONE + IN_TREE, "c": ONE + IN_TREE, "f": -ONE - 2 * IN_TREE, "d": -ONE},
        ),
        (
            "once(tree-grpo)", {"step_data": {"root": "root"}},
            {"a": ONE / 3, "b": ONE + IN_TREE, "c": ONE + IN_TREE, "f": -ONE - 2 * IN_TREE, "d": -ONE},
        ),
        ("node-differences", {}, {"a": 3 / 6, "b": 1 / 3, "c": 1 / 3, "f": -2 / 3, "d": -1 / 2}),
        ("once(node-differences)", {}, {"a": 1 / 6, "b": 1 / 3, "c": 1 / 3, "f": -2 / 3, "d": -1 / 2}),
        # Forks: 'a' 2/3 and 'd' 0 are siblings of mean 1/3, and 1, 1, 0 of mean 2/3; solutions: o less 1/2.
        (
            "fork-and-trajectory", {},
            {"a": 3 * 1 / 3 + 1 / 2, "b": 1 / 3 + 1 / 2, "c": 1 / 3 + 1 / 2, "f": -2 / 3 - 1 / 2, "d": -1 / 3 - 1 / 2},
        ),
        # Values 0.5 before everything and 0.75 before the second token.
        (
            "vineppo", {"step_data": {"values": lambda ts: [np.array([0.5, 0.75][: len(t.steps)]) for t in ts]}},
            {"a": 3 * 0.25, "b": 0.25, "c": 0.25, "f": -0.75, "d": -0.5},
        ),
    ],
    ids=["treerl", "once", "each", "tree-grpo", "tree-grpo-once", "treeps", "treeps-once", "portool", "vineppo"],
)  # fmt: skip
def test_the_gradient_of_a_tree_by_hand(
    credit: str, named: dict[str, Any], advantages: dict[str, float], tmp_path: Path
) -> None:
    found = change_of_letters(tmp_path, credit, **named)
    assert found == pytest.approx(logits(advantages), abs=2e-6)


SHAPES: list[Shape] = [
    Forks(points=3, unit="token"), Forks(points=3, where="random", unit="step"), Forks(width=3, unit="step"),
    Forks(rounds=3, where="random", unit="token"), Levels(2),
]  # fmt: skip


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_solutions_share_is_generated_once(shape: Shape, tmp_path: Path) -> None:
    rollouts = TreeRollouts(KEY, shape)
    made = trainer(tmp_path, credit="treerl", rollout_func=rollouts, step_cuts="cuts")
    made.train()
    given = made.given
    rows = [
        row[mask.bool()].tolist() for row, mask in zip(given["completion_ids"], given["completion_mask"], strict=True)
    ]
    assert rollouts.unshared == sum(map(len, rows))
    groups = [rows[:4], rows[4:]]
    # Solutions that part may say the same again: as many tokens as the distinct beginnings, or more.
    distinct = sum(len({tuple(row[: k + 1]) for row in group for k in range(len(row))}) for group in groups)
    assert distinct <= rollouts.tokens < rollouts.unshared
    told = made.state.log_history[0]
    assert told["process/generated"] == rollouts.tokens
    assert told["process/shared"] == pytest.approx(1 - rollouts.tokens / rollouts.unshared)
    # Credit changes at forks and nowhere else, where they part steps.
    if shape.unit == "token":
        assert all(len(set(row[mask.bool()].tolist())) <= 4 for row, mask in _advantages(made))


def _advantages(made: Watched) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(made.given["advantages"], made.given["completion_mask"], strict=True))


class ByPrompt:
    """A grader for data without a column of references."""

    name = "by prompt"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return GRADER.grade(PROBLEMS[problem.text], steps)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return GRADER.answer(PROBLEMS[problem.text], steps)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name: str, tmp_path: Path) -> None:
    more = {"grader": ByPrompt(), "rollouts": 2} if name == "vineppo" else {}
    made = trainer(tmp_path, settings={"temperature": 1.5}, **tree_arguments(name, KEY, **more))
    before = made.model.get_output_embeddings().weight.detach().clone()
    made.train()
    assert made.given["advantages"].any()
    assert not torch.equal(made.model.get_output_embeddings().weight, before)


def test_evaluations_are_of_independent_solutions(tmp_path: Path) -> None:
    rollouts = TreeRollouts(KEY, Forks(points=3))
    settings = {"per_device_eval_batch_size": 2, "num_generations_eval": 2}
    named = {"credit": "treerl", "rollout_func": rollouts, "step_cuts": "cuts", "settings": settings}
    made = trainer(tmp_path, eval_dataset=Dataset.from_dict({"prompt": list(PROBLEMS)[:1]}), **named)
    told = made.evaluate()
    assert told["eval_process/shared"] == 0
    assert rollouts.tokens == 0


class Counter:
    """Plays the world of counting; a token a byte, and the prompt as text."""

    name, batch_size, concurrency, max_tokens = "counter", 64, 1, 64

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.prompts = tokenizer, PromptTokens(tokenizer)

    def propose(self, questions: Any) -> list[list[Continuation]]:
        def written(one: Continuation) -> Continuation:
            tokens = tuple(self.tokenizer(one.steps[0].text)["input_ids"])
            return Continuation((Step(one.steps[0].text, tokens=tokens),), one.finished, len(tokens) + 1)

        return [list(map(written, some)) for some in counter().propose(questions)]

    def ids(self, problem: Problem, steps: Sequence[Step]) -> tuple[int, ...]:
        return self.prompts.ids(problem, steps, {})

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens))


@pytest.mark.parametrize("shape", [Forks(where="random", unit="step", points=3), Levels(2)], ids=["forks", "levels"])
def test_turns_of_an_environment_are_forked_and_its_words_are_not_trained_on(shape: Shape, tmp_path: Path) -> None:
    tokenizer = byte_level()
    rollouts = TreeRollouts(
        KEY, shape, environment=pool(forks=True), problem_of=lambda prompt: Problem(str(prompt), str(prompt), "4")
    )
    rollouts._rollouts.end, rollouts._rollouts._policy = tokenizer.eos_token_id, Counter(tokenizer)  # type: ignore[assignment]
    config = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=4, max_completion_length=64,
        max_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, logging_steps=1,
    )  # fmt: skip
    made = Watched(
        tiny("qwen2", tokenizer), rollout_outcomes, config, Dataset.from_dict({"prompt": ["Count.", "Go to 4."]}),
        processing_class=tokenizer, rollout_func=rollouts, credit="treerl", step_cuts="cuts",
    )  # fmt: skip
    made.train()
    given, rewards = made.given, made._rewarded
    assert rewards is not None
    for i, (row, mask) in enumerate(zip(given["completion_ids"], given["completion_mask"], strict=True)):
        own = given["tool_mask"][i].bool() & mask.bool()
        lines = tokenizer.decode(row[mask.bool()], skip_special_tokens=True).splitlines()
        at = 1
        for action, shown in zip(lines[::2], [*lines[1::2], None], strict=True):
            at = {"+1": at + 1, "*2": at * 2, "-1": at - 1}[action]
            assert shown in (f"value {at}", None)
        assert rewards[i].item() == float(at == 4)
        said = tokenizer.decode(row[own], skip_special_tokens=True)
        assert said.splitlines() == lines[::2]
        assert not given["advantages"][i][~own].any()
    assert given["advantages"].any()
    assert rollouts.tokens < rollouts.unshared


CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}[me]{% endif %}"
)


def test_in_a_chat_the_policy_s_tokens_are_its_turns_and_the_ends_of_them() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT
    rollouts = TreeRollouts(KEY, Levels(), environment=pool(), problem_of=lambda prompt: Problem("p", str(prompt)))
    rollouts._rollouts.end, policy = tokenizer.eos_token_id, Counter(tokenizer)
    shown = [Step(text, "observation", "user") for text in ("see 1", "see 2", "see 3")]
    acts = [Step(text, tokens=tuple(tokenizer(text)["input_ids"])) for text in ("go", "stop")]
    branch = TreeSolution((shown[0], acts[0], shown[1], shown[2], acts[1]), 0, finished=True, ended=True)
    prompt, ids, own = rollouts._tokens(policy, Problem("p", "Hello."), branch)  # type: ignore[arg-type]
    # Beginning and end are what the policy itself would read before its next turn.
    assert [*prompt, *ids[:-1]] == [*policy.ids(Problem("p", "Hello."), branch.steps)]
    assert tokenizer.decode(prompt) == "[user]Hello.\n\nsee 1<eos>[me]"
    assert tokenizer.decode(ids) == "go<eos>[user]see 2see 3<eos>[me]stop<eos>"
    mine = [token for token, one in zip(ids, own, strict=True) if one]
    assert tokenizer.decode(mine) == "go<eos>stop<eos>"


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"executes whole turns.*unit='step'"):
        TreeRollouts(KEY, Forks(), environment=pool(), problem_of=lambda prompt: Problem("p", "Go."))
    with pytest.raises(InputError, match="needs whole problems; pass problem_of="):
        TreeRollouts(KEY, Levels(), grader=GRADER)
    with pytest.raises(InputError, match="no grader grades them; pass grader="):
        tree_arguments("vineppo", KEY)
    with pytest.raises(InputError, match="'grpo' has no trees of its own"):
        tree_arguments("grpo", KEY)
    with pytest.raises(UnknownNameError, match="fork-and-trajectory"):
        tree_arguments("portool", KEY)
    with pytest.raises(InputError, match="a group of 4 is wanted"):
        trainer(tmp_path, **tree_arguments("treerl", KEY, shape=Forks(points=2))).train()
    rollouts = TreeRollouts(KEY, Forks())
    whole = trainer(tmp_path, credit="treerl", rollout_func=rollouts)
    whole.model.train()
    with pytest.raises(InputError, match=r"parted over processes.*multiple of num_generations"):
        rollouts(list(PROBLEMS)[:1] * 3, whole)
    cut = trainer(tmp_path, credit="treerl", rollout_func=LocalRollouts(KEY), step_cuts="cuts")
    with pytest.raises(InputError, match="'steps' is read from 'cuts', which some rollouts lack"):
        cut.train()
