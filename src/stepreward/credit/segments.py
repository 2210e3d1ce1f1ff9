"""Flat arrays cut into trajectories and groups: sums, running sums and statistics without a Python loop.

Everything works on NumPy arrays and on torch tensors of any device alike, in the input's own type. N is the number of
steps of all trajectories, one after another; B that of trajectories.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

from array_api_compat import array_namespace, device, is_numpy_array

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.credit import scans

Array: TypeAlias = scans.Array
Alone = Literal["zero", "raw"]
"""What the only member of a group gets: 0, for there is nothing to compare it with, or its own value."""


def sum_by(values: Array, index: Array, n: int) -> Array:
    """(n,) sums of the values that fall into each of `n` bins, in their own type; float64 where they are no floats.

    Args:
        values: (M,) numbers.
        index: (M,) integers below `n`.
        n: number of bins.
    """
    return typed(_float64_sum(values, index, n), values)


def typed(values: Array, like: Array) -> Array:
    """The values in the type of `like`, or in float64 where that is no float.

    NumPy would make float64 of integers and float32; and truth values are outcomes, but no type to count in.
    """
    xp = array_namespace(values)
    floats = array_namespace(like).isdtype(like.dtype, "real floating")
    return xp.astype(values, like.dtype, copy=False) if floats else _in_float64(values)


def _in_float64(values: Array) -> Array:
    """The values in float64, so that long sums and counts are exact enough; Metal only has float32."""
    xp = array_namespace(values)
    narrow = getattr(device(values), "type", "") == "mps"
    return xp.astype(values, xp.float32 if narrow else xp.float64, copy=False)


def _float64_sum(values: Array, index: Array, n: int) -> Array:
    xp, wide = array_namespace(values), _in_float64(values)
    _check_length(values, int(index.shape[0]), "members")
    # Indices repeat: plain indexed addition would keep the last write of each bin alone.
    if is_numpy_array(values):
        return xp.bincount(index, weights=wide, minlength=n)
    return xp.zeros(n, dtype=wide.dtype, device=wide.device).index_add_(0, index, wide)


def _check_length(values: Array, n: int, what: str) -> None:
    if values.shape[0] != n:
        raise InputError(f"{values.shape[0]} values for {n} {what}", remedy="pass one for each")


def one_of(name: str, value: str, options: Any) -> None:
    """Checks a setting that names one of the options of a `Literal`.

    Raises:
        UnknownNameError: it names none of them.
    """
    if value not in get_args(options):
        raise UnknownNameError(f"value of {name}", value, get_args(options))


class Trajectories:
    """The trajectories of a flat array of steps.

    Args:
        offsets: (B + 1,) integers: trajectory b has the steps offsets[b] to offsets[b + 1].
        n: number of steps in all.

    Raises:
        InputError: the offsets do not start at 0, decrease, or do not end at `n`.
    """

    def __init__(self, offsets: Array, n: int) -> None:
        xp = array_namespace(offsets)
        # Unsigned offsets would never have negative differences, and torch does not index by short integers.
        offsets = xp.astype(offsets, xp.int64, copy=False)
        self.sizes = offsets[1:] - offsets[:-1]
        """(B,) steps of each."""
        if offsets.ndim != 1 or offsets.shape[0] < 1 or int(offsets[0]) != 0 or bool(xp.any(self.sizes < 0)):
            what = f"offsets must start at 0 and never decrease, got {offsets}"
            raise InputError(what, remedy="pass (B + 1,) cumulative lengths")
        if int(offsets[-1]) != n:
            raise InputError(
                f"offsets end at {int(offsets[-1])} but there are {n} steps", remedy="pass one value a step"
            )
        self.offsets, self.n = offsets, n
        self.longest = int(xp.max(self.sizes)) if self.sizes.shape[0] else 0

    def __len__(self) -> int:
        return int(self.sizes.shape[0])

    @cached_property
    def of(self) -> Array:
        """(N,) trajectory of each step."""
        xp = array_namespace(self.offsets)
        return xp.repeat(xp.arange(len(self), device=device(self.offsets)), self.sizes)

    @cached_property
    def position(self) -> Array:
        """(N,) number of steps before it in its trajectory."""
        xp = array_namespace(self.offsets)
        return xp.arange(self.n, device=device(self.offsets)) - self.offsets[self.of]

    @cached_property
    def remaining(self) -> Array:
        """(N,) steps from it to the end, itself included."""
        return self.sizes[self.of] - self.position

    @cached_property
    def ends(self) -> Array:
        """(N,) True at the last step of each trajectory."""
        xp = array_namespace(self.offsets)
        made = xp.zeros(self.n, dtype=xp.bool, device=device(self.offsets))
        # A trajectory without steps has no last one: its offset would mark another's.
        made[self.offsets[1:][self.sizes > 0] - 1] = True
        return made

    def total(self, values: Array) -> Array:
        """(B,) sum over each trajectory's steps; 0 where it has none.

        Raises:
            InputError: another number of values than steps.
        """
        return sum_by(values, self.of, len(self))

    def mean(self, values: Array, sizes: Array | None = None) -> Array:
        """(B,) sum of values over that of sizes (N,), or over the number of steps; 0 where there is no step."""
        weights = array_namespace(values).ones_like(values) if sizes is None else sizes
        n = len(self)
        return typed(_ratio(_float64_sum(values, self.of, n), _float64_sum(weights, self.of, n)), values)

    def spread(self, values: Array) -> Array:
        """(N,) a trajectory's value at each of its steps.

        Raises:
            InputError: another number of values than trajectories.
        """
        _check_length(values, len(self), "trajectories")
        return values[self.of]

    def at_end(self, values: Array) -> Array:
        """(N,) a trajectory's value at its last step, 0 at the others."""
        xp, spread = array_namespace(values), self.spread(values)
        return xp.where(self.ends, spread, xp.zeros_like(spread))

    def next(self, values: Array, *, last: float = 0.0) -> Array:
        """(N,) the value of the step after each, `last` at the ends."""
        xp = array_namespace(values)
        _check_length(values, self.n, "steps")
        # The rotation brings the first value to the end of all, which `last` replaces.
        return xp.where(self.ends, xp.full_like(values, last), xp.concat([values[1:], values[:1]]))

    def previous(self, values: Array, *, first: float = 0.0, starts: Array | None = None) -> Array:
        """(N,) the value of the step before each; at the beginnings `starts` (B,), or `first` for all."""
        xp = array_namespace(values)
        _check_length(values, self.n, "steps")
        before = xp.concat([values[:1], values[:-1]]) if values.shape[0] else values
        start = xp.full_like(values, first) if starts is None else self.spread(starts)
        return xp.where(self.position == 0, start, before)

    def to_go(self, values: Array, *, discount: float = 1.0) -> Array:
        """(N,) discounted sums to the end: G_k = v_k + discount * G_{k+1}."""
        _check_length(values, self.n, "steps")
        return scans.sums_to_go(typed(values, values), self.ends, self.longest, discount=discount)

    def least_to_go(self, values: Array) -> Array:
        """(N,) the least value from each step to the end."""
        _check_length(values, self.n, "steps")
        return scans.least_to_go(typed(values, values), self.ends, self.longest)


