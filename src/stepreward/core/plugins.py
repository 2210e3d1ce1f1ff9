"""Plug-ins: entry points of other packages, found by group and loaded at the first look-up.

| group | what an entry point names |
|---|---|
| `stepreward.methods` | a module whose import registers methods in families of `core.catalog`, or a function for it |
| `stepreward.formats` | a `formats.format.Format`, several of them, or a module with `FORMATS` |
| `stepreward.checkpoints` | a row of `score.checkpoints.row`, several of them, or a module with `ROWS` |
| `stepreward.graders` | a class or function without arguments, which makes a grader of the entry point's name |

Formats, checkpoints and graders are in a `PluginRegistry`, which fills itself. A plug-in that cannot be loaded is left
out with a warning that names it: one broken package never stops the others.
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from stepreward.core.errors import InputError, PluginWarning

T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """An entry point of another package."""

    point: EntryPoint

    @property
    def name(self) -> str:
        """The name that its package gave it."""
        return self.point.name

    @property
    def package(self) -> str:
        """The name of its package."""
        return self.point.dist.name if self.point.dist is not None else "a package of unknown name"

    def load(self) -> Any:
        """Imports and returns the object of the entry point."""
        return self.point.load()

    def objects(self, kind: type[T] | tuple[type[T], ...], attribute: str) -> list[T]:
        """The objects of a kind, or of some kinds, that it names: one, several, or those of a module's `attribute`.

        Raises:
            InputError: it names something else.
        """
        value = self.load()
        value = getattr(value, attribute, value)
        made = [value] if isinstance(value, kind) else list(value) if isinstance(value, Iterable) else [value]
        for one in made:
            if not isinstance(one, kind):
                wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
                raise InputError(
                    f"{self.point.value} is a {type(one).__name__}, not a {wanted}",
                    remedy=f"name a {wanted}, a list of them, or a module with {attribute}",
                )
        return made

    def __str__(self) -> str:
        return f"{self.name!r} of {self.package} ({self.point.group}: {self.point.value})"


def load_plugins(group: str, accept: Callable[[Plugin], None]) -> None:
    """Gives every plug-in of a group to `accept`, by name; one that raises is left out with a `PluginWarning`.

    Args:
        group: such as `stepreward.methods`.
        accept: loads it and takes what it holds, or raises.
    """
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        plugin = Plugin(point)
        try:
            accept(plugin)
        except (Exception, SystemExit) as error:
            # Code of others may raise anything at its import; the other plug-ins and this package must still work.
            leave_out(plugin, error)


def leave_out(plugin: Plugin, error: BaseException) -> None:
    """Warns that a plug-in is left out, and why."""
    what = " ".join(str(error).split())
    warnings.warn(
        f"plug-in {plugin} is left out: {type(error).__name__}: {what}; repair or uninstall it",
        PluginWarning,
        stacklevel=3,
    )


def declared(package: str, attribute: str) -> list[Any]:
    """The entries of the lists of one name in all modules of a package: first its own modules, then folder by folder.

    Every module is imported, so none of them may import a large package at its top.

    Args:
        package: its dotted name.
        attribute: name of the list; a module without it declares nothing.
    """
    home = importlib.import_module(package)
    names = [found.name for found in pkgutil.walk_packages(home.__path__, f"{package}.")]
    modules = [importlib.import_module(name) for name in sorted(names, key=lambda name: (name.count("."), name))]
    return [one for module in modules for one in getattr(module, attribute, ())]


class PluginRegistry(Mapping[str, T]):
    """A table by name, filled at the first look-up with the entries of this package, then with those of plug-ins.

    Args:
        own: makes the entries of this package, by name.
        group: of entry points.
        loaded: makes the entries of a plug-in, by name, or raises.
    """

    def __init__(
        self, own: Callable[[], Mapping[str, T]], group: str, loaded: Callable[[Plugin], Mapping[str, T]]
    ) -> None:
        self._own, self._group, self._loaded = own, group, loaded
        self._lock = threading.RLock()
        self._entries: dict[str, T] = {}
        self._filled = False

    def _table(self) -> dict[str, T]:
        if not self._filled:
            with self._lock:
                if not self._filled and not self._entries:
                    self._entries = dict(self._own())
                    load_plugins(self._group, self._accept)
                    self._filled = True
        return self._entries

    def _accept(self, plugin: Plugin) -> None:
        made = self._loaded(plugin)
        taken = [name for name in made if name in self._entries]
        if taken:
            raise InputError(f"the name {taken[0]!r} is taken", remedy="rename it")
        self._entries |= made

    def __getitem__(self, name: str) -> T:
        return self._table()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())
