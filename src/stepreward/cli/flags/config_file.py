"""`--config`: a file with a table of flags for each command, before the command or behind it."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from stepreward.core.errors import InputError, UnknownNameError

HELP = "TOML or YAML file with a table of flags for each command."


def read_config(path: Path) -> dict[str, Any]:
    """Flags by command out of a TOML or YAML file; dashes and underscores are the same.

    Raises:
        InputError: the file cannot be read or is no table of tables.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"cannot read the configuration: {error}", source=path, remedy="pass TOML or YAML") from error
    if not isinstance(content, dict) or not all(isinstance(table, dict) for table in content.values()):
        raise InputError("expected a table for each command, such as [run]", source=path, remedy="see docs/commands")
    named = {name: {str(k).replace("-", "_"): v for k, v in table.items()} for name, table in content.items()}
    return {str(name): table for name, table in named.items()}


def defaults(path: Path, command: str, flags: Sequence[Any], commands: Iterable[str]) -> dict[str, Any]:
    """A command's table under the names of parameters, which a flag's need not be: `set` fills `settings`.

    Args:
        path: the file.
        command: name of the command.
        flags: its parameters.
        commands: names of all commands.

    Raises:
        InputError: a table is no command's, or a key is no flag of this one; the closest one is suggested.
    """
    tables: Mapping[str, Mapping[str, Any]] = read_config(path)
    for name in tables:
        if name not in commands:
            raise InputError(str(UnknownNameError("command", name, [*commands])), source=path)
    known = {flag.removeprefix("--").replace("-", "_"): p for p in flags for flag in p.opts if p.name != "config"}
    table = tables.get(command, {})
    for key in table:
        if key not in known:
            raise InputError(str(UnknownNameError(f"flag of {command}", key, known)), source=path)
    # One value of a flag that may be repeated is a list of it: a text would be read as a list of its characters.
    several = {key for key in table if getattr(known[key], "multiple", False) and not isinstance(table[key], list)}
    return {known[key].name: [value] if key in several else value for key, value in table.items()}


def with_config(function: Callable[..., Any], name: str, commands: Iterable[str]) -> Callable[..., Any]:
    """A command that also takes `--config` behind its name; its own flags go before those of the file."""

    def read(context: typer.Context, value: Path | None) -> None:
        if value is not None:
            context.default_map = defaults(value, name, context.command.params, commands)

    @wraps(function)
    def called(config: Path | None = None, **given: Any) -> Any:
        return function(**given)

    flag = Annotated[Path | None, typer.Option("--config", help=HELP, is_eager=True, callback=read)]
    own = inspect.signature(function, eval_str=True)
    more = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=flag)
    called.__signature__ = own.replace(parameters=[*own.parameters.values(), more])  # type: ignore[attr-defined]
    called.__annotations__ = {**function.__annotations__, "config": flag}
    return called
