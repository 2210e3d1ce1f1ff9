"""Groups of rollouts that are trees: flows that sample solutions of one problem with shared beginnings.

A shape says where solutions part. `Forks` samples whole solutions, then forks them at tokens that the policy was unsure
of or at steps drawn at random, as TreeRL (arXiv:2506.11902, EPTree) and Tree-GRPO (arXiv:2509.21240) do; `Levels` goes
step by step, each open prefix into several, as PORTool (arXiv:2510.26020) and TreePS-RAG (arXiv:2601.06922) do. What is
shared is generated once. In an environment steps are turns, and episodes are forked (`core.runtime.acting`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Annotated, Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation, Flow, Propose
from stepreward.core.segment.merging import joined
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Flag

Where = Literal["uncertain", "random"]
"""Places of forks in a tree: those of least log-probability of what was sampled, or any, drawn at random."""
Unit = Literal["token", "step"]
"""Forks may part steps, or lie between them."""
Decode = Callable[[Sequence[int]], str]
"""The text of tokens."""


@dataclass
class TreeSolution:
    """A solution of a tree, or the beginning of one."""

    steps: tuple[Step, ...]
    root: int
    """Its tree."""
    finished: bool = False
    """The policy, or the environment, ended it."""
    ended: bool = False
    """Nothing comes behind it: it is finished, or a limit cut it."""
    start: int = 0
    """Tokens of the policy that it shares with the solution it was forked from."""
    parent: TreeSolution | None = None
    """What it was forked from."""
    forks: set[int] = field(default_factory=set)
    """Where others were forked from it: tokens of the policy before each place."""

    @property
    def actions(self) -> list[Step]:
        """Steps that the policy wrote."""
        return [step for step in self.steps if step.kind == "action"]

    @property
    def ends(self) -> list[int]:
        """Tokens of the policy up to the end of each of its steps."""
        return [*accumulate(len(_tokens(step)) for step in self.actions)]

    @property
    def tokens(self) -> int:
        """Tokens of the policy in its steps."""
        return sum(len(_tokens(step)) for step in self.actions)

    @property
    def cuts(self) -> set[int]:
        """Tokens of the policy before each place on its path where solutions part."""
        above = {at for at in self.parent.cuts if at <= self.start} if self.parent else set()
        return {at for at in above | self.forks | {self.start} if at}


@dataclass(frozen=True)
class Forks:
    """Whole solutions, forked in rounds: `roots (1 + rounds points width)` of them.

    In each round `points` places of each tree are forked, and `width` solutions are sampled on from each.
    """

    roots: Annotated[int, Flag(low=0)] = 0
    """M: solutions sampled from the bare problem, each of which begins a tree. 0: as many as fill the group."""
    rounds: Annotated[int, Flag(low=0)] = 1
    """L: times that places are chosen; later rounds see the solutions of the earlier ones. 0: nothing is forked."""
    points: Annotated[int, Flag(low=1)] = 1
    """N: places of each tree that are forked in a round."""
    width: Annotated[int, Flag(low=1)] = 1
    """T: solutions sampled from each place."""
    where: Where = "uncertain"
    unit: Unit = "token"

    def trees(self, n: int) -> int:
        """Trees of a group of `n` solutions.

        Raises:
            InputError: trees of this shape do not have `n` solutions together.
        """
        each = 1 + self.rounds * self.points * self.width
        roots = self.roots or n // each
        if roots * each != n or not roots:
            what = f"a tree has 1 + rounds x points x width = {each} solutions, {self.roots or 'any number of'} roots"
            raise InputError(f"{what}, and a group of {n} is wanted", remedy="choose num_generations, or roots, to fit")
        return roots

    def flow(self, problem: Problem, key: Key, n: int, most: int, decode: Decode) -> Flow[list[TreeSolution]]:
        """`n` solutions of a problem.

        Args:
            problem: what to solve.
            key: randomness; the first solutions are those that `Propose` with this key samples.
            n: of the group.
            most: tokens of a solution.
            decode: text of tokens, of which parted steps are made.
        """
        (answers,) = yield [Propose(problem, (), key, n=self.trees(n), max_tokens=most)]
        made = [_grown(TreeSolution((), root), one) for root, one in enumerate(answers)]
        for number in range(self.rounds):
            places = [place for root in range(self.trees(n)) for place in self._places(made, root, key, number)]
            answers = yield [
                Propose(
                    problem, _until(branch.steps, at, decode), key.fold("fork", number, i), n=self.width,
                    max_tokens=most - at,
                )
                for i, (branch, at) in enumerate(places)
            ]  # fmt: skip
            for (branch, at), some in zip(places, answers, strict=True):
                branch.forks.add(at)
                made += [_forked(branch, at, one, decode) for one in some]
        return made

    def _places(self, made: Sequence[TreeSolution], root: int, key: Key, number: int) -> list[tuple[TreeSolution, int]]:
        """The places of a tree that are forked in a round; the bare problem's where it has no other."""
        mine = [branch for branch in made if branch.root == root]
        found = [place for branch in mine for place in self._candidates(branch)] or [(0.0, mine[0], 0)]
        if self.where == "random":
            order = key.fold("places", number, root).rng().permutation(len(found)).tolist()
        else:
            # The sort is stable: of equals the first one sampled.
            order = sorted(range(len(found)), key=lambda i: found[i][0])
        # A tree with fewer places forks some of them again.
        return [found[order[i % len(order)]][1:] for i in range(self.points)]

    def _candidates(self, branch: TreeSolution) -> Iterator[tuple[float, TreeSolution, int]]:
        """What the policy said of what it sampled at each place that is the branch's own, and the place.

        Between steps these are the ends of all but the last, as a leaf is no node that is expanded. At tokens they are
        the places before each: another token is sampled there.
        """
        unsure = self.where == "uncertain"
        said = [_logprobs(one) if unsure else (0.0,) * len(_tokens(one)) for one in branch.actions]
        if self.unit == "token":
            flat = [one for step in said for one in step]
            yield from ((flat[at], branch, at) for at in range(branch.start, len(flat)))
            return
        # A place is as uncertain as the mean of what follows it: the step that another one would replace.
        inner = ((k, at) for k, at in enumerate(branch.ends[:-1]) if at > branch.start)
        yield from ((float(np.mean(said[k + 1] or (0.0,))), branch, at) for k, at in inner)


