"""Multi-step arithmetic word problems: any number of them, any number of steps, with exact truth.

A problem is a small graph of quantities: some are given, each other one is an operation on two earlier ones. The text
states the quantities one by one; a solution computes those that the question needs. Train, validation and held-out
problems are disjoint by construction: a hash of the graph decides where it belongs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from stepreward.core.catalog import generate as makers
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step
from stepreward.tasks.wording import CHANGES, COMPARISONS, ITEMS, NAMES, SHARES, TOTALS

Split = Literal["train", "validation", "held_out"]
Operator = Literal["+", "-", "*", "/"]
_BUCKETS: dict[Split, range] = {"held_out": range(10), "validation": range(10, 20), "train": range(20, 100)}


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of the problem: given, or an operation on two earlier quantities."""

    value: int
    operator: Operator | None = None
    left: int = -1
    """Index of the left operand; -1 for a given quantity."""
    right: int = -1


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What makes problems hard."""

    operations: tuple[int, int] = (2, 4)
    """Fewest and most operations of a solution."""
    largest_given: int = 40
    """Largest number in the text for sums and differences."""
    largest_factor: int = 4
    """Largest factor or divisor."""
    largest_value: int = 300
    """Largest intermediate result."""
    people: int = 3
    """Most people in one problem."""


def apply(operator: Operator, left: int, right: int) -> int | None:
    """The exact result of an operation on integers, None where division leaves a remainder or is by zero."""
    if operator == "/":
        return left // right if right and left % right == 0 else None
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def generate(split: Split, n: int, *, seed: int = 0, difficulty: Difficulty | None = None) -> Iterator[Problem]:
    """Yields `n` distinct problems of a split; the same seed gives the same problems.

    `Problem.meta` holds the graph: `quantities` (see `Quantity`) and `target`, the index of the one to compute.

    Raises:
        ValueError: the difficulty admits no problem.
    """
    difficulty = difficulty or Difficulty()
    if difficulty.operations[0] < 1 or difficulty.operations[0] > difficulty.operations[1]:
        raise ValueError(f"operations must be (fewest, most) with 1 <= fewest <= most, got {difficulty.operations}")
    seen: set[str] = set()
    rng = Key.seed(seed).fold("arithmetic", split).rng()
    attempts = 0
    while len(seen) < n:
        attempts += 1
        if attempts > 1000 * n + 100_000:
            raise ValueError(f"no more than {len(seen)} distinct problems found with {difficulty}: widen it")
        draft = _Draft(rng, difficulty)
        name = draft.write()
        # Rejection sampling: a graph belongs to one split, whatever the seed.
        if name is None or bucket(draft.quantities) not in _BUCKETS[split] or name in seen:
            continue
        seen.add(name)
        quantities = [asdict(q) for q in draft.quantities]
        meta = {"quantities": quantities, "target": len(quantities) - 1}
        yield Problem(f"arithmetic-{name}", " ".join(draft.sentences), str(draft.quantities[-1].value), meta)


@makers.method("arithmetic", note="ours: the built-in word problems")
def arithmetic_problems(key: Key, *, split: Split = "train") -> Iterator[Problem]:
    """Makes multi-step word problems of the built-in world; the grader and the checker `arithmetic` know the truth.

    Args:
        key: randomness.
        split: which problems; those of different splits are disjoint, whatever the key.
    """
    return generate(split, 1_000_000, seed=key.bits)


def bucket(quantities: list[Amount]) -> int:
    """0 to 99, a hash of the graph alone: two wordings of one graph share it, so they share the split."""
    digest = hashlib.blake2b(json.dumps([asdict(q) for q in quantities]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 100


def quantities_of(problem: Problem) -> list[Amount]:
    """The graph of a problem.

    Raises:
        ValueError: the problem is not one of this world.
    """
    try:
        return [Amount(**row) for row in problem.meta["quantities"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"problem {problem.id!r} has no graph of quantities in its meta: generate it here") from error


def needed_quantities(quantities: list[Amount]) -> list[int]:
    """Indices, in order, of the quantities that the last one is computed from, and its own."""
    needed = {len(quantities) - 1}
    for i in range(len(quantities) - 1, -1, -1):
        if i in needed and quantities[i].operator is not None:
            needed |= {quantities[i].left, quantities[i].right}
    return sorted(needed)


def solution(problem: Problem) -> tuple[Step, ...]:
    """The reference solution: one equation a line for each quantity the question needs, then the answer."""
    quantities = quantities_of(problem)
    lines = []
    for i in needed_quantities(quantities):
        q = quantities[i]
        if q.operator is not None:
            left, right = quantities[q.left].value, quantities[q.right].value
            lines.append(f"{left} {q.operator} {right} = {q.value}\n")
    return tuple(Step(line) for line in [*lines, f"Answer: {quantities[-1].value}\n"])


class _Draft:
    """A problem as it is written, sentence by sentence: people and their quantities."""

    def __init__(self, rng: np.random.Generator, difficulty: Difficulty) -> None:
        self.rng, self.difficulty = rng, difficulty
        self.quantities: list[Amount] = []
        self.sentences: list[str] = []
        self.item = str(rng.choice(ITEMS))
        self.names = [str(name) for name in rng.permutation(NAMES)[: difficulty.people]]
        self.holds: dict[str, int] = {}
        self.operations = 0

    def write(self) -> str | None:
        """Fills in sentences and quantities; returns the problem's name, or None if a number left its range."""
        fewest, most = self.difficulty.operations
        wanted = int(self.rng.integers(fewest, most + 1))
        first = self.names[0]
        self.holds[first] = self._add_given(2, self.difficulty.largest_given)
        self.sentences.append(f"{first} has {self.quantities[-1].value} {self.item}.")
        current = first
        while self.operations < wanted - 1:
            fresh = [name for name in self.names if name not in self.holds]
            if fresh and self.rng.random() < 0.3:
                current = self._add_person(fresh[0], current)
            else:
                operator = self._draw_operator()
                words = str(self.rng.choice(CHANGES[operator]))
                number = self._add_operand(operator)
                self.holds[current] = self._add_derived(operator, self.holds[current], number)
                self._add_sentence(words, current, number)
            if self.quantities[-1].value < 1 or self.quantities[-1].value > self.difficulty.largest_value:
                return None
        if not self._add_question(current):
            return None
        text = " ".join(self.sentences)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def _add_given(self, low: int, high: int) -> int:
        self.quantities.append(Amount(int(self.rng.integers(low, high + 1))))
        return len(self.quantities) - 1

    def _add_derived(self, operator: Operator, left: int, right: int) -> int:
        value = apply(operator, self.quantities[left].value, self.quantities[right].value)
        self.quantities.append(Amount(-1 if value is None else value, operator, left, right))
        self.operations += 1
        return len(self.quantities) - 1

    def _add_operand(self, operator: Operator) -> int:
        if operator in "*/":
            return self._add_given(2, self.difficulty.largest_factor)
        return self._add_given(1, self.difficulty.largest_given)

    def _add_person(self, name: str, other: str) -> str:
        operator = self._draw_operator()
        words = str(self.rng.choice(COMPARISONS[operator]))
        number = self._add_operand(operator)
        self.holds[name] = self._add_derived(operator, self.holds[other], number)
        self._add_sentence(words, name, number, other)
        return name

    def _draw_operator(self) -> Operator:
        operators: tuple[Operator, ...] = ("+", "-", "*", "/")
        return operators[int(self.rng.choice(4, p=[0.35, 0.35, 0.2, 0.1]))]

    def _add_sentence(self, words: str, name: str, number: int, other: str = "") -> None:
        value = self.quantities[number].value
        self.sentences.append(words.format(name=name, n=value, item=self.item, other=other))

    def _add_question(self, current: str) -> bool:
        """Adds the last operation and the question; False if a number left its range."""
        people = list(self.holds)
        if len(people) > 1 and self.rng.random() < 0.6:
            first, second = (people[-2], people[-1])
            self._add_derived("+", self.holds[first], self.holds[second])
            self.sentences.append(str(self.rng.choice(TOTALS)).format(name=first, other=second, item=self.item))
        else:
            operator: Operator = "/" if self.rng.random() < 0.3 else "-"
            number = self._add_operand(operator)
            self._add_derived(operator, self.holds[current], number)
            words = str(self.rng.choice(SHARES[operator]))
            self._add_sentence(words, current, number)
        return 0 < self.quantities[-1].value <= self.difficulty.largest_value
