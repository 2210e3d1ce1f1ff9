"""Hyper-parameters as text, `name=value`, from a command line, an address or a request."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.method import Method
from stepreward.core.vocabulary import Flag

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def json_object(text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: the text is none.
    """
    made = json.loads(text)
    if not isinstance(made, dict):
        raise ValueError(text)
    return made


def read_settings(given: Sequence[str], *methods: Method[..., Any]) -> tuple[dict[str, Any], ...]:
    """Hyper-parameters given as `name=value`, or `method.name=value`, sorted by the method that has them.

    Args:
        given: what the user wrote, in any order.
        methods: who may have them; a name that two of them have must name its method.

    Returns:
        Settings of each method, in the order of `methods`, in the type of their defaults.

    Raises:
        InputError: one is not of this form, given twice, of the wrong type, out of range, or of either method.
        UnknownNameError: no method has such a setting.
    """
    made: tuple[dict[str, Any], ...] = tuple({} for _ in methods)
    for text in given:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            known = ", ".join(f"{k}={v}" for method in methods for k, v in method.settings.items()) or "nothing"
            raise InputError(f"expected name=value, got {text!r}", remedy=f"give any of {known}")
        owner, bare = _method_of(name, methods)
        if bare in made[owner]:
            raise InputError(f"setting {bare!r} of {methods[owner].name} is given twice", remedy="pass it once")
        made[owner][bare] = _parsed_value(methods[owner], bare, value)
    return made


def _method_of(name: str, methods: Sequence[Method[..., Any]]) -> tuple[int, str]:
    """Index of the method that a setting is of, and its bare name."""
    for index, method in enumerate(methods):
        if name.startswith(method.name + ".") and name.removeprefix(method.name + ".") in method.settings:
            return index, name.removeprefix(method.name + ".")
    owners = [index for index, method in enumerate(methods) if name in method.settings]
    if not owners:
        known = {setting for method in methods for setting in method.settings}
        raise UnknownNameError(f"setting of {' or '.join(method.name for method in methods)}", name, known)
    if len(owners) > 1:
        either = " or ".join(f"{methods[index].name}.{name}" for index in owners)
        raise InputError(f"setting {name!r} could be either method's", remedy=f"write {either}")
    return owners[0], name


def _parsed_value(method: Method[..., Any], name: str, text: str) -> Any:
    """The value in the type of the setting's default, checked against the choices that its annotation states."""
    default = method.settings[name]
    stated = method.types.get(name)
    hint, *notes = get_args(stated) if get_origin(stated) is Annotated else (stated,)
    least = int(next((note.low for note in notes if isinstance(note, Flag) and note.low), 0))
    options = get_args(hint) if get_origin(hint) is Literal else ()
    if default is None and text.lower() == "none":
        return None
    # A default of None means "worked out": the annotation's other type is what may be given.
    kind = type(default) if default is not None else next(t for t in get_args(hint) if t is not type(None))
    if kind is tuple:
        return _parsed_numbers(method, name, text, default)
    if kind not in (bool, int, float, str):
        raise InputError(f"setting {name!r} of {method.name} is no text", remedy="pass it in Python")
    value: Any
    try:
        value = _BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        value = None
    valid = value is not None and not (options and value not in options)
    if isinstance(value, float):
        valid = math.isfinite(value)
    if kind is int and value is not None:
        valid = value >= least
    if not valid:
        raise InputError(
            f"setting {name!r} of {method.name} must be {_expected(kind, options, least)}, got {text!r}",
            remedy=f"for example {name}={default}",
        )
    return value


def _parsed_numbers(method: Method[..., Any], name: str, text: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """Numbers separated by commas, in brackets or not."""
    try:
        made = tuple(float(part) for part in text.strip("()[] ").split(",") if part.strip())
    except ValueError:
        made = (math.nan,)
    if not all(map(math.isfinite, made)):
        example = ",".join(map(str, default)) or "1,2"
        what = f"setting {name!r} of {method.name} must be numbers separated by commas, got {text!r}"
        raise InputError(what, remedy=f"for example {name}={example}")
    return made


def _expected(kind: type, options: Sequence[object], least: int) -> str:
    kinds: Mapping[type, str] = {bool: "true or false", float: "a finite number", str: "a text"}
    if options:
        return f"one of {', '.join(map(str, options))}"
    if kind is int:
        return f"a whole number of at least {least}"
    return kinds[kind]
