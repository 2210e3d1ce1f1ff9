"""A tree of next steps that grows: expansion, the value of what is new, and the trajectories in it at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.keys import Key, uniforms
from stepreward.core.measure.statistics import wilson
from stepreward.core.prefix_names import Name, Prefix, named
from stepreward.core.runtime.flows import Continuation, Flow, Grade, Propose, Score
from stepreward.core.search_tree import SearchTree
from stepreward.core.segment.merging import joined, same_speaker
from stepreward.core.tree import StepTree
from stepreward.core.types import Floats, Problem, Trajectory
from stepreward.label.rollouts import Unfinished, count, prefix_key, rollouts_of
from stepreward.label.trees.readouts import RIGHT

Prior = Literal["share", "uniform", "logprob"]
"""What selection takes for a child's prior: its share of the samples, equal shares, or the exponential of the mean
log-probability of its step's tokens."""


@dataclass
class Place:
    """What a tree keeps for a node."""

    prefix: Prefix
    ended: bool = False
    """Nothing comes after it: the policy ended, or a limit did."""
    finished: bool = False
    """The policy ended."""
    outcome: float = float("nan")
    """Of an end; NaN where not known."""
    samples: int = 1
    """Samples that came out as its last step."""
    n: int = 0
    """Rollouts from it with a known outcome."""
    correct: int = 0
    score: float = float("nan")
    """Of its last step, by the reward model."""

    @property
    def depth(self) -> int:
        """Steps of the policy: what an environment shows between them does not count."""
        return sum(step.kind == "action" for step in self.prefix)


Tree = SearchTree[Place]


