"""The command-line application: its commands, its configuration file, and how errors and Ctrl-C end it."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from stepreward.cli.commands import COMMANDS, RESUMED, LazyGroup, command_of
from stepreward.cli.flags.config_file import HELP, defaults
from stepreward.cli.terminal.plain_streams import plain_output
from stepreward.core.errors import PluginWarning, ServerWarning, SteprewardError
from stepreward.core.http.addresses import without_secrets

TRACEBACK = "STEPREWARD_TRACEBACK"
_LONGEST = 400
"""Characters shown of an error that was not foreseen."""
_GRACE = {signal.SIGINT: 3.0, signal.SIGTERM: 8.0}
"""Seconds in which a command that was interrupted may end by itself; after SIGTERM it also ends its own engines."""

app = typer.Typer(
    name="stepreward",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Process rewards: label, train, score, search, evaluate, serve.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stepreward {version('stepreward')}")
        raise typer.Exit


@app.callback()
def configure(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help=HELP)] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Process rewards: label, train, score, search, evaluate, serve."""
    if config is not None:
        name = str(context.invoked_subcommand)
        context.default_map = {name: defaults(config, name, command_of(name).params, COMMANDS)}


_show_others = warnings.showwarning


def _show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Shows a warning about a server or a plug-in as one line, without the place in the code."""
    if issubclass(category, ServerWarning | PluginWarning):
        print(f"stepreward: {message}", file=sys.stderr)
    else:
        _show_others(message, category, *where, **more)


def main() -> None:
    """Runs the command line; an error is one line and exit status 1, Ctrl-C leaves a resumable run.

    With STEPREWARD_TRACEBACK=1 in the environment, errors are raised with their traceback.
    """
    if not sys.stderr.isatty():
        # Downloads show their bars to people alone. Hugging Face's libraries read this where they are imported.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Python allows handlers in the main thread alone; elsewhere, as in a test's thread, the caller has its own.
    if threading.current_thread() is threading.main_thread():
        for number in _GRACE:
            signal.signal(number, partial(_interrupt, os.getpid()))
    warnings.showwarning = _show
    with plain_output():
        try:
            app()
        except Exception as error:
            # The boundary: what no code foresaw ends as one line as well.
            if os.environ.get(TRACEBACK):
                raise
            print(f"stepreward: {without_secrets(one_line(error))}", file=sys.stderr)
            if isinstance(error, OSError):
                # What could not be written to standard output is not tried again at the end of the process.
                with suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


def one_line(error: Exception) -> str:
    """An error as one line: libraries report in several."""
    text = " ".join(str(error).split())
    if isinstance(error, SteprewardError):
        return text
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" {error.filename}" if error.filename else ""
        return f"cannot write{where}: {error.strerror}; free some space and run again"
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"an error that was not foreseen, {what[:_LONGEST]}; {TRACEBACK}=1 shows where: please report it"


def _interrupt(own: int, signum: int, frame: FrameType | None) -> None:
    """Ends the command, also where threads wait for a server that is silent; a second signal ends it at once."""
    # From here on the same signal ends the process at once.
    signal.signal(signum, signal.SIG_DFL)
    if os.getpid() != own:
        # A child that was forked ends as one without this handler.
        os.kill(os.getpid(), signum)
    command = next((word for word in sys.argv[1:] if word in COMMANDS), "")
    resume = "; run the same command again to resume" if command in RESUMED else ""
    print(f"stepreward: interrupted{resume}", file=sys.stderr, flush=True)
    # `sys.exit` waits for threads, which may wait for a silent server. What is kept on disk is safe from a kill.
    late = threading.Timer(_GRACE[signal.Signals(signum)], os._exit, [128 + signum])
    late.daemon = True
    late.start()
    # SIGTERM wants an orderly end: exit handlers run, which end the processes of engines.
    if signum == signal.SIGTERM:
        sys.exit(128 + signum)
    raise KeyboardInterrupt
