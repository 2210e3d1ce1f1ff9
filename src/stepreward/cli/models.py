"""Reward models by name, as the flags of several commands say them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.cli.recipes import Recipe, mark
from stepreward.core.errors import InputError
from stepreward.core.optional import optional
from stepreward.policies.named import policy_at
from stepreward.score.baselines import WITHOUT_MODEL
from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer, read_calibrator
from stepreward.score.checkpoints.judges import Judge, judge_of
from stepreward.score.judges.generative import GenerativeScorer
from stepreward.score.model.cache_memory import NO_CACHE, CacheSize

if TYPE_CHECKING:
    from stepreward.score.load import Loaded


def scorer_at(
    model: str, device: str, recipe: Recipe | None = None, *, cache: CacheSize = NO_CACHE, calibrated: bool = True
) -> Loaded | GenerativeScorer:
    """A checkpoint of stepreward or a public one, a folder or a hub name, on a device, or one in a server.

    A verifier that writes is a policy that is asked, by the row of its name or of the recipe.

    Scores are mapped by the recipe's calibrator, or else by the one in its folder, unless not `calibrated`.

    Raises:
        InputError: the device is not here.
        ModelError: there is no such checkpoint.
        UnknownNameError: there is no such device, dtype or row.
    """
    if device != "cpu":  # which always is, with or without torch
        optional("stepreward.score.model.devices").device_of(device)
    recipe = recipe or Recipe()
    judge = judge_of(recipe.like or model)
    if judge is not None:
        return _written(model, judge, recipe)
    if model in WITHOUT_MODEL and not (recipe.like or recipe.file):
        scorer: Loaded = WITHOUT_MODEL[model]()
    else:
        like, record = recipe.read(model)
        scorer = optional("stepreward.score.load").load(
            model, like=like, record=record, device=device, dtype=recipe.dtype or "float32", cache_bytes=cache,
            calibrated=calibrated and recipe.calibrator is None,
        )  # fmt: skip
        scorer.name += mark(like, record)
    if calibrated and recipe.calibrator is not None:
        return CalibratedScorer(scorer, read_calibrator(recipe.calibrator))
    return scorer


def _written(model: str, judge: Judge, recipe: Recipe) -> Loaded | GenerativeScorer:
    """A verifier that writes its verdicts."""
    if recipe.file is not None:
        raise InputError(f"{judge.name} writes its verdicts: no record says how it is read", remedy="drop --record")
    scorer = GenerativeScorer(policy_at(model, raw=judge.raw, dtype=recipe.dtype), judge, n=recipe.answers)
    return scorer if recipe.calibrator is None else CalibratedScorer(scorer, read_calibrator(recipe.calibrator))
