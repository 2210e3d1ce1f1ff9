"""Step credit in verl: advantage estimators for its registry.

    algorithm.adv_estimator=stepreward_pure

verl loads this module by the entry point `verl.plugins` and registers every credit method whose data it has, as
`stepreward_` and the method's name with underscores for dashes. Importing the module without verl is no error:
`estimators()` can be used alone. `connect.engines.token_rewards` says how steps are read off a batch.

verl (0.9) passes the data of samples to one estimator alone, its own `gdpo`. Methods that need more than rewards (a
critic's values, entropy, states) run under that name, with `algorithm.stepreward.credit` saying which one is meant.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from stepreward.connect.engines.token_rewards import dense_credit
from stepreward.core.catalog import credit
from stepreward.core.errors import MissingDataError
from stepreward.core.method import Method
from stepreward.credit.combined import credit_of

GIVEN = frozenset(("rewards", "outcome", "group", "offsets", "lengths"))
"""Data in verl's batches."""
PREFIX = "stepreward_"
WITH_SAMPLES = "gdpo"
"""The one estimator of verl that gets the data of samples."""
Estimator = Callable[..., tuple[torch.Tensor, torch.Tensor]]
_log = logging.getLogger(__name__)


def estimators() -> Iterator[tuple[str, Estimator]]:
    """Name and function of every credit method whose data verl has."""
    for method in credit:
        if set(method.data) <= GIVEN:
            yield estimator_name(method), estimator(method)


def estimator_name(method: Method[..., Any]) -> str:
    """The name under which an engine's registry knows a credit method."""
    return PREFIX + method.name.replace("-", "_").replace("+", "p")


def estimator(method: Method[..., Any]) -> Estimator:
    """An advantage estimator of verl's signature.

    Its hyper-parameters are read from `algorithm.stepreward`, a table of names and values, where the configuration has
    one; unknown names are an error.
    """

    def compute(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        config: Any = None,
        index: Any = None,
        non_tensor_batch: Mapping[str, Any] | None = None,
        batch: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages and returns, both (B, T).

        Args:
            token_level_rewards: (B, T), nonzero at the ends of steps; NaN where one is unscored.
            response_mask: (B, T), 1 at the policy's tokens.
            config: verl's algorithm configuration.
            index: (B,) identity of each row's prompt.
            non_tensor_batch: data of samples; `outcome` (B,) states outcomes apart from step rewards.
            batch: verl's tensors, a critic's `values` among them.
        """
        settings = {name: value for name, value in _table(config).items() if name != "credit"}
        tensors = {} if batch is None else {name: batch[name] for name in method.data if name in set(batch.keys())}
        data = {**tensors, **(non_tensor_batch or {})}
        if missing := set(method.data) - GIVEN - {"turn"} - data.keys():
            remedy = f"set adv_estimator={WITH_SAMPLES} and stepreward.credit={method.name}, which get a sample's data"
            raise MissingDataError(method.name, sorted(missing), data, remedy)
        made = dense_credit(method, token_level_rewards, response_mask, index, data, settings)
        return made, made

    return compute


def _table(config: Any) -> dict[str, Any]:
    """`stepreward` of a configuration, which verl passes as an object of omegaconf or as a dataclass, by release."""
    table = config.get("stepreward") if hasattr(config, "get") else getattr(config, "stepreward", None)
    return dict(table) if table else {}


def with_samples(theirs: Estimator) -> Estimator:
    """verl's estimator that gets the data of samples, which gives way where the configuration names a credit method.

    Args:
        theirs: what runs where `stepreward.credit` is not set.
    """

    def compute(*arguments: Any, config: Any = None, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        name = _table(config).get("credit")
        chosen = theirs if name is None else estimator(credit_of(name))
        return chosen(*arguments, config=config, **named)

    return compute


def register() -> list[str]:
    """Adds every estimator to verl's registry; returns their names.

    Raises:
        ModuleNotFoundError: verl is not installed.
    """
    algorithms = importlib.import_module("verl.trainer.ppo.core_algos")
    names = []
    for name, function in estimators():
        algorithms.register_adv_est(name)(function)
        names.append(name)
    known = algorithms.ADV_ESTIMATOR_REGISTRY
    if WITH_SAMPLES in known:
        known[WITH_SAMPLES] = with_samples(known[WITH_SAMPLES])
    return names


try:
    register()
except ModuleNotFoundError:
    _log.debug("verl is not installed: its registry is left alone")
