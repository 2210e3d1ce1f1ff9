"""Wrong lines made of the right lines of a gold proof: a premise changed or left out, a conclusion negated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.step_verdicts import numbers_of, verdicts
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.planted.planted_errors import copies_tree

PREMISE, MISSING, NEGATED, ANSWER = "another premise", "a premise left out", "the conclusion negated", "another answer"
_LINE = re.compile(r"(?P<premises>\w+(?: & \w+)*) -> (?:(?P<name>\w+): (?P<formula>.+)|hypothesis)")
_ANSWER = re.compile(r"The final answer is (PROVED|DISPROVED|UNKNOWN)")
_ANSWERS = ("PROVED", "DISPROVED", "UNKNOWN")


@estimate.method(
    "changed-lines",
    note="ours: planted errors beside gold proofs, where arXiv:2505.15960 takes the errors of models, with its "
    "solver's verdict on each line",
    transform="hard",
)
def changed_lines(problem: Problem, key: Key, *, n: Count = 4, checker: str = "logic") -> Flow[StepTree]:
    """Changes one line of a problem's gold proof at a time, and keeps what a program finds wrong.

    A line gets another premise that is known there, loses one, or states the contrary; the last one says another
    answer. A changed line may still follow: then it is no row.

    Args:
        problem: with its proof, lines of text, and the facts in its meta, as `stepreward generate logic` writes them.
        key: randomness of the changes.
        n: changed copies, at most one of each change.
        checker: of the family check; several with a plus sign.

    Returns:
        The tree of the proof and its copies, each up to its changed line, whose meta has the kind of error, `planted`;
        value 1 at lines that are found right and 0 at changed ones. The proof's fact `planted` says how many changes
        were tried, and of how many nothing confirmed that they are wrong.

    Raises:
        InputError: the problem has no proof.
        UnknownNameError: there is no such checker.
    """
    yield from ()  # a flow that asks nothing
    lines = problem.meta.get("proof")
    if not isinstance(lines, Sequence) or isinstance(lines, str) or not lines:
        what = f"problem {problem.id!r} has no gold proof, a list of lines in its meta"
        raise InputError(what, remedy="take problems of `stepreward generate logic`")
    steps = tuple(Step(f"{line}\n") for line in lines)
    value = numbers_of(verdicts(checker, problem, steps))
    known = [*problem.meta.get("facts", ())]
    every = [(at, *change) for at, step in enumerate(steps) for change in changes(step.text, _names(known, steps[:at]))]
    made, tried = list[tuple[Step, ...]](), 0
    for i in key.fold("changed-lines", problem.id).rng().permutation(len(every)).tolist():
        if len(made) == n:
            break
        at, text, kind = every[i]
        copy = (*steps[:at], Step(text, meta={"planted": kind}))
        tried += 1
        if value[at] == 1 and numbers_of(verdicts(checker, problem, copy))[at] == 0:
            made.append(copy)
    tally = {"planted": {"asked": tried, "unread": 0, "unconfirmed": tried - len(made)}}
    own = Trajectory(problem, steps, 1.0)
    return copies_tree(own, np.asarray(value), [(copy, 0.0, 0, 0) for copy in made], tally)


def changes(line: str, known: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields each changed line with its kind of error.

    Args:
        line: `fact1 & int1 -> int2: Q`, or one that ends in `-> hypothesis`, or the final answer.
        known: names that may stand as premises.
    """
    text, end = line.rstrip("\n"), line[len(line.rstrip("\n")) :]
    if answer := _ANSWER.fullmatch(text):
        for other in _ANSWERS:
            if other != answer[1]:
                yield text.replace(answer[1], other) + end, ANSWER
    elif found := _LINE.fullmatch(text):
        premises, rest = found["premises"].split(" & "), text[found.end("premises") :]
        for i in range(len(premises)):
            for other in known:
                if other not in premises:
                    yield " & ".join((*premises[:i], other, *premises[i + 1 :])) + rest + end, PREMISE
            if len(premises) > 1:
                yield " & ".join((*premises[:i], *premises[i + 1 :])) + rest + end, MISSING
        if found["formula"]:
            yield f"{found['premises']} -> {found['name']}: ~({found['formula']}){end}", NEGATED


def _names(facts: Sequence[str], earlier: Sequence[Step]) -> list[str]:
    derived = (_LINE.fullmatch(step.text.rstrip("\n")) for step in earlier)
    return [*facts, *(found["name"] for found in derived if found and found["name"])]
