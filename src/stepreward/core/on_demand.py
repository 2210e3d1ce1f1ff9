"""Imports at the first use of a name, so that a command that needs no torch loads none."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepreward.core.optional import naming_extra


def on_demand(file: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module that imports each name under its `if TYPE_CHECKING:` at the first use.

    So the imports are written once, as statements that type checkers and the test of layers read.

    Args:
        file: `__file__` of the module.

    Raises:
        AttributeError: when called with a name that is not there.
        ModelError: when called for a name whose import needs an extra that is not installed.
    """
    blocks = [one.body for one in ast.parse(Path(file).read_text(encoding="utf-8")).body if isinstance(one, ast.If)]
    imports = [one for block in blocks for one in block if isinstance(one, ast.ImportFrom)]
    known = {name.asname or name.name: (str(one.module), name.name) for one in imports for name in one.names}
    modules = [one for block in blocks for one in block if isinstance(one, ast.Import)]
    known |= {name.asname: (name.name, "") for one in modules for name in one.names if name.asname}

    def imported(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"{file} has no attribute {name!r}")
        module, attribute = known[name]
        with naming_extra():
            found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found

    return imported
