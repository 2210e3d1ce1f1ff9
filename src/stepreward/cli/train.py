"""`stepreward train`: a step reward model from labelled solutions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stepreward.cli import on_demand
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.method_settings import blamed_on_settings
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.terminal.progress import StageProgress, Watched
from stepreward.core.catalog import loss
from stepreward.core.errors import InputError
from stepreward.core.files.stored_rows import StoredRows
from stepreward.core.settings_text import read_settings
from stepreward.core.tree import StepTree
from stepreward.core.vocabulary import Flag
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.record_file import RECORD_FILE
from stepreward.score.model.layouts import LAYOUTS
from stepreward.train.data.domains import named, of_domain
from stepreward.train.data.held_out import held_out_split
from stepreward.train.data.references import KnownReferences
from stepreward.train.processes import is_main
from stepreward.train.settings import MEMORY_KINDS, RESULT_FILE, SCRATCH, UNFINISHED, TrainSettings


@dataclass(frozen=True)
class TrainFlags:
    """What is trained on what, beside the settings of training."""

    data: tuple[Path, ...]
    """Labelled solutions: what `label` wrote, or any format; `stepreward convert --help`. May be repeated: rows without
    a fact `domain` have the name of their file as one."""
    out: Path
    """Folder of the checkpoint; an interrupted training in it is resumed."""
    backbone: str = "builtin:arithmetic"
    """builtin:arithmetic, a model folder, a hub name, or `scratch`: a small fresh model."""
    keep_head: Annotated[bool, Flag("--keep-head")] = False
    """The backbone is a reward model that `score` reads: keep how it is fed, and turn its head into that of the
    objective, whose scores are the old ones at first."""
    like: str = ""
    """Row of the table of checkpoints that the model follows, such as trl-prm."""
    held_out: Annotated[float, Flag(low=0.0, high=0.9)] = 0.1
    """Share of the problems kept for evaluation."""
    mix: tuple[str, ...] = ()
    """Share of a domain in the tokens of every pass as name=weight, once for each domain; without it, each problem is
    taken once a pass."""
    domain_weight: tuple[str, ...] = ()
    """Weight of a domain in the loss as name=weight, once for each domain; with --domain-rate the first one."""
    meta: Path | None = None
    """Graded solutions of other problems, from which the weights of domains are learned; see --domain-rate."""
    settings: Annotated[tuple[str, ...], Flag("--set")] = ()
    """Setting of the objective, or with --meta of its own, as name=value; may be repeated."""
    surprise: bool = False
    """The head also reads how surprised its own language model is; needs tied embeddings."""
    max_length: Annotated[int, Flag(low=0)] = 0
    """Most tokens of a trajectory; 0: as many as the backbone takes."""
    dry_run: Annotated[bool, Flag("--dry-run")] = False
    """Load no weights and train nothing: say the memory of the largest batch, the steps and the hours."""
    tokens_per_second: Annotated[float, Flag(low=1.0)] = 1000.0
    """Speed for the hours of --dry-run, of all processes together."""
    export: Annotated[tuple[str, ...], Flag(choices=LAYOUTS)] = ()
    """Also write the finished model in this layout, into OUT/export/LAYOUT; may be repeated: {choices}."""
    overwrite: Annotated[bool, Flag("--overwrite")] = False
    """Replace a finished checkpoint in OUT."""


def train(flags: TrainFlags, reading: ReadFlags, training: TrainSettings, json_output: JsonFlag = False) -> None:
    """Train a step reward model on whole trees; writes a checkpoint that `score` and `stepreward.load` read.

    Example: stepreward train --data labels/labels.parquet --out model
    """
    out = flags.out
    ended = not flags.overwrite and _is_finished(out)
    if ended and not (out / RESULT_FILE).is_file():
        raise _kept(out)
    methods = {name: loss[name] for name in (training.objective, *([training.domain_objective] if flags.meta else []))}
    chosen = dict(zip(methods, read_settings(flags.settings, *methods.values()), strict=True))
    own, outer = chosen[training.objective], chosen.get(training.domain_objective, {}) if flags.meta else {}
    mix, weights = _shares(flags.mix, "--mix"), _shares(flags.domain_weight, "--domain-weight")
    settings = replace(
        training, objective_settings=own, domain_settings=outer, mix=mix, domain_weights=weights
    )  # fmt: skip
    settings = settings.on(flags.backbone, resolve)
    settings.require_meta(flags.meta is not None)
    if not flags.dry_run:
        settings.require_packages()
    name = flags.backbone if flags.backbone == SCRATCH else resolve(flags.backbone)
    rows, quiet, known = StoredRows(), json_output or not is_main(), KnownReferences()
    for domain, path in named(flags.data).items():
        read = known.passing(reading.solutions(path, comparisons=True, quiet=not is_main()), path)
        rows.extend(of_domain(Watched(read, "read rows", quiet=quiet), domain), domain)
    learned, kept = held_out_split(rows.problems, flags.held_out, settings.seed)
    # The objective's own numbers are checked now, not after minutes of training.
    with blamed_on_settings(loss[settings.objective]):
        objective = settings.loss()
    watch = partial(Watched[int], stage="prepare problems", quiet=quiet)
    trees = on_demand.StoredTrees(rows, learned, objective, settings.augmented, watch)
    held_out = on_demand.StoredTrees(rows, kept, objective) if kept else ()
    meta: Sequence[StepTree] = ()
    if flags.meta is not None:
        graded = StoredRows()
        solutions = reading.solutions(flags.meta, comparisons=True, quiet=not is_main())
        graded.extend(known.passing(solutions, flags.meta))
        meta = on_demand.StoredTrees(graded, range(len(graded.problems)), settings.domain_loss())
    record = on_demand.starting_record(
        name, objective, keep_head=flags.keep_head, like=flags.like, max_length=flags.max_length,
        prompt_format=settings.prompt_format, teacher=settings.teacher, surprise=flags.surprise,
        both_ways=settings.both_ways,
    )  # fmt: skip
    known.check(record)
    if flags.dry_run:
        _show_costs(on_demand.costs(name, trees, record, settings), flags.tokens_per_second, json_output)
        return
    bias = on_demand.needs_bias(flags.export)
    model = on_demand.starting_model(
        name,
        trees,
        record=record,
        keep_head=flags.keep_head,
        like=flags.like,
        bias=bias,
        seed=settings.seed,
        loading=on_demand.loading(settings),
    )
    on_demand.require_layouts(model, flags.export, adapters=settings.writes_adapters)
    again = on_demand.finished(trees, model, out, settings, held_out, meta) if ended else None
    if ended and again is None:
        raise _kept(out)
    with StageProgress(quiet=quiet) as progress:
        result = again or on_demand.train(
            trees,
            model,
            out,
            settings,
            held_out=held_out,
            meta=meta,
            on_progress=lambda done, total, detail: progress("train", done, total, detail),
        )
    if not is_main():
        return
    outcome = {"model": str(out), "trees": len(trees), "metrics": result.metrics, "steps": result.steps}
    outcome |= {"domains": result.domains} if result.domains else {}
    exported = [str(one.folder) for one in on_demand.export_finished(out, flags.export)]
    outcome |= {"exported": exported} if exported else {}
    if json_output:
        typer.echo(json.dumps(outcome))
        return
    for folder in exported:
        typer.echo(f"exported to {folder}")
    if again is not None:
        typer.echo(f"{out}: this training has finished already; pass --overwrite to train anew")
        return
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items()) or "nothing held out"
    typer.echo(f"{out}: {result.steps} steps on {len(trees)} trees in {result.seconds:.0f} s; held out: {numbers}")
    for name, measured in result.domains.items():
        typer.echo(f"  {name}: " + ", ".join(f"{what} {value:,.4g}" for what, value in measured.items()))


def _show_costs(costs: on_demand.Costs, speed: float, json_output: bool) -> None:
    """Prints what a training will take."""
    if not is_main():
        return
    if json_output:
        typer.echo(json.dumps(costs.to_json() | {"hours": costs.hours(speed)}))
        return
    memory = costs.memory
    parts = ", ".join(f"{name} {getattr(memory, name) / 1e9:,.2f}" for name in MEMORY_KINDS)
    typer.echo(f"{memory.parameters:,} parameters, of which {memory.trained:,} are trained")
    typer.echo(
        f"largest batch, {costs.rows:,} rows of {costs.width:,} tokens: {memory.total / 1e9:,.2f} GB a device ({parts})"
    )
    typer.echo(
        f"{costs.steps:,} steps, {costs.tokens:,} tokens: {costs.hours(speed):,.2f} hours at {speed:,.0f} tokens/s"
    )


def _shares(given: Sequence[str], flag: str) -> dict[str, float]:
    """Numbers of domains, given to a flag as `name=weight`.

    Raises:
        InputError: one is not of this form, or a name is given twice.
    """
    made: dict[str, float] = {}
    for text in given:
        name, equals, weight = text.rpartition("=")
        try:
            share = float(weight) if equals else math.nan
        except ValueError:
            share = math.nan
        if not 0 < share < math.inf or name in made:
            raise InputError(
                f"{flag} expects name=weight, each name once, got {text!r}", remedy=f"such as {flag} math=2"
            )
        made[name] = share
    return made


def _is_finished(out: Path) -> bool:
    """Whether a folder holds a finished checkpoint; an unfinished training in it says itself whether it is this one."""
    return any((out / name).is_file() for name in (RECORD_FILE, "config.json")) and not (out / UNFINISHED).is_dir()


def _kept(out: Path) -> InputError:
    """Refuses to replace a finished checkpoint of another training."""
    remedy = "choose another --out, or pass --overwrite to replace it"
    return InputError("holds a finished checkpoint", source=out, remedy=remedy)
