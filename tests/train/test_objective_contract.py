"""What every objective must hold: right gradients; padding, order and unknown entries change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from stepreward.core.catalog import loss as family
from stepreward.core.method import Method
from stepreward.train.objectives.loss import Loss

NAN = float("nan")
OUTPUTS = (
    "logits", "outputs", "ends", "totals", "token_rewards", "token_values", "users", "latents", "features", "views",
)  # fmt: skip
"""What a model says; everything else is data."""
WIDTH = {
    "columns": 2, "birm": 2, "path-finder": 3, "grid": 3, "general-preference": 4, "step-and-trajectory": 2,
    "ensemble": 5, "value-and-length": 64, "archer": 4, "b-coder": 4, "palbert": 8,
}  # fmt: skip
"""Outputs of a step, 2 or 3 or whatever the objective's settings say."""
ROWS, STEPS, TOKENS = 5, 4, 6
OF_PAIRS = ("pairs", "strength", "siblings", "gap", "annotator", "users", "latents")
"""Data with an entry for each pair, not for each trajectory."""


def width(method: Method[..., Any]) -> int:
    return len(method.settings["quantiles"]) if "quantiles" in method.settings else WIDTH.get(method.name, 2)


def draw(method: Method[..., Any], seed: int) -> dict[str, torch.Tensor]:
    """Random data, some of it unknown, in double precision; every row has a supervised step and a known outcome."""
    rng, k = np.random.default_rng(seed), width(method)
    lengths = rng.integers(1, STEPS + 1, ROWS)
    mask = np.arange(STEPS) < lengths[:, None]
    unknown = (rng.random((ROWS, STEPS)) < 0.15) & (np.arange(STEPS) > 0)
    at_steps = {
        "labels": rng.integers(0, 2, (ROWS, STEPS)).astype(float),
        "judged": rng.uniform(0.1, 0.9, (ROWS, STEPS)),
        "cells": rng.integers(0, k, (ROWS, STEPS)).astype(float),
        "rewards": rng.uniform(0, 0.3, (ROWS, STEPS)),
    }
    targets = rng.uniform(0, 1, (ROWS, STEPS, k))
    tokens = np.arange(TOKENS) < rng.integers(1, TOKENS + 1, ROWS)[:, None]
    made = {
        **{name: np.where(unknown, NAN, value) for name, value in at_steps.items()},
        "draws": rng.random((ROWS, k)),
        "remaining": np.where(unknown, NAN, rng.integers(0, 1000, (ROWS, STEPS))),
        "targets": np.where(unknown[..., None], NAN, targets),
        "log_weights": rng.normal(size=ROWS),
        "logits": rng.normal(size=(ROWS, STEPS)) * 2,
        "outputs": rng.normal(size=(ROWS, STEPS, k)) * 2,
        "ends": rng.normal(size=(ROWS, k)),
        "totals": rng.normal(size=ROWS),
        "features": rng.normal(size=(ROWS, STEPS, 3)),
        "views": rng.normal(size=(ROWS, STEPS, 3)),
        "slopes": rng.uniform(0.02, 0.05, (ROWS, STEPS)),
        "lagging_outputs": rng.normal(size=(ROWS, STEPS, k)),
        "lagging_logits": rng.normal(size=(ROWS, STEPS)),
        "lagging_features": rng.normal(size=(ROWS, STEPS, 3)),
        "outcome": np.array([1.0, 0.0, 1.0, NAN, 0.0]),
        "group": np.array([0, 0, 1, 1, 1]),
        "pairs": np.array([[0, 1], [2, 4], [3, 4]]),
        "strength": np.array([1.0, 3.0, 2.0]),
        "siblings": np.array([[0, 0, 1, 0], [2, 0, 3, 0], [4, 0, 2, 0]]),
        "gap": np.array([0.2, 1.0, 0.5]),
        "annotator": np.array([0, 1, 0]),
        "users": rng.normal(size=(3, k)),
        "latents": rng.uniform(-0.9, 0.9, (3, 2 * k)),
        "token_rewards": rng.normal(size=(ROWS, TOKENS)),
        "guide": np.where(tokens, rng.normal(size=(ROWS, TOKENS)), NAN),
        "token_values": rng.normal(size=(ROWS, TOKENS)),
        "token_targets": np.where(tokens, rng.normal(size=(ROWS, TOKENS)), NAN),
        "mask": mask,
    }
    return {name: torch.tensor(made[name]) for name in method.data}


