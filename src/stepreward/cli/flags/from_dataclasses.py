"""Flags from dataclasses: a field is a flag, its type and default are the flag's, its docstring is the help."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from itertools import pairwise
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from stepreward.core.errors import InputError, SteprewardError
from stepreward.core.vocabulary import Flag


def with_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command as typer reads it: a parameter that is a dataclass becomes a flag for each field.

    Raises:
        ValueError: two flags have one name.
    """
    groups: dict[str, tuple[Any, dict[str, str]]] = {}
    flags: list[inspect.Parameter] = []
    for one in inspect.signature(function, eval_str=True).parameters.values():
        if is_dataclass(one.annotation):
            made = _flags(one.annotation)
            groups[one.name] = one.annotation, {flag.name: field for field, flag in made.items()}
            flags += made.values()
        else:
            flags.append(one.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def called(**given: Any) -> Any:
        for name, (settings, names) in groups.items():
            values = {field: given.pop(flag) for flag, field in names.items()}
            # None is a flag that was left out: the field's default applies.
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if v is not None}
            try:
                given[name] = settings(**values)
            except SteprewardError:
                raise
            except ValueError as error:
                raise InputError(str(error), remedy=f"see `stepreward {function.__name__} --help`") from error
        return function(**given)

    called.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in flags}
    return called


def _flags(settings: Any) -> dict[str, inspect.Parameter]:
    """A parameter of typer for each field, but for those whose `Flag` is hidden."""
    helps, hints = field_docstrings(settings), get_type_hints(settings, include_extras=True)
    made = {}
    for field in fields(settings):
        kind: Any = hints[field.name]
        kind, *extras = get_args(kind) if get_origin(kind) is Annotated else (kind,)
        flag = next((one for one in extras if isinstance(one, Flag)), Flag())
        if flag.hidden:
            continue
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        if get_origin(kind) is tuple:
            kind = list.__class_getitem__(get_args(kind)[0])
        if isinstance(default, tuple):
            kind, default = kind | None, list(default) or None
        choices = ", ".join(str(getattr(one, "listed", one)) for one in flag.choices)
        text = helps.get(field.name, "").replace("{choices}", choices)
        kind = Annotated[kind, typer.Option(*flag.names, min=flag.low, max=flag.high, help=text)]
        # Fields of two groups may share a name, as the expert and its price; flags may not.
        name = flag.names[0].removeprefix("--").replace("-", "_") if flag.names else field.name
        made[field.name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    return made


JsonFlag = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON for machines, and no progress.")]


def field_docstrings(settings: type) -> dict[str, str]:
    """The string below each field of a dataclass and of those that it inherits from."""
    found = {}
    for kind in reversed(settings.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(body, ast.ClassDef)
        for statement, below in pairwise(body.body):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found
