"""Scorers, policies and graders by name or address; objects pass through."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepreward.core.runtime.acts import Environment, Episodes
from stepreward.core.runtime.flows import Grader, Policy, Scorer
from stepreward.environments.by_address import episodes_of
from stepreward.policies.crew import placed
from stepreward.policies.named import policy_at
from stepreward.score.executed import with_execution
from stepreward.score.load import load as load_scorer
from stepreward.tasks.graders import grader_by_name

if TYPE_CHECKING:
    from stepreward.score.load import Loaded


def load(name: str | Path, **options: Any) -> Loaded:
    """Loads a scorer: `scorer.score(question, steps)` gives one number a step.

    Args:
        name: checkpoint folder, hub name, address `http://host/v1#MODEL`, `vllm:NAME`, or a scorer without weights:
            `tool`, `random`, `length`, `position`, `constant`. The last need neither torch nor a download. `executed`
            scores an agent's actions by executing them (`score.executed`).
        options: of `stepreward.score.load.load`: `like`, `record`, `device`, `dtype`, `cache_bytes`, `calibrator`, ...

    Raises:
        InputError: a recipe is given for a scorer without weights.
        ModelError: there is no such checkpoint, it cannot be read, or an extra is not installed.
    """
    return with_execution(name, partial(load_scorer, **{"open_policy": policy_at, **options}))


def scorer_of(scorer: str | Path | Scorer) -> Scorer:
    """A scorer, loaded where a name is given."""
    return load(scorer) if isinstance(scorer, str | Path) else scorer


def policy(
    name: str | Path | Policy,
    environment: str | Episodes | Callable[[], Environment] | None = None,
    **settings: Any,
) -> Policy:
    """A policy: who proposes steps.

    Args:
        name: model folder, hub name, `builtin:arithmetic`, `vllm:NAME`, `http://host/v1#MODEL`, or a policy.
        environment: where it acts, which makes it an agent: an address such as `tools` or
            `gymnasium?env=FrozenLake-v1`, or what makes a `core.runtime.acts.Environment`, such as a class.
        settings: `temperature`, `max_tokens`, `separator` and others that an address may carry.

    Raises:
        InputError: a setting does not fit.
        ModelError: the model cannot be loaded.
        UnknownNameError: there is no such setting.
    """
    texts = {key: str(value) for key, value in settings.items()}
    made = policy_at(str(name), settings=texts) if isinstance(name, str | Path) else name
    return placed(made, None if environment is None else episodes_of(environment, policy_at))


def grader(name: str | Grader) -> Grader:
    """A grader: who decides outcomes, by name (`mathematics`, `arithmetic`, those of plug-ins); an object is itself.

    Raises:
        UnknownNameError: there is none of that name.
    """
    return grader_by_name(name) if isinstance(name, str) else name


def shown_name(given: object) -> str | None:
    """What identifies a policy, scorer or grader in the plan of a folder: its name, or the name of the object."""
    return (
        None if given is None else str(given) if isinstance(given, str | Path) else str(getattr(given, "name", given))
    )
