"""The order of training: which trees a pass has, and which of them are a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.score.encode.packing import plan

_WINDOW = 8
"""Batches whose trees are packed together: more batches waste less padding, fewer are closer to a random order."""


def mixed(
    lengths: Sequence[int], domains: Mapping[str, Sequence[int]], mix: Mapping[str, float], key: Key
) -> Iterator[list[int]]:
    """The trees of each pass over a mixture, without end.

    Each domain is a sequence of its trees in random order, then again in another, and so on. A pass takes up the
    sequence where the last one left it, so that the shares over several passes are right to a tree.

    Args:
        lengths: tokens of each tree.
        domains: numbers of the trees of each domain.
        mix: share of each domain in the tokens of a pass, any positive numbers.
        key: the randomness of the orders.

    Raises:
        InputError: `mix` names other domains.
    """
    if domains.keys() != mix.keys():
        there, named = (", ".join(map(repr, sorted(names))) or "none" for names in (domains, mix))
        raise InputError(f"the data has the domains {there}, the mix names {named}", remedy="name each domain once")
    share = {name: sum(lengths) * (weight / sum(mix.values())) for name, weight in mix.items()}
    left = {name: _repeated(numbers, key.fold("mix", name)) for name, numbers in domains.items()}
    taken = dict.fromkeys(domains, 0)
    for number in count(1):
        some: list[int] = []
        for name in domains:
            while taken[name] < number * share[name]:
                some.append(next(left[name]))
                taken[name] += lengths[some[-1]]
        yield some


def _repeated(numbers: Sequence[int], key: Key) -> Iterator[int]:
    for again in count():
        yield from (numbers[i] for i in key.fold(again).rng().permutation(len(numbers)))


def epoch_batches(
    lengths: Sequence[int],
    row_tokens: int,
    batch_tokens: int,
    rng: np.random.Generator | None,
    together: Sequence[str] = (),
) -> Iterator[list[list[int]]]:
    """Batches of one pass: trees in random order, packed window by window, batches in random order.

    Args:
        lengths: tokens of each tree.
        row_tokens: tokens of a packed row.
        batch_tokens: tokens of a batch.
        rng: the randomness; None keeps one fixed order.
        together: a name of each tree; those of a name follow one another, so that a batch has many of them. Empty for
            no such names.
    """
    if rng is None and not together:
        yield from plan(lengths, row_tokens, batch_tokens)
        return
    made: list[list[list[int]]] = []
    window: list[int] = []
    in_window, order = 0, np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    if together:
        first = {together[i]: place for place, i in reversed([*enumerate(order)])}
        order = np.array(sorted(order, key=lambda i: first[together[i]]), np.int64)
    # Packing orders a window by length, which would part what should be together.
    wide = batch_tokens * (1 if together else _WINDOW)
    for place, i in enumerate(order):
        window.append(int(i))
        in_window += lengths[i]
        last = place == len(order) - 1
        if in_window < wide and not last:
            continue
        # `plan` packs well and orders by length, so that its batches are mixed again at the end.
        batches = [
            [[window[j] for j in row] for row in rows]
            for rows in plan([lengths[j] for j in window], row_tokens, batch_tokens)
        ]
        # The last batch of a window is not full: its trees go into the next window.
        window = [] if last or len(batches) == 1 else [j for row in batches.pop() for j in row]
        in_window = sum(lengths[j] for j in window)
        made += batches
    for at in range(len(made)) if rng is None else rng.permutation(len(made)):
        yield made[at]
