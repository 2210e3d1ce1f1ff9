"""Several agents over one trace as one policy: each turn is written by the agent whose turn it is.

To a flow a crew is an agent like any other (`core.runtime.acting`): a step is a turn, `Step.agent` says whose, and a
rollout goes on until no agent's turn is left.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.runtime.acts import Act, Episodes, Observation
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.flows import MESSAGES, Continuation, Policy, Propose, Wanted, room_of
from stepreward.core.runtime.joint_policy import JointPolicy, answers_by
from stepreward.core.types import Problem, Step
from stepreward.policies.expert import WithExpert
from stepreward.policies.turn_order import END, ROUND_ROBIN, TurnOrder, order_of

TURNS = 24
"""Most turns of an episode where the crew states no other limit."""


@dataclass(frozen=True)
class Member:
    """An agent of a crew."""

    policy: Policy
    instructions: str = ""
    """Read before the problem, as the system's message."""
    acts: bool = False
    """Whether the environment, where there is one, executes its turns; what the others say is talk."""


class Crew(JointPolicy):
    """Agents that speak in an order; a `core.runtime.flows.Policy` that is placed in an environment of its own.

    An agent reads its instructions, the problem, its own turns as the assistant's, and all else as the user's, with the
    name of who said it.

    Args:
        members: by name.
        order: who speaks next.
        turns: most turns; then the episode is over, and graded as it is.
        inner: the environment of the agents that act; None where all only talk.

    Raises:
        InputError: the order names an agent that there is not.
    """

    def __init__(
        self, members: Mapping[str, Member], order: TurnOrder, turns: int = TURNS, inner: Episodes | None = None
    ) -> None:
        if lacking := [name for name in order.plan if name not in members]:
            what = f"the order of this crew names {lacking[0]!r}, who is not in it"
            raise InputError(what, remedy=f"name one of {', '.join(members)}")
        super().__init__([one.policy for one in members.values()])
        self.members, self.order, self.turns, self.inner = members, order, turns, inner
        who = [(name, one.policy.name, one.instructions, one.acts) for name, one in members.items()]
        digest = hashlib.blake2b(repr((who, order, turns)).encode(), digest_size=6).hexdigest()
        self.name = f"crew {digest} of {', '.join(members)}" + (f" in {inner.name}" if inner is not None else "")
        """Identity for caches and provenance."""

    @property
    def environment(self) -> Episodes:
        """Who says when the work is over, and executes the turns of agents that act."""
        return CrewEpisodes(self)

    def room(self, problem: Problem) -> int:
        """Tokens that a problem's prompt leaves to an answer of any."""
        return min(room_of(one.policy, _instructed(problem, one.instructions)) for one in self.members.values())

    def within(self, inner: Episodes) -> Crew:
        """The same agents, whose acting ones act in an environment.

        Raises:
            InputError: none of them acts.
        """
        if not any(one.acts for one in self.members.values()):
            what = f"no agent of this crew acts in {inner.name}"
            raise InputError(what, remedy='mark who does by "acts": true, or drop the environment')
        return Crew(self.members, self.order, self.turns, inner)

    def helped_by(self, expert: Policy) -> Crew:
        """The same agents, each of which an expert may stand in for."""
        helped = {n: replace(one, policy=WithExpert(one.policy, expert)) for n, one in self.members.items()}
        return Crew(helped, self.order, self.turns, self.inner)

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """One turn of each question, in order, by the agent whose turn it is; a question at the end gets none.

        Agents stop, if they can, once an answer is not wanted.
        """
        names = [self.order.speaker(question.prefix) for question in questions]
        policies = [self.members[name].policy if name in self.members else None for name in names]
        sent = [self._as_read(q, name) if name in self.members else q for q, name in zip(questions, names, strict=True)]
        return [
            [replace(c, steps=tuple(replace(s, agent=name) for s in c.steps)) for c in some]
            for name, some in zip(names, answers_by(policies, sent, wanted), strict=True)
        ]

    def _as_read(self, question: Propose, name: str) -> Propose:
        """A question as an agent reads it."""
        member, problem, heard, last = self.members[name], question.problem, list[Step](), ""
        if member.acts and self.inner is not None:
            problem = self.inner.prepared(problem)
        for step in question.prefix:
            last = step.agent or "" if step.kind == "action" else last
            heard.append(step if last in ("", name) else _heard(step))
        return replace(question, problem=_instructed(problem, member.instructions), prefix=tuple(heard))


