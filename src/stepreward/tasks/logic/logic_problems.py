"""Logic problems with exact truth: facts, a hypothesis, and whether the facts prove it, disprove it or leave it open.

A proof is built backwards from its end by rules of inference; its leaves are the facts. Without one of them the
hypothesis is open. Facts about partly the same symbols are added that lead nowhere, and every problem is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from stepreward.core.catalog import generate
from stepreward.core.keys import Key
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, Flag
from stepreward.tasks.logic.consequence import follows_from
from stepreward.tasks.logic.formulas import Formula, negated, written
from stepreward.tasks.logic.proofs import ANSWERS

REQUEST = """Do the facts prove the hypothesis, disprove it, or leave it unknown? Write one derivation a line, such as
`fact1 & fact2 -> int1: Q`, from facts and earlier lines; the line that reaches the hypothesis ends in `-> hypothesis`.
End with: The final answer is PROVED, DISPROVED or UNKNOWN."""
_ATTEMPTS = 200
_LETTERS = tuple("ABCDEFGHJKLMNPQRSTUVWXYZ")
_THINGS = ("ann", "bob", "cid")


@dataclass
class _Proof:
    """A proof that grows backwards."""

    rng: np.random.Generator
    facts: list[Formula] = field(default_factory=list)
    lines: list[tuple[list[Formula], Formula]] = field(default_factory=list)
    """Premises and conclusion of each line, in the order of the proof."""
    used: int = 0
    """Letters and predicates taken so far."""

    def pick(self, n: int) -> int:
        return int(self.rng.integers(n))

    def fresh(self) -> Formula:
        """A new letter, or a new predicate of a thing."""
        name = self.name()
        return ("atom", name) if self.pick(3) else ("atom", name, _THINGS[self.pick(len(_THINGS))])

    def name(self) -> str:
        self.used += 1
        at = self.used - 1
        return _LETTERS[at % len(_LETTERS)] + (str(at // len(_LETTERS)) if at >= len(_LETTERS) else "")

    def literal(self) -> Formula:
        made = self.fresh()
        return made if self.pick(4) else ("~", made)

    def prove(self, goal: Formula, depth: int) -> None:
        """Adds lines and facts that prove a formula; the first premise of each line is proved further down."""
        if depth < 1:
            self.facts.append(goal)
            return
        premises = self.rule(goal)
        deeper = self.pick(len(premises))
        for at, one in enumerate(premises):
            self.prove(one, depth - 1 if at == deeper else min(depth - 1, self.pick(2)))
        self.lines.append((premises, goal))

    def rule(self, goal: Formula) -> list[Formula]:
        """Premises from which a formula follows by one rule of inference."""
        kind, other = goal[0], self.literal()
        rules: list[list[Formula]] = [
            [other, ("->", other, goal)],
            [("&", goal, other)],
            [("|", other, goal), negated(other)],
        ]
        if kind == "~":
            rules += [[("->", goal[1], other), negated(other)]] * 2
        elif kind == "&":
            rules += [[goal[1], goal[2]]] * 3
        elif kind == "|":
            rules += [[goal[1]]] * 3
        elif kind == "->":
            rules += [[("->", goal[1], other), ("->", other, goal[2])]] * 2
            rules += [[("->", negated(goal[2]), negated(goal[1]))]] * 2
        elif kind == "atom" and len(goal) == 3:
            name, thing = goal[1], goal[2]
            more = self.name()
            rules += [
                [("all", "x", ("->", ("atom", more, "x"), ("atom", name, "x"))), ("atom", more, thing)],
                [("all", "x", ("atom", name, "x"))],
            ]
        return rules[self.pick(len(rules))]


@generate.method(
    "logic",
    note="ours; the kind of problems that FoVer labels, which takes those of FLDx2",
)
def logic_problems(
    key: Key, *, depth: Count = 2, distractors: Annotated[int, Flag(low=0)] = 2, unknown: float = 1 / 3
) -> Iterator[Problem]:
    """Makes logic problems whose answer is PROVED, DISPROVED or UNKNOWN, each with a gold proof.

    Their facts do not contradict each other, and each that the proof uses is needed. Solutions are graded by the grader
    `logic`, and their lines checked by the checker `logic`.

    Args:
        key: randomness.
        depth: lines of the longest chain of the proof.
        distractors: facts that the proof does not use.
        unknown: share of problems that the facts leave open; the others are proved or disproved, equally often.

    Raises:
        ModelError: a problem has many symbols, and Z3 is not installed.
        ValueError: `unknown` is no share.
    """
    if not 0 <= unknown <= 1:
        raise ValueError(f"unknown must be a share in [0, 1], got {unknown}")
    number = 0
    while True:
        rng = key.fold("logic", number).rng()
        draw = float(rng.random())
        answer = ANSWERS[2] if draw < unknown else ANSWERS[int(rng.integers(2))]
        made = (_attempt(rng, answer, depth, distractors, f"logic-{key.bits:016x}-{number}") for _ in range(_ATTEMPTS))
        found = next((one for one in made if one is not None), None)
        if found is None:
            raise ValueError(f"no problem found with depth={depth} and distractors={distractors}: take smaller ones")
        yield found
        number += 1


def _attempt(rng: np.random.Generator, answer: str, depth: int, distractors: int, name: str) -> Problem | None:
    """A problem with that answer, or None where what was drawn has another."""
    proof = _Proof(rng)
    goal = _goal(proof)
    proof.prove(goal, depth)
    facts = list(dict.fromkeys(proof.facts))
    # Both ways of being open: neither a proof nor a disproof is left.
    hypothesis = negated(goal) if answer == "DISPROVED" or (answer == "UNKNOWN" and proof.pick(2)) else goal
    # A proof that comes back to what it has derived goes in a circle.
    if len({conclusion for _, conclusion in proof.lines}) < len(proof.lines) or not _needed(facts, goal):
        return None
    if answer == "UNKNOWN":
        del facts[proof.pick(len(facts))]
    for _ in range(distractors):
        facts.append(_distractor(proof, facts))
    facts = [facts[at] for at in rng.permutation(len(facts))]
    if len(set(facts)) < len(facts) or hypothesis in facts or not facts or status(facts, hypothesis) != answer:
        return None
    named = {f"fact{at}": written(one) for at, one in enumerate(facts, 1)}
    lines = [] if answer == "UNKNOWN" else _proof_text(proof, facts, goal, hypothesis)
    meta = {"facts": named, "hypothesis": written(hypothesis), "proof": [*lines, f"The final answer is {answer}"]}
    said = "\n".join(f"{key}: {text}" for key, text in [*named.items(), ("hypothesis", meta["hypothesis"])])
    return Problem(name, f"{said}\n\n{REQUEST}", answer, meta)


def _goal(proof: _Proof) -> Formula:
    kind = proof.pick(4)
    if kind < 2:
        return proof.literal()
    return ("&", "|", "->")[proof.pick(3)], proof.literal(), proof.literal()


def _needed(facts: list[Formula], goal: Formula) -> bool:
    """Whether the facts prove a formula, do not contradict each other, and prove it no longer without any of them."""
    if follows_from(facts, goal) != "yes":
        return False
    return all(follows_from([*facts[:at], *facts[at + 1 :]], goal) == "no" for at in range(len(facts)))


def _distractor(proof: _Proof, facts: list[Formula]) -> Formula:
    """A fact with a new symbol, and with a part of another fact where there is one."""
    shared = facts[proof.pick(len(facts))] if facts else proof.literal()
    part = shared[1] if shared[0] in ("&", "|", "->") else shared
    one, other = (part, proof.literal()) if proof.pick(2) else (proof.literal(), part)
    return ("->", "|")[proof.pick(2)], one, other


def status(facts: list[Formula], hypothesis: Formula) -> str:
    """PROVED, DISPROVED or UNKNOWN; "" where the facts contradict each other, or it cannot be told."""
    said = follows_from(facts, hypothesis), follows_from(facts, ("~", hypothesis))
    return {("yes", "no"): "PROVED", ("no", "yes"): "DISPROVED", ("no", "no"): "UNKNOWN"}.get(said, "")


def _proof_text(proof: _Proof, facts: list[Formula], goal: Formula, hypothesis: Formula) -> list[str]:
    """The lines of the proof, each named by its conclusion; only the last may be the hypothesis."""
    names = {fact: f"fact{at}" for at, fact in enumerate(facts, 1)}
    lines, count = [], 0
    for premises, conclusion in proof.lines:
        if conclusion in names:
            continue
        if conclusion == goal == hypothesis:
            names[conclusion], said = "hypothesis", "hypothesis"
        else:
            count += 1
            names[conclusion] = f"int{count}"
            said = f"int{count}: {written(conclusion)}"
        lines.append(f"{' & '.join(dict.fromkeys(names[one] for one in premises))} -> {said}")
    return lines
