"""A registered method: its function, what its signature says, and the paper that it is of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Generic, ParamSpec, TypeVar, get_args, get_type_hints

from stepreward.core.errors import InputError, MissingDataError, UnknownNameError
from stepreward.core.files.flat_data import PLACE, flat, places, scored_only
from stepreward.core.vocabulary import Draws

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Allotment:
    """What a search's budget counts, and how it is spent."""

    unit: str
    """The unit of the budget, in the plural."""
    settings: Callable[[int, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    """`(budget, all settings, those that the user gave)` -> the settings that spend at most the budget."""


@dataclass(frozen=True, repr=False)
class Method(Generic[P, R]):
    """A registered method: the function and its source."""

    family: str
    name: str
    function: Callable[P, R]
    paper: str
    """arXiv id, DOI or URL; "" for folklore, which `note` then explains."""
    equation: str = ""
    """Where in the paper."""
    note: str = ""
    """Deviations from the paper, or who states the method."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters that a preset fixes."""
    objective: str = ""
    """What its expected gradient ascends, by name in `credit.verify.OBJECTIVES`; "" outside the family credit."""
    invariant: tuple[str, ...] = ()
    """Changes of the step scores that do not change its expected gradient, by name in `credit.verify.CHANGES`."""
    unverified: str = ""
    """The paper that it tries to follow, and what no readable source confirms; "" where all is confirmed.

    Such a method does not bear the paper's name; every listing shows this.
    """
    unscored: float | None = None
    """The result at an unscored step of flat data. None where the family's data are not flat."""
    asks: tuple[str, ...] = ()
    """What it needs beside data where it is a flow, in words of `ASKS`."""
    budget: Allotment | None = None
    """What its budget means, where it has one."""
    reading: Any = None
    """Of a loss: what the outputs that it trains are, an `OutputReading` of `train.objectives.reading`."""
    transform: str = ""
    """Of an estimator: the transform that makes labels of its values, by name, where the user names none."""
    plugin: str = ""
    """The plug-in that registered it, as `PACKAGE:NAME`; "" for this package and the user's own code."""

    @cached_property
    def data(self) -> tuple[str, ...]:
        """Names of the data that it needs; `place` is computed from the offsets."""
        return tuple(name for name in self.parameters if name != PLACE)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters without defaults."""
        return tuple(p.name for p in inspect.signature(self.function).parameters.values() if p.default is p.empty)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty} | dict(self.fixed)

    @cached_property
    def types(self) -> dict[str, Any]:
        """Types of the parameters, with their metadata."""
        return get_type_hints(self.function, include_extras=True)

    def draws(self, setting: str) -> Draws:
        """How a whole-number setting of a search changes the number of samples, by the setting's type."""
        return next((one for one in get_args(self.types.get(setting)) if isinstance(one, Draws)), Draws.TOGETHER)

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    @property
    def listed(self) -> str:
        """Its name in listings: marked where no source confirms the method."""
        return f"{self.name} (unverified)" if self.unverified else self.name

    @property
    def source(self) -> str:
        """Paper and equation, or who states it; what is unverified, where no source confirms the method."""
        known = " ".join(filter(None, (self.paper, self.equation))) or self.note
        return "; ".join(filter(None, (self.unverified and f"unverified: {self.unverified}", known)))

    def within(self, budget: int, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Settings that spend at most a budget, in its own unit (`self.budget.unit`).

        Args:
            budget: at least 1.
            given: settings that the user chose; the budget overrules those that it decides.

        Raises:
            InputError: it declares no budget, or the budget is not positive.
        """
        if self.budget is None:
            raise InputError(f"{self.family} {self.name} declares no budget", remedy="give its settings by name")
        if budget < 1:
            raise InputError(f"a budget must be at least 1, got {budget}")
        return self.budget.settings(budget, {**self.settings, **(given or {})}, given or {})

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        data = ", ".join(self.data)
        return f"<{self.family} {self.listed}: {self.summary} Data: {data}. Settings: {settings}. {self.source}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.unscored is None:
            return self.function(*args, **{**self.fixed, **kwargs})
        given = inspect.signature(self.function).bind_partial(*args, **kwargs).arguments
        return self.take(given, **{name: value for name, value in given.items() if name not in self.parameters})

    def take(self, available: Mapping[str, Any], **settings: Any) -> R:
        """Calls the method with the data that its parameters name.

        Raises:
            MissingDataError: some data is not available.
            UnknownNameError: the method has no such setting.
            InputError: flat data are no numbers, or their number of entries does not match `offsets`.
        """
        missing = [name for name in self.data if available.get(name) is None]
        if missing:
            raise MissingDataError(self.name, missing, (k for k, v in available.items() if v is not None))
        for name in settings:
            if name not in self.settings:
                raise UnknownNameError(f"setting of {self.name}", name, self.settings)
        data = {name: available[name] for name in self.parameters if name in available}
        settings = {**self.fixed, **settings}
        if self.unscored is None:
            return self.function(**data, **settings)  # type: ignore[call-arg]
        data = flat(self.name, data)
        if PLACE in self.parameters and PLACE not in data:
            data[PLACE] = places(data["offsets"])
        made: R = scored_only(data, partial(self.function, **settings), self.unscored)
        return made
