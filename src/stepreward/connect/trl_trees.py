"""Groups of TRL that are trees: rollouts that share beginnings, each generated once, and papers that are such trees.

StepGRPOTrainer(model, reward, GRPOConfig(num_generations=8, ...), data, **tree_arguments("treerl", Key.seed(0)))
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from stepreward.connect.rollout_trees import RECIPES, Forks, Shape, TreeSolution
from stepreward.connect.trl_rollouts import LocalRollouts
from stepreward.connect.trl_sources import RolloutValues
from stepreward.core.catalog import credit
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Episodes
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Flow, Grade, Grader
from stepreward.core.types import Message, Problem
from stepreward.policies.local import LocalPolicy

Prompt = str | Sequence[Message]


class TreeRollouts:
    """A `rollout_func` of TRL whose groups are trees, sampled from the weights in training.

    It returns, beside the completions, `root`, the tree of each; `cuts`, where its steps end, for `step_cuts` of
    `StepGRPOTrainer`; and with a grader or an environment `outcome`, which `rollout_outcomes` makes a reward of.
    Evaluations sample independent solutions.

    Args:
        key: randomness. Without forks the samples are those of `LocalRollouts`.
        shape: of the trees.
        environment: executes each turn; forks lie between turns then. Needs `problem_of`.
        grader: of solutions, where the environment cannot tell or there is none. None leaves outcomes to the rewards.
        problem_of: the problem of a prompt, with all that environment and grader read of it.
        unfinished: outcome of a solution that a limit cut.
        settings: of `LocalPolicy`.

    Raises:
        InputError: forks within steps, or no `problem_of`, in an environment.
    """

    def __init__(
        self,
        key: Key,
        shape: Shape,
        *,
        environment: Episodes | None = None,
        grader: Grader | None = None,
        problem_of: Callable[[Prompt], Problem] | None = None,
        unfinished: float = 0.0,
        **settings: Any,
    ) -> None:
        if environment is not None and isinstance(shape, Forks) and shape.rounds and shape.unit == "token":
            what = "an environment executes whole turns, and these trees fork within them"
            raise InputError(what, remedy="take unit='step'")
        if problem_of is None and (environment is not None or grader is not None):
            raise InputError("an environment or a grader needs whole problems", remedy="pass problem_of=")
        self.key, self.shape, self.environment, self.grader = key, shape, environment, grader
        self.problem_of, self.unfinished = problem_of, unfinished
        self._rollouts = LocalRollouts(key, **settings)
        self._calls = 0
        self.tokens = 0
        """Tokens generated so far, end tokens included, each shared beginning once."""
        self.unshared = 0
        """Tokens of all solutions so far: what sampling each by itself generates."""

    def __call__(self, prompts: Sequence[Prompt], trainer: Any) -> dict[str, Any]:
        """Completions in TRL's form.

        Raises:
            InputError: a group does not have as many solutions as trees of the shape.
        """
        model = trainer.model
        training, policy = model.training, self._rollouts.policy_of(trainer)
        key = self.key.fold("rollouts", self._calls, trainer.accelerator.process_index)
        self._calls += 1
        size = int((trainer.num_generations if training else trainer.num_generations_eval) or 1)
        runs = [list(same) for _, same in itertools.groupby(prompts)]
        groups = [run[at : at + size] for run in runs for at in range(0, len(run), size)]
        if any(len(group) != size for group in groups) and training:
            what = f"a group of {size} solutions is parted over processes or calls"
            raise InputError(what, remedy="let per_device_train_batch_size be a multiple of num_generations")
        shape = self.shape if training else Forks(rounds=0)
        most = min(int(trainer.max_completion_length), policy.max_tokens)
        problems = [self._problem(i, group[0]) for i, group in enumerate(groups)]
        flows = [
            self._flow(shape, problem, key.fold(str(i)), len(group), most, policy)
            for i, (problem, group) in enumerate(zip(problems, groups, strict=True))
        ]
        # In training mode checkpointed layers keep no cache, and dropout would change what is sampled.
        model.eval()
        driver = Driver(
            policy=policy if self.environment is None else Agent(policy, self.environment), grader=self.grader
        )
        try:
            found = {one.index: one.result for one in driver.run(flows)}
        finally:
            model.train(training)
        made = self._completions(policy, problems, [found[i] for i in range(len(groups))], shape)
        whole = sum(self._written(branch) for branches, _ in found.values() for branch in branches)
        if training:
            self.tokens += driver.bill.generated_tokens
            self.unshared += whole
        metrics = trainer._metrics["train" if training else "eval"]
        metrics["process/generated"].append(float(driver.bill.generated_tokens))
        metrics["process/shared"].append(1 - driver.bill.generated_tokens / max(whole, 1))
        if self.environment is None:
            del made["env_mask"]
        return made

    def _written(self, branch: TreeSolution) -> int:
        """Tokens that the policy generates to write a solution: those of its steps, and the end of it, or of turns."""
        turns = len(branch.actions) if self.environment is not None else 1
        return branch.tokens + turns - (not branch.finished)

    def _problem(self, i: int, prompt: Prompt) -> Problem:
        if self.problem_of is not None:
            return self.problem_of(prompt)
        return Problem(str(i), prompt if isinstance(prompt, str) else tuple(prompt))

    def _flow(
        self, shape: Shape, problem: Problem, key: Key, n: int, most: int, policy: LocalPolicy
    ) -> Flow[tuple[list[TreeSolution], list[float]]]:
        made = yield from shape.flow(problem, key, n, most, policy.decode)
        if self.environment is None and self.grader is None:
            return made, []
        whole = [branch for branch in made if branch.finished]
        grades = iter((yield [Grade(problem, branch.steps) for branch in whole]) if whole else ())
        return made, [float(next(grades)) if branch.finished else self.unfinished for branch in made]

    def _completions(
        self,
        policy: LocalPolicy,
        problems: Sequence[Problem],
        found: Sequence[tuple[list[TreeSolution], list[float]]],
        shape: Shape,
    ) -> dict[str, Any]:
        """TRL's lists, one entry a completion."""
        made: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "env_mask": [], "root": [], "cuts": []}
        for problem, (branches, outcomes) in zip(problems, found, strict=True):
            read = problem if self.environment is None else self.environment.prepared(problem)
            for branch in branches:
                prompt, ids, own = self._tokens(policy, read, branch)
                made["prompt_ids"].append(prompt)
                made["completion_ids"].append(ids)
                made["env_mask"].append(own)
                made["root"].append(branch.root)
                made["cuts"].append(_cuts(branch, own, shape, asked_at_ends=self.environment is None))
            if outcomes:
                made.setdefault("outcome", []).extend(outcomes)
        return made | {"logprobs": None}

    def _tokens(
        self, policy: LocalPolicy, problem: Problem, branch: TreeSolution
    ) -> tuple[list[int], list[int], list[int]]:
        """Tokens of the prompt and of the completion, and 1 at those that the policy wrote."""
        steps = branch.steps
        first = next((at for at, step in enumerate(steps) if step.kind == "action"), len(steps))
        prompt = policy.ids(problem, steps[:first])
        ids, own = [*prompt], list[int]()
        for at in range(first, len(steps)):
            if steps[at].kind == "action":
                more = list(steps[at].tokens or ())
                own += [1] * len(more)
            elif at + 1 < len(steps) and steps[at + 1].kind == "observation":
                continue  # What is shown together is written together.
            else:
                more = list(policy.ids(problem, steps[: at + 1])[len(ids) :])
                # The template may begin by the token with which the policy ended its turn.
                own += [int(k == 0 and token == self._rollouts.end) for k, token in enumerate(more)]
            ids += more
        if branch.finished or len(ids) == len(prompt):
            ids, own = [*ids, self._rollouts.end], [*own, 1]
        return list(prompt), ids[len(prompt) :], own