class Groups:
    """A partition of the members of a batch into groups.

    Args:
        ids: (M,) integers; equal ones are a group. Any order, any gaps.
    """

    def __init__(self, ids: Array) -> None:
        self.of, self.n = _rank_ids(ids)
        """(M,) number of each member's group, from 0 in order of the ids; how many groups there are."""

    @classmethod
    def of_pairs(cls, first: Array, second: Array) -> Groups:
        """Members are together if both ids are equal."""
        _check_length(second, int(first.shape[0]), "members")
        one, two = cls(first), cls(second)
        # One integer a pair. A batch without members has no second id: 1 keeps the product defined.
        return cls(one.of * max(two.n, 1) + two.of)

    def count(self, like: Array) -> Array:
        """(M,) members of each one's group, in the type of `like`."""
        return typed(self._sum(array_namespace(like).ones_like(like)), like)

    def total(self, values: Array) -> Array:
        """(M,) sum over each one's group."""
        return typed(self._sum(values), values)

    def mean(self, values: Array, weights: Array | None = None) -> Array:
        """(M,) mean of each one's group, weighted if weights (M,) are given; 0 where all of them are 0."""
        return typed(_ratio(self._sum(values, weights), self._size(values, weights)), values)

    def mean_of_others(self, values: Array, weights: Array | None = None, *, alone: float = 0.0) -> Array:
        """(M,) mean of the other members, weighted if weights (M,) are given; `alone` where there is none."""
        xp, wide = array_namespace(values), _in_float64(values)
        mine = xp.ones_like(wide) if weights is None else _in_float64(weights)
        # Sums less the own part: no loop over members, and one pass for all groups.
        others = self._size(values, weights) - mine
        mean = _ratio(self._sum(values, weights) - wide * mine, others)
        return typed(xp.where(others > 0, mean, xp.full_like(wide, alone)), values)

    def deviation(self, values: Array, weights: Array | None = None, *, correction: int = 1) -> Array:
        """(M,) standard deviation of each one's group; 0 where it has no more than `correction` members.

        Args:
            values: (M,).
            weights: (M,) how often each counts. None counts each once.
            correction: 1 divides by the count less one (`torch.std`), 0 by the count.
        """
        return typed(self._deviation(self._residual(values, weights), weights, correction), values)

    def centred(self, values: Array, weights: Array | None = None, *, alone: Alone = "zero") -> Array:
        """(M,) values less their group's mean, weighted if weights (M,) are given; exactly 0 where all are equal."""
        return self._where_alone(values, typed(self._residual(values, weights), values), alone)

    def standardised(
        self,
        values: Array,
        weights: Array | None = None,
        *,
        epsilon: float = 1e-6,
        correction: int = 1,
        alone: Alone = "zero",
    ) -> Array:
        """(M,) values less their group's mean, over its deviation plus `epsilon`; exactly 0 where all are equal.

        Args:
            values: (M,).
            weights: (M,) how often each counts. None counts each once.
            epsilon: added to the deviation.
            correction: as in `deviation`.
            alone: what the only member of its group gets.
        """
        residual = self._residual(values, weights)
        scaled = residual / (self._deviation(residual, weights, correction) + epsilon)
        return self._where_alone(values, typed(scaled, values), alone)

    def _sum(self, values: Array, weights: Array | None = None) -> Array:
        counted = values if weights is None else _in_float64(values) * _in_float64(weights)
        return _float64_sum(counted, self.of, self.n)[self.of]

    def _size(self, values: Array, weights: Array | None) -> Array:
        return self._sum(array_namespace(values).ones_like(values) if weights is None else weights)

    def _residual(self, values: Array, weights: Array | None) -> Array:
        """(M,) values less their group's mean."""
        # One of the group's values is subtracted first. Where all are equal, rounding in the mean would else leave a
        # tiny residual and a tiny deviation, whose quotient is arbitrary and not 0.
        wide = _in_float64(values)
        _check_length(values, int(self.of.shape[0]), "members")
        pivot = array_namespace(wide).zeros(self.n, dtype=wide.dtype, device=device(wide))
        pivot[self.of] = wide  # Any member of the group will do: the last write wins.
        lifted = wide - pivot[self.of]
        return lifted - _ratio(self._sum(lifted, weights), self._size(lifted, weights))

    def _deviation(self, residual: Array, weights: Array | None, correction: int) -> Array:
        free = self._size(residual, weights) - correction
        return array_namespace(residual).sqrt(_ratio(self._sum(residual**2, weights), free))

    def _where_alone(self, values: Array, made: Array, alone: Alone) -> Array:
        one_of("alone", alone, Alone)
        if alone == "zero":
            return made
        return array_namespace(values).where(self.count(values) == 1, typed(values, values), made)


