"""Flat arrays cut into trajectories and groups: sums, running sums and statistics without a Python loop.

Everything works on NumPy arrays and on torch tensors of any device alike, in the input's own type. N is the number of
steps of all trajectories, one after another; B that of trajectories.
"""

from __future__ import annotations

from typing import Any, Literal

from array_api_compat import array_namespace, device, is_numpy_array

from stepreward.core.errors import InputError

Array = Any
"""A NumPy array or a torch tensor."""
Alone = Literal["zero", "raw"]
"""What the only member of a group gets: 0, for there is nothing to compare it with, or its own value."""


def sum_by(values: Array, index: Array, n: int) -> Array:
    """(n,) sums of the values that fall into each of `n` bins.

    Args:
        values: (M,) floats.
        index: (M,) integers below `n`.
        n: number of bins.
    """
    xp = array_namespace(values)
    if is_numpy_array(values):
        return xp.bincount(index, weights=values, minlength=n).astype(values.dtype)
    return xp.zeros(n, dtype=values.dtype, device=values.device).index_add_(0, index, values)


def typed(values: Array, like: Array) -> Array:
    """The values in the type of `like`: NumPy would make float64 of integers and float32."""
    return array_namespace(values).astype(values, like.dtype)


class Trajectories:
    """Where the steps of each trajectory lie in a flat array.

    Args:
        offsets: (B + 1,) integers: trajectory b has the steps offsets[b] to offsets[b + 1].
        n: number of steps in all.

    Raises:
        InputError: the offsets do not start at 0, decrease, or do not end at `n`.
    """

    def __init__(self, offsets: Array, n: int) -> None:
        xp = array_namespace(offsets)
        self.sizes = offsets[1:] - offsets[:-1]
        """(B,) steps of each."""
        if offsets.ndim != 1 or offsets.shape[0] < 1 or int(offsets[0]) != 0 or bool(xp.any(self.sizes < 0)):
            raise InputError("offsets must start at 0 and never decrease", remedy="pass (B + 1,) cumulative lengths")
        if int(offsets[-1]) != n:
            raise InputError(
                f"offsets end at {int(offsets[-1])} but there are {n} steps", remedy="pass one value a step"
            )
        self.offsets = offsets
        place = device(offsets)
        self.of = xp.repeat(xp.arange(self.sizes.shape[0], device=place), self.sizes)
        """(N,) trajectory of each step."""
        steps = xp.arange(n, device=place)
        self.position = steps - offsets[self.of]
        """(N,) number of steps before it in its trajectory."""
        self.remaining = self.sizes[self.of] - self.position
        """(N,) steps from it to the end, itself included."""
        self.longest = int(xp.max(self.sizes)) if self.sizes.shape[0] else 0

    def __len__(self) -> int:
        return int(self.sizes.shape[0])

    def total(self, values: Array) -> Array:
        """(B,) sum over each trajectory's steps; 0 where it has none."""
        return sum_by(values, self.of, len(self))

    def mean(self, values: Array, sizes: Array | None = None) -> Array:
        """(B,) sum of values over that of sizes (N,), or over the number of steps; 0 where there is no step."""
        xp = array_namespace(values)
        counts = self.total(xp.ones_like(values) if sizes is None else sizes)
        return xp.where(counts > 0, self.total(values) / xp.where(counts > 0, counts, xp.ones_like(counts)), 0 * counts)

    def spread(self, values: Array) -> Array:
        """(N,) a trajectory's value at each of its steps."""
        return values[self.of]

    def at_end(self, values: Array) -> Array:
        """(N,) a trajectory's value at its last step, 0 at the others."""
        xp = array_namespace(values)
        return xp.where(self.remaining == 1, values[self.of], xp.zeros_like(values[self.of]))

    def next(self, values: Array, *, last: float = 0.0) -> Array:
        """(N,) the value of the step after each, `last` at the ends."""
        return self._shifted(values, 1, last)

    def previous(self, values: Array, *, first: float = 0.0, starts: Array | None = None) -> Array:
        """(N,) the value of the step before each; at the beginnings `starts` (B,), or `first` for all."""
        xp = array_namespace(values)
        before = xp.concat([values[:1], values[:-1]]) if values.shape[0] else values
        start = xp.full_like(values, first) if starts is None else starts[self.of]
        return xp.where(self.position == 0, start, before)

    def to_go(self, values: Array, *, discount: float = 1.0) -> Array:
        """(N,) discounted sums to the end: G_k = v_k + discount * G_{k+1}.

        Doubling: after round j each entry holds the sum over the next 2^j steps, so log2 of the longest trajectory
        rounds do, each a vector operation, and no sum runs over other trajectories.
        """
        made, factor = values, discount
        for reach in _powers(self.longest):
            made = made + factor * self._shifted(made, reach, 0.0)
            factor *= factor
        return made

    def least_to_go(self, values: Array) -> Array:
        """(N,) the least value from each step to the end."""
        xp = array_namespace(values)
        made = values
        for reach in _powers(self.longest):
            made = xp.minimum(made, self._shifted(made, reach, float("inf")))
        return made

    def _shifted(self, values: Array, by: int, fill: float) -> Array:
        """(N,) the value `by` steps later, `fill` past the end."""
        xp = array_namespace(values)
        if by >= values.shape[0]:
            return xp.full_like(values, fill)
        later = xp.concat([values[by:], values[:by]])
        return xp.where(self.remaining > by, later, xp.full_like(values, fill))


