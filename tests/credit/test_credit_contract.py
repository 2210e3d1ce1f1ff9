"""What every method of the families credit and shape owes, by the registry, so that a new one is held to it too."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from stepreward.core.catalog import credit, shape
from stepreward.core.errors import InputError
from stepreward.core.method import Method

pytestmark = pytest.mark.sampled(2)
METHODS = [*credit, *shape]
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.family}:{m.name}")
BATCH_WIDE = {
    "reinforce++", "reinforce++-baseline", "lite-ppo", "gdpo", "ppo", "empg", "duration-aware", "batch-normal",
    "istar-rloo", "router-r1",
}  # fmt: skip
"""Methods that take statistics over the batch, and say so."""
OUTCOME_ALONE = [m for m in credit if not {"rewards", "values", "components", "entropy"} & set(m.data)]
ROWS = {"outcome", "group", "root", "components", "prior", "references", "difficulty"}
Data = dict[str, Any]


def batch(sizes: list[int], group: list[int], seed: int = 0) -> Data:
    """Every kind of data for trajectories of these sizes."""
    rng = np.random.default_rng(seed)
    n, b = sum(sizes), len(sizes)
    outcome = rng.random(b)
    return {
        "rewards": rng.random(n), "values": rng.random(n), "action_values": rng.random(n), "entropy": rng.random(n),
        "duration": rng.random(n) + 0.5, "grounding": rng.integers(0, 2, n).astype(float), "outcome": outcome,
        "components": np.stack([outcome, rng.random(b)], axis=1), "group": np.array(group, np.int64),
        "prior": rng.random(b) / 2, "references": rng.random((b, 3)), "difficulty": rng.random(b),
        "offsets": np.cumsum([0, *sizes]), "lengths": rng.integers(1, 6, n), "state": rng.integers(0, 3, n),
        "node": rng.integers(0, 4, n), "edge": rng.integers(0, 4, n), "said": rng.integers(0, 4, n),
        "agent": rng.integers(0, 2, n), "root": rng.integers(0, 2, b),
        "turn": np.concatenate([[], *(np.arange(size) // 2 for size in sizes)]).astype(np.int64),
    }  # fmt: skip


def chosen(data: Data, rows: list[int]) -> Data:
    """The data of some trajectories alone."""
    offsets = data["offsets"]
    steps = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in rows])
    made = {name: value[rows] if name in ROWS else value[steps] for name, value in data.items() if name != "offsets"}
    return made | {"offsets": np.cumsum([0, *(offsets[i + 1] - offsets[i] for i in rows)])}


SECOND_HAS_MOST = 2
"""A seed with which the largest step reward is not in the first group, so that a method that scales by it shows."""
SIZES, GROUP = [3, 1, 4, 2, 2, 5], [7, 7, 7, 2, 2, 2]


def split(data: Data, values: Any) -> list[Any]:
    return np.split(np.asarray(values), data["offsets"][1:-1])


@EACH
def test_other_groups_do_not_matter_unless_it_says_so(method: Method) -> None:
    data = batch(SIZES, GROUP, seed=SECOND_HAS_MOST)
    alone = split(chosen(data, [0, 1, 2]), method.take(chosen(data, [0, 1, 2])))
    together = split(data, method.take(data))[:3]
    same = all(np.allclose(one, other, atol=1e-9) for one, other in zip(alone, together, strict=True))
    assert same == (method.name not in BATCH_WIDE)


@EACH
def test_trajectories_may_come_in_any_order(method: Method) -> None:
    data, order = batch(SIZES, GROUP), [4, 0, 5, 2, 3, 1]
    here, there = split(data, method.take(data)), split(chosen(data, order), method.take(chosen(data, order)))
    for place, i in enumerate(order):
        np.testing.assert_allclose(there[place], here[i], atol=1e-6)


@EACH
def test_numpy_and_torch_give_the_same_in_the_input_s_precision(method: Method) -> None:
    data = batch(SIZES, GROUP)
    exact = np.asarray(method.take(data))
    assert exact.shape == (sum(SIZES),)
    assert exact.dtype == np.float64
    small = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in data.items()}
    for given in (small, {k: torch.as_tensor(v) for k, v in small.items()}):
        made = method.take(given)
        assert str(made.dtype).removeprefix("torch.") == "float32"
        np.testing.assert_allclose(np.asarray(made), exact, rtol=2e-3, atol=2e-4)
    again = method.take({k: torch.as_tensor(v) for k, v in data.items()})
    np.testing.assert_allclose(np.asarray(again), exact, atol=1e-9)


@EACH
def test_it_leaves_what_it_is_given_alone(method: Method) -> None:
    data = batch(SIZES, GROUP)
    before = {name: value.copy() for name, value in data.items()}
    for given in (data, {k: torch.as_tensor(v) for k, v in data.items()}):
        method.take(given)
    for name, value in before.items():
        np.testing.assert_array_equal(data[name], value)


@EACH
@pytest.mark.parametrize("torches", [False, True], ids=["numpy", "torch"])
def test_a_trajectory_without_steps_and_a_batch_without_trajectories(method: Method, torches: bool) -> None:
    def take(data: Data) -> Any:
        return np.asarray(method.take({k: torch.as_tensor(v) for k, v in data.items()} if torches else data))

    for sizes in ([3, 0, 2], [0, 2, 2], [2, 2, 0]):
        data = batch(sizes, [1, 1, 1])
        made = take(data)
        assert made.shape == (sum(sizes),)
        assert np.isfinite(made).all()
    assert take(batch([0, 0], [1, 1])).shape == (0,)
    assert take(batch([], [])).shape == (0,)


@EACH
def test_one_trajectory_alone_is_finite(method: Method) -> None:
    for sizes in ([1], [4]):
        assert np.isfinite(np.asarray(method.take(batch(sizes, [3])))).all()


@pytest.mark.sampled(4)
@EACH
@pytest.mark.parametrize("torches", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize("kind", [np.bool_, np.int32, np.int64, np.uint8])
def test_counts_and_truth_values_are_numbers(method: Method, torches: bool, kind: Any) -> None:
    data = batch(SIZES, GROUP)
    for name in ("outcome", "rewards"):
        whole = np.arange(len(data[name])) % 3 % 2
        expected = np.asarray(method.take({**data, name: whole.astype(np.float64)}))
        given = {**data, name: whole.astype(kind)}
        found = method.take({k: torch.as_tensor(v) for k, v in given.items()} if torches else given)
        np.testing.assert_allclose(np.asarray(found), expected, atol=1e-9)


@EACH
def test_ids_may_be_of_any_integer_type_and_have_gaps(method: Method) -> None:
    data = batch(SIZES, [200, 200, 200, 7, 7, 7])
    ids = {"group", "state", "node", "edge", "said", "agent", "root", "turn", "offsets"} & set(method.data)
    expected = np.asarray(method.take(data))
    for kind in (np.uint8, np.int16, np.int32):
        given = data | {name: data[name].astype(kind) for name in ids}
        np.testing.assert_allclose(np.asarray(method.take(given)), expected, atol=1e-12)
        found = method.take({k: torch.as_tensor(v) for k, v in given.items()})
        np.testing.assert_allclose(np.asarray(found), expected, atol=1e-9)


@EACH
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_loses_digits_but_not_counts(method: Method, kind: torch.dtype) -> None:
    # Sums in bfloat16 stop growing at 256, and in float16 at 65,504: 600 steps of a group, 90,000 tokens of the batch.
    data = batch([2] * 300, [1] * 300)
    data["lengths"] = data["lengths"] * 50
    given = {k: torch.as_tensor(v) for k, v in data.items()}
    small = {k: v.to(kind) if v.dtype == torch.float64 else v for k, v in given.items()}
    # What rounding of the inputs alone does, a threshold's other side included, is not the estimator's.
    exact = method.take({k: v.double() if v.dtype == kind else v for k, v in small.items()})
    found = method.take(small)
    assert found.dtype == kind
    if method.name != "prof":  # it ranks means, which rounding may swap
        torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.02 * max(1.0, float(exact.abs().max())))


UNSCORED = (
    {"outcome", "prior", "difficulty"},
    {"rewards", "values", "action_values", "entropy", "duration", "grounding"},
)
"""What says that a trajectory, or a step, is unscored where it is NaN."""


def as_torch(data: Data) -> Data:
    return {k: torch.as_tensor(v) for k, v in data.items()}


@pytest.mark.sampled(4)
@EACH
@pytest.mark.parametrize("torches", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize("row", range(6))
def test_an_unscored_trajectory_is_as_if_it_were_not_there(method: Method, torches: bool, row: int) -> None:
    data = batch(SIZES, GROUP)
    others = [i for i in range(len(SIZES)) if i != row]
    expected = split(chosen(data, others), method.take(chosen(data, others)))
    for name in sorted(UNSCORED[0] & set(method.data)):
        lacking = {**data, name: data[name].copy()}
        lacking[name][row] = np.nan
        found = split(data, method.take(as_torch(lacking) if torches else lacking))
        np.testing.assert_array_equal(found[row], 0.0 if method.family == "credit" else np.nan)
        for i, one in zip(others, expected, strict=True):
            np.testing.assert_allclose(found[i], one, atol=1e-9)


def without_step(data: Data, step: int) -> Data:
    """The data without a step; where it was the only one, without its trajectory."""
    owner = int(np.searchsorted(data["offsets"], step, side="right")) - 1
    rows = [i for i in range(len(data["outcome"])) if i != owner or np.diff(data["offsets"])[owner] > 1]
    place = np.concatenate([np.arange(size) for size in np.diff(data["offsets"])])
    sizes = np.diff(data["offsets"]) - (np.arange(len(data["outcome"])) == owner)
    made = {
        name: value[rows] if name in ROWS else np.delete(value, step)
        for name, value in {**data, "place": place}.items()
        if name != "offsets"
    }
    return made | {"offsets": np.cumsum([0, *sizes[rows]])}


@pytest.mark.sampled(4)
@EACH
@pytest.mark.parametrize("torches", [False, True], ids=["numpy", "torch"])
def test_an_unscored_step_is_as_if_it_were_not_there_and_keeps_its_number(method: Method, torches: bool) -> None:
    data = batch(SIZES, GROUP)
    for step in range(sum(SIZES)):
        expected = np.asarray(method.take(without_step(data, step)))
        for name in sorted(UNSCORED[1] & set(method.data)):
            lacking = {**data, name: data[name].copy()}
            lacking[name][step] = np.nan
            found = np.asarray(method.take(as_torch(lacking) if torches else lacking))
            np.testing.assert_array_equal(found[step], 0.0 if method.family == "credit" else np.nan)
            np.testing.assert_allclose(np.delete(found, step), expected, atol=1e-9)


@EACH
def test_other_groups_do_not_see_the_unscored_unless_the_method_is_batch_wide(method: Method) -> None:
    data = batch(SIZES, GROUP)
    whole = split(data, method.take(data))[3:]
    for name in sorted((UNSCORED[0] | UNSCORED[1]) & set(method.data)):
        lacking = {**data, name: data[name].copy()}
        lacking[name][0] = np.nan
        found = split(data, method.take(lacking))[3:]
        same = all(np.allclose(one, other, atol=1e-9) for one, other in zip(found, whole, strict=True))
        assert same or method.name in BATCH_WIDE


@EACH
@pytest.mark.parametrize("torches", [False, True], ids=["numpy", "torch"])
def test_a_batch_of_which_nothing_is_scored(method: Method, torches: bool) -> None:
    data = batch(SIZES, GROUP)
    for names in UNSCORED:
        names = names | {"components"} if "outcome" in names else names
        lacking = data | {name: np.full_like(data[name], np.nan) for name in names}
        found = np.asarray(method.take(as_torch(lacking) if torches else lacking))
        if names & set(method.data):
            np.testing.assert_array_equal(found, np.full(sum(SIZES), 0.0 if method.family == "credit" else np.nan))


@EACH
def test_lists_none_and_masked_arrays_are_read(method: Method) -> None:
    data = batch(SIZES, GROUP)
    data["said"] = np.arange(sum(SIZES))
    lacking = {**data, "rewards": data["rewards"].copy(), "outcome": data["outcome"].copy()}
    lacking["rewards"][1] = lacking["outcome"][3] = np.nan
    expected = np.asarray(method.take(lacking))
    as_json = {k: v.tolist() for k, v in data.items()}
    as_json["rewards"][1] = as_json["outcome"][3] = None
    np.testing.assert_allclose(method.take(as_json), expected, atol=1e-12)
    hidden = {k: np.ma.masked_array(data[k], np.isnan(lacking[k])) for k in ("rewards", "outcome")}
    np.testing.assert_allclose(method.take(data | hidden), expected, atol=1e-12)
    mixed = as_json | {"offsets": torch.as_tensor(data["offsets"]), "group": data["group"].astype(str)}
    found = method.take(mixed)
    assert isinstance(found, torch.Tensor) == ("offsets" in method.data)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-9)


@EACH
@pytest.mark.parametrize("wrong", [["0.5"] * 17, np.array(["a"] * 17), [[0.1], [0.1, 0.2]], [{}] * 17, [1j] * 17])
def test_what_is_no_number_is_told(method: Method, wrong: Any) -> None:
    for name in {"rewards", "values"} & set(method.data):
        with pytest.raises(InputError, match=f"{re.escape(method.name)}: '{name}' is no array of numbers"):
            method.take({**batch(SIZES, GROUP), name: wrong})


def test_a_method_called_by_itself_keeps_the_same_rule() -> None:
    outcome, group, offsets = [1.0, 0.0, None, 1.0], ["a"] * 4, [0, 1, 2, 3, 4]
    # Of 1, 0, 1: mean 2/3 and deviation 1/sqrt 3, so 0.57725 and -1.1545 with epsilon 1e-4.
    made = credit["grpo"](outcome, group, offsets)  # type: ignore[arg-type]
    np.testing.assert_allclose(made, [0.57725, -1.1545, 0, 0.57725], atol=1e-4)


@pytest.mark.parametrize("method", OUTCOME_ALONE, ids=lambda m: m.name)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("torches", [False, True], ids=["numpy", "torch"])
def test_equal_outcomes_teach_nothing(method: Method, kind: Any, torches: bool) -> None:
    # A third of 0.1 three times is no 0.1, and the rest over a deviation as small was once a full advantage.
    data = batch([3] * 12, [0] * 5 + [1] * 7)
    data["outcome"] = np.repeat([0.1, 0.7], [5, 7])
    data["prior"] = np.zeros(12)
    given = {k: v.astype(kind) if v.dtype == np.float64 else v for k, v in data.items()}
    if method.name in BATCH_WIDE:
        given["outcome"] = np.full(12, 0.1, kind)
    found = np.asarray(method.take({k: torch.as_tensor(v) for k, v in given.items()} if torches else given))
    np.testing.assert_allclose(found, 0, atol=1e-7)


@pytest.mark.parametrize("method", [m for m in METHODS if "offsets" in m.data], ids=lambda m: f"{m.family}:{m.name}")
def test_what_does_not_fit_is_told(method: Method) -> None:
    data = batch(SIZES, GROUP)
    for name in set(method.data) - {"offsets"}:
        more = len(data[name]) + 1
        for torches in (False, True):
            given = {**data, name: np.concatenate([data[name], data[name][:1]])}
            with pytest.raises(
                InputError, match=rf"{re.escape(method.name)}: '{name}' has {more} entries for {more - 1} "
            ):
                method.take({k: torch.as_tensor(v) for k, v in given.items()} if torches else given)
