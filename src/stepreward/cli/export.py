"""`stepreward export`: a reward model in the layout of another library, in a folder or on the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from stepreward.cli import on_demand
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.core.vocabulary import Flag
from stepreward.score.model.layouts import LAYOUTS


@dataclass(frozen=True)
class ExportFlags:
    """How and where a model is written."""

    layout: Annotated[str, Flag(choices=LAYOUTS)] = "token-classification"
    """Layout of the files: {choices}."""
    dtype: str = ""
    """Numbers of the weights, float32, bfloat16 or float16; left out: those that they were saved in."""
    push: str = ""
    """Hub name to upload to, owner/name; private unless --public. Needs HF_TOKEN, or `hf auth login`."""
    public: bool = False
    """Make a new repository of the hub public."""
    overwrite: Annotated[bool, Flag("--overwrite")] = False
    """Replace an exported model in OUT."""


def export(
    model: Annotated[str, typer.Argument(help="Model folder that `train` or `run` wrote, or a hub name.")],
    out: Annotated[Path | None, typer.Argument(help="New folder to write; left out: upload alone.")] = None,
    *,
    flags: ExportFlags,
    json_output: JsonFlag = False,
) -> None:
    """Write a reward model for transformers, TRL, vLLM or SGLang, in a folder or onto the hub, with a card.

    Example: stepreward export model exported --layout token-classification
    """
    made = on_demand.export(model, out, **vars(flags))
    if json_output:
        folder = None if made.folder is None else str(made.folder)
        typer.echo(json.dumps({"layout": made.layout, "out": folder, "address": made.address or None}))
        return
    for place in (made.folder, made.address):
        if place:
            typer.echo(f"{made.layout} in {place}")
