"""The checks for authors: what the package brings passes them, and each rule catches one object that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stepreward.core.catalog import Family, families
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.method import Method
from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.expert import WithExpert
from stepreward.policies.local import LocalPolicy
from stepreward.policies.model_sources import resolve
from stepreward.score.baselines import WITHOUT_MODEL
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.search.beams.beam import beam_search
from stepreward.tasks.graders import graders
from stepreward.testing import (
    ContractError,
    EnumerableWorld,
    ScriptedPolicy,
    TabularPolicy,
    check_grader,
    check_method,
    check_policy,
    check_scorer,
)

WORLD = EnumerableWorld(3, 3, seed=1)
(PROBLEM,) = WORLD.problems(1)
CHECKED = ("segment", "aggregate", "select", "calibrate", "loss", "credit", "shape", "search")
BATCH_WIDE = {
    "reinforce++", "reinforce++-baseline", "lite-ppo", "gdpo", "ppo", "empg", "duration-aware", "batch-normal",
    "istar-rloo", "router-r1",
}  # fmt: skip


@pytest.mark.parametrize("family", CHECKED)
def test_every_method_of_the_package_passes(family: str) -> None:
    for method in families[family]:
        check_method(method, batch_wide=method.name in BATCH_WIDE)


def test_policies_of_the_package_pass() -> None:
    tabular = TabularPolicy(WORLD.next_steps)
    check_policy(tabular, PROBLEM)
    check_policy(WithExpert(tabular, TabularPolicy(WORLD.next_steps, "other")), PROBLEM)
    check_policy(ScriptedPolicy({"": ["a\nb\nc\n", "c\n"], "a\n": ["b\n"], "a\nb\n": ["c\n"]}), keyed=False)
    check_policy(LocalPolicy.load("builtin:arithmetic", max_tokens=8), n=2)


@pytest.mark.parametrize("name", WITHOUT_MODEL)
def test_scorers_without_a_model_pass(name: str) -> None:
    check_scorer(WITHOUT_MODEL[name]())


def test_a_reward_model_passes() -> None:
    check_scorer(DiscriminativeScorer(StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord())))


@pytest.mark.parametrize("name", ["mathematics", "arithmetic"])
def test_graders_of_the_package_pass(name: str) -> None:
    check_grader(graders[name]())


def test_an_enumerable_world_is_a_grader() -> None:
    paths = [tuple(Step(f"{i}\n") for i in (a, b, c)) for a in range(3) for b in range(3) for c in range(3)]
    check_grader(WORLD, [Trajectory(PROBLEM, path) for path in paths])


class Own:
    """Writes one to three digits, a step each, drawn by key. A subclass breaks one rule."""

    name: Any = "own"
    batch_size: Any = 8
    concurrency: Any = 1

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[self.one(question, key) for key in self.keys(question)] for question in questions]

    def keys(self, question: Propose) -> list[Key]:
        return question.sample_keys()

    def one(self, question: Propose, key: Key) -> Continuation:
        digits = key.rng().integers(0, 10, 6 - len(question.prefix))
        allowed = len(digits) if question.max_tokens is None else min(len(digits), question.max_tokens)
        allowed = min(allowed, 1) if question.until == "step" else allowed
        steps = tuple(Step(f"{digit}\n") for digit in digits[:allowed])
        return self.made(question, steps, len(digits))

    def made(self, question: Propose, steps: tuple[Step, ...], whole: int) -> Continuation:
        cut = len(steps) < whole and question.until == "end"
        return Continuation(steps, finished=len(steps) == whole, n_tokens=len(steps), truncated=cut)


class Unnamed(Own):
    name = ""


class NoBatch(Own):
    batch_size = 0


class OneForAll(Own):
    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [answer[:1] for answer in super().propose(questions)]


class Texts(Own):
    def made(self, question: Propose, steps: tuple[Step, ...], whole: int) -> Continuation:
        return replace(super().made(question, steps, whole), steps=tuple(step.text for step in steps))  # type: ignore


class Uncounted(Own):
    def made(self, question: Propose, steps: tuple[Step, ...], whole: int) -> Continuation:
        return replace(super().made(question, steps, whole), n_tokens=0)


class NoEnd(Own):
    def made(self, question: Propose, steps: tuple[Step, ...], whole: int) -> Continuation:
        return replace(super().made(question, steps, whole), finished=False)


class AllSteps(Own):
    def one(self, question: Propose, key: Key) -> Continuation:
        return super().one(replace(question, until="end"), key)


class Stuck(Own):
    def made(self, question: Propose, steps: tuple[Step, ...], whole: int) -> Continuation:
        made = super().made(question, steps, whole)
        return Continuation((), False, 0) if question.until == "step" else made


class Certain(Own):
    def made(self, question: Propose, steps: tuple[Step, ...], whole: int) -> Continuation:
        odd = tuple(replace(step, tokens=(1, 2), logprobs=(-1.0,)) for step in steps)
        return super().made(question, odd, whole)


class Counter(Own):
    calls = 0

    def keys(self, question: Propose) -> list[Key]:
        self.calls += 1
        return [key.fold(self.calls) for key in question.sample_keys()]


class Unnumbered(Own):
    """The fault of the example that this package once shipped: `first` is not read."""

    def keys(self, question: Propose) -> list[Key]:
        return [question.key.fold(i) for i in range(question.n)]


class Unkeyed(Own):
    def keys(self, question: Propose) -> list[Key]:
        return [Key.seed(0).fold(question.first + i) for i in range(question.n)]


class Repeats(Own):
    def made(self, question: Propose, steps: tuple[Step, ...], whole: int) -> Continuation:
        made = super().made(question, steps, whole)
        return replace(made, steps=(*question.prefix, *steps)) if question.until == "end" else made


class Neighbours(Own):
    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return super().propose([replace(q, key=q.key.fold(len(questions))) for q in questions])


class Shared(Own):
    """Keeps state between the calls of two threads."""

    concurrency = 4
    inside = 0

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.inside += 1
        key, waited = questions[0].key, 0
        while (
            self.inside == 1 and len(questions) == 1 and questions[0].n in (3, 20) and self.checked and waited < 10**6
        ):
            waited += 1
        crowded = self.inside > 1
        made = super().propose([replace(q, key=key.fold("crowd")) if crowded else q for q in questions])
        self.checked = self.checked or len(questions) == 3
        self.inside -= 1
        return made

    checked = False


class Stripped(Own):
    def made(self, question: Propose, steps: tuple[Step, ...], whole: int) -> Continuation:
        return super().made(question, tuple(replace(step, text=step.text.strip()) for step in steps), whole)


class Endless(Own):
    def one(self, question: Propose, key: Key) -> Continuation:
        return super().one(replace(question, max_tokens=None), key)


class Greedy(Own):
    takes = frozenset({"temperature"})


class Impatient(Own):
    def propose_while(self, wanted: Any, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[Continuation((), False, 0, truncated=True)] * question.n for question in questions]


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Unnamed, "name"), (NoBatch, "batch_size"), (OneForAll, "n continuations a question"),
        (Texts, "answers are continuations"), (Uncounted, "n_tokens"), (NoEnd, "ends"), (AllSteps, "one step"),
        (Stuck, "progress"), (Certain, "logprobs"), (Counter, "repeatable"), (Unnumbered, "parts equal the whole"),
        (Unkeyed, "keys"), (Repeats, "new steps only"), (Neighbours, "batches equal singles"), (Shared, "threads"),
        (Stripped, "lossless steps"), (Endless, "max_tokens"), (Greedy, "takes"), (Impatient, "propose_while"),
    ],
)  # fmt: skip
def test_a_policy_that_breaks_a_rule_is_caught(broken: type[Own], rule: str) -> None:
    check_policy(Own())
    with pytest.raises(ContractError) as caught:
        check_policy(broken())
    assert caught.value.rule == rule
    assert broken.__name__ in str(caught.value)
    assert caught.value.remedy
    assert isinstance(caught.value, AssertionError)


class Lengths:
    """Scores a step by its length. A subclass breaks one rule."""

    name, batch_size = "lengths", 4

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(self.scores(question)) for question in questions]

    def scores(self, question: Score) -> Any:
        return np.array([1 / len(s.text) if s.kind == "action" else np.nan for s in question.steps])


def scorer(**changed: Any) -> Lengths:
    """A scorer with other methods."""
    made: Lengths = type("Broken", (Lengths,), changed)()
    return made


def shuffled(self: Any, questions: Sequence[Score]) -> list[Scored]:
    return Lengths.score_many(self, questions)[::-1]


def only_texts(self: Any, question: Score) -> Any:
    return Lengths.scores(self, question) * isinstance(question.problem.prompt, str)


def forgetful(self: Any, question: Score) -> Any:
    self.calls = getattr(self, "calls", 0) + 1
    return Lengths.scores(self, question) / self.calls


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (scorer(batch_size=0), "batch_size"),
        (scorer(score_many=lambda self, q: []), "one answer a question"),
        (scorer(scores=lambda self, q: [0.5] * len(q.steps)), "float64"),
        (scorer(scores=lambda self, q: np.full(len(q.steps) + 1, 0.5)), "one score a step"),
        (scorer(scores=lambda self, q: np.full(len(q.steps), 0.5)), "observations"),
        (scorer(scores=lambda self, q: Lengths.scores(self, q) * np.inf), "NaN for unscored"),
        (scorer(score_many=lambda self, q: [Scored(self.scores(one), tokens=-1) for one in q]), "tokens"),
        (scorer(scores=forgetful), "repeatable"),
        (scorer(score_many=shuffled), "batches equal singles"),
        (scorer(scores=only_texts), "text is one message"),
    ],
)  # fmt: skip
def test_a_scorer_that_breaks_a_rule_is_caught(broken: Lengths, rule: str) -> None:
    check_scorer(Lengths())
    with pytest.raises(ContractError) as caught:
        check_scorer(broken)
    assert caught.value.rule == rule


class Last:
    """Grades by the last word. A subclass breaks one rule."""

    name = "last"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float("nan") if problem.reference is None else float(self.answer(problem, steps) == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return steps[-1].text.split()[-1].strip("\\boxed{}.") if steps else None


def grader(**changed: Any) -> Last:
    """A grader with other methods."""
    made: Last = type("Broken", (Last,), changed)()
    return made


def by_word(self: Any, problem: Problem, steps: Sequence[Step]) -> float:
    """Grades by another answer than it states."""
    return float("nan") if Last().grade(problem, steps) != 1 else 1.0


def once(self: Any, problem: Problem, steps: Sequence[Step]) -> float:
    self.calls = getattr(self, "calls", 0) + 1
    return Last.grade(self, problem, steps) if self.calls < 15 else 0.0


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (grader(grade=lambda self, p, s: 2.0), "grades"),
        (grader(answer=lambda self, p, s: 17), "answers"),
        (grader(answer=lambda self, p, s: None, grade=lambda self, p, s: float(bool(s))), "answers and grades agree"),
        (grader(answer=lambda self, p, s: "17"), "answers and grades agree"),
        (grader(grade=lambda self, p, s: float(self.answer(p, s) == p.reference)), "nothing is not right"),
        (grader(answer=lambda self, p, s: "<>", grade=by_word), "a right answer equals itself"),
        (grader(grade=once), "repeatable"),
    ],
)  # fmt: skip
def test_a_grader_that_breaks_a_rule_is_caught(broken: Last, rule: str) -> None:
    if rule == "answers and grades agree" and broken.answer(PROBLEM, ()) == "17":
        broken.grade = lambda p, s: Last().grade(p, s)  # type: ignore
    check_grader(Last())
    with pytest.raises(ContractError) as caught:
        check_grader(broken)
    assert caught.value.rule == rule


def test_a_known_outcome_is_held_against_the_grade() -> None:
    problem = Problem("p", "1 + 1?", reference="2")
    with pytest.raises(ContractError, match="known outcomes"):
        check_grader(Last(), [Trajectory(problem, (Step("2"),), outcome=0.0)])


def method(family: str, function: Callable[..., Any], **declared: Any) -> Method[..., Any]:
    """A method that is in no registry."""
    real = families[family]
    alone = Family(real.name, real.signature, real.about, real.unscored, real.asks)
    function.__doc__ = "Breaks one rule."
    alone.method("broken", note="a test", **declared)(function)
    return alone["broken"]


def explodes(logits: Any, labels: Any, mask: Any) -> Any:
    return torch.where(mask & ~labels.isnan(), logits.exp(), 0.0).sum()


def drawn(rewards: Any) -> Any:
    return rewards - rewards.mean()


def scribbles(rewards: Any) -> Any:
    rewards *= 2
    return rewards


def centred(rewards: Any, offsets: Any) -> Any:
    return rewards - np.repeat(np.asarray(rewards)[offsets[:1]], len(rewards))


def beam_search_again(problem: Problem, key: Key) -> Any:
    return (yield from beam_search(problem, key))


def crooked(problem: Problem, key: Key) -> Any:
    found = yield from beam_search(problem, key)
    return replace(found, totals=found.totals[:-1])


def nothing(problem: Problem, key: Key) -> Any:
    found = yield from beam_search(problem, key)
    return replace(found, chosen=-1)


CALLS: list[int] = []


def remembers(problem: Problem, key: Key) -> Any:
    CALLS.append(1)
    return (yield from beam_search(problem, key.fold(len(CALLS))))


class Percent:
    def fit(self, scores: Any, outcome: Any) -> Percent:
        return self

    def predict(self, scores: Any) -> Any:
        return 100 * scores


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (method("segment", lambda text: [Step(line) for line in text.splitlines()]), "lossless steps"),
        (method("segment", lambda text: [Step(line) for line in text.splitlines(keepends=True)]), "no blank step"),
        (method("aggregate", lambda scores, mask: scores.sum(axis=1)), "padding"),
        (method("aggregate", lambda scores, mask: np.where(mask, scores, 0).sum(axis=1)), "NaN for unscored"),
        (method("aggregate", lambda scores, mask: np.where(mask, scores, 0)), "one total a row"),
        (method("select", lambda totals, group: np.nanargmax(totals)), "one row a group"),
        (method("select", lambda totals, group: np.array([0, 1])), "its own group"),
        (method("calibrate", Percent), "probabilities"),
        (method("loss", lambda logits, labels, mask: (logits**2).mean()), "gradient at padding"),
        (method("loss", lambda logits, labels, mask: logits**2), "one number"),
        (method("loss", explodes), "finite"),
        (method("credit", scribbles), "inputs untouched"),
        (method("credit", lambda rewards: np.log(rewards - rewards)), "finite"),
        (method("credit", lambda rewards: rewards[:-1]), "one number a step"),
        (method("credit", drawn), "groups are apart"),
        (method("shape", centred), "order of trajectories"),
        (method("search", crooked, asks=("scorer",)), "one row a candidate"),
        (method("search", nothing, asks=("scorer",)), "a choice"),
        (method("search", beam_search_again), "asks"),
        (method("search", remembers, asks=("scorer",)), "repeatable"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_method_that_breaks_a_rule_is_caught(broken: Method[..., Any], rule: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_method(broken)
    assert caught.value.rule == rule


def test_a_method_that_raises_is_caught_with_its_error() -> None:
    with pytest.raises(ContractError, match=r"valid data.*ZeroDivisionError") as caught:
        check_method(method("credit", lambda rewards: 1 / 0))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_what_has_no_contract_is_refused() -> None:
    with pytest.raises(InputError, match="known: segment"):
        check_method(next(iter(families["bench"])))
    with pytest.raises(InputError, match="registered method"):
        check_method(print)  # type: ignore
