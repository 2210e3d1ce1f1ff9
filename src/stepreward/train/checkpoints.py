"""Unfinished work of a training: where it stands, whose it is, and which checkpoint a resumed training starts from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.json_file import claim

UNFINISHED = "unfinished"
_IDENTITY = "identity.json"
_STATE = "trainer_state.json"


def open_work(out: Path, identity: Mapping[str, Any]) -> Path:
    """The folder of unfinished work in `out`, made if it is not there.

    Args:
        out: folder of the checkpoint to be.
        identity: what decides the result: settings, data, model; JSON values.

    Raises:
        InputError: the folder holds the unfinished work of another training.
        StoreError: the folder cannot be written.
    """
    work = out / UNFINISHED
    differing = claim(work / _IDENTITY, identity)
    if differing:
        raise InputError(
            f"{work} holds an unfinished training with another {', '.join(differing)}",
            remedy="delete that folder to start over, or choose another one",
        )
    return work


def last_complete(work: Path) -> str | None:
    """The newest checkpoint that was written to its end, None if there is none; half-written ones are deleted.

    The trainer writes its state file last, so a checkpoint with a readable state is whole.
    """
    for folder in sorted(work.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            json.loads((folder / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        return str(folder)
    return None


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
