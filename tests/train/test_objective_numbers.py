"""Objectives against numbers worked by hand, slow sums, and what each is when its extra is nothing."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.catalog import loss as family
from stepreward.score.encode.readout import Readout
from stepreward.train.objective import Objective
from stepreward.train.objectives.cells import value_and_length_formula
from stepreward.train.objectives.error_place import first_error_log_likelihood
from stepreward.train.objectives.of_features import bellman_rank, info_nce
from stepreward.train.objectives.preferences import antisymmetric, mixture, preference, responsibilities
from stepreward.train.objectives.temporal import td_targets

NAN = float("nan")


def tensor(*values: Any) -> torch.Tensor:
    return torch.tensor(np.array(values, np.float64))


def real(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


class TestPointwise:
    def test_pinball(self) -> None:
        """Value 0.9, all predictions 0.7: 0.02, 0.1 and 0.18."""
        z = torch.full((1, 1, 3), logit(0.7), dtype=torch.float64)
        data = {"outputs": z, "labels": tensor([0.9]), "mask": real(1, 1)}
        assert float(family["quantile"].take(data)) == pytest.approx(0.1)
        half = {**data, "outputs": z[..., :1]}
        assert float(family["quantile"].take(half, quantiles=(0.5,))) == pytest.approx(abs(0.9 - 0.7) / 2)

    @given(st.lists(st.floats(0, 1), min_size=3, max_size=9), st.sampled_from([0.1, 0.5, 0.9]))
    def test_the_best_constant_of_pinball_is_the_quantile(self, values: list[float], q: float) -> None:
        y = tensor(values)
        grid = torch.linspace(0.001, 0.999, 400, dtype=torch.float64)
        z = torch.logit(grid)[:, None, None].expand(-1, len(values), 1)
        losses = [
            float(family["quantile"].take(
                {"outputs": one[None], "labels": y, "mask": real(1, len(values))}, quantiles=(q,)
            ))
            for one in z
        ]  # fmt: skip
        best = float(np.quantile(values, q, method="inverted_cdf"))
        at = min(range(400), key=lambda i: abs(float(grid[i]) - best))
        assert losses[at] <= min(losses) + 3e-3

    def test_birm(self) -> None:
        """Correctness 0.9 and 0.2 of 1 and 0, success 0.8 and 0.4 of 0.75 and 0.25: 0.05 + 0.025."""
        data = {
            "outputs": tensor([[0.9, 0.8], [0.2, 0.4]]),
            "targets": tensor([[1.0, 0.75], [0.0, 0.25]]),
            "mask": real(1, 2),
        }
        assert float(family["birm"].take(data)) == pytest.approx(0.075)

    def test_path_finder_is_the_sum_of_three_cross_entropies(self) -> None:
        rng = np.random.default_rng(3)
        z, y = tensor(*rng.normal(size=(2, 4, 3))), tensor(*rng.integers(0, 2, (2, 4, 3)))
        made = family["path-finder"].take({"outputs": z, "targets": y, "mask": real(2, 4)})
        parts = [
            float(family["bce"].take({"logits": z[..., k], "labels": y[..., k], "mask": real(2, 4)})) for k in range(3)
        ]
        assert float(made) == pytest.approx(sum(parts))

    def test_an_ensemble_of_one_that_sees_all_is_the_plain_loss(self) -> None:
        rng = np.random.default_rng(1)
        z, y = tensor(*rng.normal(size=(3, 4))), tensor(*rng.uniform(size=(3, 4)))
        data = {"outputs": z[..., None], "labels": y, "draws": tensor([0.9], [0.0], [0.99]), "mask": real(3, 4)}
        plain = {"logits": z, "labels": y, "mask": real(3, 4)}
        for fit in ("bce", "mse"):
            made = family["ensemble"].take(data, members=1, share=1.0, fit=fit)
            assert float(made) == float(family[fit].take(plain))

    def test_each_member_learns_from_its_own_problems(self) -> None:
        """At z = 0 every term is log 2 times what it is of; the second row is not drawn for the first member."""
        z = torch.zeros(2, 1, 2, dtype=torch.float64, requires_grad=True)
        draws = tensor([0.2, 0.2], [0.8, 0.2])
        data = {"outputs": z, "labels": tensor([1.0], [1.0]), "draws": draws, "mask": real(2, 1)}
        made = family["ensemble"].take(data, members=2, share=0.5)
        made.value.backward()
        assert float(made) == pytest.approx(math.log(2))
        assert z.grad is not None
        assert z.grad[:, 0].tolist() == [[pytest.approx(-1 / 6)] * 2, [0.0, pytest.approx(-1 / 6)]]
        with pytest.raises(ValueError, match=r"share must be in \(0, 1\], got 0; 2 outputs, 2 members"):
            family["ensemble"].take(data, members=2, share=0)
        with pytest.raises(ValueError, match="2 outputs, 3 members"):
            family["ensemble"].take(data, members=3)

    def test_value_and_length(self) -> None:
        """Shares .1 .2 | .3 .4, a value of .7 and 2 tokens to come, so cell (2, 1): -log .3; length 4.4."""
        z = tensor([[0.1, 0.2, 0.3, 0.4]]).log()
        data = {"outputs": z, "labels": tensor([0.7]), "remaining": tensor([2.0]), "mask": real(1, 1)}
        settings = {"value_bins": 2, "lengths": (4.0,)}
        assert float(family["value-and-length"].take(data, **settings)) == pytest.approx(1.2040, abs=1e-4)
        # An edge belongs to the bin behind it, and 1 to the last bin of values.
        data |= {"labels": tensor([1.0]), "remaining": tensor([4.0])}
        assert float(family["value-and-length"].take(data, **settings)) == pytest.approx(-math.log(0.4))
        formula = value_and_length_formula(2, (4.0,))
        readout = Readout("softmax", n_labels=4, formula=formula)
        assert readout.scores(z[0].numpy()) == pytest.approx(0.25 * 0.3 + 0.75 * 0.7)
        # The middles are 2 and 6 tokens: 2 (.1 + .3) + 6 (.2 + .4).
        assert readout.with_formula("length").scores(z[0].numpy()) == pytest.approx(4.4)

    def test_one_bin_of_lengths_is_the_cross_entropy_and_one_of_values_a_classifier(self) -> None:
        rng = np.random.default_rng(2)
        z, y = tensor(*rng.normal(size=(2, 3, 2))), tensor(*rng.integers(0, 2, (2, 3)))
        data = {"outputs": z, "labels": y, "remaining": tensor(*rng.integers(0, 9, (2, 3))), "mask": real(2, 3)}
        made = family["value-and-length"].take(data, value_bins=2, lengths=())
        plain = {"logits": z[..., 1] - z[..., 0], "labels": y, "mask": real(2, 3)}
        assert float(made) == pytest.approx(float(family["bce"].take(plain, per="trajectory")))
        made = family["value-and-length"].take(data, value_bins=1, lengths=(5.0,))
        long = (data["remaining"] >= 5).double()
        assert float(made) == pytest.approx(float(family["bce"].take(plain | {"labels": long}, per="trajectory")))

    def test_a_solution_that_was_cut_has_no_length(self) -> None:
        data = {"outputs": tensor([[0.0, 1.0]]), "labels": tensor([1.0]), "mask": real(1, 1)}
        made = family["value-and-length"].take(data | {"remaining": tensor([NAN])}, value_bins=2, lengths=())
        assert float(made) == 0
        for settings in ({"value_bins": 1, "lengths": ()}, {"value_bins": 1, "lengths": (2.0, 1.0)}, {}):
            with pytest.raises(ValueError, match="lengths must rise"):
                family["value-and-length"].take(data | {"remaining": tensor([1.0])}, **settings)

    def test_one_column_is_the_plain_loss(self) -> None:
        rng = np.random.default_rng(0)
        z, y = tensor(*rng.normal(size=(3, 4))), tensor(*rng.uniform(size=(3, 4)))
        data = {"outputs": z[..., None], "targets": y[..., None], "mask": real(3, 4)}
        plain = {"logits": z, "labels": y, "mask": real(3, 4)}
        for fit in ("bce", "mse"):
            assert float(family["columns"].take(data, fit=fit)) == float(family[fit].take(plain))

    def test_a_column_with_fewer_labels_counts_as_much(self) -> None:
        z = tensor([[0.0, 0.0], [0.0, 0.0]])
        y = tensor([[1.0, 1.0], [1.0, NAN]])
        made = float(family["columns"].take({"outputs": z, "targets": y, "mask": real(1, 2)}, weights=(1.0, 3.0)))
        assert made == pytest.approx(4 * math.log(2))

    def test_a_pooled_end_weighs_as_much_as_a_step(self) -> None:
        """Equal labels everywhere: the mean over S + 1 entries of a plain cross-entropy."""
        z = tensor([[0.3], [-1.0], [2.0]])
        data = {"outputs": z, "labels": tensor([1.0, 1.0, 1.0]), "outcome": tensor(1.0), "mask": real(1, 3)}
        terms = [math.log1p(math.exp(-v)) for v in (0.3, -1.0, 2.0, 2.0)]
        assert float(family["fin-prm"].take(data)) == pytest.approx(np.mean(terms))
        both = float(family["step-and-trajectory"].take(data))
        assert both == pytest.approx(np.mean(terms[:3]) + terms[3])

    def test_reasonflux(self) -> None:
        """Scores 1/2 and 0.8 of 1 and 0.4, the trajectory's 0.8 of 1: (0.25 + 0.16) / 2 + 2 * 0.04."""
        data = {
            "outputs": tensor([[0.0], [logit(0.8)]]), "labels": tensor([1.0, 0.4]), "outcome": tensor(1.0),
            "mask": real(1, 2),
        }  # fmt: skip
        assert float(family["reasonflux"].take(data, trajectory=2.0)) == pytest.approx(0.205 + 0.08)

    def test_cells(self) -> None:
        """The cell (2, 1) of a joint distribution (0.1, 0.2; 0.3, 0.4)."""
        z = tensor([[math.log(p) for p in (0.1, 0.2, 0.3, 0.4)]])
        made = family["grid"].take({"outputs": z, "cells": tensor([2.0]), "mask": real(1, 1)})
        assert float(made) == pytest.approx(1.2040, abs=1e-4)
        with pytest.raises(ValueError, match=r"cells must be in \[0, 4\), got up to 4"):
            family["grid"].take({"outputs": z, "cells": tensor([4.0]), "mask": real(1, 1)})

    def test_two_cells_are_a_cross_entropy_of_their_difference(self) -> None:
        rng = np.random.default_rng(1)
        z, y = tensor(*rng.normal(size=(2, 3, 2))), tensor(*rng.integers(0, 2, (2, 3)))
        grid = family["grid"].take({"outputs": z, "cells": y, "mask": real(2, 3)})
        plain = family["bce"].take({"logits": z[..., 1] - z[..., 0], "labels": y, "mask": real(2, 3)})
        assert float(grid) == pytest.approx(float(plain))

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"fit": "mae"}, "fit is 'bce' or 'mse'"),
            ({"link": "none"}, "needs probabilities"),
            ({"weights": (1.0,)}, "differ"),
        ],
    )
    def test_settings_out_of_range_are_named(self, settings: dict[str, Any], said: str) -> None:
        data = {"outputs": torch.zeros(1, 1, 2), "targets": torch.zeros(1, 1, 2), "mask": real(1, 1)}
        with pytest.raises(ValueError, match=said):
            family["columns"].take(data, **settings)


