"""Labels of the lines of right programs, and of lines that a small change made wrong: no policy is needed."""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.program_text import program_in
from stepreward.core.runtime.flows import Flow, Grade
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.core.vocabulary import Count

Passing = Literal["unknown", "right"]
"""The label of a changed line whose program still passes: it may be another right one, or the tests may be weak."""
_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mod,),
    ast.Mod: (ast.FloorDiv,), ast.And: (ast.Or,), ast.Or: (ast.And,), ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE), ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip


class Change(NamedTuple):
    """Another text for a part of a program."""

    start: int
    end: int
    """Places of the characters that are replaced."""
    text: str


@estimate.method(
    "mutations",
    paper="arXiv:2502.01715",
    equation="its summary: a changed line is wrong if the tests then fail",
    note="changes by rule (operators, numbers, arguments, dropped statements) where a teacher model rewrites lines; "
    "what passes is unknown unless `passing` says right",
    asks=("grader",),
    transform="hard",
)
def program_mutations(
    trajectory: Trajectory, key: Key, *, n: Count = 8, passing: Passing = "unknown"
) -> Flow[StepTree]:
    """Changes a right program in one place at a time, and asks the grader which changes the tests notice.

    Steps of the program are right. A changed step is wrong if the program fails with it; what follows it is not
    labelled, since it may be right by itself. No policy is asked.

    Args:
        trajectory: a program, a step or more of it a line; one whose outcome is not above 1/2 gets no label.
        key: randomness of the changes.
        n: most changed programs.
        passing: the label of a changed step with which the program passes.

    Returns:
        The tree of the program and its changed copies, with columns value, n_rollouts and n_correct: how often a step
        was tried, and passed.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded.
    """
    problem, steps = trajectory.problem, trajectory.steps
    if not steps or (trajectory.terminal and np.isnan(trajectory.outcome)):
        what = f"a solution of problem {problem.id!r} has no step, or no outcome"
        raise InputError(what, remedy="grade it first, or drop it")
    made: list[tuple[int, Trajectory]] = []
    if trajectory.outcome > 0.5:
        changed = [*changed_steps(problem, steps)]
        text = hashlib.blake2b(trajectory.text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        order = key.fold("mutations", problem.id, text).rng().permutation(len(changed))[:n]
        drawn = [changed[i] for i in order.tolist()]
        grades = yield [Grade(problem, others) for _, others in drawn]
        made = [
            (at, Trajectory(problem, others, float(grade))) for (at, others), grade in zip(drawn, grades, strict=True)
        ]
    tree = StepTree.from_trajectories([replace(trajectory, columns={}), *(one for _, one in made)], problem)
    value, tried, passed = np.full(tree.n, np.nan), np.zeros(tree.n), np.zeros(tree.n)
    if trajectory.outcome > 0.5:
        value[tree.paths[0][: len(steps)]] = 1.0
    for path, (at, one) in zip(tree.paths[1:], made, strict=True):
        if np.isnan(one.outcome):
            continue
        node, right = path[at], one.outcome > 0.5
        tried[node], passed[node] = 1, float(right)
        value[node] = 0.0 if not right else 1.0 if passing == "right" else np.nan
    return replace(tree, columns={"value": value, "n_rollouts": tried, "n_correct": passed})


def changed_steps(problem: Problem, steps: Sequence[Step]) -> Iterator[tuple[int, tuple[Step, ...]]]:
    """Yields which step is changed, and the steps of the program with the change; each program once.

    Nothing is yielded for text that is no program of Python, for steps of several speakers, and of changes that reach
    over the end of a step.
    """
    if any(step.kind != "action" for step in steps):
        return
    text = "".join(step.text for step in steps)
    before, start, end = program_in(problem, text)
    ends = np.cumsum([len(step.text) for step in steps])
    seen: set[tuple[int, str]] = set()
    for change in changes(before + text[start:end]):
        # Places in the program are places in the solution, less what the prompt has.
        first, last = (place - len(before) + start for place in (change.start, change.end))
        at = int(np.searchsorted(ends, first, side="right"))
        if first < start or last > ends[at]:
            continue
        begun = int(ends[at]) - len(steps[at].text)
        other = steps[at].text[: first - begun] + change.text + steps[at].text[last - begun :]
        if (at, other) not in seen:
            seen.add((at, other))
            yield at, (*steps[:at], Step(other), *steps[at + 1 :])


def changes(code: str) -> Iterator[Change]:
    """Yields small changes of a program, in the order of its text; none where it is no Python."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    if "\r" in code.replace("\r\n", ""):  # Python ends a line there, too.
        return
    lines = code.split("\n")
    starts = np.concatenate([[0], np.cumsum([len(line) + 1 for line in lines])]).tolist()
    # Before Python 3.12 the places of what is in an f-string are wrong.
    quoted = {inner for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for inner in ast.walk(node)}

    def place(line: int, column: int) -> int:
        # Columns are counted in bytes.
        return int(starts[line - 1]) + len(lines[line - 1].encode()[:column].decode())

    found = [
        Change(place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset), ast.unparse(other))
        for node in ast.walk(tree)
        if isinstance(node, ast.expr | ast.stmt) and node not in quoted
        for other in _others(node)
        if node.end_lineno is not None and node.end_col_offset is not None
    ]
    yield from sorted(found)


def _others(node: ast.AST) -> Iterator[ast.AST]:
    """Yields what a node could be instead."""
    if isinstance(node, ast.BinOp | ast.BoolOp):
        for kind in _OPERATORS.get(type(node.op), ()):
            yield _with(node, op=kind())
    elif isinstance(node, ast.Compare):
        for kind in _OPERATORS.get(type(node.ops[0]), ()):
            yield _with(node, ops=[kind(), *node.ops[1:]])
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Call) and len(node.args) > 1:
        yield _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None))


def _with(node: ast.AST, **fields: object) -> ast.AST:
    made = copy.copy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made