def _cuts(branch: TreeSolution, own: Sequence[int], shape: Shape, *, asked_at_ends: bool) -> list[int]:
    """Tokens of the completion before each place where a step ends: at forks, and between steps unless forks part them.

    An end token belongs to the step before it, unless the policy was asked for more there and ended.
    """
    places = branch.cuts
    if shape.unit == "step":
        places |= {at for at in branch.ends if at < branch.tokens}
    if not asked_at_ends:
        places.discard(branch.tokens)
    of = [at for at, mine in enumerate(own) if mine]
    return sorted(of[at - 1] + 1 for at in places if at <= len(of))


def rollout_outcomes(prompts: Sequence[Any], outcome: Sequence[float], **_: Any) -> list[float]:
    """A reward function of TRL: the outcome that the rollouts brought along."""
    return list(outcome)


def tree_arguments(
    name: str,
    key: Key,
    *,
    shape: Shape | None = None,
    grader: Grader | None = None,
    rollouts: int = 9,
    **settings: Any,
) -> dict[str, Any]:
    """Arguments of `StepGRPOTrainer` that make it sample trees as a paper does, and credit them as it does.

    Args:
        name: of `RECIPES`, which is that of the credit.
        key: randomness.
        shape: of the trees; the recipe's where None.
        grader: of the rollouts by which `vineppo` values prefixes.
        rollouts: of each prefix there.
        settings: of `TreeRollouts`.

    Raises:
        InputError: `vineppo` without a grader.
        UnknownNameError: there is no such credit, or no recipe for it.
    """
    method = credit[name]
    if name not in RECIPES:
        what = f"credit {name!r} has no trees of its own"
        raise InputError(what, remedy=f"known: {', '.join(RECIPES)}; or pass rollout_func=TreeRollouts(key, shape)")
    source: dict[str, Any] = {}
    if "root" in method.data:
        source["root"] = "root"
    if "values" in method.data:
        if grader is None:
            raise InputError(f"{name} values prefixes by rollouts, and no grader grades them", remedy="pass grader=")
        source["values"] = RolloutValues(grader, n=rollouts, before=True, root=True, key=key.fold("values"))
    return {
        "rollout_func": TreeRollouts(key, shape or RECIPES[name].shape, **settings),
        "credit": name,
        "step_data": source,
        "step_cuts": "cuts",
    }