class TestFirstError:
    def test_it_is_the_cross_entropy_up_to_the_first_wrong_step(self) -> None:
        rng = np.random.default_rng(2)
        z = tensor(*rng.normal(size=(3, 4)))
        y = tensor([1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, NAN, 1.0, 1.0])
        seen = tensor([1.0, 0.0, NAN, NAN], [1.0, 1.0, 1.0, 1.0], [0.0, NAN, NAN, NAN])
        made = family["first-error"].take({"logits": z, "labels": y, "mask": real(3, 4)})
        plain = family["bce"].take({"logits": z, "labels": seen, "mask": real(3, 4)}, per="trajectory-sum")
        assert float(made) == pytest.approx(float(plain))
        p = z.sigmoid()
        by_hand = [p[0, 0] * (1 - p[0, 1]), p[1].prod(), 1 - p[2, 0]]
        assert float(made) == pytest.approx(float(-torch.stack(by_hand).log().mean()))

    def test_places_are_a_distribution(self) -> None:
        """0.8 and 0.7 right: places have 0.2, 0.24 and 0.56."""
        right = tensor([0.8, 0.7, 0.5])
        mask = torch.tensor([[True, True, False]])
        made = first_error_log_likelihood(right.log(), (1 - right).log(), mask).exp()
        torch.testing.assert_close(made, tensor([0.2, 0.24, 0.0, 0.56]))

    def test_it_is_smallest_where_the_model_agrees(self) -> None:
        q = tensor([0.8, 0.7])
        z = torch.logit(q).requires_grad_()
        made = family["uprm"].take({"logits": z, "judged": q, "mask": real(1, 2)}).value
        assert made.item() == pytest.approx(0)
        made.backward()
        torch.testing.assert_close(z.grad, torch.zeros_like(z))

    @given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 2.5]))
    def test_it_equals_the_sum_over_places(self, seed: int, gamma: float) -> None:
        rng = np.random.default_rng(seed)
        z, q = rng.normal(size=3), rng.uniform(0.05, 0.95, 3)
        p = 1 / (1 + np.exp(-z))
        expected = 0.0
        for place in range(4):
            mass = float(np.prod(p[:place]) * (1 - p[place] if place < 3 else 1))
            prior = float(np.prod(q[:place]) * (1 - q[place] if place < 3 else 1))
            expected += mass * (gamma * math.log(mass) - math.log(prior))
        made = family["uprm"].take({"logits": tensor(z), "judged": tensor(q), "mask": real(1, 3)}, gamma=gamma)
        assert float(made) == pytest.approx(expected)


