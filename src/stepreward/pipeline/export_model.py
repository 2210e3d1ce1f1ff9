"""A trained model for others: files in a layout, a model card, and an upload to the hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError, StoreError
from stepreward.core.files.atomic_files import read_object, write_text
from stepreward.core.files.hub import push as upload
from stepreward.core.runtime.flows import Scorer
from stepreward.pipeline.model_card import model_card
from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer, save_calibrator
from stepreward.score.capabilities import local_model_of
from stepreward.score.encode.record_file import CALIBRATOR_FILE, RECORD_FILE
from stepreward.score.implicit import ImplicitScorer
from stepreward.score.load import load
from stepreward.score.model.devices import numbers_in
from stepreward.score.model.log_ratio_model import Trainable
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.weights import ADAPTER_FILE, find, read_json
from stepreward.score.model.write_layout import layout_by_name, require_layout, write_layout
from stepreward.train.settings import RESULT_FILE, UNFINISHED

_CARD = "README.md"
_LOG_RATIO = "leave it as it is: a checkpoint of log-ratios is a causal language model of transformers already"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    layout: str
    folder: Path | None
    """Its place; None if it was uploaded alone."""
    address: str = ""
    """Its page on the hub; empty if it was not uploaded."""


def export(
    model: str | Path | Scorer,
    out: str | Path | None = None,
    *,
    layout: str = "token-classification",
    dtype: str = "",
    push: str = "",
    public: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Writes a reward model for other libraries, with a model card; its scores stay what they are.

    `stepreward.load` reads every layout back. An upload needs a token of the hub: `HF_TOKEN`, or `hf auth login`.

    Args:
        model: folder, hub name, or a loaded scorer.
        out: new folder to write; None uploads alone.
        layout: `token-classification`, `sequence-classification`, `trl-prm`, `adapter`, `qwen-prm`, `qwen-reward` or
            `stepreward`.
        dtype: numbers of the weights, such as `bfloat16`; empty for those that they were saved in.
        push: hub name to upload to; empty for none.
        public: make a new repository of the hub public.
        overwrite: replace an exported model in `out`.

    Raises:
        InputError: the layout cannot hold the model; the error names those that can. Or `out` holds something, or there
            is nowhere to write to.
        ModelError: the model cannot be read, or the hub refuses the upload.
        StoreError: the folder cannot be written.
        UnknownNameError: there is no such layout.
    """
    layout_by_name(layout)
    if out is None and not push:
        raise InputError("there is nowhere to write to", remedy="name a folder, or a hub name to push to")
    target = None if out is None else Path(out)
    if target is not None:
        _require_free(target, overwrite)
    scorer, source = _loaded(model, dtype)
    training = _training_of(source)
    if push and layout_by_name(layout).adapter:
        _require_hub_base(source)
    with tempfile.TemporaryDirectory(prefix="stepreward-") as somewhere:
        made = Path(somewhere) / "model" if target is None else target.with_name(target.name + ".partial")
        shutil.rmtree(made, ignore_errors=True)
        try:
            _write(scorer, source, made, layout, push or (target.name if target else ""), training)
            if target is not None:
                made = _moved(made, target)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return Exported(layout, target, upload(made, push, private=not public) if push else "")


def needs_bias(layouts: Sequence[str]) -> bool:
    """Whether the head of a model that is to be written in these layouts may have a bias.

    Raises:
        UnknownNameError: there is no such layout.
    """
    return all(layout_by_name(name).bias for name in layouts)


def require_layouts(model: Trainable, layouts: Sequence[str], *, adapters: bool = False) -> None:
    """Checks before a training that its model can be written in these layouts.

    Args:
        model: to be trained.
        layouts: names of layouts.
        adapters: whether the training writes adapters apart from their base.

    Raises:
        InputError: one of them cannot hold it; the error names those that can.
        UnknownNameError: there is no such layout.
    """
    for name in layouts:
        layout_by_name(name)
        if not isinstance(model, StepRewardModel):
            raise InputError(f"the layout {name} cannot hold a log-ratio of two models", remedy=_LOG_RATIO)
        require_layout(model, name, adapters=adapters)


def export_finished(out: Path, layouts: Sequence[str]) -> list[Exported]:
    """Writes the checkpoint of a finished training in some layouts, each into its folder of `out/export`."""
    return [export(out, out / "export" / name, layout=name, overwrite=True) for name in layouts]


def _require_free(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise InputError(
            "is there already", source=out, remedy="choose another folder, or pass overwrite (--overwrite)"
        )
    ours = all((out / name).is_file() for name in (RECORD_FILE, _CARD))
    if not ours or (out / RESULT_FILE).exists() or (out / UNFINISHED).exists():
        raise InputError("holds no exported model, and stays as it is", source=out, remedy="choose another folder")


def _loaded(model: str | Path | Scorer, dtype: str) -> tuple[Scorer, Path]:
    """The scorer, and the folder that it was loaded from."""
    if isinstance(model, str | Path):
        folder = find(model)
        scorer: Scorer = load(folder, dtype=dtype or numbers_in(folder))
    elif dtype:
        what = "a loaded scorer is written in its own numbers"
        raise InputError(what, remedy="load it with dtype, or pass its folder")
    else:
        scorer = model
        bare = scorer.scorer if isinstance(scorer, CalibratedScorer) else scorer
        # A checkpoint is known by the folder that it was loaded from.
        folder = Path(bare.name)
    return scorer, folder


def _require_hub_base(folder: Path) -> None:
    """Checks that others can fetch the base of adapters.

    Raises:
        InputError: it is a folder of this machine.
    """
    base = str(read_json(folder / ADAPTER_FILE).get("base_model_name_or_path", ""))
    if (folder / base).is_dir():
        what = f"its adapters belong to {Path(base).name}, a folder of this machine, which others do not have"
        raise InputError(what, source=folder, remedy="push it merged: --layout token-classification")


def _training_of(folder: Path) -> Mapping[str, Any]:
    """What a training wrote down in its folder; nothing where there was none."""
    if not (folder / RESULT_FILE).is_file():
        return {}
    return read_object(folder / RESULT_FILE, remedy="delete it: the card then says nothing of the training")


def _write(scorer: Scorer, source: Path, folder: Path, layout: str, name: str, training: Mapping[str, Any]) -> None:
    here = local_model_of(scorer)
    if here is None and isinstance(scorer, ImplicitScorer):
        raise InputError("no layout holds a log-ratio of two models", remedy=_LOG_RATIO)
    if here is None:
        what = f"{scorer.name} is no model in this process with a head of its own"
        raise InputError(what, remedy="export a checkpoint folder, or a scorer that was loaded from one")
    record = write_layout(here[0], folder, layout, source)
    mapped = isinstance(scorer, CalibratedScorer)
    if isinstance(scorer, CalibratedScorer):
        save_calibrator(scorer.calibrator, folder / CALIBRATOR_FILE)
    write_text(folder / _CARD, model_card(record, layout_by_name(layout), name, training, mapped=mapped))


def _moved(made: Path, target: Path) -> Path:
    """Puts a finished folder in the place of what was there."""
    try:
        shutil.rmtree(target, ignore_errors=True)
        return made.replace(target)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}; choose a writable folder") from error