def _powers(longest: int) -> list[int]:
    """1, 2, 4, ... below `longest`."""
    return [2**j for j in range(max(longest - 1, 0).bit_length())]


class Groups:
    """Which members belong together.

    Args:
        ids: (M,) integers; equal ones are a group. Any order, any gaps.
    """

    def __init__(self, ids: Array) -> None:
        self.of, self.n = _numbered(ids)
        """(M,) number of each member's group, from 0 in order of the ids; how many groups there are."""

    @classmethod
    def of_pairs(cls, first: Array, second: Array) -> Groups:
        """Members are together if both ids are equal."""
        one, two = cls(first), cls(second)
        return cls(one.of * max(two.n, 1) + two.of)

    def count(self, like: Array) -> Array:
        """(M,) members of each one's group, in the type of `like`."""
        xp = array_namespace(like)
        return sum_by(xp.ones_like(like), self.of, self.n)[self.of]

    def total(self, values: Array) -> Array:
        """(M,) sum over each one's group."""
        return sum_by(values, self.of, self.n)[self.of]

    def mean(self, values: Array, weights: Array | None = None) -> Array:
        """(M,) mean of each one's group, weighted if weights (M,) are given; 0 where all of them are 0."""
        if weights is None:
            return self.total(values) / self.count(values)
        xp, size = array_namespace(values), self.total(weights)
        return self.total(values * weights) / xp.where(size > 0, size, xp.ones_like(size))

    def mean_of_others(self, values: Array, *, alone: float = 0.0) -> Array:
        """(M,) mean of the other members; `alone` where there is none."""
        xp = array_namespace(values)
        others = self.count(values) - 1
        mean = (self.total(values) - values) / xp.where(others > 0, others, xp.ones_like(others))
        return xp.where(others > 0, mean, xp.full_like(values, alone))

    def deviation(self, values: Array, *, correction: int = 1) -> Array:
        """(M,) standard deviation of each one's group; 0 where it has no more than `correction` members.

        Args:
            values: (M,).
            correction: 1 divides by the count less one (`torch.std`), 0 by the count.
        """
        xp = array_namespace(values)
        free = self.count(values) - correction
        square = self.total((values - self.mean(values)) ** 2)
        return xp.sqrt(xp.where(free > 0, square / xp.where(free > 0, free, xp.ones_like(free)), xp.zeros_like(square)))

    def centred(self, values: Array, *, alone: Alone = "zero") -> Array:
        """(M,) values less their group's mean."""
        return self._where_alone(values, values - self.mean(values), alone)

    def standardised(
        self, values: Array, *, epsilon: float = 1e-6, correction: int = 1, alone: Alone = "zero"
    ) -> Array:
        """(M,) values less their group's mean, over its standard deviation plus `epsilon`."""
        scaled = (values - self.mean(values)) / (self.deviation(values, correction=correction) + epsilon)
        return self._where_alone(values, scaled, alone)

    def _where_alone(self, values: Array, made: Array, alone: Alone) -> Array:
        if alone == "zero":
            return made
        return array_namespace(values).where(self.count(values) == 1, values, made)


def _numbered(ids: Array) -> tuple[Array, int]:
    """(M,) rank of each id among those that occur, and their number; without sorting where ids are small."""
    xp = array_namespace(ids)
    size = int(ids.shape[0])
    if size and xp.isdtype(ids.dtype, "integral") and int(xp.min(ids)) >= 0 and int(xp.max(ids)) < 4 * size + 1024:
        occurs = xp.zeros(int(xp.max(ids)) + 1, dtype=xp.bool, device=device(ids))
        occurs[ids] = True
        rank = xp.cumulative_sum(xp.astype(occurs, xp.int64)) - 1
        return rank[ids], int(rank[-1]) + 1
    names = xp.unique_inverse(ids)
    return xp.reshape(names.inverse_indices, (-1,)), int(names.values.shape[0])


def whitened(values: Array, weights: Array | None = None, *, epsilon: float = 1e-8, centre: bool = True) -> Array:
    """(M,) values less their mean over their standard deviation, over everything there is.

    Args:
        values: (M,).
        weights: (M,) how often each counts: a step's tokens, where engines whiten tokens. None counts each once.
        epsilon: added to the variance.
        centre: subtract the mean; if not, only the scale is changed.
    """
    xp = array_namespace(values)
    if not values.shape[0]:
        return values
    counts = xp.ones_like(values) if weights is None else xp.astype(weights, values.dtype)
    size = xp.sum(counts)
    mean = xp.sum(values * counts) / size
    variance = xp.sum(counts * (values - mean) ** 2) / size
    # The unbiased estimate over all that is counted, as verl's and OpenRLHF's masked whitening have it.
    if float(size) > 1:
        variance = variance * (size / (size - 1))
    made = (values - mean) / xp.sqrt(variance + epsilon)
    return made if centre else made + mean