class TestTemporal:
    def test_two_steps(self) -> None:
        """0.1 now, nothing next, half of the value after: 0.1 + 0.64 * 0.5 = 0.42."""
        values, rewards = tensor([0.9, 0.9, 0.5, 0.5]), tensor([0.1, 0.0, 0.0, 0.0])
        made = td_targets(values, rewards, real(1, 4), gamma=0.8, steps=2)
        assert float(made[0, 0]) == pytest.approx(0.42)

    @given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.0, 0.4, 1.0]))
    def test_targets_equal_sums_over_steps(self, seed: int, steps: int, lam: float) -> None:
        rng = np.random.default_rng(seed)
        size, gamma = int(rng.integers(1, 6)), float(rng.uniform(0, 1))
        v, r = rng.normal(size=size), rng.normal(size=size)
        expected = []
        for t in range(size):
            returns = []
            for k in range(1, steps + 1):
                sums = sum(gamma**i * r[t + i] for i in range(k) if t + i < size)
                returns.append(sums + (gamma**k * v[t + k] if t + k < size else 0.0))
            weights = [(1 - lam) * lam ** (k - 1) for k in range(1, steps)] + [lam ** (steps - 1)]
            expected.append(np.dot(weights, returns))
        wide = [np.r_[one, 7.0, 7.0] for one in (v, r)]
        mask = torch.tensor([[True] * size + [False] * 2])
        made = td_targets(tensor(wide[0]), tensor(wide[1]), mask, gamma=gamma, steps=steps, lam=lam)
        np.testing.assert_allclose(made[0, :size], expected, atol=1e-12)
        assert made[0, size:].isnan().all()

    def test_without_rewards_and_with_all_steps_it_is_monte_carlo(self) -> None:
        rng = np.random.default_rng(3)
        z, outcome = tensor(*rng.normal(size=(2, 3))), tensor(1.0, 0.0)
        data = {"logits": z, "rewards": torch.zeros(2, 3), "outcome": outcome, "mask": real(2, 3)}
        made = family["td"].take(data, gamma=1.0, steps=9)
        plain = family["bce"].take({"logits": z, "labels": outcome[:, None].expand(2, 3), "mask": real(2, 3)})
        assert float(made) == pytest.approx(float(plain))

    def test_the_true_values_of_a_chain_have_no_gradient(self) -> None:
        z = torch.full((1, 3), logit(0.6), dtype=torch.float64, requires_grad=True)
        data = {"logits": z, "rewards": torch.zeros(1, 3), "outcome": tensor(0.6), "mask": real(1, 3)}
        family["td"].take(data, gamma=1.0, steps=1).value.backward()
        torch.testing.assert_close(z.grad, torch.zeros_like(z), atol=1e-12, rtol=0)

    def test_an_unknown_reward_leaves_out_what_needs_it(self) -> None:
        made = td_targets(tensor([0.0, 0.0, 0.0]), tensor([0.1, NAN, 0.2]), real(1, 3), steps=1)
        np.testing.assert_allclose(made, [[0.1, NAN, 0.2]])


