"""Unfinished training: its folder, its settings, and the checkpoint from which a resumed training continues."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stepreward.core.errors import InputError, ModelError, StoreError
from stepreward.core.files.atomic_files import claim
from stepreward.train.settings import UNFINISHED

_log = logging.getLogger(__name__)
_IDENTITY = "identity.json"
_STATE = "trainer_state.json"
_WEIGHTS = ("*.safetensors", "pytorch_model_fsdp*", "global_step*")
_NEEDED = ((*_WEIGHTS,), ("optimizer*", "global_step*"), ("scheduler.pt",), ("rng_state*.pth",))
"""Files or folders of which a checkpoint has some: one process, several, sharded or not."""
_WRITERS = ("PytorchStreamWriter", "inline_container")
"""Words in PyTorch's errors about a file that it cannot write."""
_TENSORS = (".safetensors", ".pt", ".pth", ".bin")


def open_work(out: Path, identity: Mapping[str, Any]) -> Path:
    """The folder of unfinished work in `out`, made if it is not there.

    Args:
        out: folder of the final checkpoint.
        identity: settings, data and model, which decide the result; JSON values.

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


@contextmanager
def clear_write_errors(folder: Path) -> Iterator[None]:
    """Turns errors of others about a file that cannot be written into ours.

    Raises:
        StoreError: a file in the folder cannot be written.
    """
    try:
        yield
    except StoreError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        foreign = isinstance(error, OSError | SafetensorError) or any(name in str(error) for name in _WRITERS)
        if isinstance(error, ModelError) or not foreign:
            raise
        reason = " ".join(str(error).split())
        raise StoreError(f"cannot write {folder}: {reason}; free some space and run again to resume") from error


def last_complete(work: Path) -> str | None:
    """The newest undamaged checkpoint whose best one is undamaged too, None without one; deletes and reports others.

    The trainer writes its state file last, but a power failure may leave any of its files half written.
    """
    # By number: as texts, checkpoint-90 would come after checkpoint-100.
    for folder in sorted(work.glob("checkpoint-*"), key=_step_of, reverse=True):
        damage = _damage(folder)
        if not damage:
            return str(folder)
        _log.warning("%s is damaged (%s); training continues from an older one, or starts again", folder, damage)
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _damage(folder: Path) -> str:
    """The damage to a checkpoint; "" if there is none."""
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        best = state.get("best_model_checkpoint")
    except (OSError, ValueError, RecursionError, AttributeError):
        return f"{_STATE} cannot be read"
    missing = next((some[0] for some in _NEEDED if not any(any(folder.glob(name)) for name in some)), "")
    if missing:
        return f"it has no {missing}"
    wrong = next((path.name for path in sorted(folder.iterdir()) if not _is_whole(path)), "")
    if wrong:
        return f"{wrong} cannot be read"
    weights = [path for name in _WEIGHTS for path in (folder.parent / Path(best).name).glob(name)] if best else []
    if best and not (weights and all(_is_whole(path) for path in weights)):
        return f"the best checkpoint before it, {Path(best).name}, cannot be read"
    return ""


def _is_whole(path: Path) -> bool:
    """Whether a file of tensors, a safetensors file or one of PyTorch's zip archives, is complete; True for others."""
    if path.suffix not in _TENSORS or path.name == "training_args.bin":
        return True
    # A safetensors header states the size of the file, a zip archive has a checksum of each member.
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return bool(file.keys())
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, SafetensorError, zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        return False


def _step_of(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
