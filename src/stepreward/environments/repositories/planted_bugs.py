"""Bugs by kind: every place of a function where one can be planted, as the line before and after."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

Bug = Literal["comparison", "operator", "number", "condition", "name"]
BUGS: tuple[Bug, ...] = get_args(Bug)
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv,
}  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """A place in a function, and what stands there wrongly."""

    kind: Bug
    line: int
    """0-based, within the function's source."""
    wrong: str
    """The line with the bug."""


def bugs_of(source: str) -> list[Planted]:
    """Every bug that can be planted in a function, each of which changes one line.

    Args:
        source: of one function.
    """
    lines, made = source.splitlines(), []
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    local = {arg.arg for arg in function.args.args} | {
        node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    for statement in function.body[1:]:
        for node in ast.walk(statement):
            if isinstance(node, ast.expr):
                for kind, other in _changed(node, local):
                    assert node.end_col_offset is not None
                    line = lines[node.lineno - 1]
                    wrong = f"{line[: node.col_offset]}{other}{line[node.end_col_offset :]}"
                    made.append(Planted(kind, node.lineno - 1, wrong))
    return made


def _changed(node: ast.expr, local: set[str]) -> Iterator[tuple[Bug, str]]:
    """What may stand wrongly in the place of an expression, and of which kind that is."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        ops = [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
        yield "comparison", ast.unparse(ast.Compare(node.left, ops, node.comparators))
        if len(node.ops) == 1:
            yield "condition", f"not {ast.unparse(node)}"
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        written = ast.unparse(ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right))
        yield "operator", f"({written})"
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "number", str(node.value + 1)
    if isinstance(node, ast.Name) and node.id in local and isinstance(node.ctx, ast.Load):
        yield "name", f"{node.id}_"
