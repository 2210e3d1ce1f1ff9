import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from stepreward.core.errors import InputError
from stepreward.policies.token_sampling import Distribution


def test_the_token_is_the_first_whose_cumulative_probability_exceeds_u() -> None:
    # p = (1/2, 1/8, 3/8): the CDF is 0.5, 0.625, 1.
    logits = torch.tensor([0.5, 0.125, 0.375]).log().expand(5, 3)
    u = torch.tensor([0.01, 0.49, 0.51, 0.62, 0.63], dtype=torch.float64)
    tokens, logprobs = Distribution().draw(logits, u)
    assert tokens.tolist() == [0, 0, 1, 1, 2]
    assert logprobs.exp().tolist() == pytest.approx([0.5, 0.5, 0.125, 0.125, 0.375], abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        (1.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.0), (1.3, 5, 1.0, 0.0), (1.0, 0, 0.8, 0.0), (0.6, 7, 0.5, 0.0),
        (2.0, 1, 0.9, 0.0), (1.0, 0, 1.0, 0.1), (1.7, 0, 1.0, 0.4), (0.8, 6, 0.9, 0.05), (1.0, 0, 1.0, 1.0),
    ],
)  # fmt: skip
def test_shares_of_an_even_grid_of_u_are_the_probabilities_of_transformers(
    settings: tuple[float, int, float, float],
) -> None:
    temperature, top_k, top_p, min_p = settings
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4, 20, generator=generator)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    warpers += [MinPLogitsWarper(min_p)] if min_p else []
    expected = warpers(None, logits.clone()).softmax(-1)
    n = 4000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    for row, probabilities in zip(logits, expected, strict=True):
        tokens, _ = Distribution(temperature, top_k, top_p, min_p).draw(row.expand(n, -1), u)
        shares = torch.bincount(tokens, minlength=20) / n
        # Each border of the CDF lies within one cell of the grid.
        assert (shares - probabilities).abs().max() <= 1 / n + 1e-6


def test_log_probabilities_are_those_of_the_model_whatever_the_settings() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    tokens, logprobs = Distribution(temperature=0.1, top_k=1, min_p=0.5).draw(
        logits, torch.tensor([0.3], dtype=torch.float64)
    )
    assert tokens.item() == 2
    assert logprobs.item() == pytest.approx(2 - np.log(1 + np.e + np.e**2), abs=1e-6)


def test_temperature_to_zero_is_greedy() -> None:
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    u = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
    greedy, _ = Distribution(temperature=0).draw(logits, u)
    assert torch.equal(greedy, logits.argmax(-1))
    assert torch.equal(Distribution(temperature=1e-4).draw(logits, u)[0], greedy)


@pytest.mark.parametrize("u", [2.0**-54, 1 - 2.0**-53, 1.0])
def test_extreme_u_never_draws_a_token_of_weight_zero(u: float) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 3.0, -torch.inf, -2000.0]])
    tokens, _ = Distribution().draw(logits, torch.tensor([u], dtype=torch.float64))
    assert tokens.item() in (1, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": 1.5},
        {"min_p": -0.1},
    ],
)
def test_settings_out_of_range_are_errors(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        Distribution(**settings)  # type: ignore[arg-type]
