"""The catalog: families of methods that share a signature, and the methods registered in them.

A parameter without a default is data, taken by name from what the caller has; one with a default is a
hyper-parameter. So the signature is the configuration, and contract tests, `stepreward methods`, the documentation and
command-line options all follow from here.

A family fills itself at its first look-up: it imports its home (folders or modules of this package, named once, below),
then the plug-ins of other packages (`core.plugins`, entry points of the group `stepreward.methods`).
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, TypeVar

from stepreward.core.errors import UnknownNameError
from stepreward.core.files.flat_data import PLACE
from stepreward.core.method import Allotment, Method
from stepreward.core.plugins import Plugin, load_plugins
from stepreward.core.vocabulary import ASKS, DATA

_PACKAGE = __name__.partition(".")[0]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Preset:
    """A preset whose base was not registered yet: modules of a family may be imported in any order."""

    of: str
    made: Callable[[Method[..., Any]], Method[..., Any]]


@dataclass
class Family:
    """A table of methods that can all be called by the same code; it fills itself at the first look-up."""

    name: str
    signature: str
    """Arguments and result, for people."""
    about: str
    unscored: float | None = None
    """The result at unscored (NaN) steps of flat arrays (`core.files.flat_data`); None where data are not flat."""
    asks: tuple[str, ...] = ()
    """What each of its methods needs beside data, in words of `ASKS`."""
    home: tuple[str, ...] = ()
    """Folders and modules of this package whose code registers its methods; all modules of a folder are imported."""
    _methods: dict[str, Method[..., Any] | _Preset] = field(default_factory=dict, repr=False)
    _state: Literal["empty", "filling", "filled"] = "empty"

    def method(
        self,
        name: str,
        *,
        paper: str = "",
        equation: str = "",
        note: str = "",
        objective: str = "",
        invariant: tuple[str, ...] = (),
        unverified: str = "",
        asks: tuple[str, ...] = (),
        budget: Allotment | None = None,
        reading: Any = None,
        transform: str = "",
    ) -> Callable[[F], F]:
        """Registers a function or class under the paper's name; it comes back unchanged.

        Raises:
            ValueError: the name is taken, there is no docstring, neither paper nor note is given, or a parameter
                without default, or an entry of `asks`, is not in the vocabulary.
        """

        def register(function: F) -> F:
            self._add(
                Method(
                    self.name, name, function, paper, equation, note, objective=objective, invariant=invariant,
                    unverified=unverified, unscored=self.unscored, asks=(*self.asks, *asks), budget=budget,
                    reading=reading, transform=transform, plugin=_plugin_of(function.__module__),
                )
            )  # fmt: skip
            return function

        return register

    def preset(
        self,
        name: str,
        *,
        of: str,
        paper: str = "",
        note: str = "",
        objective: str | None = None,
        invariant: tuple[str, ...] | None = None,
        unverified: str = "",
        asks: tuple[str, ...] = (),
        budget: Allotment | None = None,
        reading: Any = None,
        transform: str = "",
        **fixed: Any,
    ) -> None:
        """Registers a paper, or a library's convention, that is another method with numbers fixed."""

        def made(base: Method[..., Any]) -> Method[..., Any]:
            for setting in fixed:
                if setting not in base.settings:
                    raise UnknownNameError(f"setting of {of}", setting, base.settings)
            return replace(
                base,
                name=name,
                paper=paper,
                equation="",
                note=note or f"{of} with {fixed}",
                fixed={**base.fixed, **fixed},
                unverified=unverified,
                asks=(*base.asks, *asks),
                budget=budget or base.budget,
                reading=reading or base.reading,
                transform=transform or base.transform,
                objective=base.objective if objective is None else objective,
                invariant=base.invariant if invariant is None else invariant,
            )

        plugin = _plugin_of(sys._getframe(1).f_globals.get("__name__", ""))
        if plugin:
            self._fill()
        if isinstance(self._methods.get(of), Method) or plugin or self._state == "filled" or not self.home:
            self._add(replace(made(self._resolved(of)), plugin=plugin))
        else:
            self._put(name, _Preset(of, made))

    def _add(self, method: Method[..., Any]) -> None:
        if not method.summary:
            raise ValueError(f"{self.name} {method.name!r} has no docstring")
        if not (method.paper or method.note or method.unverified):
            raise ValueError(f"{self.name} {method.name!r} names neither a paper nor, in a note, its origin")
        stray = [name for name in method.asks if name not in ASKS]
        if stray:
            raise ValueError(f"{self.name} {method.name!r} asks for {stray}; known: {', '.join(ASKS)}")
        unknown = [name for name in method.data if name not in DATA]
        if unknown:
            raise ValueError(f"{self.name} {method.name!r} takes data outside the vocabulary: {unknown}")
        if PLACE in method.parameters and "offsets" not in method.data:
            raise ValueError(f"{self.name} {method.name!r} takes {PLACE!r}, which needs 'offsets': take both")
        if method.plugin:
            # A plug-in must not take the name of a method of this package that is not imported yet.
            self._fill()
        self._put(method.name, method)

    def _put(self, name: str, entry: Method[..., Any] | _Preset) -> None:
        if name in self._methods:
            raise ValueError(f"{self.name} {name!r} is already registered")
        self._methods[name] = entry

    def _resolved(self, name: str) -> Method[..., Any]:
        """A registered method; a preset is made of its base first."""
        entry = self._methods.get(name)
        if isinstance(entry, _Preset):
            entry = entry.made(self._resolved(entry.of))
            self._methods[name] = entry
        if entry is None:
            raise UnknownNameError(f"{self.name} method", name, self._methods, self._unverified_followers(name))
        return entry

    def _fill(self) -> None:
        """Imports what registers the family's methods, then plug-ins.

        A module that looks up its own family while it is imported sees what is registered so far.
        """
        if self._state == "filled":
            return
        with _FILLING:
            if self._state != "empty":
                return
            self._state = "filling"
            try:
                for name in self.home:
                    # Importing a module registers its methods; a folder has no methods itself, its modules do.
                    module = importlib.import_module(f"{_PACKAGE}.{name}")
                    for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
                        importlib.import_module(found.name)
                for name in self._methods:
                    self._resolved(name)
                if not _PLUGIN.get():
                    _register_plugins()
            except BaseException:
                self._state = "empty"
                raise
            self._state = "filled"

    def __getitem__(self, name: str) -> Method[..., Any]:
        self._fill()
        return self._resolved(name)

    def _unverified_followers(self, paper: str) -> list[str]:
        """Names of unverified methods that follow a paper of this name, which they do not bear themselves."""

        def plain(name: str) -> str:
            return name.lower().replace("-", "").replace(" ", "")

        made = [m for m in self._methods.values() if isinstance(m, Method) and m.unverified]
        return [m.name for m in made if plain(m.unverified).startswith(plain(paper))]

    def __iter__(self) -> Iterator[Method[..., Any]]:
        self._fill()
        return iter([self._resolved(name) for name in self._methods])

    def __len__(self) -> int:
        self._fill()
        return len(self._methods)

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._methods


