"""Flags that stand for a hyper-parameter of a method, and errors that its values cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stepreward.core.errors import InputError, SteprewardError
from stepreward.core.method import Method


def shortcut(method: Method[..., Any], flag: str, value: object, *names: str) -> list[str]:
    """What a flag of its own says, as `name=value` for the first of `names` that the method has; nothing for None.

    Raises:
        InputError: the method has none of them.
    """
    if value is None:
        return []
    for name in names:
        if name in method.settings:
            return [f"{method.name}.{name}={value}"]
    known = ", ".join(method.settings) or "none"
    raise InputError(f"{method.name} does not know {flag}", remedy=f"drop it; its settings are {known}")


@contextmanager
def blamed_on_settings(*methods: Method[..., Any]) -> Iterator[None]:
    """Turns a ValueError that a method raises about its own settings into an error about the user's input."""
    try:
        yield
    except SteprewardError:
        raise
    except ValueError as error:
        at, files = error.__traceback__, set()
        while at is not None:
            files.add(at.tb_frame.f_globals.get("__name__"))
            at = at.tb_next
        for method in methods:
            if method.function.__module__ in files:
                raise InputError(f"{method.name}: {error}", remedy="see `stepreward methods`") from error
        raise