@dataclass(frozen=True)
class Levels:
    """Step by step: each open prefix is continued by up to `width` steps, so that the group has as many as wanted.

    At each depth as many next steps are sampled as solutions are still missing, spread over the open prefixes, and at
    most `width` behind each. Where all have ended too early, the rest grows from the bare problem again.
    """

    width: Annotated[int, Flag(low=1)] = 2
    """f: most next steps behind a prefix."""
    roots: Annotated[int, Flag(low=1)] = 1
    """Prefixes at the beginning, all of them the bare problem: each begins a tree."""

    unit: Unit = field(default="step", init=False)

    def flow(self, problem: Problem, key: Key, n: int, most: int, decode: Decode) -> Flow[list[TreeSolution]]:
        """`n` solutions of a problem, as `Forks.flow`."""
        done: list[TreeSolution] = []
        open_: list[TreeSolution] = []
        depth = 0
        while len(done) < n:
            # What ends counts as sampled, so the open ones never outnumber what is missing.
            open_ = open_ or [TreeSolution((), root) for root in range(min(self.roots, n - len(done)))]
            counts = self._counts(len(open_), n - len(done), key.fold("spread", depth))
            answers = yield [
                Propose(
                    problem, one.steps, key.fold("level", depth, i), n=count, until="step", max_tokens=most - one.tokens
                )
                for i, (one, count) in enumerate(zip(open_, counts, strict=True))
            ]  # fmt: skip
            grown = [
                _grown(TreeSolution(one.steps, one.root, start=one.tokens), answer)
                for one, some in zip(open_, answers, strict=True)
                for answer in some
            ]
            done += [one for one in grown if one.ended or one.tokens >= most]
            open_ = [one for one in grown if not one.ended and one.tokens < most]
            depth += 1
        return done

    def _counts(self, open_: int, missing: int, key: Key) -> list[int]:
        """Next steps behind each open prefix: as even as can be, who gets more is drawn at random."""
        least, more = divmod(missing, open_)
        extra = key.rng().permutation(open_) < more
        return [min(self.width, least + int(one)) for one in extra]