class TestReturns:
    def test_the_logits_of_steps_together(self) -> None:
        """p = (0.9, 0.5): the mean of logits is that of 0.75, their sum that of 0.9; (0.9, 0.2): 0.6 and 0.6923."""
        for p, by_mean, by_sum in (((0.9, 0.5), 0.75, 0.9), ((0.9, 0.2), 0.6, 9 / 13)):
            data = {"logits": tensor([*map(logit, p)]), "outcome": tensor(1.0), "mask": real(1, 2)}
            assert float(family["outcome-of-steps"].take(data)) == pytest.approx((1 - by_mean) ** 2)
            assert float(family["outcome-of-steps"].take(data, by="sum")) == pytest.approx((1 - by_sum) ** 2)
            assert float(family["outcome-of-steps"].take(data, fit="bce")) == pytest.approx(-math.log(by_mean))
        rows = {"logits": tensor([1.0, 2.0, np.nan], [5.0] * 3, [np.nan] * 3), "outcome": tensor(0.0, NAN, 1.0)}
        rows["mask"] = torch.tensor([[True, True, False], [True] * 3, [False] * 3])
        first = 1 / (1 + math.exp(-1.5))
        assert float(family["outcome-of-steps"].take(rows)) == pytest.approx(first**2), "it alone has steps and outcome"
        one = {"logits": tensor([0.7]), "outcome": tensor(0.0), "mask": real(1, 1)}
        plain = family["outcome"].take({"totals": tensor(0.7), "outcome": tensor(0.0)}, fit="mse")
        assert float(family["outcome-of-steps"].take(one)) == pytest.approx(float(plain))

    def test_two_forms(self) -> None:
        """0.2 + 0.5 - 0.1 of 1: 0.16, and a ninth of that."""
        data = {"logits": tensor([0.2, 0.5, -0.1]).requires_grad_(), "outcome": tensor(1.0), "mask": real(1, 3)}
        made = family["spa"].take(data)
        assert float(made) == pytest.approx(0.16)
        made.value.backward()
        torch.testing.assert_close(data["logits"].grad, torch.full((1, 3), -0.8, dtype=torch.float64))
        assert float(family["rd"].take(data)) == pytest.approx(0.16 / 9)

    @given(st.integers(0, 10_000), st.integers(1, 4))
    def test_a_subset_is_the_mean_over_all_subsets(self, seed: int, size: int) -> None:
        c = np.random.default_rng(seed).normal(size=4)
        expected = np.mean(
            [(np.mean([c[i] for i in some]) - 0.25) ** 2 for some in itertools.combinations(range(4), size)]
        )
        made = family["rrd"].take({"logits": tensor(c), "outcome": tensor(1.0), "mask": real(1, 4)}, subset=size)
        assert float(made) == pytest.approx(expected)

    def test_a_subset_of_more_than_all_steps_is_all(self) -> None:
        data = {"logits": tensor([0.2, 0.5, -0.1]), "outcome": tensor(1.0), "mask": real(1, 3)}
        assert float(family["rrd"].take(data)) == float(family["rd"].take(data))

    def test_outcome_of_the_winner_and_the_loser(self) -> None:
        made = [
            float(family["outcome"].take({"totals": tensor(r), "outcome": tensor(o)}))
            for r, o in ((0.2, 1.0), (-0.1, 0.0))
        ]
        assert made == pytest.approx([0.5981, 0.6444], abs=1e-4)

    def test_kto(self) -> None:
        """Levels 0 (the wrong one's mean is below it) and 0.2 of the right one: 1 - sigmoid(0.2), 1 - sigmoid(0.3)."""
        made = float(family["kto"].take({"totals": tensor(0.2, -0.1), "outcome": tensor(1.0, 0.0)}))
        assert made == pytest.approx(((1 - 1 / (1 + math.exp(-0.2))) + (1 - 1 / (1 + math.exp(-0.3)))) / 2)

    def test_fresh_models_start_where_they_should(self) -> None:
        """Log-ratios of 0: log 2 for the cross-entropy, 1/2 for kto, 2 log 2 for nca."""
        data = {"totals": tensor(0.0, 0.0), "outcome": tensor(1.0, 0.0), "pairs": torch.tensor([[0, 1]])}
        made = [float(family[name].take(data)) for name in ("outcome", "kto", "nca", "bradley-terry")]
        assert made == pytest.approx([math.log(2), 0.5, 2 * math.log(2), math.log(2)])


