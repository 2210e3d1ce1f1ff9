"""Formulas that make a score of what a head says: `success + 1.5 * mean_so_far(correct)`.

The text is parsed into a syntax tree of a few kinds of nodes, which is then evaluated here; nothing of it is run.
"""

from __future__ import annotations

import ast
import keyword
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

SCORE, OUTPUTS = "score", "outputs"
"""Names in every formula: the score without a formula, and all outputs in order, as arguments of a function."""
MOST_CHARACTERS = 20_000
"""Longest formula."""
_MOST_DEPTH = 100

_OPERATORS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: np.divide, ast.Pow: np.power,
}  # fmt: skip
_OF_A_STEP: Mapping[str, Callable[..., Any]] = {
    "min": lambda *x: np.minimum.reduce(np.broadcast_arrays(*x)),
    "max": lambda *x: np.maximum.reduce(np.broadcast_arrays(*x)),
    "mean": lambda *x: np.mean(np.broadcast_arrays(*x), axis=0),
    "median": lambda *x: np.median(np.broadcast_arrays(*x), axis=0),
    "std": lambda *x: np.std(np.broadcast_arrays(*x), axis=0),
    "above": lambda x, least: np.where(np.isnan(x), np.nan, np.asarray(x) > least),
    "log": np.log,
    "exp": np.exp,
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, np.negative(x))),
    "logit": lambda x: np.log(x) - np.log1p(np.negative(x)),
}
"""Functions of numbers of one step. `std` is that of all its arguments; `above(x, t)` is 1 where x > t, else 0."""
_WEIGHTED = "weighted"
"""`weighted(w_1, ..., w_K)`: the sum of w_k times output k."""
_SO_FAR: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "sum_so_far": np.add, "mean_so_far": np.add, "min_so_far": np.minimum, "max_so_far": np.maximum,
}  # fmt: skip
"""Functions of a step and all scored steps before it, folded pair by pair."""
RUNNING = tuple(_SO_FAR)
"""Their names."""
_GAIN = "gain"
"""`gain(x, start)`: x less that of the scored step before; the first step's less `start`."""
FUNCTIONS = (*_OF_A_STEP, _WEIGHTED, *_SO_FAR, _GAIN)
"""Names of all functions."""


@dataclass(frozen=True)
class Formula:
    """A parsed formula: definitions, and the expression that is the score."""

    definitions: tuple[tuple[str, ast.expr], ...]
    """Names and what they mean, in order; each may use those before it."""
    score: ast.expr
    names: tuple[str, ...]
    """Of the outputs, in order."""

    @property
    def definition_texts(self) -> list[str]:
        """The definitions as text."""
        return [f"{name} = {ast.unparse(meaning)}" for name, meaning in self.definitions]

    @property
    def looks_back(self) -> bool:
        """Whether a step's score depends on what the head says of earlier steps."""
        return any(name in self.functions for name in (*_SO_FAR, _GAIN))

    @property
    def functions(self) -> set[str]:
        """Functions that the score depends on."""
        found: set[str] = set()
        wanted, inner = set(), dict(self.definitions)
        todo = [self.score]
        while todo:
            for node in ast.walk(todo.pop()):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    found.add(node.func.id)
                elif isinstance(node, ast.Name) and node.id in inner and node.id not in wanted:
                    wanted.add(node.id)
                    todo.append(inner[node.id])
        return found

    def evaluate(self, parts: Floats, previous: Index | None = None) -> Floats:
        """(Q,) scores of reads.

        Args:
            parts: (Q, 1 + K) the score of each read without a formula, then its outputs.
            previous: (Q,) the read of the scored step before, -1 for none; needed where the formula looks back.

        Raises:
            ValueError: it looks back, and there is no `previous`.
        """
        if self.looks_back and previous is None:
            raise ValueError("this formula reads earlier steps, which are not here: score whole solutions")
        known: dict[str, Any] = {SCORE: parts[:, 0]}
        known |= {name: parts[:, 1 + k] for k, name in enumerate(self.names)}
        run = _Evaluation(known, [parts[:, 1 + k] for k in range(len(self.names))], previous)
        # A logarithm of a negative number is NaN, and so no score; that is not worth a warning a step.
        with np.errstate(all="ignore"):
            for name, meaning in self.definitions:
                known[name] = run.value(meaning)
            made = np.broadcast_to(np.asarray(run.value(self.score), np.float64), (len(parts),))
        return np.array(made)


