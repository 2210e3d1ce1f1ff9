"""Scorers that follow an encoder record: of a checkpoint in this process, in a server, or in a vLLM engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl

import torch

from stepreward.core.errors import InputError, ModelError, UnknownNameError
from stepreward.core.http.addresses import is_address, split_address, without_secrets
from stepreward.core.http.server import Server
from stepreward.core.optional import VLLM
from stepreward.core.settings_text import json_object
from stepreward.score.checkpoints.known_checkpoints import by_name, recognised
from stepreward.score.checkpoints.row import Checkpoint, Head, head_of
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.encode.record_file import CALIBRATOR_FILE, RECORD_FILE, load_record, read_record
from stepreward.score.implicit import ImplicitScorer
from stepreward.score.model.backbones import load_tokenizer
from stepreward.score.model.cache_memory import CacheSize
from stepreward.score.model.devices import device_of, dtype_of, saved_dtype
from stepreward.score.model.public_checkpoints import load_own, load_public
from stepreward.score.model.step_reward_model import require_probe
from stepreward.score.model.weights import find, read_json
from stepreward.score.remote.reward_server import Endpoint, ServedScorer
from stepreward.score.remote.vllm_scorer import VllmLabelScorer, VllmScorer, start

ByRecipe = DiscriminativeScorer | ImplicitScorer | ServedScorer | VllmScorer | VllmLabelScorer
"""A scorer that follows an encoder record."""
_SERVED: Mapping[str, Callable[[str], Any]] = {
    "endpoint": str, "served_as": str, "probabilities": {"true": True, "false": False}.__getitem__, "top": int,
    "concurrency": int, "place": str,
}  # fmt: skip
"""Settings of a reward model in a server that its address may name, and how they are read."""


def scorer_by_recipe(
    name: str | Path,
    *,
    like: str = "",
    record: EncoderRecord | str | Path | None = None,
    readout: str = "",
    head: Head | None = None,
    reference: str | Path = "",
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    cache_bytes: int | str | CacheSize = 0,
    also: Mapping[str, str] | None = None,
) -> tuple[ByRecipe, Path | None]:
    """The scorer of a folder, hub name or address, and the file of the calibrator that belongs to it, if there is one.

    Args:
        name, like, readout, head, reference, device, dtype, cache_bytes, also: as for `score.load.load`.
        record: in place of the row's or the checkpoint's own; a file changes that in the fields that it has.

    Raises:
        InputError: the device is not here, the file is no record, or the readout no formula of its outputs.
        ModelError: there is no such checkpoint, it cannot be read, or nothing says how it is scored.
        UnknownNameError: no row is called `like`, or there is no such device, dtype or field of a record.
    """
    where, numbers = device_of(device), dtype_of(dtype)
    if isinstance(record, str | Path):
        own, like = own_record(name, like)
        record = read_record(Path(record), own)
    ending = _ending(like, record, readout)
    if also and (is_address(name) or str(name).startswith(VLLM)):
        raise InputError(f"{name} gives one number a step", remedy="drop also, or load the model here")
    if is_address(name):
        return served_at(str(name), like=like, record=record, readout=readout), None
    if str(name).startswith(VLLM):
        hub, arguments = _split_engine(str(name))
        return start(hub, encoder_of(hub, like, record, readout), engine=arguments, name=f"{name}{ending}"), None
    folder = find(name)
    numbers = numbers or saved_dtype(folder, where)
    # Scores of other numbers, or by another recipe, are other scores: a cache of answers must keep them apart.
    ending += f" in {str(numbers).removeprefix('torch.')}" if numbers != torch.float32 else ""
    # A calibrator maps the score that it was fitted on.
    calibrator = folder / CALIBRATOR_FILE if (folder / CALIBRATOR_FILE).is_file() and not readout else None
    ours = (folder / RECORD_FILE).is_file() and not like
    named = (str(folder) if ours else str(name)) + ending
    if ours:
        record = record or load_record(folder)[0]
        kind = head_of(record.readout)
    else:
        record, kind = _recipe(str(name), folder, like, record, head)
    record = _with_formula(record, readout)
    if record.readout.kind == "implicit":
        second = str(reference or record.readout.reference)
        if not second:
            raise ModelError("an implicit score is a ratio of two models: pass reference= (its base model)")
        if also:
            raise InputError(f"{name} is a ratio of two models: it has one number a step", remedy="drop also")
        implicit = ImplicitScorer.load(folder, second, record, name=named, device=str(where), dtype=numbers)
        if ours:
            require_probe(implicit.encoder.encoder.tokenizer, load_record(folder)[1], folder)
        return implicit, calibrator
    model = load_own(folder, record).to(dtype=numbers) if ours else load_public(folder, record, kind, numbers)
    named += f" and {', '.join(f'{one} = {formula}' for one, formula in also.items())}" if also else ""
    try:
        scorer = DiscriminativeScorer(model, name=named, device=str(where), cache_bytes=cache_bytes, also=also)
    except ValueError as error:
        raise InputError(f"also: {error}", remedy="name outputs of the model's record") from error
    return scorer, calibrator


def _ending(like: str, record: EncoderRecord | None, readout: str) -> str:
    """The ending of a scorer's name that says which recipe it follows, if not the model's own."""
    ending = f" read by {readout}" if readout else ""
    if record is None:
        return (f" like {like}" if like else "") + ending
    digest = sha256(json.dumps(asdict(record), sort_keys=True).encode()).hexdigest()[:8]
    return f" by record {digest}{ending}"


def _with_formula(record: EncoderRecord, readout: str) -> EncoderRecord:
    """A record with another score of the same outputs; itself for an empty formula."""
    try:
        return replace(record, readout=record.readout.with_formula(readout)) if readout else record
    except ValueError as error:
        raise InputError(f"readout: {error}", remedy="name outputs of the model's record") from error


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
    readout: str = "",
    concurrency: int = 16,
    place: str = "",
) -> ServedScorer:
    """A scorer for a reward model that runs in a server; only its tokenizer is loaded here.

    Args:
        name: folder or hub name, which decides the recipe and the tokenizer as in `load`.
        url: of the server, such as http://localhost:8000, or several with commas between.
        served_as: the name under which it serves the model; `name` where empty.
        api_key: of the server, if it needs one.
        endpoint: vLLM's `pooling`, `classify` or `score`, or any server's `completions` for models that answer with a
            label token.
        probabilities: whether the server applies softmax or sigmoid; None finds out, where that can be seen.
        top: most likely tokens that `completions` requests with the next one.
        like: name of the row to follow where the name does not decide it.
        record: encoder record, in place of the row's.
        readout: as for `score.load.load`.
        concurrency: most requests under way at once, to each server.
        place: stands for the address in its name, as `Server.place` does.

    Raises:
        ModelError: there is no such tokenizer, nothing says how it is scored, or such an endpoint cannot be read.
        UnknownNameError: no row is called `like`.
    """
    server = Server(url, served_as or str(name), api_key=api_key, concurrency=concurrency, place=place)
    encoder = encoder_of(name, like, record, readout)
    named = f"{server.known_as} by {endpoint}{_ending(like, record, readout)}"
    return ServedScorer(server, encoder, endpoint=endpoint, probabilities=probabilities, top=top, name=named)


def encoder_of(name: str | Path, like: str = "", record: EncoderRecord | None = None, readout: str = "") -> StepEncoder:
    """The record and tokenizer of a model without its weights; arguments as for `load_served`.

    Raises:
        ModelError: there is no such tokenizer, or nothing says how the model is scored.
        UnknownNameError: no row is called `like`.
    """
    folder = find(name, weights=False)
    if (folder / RECORD_FILE).is_file() and not like and record is None:
        record, _ = load_record(folder)
    record = _with_formula(_recipe(str(name), folder, like, record)[0], readout)
    return StepEncoder(record, load_tokenizer(folder))


def served_at(address: str, *, like: str = "", record: EncoderRecord | None = None, readout: str = "") -> ServedScorer:
    """A reward model in a server, by its address: `URL#NAME`, where NAME decides the recipe and the tokenizer.

    Settings of `load_served` may follow, `URL#NAME?endpoint=completions&served_as=prm`: `endpoint`, `served_as`,
    `probabilities`, `top`, `concurrency` and `place`. The API key is read from STEPREWARD_API_KEY, or else
    OPENAI_API_KEY. Several servers of one model are `URL#NAME,URL#NAME`.

    Args:
        address: of the model.
        like, record, readout: as for `load_served`.

    Raises:
        InputError: it names no model, or a setting does not fit.
        ModelError: as for `load_served`.
        UnknownNameError: there is no such setting.
    """
    url, name, given = _split_address(address)
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
    return load_served(name, url, api_key=key, like=like, record=record, readout=readout, **settings)


def _split_address(address: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Server, name and settings of an address."""
    url, name, query = split_address(address)
    if not name:
        shown = without_secrets(url)
        raise InputError(f"{shown} names no model", remedy=f"write {shown}#NAME, its hub name or folder")
    return url, name, parse_qsl(query, keep_blank_values=True)


