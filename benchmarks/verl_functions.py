"""verl's own advantage estimators, where the package's files are: without its engines, which its import asks for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

GROUPS = "verl.utils.groupwise"
READ = ("verl.utils.import_utils", GROUPS, "verl.utils.torch_functional")
"""Modules whose code the estimators run."""
ESTIMATORS = "verl.trainer.ppo.core_algos"


class _Absent(ModuleType):
    """Stands for a module that is imported for its types alone."""

    __path__: list[str] = []  # noqa: RUF012 - what makes a module a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def verl_functions() -> Any:
    """The module of verl's estimators; None where verl is not to be found."""
    try:
        found = importlib.util.find_spec("verl")
    except ValueError:
        found = None
    if found is None or found.origin is None:
        return None
    try:
        return importlib.import_module(ESTIMATORS)
    except ImportError:
        return _read(Path(found.origin).parent.parent)


def _read(folder: Path) -> Any:
    """Executes the files themselves; what else they import is absent. What was in `sys.modules` comes back."""
    before = dict(sys.modules)
    # Parents first.
    absent = (
        "verl",
        "verl.utils",
        "verl.trainer",
        "verl.trainer.ppo",
        "verl.trainer.config",
        "verl.workers",
        "verl.workers.config",
        "verl.utils.device",
    )
    try:
        for name in (*absent, "omegaconf", "tensordict", "tensordict.tensorclass"):
            _put(name, _Absent(name))
        vars(sys.modules["verl.utils.device"])["get_device_name"] = lambda: "cpu"
        for name in (*READ, ESTIMATORS):
            spec = importlib.util.spec_from_file_location(name, folder / Path(*name.split(".")).with_suffix(".py"))
            assert spec is not None
            assert spec.loader is not None
            made = importlib.util.module_from_spec(spec)
            _put(name, made)
            spec.loader.exec_module(made)
            if name == GROUPS:
                vars(sys.modules["verl.utils"]).update(vars(made))
        return made
    finally:
        for name in set(sys.modules) - set(before):
            if name.startswith("verl") or isinstance(sys.modules[name], _Absent):
                del sys.modules[name]
        sys.modules.update(before)


def _put(name: str, module: ModuleType) -> None:
    """Makes a module importable, by its name and as its parent's attribute."""
    sys.modules[name] = module
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, module)