class TestFeatures:
    def test_the_rank_that_a_bellman_equation_allows(self) -> None:
        """f = f' = (1, 0), gamma 1/2, r = 1, |w| = 1: U = 1/4, penalty 3/4. r = 0 and f' = f / gamma: U = 1, none."""
        one = tensor([1.0, 0.0])
        assert float(bellman_rank(one, one, one, tensor(1.0), tensor(1.0), gamma=0.5)) == pytest.approx(0.75)
        assert float(bellman_rank(one, 2 * one, 2 * one, tensor(0.0), tensor(1.0), gamma=0.5)) == 0

    @given(st.integers(0, 10_000), st.floats(0.1, 1.0))
    def test_exact_values_are_never_penalised(self, seed: int, gamma: float) -> None:
        now, after, w = tensor(*np.random.default_rng(seed).normal(size=(3, 4, 5)))
        reward = ((now - gamma * after) * w).sum(-1)
        made = bellman_rank(now, after, after, reward, w.norm(dim=-1), gamma=gamma)
        torch.testing.assert_close(made, torch.zeros_like(made), atol=1e-9, rtol=0)

    def test_beer_is_td_and_its_penalty(self) -> None:
        """Two steps with f = (1, 0), r = 1, |w| = 1: 3/4 of the penalty once; without it the loss is that of td."""
        data = {
            "logits": tensor([0.3, 0.8]), "rewards": tensor([1.0, 9.0]), "outcome": tensor(0.5), "mask": real(1, 2),
            "features": tensor([[1.0, 0.0], [1.0, 0.0]]), "slopes": torch.ones(1, 2, dtype=torch.float64),
        }  # fmt: skip
        data |= {"lagging_logits": data["logits"], "lagging_features": data["features"]}
        plain = float(family["td"].take({name: data[name] for name in ("logits", "rewards", "outcome", "mask")},
                                        fit="mse", link="none", gamma=0.5, steps=1))  # fmt: skip
        assert plain == pytest.approx(((0.3 - 1 - 0.5 * 0.8) ** 2 + (0.8 - 0.5) ** 2) / 2)
        assert float(family["beer"].take(data, gamma=0.5, penalty=0.0)) == plain
        assert float(family["beer"].take(data, gamma=0.5, penalty=0.4)) == pytest.approx(plain + 0.4 * 0.75)

    def test_info_nce(self) -> None:
        """Orthogonal vectors, equal views: -log(e^(1/t) / (e^(1/t) + 1)); alone: 0; equal vectors: log 2."""
        views = tensor([3.0, 0.0], [0.0, 0.1])
        for t in (0.05, 1.0, 3.0):
            made = info_nce(views, views, real(2), temperature=t)
            assert made.tolist() == pytest.approx([math.log1p(math.exp(-1 / t))] * 2)
        assert info_nce(views, views, torch.tensor([True, False]), temperature=0.1).tolist() == [0, 0]
        same = tensor([1.0, 2.0], [2.0, 4.0])
        assert info_nce(same, same, real(2), temperature=0.1).tolist() == pytest.approx([math.log(2)] * 2)

    def test_only_the_likeness_of_a_state_to_the_next_one_is_trained(self) -> None:
        """f = (1, 0), f' = (1, 1): the slope of cos is (f' / |f'| - cos f / |f|) / |f| = (0, 0.7071), U has none."""
        now, after, reward, slope = (one.requires_grad_() for one in (
            tensor([1.0, 0.0]), tensor([1.0, 1.0]), tensor(1.0), tensor(1.0)))  # fmt: skip
        made = bellman_rank(now, after, after, reward, slope, gamma=0.5)
        assert float(made.detach()) == pytest.approx(2**-0.5 - (1 + 0.25 * 2 - 1) / (2 * 0.5 * 2**0.5))
        made.sum().backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(now.grad, tensor([0.0, 2**-0.5]))
        assert (after.grad, reward.grad, slope.grad) == (None, None, None)

    def test_no_reward_and_no_slope_bound_nothing(self) -> None:
        """A head of zeros says nothing of features: U = (1 + gamma^2) / (2 gamma) is at least 1."""
        one, zero = tensor([3.0, 4.0]), tensor(0.0)
        assert float(bellman_rank(one, one, one, zero, zero, gamma=0.5)) == 0

    def test_beer_penalises_each_pair_of_neighbours_with_a_known_reward(self) -> None:
        """By a loop over rows of four, three and one steps, with values and features of a lagging copy."""
        rng, gamma = np.random.default_rng(3), 0.7
        f, r, w = 0.3 * rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4)), 0.5 + rng.random((3, 4))
        f[:, 1:] += 2 * f[:, :-1]
        h = f + 0.2 * rng.normal(size=f.shape)
        r[0, 1] = np.nan
        real = np.arange(4) < np.array([[4], [3], [1]])
        terms = []
        for b, s in [(0, 0), (0, 2), (1, 0), (1, 1)]:
            a, c, d = (np.linalg.norm(one) for one in (f[b, s], f[b, s + 1], h[b, s + 1]))
            bound = (a**2 + (gamma * c) ** 2 - (r[b, s] / w[b, s]) ** 2) / (2 * gamma * a * d)
            terms.append(max(f[b, s] @ h[b, s + 1] / (a * d) - bound, 0))
        assert sum(term > 0 for term in terms) >= 2
        f[~real], h[~real], w[~real], r[~real] = np.nan, np.nan, np.nan, np.nan
        data = {
            "logits": torch.tensor(rng.normal(size=(3, 4))), "rewards": torch.tensor(r), "features": torch.tensor(f),
            "outcome": torch.tensor([0.5, np.nan, 1.0]), "mask": torch.tensor(real), "slopes": torch.tensor(w),
            "lagging_features": torch.tensor(h),
        }  # fmt: skip
        data["lagging_logits"] = data["logits"]
        more: dict[str, Any] = {"gamma": gamma, "steps": 2, "lam": 0.6, "per": "trajectory"}
        td = {name: data[name] for name in ("logits", "rewards", "outcome", "mask")}
        plain = float(family["td"].take(td, fit="mse", link="none", **more))
        assert float(family["beer"].take(data, penalty=0.0, **more)) == pytest.approx(plain)
        assert float(family["beer"].take(data, penalty=0.5, **more)) == pytest.approx(plain + 0.5 * np.mean(terms))
        late = torch.tensor(rng.normal(size=(3, 4)))
        earned = torch.tensor(np.where([[0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]], [[0.5], [np.nan], [1.0]], r))
        targets = td_targets(late, earned, data["mask"], gamma=gamma, steps=2, lam=0.6)
        plain = float(family["mse"].take({"logits": data["logits"], "labels": targets, "mask": data["mask"]},
                                         link="none", per="trajectory"))  # fmt: skip
        data["lagging_logits"] = late
        assert float(family["beer"].take(data, penalty=0.5, **more)) == pytest.approx(plain + 0.5 * np.mean(terms))

    @pytest.mark.parametrize(
        ("name", "settings"),
        [
            ("beer", {"penalty": -0.1}), ("beer", {"gamma": 0.0}), ("beer", {"gamma": 1.1}),
            ("contrastive-preference", {"temperature": 0.0}), ("contrastive-preference", {"contrast": -0.1}),
            ("outcome-of-steps", {"by": "max"}), ("distillation", {"temperature": 0.0}),
        ],
    )  # fmt: skip
    def test_settings_outside_their_range(self, name: str, settings: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"must not be negative|must be positive|by is"):
            Objective.of(name, **settings)

    def test_a_discount_of_one_is_none(self) -> None:
        assert Objective.of("beer", gamma=1.0).n_outputs == 1

    def test_info_nce_of_any_vectors(self) -> None:
        """By a loop: vector i among the second views of those that are compared."""
        rng, t = np.random.default_rng(4), 0.5
        a, b = rng.normal(size=(2, 4, 3))
        real = [True, False, True, True]
        cos = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
        wanted = [
            -math.log(math.exp(cos[i, i] / t) / sum(math.exp(cos[i, j] / t) for j in range(4) if real[j])) * real[i]
            for i in range(4)
        ]
        a[1], b[1] = np.nan, np.nan
        made = info_nce(torch.tensor(a), torch.tensor(b), torch.tensor(real), temperature=t)
        assert made.tolist() == pytest.approx(wanted)

    def test_contrast_of_nothing_is_bradley_terry(self) -> None:
        rng = np.random.default_rng(5)
        data = {
            "totals": tensor(*rng.normal(size=3)), "features": tensor(*rng.normal(size=(3, 2, 4))), "mask": real(3, 2),
            "views": tensor(*rng.normal(size=(3, 2, 4))), "pairs": torch.tensor([[0, 1]]),
        }  # fmt: skip
        plain = float(family["bradley-terry"].take({name: data[name] for name in ("totals", "pairs")}, smoothing=0.1))
        assert float(family["contrastive-preference"].take(data, contrast=0.0, smoothing=0.1)) == plain
        ends = [data[name][:2, -1] for name in ("features", "views")]
        more = float(info_nce(*ends, real(2), temperature=0.05).mean())
        made = float(family["contrastive-preference"].take(data, contrast=0.3, smoothing=0.1))
        assert made == pytest.approx(plain + 0.3 * more), "the third trajectory is in no pair"
        margin = float(family["bradley-terry"].take({name: data[name] for name in ("totals", "pairs")}, margin=2.0))
        assert float(family["contrastive-preference"].take(data, contrast=0.0, margin=2.0)) == margin != plain