@dataclass
class _Evaluation:
    known: dict[str, Any]
    outputs: list[Floats]
    previous: Index | None

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return np.float64(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.Name):
            return self.known[node.id]
        if isinstance(node, ast.UnaryOp):
            return -self.value(node.operand)
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](self.value(node.left), self.value(node.right))
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        return self._called(node.func.id, self._arguments(node.args))

    def _arguments(self, nodes: Sequence[ast.expr]) -> list[Any]:
        made: list[Any] = []
        for node in nodes:
            made += self.outputs if _is_outputs(node) else [self.value(node)]
        return made

    def _called(self, name: str, given: list[Any]) -> Any:
        if name in _OF_A_STEP:
            return _OF_A_STEP[name](*given)
        if name == _WEIGHTED:
            return sum(weight * output for weight, output in zip(given, self.outputs, strict=True))
        assert self.previous is not None
        x = np.array(np.broadcast_to(given[0], self.previous.shape), np.float64)
        if name == _GAIN:
            return x - np.where(self.previous >= 0, x[self.previous], given[1])
        return so_far(x, self.previous, name)


def so_far(x: Floats, previous: Index, name: str) -> Floats:
    """(Q,) the sum, mean, least or greatest of each read's number and those of the reads before it on its path."""
    made, count, at = x.copy(), np.ones_like(x), previous.copy()
    while (at >= 0).any():
        here = at >= 0
        made[here] = _SO_FAR[name](made[here], x[at[here]])
        count[here] += 1
        at = np.where(here, previous[at], -1)
    return made / count if name == "mean_so_far" else made


def scored_before(parent: NDArray[np.integer[Any]], scored: NDArray[np.bool_]) -> Index:
    """(n,) the nearest scored node above each node, -1 where there is none.

    Args:
        parent: (n,) parent of each node, -1 at the root.
        scored: (n,) whether a node has a score.
    """
    above = np.asarray(parent, np.int64).copy()
    while (skip := (above >= 0) & ~scored[above]).any():
        above[skip] = parent[above[skip]]
    return above


@lru_cache(maxsize=1024)
def parse(text: str, names: tuple[str, ...]) -> Formula:
    """The formula of a text: `name = expression` any number of times, then the expression that is the score.

    Numbers, names, `+ - * / **`, brackets and the functions in `FUNCTIONS`; parts are separated by `;` or line breaks.

    Args:
        text: the formula.
        names: of the outputs, in order.

    Raises:
        ValueError: it is no formula, or names what is not there.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"a formula has at most {MOST_CHARACTERS} characters, got {len(text)}")
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is no formula: {getattr(error, 'msg', error)}") from error
    known, definitions = {SCORE, *names}, []
    for part in body[:-1]:
        name = part.targets[0] if isinstance(part, ast.Assign) and len(part.targets) == 1 else None
        if not isinstance(part, ast.Assign) or not isinstance(name, ast.Name):
            raise ValueError(f"{ast.unparse(part)!r} must be name = expression: a formula has one score, its last part")
        if name.id in known or not is_name(name.id):
            raise ValueError(f"{name.id!r} has a meaning already: choose another name")
        _check(part.value, known, len(names))
        known.add(name.id)
        definitions.append((name.id, part.value))
    last = body[-1] if body else None
    if not isinstance(last, ast.Expr):
        raise ValueError(f"{text!r} has no score: end it with an expression")
    _check(last.value, known, len(names))
    return Formula(tuple(definitions), last.value, names)


def _check(node: ast.expr, known: set[str], outputs: int, depth: int = 0) -> None:
    """Checks that an expression is made of what a formula may have."""
    if depth > _MOST_DEPTH:
        raise ValueError(f"a formula is nested at most {_MOST_DEPTH} deep")
    number = isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)
    if number or (isinstance(node, ast.Name) and node.id in known):
        return
    if isinstance(node, ast.Name):
        what = f"is an argument of functions: mean({OUTPUTS})" if node.id == OUTPUTS else "is no name here"
        raise ValueError(f"{node.id!r} {what}; names: {', '.join(sorted(known))}")
    inner: list[ast.expr]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        inner = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = [node.operand]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        inner = [one for one in node.args if not _is_outputs(one)]
        _check_call(node.func.id, len(inner) + outputs * (len(node.args) - len(inner)), outputs)
    else:
        raise ValueError(f"{ast.unparse(node)!r} may not be in a formula: numbers, names, + - * / ** and functions may")
    for one in inner:
        _check(one, known, outputs, depth + 1)


def _check_call(name: str, arguments: int, outputs: int) -> None:
    if name not in FUNCTIONS:
        raise ValueError(f"{name!r} is no function of a formula: {', '.join(FUNCTIONS)}")
    many = name in ("min", "max", "mean", "median", "std")
    wanted = outputs if name == _WEIGHTED else 2 if name in (_GAIN, "above") else 1
    if arguments != wanted and not (many and arguments):
        raise ValueError(f"{name} takes {'some' if many else wanted} arguments, got {arguments}")


def is_name(text: str) -> bool:
    """Whether a text may name an output or a definition."""
    return text.isidentifier() and not keyword.iskeyword(text) and text not in (SCORE, OUTPUTS, *FUNCTIONS)


def _is_outputs(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == OUTPUTS
