"""Definitions of benchmarks of agents' runs read literally, as `literal` does for solutions and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.literal import Numbers, Row, mean

Errors = Sequence[tuple[str, str]]
"""Place and category of each error."""


def two_by_two(pairs: Sequence[tuple[bool, bool]]) -> tuple[int, int, int, int]:
    """Hits, false alarms, misses and rest of (said, true)."""
    hit, alarm = sum(pair == (True, True) for pair in pairs), sum(pair == (True, False) for pair in pairs)
    miss = sum(pair == (False, True) for pair in pairs)
    return hit, alarm, miss, len(pairs) - hit - alarm - miss


def agent_reward_bench(rows: Sequence[Row], threshold: float) -> Numbers:
    """A run whose last score is above the threshold is called a success."""
    hit, alarm, miss, rest = two_by_two([(row["scores"][-1] > threshold, row["right"] > 0.5) for row in rows])
    precision, recall = hit / (hit + alarm), hit / (hit + miss)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "accuracy": (hit + rest) / len(rows),
        "success": (hit + miss) / len(rows),
    }


def trail(rows: Sequence[tuple[Errors, Errors]]) -> Numbers:
    """Of each trace what people named, and what a judge named, as places and categories."""
    found: dict[str, list[float]] = {"location_accuracy": [], "location_f1": [], "joint_accuracy": [], "joint_f1": []}
    for people, judge in rows:
        for name, part in (("location", 1), ("joint", 2)):
            right, named = {pair[:part] for pair in people}, {pair[:part] for pair in judge}
            both = sum(pair in named for pair in right)
            found[f"{name}_accuracy"].append(both / len(right) if right else 0.0)
            recall, precision = both / max(len(right), 1), both / max(len(named), 1)
            found[f"{name}_f1"].append(2 * recall * precision / (recall + precision) if both else 0.0)
    total, weight = 0.0, 0
    for category in {of for people, _ in rows for _, of in people}:
        named_by = [[any(of == category for _, of in errors) for errors in (judge, people)] for people, judge in rows]
        hit, alarm, miss, _ = two_by_two([(said, true) for said, true in named_by])
        total, weight = total + (hit + miss) * 2 * hit / (2 * hit + alarm + miss), weight + hit + miss
    return {**{name: mean(values) for name, values in found.items()}, "category_f1": total / weight}


def both_orders(rows: Sequence[tuple[float, float, str]]) -> Numbers:
    """Right in both orders, as the authors count: all rows, then all again with the other candidate first."""
    right = [int(good > bad) for good, bad, _ in rows]
    half = len(right) // 2
    both = [one * other for one, other in zip(right[:half], right[half:], strict=True)]
    numbers = {"both_right": sum(both) / half, "accuracy": sum(right) / len(right)}
    numbers |= {"better_first": sum(right[:half]) / half, "better_second": sum(right[half:]) / half}
    for name in {subset for *_, subset in rows}:
        mine = [hit for hit, (*_, subset) in zip(both, rows[:half], strict=True) if subset == name]
        numbers[f"{name}/both_right"] = sum(mine) / len(mine)
    unread = [good != good or bad != bad for good, bad, _ in rows]
    swayed = [right[at] != right[at + half] and not unread[at] and not unread[at + half] for at in range(half)]
    return numbers | {"swayed": sum(swayed) / half, "unread": sum(unread) / len(rows)}


def mast(rows: Sequence[tuple[Mapping[str, int | None], Mapping[str, int | None]]]) -> Numbers:
    """Of each trace the modes by one and by the other."""
    pairs = [
        (theirs[mode] == 1, ours[mode] == 1)
        for ours, theirs in rows
        for mode in ours
        if ours[mode] is not None and theirs[mode] is not None
    ]
    hit, alarm, miss, rest = two_by_two(pairs)
    n = len(pairs)
    said, true = (hit + alarm) / n, (hit + miss) / n
    by_chance = said * true + (1 - said) * (1 - true)
    precision, recall = hit / (hit + alarm), hit / (hit + miss)
    return {
        "kappa": ((hit + rest) / n - by_chance) / (1 - by_chance),
        "accuracy": (hit + rest) / n,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
    }