class Growing:
    """One problem's tree.

    Args:
        problem: the problem.
        key: randomness; children of a prefix are the same whenever it is expanded.
        width: samples of next steps at each expansion.
        max_steps: length at which a path is cut.
        prior: of selection.
        unfinished: what a path that a limit cut counts as.
        scored: whether new steps are scored when they are sampled.
        first: what a step counts as in selection before a walk comes to it; a negative number takes its own value, 0
            where it has none.
    """

    def __init__(
        self, problem: Problem, key: Key, *, width: int, max_steps: int, prior: Prior, unfinished: Unfinished,
        scored: bool, first: float = -1.0,
    ) -> None:  # fmt: skip
        self.problem, self.key, self.width, self.max_steps, self.prior = problem, key, width, max_steps, prior
        self.unfinished, self.scored, self.first = unfinished, scored, first
        self.tree = Tree(Place(Prefix()), float("nan"))
        self.wholes: list[Trajectory] = []
        """Solutions beside the tree: the rest of samples of which it has the first step."""
        self._draws = 0

    def at(self, node: int) -> Place:
        """What the tree keeps for a node."""
        return self.tree.items[node]

    @property
    def ends(self) -> tuple[int, int]:
        """Distinct right and wrong ends so far."""
        known = [place.outcome > RIGHT for place in self.tree.items if place.ended and not np.isnan(place.outcome)]
        return sum(known), len(known) - sum(known)

    def expand(self, nodes: Sequence[int]) -> Flow[list[list[int]]]:
        """Samples next steps of open nodes, grades those that end, and adds them: the children of each node.

        A node without any child is closed.
        """
        answers = yield [
            Propose(self.problem, place.prefix, self._key(place.prefix), n=self.width, until="step")
            for place in map(self.at, nodes)
        ]
        grown = [self._merged(self.at(node), some) for node, some in zip(nodes, answers, strict=True)]
        yield from self._grade([*chain.from_iterable(grown)])
        # Graded ends are in the tree before anything else is asked: a budget may end there.
        added = [self._add(node, places) for node, places in zip(nodes, grown, strict=True)]
        if self.scored:
            yield from self._score([*chain.from_iterable(added)])
        return added

    def complete(self, node: int) -> Flow[list[tuple[int, list[float]]]]:
        """Samples whole solutions of a node; their first steps are its children: each with the outcomes through it."""
        above = self.at(node)
        (made,) = yield from rollouts_of(
            self.problem, [above.prefix], [self.width], self.key, unfinished=self.unfinished
        )
        through: dict[tuple[Name, bool, bool], tuple[Place, list[float]]] = {}
        for one in (rollout for rollout in made if rollout.steps or rollout.finished):
            # What an environment shows before the first action belongs to it.
            length = next((at for at, step in enumerate(one.steps, 1) if step.kind == "action"), len(one.steps))
            ended = len(one.steps) <= length
            prefix = above.prefix.then(one.steps[:length])
            place = Place(prefix, ended, ended and one.finished, one.outcome if ended else float("nan"), 0)
            first, outcomes = through.setdefault((prefix.name, ended, place.finished), (place, []))
            first.samples += 1
            outcomes.append(one.outcome)
            self.wholes.append(Trajectory(self.problem, above.prefix.then(one.steps), one.outcome, one.finished))
        above.n, above.correct = count(made)
        for first, outcomes in through.values():
            # They were not chosen for how they ended: each is a rollout of the first step as well.
            known = np.array(outcomes)[~np.isnan(outcomes)]
            first.n, first.correct = len(known), int((known > RIGHT).sum())
        children = self._add(node, [first for first, _ in through.values()])
        if above.ended:
            return []
        return [*zip(children, (outcomes for _, outcomes in through.values()), strict=True)]

    def roll_out(self, nodes: Sequence[int], n: Sequence[int], *, greedy: bool = False) -> Flow[None]:
        """Measures open nodes by rollouts, which are not kept in the tree."""
        made = yield from rollouts_of(
            self.problem, [self.at(node).prefix for node in nodes], n, self.key, unfinished=self.unfinished,
            greedy=greedy,
        )  # fmt: skip
        for node, some in zip(nodes, made, strict=True):
            place, (known, right) = self.at(node), count(some)
            self.tree.own[node] = right / known if known else float("nan")
            # Greedy rollouts are all alike: they are no sample of the policy.
            place.n, place.correct = (0, 0) if greedy else (known, right)

    def look_ahead(self, node: int, steps: int) -> Flow[float]:
        """The highest score on a path of single samples behind a node; NaN where there is no step."""
        prefix, best = self.at(node).prefix, float("nan")
        for _ in range(steps):
            ((made,),) = yield [Propose(self.problem, prefix, self._key(prefix).fold("ahead"), until="step")]
            if not made.steps or made.truncated:
                break
            prefix = prefix.then(made.steps)
            (scores,) = yield [Score(self.problem, prefix)]
            best = float(np.fmax(best, scores[-1]))
            if made.finished:
                break
        return best

    def at_random(self, parent: float, visits: Floats, values: Floats, priors: Floats) -> Floats:
        """A rule of selection (`core.search_tree.Rule`) that prefers no child."""
        return self._uniforms(len(visits))

    def pick(self, nodes: Sequence[int]) -> int:
        """A node at random, as often as its step was sampled."""
        weight = np.cumsum([self.at(node).samples for node in nodes], dtype=np.float64)
        return nodes[int(np.searchsorted(weight, self._uniforms(1)[0] * weight[-1]))]

    def _uniforms(self, size: int) -> Floats:
        bits = np.full(size, self.key.fold("pick", self.problem.id, self._draws).bits, np.uint64)
        self._draws += 1
        return uniforms(bits, np.arange(size))

    def compress(self, chance: float) -> None:
        """Joins steps as HRM does (arXiv:2503.13551, the released code), each tree by itself and in place.

        Of a node with samples of four next steps or more, at most one, the first to which chance falls, is joined with
        it into one step and hangs beside it from then on, unless it is the same as another one there. What was joined
        is not joined again. Leaves stay as many.
        """
        tree, moved = self.tree, set[int]()
        for node in range(1, len(tree.items)):
            below = tree.children[node]
            if below is None or node in moved or sum(self.at(int(child)).samples for child in below) < 4:
                continue
            for child in below[self._uniforms(len(below)) < chance][:1].tolist():
                if self._join(node, child):
                    moved.add(child)

    def _join(self, node: int, child: int) -> bool:
        """Joins a node and its child, unless they are of two speakers, one has no step, or the same step is there."""
        tree, above, depth = self.tree, self.tree.parent[node], len(self.at(node).prefix)
        whole = self.at(child).prefix
        if len(whole) == depth or not same_speaker(whole[-2], whole[-1]):
            return False
        moved = replace(self.at(child), prefix=self.at(above).prefix.then([joined(whole[-2:])]))
        if {moved.prefix.name, _name(moved)} & tree.node_of.keys():
            return False
        own, around = tree.children[node], tree.children[above]
        assert own is not None, "a child has a parent"
        assert around is not None, "only what has a node above it is joined"
        tree.parent[child], tree.children[node], tree.children[above] = (
            above,
            own[own != child],
            np.append(around, child),
        )
        # It stands for as many ends as before.
        self.at(child).samples *= self.at(node).samples
        under = {child}
        for other in range(child, len(tree.items)):
            if other == child or tree.parent[other] in under:
                under.add(other)
                prefix = self.at(other).prefix
                one = joined(prefix[depth - 1 : depth + 1])
                self.at(other).prefix = Prefix((*prefix[: depth - 1], one, *prefix[depth + 1 :]))
        tree.node_of = {_name(place): at for at, place in enumerate(tree.items)}
        return True

    def grown(self, value: Floats) -> StepTree:
        """The tree with its columns, once it is grown.

        Args:
            value: (n,) what each node is worth, NaN where not measured.

        Returns:
            All ends, and paths to the last steps that are worth something, as trajectories; columns value, n_rollouts
            and n_correct, which count only where the value is the node's own share of right rollouts, visits, low,
            high (Wilson, 95 %), and `score` where steps were scored.
        """
        tree = self.tree
        shown = np.array([place.ended for place in tree.items]) | ~np.isnan(value)
        inner = np.zeros(len(shown), bool)
        for node in range(len(shown) - 1, 0, -1):
            inner[tree.parent[node]] |= shown[node] or inner[node]
        leaves = [tree.items[node] for node in np.flatnonzero(shown & ~inner).tolist() if node]
        paths = [Trajectory(self.problem, leaf.prefix, leaf.outcome, leaf.finished) for leaf in leaves]
        made = StepTree.from_trajectories([*paths, *self.wholes], self.problem)
        at = np.fromiter(map(self._node_of, made.names), np.int64, made.n)
        counts = np.array([(place.n, place.correct) for place in tree.items], np.float64)
        # Only a share of a node's own rollouts has an interval: other values are not of the sampled policy alone.
        own = np.isclose(value * counts[:, 0], counts[:, 1], equal_nan=False) & (counts[:, 0] > 0)
        each = {"value": value, "n_rollouts": counts[:, 0] * own, "n_correct": counts[:, 1] * own}
        each["visits"] = tree.visits
        if self.scored:
            each["score"] = np.array([place.score for place in tree.items])
        # Nodes of no place, which are inside whole samples, have node -1: nothing is known of them but the outcome.
        absent: dict[str, Any] = {
            "value": np.where(made.terminal, made.outcome, np.nan),
            "n_rollouts": 0.0,
            "n_correct": 0.0,
        }
        columns: dict[str, Any] = {
            name: np.where(at >= 0, one[at], absent.get(name, np.nan)) for name, one in each.items()
        }
        value = columns["value"]
        columns["value"] = np.where(np.isnan(value) & made.terminal, made.outcome, value)
        low, high = wilson(columns["n_correct"], columns["n_rollouts"])
        return replace(made, columns={**columns, "low": low, "high": high})

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """What read-outs take: `parent`, `ends` with the outcomes of ends, and `samples`."""
        items = self.tree.items
        return {
            "parent": np.array(self.tree.parent),
            "ends": np.array([place.outcome if place.ended else np.nan for place in items]),
            "samples": np.array([place.samples for place in items]),
        }

    def _key(self, prefix: Prefix) -> Key:
        # Not the key of rollouts: the children of a prefix would be the first steps of its rollouts.
        return prefix_key(self.key, self.problem, prefix).fold("children")

    def _merged(self, above: Place, answers: Sequence[Continuation]) -> list[Place]:
        """Places of sampled next steps, equal ones once; a step that a limit cut is an end, or dropped."""
        made: dict[tuple[Name, bool, bool], Place] = {}
        for one in answers:
            prefix = above.prefix.then([step for step in one.steps if step.text or step.images])
            place = Place(prefix, samples=0)
            cut = not one.finished and (one.truncated or place.depth >= self.max_steps)
            if (cut and self.unfinished == "drop") or (len(prefix) == len(above.prefix) and not one.finished):
                continue
            place.ended, place.finished = one.finished or cut, one.finished
            place.outcome = 0.0 if cut else float("nan")
            made.setdefault((prefix.name, place.ended, place.finished), place).samples += 1
        return [*made.values()]

    def _grade(self, places: Sequence[Place]) -> Flow[None]:
        finished = [place for place in places if place.finished]
        if finished:
            grades = yield [Grade(self.problem, place.prefix) for place in finished]
            for place, grade in zip(finished, grades, strict=True):
                place.outcome = float(grade)

    def _score(self, nodes: Sequence[int]) -> Flow[None]:
        """Scores the last steps of new nodes; the score of an open one is its own value."""
        nodes = [node for node in nodes if self.at(node).prefix]
        scores = (yield [Score(self.problem, self.at(node).prefix) for node in nodes]) if nodes else []
        for node, one in zip(nodes, scores, strict=True):
            place = self.at(node)
            place.score = float(one[-1])
            if not place.ended:
                self.tree.own[node] = place.score
                self.tree.value[node] = self._unvisited(place.score)

    def _add(self, node: int, places: list[Place]) -> list[int]:
        above = self.at(node)
        if places and node and all(len(place.prefix) == len(above.prefix) for place in places):
            # The policy had nothing to add: the step before was the last one.
            above.ended, above.finished, above.outcome = True, True, places[0].outcome
            self.tree.own[node] = above.outcome
            return []
        if not places:
            self.tree.close(node)
            return []
        values = [place.outcome if place.ended else float("nan") for place in places]
        names = [_name(place) for place in places]
        children = self.tree.expand(node, places, names, values, self._priors(places))
        self.tree.value[children] = [self._unvisited(value) for value in values]
        return [int(child) for child in children]

    def _unvisited(self, value: float) -> float:
        """What a node counts as in selection before a walk comes to it: rules compare numbers."""
        return (0.0 if np.isnan(value) else value) if self.first < 0 else self.first

    def _priors(self, places: Sequence[Place]) -> Floats:
        if self.prior == "logprob":
            said = [place.prefix[-1].logprobs for place in places]
            if any(not one for one in said):
                what = f"the policy reports no log-probabilities of steps of problem {self.problem.id!r}"
                raise InputError(what, remedy="take prior=share, or a policy that reports them")
            return np.array([np.exp(np.mean(one)) for one in said if one])
        counts = np.array([1.0 if self.prior == "uniform" else place.samples for place in places])
        shares: Floats = counts / counts.sum()
        return shares

    def _node_of(self, name: Name) -> int:
        """The node of a prefix: one that goes on before its end, an end by the policy before one by a limit."""
        ends = (named(name, finished) for finished in (True, False))
        return next((self.tree.node_of[one] for one in (name, *ends) if one in self.tree.node_of), -1)


def _name(place: Place) -> Name:
    """Name of a node; an end may have the steps of a prefix that goes on in other samples."""
    return named(place.prefix.name, place.finished) if place.ended else place.prefix.name