_FILLING = threading.RLock()
"""One thread fills at a time; it may come back, as modules of one family look up methods of another."""
_PLUGIN: ContextVar[str] = ContextVar("plugin", default="")
"""The plug-in that is being loaded, as `PACKAGE:NAME`."""


def _plugin_of(module: str) -> str:
    """The plug-in that registers a module's methods; "" for modules of this package, which a plug-in may import."""
    return "" if module.partition(".")[0] == _PACKAGE else _PLUGIN.get()


@cache
def _register_plugins() -> None:
    """Loads every plug-in that registers methods, once; one that fails leaves no method behind."""
    load_plugins("stepreward.methods", _register)


def _register(plugin: Plugin) -> None:
    """Imports a plug-in; its module registers methods, or it names a function that does."""
    name = f"{plugin.package}:{plugin.name}"
    token = _PLUGIN.set(name)
    try:
        made = plugin.load()
        if inspect.isfunction(made):
            made()
    except BaseException:
        for family in families.values():
            family._methods = {
                key: one for key, one in family._methods.items() if isinstance(one, _Preset) or one.plugin != name
            }
        raise
    finally:
        _PLUGIN.reset(token)


def _family(
    name: str, signature: str, about: str, *home: str, unscored: float | None = None, asks: tuple[str, ...] = ()
) -> Family:
    families[name] = Family(name, signature, about, unscored, asks, home)
    return families[name]


families: dict[str, Family] = {}
"""The table of contents of the library, by name."""

segment = _family("segment", "text -> list[Step]", "cuts text into steps, losslessly", "core.segment")
estimate = _family(
    "estimate", "(problem, trajectory or tree, key, ...) -> Flow[trajectory or tree]",
    "measures what steps are worth", "label"
)  # fmt: skip
transform = _family(
    "transform", "trajectory, or all of a problem -> the same", "rewrites the labels of measured values", "label"
)
keep = _family("filter", "trajectories (, others) -> bool mask", "says which labelled trajectories to keep", "label")
loss = _family("loss", "(logits, labels, mask, ...) -> scalar", "what training minimises", "train.objectives")
aggregate = _family("aggregate", "(scores, mask) -> (B,)", "one score a trajectory", "core.measure.aggregation")
calibrate = _family(
    "calibrate", "fit(scores, outcome), predict(scores)", "makes scores probabilities",
    "score.calibrate.calibrators", "score.calibrate.conformal",
)  # fmt: skip
select = _family(
    "select", "(totals, answers, group) -> (G,) row index", "chooses one trajectory a problem", "core.measure.selection"
)
search = _family(
    "search", "(problem, key, ...) -> Flow[Found]", "spends compute with step scores", "search",
    asks=("policy", "grader"),
)  # fmt: skip
credit = _family(
    "credit", "(rewards, outcome, group, offsets, ...) -> (N,)", "turns step rewards into advantages", "credit",
    unscored=0.0,
)  # fmt: skip
shape = _family("shape", "(rewards, ...) -> (N,)", "rewrites step rewards before credit", "credit", unscored=math.nan)
reward = _family("reward", "(problem, steps) -> (S,)", "step rewards by rule", "credit")
check = _family(
    "check",
    "(problem, steps) -> list[StepCheck]",
    "says by program which steps are wrong",
    "tasks",
    "environments",
    "score.tools",
    "credit.rules",
)
generate = _family(
    "generate", "(key, ...) -> Iterator[Problem]", "makes problems with exact truth", "tasks", "environments"
)
environment = _family("environment", "(...) -> Episodes", "where agents act", "environments")
bench = _family("bench", "(scorer, data) -> metrics with intervals", "benchmarks", "evaluate")
