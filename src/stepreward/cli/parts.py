"""Flags of those who take part in a search, the same wherever one runs: who scores, who judges, who helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import parse_qsl

import typer

from stepreward.cli.models import scorer_at
from stepreward.cli.recipes import Recipe
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.runtime.flows import Judge, Policy, Scorer
from stepreward.policies.expert import WithExpert
from stepreward.policies.named import policy_at
from stepreward.score.ensemble import Combine, combined
from stepreward.score.judges.pairwise import PolicyJudge, ScorerJudge
from stepreward.score.model.cache_memory import cache_size

OWN_SCORE = "score"
"""Name of the judge that compares by the reward model's own totals."""
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
JudgeFlag = Annotated[
    str,
    typer.Option(
        help="Who compares two solutions, for knockout and elo: a policy as for --policy, or score for the reward "
        "model's own totals, score?aggregate=last for others than the least."
    ),
]
CacheFlag = Annotated[
    str,
    typer.Option(
        "--cache-memory",
        help="Memory for the reward models' keys and values, such as 2GiB; auto: half of a free CUDA device, a quarter "
        "of free RAM, at most 16GiB; 0: none.",
    ),
]


def scorers_at(
    models: Sequence[str], device: str, recipe: Recipe, combine: Combine, doubt: float, *, cache: str = "auto"
) -> Scorer | None:
    """A reward model, an ensemble of several, or None without any.

    Args:
        models: names, folders and addresses.
        device, recipe: of each.
        combine, doubt: how an ensemble's scores become one.
        cache: memory for the keys and values of all of them, as `--cache-memory` takes it.

    Raises:
        InputError: a calibrator for several models, whose scores differ; or a size of memory that is none.
        ModelError: there is no such checkpoint.
    """
    if len(models) > 1 and recipe.calibrator is not None:
        what = "--calibrator is of one model's scores"
        raise InputError(what, remedy="keep calibrators in the models' folders: `evaluate --calibrate`")
    own = replace(cache_size(cache), parts=max(1, len(models)))
    scorers = [scorer_at(model, device, recipe, cache=own) for model in models]
    return combined(scorers, combine=combine, doubt=doubt)


def policies_at(policy: str, expert: str, settings: Mapping[str, str], **how: Any) -> Policy:
    """A policy by name, with the one that it may ask for help.

    Args:
        policy, expert: names; an expert's settings stand in its own address.
        settings: of the policy, beside those of its name.
        how: keywords of `policy_at` for both.
    """
    writer = policy_at(policy, settings=settings, **how)
    return WithExpert(writer, policy_at(expert, **how)) if expert else writer


def judge_at(address: str, scorer: Scorer | None, *, concurrency: int = 16) -> Judge | None:
    """Who compares solutions: a policy by name, whose verdicts are read, or the scorer's totals; None for "".

    Args:
        address: a policy's name or address, `score`, `score?aggregate=NAME`, or nothing.
        scorer: the reward model, if there is one; where several threads share it, one that may be shared.
        concurrency: most requests under way at once to a server.

    Raises:
        InputError: `score` without a reward model, or a policy's setting that does not fit.
        UnknownNameError: there is no such aggregate or setting.
        ModelError: the policy cannot be loaded.
    """
    if not address:
        return None
    name, _, query = address.partition("?")
    if name != OWN_SCORE:
        # An address that says how it is sampled is taken at its word; judges do not gamble otherwise.
        told = "temperature=" in query
        return PolicyJudge(policy_at(address, concurrency=concurrency), temperature=None if told else 0.0)
    if scorer is None:
        raise InputError("--judge score compares by a reward model", remedy="pass --model, or a policy to judge")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    for setting in settings:
        if setting != "aggregate":
            raise UnknownNameError("setting of the judge score", setting, ["aggregate"])
    return ScorerJudge(scorer, **settings)
