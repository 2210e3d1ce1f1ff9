"""The first line a user writes: a scorer by name or path."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl

import torch

from stepreward.core.errors import InputError, ModelError, UnknownNameError
from stepreward.core.http.addresses import without_secrets
from stepreward.core.http.client import Server
from stepreward.core.optional import VLLM
from stepreward.score.baselines import WITHOUT_MODEL, WithoutModel
from stepreward.score.calibrate.calibrated_scorer import CALIBRATOR_FILE, CalibratedScorer, read_calibrator
from stepreward.score.checkpoints.row import Checkpoint, Head
from stepreward.score.checkpoints.table import by_name, recognised
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import RECORD_FILE, EncoderRecord, StepEncoder
from stepreward.score.implicit import ImplicitScorer
from stepreward.score.model.cache_memory import CacheSize
from stepreward.score.model.devices import device_of, dtype_of, saved_dtype
from stepreward.score.model.public_checkpoints import load_public, load_tokenizer
from stepreward.score.model.weights import find, read_json
from stepreward.score.remote.reward_server import Endpoint, ServedScorer
from stepreward.score.remote.vllm_scorer import VllmLabelScorer, VllmScorer, start

Loaded = (
    DiscriminativeScorer | ImplicitScorer | CalibratedScorer | ServedScorer | VllmScorer | VllmLabelScorer
    | WithoutModel
)  # fmt: skip
_SERVED: Mapping[str, Callable[[str], Any]] = {
    "endpoint": str, "served_as": str, "probabilities": {"true": True, "false": False}.__getitem__, "top": int,
    "concurrency": int,
}  # fmt: skip
"""Settings of a reward model in a server that its address may name, and how they are read."""


def load(
    name: str | Path,
    *,
    like: str = "",
    record: EncoderRecord | None = None,
    head: Head | None = None,
    reference: str | Path = "",
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    cache_bytes: int | str | CacheSize = 0,
    calibrated: bool = True,
) -> Loaded:
    """Loads a scorer from a checkpoint folder or a hub name, or reaches one in a server or an engine.

    A checkpoint of stepreward says itself how it is scored. A public one is looked up in the table of checkpoints by
    its name, by the name in its configuration or by its architecture; any other is scored as `like` or `record` say.
    Four scorers need no weights: `tool` computes equations again; `random`, `length` and `constant` are baselines.

    Args:
        name: folder written by `train` or `stepreward run`, folder in transformers format, hub name, address of a
            model in a server, see `served_at`, `vllm:NAME` for a vLLM engine in this process, or a name without weights
            (a folder of the same name is `./tool`).
        like: name of the row to follow where the name does not tell, such as `trl-prm`.
        record: encoder record, in place of the row's or the checkpoint's own.
        head: where labels come from, in place of the row's.
        reference: the reference model of an implicit score, in place of the row's.
        device: torch device; `auto` is CUDA where there is one. A server or an engine chooses its own, and its dtype.
        dtype: of the weights, such as `bfloat16`, which halves their memory and that of the cache; `auto` is what the
            checkpoint was saved in, and float32 on a CPU.
        cache_bytes: memory for the keys and values of growing trees between calls, so that a search pays for new tokens
            only: bytes, a text such as `2GiB`, or `auto`: half of what is free on a CUDA device, a quarter of free RAM,
            at most 16 GiB. 0 keeps none.
        calibrated: map scores by the calibrator in the checkpoint's folder, where there is one.

    Raises:
        InputError: a recipe is given for a scorer that has no weights, or the device is not here.
        ModelError: there is no such checkpoint, it cannot be read, or nothing says how it is scored.
        UnknownNameError: no row is called `like`, or there is no such device or dtype.
    """
    place, numbers = device_of(device), dtype_of(dtype)
    if name in WITHOUT_MODEL:
        if like or record or head or reference:
            raise InputError(f"{name!r} has no weights, and no recipe to follow", remedy="leave like and record out")
        return WITHOUT_MODEL[str(name)]()
    if is_address(name):
        return served_at(str(name), like=like, record=record)
    if str(name).startswith(VLLM):
        return start(str(name).removeprefix(VLLM), _encoder(str(name).removeprefix(VLLM), like, record))
    folder = find(name)
    numbers = numbers or saved_dtype(folder, place)
    scorer = _bare(name, folder, like, record, head, reference, str(place), numbers, cache_bytes)
    if numbers != torch.float32:
        # Scores of other numbers are other scores, to a cache of answers too.
        scorer.name += f" in {str(numbers).removeprefix('torch.')}"
    kept = folder / CALIBRATOR_FILE
    return CalibratedScorer(scorer, read_calibrator(kept)) if calibrated and kept.is_file() else scorer


def _bare(
    name: str | Path, folder: Path, like: str, record: EncoderRecord | None, head: Head | None, reference: str | Path,
    device: str, dtype: torch.dtype, cache_bytes: int | str | CacheSize,
) -> DiscriminativeScorer | ImplicitScorer:  # fmt: skip
    """The scorer without a calibrator."""
    if (folder / RECORD_FILE).is_file() and not like:
        return DiscriminativeScorer.load(folder, record=record, device=device, dtype=dtype, cache_bytes=cache_bytes)
    row = _row(str(name), folder, like, record, head)
    if row.record.readout == "implicit":
        other = reference or row.reference
        if not other:
            raise ModelError("an implicit score is a ratio of two models: pass reference= the one it was trained from")
        return ImplicitScorer.load(folder, other, row.record, name=str(name), device=device, dtype=dtype)
    model = load_public(folder, row.record, row.head, dtype)
    return DiscriminativeScorer(model, name=str(name), device=device, cache_bytes=cache_bytes)


def load_served(
    name: str | Path,
    url: str,
    *,
    served_as: str = "",
    api_key: str = "",
    endpoint: Endpoint = "pooling",
    probabilities: bool | None = None,
    top: int = 20,
    like: str = "",
    record: EncoderRecord | None = None,
    concurrency: int = 16,
) -> ServedScorer:
    """A scorer for a reward model that runs in a server; only its tokenizer is loaded here.

    Args:
        name: folder or hub name, which tells the recipe and the tokenizer as in `load`.
        url: of the server, such as http://localhost:8000.
        served_as: the name under which it serves the model; `name` where empty.
        api_key: of the server, if it asks for one.
        endpoint: vLLM's `pooling`, `classify` or `score`, or any server's `completions` for models that answer with a
            label token.
        probabilities: whether the server applies softmax or sigmoid; None finds out, where that can be seen.
        top: tokens that `completions` asks for beside the next one.
        like: name of the row to follow where the name does not tell.
        record: encoder record, in place of the row's.
        concurrency: most requests under way at once.

    Raises:
        ModelError: there is no such tokenizer, nothing says how it is scored, or such an endpoint cannot be read.
        UnknownNameError: no row is called `like`.
    """
    server = Server(url, served_as or str(name), api_key=api_key, concurrency=concurrency)
    encoder = _encoder(name, like, record)
    return ServedScorer(server, encoder, endpoint=endpoint, probabilities=probabilities, top=top)


def _encoder(name: str | Path, like: str, record: EncoderRecord | None) -> StepEncoder:
    """The record and tokenizer of a model whose weights are elsewhere."""
    folder = find(name, weights=False)
    if (folder / RECORD_FILE).is_file() and not like and record is None:
        record, _ = EncoderRecord.load(folder)
    return StepEncoder(_row(str(name), folder, like, record, None).record, load_tokenizer(folder))


def is_address(name: str | Path) -> bool:
    """Whether a name is the address of a model in a server."""
    return isinstance(name, str) and name.startswith(("http://", "https://"))


def served_at(address: str, *, like: str = "", record: EncoderRecord | None = None) -> ServedScorer:
    """A reward model in a server, by its address: `URL#NAME`, where NAME tells the recipe and the tokenizer.

    Settings of `load_served` may follow, `URL#NAME?endpoint=completions&served_as=prm`: `endpoint`, `served_as`,
    `probabilities`, `top` and `concurrency`. The API key is read from STEPREWARD_API_KEY, or else OPENAI_API_KEY.

    Args:
        address: of the model.
        like, record: as for `load_served`.

    Raises:
        InputError: it names no model, or a setting does not fit.
        ModelError: as for `load_served`.
        UnknownNameError: there is no such setting.
    """
    url, name, given = _split(address)
    settings: dict[str, Any] = {}
    for setting, text in given:
        if setting not in _SERVED:
            raise UnknownNameError("setting of a reward model in a server", setting, _SERVED)
        try:
            settings[setting] = _SERVED[setting](text)
        except (KeyError, ValueError):
            raise InputError(f"{setting} cannot be {text!r}", source=without_secrets(address)) from None
    if settings.get("endpoint", "pooling") not in get_args(Endpoint):
        raise InputError(f"endpoint must be one of {', '.join(get_args(Endpoint))}", source=without_secrets(address))
    key = os.environ.get("STEPREWARD_API_KEY") or os.environ.get("OPENAI_API_KEY", "")
    return load_served(name, url, api_key=key, like=like, record=record, **settings)


def _split(address: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Server, name and settings of an address."""
    url, _, rest = address.partition("#")
    name, _, query = rest.partition("?")
    if not name:
        shown = without_secrets(url)
        raise InputError(f"{shown} names no model", remedy=f"write {shown}#NAME, its hub name or folder")
    return url, name, parse_qsl(query, keep_blank_values=True)


def own_record(name: str | Path, like: str = "") -> tuple[EncoderRecord, str]:
    """The record that a checkpoint is scored by where nobody says otherwise, and the name of its row, "" for none.

    Args:
        name: folder or hub name.
        like: name of the row to follow.

    Raises:
        ModelError: there is no such checkpoint.
        UnknownNameError: no row is called `like`.
    """
    name = _split(str(name))[1] if is_address(name) else str(name).removeprefix(VLLM)
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