class TestPreferences:
    PAIR = torch.tensor([[0, 1]])

    def test_dpo_and_nca(self) -> None:
        data = {"totals": tensor(0.2, -0.1), "pairs": self.PAIR}
        assert float(family["bradley-terry"].take(data)) == pytest.approx(0.5544, abs=1e-4)
        assert float(family["nca"].take(data)) == pytest.approx(1.3194, abs=1e-4)

    def test_smoothing(self) -> None:
        d = tensor(1.0)
        assert float(preference(d, smoothing=0.1)) == pytest.approx(0.4133, abs=1e-4)
        assert float(preference(d)) == pytest.approx(0.3133, abs=1e-4)
        tie = torch.linspace(-1, 1, 21, dtype=torch.float64)
        assert int(preference(tie, smoothing=0.5).argmin()) == 10

    def test_focal_and_barrier(self) -> None:
        """d = 1: sigmoid 0.7311, weight (1 - 2 * 0.2311)^2 = 0.2893, 0.2893 * 0.3133 = 0.0906; d = -1 keeps 1.3133.

        The barrier of r = 1 and 0: -log 4 - log 6 - 2 log 5 = -6.3969, times 0.01.
        """
        pair = {"totals": torch.tensor([1.0, 0.0]), "pairs": torch.tensor([[0, 1]])}
        other = pair | {"pairs": torch.tensor([[1, 0]])}
        assert float(family["bradley-terry"].take(pair, focal=2.0)) == pytest.approx(0.0906, abs=1e-4)
        assert float(family["bradley-terry"].take(other, focal=2.0)) == pytest.approx(1.3133, abs=1e-4)
        assert float(family["internlm2-reward"].take(pair)) == pytest.approx(0.0906 - 0.0640, abs=1e-4)
        far = pair | {"totals": torch.tensor([900.0, 0.0])}
        expected = -(np.log(1e-3) + np.log(10 - 1e-3) + 2 * np.log(5))
        assert float(family["bradley-terry"].take(far, barrier=1.0)) == pytest.approx(expected, abs=1e-3)
        with pytest.raises(ValueError, match="barrier not negative"):
            family["bradley-terry"].take(pair, barrier=-1.0)
        with pytest.raises(ValueError, match="focal not negative"):
            family["bradley-terry"].take(pair, focal=-1.0)

    def test_strength(self) -> None:
        """d = 1, m = 2: 0.6265 scaled, 1.3133 by margin."""
        data = {"totals": tensor(1.0, 0.0), "pairs": self.PAIR, "strength": tensor(2.0)}
        assert float(family["preference-strength"].take(data)) == pytest.approx(0.6265, abs=1e-4)
        assert float(family["preference-strength"].take(data, use="margin")) == pytest.approx(1.3133, abs=1e-4)
        once = {**data, "strength": tensor(1.0)}
        assert float(family["preference-strength"].take(once)) == float(family["bradley-terry"].take(data))

    @pytest.mark.parametrize(
        ("link", "d", "expected"),
        [
            ("hinge", 4.0, 0.0),
            ("hinge", -4.0, 5.0),
            ("smooth-hinge", 0.0, 0.1),
            ("smooth-hinge", -9.0, 7.5),
            ("square", 0.3, 0.04),
        ],
    )
    def test_links(self, link: Any, d: float, expected: float) -> None:
        assert float(preference(tensor(d), link=link)) == pytest.approx(expected)

    def test_a_circle_that_no_scalar_can_hold(self) -> None:
        """Unit vectors at 120 degrees beat each other in turn by 0.8660; a scalar's best is log 2."""
        angle = 2 * math.pi * np.arange(3) / 3
        ends = tensor(*np.stack([np.cos(angle), np.sin(angle)], 1))
        circle = torch.tensor([[0, 1], [1, 2], [2, 0]])
        torch.testing.assert_close(antisymmetric(ends, ends.roll(-1, 0)), tensor(*[3**0.5 / 2] * 3))
        made = family["general-preference"].take({"ends": ends, "pairs": circle}, temperature=1.0)
        assert float(made) == pytest.approx(0.3511, abs=1e-4)
        scalar = family["bradley-terry"].take({"totals": tensor(0.0, 0.0, 0.0), "pairs": circle})
        assert float(scalar) == pytest.approx(math.log(2))

    def test_a_scalar_beside_1_is_bradley_terry(self) -> None:
        r = tensor(*np.random.default_rng(5).normal(size=4))
        pairs = torch.tensor([[0, 1], [3, 2]])
        ends = torch.stack([r, torch.ones_like(r)], 1)
        made = family["general-preference"].take({"ends": ends, "pairs": pairs}, temperature=1.0)
        assert float(made) == pytest.approx(float(family["bradley-terry"].take({"totals": r, "pairs": pairs})))

    def test_a_mixture_of_judges(self) -> None:
        gate, d = torch.log(tensor([0.5, 0.5])), tensor([2.0, -1.0])
        assert float(mixture(d, gate)) == pytest.approx(0.5536, abs=1e-4)
        np.testing.assert_allclose(responsibilities(d, gate), [[0.7661, 0.2339]], atol=1e-4)
        np.testing.assert_allclose(responsibilities(d, gate, temperature=1e9), [[0.5, 0.5]], atol=1e-6)
        one = mixture(tensor([1.0, 1.0]), gate)
        assert float(one) == pytest.approx(float(preference(tensor(1.0))))

    def test_a_list(self) -> None:
        """Targets (1, 0), equal rewards: the gradient is minus the difference of the shares, 0.2311."""
        totals = tensor(0.0, 0.0).requires_grad_()
        data = {"totals": totals, "log_weights": tensor(1.0, 0.0), "group": torch.tensor([0, 0])}
        made = family["listwise"].take(data).value
        assert made.item() == pytest.approx(math.log(2))
        made.backward()
        torch.testing.assert_close(totals.grad, tensor(-0.2311, 0.2311), atol=1e-4, rtol=0)

    def test_a_list_of_a_clear_winner_is_a_pair(self) -> None:
        data = {"totals": tensor(0.3, -0.4), "log_weights": tensor(500.0, -500.0), "group": torch.tensor([4, 4])}
        pair = family["bradley-terry"].take({"totals": data["totals"], "pairs": self.PAIR})
        assert float(family["listwise"].take(data)) == pytest.approx(float(pair))

    def test_a_pair_with_an_unread_end_is_left_out(self) -> None:
        data = {"totals": tensor(1.0, 0.0, NAN).requires_grad_(), "pairs": torch.tensor([[0, 1], [0, 2]])}
        made = family["bradley-terry"].take(data).value
        assert made.item() == pytest.approx(0.3133, abs=1e-4)
        made.backward()
        assert data["totals"].grad is not None
        assert data["totals"].grad[2] == 0
