"""Right steps made of wrong ones: a policy that sees the reference names the first wrong step and writes it anew."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import replace

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted, InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow, Propose
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.planted.planted_errors import copies_tree
from stepreward.label.rollouts import Unfinished, count, rollouts

PROMPT = """Below are a problem, its reference, and a solution with numbered steps that ends wrong. Find the first \
step that is wrong, and write a right step that could stand in its place: about as long, without any later step, and \
without giving the final answer away.

[Problem]
{prompt}

[Reference]
{reference}

[Solution]
{steps}

Write the number of the first wrong step between <wrong> and </wrong>, and the right step in its place between <step> \
and </step>."""
_ANSWER = re.compile(r"<wrong>\s*(\d{1,6})\s*</wrong>\s*<step>(.*?)</step>", re.DOTALL)


@estimate.method(
    "int",
    paper="arXiv:2601.14209",
    note="from a reading of the paper; the prompt is ours, and a step that gives the answer away is refused. Rollouts "
    "value the step that was replaced too",
    asks=("policy", "instructions", "grader"),
    transform="soft",
)
def repaired_steps(
    trajectory: Trajectory, key: Key, *, n: Count = 32, tries: Count = 1, unfinished: Unfinished = "wrong"
) -> Flow[StepTree]:
    """Asks a policy for the first wrong step of a wrong solution and a right one instead, kept if rollouts succeed.

    Args:
        trajectory: whose outcome is at most 1/2; of any other nothing is asked. The policy sees its problem's meta
            `solution`, or else the reference.
        key: randomness.
        n: rollouts behind the new step, and behind the one that it replaces; one success behind the new one keeps it.
        tries: times that it is asked.
        unfinished: what a cut rollout counts as.

    Returns:
        The tree of the solution and its copies, each up to a new step, whose meta says that it is `repaired`. New steps
        and those that they replace are valued by their rollouts. The solution's fact `repaired` counts what was asked,
        what could not be read or gave the answer away, and of what no rollout succeeded.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded; or its problem has no reference.
    """
    steps, problem = trajectory.steps, trajectory.problem
    if not len(trajectory) or (trajectory.terminal and np.isnan(trajectory.outcome)):
        what = f"a solution of problem {problem.id!r} has no step, or no outcome"
        raise InputError(what, remedy="grade it first, or drop it")
    reference = problem.meta.get("solution", problem.reference)
    tally = {"asked": 0, "unread": 0, "unconfirmed": 0}
    value, tried, right = np.full(len(steps), np.nan), np.zeros(len(steps)), np.zeros(len(steps))
    made, seen = list[tuple[tuple[Step, ...], float, int, int]](), set[tuple[int, str]]()
    if trajectory.outcome <= 0.5:
        if reference is None:
            raise InputError(f"problem {problem.id!r} has no reference", remedy="add it, or a meta solution")
        question = _asked(trajectory, str(reference), key)
        with suppress(BudgetExhausted):
            (answers,) = yield [replace(question, n=tries)]
            for answer in answers:
                tally["asked"] += 1
                found = _read("".join(step.text for step in answer.steps), trajectory)
                if found is None or (found[0], found[1].text) in seen:
                    tally["unread"] += 1
                    continue
                at, new = found
                seen.add((at, new.text))
                drawn = yield from rollouts(problem, (*steps[:at], new), n, key, unfinished=unfinished)
                of, won = count(drawn)
                if not won:
                    tally["unconfirmed"] += 1
                    continue
                made.append(((*steps[:at], new), won / of, of, won))
                if at < len(steps) - 1 and not tried[at]:
                    drawn = yield from rollouts(problem, steps[: at + 1], n, key, unfinished=unfinished)
                    tried[at], right[at] = count(drawn)
                    value[at] = right[at] / tried[at] if tried[at] else np.nan
                elif at == len(steps) - 1:
                    value[at] = trajectory.outcome
    return copies_tree(trajectory, value, made, {"repaired": tally}, tried, right)


def _asked(trajectory: Trajectory, reference: str, key: Key) -> Propose:
    problem = trajectory.problem
    shown = "\n".join(f"{i}. {step.text.strip()}" for i, step in enumerate(trajectory.steps, 1))
    parts = {"prompt": problem.text, "reference": reference, "steps": shown}
    text = re.sub(r"\{(\w+)\}", lambda found: parts.get(found[1], found[0]), PROMPT)
    # Policies distinguish prompts by the problem's id.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Propose(Problem(f"{problem.id} repaired {digest}", text), (), key.fold("repaired", problem.id, digest))


def _read(answer: str, trajectory: Trajectory) -> tuple[int, Step] | None:
    """The 0-based step and the new one that an answer states last; None where it names no action, says nothing new, or
    gives the answer away that the old step did not have."""
    _, thought, said = answer.rpartition("</think>")
    found = _ANSWER.findall(said if thought or "<think>" not in answer else "")
    if not found:
        return None
    at, text = int(found[-1][0]) - 1, found[-1][1].strip()
    if not 0 <= at < len(trajectory) or trajectory.steps[at].kind != "action":
        return None
    old, reference = trajectory.steps[at], trajectory.problem.reference
    plain = old.text.strip()
    leaks = reference is not None and _states(text, str(reference)) and not _states(plain, str(reference))
    if not text or " ".join(text.split()) == " ".join(plain.split()) or (leaks and at < len(trajectory) - 1):
        return None
    before, _, after = old.text.partition(plain)
    return at, Step(f"{before}{text}{after}", role=old.role, agent=old.agent, meta={"repaired": True})


def _states(text: str, answer: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(answer.strip())}(?![\w]|\.\d)", text) is not None
