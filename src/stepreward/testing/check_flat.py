"""The contract of methods on flat arrays: credit and shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepreward.core.files.flat_data import MEASURED_STEPS, OF_TRAJECTORIES
from stepreward.core.method import Method
from stepreward.testing.rules import require

_SIZES, _GROUP = [3, 1, 4, 2, 2, 5], [7, 7, 7, 2, 2, 2]
Data = dict[str, Any]


def check_flat(method: Method[..., Any], *, batch_wide: bool) -> None:
    """Checks a method of credit or shape on trajectories of several lengths in two groups.

    Args:
        method: what is checked.
        batch_wide: whether other groups may change a result.

    Raises:
        ContractError: a rule is broken.
    """
    # Group ids with gaps, in descending order, and trajectories of several lengths.
    data = example(_SIZES, _GROUP)
    before = {name: value.copy() for name, value in data.items()}
    made = _take(method, data)
    for name, value in before.items():
        same = np.array_equal(data[name], value)
        require(same, method, "inputs untouched", f"it wrote into {name}", "work on a copy")
    finite = bool(np.isfinite(made).all())
    require(finite, method, "finite", f"finite data gave {made}", "guard divisions and logarithms")
    _check_apart(method, data, made, batch_wide)
    _check_unscored(method, data)
    small = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in data.items()}
    kind = np.asarray(method.take(small)).dtype
    require(kind == np.float32, method, "precision", f"float32 data gave {kind}", "keep the dtype of the data")
    # A trajectory without steps, a group of one, no steps at all, an empty batch.
    for sizes in ([3, 0, 2], [1], [0, 0], []):
        _take(method, example(sizes, [1] * len(sizes)))


def example(sizes: list[int], group: list[int]) -> Data:
    """Every kind of flat data, drawn for trajectories of these sizes."""
    rng = np.random.default_rng(2)
    n, b = sum(sizes), len(sizes)
    outcome = rng.random(b)
    ids = {name: rng.integers(0, 3, n) for name in ("state", "node", "edge", "said")}
    return {
        "rewards": rng.random(n), "values": rng.random(n), "action_values": rng.random(n), "entropy": rng.random(n),
        "duration": rng.random(n) + 0.5, "grounding": rng.integers(0, 2, n).astype(float), "outcome": outcome,
        "components": np.stack([outcome, rng.random(b)], axis=1), "group": np.array(group, np.int64),
        "prior": rng.random(b) / 2, "references": rng.random((b, 3)), "difficulty": rng.random(b),
        "offsets": np.cumsum([0, *sizes]), "lengths": rng.integers(1, 6, n), "agent": rng.integers(0, 2, n),
        "root": rng.integers(0, 2, b), **ids,
        "turn": np.concatenate([np.zeros(0, np.int64), *(np.arange(size) // 2 for size in sizes)]),
    }  # fmt: skip


def _take(method: Method[..., Any], data: Data) -> Any:
    made = np.asarray(method.take(data))
    n = int(data["offsets"][-1])
    require(made.shape == (n,), method, "one number a step", f"{n} steps gave shape {made.shape}", "return (N,)")
    return made


def _rows(data: Data, rows: list[int]) -> Data:
    """The data of some trajectories alone."""
    offsets = data["offsets"]
    steps = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in rows])
    made = {k: v[rows] if k in OF_TRAJECTORIES else v[steps] for k, v in data.items() if k != "offsets"}
    return made | {"offsets": np.cumsum([0, *(offsets[i + 1] - offsets[i] for i in rows)])}


def _split(data: Data, values: Any) -> list[Any]:
    return np.split(np.asarray(values), data["offsets"][1:-1])


def _check_apart(method: Method[..., Any], data: Data, made: Any, batch_wide: bool) -> None:
    whole, order = _split(data, made), [4, 0, 5, 2, 3, 1]
    moved = _rows(data, order)
    same = all(
        np.allclose(one, whole[i], atol=1e-6) for i, one in zip(order, _split(moved, _take(method, moved)), strict=True)
    )
    require(
        same, method, "order of trajectories", "another order gives other numbers", "depend on no position in the batch"
    )
    alone = _rows(data, [0, 1, 2])
    same = all(
        map(lambda one, other: np.allclose(one, other, atol=1e-9), _split(alone, _take(method, alone)), whole[:3])
    )
    require(same or batch_wide, method, "groups are apart", "another group changes the numbers of this one",
            "take statistics within a group, or pass batch_wide=True where the batch is meant")  # fmt: skip


def _check_unscored(method: Method[..., Any], data: Data) -> None:
    empty = 0.0 if method.family == "credit" else np.nan
    for name in sorted(MEASURED_STEPS & set(method.data)):
        lacking = {**data, name: data[name].copy()}
        lacking[name][4] = np.nan
        made = _take(method, lacking)
        found = f"a step whose {name} is NaN got {made[4]}"
        require(np.array_equal(made[4], empty, equal_nan=True), method, "unscored steps", found, f"give it {empty}")
        others = bool(np.isfinite(np.delete(made, 4)).all())
        found = f"a NaN in {name} reaches other steps"
        require(others, method, "unscored steps", found, "let take() leave it out")
