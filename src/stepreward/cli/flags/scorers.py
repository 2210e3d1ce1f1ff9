"""The reward models of a command: flags that name them and say how they are scored, and the scorers that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stepreward.cli import on_demand
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Scorer
from stepreward.core.vocabulary import Count, Flag
from stepreward.policies.named import policy_at
from stepreward.score.ensemble import Combine, combined
from stepreward.score.executed import with_execution
from stepreward.score.load import load
from stepreward.score.model.cache_memory import NO_CACHE, CacheSize, cache_size
from stepreward.verbs.read_rows import rows_of

if TYPE_CHECKING:
    from stepreward.score.load import Loaded


@dataclass(frozen=True)
class RecipeFlags:
    """How a reward model is scored, where its name and configuration do not say, and where it runs."""

    like: str = ""
    """Row of the table of checkpoints that the model follows, such as trl-prm."""
    record: Path | None = None
    """JSON of the fields of the encoder record that differ from the model's or row's own; of a judge, such as
    first-error, those of its row, such as prompt_format."""
    readout: str = ""
    """Formula of another score of the same model, such as "gain(score, 0.5)", or the name of one of its outputs."""
    user_pairs: Path | None = None
    """Pairs that one user compared, any format of comparisons, or solutions with outcomes: the score is that of this
    user, for a model of the objective vpl; nothing is trained."""
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
        if (self.like or self.record or self.readout or self.user_pairs or self.calibrator) and not model:
            what = "--like, --record, --readout, --user-pairs and --calibrator say how a model is scored"
            raise InputError(what, remedy="pass --model, or drop them")

    def scorer(
        self, model: str, *, cache: CacheSize = NO_CACHE, calibrated: bool = True, also: Mapping[str, str] | None = None
    ) -> Loaded:
        """The scorer of a checkpoint folder, a hub name or an address, or the policy that writes verdicts by its row.

        Scores are mapped by `--calibrator`, or else by the one in the model's folder, unless not `calibrated`.

        Raises:
            InputError: the device is not here, or the record is none; or the model infers no user from pairs.
            ModelError: there is no such checkpoint.
            UnknownNameError: there is no such device, dtype or row.
        """
        readout = self.readout
        if self.user_pairs is not None:
            if readout:
                raise InputError("--user-pairs is the score of a user", remedy="pass it or --readout, not both")
            readout = on_demand.readout_of_pairs(rows_of(self.user_pairs, comparisons=True), model, device=self.device)
        how = partial(
            load,
            like=self.like,
            record=self.record,
            readout=readout,
            device=self.device,
            dtype=self.dtype,
            cache_bytes=cache,
            also=also,
            calibrated=calibrated,
            calibrator=self.calibrator,
            answers=self.answers,
            open_policy=policy_at,
        )
        return with_execution(model, how)


@dataclass(frozen=True)
class EnsembleFlags:
    """One reward model or several, and how several become one."""

    model: tuple[str, ...] = ()
    """Reward model: a folder, hub name, URL#NAME in a server, tool, check:NAME, stored:TABLE or executed; several: an
    ensemble."""
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