class CrewEpisodes:
    """Episodes of a crew; a `core.runtime.acts.Episodes`.

    Talk shows nothing. What agents do who act goes to the inner environment, which sees no talk; where that says that
    the episode is over, it is.

    Args:
        crew: whose.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew, self._inner = crew, crew.inner
        self.name = f"conversation of {crew.name}"
        """Identity for caches and provenance."""

    @property
    def batch_size(self) -> int:
        """That of the inner environment."""
        return 1024 if self._inner is None else self._inner.batch_size

    @property
    def concurrency(self) -> int:
        """That of the inner environment."""
        return 1 if self._inner is None else self._inner.concurrency

    def prepared(self, problem: Problem) -> Problem:
        """The problem as the inner environment prepares it."""
        return problem if self._inner is None else self._inner.prepared(problem)

    def act_many(self, questions: Sequence[Act]) -> list[Observation]:
        """Answers the questions, in order."""
        inner = [None if self._inner is None else self._executed(question) for question in questions]
        shown = iter(self._inner.act_many([one for one in inner if one is not None]) if self._inner else ())
        return [
            self._judged(question, Observation() if one is None else next(shown))
            for question, one in zip(questions, inner, strict=True)
        ]

    def _executed(self, question: Act) -> Act:
        """What the inner environment sees: what it showed, and the turns that it executes."""
        steps = [one for one in question.steps if one.kind == "observation" or self._acts(one)]
        return Act(question.problem, tuple(steps))

    def _judged(self, question: Act, shown: Observation) -> Observation:
        if question.steps and not self._acts(question.steps[-1]):
            # The inner environment was asked about where it is already: it shows that again.
            shown = replace(shown, steps=(), reward=float("nan"))
        turns = sum(step.kind == "action" for step in question.steps)
        over = shown.done or turns >= self._crew.turns or self._crew.order.speaker(question.steps) == END
        return replace(shown, done=over)

    def _acts(self, step: Step) -> bool:
        member = self._crew.members.get(step.agent or "")
        return step.kind == "action" and member is not None and member.acts


def placed(policy: Policy, environment: Episodes | None) -> Policy:
    """A policy in an environment: an agent, or a crew some of whose agents act there; by itself where there is none.

    Raises:
        InputError: no agent of a crew acts, or one does and there is no environment.
    """
    if environment is None:
        members = policy.members if isinstance(policy, Crew) and policy.inner is None else {}
        if hands := [name for name, one in members.items() if one.acts]:
            raise InputError(f"agent {hands[0]!r} acts, and nothing is there to act in", remedy="name an environment")
        return policy
    return policy.within(environment) if isinstance(policy, Crew) else Agent(policy, environment)


def helped(policy: Policy, expert: Policy) -> Policy:
    """A policy, or each of a crew, with an expert."""
    return policy.helped_by(expert) if isinstance(policy, Crew) else WithExpert(policy, expert)


Open = Callable[[str], Policy]


def crew_of(row: object, open_policy: Open) -> Crew:
    """A crew as JSON states it.

        {"agents": {"solver": {"policy": "URL#MODEL", "instructions": "...", "acts": false}, ...},
         "order": "round-robin" | ["solver", ...], "routes": {"critic": [{"says": "...", "next": "solver"}]},
         "turns": 24}

    Args:
        row: the object.
        open_policy: makes a policy of an address; agents of one address share it.

    Raises:
        InputError: it is something else.
    """
    known = {"agents", "order", "routes", "turns"}
    if not isinstance(row, Mapping) or not isinstance(row.get("agents"), Mapping) or not {*row} <= known:
        raise InputError("a crew is a JSON object with agents, and order, routes and turns if you like")
    if not all(row["agents"]):
        raise InputError(
            "an agent of this crew has no name", remedy="name each: its name is who is heard by the others"
        )
    opened: dict[str, Policy] = {}
    members = {name: _member(name, one, open_policy, opened) for name, one in row["agents"].items()}
    turns = row.get("turns", TURNS)
    if type(turns) is not int or turns < 1:
        raise InputError(f"turns of a crew are a whole number from 1, got {turns!r:.80}")
    order = order_of([*members], row.get("order", ROUND_ROBIN), row.get("routes", {}))
    return Crew(members, order, turns)


def crew_at(source: str, open_policy: Open) -> Crew:
    """A crew by address: the file that states it, or `AGENT=POLICY;AGENT=POLICY`.

    Beside agents the short form has `order=AGENT,AGENT`, `turns=N` and `acts=AGENT,AGENT`.

    Args:
        source: what follows `crew:`.
        open_policy: makes a policy of an address.

    Raises:
        InputError: it is neither, or states no crew.
    """
    if "=" in source and not Path(source).exists():
        parts = [part.partition("=")[::2] for part in source.split(";")]
        if twice := [name for name, times in Counter(name for name, _ in parts).items() if times > 1]:
            raise InputError(f"{twice[0]!r} is twice in this crew", remedy="give each agent a name of its own")
        pairs = dict(parts)
        order, turns, acts = (pairs.pop(name, "") for name in ("order", "turns", "acts"))
        hands = acts.split(",") if acts else []
        if unknown := [name for name in hands if name not in pairs]:
            raise InputError(f"{unknown[0]!r} acts, and is not in this crew", remedy=f"name one of {', '.join(pairs)}")
        row: Any = {"agents": {name: {"policy": one, "acts": name in hands} for name, one in pairs.items()}}
        row |= {"order": order.split(",") if order != ROUND_ROBIN else order} if order else {}
        row |= {"turns": int(turns) if turns.isdecimal() else turns} if turns else {}
        return crew_of(row, open_policy)
    try:
        row = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remedy = "name a JSON file, or write crew:AGENT=POLICY;AGENT=POLICY"
        raise InputError(f"{source} states no crew: {error}", remedy=remedy) from error
    try:
        return crew_of(row, open_policy)
    except InputError as error:
        raise InputError(str(error), source=source) from error


def _member(name: str, row: Any, open_policy: Open, opened: dict[str, Policy]) -> Member:
    row = {"policy": row} if isinstance(row, str) else row
    if not isinstance(row, Mapping) or not isinstance(row.get("policy"), str):
        raise InputError(f"agent {name!r} names no policy", remedy='write {"policy": "URL#MODEL"}')
    if unknown := {*row} - {"policy", "instructions", "acts"}:
        what = f"agent {name!r} has no setting {sorted(unknown)[0]!r}"
        raise InputError(what, remedy="an agent has policy, instructions and acts")
    if not isinstance(row.get("instructions", ""), str) or type(row.get("acts", False)) is not bool:
        raise InputError(f"instructions of agent {name!r} are a text, and acts is true or false")
    address = row["policy"]
    if address not in opened:
        opened[address] = open_policy(address)
    return Member(opened[address], row.get("instructions", ""), row.get("acts", False))


def _heard(step: Step) -> Step:
    """What another agent said, or was shown, as the user's."""
    if step.kind == "observation":
        return replace(step, role="user", meta={}) if step.role == "tool" else step
    return Step(f"{step.agent}: {step.text.rstrip()}\n", "observation", "user", step.agent, step.images)


def _instructed(problem: Problem, instructions: str) -> Problem:
    if not instructions:
        return problem
    system = {"role": "system", "content": instructions}
    meta = problem.meta
    if given := meta.get(MESSAGES):
        meta = {**meta, MESSAGES: [system, *given]}
    return replace(problem, prompt=(system, *problem.messages), meta=meta)
