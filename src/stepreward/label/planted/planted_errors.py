"""Wrong steps made of right ones: by changing a number or an operator, or by a policy that is asked to write an error.

A changed step may still be right. So a program must find the error, or rollouts must fail behind it, or the labels say
that nothing confirmed it. What follows a changed step is left out: whether it is right is not known.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted, InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow, Propose
from stepreward.core.step_verdicts import numbers_of, verdicts
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.rollouts import Unfinished, count, rollouts
from stepreward.label.step_checkers import Unchecked

KINDS = (
    "a slip in arithmetic",
    "an operation that is not the one that is needed",
    "a number of the problem or of an earlier step that is not the right one",
    "a condition of the problem that is overlooked or misread",
    "a conclusion that does not follow",
)
"""The kinds of errors that a policy is asked for."""
PROMPT = """Below are a problem, the first steps of a right solution, and its next step. Write a wrong version of that \
next step, for training a checker. Its error is: {kind}. It should look as natural as the right one, be about as long, \
and not point at its error.

[Problem]
{prompt}

[Steps so far]
{steps}

[Next step]
{step}

Write the wrong version of the next step, and nothing else of the solution, between <step> and </step>."""
_STEP = re.compile(r"<step>(.*?)</step>", re.DOTALL)
_PARTS = re.compile(r"(?<![\w.,])(?P<number>\d{1,9})(?![\w,.]*\d)|(?<=[\d)]) ?(?P<sign>[-+*/\u00d7\u00f7]) ?(?=[\d(])")
_SIGNS = {"+": "-", "-": "+", "*": "+", "/": "*", "\u00d7": "+", "\u00f7": "\u00d7"}


@estimate.method(
    "changed-numbers",
    note="ours: mutations of numbers and signs in steps of a right solution, the checker as truth",
    asks=("grader",),
    transform="hard",
)
def changed_numbers(
    trajectory: Trajectory, key: Key, *, n: Count = 4, checker: str = "equations", unchecked: Unchecked = "unknown"
) -> Flow[StepTree]:
    """Changes one number or sign in a step that a program finds right, and keeps it if the program finds it wrong.

    A change that leaves a true statement, or one that cannot be read any more, is no row.

    Args:
        trajectory: whose outcome is above 1/2; of any other nothing is changed or labelled.
        key: randomness of the changes.
        n: changed copies, at most one of each change.
        checker: of the family check; several with a plus sign.
        unchecked: what the solution's own steps count as of which no program can say anything.

    Returns:
        The tree of the solution and its copies, each up to its changed step; value 1 at steps that are found right and
        0 at changed ones.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded.
        UnknownNameError: there is no such checker.
    """
    yield from ()  # a flow that asks nothing
    _require(trajectory)
    problem, steps = trajectory.problem, trajectory.steps
    value, made = np.full(len(steps), np.nan), list[tuple[Step, ...]]()
    if trajectory.outcome > 0.5:
        said = numbers_of(verdicts(checker, problem, steps))
        value = np.where(trajectory.action, said, np.nan)
        found = [(at, text) for at in np.flatnonzero(value == 1) for text in changed_texts(steps[at].text)]
        for i in _order(key, trajectory, len(found)):
            at, text = found[i]
            copy = (*steps[:at], replace(steps[at], text=text, tokens=None, logprobs=None))
            if len(made) < n and numbers_of(verdicts(checker, problem, copy))[at] == 0:
                made.append(copy)
        if unchecked == "right":
            value[trajectory.action & np.isnan(value)] = 1.0
    return copies_tree(trajectory, value, [(copy, 0.0, 0, 0) for copy in made], {})


def changed_texts(text: str) -> Iterator[str]:
    """Yields the texts with one number, or one sign between numbers, changed; each once, in order."""
    seen = {text}
    for part in _PARTS.finditer(text):
        if part["sign"]:
            start, end = part.span("sign")
            others = [_SIGNS[part["sign"]]]
        else:
            start, end, number = *part.span("number"), int(part["number"])
            others = [str(number + 1), str(max(0, number - 1)), str(10 * number), part["number"][::-1]]
        for other in others:
            made = text[:start] + other + text[end:]
            if made not in seen:
                seen.add(made)
                yield made


@estimate.method(
    "planted-errors",
    note="the augmentation of repository VersaPRM, counterfactual_augmentation: a right solution, a kind of error and "
    "a step give a wrong version of it, which alone is labelled; kinds and prompt are ours. Rollouts that confirm are "
    "after repository SPC, whose thresholds were not found: `high` and `low` are ours",
    asks=("policy", "instructions", "grader"),
    transform="hard",
)
def planted_errors(
    trajectory: Trajectory,
    key: Key,
    *,
    n: Count = 2,
    rollouts_each: int = 0,
    high: float = 0.5,
    low: float = 0.0,
    unfinished: Unfinished = "wrong",
) -> Flow[StepTree]:
    """Asks a policy for wrong versions of steps of a right solution; with rollouts, only those behind which they fail.

    Without rollouts nothing confirms that a step is wrong, and it alone has a value, 0. With them a pair counts if the
    policy succeeds behind the right step at a rate of at least `high`, and behind the wrong one of at most `low`; both
    get their rates as values. The last step has no rollouts.

    Args:
        trajectory: whose outcome is above 1/2; of any other nothing is written or labelled.
        key: randomness of the choice of steps and kinds, and of what is written.
        n: wrong versions that are asked for.
        rollouts_each: behind each right and each wrong step; 0 confirms nothing.
        high, low: rates in [0, 1]; transform `hard` reads a rate above its `threshold`, 0, as right: set it to `low`.
        unfinished: what a cut rollout counts as.

    Returns:
        The tree of the solution and its copies, each up to its wrong step. The solution's fact `planted` says how many
        were asked for, how many could not be read or said nothing new, and how many were not confirmed.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded.
        ValueError: `rollouts_each` is negative, or not 0 <= low < high <= 1.
    """
    _require(trajectory)
    if rollouts_each < 0 or not 0 <= low < high <= 1:
        raise ValueError(f"expected rollouts_each >= 0 and 0 <= low < high <= 1, got {rollouts_each}, {low}, {high}")
    problem, steps = trajectory.problem, trajectory.steps
    end = len(steps) - 1 if rollouts_each else len(steps)
    usable = [at for at in range(end) if steps[at].kind == "action"] if trajectory.outcome > 0.5 else []
    every = [(at, kind) for at in usable for kind in KINDS]
    chosen = [every[i] for i in _order(key, trajectory, len(every))[:n]]
    tally = {"asked": len(chosen), "unread": 0, "unconfirmed": 0}
    value, tried, right = np.full(len(steps), np.nan), np.zeros(len(steps)), np.zeros(len(steps))
    made, seen = list[tuple[tuple[Step, ...], float, int, int]](), set[tuple[int, str]]()
    try:
        answers = yield [_asked(trajectory, at, kind, key) for at, kind in chosen]
        for (at, kind), (answer,) in zip(chosen, answers, strict=True):
            wrong = _written("".join(step.text for step in answer.steps), steps[at], kind)
            if wrong is None or (at, wrong.text) in seen:
                tally["unread"] += 1
                continue
            seen.add((at, wrong.text))
            copy = (*steps[:at], wrong)
            if not rollouts_each:
                made.append((copy, 0.0, 0, 0))
                continue
            counts = []
            for prefix in (steps[: at + 1], copy):
                drawn = yield from rollouts(problem, prefix, rollouts_each, key, unfinished=unfinished)
                counts.append(count(drawn))
            (tried[at], right[at]), (of, won) = counts
            if tried[at] and of and right[at] / tried[at] >= high and won / of <= low:
                value[at] = right[at] / tried[at]
                made.append((copy, won / of, of, won))
            else:
                tally["unconfirmed"] += 1
    except BudgetExhausted:
        pass
    return copies_tree(trajectory, value, made, {"planted": tally}, tried, right)


def _require(trajectory: Trajectory) -> None:
    if not len(trajectory) or (trajectory.terminal and np.isnan(trajectory.outcome)):
        what = f"a solution of problem {trajectory.problem.id!r} has no step, or no outcome"
        raise InputError(what, remedy="grade it first, or drop it")


def _order(key: Key, trajectory: Trajectory, size: int) -> list[int]:
    text = hashlib.blake2b(trajectory.text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    order: list[int] = key.fold("planted", trajectory.problem.id, text).rng().permutation(size).tolist()
    return order


def _asked(trajectory: Trajectory, at: int, kind: str, key: Key) -> Propose:
    """The request for a wrong version of a step."""
    problem, steps = trajectory.problem, trajectory.steps
    shown = "".join(step.text for step in steps[:at]).strip() or "(none)"
    parts = {"kind": kind, "prompt": problem.text, "steps": shown, "step": steps[at].text.strip()}
    text = re.sub(r"\{(\w+)\}", lambda found: parts.get(found[1], found[0]), PROMPT)
    # Policies distinguish prompts by the problem's id.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    again = Problem(f"{problem.id} planted {digest}", text)
    return Propose(again, (), key.fold("planted", problem.id, digest), acts=False)


def _written(answer: str, right: Step, kind: str) -> Step | None:
    """The step that an answer states last, with the white space around the right one; None for none, or the same."""
    _, thought, said = answer.rpartition("</think>")
    found = _STEP.findall(said if thought or "<think>" not in answer else "")
    text = found[-1].strip() if found else ""
    plain = right.text.strip()
    if not text or " ".join(text.split()) == " ".join(plain.split()):
        return None
    before, _, after = right.text.partition(plain)
    return Step(f"{before}{text}{after}", role=right.role, agent=right.agent, meta={"planted": kind})


def copies_tree(
    trajectory: Trajectory,
    value: Any,
    made: Sequence[tuple[tuple[Step, ...], float, int, int]],
    facts: dict[str, Any],
    tried: Any = None,
    right: Any = None,
) -> StepTree:
    """The tree of a solution and its copies with values at its steps and at the last step of each copy.

    Args:
        trajectory: the right solution.
        value: (S,) of its own steps.
        made: each copy up to its changed step, that step's value, rollouts behind it, and right ones.
        facts: more of the solution.
        tried, right: (S,) rollouts behind its own steps, and right ones; none where None.
    """
    problem, nan = trajectory.problem, float("nan")
    own = replace(trajectory, columns={}, facts={**trajectory.facts, **facts})
    copies = [Trajectory(problem, steps, nan, terminal=False) for steps, *_ in made]
    tree = StepTree.from_trajectories([own, *copies], problem)
    path = tree.paths[0][: len(trajectory)]
    columns = {name: np.zeros(tree.n) for name in ("n_rollouts", "n_correct")} | {"value": np.full(tree.n, nan)}
    columns["value"][path] = value
    if tried is not None and right is not None:
        columns["n_rollouts"][path], columns["n_correct"][path] = tried, right
    for row, (steps, worth, of, won) in enumerate(made, 1):
        node = tree.paths[row][len(steps) - 1]
        columns["value"][node], columns["n_rollouts"][node], columns["n_correct"][node] = worth, of, won
    return replace(tree, columns=columns)