def _split_engine(name: str) -> tuple[str, dict[str, Any]]:
    """Model, and the arguments of its engine, of `vllm:NAME?engine={...}`."""
    hub, _, query = name.removeprefix(VLLM).partition("?")
    arguments: dict[str, Any] = {}
    for setting, text in parse_qsl(query, keep_blank_values=True):
        if setting != "engine":
            raise UnknownNameError("setting of a reward model in an engine", setting, ["engine"])
        try:
            arguments |= json_object(text)
        except (ValueError, RecursionError):
            raise InputError(f"engine must be a JSON object, got {text!r}", source=name) from None
    return hub, arguments


def own_record(name: str | Path, like: str = "") -> tuple[EncoderRecord, str]:
    """The record that a checkpoint is scored by where the caller names none, and the name of its row, "" for none.

    Args:
        name: folder or hub name.
        like: name of the row to follow.

    Raises:
        ModelError: there is no such checkpoint.
        UnknownNameError: no row is called `like`.
    """
    if is_address(name) or str(name).startswith(VLLM):
        name = _split_address(str(name))[1] if is_address(name) else _split_engine(str(name))[0]
    folder = find(name, weights=False)
    if (folder / RECORD_FILE).is_file() and not like:
        return load_record(folder)[0], ""
    rows = [by_name(like)] if like else _recognised(str(name), folder)
    known = len({(row.record, row.head) for row in rows}) == 1
    return (rows[0].record, rows[0].name) if known else (EncoderRecord(), "")


