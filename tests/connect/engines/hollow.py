"""Hollow modules: what a released engine imports beside its hooks and no CPU holds, as kernels, is empty."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class Nothing(ModuleType):
    """A module with every attribute, all of them classes that do nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *_, **__: None})


class Hollow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of some packages, and makes it hollow."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = frozenset(roots)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self.roots:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return Nothing(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__path__ = []


def hollow(*roots: str) -> None:
    """Makes packages hollow for the rest of the process, which has the released engines on its path."""
    sys.meta_path.append(Hollow(roots))


def bare(name: str, path: str) -> None:
    """Makes a package importable without running its `__init__`, which loads all of the engine."""
    made = ModuleType(name)
    made.__path__ = [path]
    made.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    sys.modules[name] = made
