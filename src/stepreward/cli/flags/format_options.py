"""Options of formats on the command line: `name=value`, typed by the signature of a reader or writer."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin, get_type_hints

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.formats.format import Format

_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
_ESCAPE = re.compile(r"\\(?:[\\ntr]|u[0-9a-fA-F]{4})")


def format_options(form: Format, function: Callable[..., Any], given: Sequence[str]) -> dict[str, Any]:
    r"""Options given as `name=value`, in the types of the function's parameters.

    `none` is None where that is allowed; in text, `\n`, `\t` and `\u00e9` stand for their characters, since a shell
    does not put a line break into an argument.

    Args:
        form: the format.
        function: its reader or writer.
        given: what the user wrote.

    Raises:
        InputError: one is not of this form, given twice, of the wrong type or not among the choices.
        UnknownNameError: the function has no such option.
    """
    known, hints = form.options(function), get_type_hints(function)
    made: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            able = ", ".join(f"{option}={default!r}" for option, default in known.items()) or "nothing"
            raise InputError(f"expected name=value, got {text!r}", remedy=f"{form.name} knows {able}")
        if name not in known:
            raise UnknownNameError(f"option of format {form.name}", name, known)
        if name in made:
            raise InputError(f"option {name!r} is given twice", remedy="pass it once")
        made[name] = _value(name, value, hints[name])
    return made


def _value(name: str, text: str, hint: Any) -> Any:
    """The value in one of the types that a hint allows, the first that fits."""
    kinds = get_args(hint) if get_origin(hint) is not Literal and get_args(hint) else (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    for kind in kinds:
        if get_origin(kind) is Literal and text in get_args(kind):
            return text
        if kind is bool and text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        if kind is int and re.fullmatch(r"[+-]?[0-9]{1,9}", text):
            return int(text)
        if kind is float:
            with suppress(ValueError):
                if math.isfinite(number := float(text)):
                    return number
        if kind is str:
            return _ESCAPE.sub(lambda found: codecs.decode(found[0], "unicode_escape"), text)
    wanted = " or ".join(filter(None, (_shown(kind) for kind in kinds)))
    raise InputError(f"option {name} must be {wanted}, got {text!r}", remedy="see `stepreward convert --formats`")


def _shown(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}.get(
        kind, str(kind)
    )
