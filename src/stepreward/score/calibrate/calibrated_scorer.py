"""A scorer with calibrated scores, usable as any other scorer, and the file of its calibrator."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import write_json
from stepreward.core.runtime.flows import Score, Scored, Scorer
from stepreward.score.calibrate.calibrators import Calibrator
from stepreward.score.capabilities import local_model_of, use_of
from stepreward.score.short_call import ShortCall

if TYPE_CHECKING:
    from stepreward.score.model.step_reward_model import StepRewardModel


class CalibratedScorer(ShortCall):
    """Maps another scorer's step scores by a fitted calibrator; a `core.runtime.flows.Scorer`.

    Its name holds a hash of the calibrator: a cache never mixes scores of two fits.

    Args:
        scorer: gives scores in [0, 1].
        calibrator: fitted on held-out solutions of the same scorer.

    Raises:
        ModelError: the calibrator is not fitted.
    """

    def __init__(self, scorer: Scorer, calibrator: Calibrator) -> None:
        self.scorer, self.calibrator = scorer, calibrator
        row = calibrator.to_json()
        digest = hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=6).hexdigest()
        self.name = f"{scorer.name} + {row['method']}:{digest}"
        self.batch_size = scorer.batch_size
        stated = use_of(scorer)
        self.use = None if stated is None else replace(stated, threshold=None)
        """The scorer's, but for its threshold: calibrated scores are probabilities again."""

    @property
    def local_model(self) -> tuple[StepRewardModel, str] | None:
        """The scorer's model and its device, where it is in this process."""
        return local_model_of(self.scorer)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Calibrated scores of each question's steps, NaN where the scorer gives NaN; the cost is the scorer's.

        Raises:
            InputError: the scorer gives a score outside [0, 1].
        """
        return [replace(one, scores=self.calibrator.predict(one.scores)) for one in self.scorer.score_many(questions)]


def save_calibrator(calibrator: Calibrator, path: Path) -> None:
    """Writes a fitted calibrator as JSON, whole or not at all.

    Raises:
        ModelError: it is not fitted.
        StoreError: the file cannot be written.
    """
    write_json(path, calibrator.to_json())


def read_calibrator(path: Path) -> Calibrator:
    """The calibrator that `save_calibrator` wrote.

    Raises:
        InputError: the file cannot be read, or holds none.
        UnknownNameError: it names no method of the family calibrate.
    """
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"cannot read a calibrator: {error}", source=path, remedy="fit one with `evaluate --calibrate`"
        ) from error
    try:
        return Calibrator.from_json(row)
    except InputError as error:
        raise InputError(str(error), source=path) from error
