"""The reward models of a command: flags that name them and say how they are scored, and the scorers that they mean."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Scorer
from stepreward.core.vocabulary import Count, Flag
from stepreward.policies.named import policy_at
from stepreward.score import on_demand
from stepreward.score.baselines import WITHOUT_MODEL
from stepreward.score.checkpoints.judges import Judge, judge_of
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.encode.record_file import read_record
from stepreward.score.ensemble import Combine, combined
from stepreward.score.judges.generative import GenerativeScorer
from stepreward.score.model.cache_memory import NO_CACHE, CacheSize, cache_size

if TYPE_CHECKING:
    from stepreward.score.on_demand import Loaded


@dataclass(frozen=True)
class RecipeFlags:
    """How a reward model is scored, where its name and configuration do not say, and where it runs."""

    like: str = ""
    """Row of the table of checkpoints that the model follows, such as trl-prm."""
    record: Path | None = None
    """JSON of the fields of the encoder record that differ from the model's or row's own."""
    calibrator: Path | None = None
    """Calibrator of the scores, written by `evaluate --calibrate`; left out: the one in the model's folder."""
    answers: Count = 1
    """Answers sampled of a verifier that writes, such as launch/ThinkPRM-7B."""
    device: str = "cpu"
    """Torch device of the reward model: cpu, cuda, cuda:1, auto."""
    dtype: str = ""
    """Numbers of the reward model's weights: float32, which it is if left out, bfloat16, float16, auto."""

    def require(self, model: bool) -> None:
        """Checks that there is a model, where the flags say how one is scored.

        Raises:
            InputError: there is none.
        """
        if (self.like or self.record or self.calibrator) and not model:
            what = "--like, --record and --calibrator say how a model is scored"
            raise InputError(what, remedy="pass --model, or drop them")

    def scorer(self, model: str, *, cache: CacheSize = NO_CACHE, calibrated: bool = True) -> Loaded | GenerativeScorer:
        """The scorer of a checkpoint folder, a hub name or an address, or the policy that writes verdicts by its row.

        Scores are mapped by `--calibrator`, or else by the one in the model's folder, unless not `calibrated`.

        Raises:
            InputError: the device is not here, or the record is none.
            ModelError: there is no such checkpoint.
            UnknownNameError: there is no such device, dtype or row.
        """
        if self.device != "cpu":  # which always is, with or without torch
            on_demand.device_of(self.device)
        scorer: Loaded | GenerativeScorer
        judge = judge_of(self.like or model)
        if judge is not None:
            scorer = self._written(model, judge)
        elif model in WITHOUT_MODEL and not (self.like or self.record):
            scorer = WITHOUT_MODEL[model]()
        else:
            scorer = self._loaded(model, cache, calibrated=calibrated and self.calibrator is None)
        if self.calibrator is None or not calibrated:
            return scorer
        return on_demand.CalibratedScorer(scorer, on_demand.read_calibrator(self.calibrator))

    def _written(self, model: str, judge: Judge) -> GenerativeScorer:
        """A verifier that writes its verdicts."""
        if self.record is not None:
            raise InputError(f"{judge.name} writes its verdicts: no record says how it is read", remedy="drop --record")
        return GenerativeScorer(policy_at(model, raw=judge.raw, dtype=self.dtype), judge, n=self.answers)

    def _loaded(self, model: str, cache: CacheSize, *, calibrated: bool) -> Loaded:
        """A model that scores by a record; its name says which, as scores by another are no scores of its own."""
        like, record = self.like, None
        if self.record is not None:
            own, like = on_demand.own_record(model, self.like)
            record = read_record(self.record, own)
        scorer = on_demand.load(
            model,
            like=like,
            record=record,
            device=self.device,
            dtype=self.dtype or "float32",
            cache_bytes=cache,
            calibrated=calibrated,
        )
        scorer.name += mark(like, record)
        return scorer


@dataclass(frozen=True)
class EnsembleFlags:
    """One reward model or several, and how several become one."""

    model: tuple[str, ...] = ()
    """Reward model: a folder, hub name, URL#NAME in a server, or tool; several: an ensemble."""
    combine: Combine = "mean"
    """How an ensemble's scores become one; lower is the mean less --doubt deviations."""
    doubt: Annotated[float, Flag(low=0.0)] = 1.0
    """Of --combine lower, in standard deviations."""
    cache_memory: str = "auto"
    """Memory for the reward models' keys and values, such as 2GiB; auto: half of a free CUDA device, a quarter of free
    RAM, at most 16GiB; 0: none."""

    def scorer(self, recipe: RecipeFlags) -> Scorer | None:
        """A reward model, an ensemble of several, or None without any.

        Raises:
            InputError: a calibrator for several models, whose scores differ; or a size of memory that is none.
            ModelError: there is no such checkpoint.
        """
        if len(self.model) > 1 and recipe.calibrator is not None:
            what = "--calibrator is of one model's scores"
            raise InputError(what, remedy="keep calibrators in the models' folders: `evaluate --calibrate`")
        each = replace(cache_size(self.cache_memory), parts=max(1, len(self.model)))
        scorers = [recipe.scorer(model, cache=each) for model in self.model]
        return combined(scorers, combine=self.combine, doubt=self.doubt)


def mark(like: str, record: EncoderRecord | None) -> str:
    """The ending of a scorer's name that says which recipe it follows, if not the model's own."""
    if record is None:
        return f" like {like}" if like else ""
    digest = sha256(json.dumps(asdict(record), sort_keys=True).encode()).hexdigest()[:8]
    return f" by record {digest}"
