"""Who of several agents speaks next: in turn, by a fixed plan, or by what was said last."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Step

ROUND_ROBIN = "round-robin"
END = ""
"""The next speaker where the episode is over: none."""


@dataclass(frozen=True)
class NextSpeaker:
    """Who speaks after a turn whose text fits a pattern."""

    says: str
    """Regular expression that is looked for in the turn."""
    next: str
    """The agent that speaks then; "" ends the work."""


@dataclass(frozen=True)
class TurnOrder:
    """Decides who speaks after a trace, from the trace alone.

    Without routes the agents of `plan` speak in its order, again and again, or once. A route of the agent that spoke
    last comes first; after it the plan goes on behind the next place of the agent that it names.

    Raises:
        InputError: there is no agent, a route names one that is not in the plan, or a pattern is none.
    """

    plan: tuple[str, ...]
    """Agents in the order in which they speak; one may stand there several times."""
    once: bool = False
    """Whether the work ends behind the plan; otherwise it begins anew."""
    routes: Mapping[str, tuple[NextSpeaker, ...]] = field(default_factory=dict)
    """By the agent that spoke; of several that fit the first."""

    def __post_init__(self) -> None:
        if not self.plan:
            raise InputError("this crew has no agent", remedy="name at least one agent")
        for by, routes in self.routes.items():
            for route in routes:
                for name in (by, route.next or by):
                    if name not in self.plan:
                        what = f"a route of {by!r} names {name!r}, who never speaks"
                        raise InputError(what, remedy=f"name one of {', '.join(dict.fromkeys(self.plan))}")
                try:
                    re.compile(route.says)
                except re.error as error:
                    raise InputError(f"{route.says!r} is no regular expression: {error}") from error

    def speaker(self, steps: Sequence[Step]) -> str:
        """The agent that speaks after these steps; "" where the work is over."""
        at = 0
        for step in steps:
            if step.kind == "action":
                at = self._after(at, step)
                if at < 0:
                    return END
        return self.plan[at]

    def _after(self, at: int, turn: Step) -> int:
        """The place in the plan after a turn at a place; -1 at the end."""
        after = [*range(at + 1, len(self.plan)), *range(at + 1)]
        for route in self.routes.get(self.plan[at], ()):
            if re.search(route.says, turn.text):
                return next((place for place in after if self.plan[place] == route.next), -1)
        return -1 if self.once and after[0] == 0 else after[0]


def order_of(names: Sequence[str], order: object, routes: object) -> TurnOrder:
    """An order as JSON states it.

    Args:
        names: of the agents.
        order: `round-robin`, or a list of agents, which is gone through once.
        routes: by agent, a list of `{"says": PATTERN, "next": AGENT}`.

    Raises:
        InputError: it is none of these.
    """
    plan = tuple(names) if order == ROUND_ROBIN else order
    if not isinstance(plan, list | tuple) or not all(one in names for one in plan):
        what = f"an order is {ROUND_ROBIN} or a list of {', '.join(names)}, got {order!r:.200}"
        raise InputError(what, remedy="name agents of the crew")
    if not isinstance(routes, Mapping) or not all(isinstance(some, list | tuple) for some in routes.values()):
        raise InputError(f"routes are an object by agent, got {routes!r:.200}", remedy='write {"critic": [...]}')
    read = {by: tuple(_route(by, one) for one in some) for by, some in routes.items()}
    return TurnOrder(tuple(plan), order != ROUND_ROBIN, read)


def _route(by: str, row: Any) -> NextSpeaker:
    if not isinstance(row, Mapping) or {*row} != {"says", "next"} or not all(isinstance(x, str) for x in row.values()):
        raise InputError(f"a route of {by!r} is {row!r:.200}", remedy='write {"says": "PATTERN", "next": "AGENT"}')
    return NextSpeaker(row["says"], row["next"])
