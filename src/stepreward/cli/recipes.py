"""Flags that say how a model is scored, and in which numbers, where its name and configuration do not tell."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from stepreward.core.errors import InputError
from stepreward.core.optional import optional
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.encode.record_file import read_record

LikeFlag = Annotated[
    str, typer.Option("--like", help="Row of the table of checkpoints that the model follows, such as trl-prm.")
]
RecordFlag = Annotated[
    Path | None,
    typer.Option(
        "--record", help="JSON of the fields of the encoder record that differ from the model's or row's own."
    ),
]
CalibratorFlag = Annotated[
    Path | None,
    typer.Option(
        "--calibrator", help="Calibrator of the scores, of `evaluate --calibrate`; one in the model's folder else."
    ),
]
DeviceFlag = Annotated[str, typer.Option("--device", help="Torch device of the reward model: cpu, cuda, cuda:1, auto.")]
DtypeFlag = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="Numbers of the reward model's weights: float32, which it is if left out, bfloat16, float16, auto.",
    ),
]
AnswersFlag = Annotated[
    int, typer.Option("--answers", min=1, help="Answers sampled of a verifier that writes, such as launch/ThinkPRM-7B.")
]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is scored: as a row of the table of checkpoints, by a record in a file, or as it says itself."""

    like: str = ""
    file: Path | None = None
    calibrator: Path | None = None
    """Of the scores, in place of the model's own."""
    answers: int = 1
    """Of a verifier that writes."""
    dtype: str = ""
    """Of the weights; "" for float32, and for a verifier that writes, its own."""

    def read(self, model: str) -> tuple[str, EncoderRecord | None]:
        """The row that a model follows and the record in place of the row's, "" and None where it says itself.

        Raises:
            InputError: the file is no record.
            ModelError: there is no such model.
            UnknownNameError: there is no such row, or no such field.
        """
        if self.file is None:
            return self.like, None
        record, row = optional("stepreward.score.load").own_record(model, self.like)
        return row, read_record(self.file, record)


def recipe_of(
    like: str,
    record: Path | None,
    calibrator: Path | None = None,
    answers: int = 1,
    dtype: str = "",
    *,
    needed: bool = True,
) -> Recipe:
    """What the flags say.

    Args:
        like: name of a row, or nothing.
        record, calibrator: files, or nothing.
        answers: of a verifier that writes.
        dtype: of the weights, or nothing.
        needed: whether there is a model that they can be about.

    Raises:
        InputError: there is no such model.
    """
    if (like or record or calibrator) and not needed:
        what = "--like, --record and --calibrator say how a model is scored"
        raise InputError(what, remedy="pass --model, or drop them")
    return Recipe(like, record, calibrator, answers, dtype)


def mark(like: str, record: EncoderRecord | None) -> str:
    """What a scorer's name takes on, so that scores by another recipe are not taken for its own."""
    if record is None:
        return f" like {like}" if like else ""
    digest = sha256(json.dumps(asdict(record), sort_keys=True).encode()).hexdigest()[:8]
    return f" by record {digest}"
