"""Models of the Hugging Face hub, fetched once into its cache: no code, and one copy of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from stepreward.core.errors import InputError, ModelError

_SMALL = ("*.json", "*.jinja", "*.txt", "*.model")
MODEL = ("model*.safetensors", "adapter_model*.safetensors")
"""Weights under the names of transformers and PEFT: some repositories hold a second copy under another name."""
PICKLED = ("pytorch_model*.bin",)
_UPLOAD_ERRORS: tuple[type[Exception], ...] = (OSError, OfflineModeIsEnabled, *HfHubHTTPError.__bases__)
"""The bases are errors of the HTTP library that the hub's client uses: which one it is depends on its release."""
_REPLACED = ["*.safetensors", "*.index.json", "calibrator.json"]
_CACHED = "models--"
"""Beginning of a model's folder in the cache; its name follows, with two dashes in place of the slash."""


def fetch(name: str, weights: Sequence[str] = MODEL, *, beside: Sequence[str] = ()) -> Path:
    """The folder of a model of the hub: from the cache, or downloaded with its progress shown.

    Args:
        name: `owner/name`.
        weights: patterns of its weights; none fetches configuration and tokenizer alone. Pickled weights are fetched
            where none of these is there.
        beside: patterns of other files with weights.

    Raises:
        ModelError: it is neither in the cache nor within reach.
    """
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_SMALL, *weights, *beside]))
        if weights and not any(path for pattern in weights for path in folder.glob(pattern)):
            folder = Path(snapshot_download(name, allow_patterns=[*_SMALL, *PICKLED, *beside]))
    except HFValidationError as error:
        raise ModelError(f"no model at {name!r}: there is no such folder, and the hub has no such names") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no {name!r}, or shows it to its members alone: check the name, or log in (`hf auth login`) "
            "and accept its licence on its page"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"cannot fetch {name!r} from the hub: {reason}; download it and pass its folder") from error
    return folder


def name_of(folder: str | Path) -> str:
    """The hub name of a folder of its cache, else the folder's own name: a path tells where its owner keeps things."""
    parts = Path(folder).parts
    cached = next((part for part in parts if part.startswith(_CACHED)), "")
    return cached.removeprefix(_CACHED).replace("--", "/", 1) if cached else Path(folder).name


def push(folder: Path, name: str, *, private: bool) -> str:
    """Uploads a folder as a model of the hub, in place of the weights and records that are there.

    The token is the client's own: `HF_TOKEN`, or that of `hf auth login`.

    Args:
        folder: with everything that the repository shall hold.
        name: `owner/name`; a name alone is the user's own.
        private: of a new repository.

    Returns:
        The address of its page.

    Raises:
        InputError: the repository is public, and this upload shall be private.
        ModelError: the hub refuses it, or is out of reach.
    """
    api = HfApi()
    try:
        made = api.create_repo(name, private=private, exist_ok=True)
        if private and not api.model_info(made.repo_id).private:
            raise InputError(f"{made.repo_id} is public already", remedy="pass --public (public=True), or another name")
        # Files of an earlier upload in another layout would be read along with the new ones.
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="Exported by stepreward", delete_patterns=_REPLACED
        )
    except HFValidationError as error:
        raise InputError(f"{name!r} is no name of the hub", remedy="write owner/name") from error
    except _UPLOAD_ERRORS as error:
        reason = str(error).strip().split("\n")[0]
        remedy = "log in with a token that may write (`hf auth login`, or HF_TOKEN), and check the name"
        raise ModelError(f"cannot upload to {name!r}: {reason}; {remedy}") from error
    return str(made)
