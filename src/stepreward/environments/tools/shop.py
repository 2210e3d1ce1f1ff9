"""The shop: problems whose numbers are found by calls of functions, with the exact number of actions that are left.

A customer buys amounts of items; prices, fees and discounts are not in the text: the agent calls `price` and
`calculate`, and answers with a number. A problem is a graph: leaves are looked up or given, each other node is one
calculation. So it is known after every action how many more are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np

from stepreward.core.catalog import check, generate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.segment.tool_calls import stated_calls
from stepreward.core.step_check import StepCheck
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Flag
from stepreward.environments.tools.standard import calculated, number_of

Split = Literal["train", "validation", "held_out"]
_BUCKETS: dict[Split, range] = {"held_out": range(10), "validation": range(10, 20), "train": range(20, 100)}
ITEMS = (
    "lamp", "chair", "table", "mug", "plate", "clock", "shelf", "vase", "rug", "bowl", "desk", "pillow", "mirror",
    "basket", "candle", "stool", "frame", "kettle", "blanket", "pan",
)  # fmt: skip
NAMES = ("Ana", "Ben", "Eva", "Ivy", "Kai", "Leo", "Lin", "Mia", "Raj", "Sam", "Tom", "Uma", "Zoe")
PRICE, CALCULATE = "price", "calculate"


@dataclass(frozen=True, slots=True)
class ShopNumber:
    """A number of the problem."""

    value: int
    item: str = ""
    """What is looked up to know it; empty for a number in the text, or one to calculate."""
    operator: str = ""
    """`+`, `-` or `*` of two earlier nodes; empty for a leaf."""
    left: int = -1
    right: int = -1


def nodes_of(problem: Problem) -> list[ShopNumber]:
    """The graph of a problem; its last node is the answer.

    Raises:
        InputError: the problem is none of the shop.
    """
    try:
        return [ShopNumber(**row) for row in problem.meta["nodes"]]
    except (KeyError, TypeError) as error:
        what = f"problem {problem.id!r} has no graph of the shop in its meta"
        raise InputError(what, remedy="make problems by `stepreward generate shop`") from error


@generate.method("shop", note="ours: problems for the environment `tools`, with exact truth of actions")
def shop_problems(
    key: Key, *, split: Split = "train", fewest: Annotated[int, Flag(low=1)] = 1, most: Annotated[int, Flag(low=1)] = 3
) -> Iterator[Problem]:
    """Makes problems of a shop whose prices have to be asked for.

    Args:
        key: randomness.
        split: which problems; those of different splits are disjoint, whatever the key.
        fewest, most: items that are bought.

    Raises:
        InputError: `fewest` is above `most`, or `most` above the items that there are.
    """
    if not fewest <= most <= len(ITEMS) // 2:
        raise InputError(f"expected fewest <= most <= {len(ITEMS) // 2}, got {fewest} and {most}")
    rng, seen = key.fold("shop", split).rng(), set[str]()
    while True:
        problem = _drawn(rng, fewest, most)
        digest = hashlib.blake2b(problem.id.encode(), digest_size=8).digest()
        if int.from_bytes(digest, "little") % 100 in _BUCKETS[split] and problem.id not in seen:
            seen.add(problem.id)
            yield problem


def _drawn(rng: np.random.Generator, fewest: int, most: int) -> Problem:
    name, count = str(rng.choice(NAMES)), int(rng.integers(fewest, most + 1))
    items = [str(one) for one in rng.choice(ITEMS, size=2 * count, replace=False)]
    nodes: list[ShopNumber] = []
    parts, total = [], -1
    for item in items[:count]:
        amount, price = int(rng.integers(1, 10)), int(rng.integers(2, 60))
        at = _add(nodes, ShopNumber(price, item))
        parts.append(f"{amount} {item}{'s' if amount > 1 else ''}")
        if amount > 1:
            _add(nodes, ShopNumber(amount))
            at = _add(nodes, _joined(nodes, "*", len(nodes) - 1, at))
        total = at if total < 0 else _add(nodes, _joined(nodes, "+", total, at))
    text = f"{name} buys {_listed(parts)}."
    change = int(rng.integers(0, 3)) if nodes[total].value > 30 else 1
    if change:
        amount = int(rng.integers(2, 25))
        _add(nodes, ShopNumber(amount))
        total = _add(nodes, _joined(nodes, "+" if change == 1 else "-", total, len(nodes) - 1))
        text += f" The delivery costs {amount}." if change == 1 else f" A coupon takes off {amount}."
    text += f" What does {name} pay?"
    nodes = [*nodes[: total + 1]]
    prices = {node.item: node.value for node in nodes if node.item}
    # Other items stand in the shop too, so that a wrong call has an answer.
    prices |= {item: int(rng.integers(2, 60)) for item in items[count:]}
    digest = hashlib.blake2b(f"{text} {sorted(prices.items())}".encode(), digest_size=6).hexdigest()
    meta = {"nodes": [asdict(node) for node in nodes], "prices": dict(sorted(prices.items())), "functions": [PRICE]}
    return Problem(f"shop-{digest}", text, str(nodes[-1].value), meta)


def _add(nodes: list[ShopNumber], node: ShopNumber) -> int:
    nodes.append(node)
    return len(nodes) - 1


def _joined(nodes: Sequence[ShopNumber], operator: str, left: int, right: int) -> ShopNumber:
    one, other = nodes[left].value, nodes[right].value
    return ShopNumber({"+": one + other, "-": one - other, "*": one * other}[operator], "", operator, left, right)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def needed(nodes: Sequence[ShopNumber], known: set[int]) -> list[int]:
    """Indices of the nodes that have to be looked up or calculated, in order, where some are known."""
    wanted = {len(nodes) - 1} - known
    for at in range(len(nodes) - 1, -1, -1):
        if at in wanted and nodes[at].operator:
            wanted |= {nodes[at].left, nodes[at].right} - known
    return sorted(at for at in wanted if nodes[at].operator or nodes[at].item)


def known_after(nodes: Sequence[ShopNumber], call: Mapping[str, Any], known: set[int]) -> set[int]:
    """The known nodes after a call: an item whose price was asked for, or nodes whose number was calculated."""
    arguments = call.get("arguments")
    given = arguments if isinstance(arguments, Mapping) else {}
    if call.get("name") == PRICE:
        return known | {at for at, node in enumerate(nodes) if node.item and node.item == given.get("item")}
    if call.get("name") != CALCULATE:
        return known
    found = calculated(str(given.get("expression", "")))
    return known | {at for at, node in enumerate(nodes) if node.operator and found == node.value}


@check.method("shop", note="ours: an action is right if it is one of those that are still needed")
def shop_checks(problem: Problem, steps: Sequence[Step]) -> list[StepCheck]:
    """Says which actions bring an episode of the shop nearer to its end: exact, by the problem's graph.

    Kinds of error: `useless`, where as many actions are left as before; `answer`, where the answer is wrong.

    Args:
        problem: of `stepreward generate shop`.
        steps: of an episode.
    """
    nodes, known, made = nodes_of(problem), set[int](), []
    for step in steps:
        if step.kind == "observation":
            made.append(StepCheck(None))
            continue
        calls = stated_calls(step)
        if not calls:
            right = number_of(step.text) == nodes[-1].value
            made.append(StepCheck(right, kind="" if right else "answer"))
            continue
        left = len(needed(nodes, known))
        for call in calls:
            known = known_after(nodes, call, known)
        right = len(needed(nodes, known)) < left
        made.append(StepCheck(right, kind="" if right else "useless"))
    return made
