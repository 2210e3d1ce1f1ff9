"""Numbers and identities of the objectives of log-ratios, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stepreward.core.catalog import loss as family

NAN = float("nan")
PAIR = torch.tensor([[0, 1]])


def tokens(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def value(name: str, data: dict[str, torch.Tensor], **settings: Any) -> float:
    return float(family[name].take(data, **settings))


# beta 0.1; winner l = (1, -0.5), guide (2, -1); loser l = (0.4, -0.2), guide (-1, 1).
TGDPO = {"token_rewards": 0.1 * tokens([1, -0.5], [0.4, -0.2]), "guide": tokens([2, -1], [-1, 1]), "pairs": PAIR}


def test_tgdpo() -> None:
    """Weights 1 + 0.05 g: winner 0.1 (1.1 + -0.5 * 0.95) = 0.0625; loser 0.1 (0.4 * 1.05 - 0.2 * 0.95) = 0.0230.

    -log sigmoid(0.0395) = 0.6736; without weights 0.05 - 0.02 = 0.03, 0.6783.
    """
    assert value("tgdpo", TGDPO, alpha=0.05) == pytest.approx(0.6736, abs=1e-4)
    assert value("tgdpo", TGDPO, alpha=0.0) == pytest.approx(0.6783, abs=1e-4)


def test_t_reg() -> None:
    """Better prompts triple every odds ratio: sigmoid(log 3) - 1/2 = 0.25; r_w = 0.2, r_l = -0.1, w = sigmoid(-0.3).

    DPO 0.5544, and with alpha = 1 0.4256 * -0.25 * (0.2 - 0.1) = -0.0106.
    """
    three = float(np.log(3))
    data = {
        "token_rewards": tokens([0.15, 0.05], [-0.1, 7.0]),
        "guide": tokens([three] * 2, [three, NAN]),
        "pairs": PAIR,
    }
    assert value("t-reg", data, alpha=1.0) == pytest.approx(0.5544 - 0.0106, abs=1e-4)
    assert value("t-reg", data, alpha=0.0) == pytest.approx(0.5544, abs=1e-4)
    same = data | {"guide": tokens([0, 0], [0, NAN])}
    assert value("t-reg", same, alpha=1.0) == pytest.approx(0.5544, abs=1e-4)
    with pytest.raises(ValueError, match="alpha must not be negative"):
        value("t-reg", data, alpha=-1.0)


def test_token_rewards_of_one_double_the_gradient_of_dpo() -> None:
    """A guide of plus and minus infinity is +1/2 on the winner, -1/2 on the loser: alpha = 2 doubles DPO's gradient."""
    rewards = tokens([0.3, -0.1], [0.2, 0.4])

    def gradient(alpha: float) -> torch.Tensor:
        r = rewards.clone().requires_grad_()
        guide = tokens([900, 900], [-900, -900])
        family["t-reg"].take({"token_rewards": r, "guide": guide, "pairs": PAIR}, alpha=alpha).value.backward()
        assert r.grad is not None
        return r.grad

    torch.testing.assert_close(gradient(2.0), 2 * gradient(0.0))


def test_siblings() -> None:
    """d = 0.2 - -0.1 = 0.3: 0.5544; the pair with a gap below `least` is left out."""
    logits = torch.tensor([[9.0, 0.2], [9.0, -0.1]])
    data = {"logits": logits, "siblings": torch.tensor([[0, 1, 1, 1], [1, 0, 0, 1]]), "gap": torch.tensor([1.0, 0.1])}
    assert value("siblings", data, least=0.5) == pytest.approx(0.5544, abs=1e-4)
    assert value("step-dpo", data, least=0.5) == pytest.approx(0.5544, abs=1e-4)
    assert value("siblings", data) == pytest.approx((0.5544 + np.log1p(np.exp(-8.8))) / 2, abs=1e-4)


def test_the_squared_error_of_agent_rm_is_that_of_the_sum_of_rewards() -> None:
    """0.2 + 0.5 - 0.1 = 0.6 against a progress of 1: 0.16."""
    data = {"logits": torch.tensor([[0.2, 0.5, -0.1]]), "outcome": torch.ones(1), "mask": torch.ones(1, 3).bool()}
    assert value("agent-rm-implicit", data) == pytest.approx(0.16, abs=1e-6)


def test_a_reward_is_the_value_that_its_reference_expects() -> None:
    """E_ref[exp(r / beta)] = 1: leaves (0.8, 0.2) against (1/2, 1/2) at beta = 1/2 have r = (0.2350, -0.4581)."""
    rewards = 0.5 * np.log(np.array([0.8, 0.2]) / 0.5)
    np.testing.assert_allclose(rewards, [0.2350, -0.4581], atol=1e-4)
    assert np.mean(np.exp(rewards / 0.5)) == pytest.approx(1)
    data = {"totals": torch.tensor(rewards), "outcome": torch.tensor([1.0, 0.0])}
    assert value("implicit-prm", data) == pytest.approx(np.log1p(np.exp(-np.array([0.2350, 0.4581]))).mean(), abs=1e-4)


def test_names_of_the_literature_are_others_on_log_ratios() -> None:
    for name, of in {
        "dpo": "bradley-terry", "istar": "bradley-terry", "implicit-prm": "outcome", "implicit-kto": "kto",
        "implicit-nca": "nca", "brain": "listwise", "step-dpo": "siblings", "agent-rm-implicit": "spa",
    }.items():  # fmt: skip
        assert family[name].function is family[of].function
        assert family[name].asks == ("reference",)
        assert family[of].asks == ()
