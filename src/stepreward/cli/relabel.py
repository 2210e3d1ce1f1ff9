"""`stepreward relabel`: labels out of measured values or scores, without a policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.method_settings import blamed_on_settings
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.core.catalog import keep as filters
from stepreward.core.catalog import transform as transforms
from stepreward.core.errors import InputError
from stepreward.core.settings_text import read_settings
from stepreward.core.vocabulary import Flag
from stepreward.formats.registry import write
from stepreward.formats.trajectories import OWN
from stepreward.label.relabelling import label_counts, relabelled


@dataclass(frozen=True)
class RelabelFlags:
    """What is labelled anew, and what is kept."""

    data: Path
    """Solutions with values, which `label` measures, or scores, which `score --out` writes."""
    out: Path
    """File or folder to write."""
    transform: Annotated[str, Flag(choices=transforms)] = ""
    """Labels of values or scores: {choices}; left out: labels stay."""
    keep: Annotated[tuple[str, ...], Flag(choices=filters)] = ()
    """Filter of solutions: {choices}; may be repeated."""
    others: tuple[Path, ...] = ()
    """The same solutions in the same order with labels of another source, such as a judge or another seed, for --keep
    consensus; may be repeated: all must agree."""
    settings: Annotated[tuple[str, ...], Flag("--set")] = ()
    """Setting of the transform or a filter as name=value; may be repeated."""


def relabel(flags: RelabelFlags, reading: ReadFlags, json_output: JsonFlag = False) -> None:
    """Make labels of measured values or scores anew, and keep the solutions that teach most; no policy is called.

    Example: stepreward relabel --data scored.parquet --transform pseudo-label --out pseudo.parquet
    """
    methods = [*([transforms[flags.transform]] if flags.transform else []), *(filters[name] for name in flags.keep)]
    if not methods:
        raise InputError("there is nothing to do", remedy="pass --transform, --keep or both")
    if any("others" in one.data for one in methods) != bool(flags.others):
        what = "reads no --others" if flags.others else "takes --others"
        remedy = "drop it" if flags.others else "pass the same solutions with other labels"
        raise InputError(f"{', '.join(one.name for one in methods)} {what}", remedy=remedy)
    chosen = [*zip(methods, read_settings(flags.settings, *methods), strict=True)]
    rows = [*reading.solutions(flags.data)]
    others = [[*reading.solutions(path)] for path in flags.others]
    first = chosen.pop(0) if flags.transform else None
    with blamed_on_settings(*methods):
        made = relabelled(rows, first, chosen, others)
    if not made:
        raise InputError(f"none of {len(rows):,} solutions is kept", source=flags.data, remedy="loosen the filters")
    labels = label_counts(np.concatenate([one.labels[one.action] for one in made]))
    if flags.transform and not labels["labelled"]:
        remedy = "see which column the transform reads, and its settings, by `stepreward methods transform`"
        raise InputError(f"{flags.transform} gives no step a label", source=flags.data, remedy=remedy)
    write(flags.out, made, OWN, strict=True)
    votes = [one.facts["votes"] for one in made if "votes" in one.facts] if flags.transform else []
    read, unread = (sum(one[part] for one in votes) for part in ("read", "unread"))
    if json_output:
        counted = {"votes_read": read, "votes_unread": unread} if votes else {}
        typer.echo(json.dumps({"out": str(flags.out), "solutions": len(rows), "kept": len(made), **labels, **counted}))
    else:
        typer.echo(
            f"{flags.out}: {len(made):,} of {len(rows):,} solutions; {labels['labelled']:,} of {labels['steps']:,} "
            f"steps have a label, {labels['right']:,} above 1/2 and {labels['wrong']:,} not"
        )
        if unread:
            typer.echo(f"{unread:,} of {read + unread:,} votes could not be read, and are missing")
