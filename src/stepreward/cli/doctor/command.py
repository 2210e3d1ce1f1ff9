"""`stepreward doctor`: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain

import typer
from rich.text import Text

from stepreward.cli.doctor.finding import Finding
from stepreward.cli.doctor.packages import diagnosis, package_finding, packages
from stepreward.cli.doctor.servers import model_findings, policy_findings
from stepreward.cli.doctor.trial import trial_findings
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.policies import PolicyFlags
from stepreward.cli.terminal.console import plain_console


def _writable() -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir="."):
            free = shutil.disk_usage(".").free / 2**30
        return Finding("folder", free > 1, f"writable, {free:.1f} GiB free")
    except OSError as error:
        return Finding("folder", False, f"this folder is not writable ({error}); change to another")


def _device() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("device", True, f"{os.cpu_count()} CPU cores")
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return Finding("device", False, diagnosis(error, ["models"]))
    if torch.cuda.is_available():
        return Finding("device", True, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    return Finding("device", True, f"{os.cpu_count()} CPU cores, no CUDA device")


@dataclass(frozen=True)
class ServersFlags(PolicyFlags):
    """The servers to look at; without any, this machine."""

    policy: str = ""
    """Look at the server of a policy instead: URL#MODEL."""
    model: str = ""
    """Look at the server of a reward model instead: URL#NAME."""
    like: str = ""
    """Row of the table of checkpoints that the model follows, such as trl-prm."""


def doctor(flags: ServersFlags, json_output: JsonFlag = False) -> None:
    """Check the installation, or what servers can do, and say what to do about what is missing.

    Example: stepreward doctor
    """
    sources = [policy_findings(flags.policy, flags.settings)] if flags.policy else []
    sources += [model_findings(flags.model, flags.like)] if flags.model else []
    findings, console = [], plain_console()
    # A trial takes seconds: each finding is shown as it is made.
    for finding in chain.from_iterable(sources) if sources else _here():
        findings.append(finding)
        if not json_output:
            mark, colour = ("ok ", "green") if finding.good else ("no ", "red") if finding.needed else ("-  ", "yellow")
            console.print(Text(mark, colour), f"{finding.what:17} {finding.says}", soft_wrap=True)
    if json_output:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    raise typer.Exit(0 if all(finding.good or not finding.needed for finding in findings) else 1)


def _here() -> Iterator[Finding]:
    """This machine: what is installed on it, and what works."""
    yield Finding("python", True, platform.python_version())
    yield from map(package_finding, packages())
    yield _device()
    yield _writable()
    yield from trial_findings()
