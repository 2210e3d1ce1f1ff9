"""The first line a user writes: a scorer by name or path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from stepreward.core.errors import ModelError
from stepreward.core.servers import Server
from stepreward.score.calibrated import CALIBRATOR_FILE, CalibratedScorer, read_calibrator
from stepreward.score.checkpoints.row import Checkpoint, Head
from stepreward.score.checkpoints.table import by_name, recognised
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encoder import RECORD_FILE, EncoderRecord, StepEncoder
from stepreward.score.implicit import ImplicitScorer
from stepreward.score.public import load_public, load_tokenizer
from stepreward.score.served import Endpoint, ServedScorer
from stepreward.score.weights import find, read_json


def load(
    name: str | Path,
    *,
    like: str = "",
    record: EncoderRecord | None = None,
    head: Head | None = None,
    reference: str | Path = "",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    cache_tokens: int = 0,
    calibrated: bool = True,
) -> DiscriminativeScorer | ImplicitScorer | CalibratedScorer:
    """Loads a scorer from a checkpoint folder or a hub name.

    A checkpoint of stepreward says itself how it is scored. A public one is looked up in the table of checkpoints by
    its name, by the name in its configuration or by its architecture; any other is scored as `like` or `record` say.

    Args:
        name: folder written by `train` or `stepreward run`, folder in transformers format, or hub name.
        like: name of the row to follow where the name does not tell, such as `trl-prm`.
        record: encoder record, in place of the row's or the checkpoint's own.
        head: where labels come from, in place of the row's.
        reference: the reference model of an implicit score, in place of the row's.
        device: torch device.
        dtype: of the weights.
        cache_tokens: tokens of growing trees that are kept between calls.
        calibrated: map scores by the calibrator in the checkpoint's folder, where there is one.

    Raises:
        ModelError: there is no such checkpoint, it cannot be read, or nothing says how it is scored.
        UnknownNameError: no row is called `like`.
    """
    folder = find(name)
    scorer = _bare(name, folder, like, record, head, reference, device, dtype, cache_tokens)
    kept = folder / CALIBRATOR_FILE
    return CalibratedScorer(scorer, read_calibrator(kept)) if calibrated and kept.is_file() else scorer


def _bare(
    name: str | Path, folder: Path, like: str, record: EncoderRecord | None, head: Head | None, reference: str | Path,
    device: str, dtype: torch.dtype, cache_tokens: int,
) -> DiscriminativeScorer | ImplicitScorer:  # fmt: skip
    """The scorer without a calibrator."""
    if (folder / RECORD_FILE).is_file() and not like:
        return DiscriminativeScorer.load(folder, record=record, device=device, dtype=dtype, cache_tokens=cache_tokens)
    row = _row(str(name), folder, like, record, head)
    if row.record.readout == "implicit":
        other = reference or row.reference
        if not other:
            raise ModelError("an implicit score is a ratio of two models: pass reference= the one it was trained from")
        return ImplicitScorer.load(folder, other, row.record, name=str(name), device=device, dtype=dtype)
    model = load_public(folder, row.record, row.head, dtype)
    return DiscriminativeScorer(model, name=str(name), device=device, cache_tokens=cache_tokens)


def load_served(
    name: str | Path,
    url: str,
    *,
    served_as: str = "",
    api_key: str = "",
    endpoint: Endpoint = "pooling",
    probabilities: bool | None = None,
    like: str = "",
    record: EncoderRecord | None = None,
    concurrency: int = 16,
) -> ServedScorer:
    """A scorer for a reward model that runs in a vLLM server; only its tokenizer is loaded here.

    Args:
        name: folder or hub name, which tells the recipe and the tokenizer as in `load`.
        url: of the server, such as http://localhost:8000.
        served_as: the name under which it serves the model; `name` where empty.
        api_key: of the server, if it asks for one.
        endpoint: `pooling`, `classify` or `score`.
        probabilities: whether the server applies softmax or sigmoid; None finds out, where that can be seen.
        like: name of the row to follow where the name does not tell.
        record: encoder record, in place of the row's.
        concurrency: most requests under way at once.

    Raises:
        ModelError: there is no such tokenizer, nothing says how it is scored, or such an endpoint cannot be read.
        UnknownNameError: no row is called `like`.
    """
    folder = find(name, weights=False)
    if (folder / RECORD_FILE).is_file() and not like and record is None:
        record, _ = EncoderRecord.load(folder)
    row = _row(str(name), folder, like, record, None)
    server = Server(url, served_as or str(name), api_key=api_key, concurrency=concurrency)
    encoder = StepEncoder(row.record, load_tokenizer(folder))
    return ServedScorer(server, encoder, endpoint=endpoint, probabilities=probabilities)


def own_record(name: str | Path, like: str = "") -> tuple[EncoderRecord, str]:
    """The record that a checkpoint is scored by where nobody says otherwise, and the name of its row, "" for none.

    Args:
        name: folder or hub name.
        like: name of the row to follow.

    Raises:
        ModelError: there is no such checkpoint.
        UnknownNameError: no row is called `like`.
    """
    folder = find(name, weights=False)
    if (folder / RECORD_FILE).is_file() and not like:
        return EncoderRecord.load(folder)[0], ""
    rows = [by_name(like)] if like else _recognised(str(name), folder)
    known = len({(row.record, row.head) for row in rows}) == 1
    return (rows[0].record, rows[0].name) if known else (EncoderRecord(), "")


def _recognised(name: str, folder: Path) -> list[Checkpoint]:
    config = read_json(folder / "config.json")
    return recognised(name, str(config.get("_name_or_path", "")), config.get("architectures") or [])


def _row(name: str, folder: Path, like: str, record: EncoderRecord | None, head: Head | None) -> Checkpoint:
    """The row that a checkpoint is scored by."""
    if like:
        row = by_name(like)
    elif record is not None:
        default: Head = "none" if record.readout == "implicit" else "tokens" if record.label_tokens else "weights"
        return Checkpoint((name,), record, "as told", head or default)
    else:
        rows = _recognised(name, folder)
        if len({(row.record, row.head) for row in rows}) != 1:
            raise ModelError(_unsure(folder, read_json(folder / "config.json").get("architectures") or [], rows))
        row = rows[0]
    return replace(row, record=record or row.record, head=head or row.head)


def _unsure(folder: Path, architectures: list[str], rows: list[Checkpoint]) -> str:
    what = f"{folder} is a {' or '.join(architectures) or 'model without architectures'}"
    if rows:
        return (
            f"{what}, as are {', '.join(row.name for row in rows)}: pass like= (--like) the one whose recipe it follows"
        )
    return (
        f"{what}, which the table of checkpoints does not know: pass like= (--like) a name of the table "
        "('trl-prm' for TRL's PRMTrainer), or record= (--record) an encoder record that says how it is scored"
    )
