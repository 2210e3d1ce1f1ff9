"""Flat data of a method: converted to arrays, checked, and without unscored steps.

N steps of B trajectories, one after another; `offsets` (B + 1,) says where each trajectory begins. NaN means
*unscored*: the step or trajectory is removed before a method runs, so that no method can count it, and its entry of the
result is filled in afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sized
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj, is_numpy_array

from stepreward.core.errors import InputError

Array = Any
"""A NumPy array or a torch tensor."""
OF_TRAJECTORIES = frozenset({"outcome", "group", "prior", "difficulty", "components", "references", "root"})
"""Data beside `offsets` with one entry a trajectory; all others have one a step."""
MEASURED_STEPS = frozenset({"rewards", "values", "action_values", "entropy", "duration", "grounding"})
"""Real numbers of steps: a step is unscored where one that the method takes is NaN."""
MEASURED = MEASURED_STEPS | {"outcome", "prior", "difficulty", "components", "references"}
"""Real numbers: counts and truth values among them are taken in float64, as 0.5 is no integer."""
NAMES = frozenset({"group", "state", "node", "edge", "said", "agent", "root", "turn"})
"""Identities: text or integers."""
RAGGED = "references"
"""Data with any number of entries a trajectory: the rows of a list may differ in length."""
PLACE = "place"
"""Number of each step in its trajectory, from `offsets` where it is not given: an unscored step keeps its number."""


def flat(method: str, data: Mapping[str, Any]) -> dict[str, Array]:
    """The data as arrays of one library: tensors on the device of the first one if any is a tensor, else NumPy.

    Lists are read, `None` in them and masked entries are NaN.

    Raises:
        InputError: data are no numbers, or their number of entries does not match `offsets`.
    """
    made = {name: _as_array(method, name, value) for name, value in data.items()}
    tensors = [value for value in made.values() if not is_numpy_array(value)]
    if tensors and len(tensors) < len(made):
        xp, place = array_namespace(tensors[0]), device(tensors[0])
        made = {k: xp.asarray(v, device=place) if is_numpy_array(v) else v for k, v in made.items()}
    if "offsets" in made:
        _check_lengths(method, made)
    return made


def numbers(what: str, value: Any) -> Array:
    """Real numbers from an array, a list with `None`, or a masked array; NaN where there is none.

    Raises:
        InputError: it holds something else.
    """
    if isinstance(value, np.ma.MaskedArray):
        value = np.ma.filled(value.astype(np.float64), np.nan)
    if not is_array_api_obj(value) or (is_numpy_array(value) and value.dtype.kind not in "fiub"):
        value = _as_numbers(what, value)
    xp = array_namespace(value)
    return xp.astype(value, xp.float64) if xp.isdtype(value.dtype, ("bool", "integral")) else value


def _as_numbers(what: str, value: Any) -> np.ndarray[Any, Any]:
    try:
        raw = np.asarray(value)
        words = raw.dtype.kind == "O" and any(isinstance(v, str | bytes) for v in raw.flat)
        if words or raw.dtype.kind not in "fiubO":
            raise TypeError(f"it holds {raw.dtype} data" if raw.dtype.kind not in "OUS" else "it holds text")
        return raw if raw.dtype.kind in "fiub" else raw.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{what} is no array of numbers: {error}", remedy="pass numbers, NaN or None where nothing was measured"
        ) from error


def _as_array(method: str, name: str, value: Any) -> Array:
    if name in MEASURED:
        return numbers(f"{method}: {name!r}", _padded(value) if name == RAGGED else value)
    if is_array_api_obj(value) and not (is_numpy_array(value) and value.dtype.kind in "OUS"):
        return value
    try:
        made = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{method}: {name!r} is no array: {error}", remedy="pass lists of one length") from error
    if name in NAMES and made.dtype.kind in "OUS":
        return np.unique(made.astype(str), return_inverse=True)[1].reshape(made.shape)
    if made.dtype.kind not in "fiub":
        raise InputError(f"{method}: {name!r} holds {made.dtype} data", remedy="pass integers")
    return made.astype(np.int64) if not made.size else made


def _padded(rows: Any) -> Any:
    """A list of rows with `None` behind the shorter ones; anything else as it is."""
    if not isinstance(rows, list | tuple) or not all(isinstance(row, Sized) for row in rows):
        return rows
    width = max(map(len, rows), default=0)
    return [[*row, *[None] * (width - len(row))] for row in rows]


def _check_lengths(method: str, data: Mapping[str, Array]) -> None:
    """Refuses flat data that do not have one entry for each step or trajectory of `offsets`."""
    offsets = data["offsets"]
    xp = array_namespace(offsets)
    if offsets.ndim != 1 or not offsets.shape[0] or not xp.isdtype(offsets.dtype, "integral"):
        raise InputError(
            f"{method}: offsets are {offsets.dtype} of shape {tuple(offsets.shape)}", remedy="pass (B + 1,) integers"
        )
    whole = xp.astype(offsets, xp.int64, copy=False)
    if int(whole[0]) != 0 or bool(xp.any(whole[1:] < whole[:-1])):
        raise InputError(
            f"offsets must start at 0 and never decrease, got {offsets}", remedy="pass (B + 1,) cumulative lengths"
        )
    trajectories, steps = (offsets.shape[0] - 1, "trajectories"), (int(offsets[-1]), "steps")
    for name in data.keys() - {"offsets"}:
        (expected, what), found = trajectories if name in OF_TRAJECTORIES else steps, data[name].shape[:1]
        if found != (expected,):
            entries = found[0] if found else "no"
            raise InputError(
                f"{method}: '{name}' has {entries} entries for {expected} {what}",
                remedy="pass one for each, as 'offsets' counts them",
            )


def scored_only(data: dict[str, Array], call: Callable[..., Array], fill: float) -> Array:
    """Calls a method on the batch without unscored steps, and puts `fill` at the steps that were left out.

    A step is unscored where any of its numbers is NaN; a trajectory where its outcome or prior is, all components are,
    or none of its steps is scored. The others get exactly what they get in a batch without it.

    Args:
        data: flat data by name.
        call: the method.
        fill: 0 for advantages; NaN for rewards, which stay unscored.
    """
    rows, steps = _unscored(data, OF_TRAJECTORIES), _unscored(data, MEASURED_STEPS)
    if rows is None and steps is None:
        return call(**data)
    if "offsets" not in data:
        assert steps is not None, "what has data of trajectories has offsets"
        kept = ~steps
        return _filled(call(**{name: value[kept] for name, value in data.items()}), kept, fill)
    xp = array_namespace(data["offsets"])
    offsets = xp.astype(data["offsets"], xp.int64, copy=False)
    sizes = offsets[1:] - offsets[:-1]
    of = xp.repeat(xp.arange(sizes.shape[0], device=device(offsets)), sizes)
    kept = xp.ones(of.shape[0], dtype=xp.bool, device=device(offsets)) if steps is None else ~steps
    # A trajectory none of whose steps is scored is left out; one that has no steps at all keeps its outcome.
    left = _counts(of[kept], sizes.shape[0])
    scored = (left > 0) | (sizes == 0) if rows is None else ~rows & ((left > 0) | (sizes == 0))
    kept = kept & scored[of]
    less = {
        name: value[scored if name in OF_TRAJECTORIES else kept] for name, value in data.items() if name != "offsets"
    }
    less["offsets"] = xp.cumulative_sum(left[scored], include_initial=True)
    return _filled(call(**less), kept, fill)


def _filled(made: Array, kept: Array, fill: float) -> Array:
    xp = array_namespace(made)
    whole = xp.full(kept.shape[0], fill, dtype=made.dtype, device=device(made))
    whole[kept] = made
    return whole


def _unscored(data: Mapping[str, Array], names: frozenset[str]) -> Array | None:
    """True where some of the measured data are NaN; None where none are."""
    found = None
    for name in names & MEASURED & data.keys():
        xp = array_namespace(data[name])
        missing = xp.isnan(data[name])
        if not bool(xp.any(missing)):
            continue
        if missing.ndim > 1:
            missing = xp.all(xp.reshape(missing, (missing.shape[0], math.prod(missing.shape[1:]))), axis=1)
        found = missing if found is None else found | missing
    return found


def _counts(index: Array, n: int) -> Array:
    """(n,) how often each integer below `n` occurs."""
    xp = array_namespace(index)
    ends = xp.searchsorted(index, xp.arange(n + 1, device=device(index), dtype=index.dtype))
    return ends[1:] - ends[:-1]


def places(offsets: Array) -> Array:
    """(N,) number of each step in its trajectory, from 0."""
    xp = array_namespace(offsets)
    begins = xp.astype(offsets[:-1], xp.int64)
    sizes = xp.astype(offsets[1:], xp.int64) - begins
    return xp.arange(int(offsets[-1]), device=device(offsets)) - xp.repeat(begins, sizes)
