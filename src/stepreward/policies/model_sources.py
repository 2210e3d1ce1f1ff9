"""Finds models by name and refuses missing ones before torch is loaded."""

from __future__ import annotations

from pathlib import Path

from stepreward.core.errors import ModelError

BUILTIN = "builtin:"
"""Names that start like this are checkpoints of the package: `builtin:arithmetic`."""
_CHECKPOINTS = Path(__file__).parent / "checkpoints"


def resolve(source: str | Path) -> str:
    """The folder or hub name of a source.

    Raises:
        ModelError: no built-in checkpoint has that name, or the folder holds no model.
    """
    text = str(source)
    if text.startswith(BUILTIN):
        folder = _CHECKPOINTS / text.removeprefix(BUILTIN)
        if not (folder / "config.json").is_file():
            known = sorted(BUILTIN + path.parent.name for path in _CHECKPOINTS.glob("*/config.json"))
            raise ModelError(f"no built-in policy is called {text!r}; known: {', '.join(known) or 'none'}")
        return str(folder)
    path = Path(source)
    if path.is_dir() and not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ModelError(
            f"expected a model in folder {text!r}, found no config.json: pass a folder in transformers format"
        )
    if not path.is_dir() and (path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1):
        raise ModelError(f"no model at {text!r}: the folder does not exist")
    return text
