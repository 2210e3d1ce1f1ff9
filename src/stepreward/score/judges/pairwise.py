"""Judges of pairs: which of two solutions is better, by what a policy writes or by a scorer's totals."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepreward.core.catalog import aggregate as aggregates
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Compare, Continuation, Judged, Policy, Propose, Score, Scorer
from stepreward.core.types import Problem, Step
from stepreward.score.encode.recipe_text import filled
from stepreward.score.judges.generative import tokens_of, written

_Steps = tuple[Step, ...]
_Shown = tuple[str, str, str, str]
"""Id and text of a problem, and its two solutions in the order in which they are shown."""
_VERDICT = re.compile(r"\[\[([ABC])\]\]")
_CHANCES = {"A": 1.0, "B": 0.0, "C": 0.5}
PROMPT = """Two solutions of one problem follow. Decide which one is better: first by whether its reasoning and its \
answer are right, then by how clear it is. Neither their order nor their length says anything.

[Problem]
{prompt}

[Solution A]
{first}

[Solution B]
{second}

Compare them briefly. Then end with your verdict alone on a line: [[A]] if solution A is better, [[B]] if solution B \
is better, [[C]] if they are equally good."""
"""The default prompt; its verdicts are those of MT-Bench (arXiv:2306.05685, appendix A)."""


@dataclass(slots=True)
class JudgeUsage:
    """What a judge has done so far."""

    answers: int = 0
    """Written; each pair takes two at least, one for each order."""
    unread: int = 0
    """Of them, those without one clear verdict, which count as ties."""
    swayed: int = 0
    """Pairs whose verdict changed with the order."""
    tokens: int = 0
    """Read and written."""


class PolicyJudge:
    """Compares solutions by the verdicts that a policy writes; a `core.runtime.flows.Judge`.

    Every pair is shown in both orders and the chances are averaged, so that a preference for the first place has no
    effect: a judge that always names the first gives a tie. An answer counts if it names one verdict, `[[A]]`, `[[B]]`
    or `[[C]]` for a tie, behind its thoughts if it has any; another one is a tie. Questions for both orders of a pair
    cost no more than for one if they are in one batch.

    Args:
        policy: writes the verdicts.
        n: answers for each order.
        prompt: template of the question, with `{prompt}`, `{first}` and `{second}` in it.
        temperature: of sampling; None leaves it to the policy.
        key: the randomness of the answers.

    Raises:
        ValueError: `n` is not positive, or the prompt leaves something out.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        n: int = 1,
        prompt: str = PROMPT,
        temperature: float | None = 0.0,
        key: Key | None = None,
    ) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        missing = [part for part in ("{prompt}", "{first}", "{second}") if part not in prompt]
        if missing:
            raise ValueError(f"the prompt of a judge must hold {', '.join(missing)}")
        self.policy, self.n, self.prompt, self.temperature = policy, n, prompt, temperature
        self.key = key or Key.seed(0)
        mark = hashlib.blake2b(repr((prompt, n, temperature, self.key.bits)).encode(), digest_size=4).hexdigest()
        self.name = f"{policy.name} as judge of pairs, {mark}"
        # Both orders of a pair should meet in a batch.
        self.batch_size = 2 * max(1, max(policy.batch_size, policy.concurrency) // (2 * n))
        self.usage = JudgeUsage()

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        """The chance that the first solution of each question is the better one, in order."""
        pairs = [(_as_shown(q.problem, q.first, q.second), _as_shown(q.problem, q.second, q.first)) for q in questions]
        distinct = {shown: q.problem for both, q in zip(pairs, questions, strict=True) for shown in both}
        written = self.policy.propose([self._prompted(problem, shown) for shown, problem in distinct.items()])
        first = {shown: self._chance(answers) for shown, answers in zip(distinct, written, strict=True)}
        # The same place won in both orders: the verdicts contradict each other.
        swayed = {
            min(both) for both in pairs if both[0] != both[1] and (first[both[0]] - 0.5) * (first[both[1]] - 0.5) > 0
        }
        self.usage.swayed += len(swayed)
        cost = {shown: sum(map(tokens_of, answers)) for shown, answers in zip(distinct, written, strict=True)}
        # An order that several questions share is paid by the first of them.
        return [
            Judged((first[one] + 1 - first[other]) / 2, cost.pop(one, 0) + cost.pop(other, 0)) for one, other in pairs
        ]

    def _prompted(self, problem: Problem, shown: _Shown) -> Propose:
        _, prompt, first, second = shown
        text = filled(self.prompt, {"prompt": prompt, "first": first, "second": second})
        # Policies distinguish prompts by the problem's id.
        digest = hashlib.blake2b(repr(shown).encode(), digest_size=8).hexdigest()
        key = self.key.fold("compare", problem.id, digest)
        return Propose(Problem(f"{problem.id} compared {digest}", text), (), key, self.n, temperature=self.temperature)

    def _chance(self, answers: Sequence[Continuation]) -> float:
        """The mean verdict of some answers."""
        read = [verdict(written(answer)) for answer in answers]
        self.usage.answers += len(read)
        self.usage.unread += read.count(None)
        self.usage.tokens += sum(map(tokens_of, answers))
        return float(np.mean([0.5 if one is None else one for one in read]))


class ScorerJudge:
    """Compares solutions by the totals of their step scores; a `core.runtime.flows.Judge`.

    The better total wins for sure, equal ones tie; a solution without a total loses to any that has one.

    Args:
        scorer: scores the solutions; where several threads share it, one that may be shared.
        aggregate: total of a solution's step scores, by name.

    Raises:
        UnknownNameError: there is no such aggregate.
    """

    def __init__(self, scorer: Scorer, *, aggregate: str = "min") -> None:
        self.scorer, self._total = scorer, aggregates[aggregate]
        self.name = f"{aggregate} of {scorer.name} as judge of pairs"
        self.batch_size = scorer.batch_size

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        """1 where the first solution of a question is the better one, 0 where the second is, 1/2 for a tie."""
        pairs = [[Score(q.problem, side) for side in (q.first, q.second)] for q in questions]
        distinct = {_identity(side): side for pair in pairs for side in pair}
        totals, cost, made = {}, {}, []
        for name, one in zip(distinct, self.scorer.score_many([*distinct.values()]), strict=True):
            real = ~np.isnan(one.scores)
            total = self._total.take({"scores": np.where(real, one.scores, 0.0)[None], "mask": real[None]})[0]
            totals[name], cost[name] = -np.inf if np.isnan(total) else float(total), one.tokens
        for pair in pairs:
            names = [_identity(side) for side in pair]
            first, second = (totals[name] for name in names)
            # A solution that several pairs share is paid by the first of them.
            tokens = sum(cost.pop(name, 0) for name in names)
            made.append(Judged(0.5 if first == second else float(first > second), tokens))
        return made


def verdict(text: str) -> float | None:
    """The chance that an answer gives the first solution, behind its thoughts: 1, 0 or 1/2; None for no clear one."""
    found = set(_VERDICT.findall(text.rpartition("</think>")[2]))
    return _CHANCES[found.pop()] if len(found) == 1 else None


def _as_shown(problem: Problem, first: _Steps, second: _Steps) -> _Shown:
    one, other = ("".join(step.text for step in side).strip() for side in (first, second))
    return problem.id, problem.text, one, other


def _identity(side: Score) -> tuple[object, ...]:
    return side.problem.id, side.problem.text, *(step.identity for step in side.steps)
