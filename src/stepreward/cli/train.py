"""`stepreward train`: a step reward model from labelled solutions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from stepreward.cli.format_options import ReadFlag
from stepreward.cli.inputs import read_labels_of
from stepreward.cli.progress import StageProgress
from stepreward.cli.settings import choices
from stepreward.core.catalog import loss
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.optional import optional
from stepreward.core.settings_text import read_settings
from stepreward.core.types import Labels
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import RECORD_FILE, EncoderRecord
from stepreward.train.settings import HIGHER_IS_BETTER, RESULT_FILE, SCRATCH, UNFINISHED, TrainSettings

_DEFAULT = TrainSettings()


def train(
    data: Annotated[
        Path, typer.Option(help="Labelled solutions: what `label` wrote, or any format; `stepreward convert --help`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint; an interrupted training in it is resumed.")],
    form: Annotated[str, typer.Option("--format", help="Format of --data; detected where left out.")] = "",
    read_option: ReadFlag = None,
    backbone: Annotated[
        str, typer.Option(help="builtin:arithmetic, a model folder, a hub name, or `scratch`: a small fresh model.")
    ] = "builtin:arithmetic",
    held_out: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of the problems kept for evaluation.")] = 0.1,
    objective: Annotated[str, typer.Option(help=f"What is minimised: {choices(loss)}.")] = _DEFAULT.objective,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the objective as name=value; may be repeated.")
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the data.")] = _DEFAULT.epochs,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = _DEFAULT.learning_rate,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch.")] = _DEFAULT.batch_tokens,
    row_tokens: Annotated[int, typer.Option(help="Tokens of a packed row; wider trees are cut.")] = _DEFAULT.row_tokens,
    metric: Annotated[
        str, typer.Option(help=f"Picks the checkpoint: {', '.join(HIGHER_IS_BETTER)}.")
    ] = _DEFAULT.metric,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after this many evaluations without a better metric; 0: never.")
    ] = _DEFAULT.patience,
    surprise: Annotated[
        bool, typer.Option(help="The head also reads how surprised its own language model is; needs tied embeddings.")
    ] = False,
    max_length: Annotated[int, typer.Option(help="Most tokens of a trajectory.")] = EncoderRecord().max_length,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for what is there.")] = _DEFAULT.device,
    seed: Annotated[int, typer.Option(help="Seed of the order and of fresh weights.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished checkpoint in OUT.")] = False,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad row instead of leaving it out.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON, show no progress.")] = False,
) -> None:
    """Train a step reward model on whole trees; writes a checkpoint that `score` and `stepreward.load` read.

    Example: stepreward train --data labels/labels.parquet --out model
    """
    ended = not overwrite and _is_finished(out)
    if ended and not (out / RESULT_FILE).is_file():
        raise _kept(out)
    (own,) = read_settings(settings or [], loss[objective])
    name = backbone if backbone == SCRATCH else resolve(backbone)
    try:
        chosen = TrainSettings(
            objective,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_tokens=batch_tokens,
            row_tokens=row_tokens,
            metric=metric,
            patience=patience,
            device=device,
            seed=seed,
            objective_settings=own,
        )
        rows, kept = _split(read_labels_of(data, form, given=read_option or (), strict=strict), held_out, seed)
        # An objective's own numbers are checked now, not after minutes of training.
        chosen.loss()
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error), remedy="see `stepreward train --help`") from error
    labelled_trees = optional("stepreward.train.data").labelled_trees
    trees = labelled_trees(rows)
    # Formats end steps in one line break or several, and a user's lists in none: to the model they are the same text.
    record = EncoderRecord(clean=("chomp",), max_length=max_length, surprise=surprise)
    trainer = optional("stepreward.train.trainer")
    model = optional("stepreward.train.scratch").starting_model(name, trees, record=record, seed=seed)
    again = trainer.finished(trees, model, out, chosen, labelled_trees(kept) if kept else ()) if ended else None
    if ended and again is None:
        raise _kept(out)
    with StageProgress(quiet=json_output) as progress:
        result = again or trainer.train(
            trees,
            model,
            out,
            chosen,
            held_out=labelled_trees(kept) if kept else (),
            on_progress=lambda done, total, detail: progress("train", done, total, detail),
        )
    outcome = {"model": str(out), "trees": len(trees), "metrics": result.metrics, "steps": result.steps}
    if json_output:
        typer.echo(json.dumps(outcome))
        return
    if again is not None:
        typer.echo(f"{out}: this training has finished already; pass --overwrite to train anew")
        return
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items()) or "nothing held out"
    typer.echo(f"{out}: {result.steps} steps on {len(trees)} trees in {result.seconds:.0f} s; held out: {numbers}")


def _is_finished(out: Path) -> bool:
    """Whether a folder holds a finished checkpoint; an unfinished training in it says itself whether it is this one."""
    return any((out / name).is_file() for name in (RECORD_FILE, "config.json")) and not (out / UNFINISHED).is_dir()


def _kept(out: Path) -> InputError:
    """Refuses to replace a finished checkpoint of another training."""
    remedy = "choose another --out, or pass --overwrite to replace it"
    return InputError("holds a finished checkpoint", source=out, remedy=remedy)


def _split(labels: Iterable[Labels], share: float, seed: int) -> tuple[list[Labels], list[Labels]]:
    """Labels to learn from and labels to evaluate on, split by problem: a keyed draw of the problem's id."""
    parts: tuple[list[Labels], list[Labels]] = ([], [])
    drawn: dict[str, bool] = {}
    for one in labels:
        name = one.trajectory.problem.id
        if name not in drawn:
            drawn[name] = bool(Key.seed(seed).fold("held out", name).rng().random() < share)
        parts[drawn[name]].append(one)
    return parts
