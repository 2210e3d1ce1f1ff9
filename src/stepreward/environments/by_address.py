"""Environments by address, as `NAME?setting=value`, and a policy that acts in one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl

from stepreward.core.catalog import environment as environments
from stepreward.core.runtime.acts import Environment, Episodes
from stepreward.core.runtime.flows import Policy
from stepreward.core.settings_text import read_settings
from stepreward.environments.episode_pool import EpisodePool


def environment_at(source: str, open_policy: Callable[[str], Policy] | None = None) -> Episodes:
    """An environment by name, with settings: `tools`, `gymnasium?env=FrozenLake-v1`, `openenv:http://HOST:PORT`.

    What stands behind a colon is the setting `place`.

    Args:
        source: the address.
        open_policy: makes a policy of an address, for environments in which models are asked.

    Raises:
        InputError: a setting does not fit.
        UnknownNameError: there is no such environment or setting.
    """
    address, _, query = source.partition("?")
    name, _, place = address.partition(":")
    method = environments[name]
    given = [*([("place", place)] if place else ()), *parse_qsl(query, keep_blank_values=True)]
    (settings,) = read_settings([f"{key}={value}" for key, value in given], method)
    made: Episodes = method.take(
        {"open_policy": open_policy, "open_environment": partial(environment_at, open_policy=open_policy)}, **settings
    )
    return made


def episodes_of(
    environment: str | Episodes | Callable[[], Environment], open_policy: Callable[[str], Policy] | None = None
) -> Episodes:
    """The episodes of an environment: by address, of a class or function that makes one, or as they are.

    Raises:
        InputError, UnknownNameError: as `environment_at`.
    """
    if isinstance(environment, str):
        return environment_at(environment, open_policy)
    if callable(environment) and not hasattr(environment, "act_many"):
        name = getattr(environment, "__qualname__", type(environment).__name__)
        return EpisodePool(environment, f"{getattr(environment, '__module__', '')}.{name}".strip("."))
    return environment  # type: ignore[return-value]