def _recognised(name: str, folder: Path) -> list[Checkpoint]:
    config = read_json(folder / "config.json")
    return recognised(name, str(config.get("_name_or_path", "")), config.get("architectures") or [])


def _recipe(
    name: str, folder: Path, like: str, record: EncoderRecord | None, head: Head | None = None
) -> tuple[EncoderRecord, Head]:
    """The record and the head that a checkpoint of others is scored by."""
    if record is not None and not like:
        return record, head or head_of(record.readout)
    rows = [by_name(like)] if like else _recognised(name, folder)
    # Rows of the same record and head are one recipe: which of them the checkpoint is does not matter.
    if len({(row.record, row.head) for row in rows}) == 1:
        return record or rows[0].record, head or rows[0].head
    architectures = " or ".join(read_json(folder / "config.json").get("architectures") or [])
    what = f"{folder} is a {architectures or 'model without architectures'}"
    if rows:
        others = ", ".join(row.name for row in rows)
        raise ModelError(f"{what}, as are {others}: pass like= (--like) the one whose recipe it follows")
    raise ModelError(
        f"{what}, which the table of checkpoints does not know: pass like= (--like) a name of the table "
        "('trl-prm' for TRL's PRMTrainer), or record= (--record) an encoder record that says how it is scored"
    )