def outputs(method: Method[..., Any]) -> list[str]:
    return [name for name in method.data if name in OUTPUTS]


def value(method: Method[..., Any], data: dict[str, torch.Tensor], **changed: torch.Tensor) -> torch.Tensor:
    made = method.take({**data, **changed})
    assert isinstance(made, Loss)
    return made.value


@pytest.mark.parametrize("method", family, ids=lambda m: m.name)
class TestContract:
    """What every loss must hold."""

    @pytest.mark.sampled(4)
    def test_gradients_are_right(self, method: Method[..., Any]) -> None:
        data = draw(method, 1)
        names = outputs(method)
        free = [data[name].requires_grad_() for name in names]
        fixed = DETACHED.get(method.function.__name__)
        if fixed is None:
            assert torch.autograd.gradcheck(
                lambda *given: value(method, data, **dict(zip(names, given, strict=True))), free
            )
        value(method, data).backward()
        assert all(one.grad is not None and one.grad.isfinite().all() and (one.grad != 0).any() for one in free)

    def test_padding_changes_nothing(self, method: Method[..., Any]) -> None:
        if not {"mask", "guide", "token_targets"} & {*method.data}:
            pytest.skip("it has no steps")
        data = draw(method, 2)
        fill = {"mask": False, "logits": 77.0, "outputs": -77.0, "labels": 1.0, "targets": 0.3, "cells": 1.0}
        fill |= {"token_rewards": -77.0, "token_values": -77.0, "guide": NAN, "token_targets": NAN}
        wide = {}
        for name, array in data.items():
            if array.ndim < 2 or name in (*OF_PAIRS, "draws"):
                wide[name] = array
                continue
            more = torch.full((ROWS, 3, *array.shape[2:]), fill.get(name, 0.5)).to(array.dtype)
            wide[name] = torch.cat([array, more], 1)
        torch.testing.assert_close(value(method, wide), value(method, data))

    def test_the_order_of_rows_and_a_row_of_nothing_change_nothing(self, method: Method[..., Any]) -> None:
        data = draw(method, 3)
        expected = value(method, data)
        order = torch.tensor([2, 0, 4, 1, 3])
        place = torch.argsort(order)
        moved = {name: array if name in OF_PAIRS else array[order] for name, array in data.items()}
        if "pairs" in data:
            moved["pairs"] = place[data["pairs"]]
        if "siblings" in data:
            moved["siblings"] = torch.stack(
                [place[a] if i % 2 == 0 else a for i, a in enumerate(data["siblings"].T)], 1
            )
        torch.testing.assert_close(value(method, moved), expected)
        more = {}
        for name, array in data.items():
            if name in OF_PAIRS:
                more[name] = array
                continue
            nothing = {"mask": False, "group": 9, "totals": 5.0}.get(name, 3.0 if name in OUTPUTS else NAN)
            more[name] = torch.cat([array, torch.full((1, *array.shape[1:]), nothing).to(array.dtype)])
        torch.testing.assert_close(value(method, more), expected)

    def test_what_is_not_supervised_may_be_anything(self, method: Method[..., Any]) -> None:
        data = draw(method, 4)
        for name, known in (("token_rewards", "guide"), ("token_values", "token_targets")):
            if known in data:
                self.unread(method, data, name, ~data[known].isnan())
                return
        if not {"mask", "logits"} <= set(method.data) or method.function.__name__ in WHOLE:
            pytest.skip("it has no output of a step that may go unread")
        named = [data[name] for name in ("labels", "judged") if name in data]
        real = data["mask"] & ~torch.stack([one.isnan() for one in named]).any(0) if named else data["mask"]
        self.unread(method, data, "logits", real)

    def unread(self, method: Method[..., Any], data: dict[str, torch.Tensor], name: str, real: torch.Tensor) -> None:
        wild = torch.where(real, data[name], NAN).requires_grad_()
        made = value(method, data, **{name: wild})
        torch.testing.assert_close(made, value(method, data))
        made.backward()
        assert wild.grad is not None
        assert wild.grad.isfinite().all()
        assert (wild.grad[~real] == 0).all()

    @pytest.mark.parametrize("size", [-900.0, 900.0])
    def test_extremes_are_finite(self, method: Method[..., Any], size: float) -> None:
        data = draw(method, 5)
        for name in outputs(method):
            signs = torch.where(torch.arange(data[name].numel()).reshape(data[name].shape) % 2 == 0, 1.0, -1.0)
            data[name] = (size * signs).double().requires_grad_()
        made = value(method, data)
        made.backward()
        assert made.isfinite()
        assert all(data[name].grad.isfinite().all() for name in outputs(method))  # type: ignore[union-attr]

    def test_nothing_supervised_is_zero(self, method: Method[..., Any]) -> None:
        data = draw(method, 6)
        for name in data:
            if name in (
                "labels",
                "targets",
                "judged",
                "cells",
                "rewards",
                "outcome",
                "log_weights",
                "strength",
                "token_targets",
            ):
                data[name] = torch.full_like(data[name], NAN)
        data |= {name: data[name][:0] for name in OF_PAIRS if name in data}
        for name in outputs(method):
            data[name].requires_grad_()
        made = value(method, data)
        assert made.item() == 0
        made.backward()
        assert all((data[name].grad == 0).all() for name in outputs(method))  # type: ignore[union-attr]

    def test_single_and_double_precision_agree(self, method: Method[..., Any]) -> None:
        data = draw(method, 7)
        before = {name: array.clone() for name, array in data.items()}
        single = value(method, {n: a.float() if a.is_floating_point() else a for n, a in data.items()})
        assert single.dtype == torch.float32
        assert float(single) == pytest.approx(float(value(method, data)), rel=1e-5, abs=1e-6)
        for name, array in data.items():
            torch.testing.assert_close(array, before[name], equal_nan=True)

    def test_parts_over_the_counts_of_the_whole_add_up_to_it(self, method: Method[..., Any]) -> None:
        if method.function.__name__ in DETACHED and "pairs" not in method.data and "mask" not in method.data:
            pytest.skip("it compares a part's rows with each other")
        if method.function.__name__ == "contrastive_preference":
            pytest.skip("it tells the rows of a part apart")
        data = draw(method, 8)
        cut = 2  # between the groups
        parts = []
        for rows in (slice(0, cut), slice(cut, ROWS)):
            part = {name: array[rows] for name, array in data.items() if name not in OF_PAIRS}
            for name, places in (("pairs", [0, 1]), ("siblings", [0, 2])):
                if name in data:
                    mine = (data[name][:, places] >= rows.start).all(1) & (data[name][:, places] < rows.stop).all(1)
                    shift = torch.zeros(data[name].shape[1], dtype=torch.long)
                    shift[places] = rows.start
                    part |= {one: data[one][mine] for one in OF_PAIRS if one in data}
                    part[name] = data[name][mine] - shift
            parts.append(method.take(part))
        counts = sum(part.counts for part in parts)
        whole = method.take(data)
        torch.testing.assert_close(counts, whole.counts)
        torch.testing.assert_close(sum(part.over(counts) for part in parts), whole.value)


DETACHED: dict[str, Callable[..., Any] | str] = {
    "temporal_difference": "its targets are the model's own values, detached",
    "bellman_rank_td": "its bounds and next features are detached",
    "kto": "its levels are means of the model's own rewards, detached",
    "policy_critic": "its targets are the model's own values, detached",
    "token_regularised": "the weight of its second part is detached",
}
WHOLE = ("bellman_rank_td", "decompose_return", "outcome_of_steps", "temporal_difference", "joint_cells")
"""They read every real step."""