def _ratio(values: Array, sizes: Array) -> Array:
    """Values over sizes; 0 where a size is not positive."""
    xp = array_namespace(values)
    # Both branches of a `where` are computed: the inner one keeps 0 out of the divisor.
    return xp.where(sizes > 0, values / xp.where(sizes > 0, sizes, xp.ones_like(sizes)), xp.zeros_like(values))


def _rank_ids(ids: Array) -> tuple[Array, int]:
    """(M,) rank of each id among the distinct ids, and the number of distinct ids."""
    xp = array_namespace(ids)
    if not xp.isdtype(ids.dtype, ("bool", "integral")):
        return _sorted_ranks(ids)
    # torch reads an index of bytes as a mask and refuses short integers: int64 works in every library.
    ids = xp.astype(ids, xp.int64, copy=False)
    size = int(ids.shape[0])
    largest = int(xp.max(ids)) if size else 0
    # A table of all ids up to the largest needs no sort, and is faster while it is not much longer than the ids.
    if not size or int(xp.min(ids)) < 0 or largest >= 4 * size + 1024:
        return _sorted_ranks(ids)
    occurs = xp.zeros(largest + 1, dtype=xp.bool, device=device(ids))
    occurs[ids] = True
    rank = xp.cumulative_sum(xp.astype(occurs, xp.int64)) - 1
    return rank[ids], int(rank[-1]) + 1


def _sorted_ranks(ids: Array) -> tuple[Array, int]:
    xp = array_namespace(ids)
    distinct = xp.unique_inverse(ids)
    return xp.reshape(distinct.inverse_indices, (-1,)), int(distinct.values.shape[0])


def whitened(values: Array, weights: Array | None = None, *, epsilon: float = 1e-8, centre: bool = True) -> Array:
    """(M,) values less their mean, over their standard deviation, over the whole batch.

    Args:
        values: (M,).
        weights: (M,) how often each counts: a step's tokens, where engines whiten tokens. None counts each once.
        epsilon: added to the variance.
        centre: subtract the mean; if not, only the scale is changed.
    """
    xp = array_namespace(values)
    if not values.shape[0]:
        return typed(values, values)
    wide = _in_float64(values)
    counts = xp.ones_like(wide) if weights is None else _in_float64(weights)
    size = xp.sum(counts)
    # As in `Groups._residual`: equal values must give exactly 0.
    lifted = wide - wide[0]
    mean = xp.sum(lifted * counts) / size
    variance = xp.sum(counts * (lifted - mean) ** 2) / size
    # The unbiased estimate, as in the masked whitening of verl and OpenRLHF.
    if float(size) > 1:
        variance = variance * (size / (size - 1))
    made = (lifted - mean) / xp.sqrt(variance + epsilon)
    return typed(made if centre else made + mean + wide[0], values)
