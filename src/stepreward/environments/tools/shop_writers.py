"""Episodes of the shop with slips: the training text of the built-in agent.

A writer calls for prices, calculates one node at a time, and answers. A slip is one of: the price of another item is
asked for; a calculation takes another number that was seen, or another operation; a part of the bill is left out; the
answer is a number that was calculated before. The writer goes on with what came out, as people do. A careless writer
slips far more often than a careful one.
"""

from __future__ import annotations

import json

import numpy as np

from stepreward.core.types import Problem, Step
from stepreward.environments.tools.shop import CALCULATE, ITEMS, PRICE, ShopNumber, nodes_of
from stepreward.environments.tools.standard import calculated, shown_number

SLIPS = ("number", "number", "operation", "skip", "item")


def call(name: str, **arguments: str) -> str:
    """A call as an agent writes it."""
    return json.dumps({"name": name, "arguments": arguments})


def written_episode(problem: Problem, rng: np.random.Generator, slip_rate: float) -> tuple[Step, ...]:
    """Actions and observations of a writer who slips at an action with probability `slip_rate`.

    Args:
        problem: of the shop.
        rng: randomness of the slips.
        slip_rate: in [0, 1]; 0 writes the shortest episode there is.
    """
    nodes, prices = nodes_of(problem), problem.meta["prices"]
    believed: dict[int, str] = {at: str(node.value) for at, node in enumerate(nodes) if not node.operator}
    steps: list[Step] = []
    seen: list[str] = [believed[at] for at, node in enumerate(nodes) if not node.item and not node.operator]

    def acted(action: str, shown: str) -> str:
        steps.extend((Step(action), Step(shown, "observation", "tool")))
        seen.append(shown)
        return shown

    for at, node in enumerate(nodes):
        slip = str(rng.choice(SLIPS)) if rng.random() < slip_rate else ""
        if node.item:
            item = node.item
            if slip == "item":
                item = str(rng.choice([one for one in (*prices, *ITEMS[:4]) if one != item]))
            shown = acted(call(PRICE, item=item), str(prices.get(item, f"there is no {item} in the shop")))
            believed[at] = shown if shown.isdigit() else believed[at]
        elif node.operator:
            believed[at] = _calculated(node, believed, slip, seen, rng, acted)
    answer = believed[len(nodes) - 1]
    if rng.random() < slip_rate / 2:
        answer = str(rng.choice(seen))
    return (*steps, Step(f"Answer: {answer}"))


def _calculated(
    node: ShopNumber, believed: dict[int, str], slip: str, seen: list[str], rng: np.random.Generator, acted: object
) -> str:
    """What the writer takes a node's number to be, after a calculation or without one."""
    left, right = believed[node.left], believed[node.right]
    if slip == "skip":
        return left if node.operator != "*" else right
    others = [one for one in seen if one.isdigit() and one not in (left, right)]
    if slip == "number" and others:
        left, right = (str(rng.choice(others)), right) if rng.random() < 0.5 else (left, str(rng.choice(others)))
    operator = {"+": "-", "-": "+", "*": "+"}[node.operator] if slip == "operation" else node.operator
    expression = f"{left} {operator} {right}"
    found = calculated(expression)
    assert found is not None
    return acted(call(CALCULATE, expression=expression), shown_number(found))  # type: ignore[operator,no-any-return]
