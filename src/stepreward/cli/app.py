"""The command-line application: its commands, its configuration file, and how errors end it."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from stepreward.cli.group import COMMANDS, LazyGroup, command_of
from stepreward.core.errors import InputError, SteprewardError, UnknownNameError

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
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"cannot read the configuration: {error}", source=path, remedy="pass TOML or YAML") from error
    if not isinstance(content, dict) or not all(isinstance(table, dict) for table in content.values()):
        raise InputError("expected a table for each command, such as [run]", source=path, remedy="see docs/commands")
    return {name: {k.replace("-", "_"): v for k, v in table.items()} for name, table in content.items()}


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


def main() -> None:
    """Runs the command line; an error on purpose is one line and exit status 1, Ctrl-C leaves a resumable run."""
    # Commands show progress of their own. Hugging Face's libraries read this where they are imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except SteprewardError as error:
        # What a library reports may run over many lines.
        print(f"stepreward: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stepreward: interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