Shape = Forks | Levels


@dataclass(frozen=True)
class TreeRecipe:
    """How a paper samples trees. Its credit is the method of the same name, which states what is unverified of it."""

    shape: Shape
    note: str
    """Deviations from the paper, and of the paper from its code."""


RECIPES: Mapping[str, TreeRecipe] = {
    "treerl": TreeRecipe(
        Forks(points=3, where="uncertain", unit="token"),
        "EPTree's M, N, L, T are roots, points, rounds, width; these sizes are ours. As in the released code a fork "
        "stands before the token of least log-probability, and a later round may choose it again; the code excludes "
        "what follows the words answer and conclusion, and trains on a selection of leaves: neither is here",
    ),
    "tree-grpo": TreeRecipe(
        Forks(points=3, where="random", unit="step"),
        "a node is a whole turn of an agent, or a step where there is no environment; a leaf is not expanded; these "
        "sizes are ours",
    ),
    "vineppo": TreeRecipe(
        Forks(rounds=0, unit="step"),
        "solutions are independent; rollouts from each of their prefixes only value it, and are not trained on",
    ),
    "fork-and-trajectory": TreeRecipe(
        Levels(width=2),
        "next steps are sampled only as far as they are kept, which the paper chooses from all forks",
    ),
    "node-differences": TreeRecipe(Levels(width=2), "siblings are not pruned for being similar"),
}
"""By the name of their credit. Which credit goes with which shape is free: name another shape, or another credit."""


def _grown(branch: TreeSolution, answer: Continuation) -> TreeSolution:
    """A branch with what a policy wrote behind it."""
    branch.steps = (*branch.steps, *answer.steps)
    # Who neither ends nor says anything would be asked for ever.
    branch.finished, branch.ended = answer.finished, answer.finished or answer.truncated or not answer.steps
    return branch


def _forked(branch: TreeSolution, at: int, answer: Continuation, decode: Decode) -> TreeSolution:
    """A solution that parts from a branch behind `at` tokens of the policy; a step that is parted is whole again."""
    prefix = _until(branch.steps, at, decode)
    made = _grown(TreeSolution(prefix, branch.root, start=at, parent=branch), answer)
    parted = at not in (0, *branch.ends)
    if parted and answer.steps:
        both = joined(made.steps[len(prefix) - 1 : len(prefix) + 1])
        whole = replace(both, text=decode(_tokens(both)))
        made.steps = (*prefix[:-1], whole, *answer.steps[1:])
    return made


def _until(steps: Sequence[Step], at: int, decode: Decode) -> tuple[Step, ...]:
    """The steps up to a number of the policy's tokens; the last one is parted where the place is within it."""
    made: list[Step] = []
    for step in steps:
        if at == 0:
            break
        if step.kind == "action":
            tokens = _tokens(step)[:at]
            at -= len(tokens)
            if len(tokens) < len(_tokens(step)):
                said = None if step.logprobs is None else step.logprobs[: len(tokens)]
                step = replace(step, text=decode(tokens), tokens=tokens, logprobs=said)
        made.append(step)
    return tuple(made)


def _tokens(step: Step) -> tuple[int, ...]:
    if step.tokens is None:
        raise InputError("the policy reports no tokens", remedy="sample trees with a local model, which has them")
    return step.tokens


def _logprobs(step: Step) -> tuple[float, ...]:
    tokens = _tokens(step)
    if step.logprobs is None or len(step.logprobs) != len(tokens):
        what = "the policy reports no log-probabilities of its tokens, which say where it is uncertain"
        raise InputError(what, remedy="take where='random', or a policy that reports them")
    return step.logprobs
