"""Flags of those who take part in a search, the same wherever one runs: who scores, and who is asked for help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from stepreward.cli.inputs import policy_at, scorer_at
from stepreward.cli.recipes import Recipe
from stepreward.core.errors import InputError
from stepreward.core.flows import Policy, Scorer
from stepreward.policies.expert import WithExpert
from stepreward.score.ensemble import Combine, combined

ModelsFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="Reward model: a folder, hub name, URL#NAME in a server, or tool; several: an ensemble."
    ),
]
CombineFlag = Annotated[
    Combine,
    typer.Option(help="How an ensemble's scores become one; lower is the mean less --doubt deviations."),
]
DoubtFlag = Annotated[float, typer.Option(min=0.0, help="Of --combine lower, in standard deviations.")]
ExpertFlag = Annotated[
    str, typer.Option(help="Stronger policy, as for --policy, that searches such as intervention ask at chosen steps.")
]


def scorers_at(
    models: Sequence[str], device: str, recipe: Recipe, combine: Combine, doubt: float, *, cache_tokens: int
) -> Scorer | None:
    """A reward model, an ensemble of several, or None without any.

    Raises:
        InputError: a calibrator for several models, whose scores differ.
        ModelError: there is no such checkpoint.
    """
    if len(models) > 1 and recipe.calibrator is not None:
        what = "--calibrator is of one model's scores"
        raise InputError(what, remedy="keep calibrators in the models' folders: `evaluate --calibrate`")
    scorers = [scorer_at(model, device, recipe, cache_tokens=cache_tokens) for model in models]
    return combined(scorers, combine=combine, doubt=doubt)


def policies_at(policy: str, expert: str, *, concurrency: int = 16) -> Policy:
    """A policy by name, with the one that it may ask for help."""
    writer = policy_at(policy, concurrency=concurrency)
    return WithExpert(writer, policy_at(expert, concurrency=concurrency)) if expert else writer
