"""Step credit in SkyRL: advantage estimators for its registry.

    # in the entry script, before the trainer starts
    from stepreward.connect.engines.skyrl import register
    register({"pure": {"temperature": 0.1}})
    # trainer.algorithm.advantage_estimator=stepreward_pure

SkyRL keeps rewards at tokens, as verl does: a generator returns one list of rewards a response, or its environments
reward turns. Its step-wise mode (`generator.step_wise_trajectories`) drops them, so leave that off. Needs SkyRL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from skyrl.backends.skyrl_train.utils.ppo_utils import (  # type: ignore[import-not-found]
    AdvantageEstimatorRegistry,
)

from stepreward.connect.engines.token_rewards import GIVEN, dense_credit
from stepreward.connect.verl import estimator_name
from stepreward.core.catalog import credit
from stepreward.core.method import Method

Settings = Mapping[str, Any]
Estimator = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def estimators(settings: Mapping[str, Settings] | None = None) -> Iterator[tuple[str, Estimator]]:
    """Name and function of every credit method whose data SkyRL has, a critic's values among them."""
    for method in credit:
        if set(method.data) <= GIVEN | {"values"}:
            yield estimator_name(method), _estimator(method, (settings or {}).get(method.name, {}))


def _estimator(method: Method[..., Any], settings: Settings) -> Estimator:
    def compute(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Any,
        values: torch.Tensor | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages and returns, both (B, T), of SkyRL's batch."""
        data = {} if values is None else {"values": values}
        made = dense_credit(method, token_level_rewards, response_mask, index, data, settings)
        return made, made

    return compute


def register(settings: Mapping[str, Settings] | None = None) -> list[str]:
    """Adds every estimator to SkyRL's registry; returns their names.

    Args:
        settings: hyper-parameters by the method's name.
    """
    names = []
    for name, function in estimators(settings):
        AdvantageEstimatorRegistry.register(name, function)
        names.append(name)
    return names
