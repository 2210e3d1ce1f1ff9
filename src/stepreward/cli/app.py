"""The command-line application: its commands, its configuration file, and how errors end it."""

from __future__ import annotations

import errno
import os
import sys
import tomllib
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from stepreward.cli.group import COMMANDS, LazyGroup, command_of
from stepreward.cli.terminal import plain_output
from stepreward.core.addresses import without_secrets
from stepreward.core.errors import InputError, ServerWarning, SteprewardError, UnknownNameError

TRACEBACK = "STEPREWARD_TRACEBACK"
_LONGEST = 400
"""Characters told of an error that was not foreseen."""

app = typer.Typer(
    name="stepreward",
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Process rewards: label, train, score, search, evaluate, serve.",
)


@app.callback()
def configure(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="TOML or YAML file with a table of flags for each command.")
    ] = None,
) -> None:
    """Process rewards: label, train, score, search, evaluate, serve."""
    if config is not None:
        context.default_map = by_parameter(read_config(config), str(context.invoked_subcommand), config)


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


def by_parameter(tables: Mapping[str, Mapping[str, Any]], called: str, source: Path) -> dict[str, dict[str, Any]]:
    """The called command's table under the names of parameters, which a flag's need not be: `set` fills `settings`.

    Raises:
        InputError: a table is no command's, or a key is no flag of the called one; the closest one is suggested.
    """
    for name in tables:
        if name not in COMMANDS:
            raise InputError(str(UnknownNameError("command", name, COMMANDS)), source=source)
    flags = {flag.removeprefix("--").replace("-", "_"): p.name for p in command_of(called).params for flag in p.opts}
    table = tables.get(called, {})
    for key in table:
        if key not in flags:
            raise InputError(str(UnknownNameError(f"flag of {called}", key, flags)), source=source)
    return {called: {flags[key]: value for key, value in table.items()}}


_show_others = warnings.showwarning


def _show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Shows a warning about a server as one line, without the place in the code that a programmer would look for."""
    if issubclass(category, ServerWarning):
        print(f"stepreward: {message}", file=sys.stderr)
    else:
        _show_others(message, category, *where, **more)


def main() -> None:
    """Runs the command line; an error is one line and exit status 1, Ctrl-C leaves a resumable run.

    With STEPREWARD_TRACEBACK=1 in the environment, errors are raised with their traceback.
    """
    # Commands show progress of their own. Hugging Face's libraries read this where they are imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.showwarning = _show
    with plain_output():
        try:
            app()
        except KeyboardInterrupt:
            print("stepreward: interrupted; run the same command again to resume", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            # The boundary: what no code foresaw ends as one line as well.
            if os.environ.get(TRACEBACK):
                raise
            print(f"stepreward: {without_secrets(_told(error))}", file=sys.stderr)
            if isinstance(error, OSError):
                _drop_output()
            sys.exit(1)


def _told(error: Exception) -> str:
    """An error in one line: what a library reports may run over many."""
    text = " ".join(str(error).split())
    if isinstance(error, SteprewardError):
        return text
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" {error.filename}" if error.filename else ""
        return f"cannot write{where}: {error.strerror}; free some space and run again"
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"an error that was not foreseen, {what[:_LONGEST]}; {TRACEBACK}=1 shows where: please report it"


def _drop_output() -> None:
    """What could not be written to standard output is not tried again at the end of the process."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
