"""What `stepreward evaluate --benchmark` does: public data through the benchmarks of the registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from stepreward.cli.flags.format_options import format_options
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.flags.scorers import RecipeFlags
from stepreward.cli.rows.row_by_row import Place, RowByRow, shown
from stepreward.cli.terminal.console import plain_console
from stepreward.cli.terminal.left_out import tell_blank, tell_left_out
from stepreward.cli.terminal.progress import StageProgress
from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.http.addresses import without_secrets
from stepreward.core.method import Method
from stepreward.core.runtime.flows import Scorer
from stepreward.core.runtime.made_in_parts import Engine
from stepreward.core.types import Comparison, Trajectory, score_column
from stepreward.evaluate.data.recipe_settings import by_recipe
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import STEP_LEVEL, RecordedScorer
from stepreward.evaluate.published import comparable
from stepreward.formats.files.rows_of_files import is_own_folder
from stepreward.formats.files.saved_folders import is_saved
from stepreward.formats.registry import by_name, detect, read, read_comparisons
from stepreward.pipeline.run_report import percent
from stepreward.score.baselines import POSITION, PositionScorer
from stepreward.verbs.read_rows import unread
from stepreward.verbs.spread_scorer import spread_over

_READING, _RECIPE = ReadFlags(), RecipeFlags()


def measure(
    benchmark: str,
    data: Path,
    scorers: Sequence[str],
    settings: dict[str, Any],
    *,
    reading: ReadFlags = _READING,
    recipe: RecipeFlags = _RECIPE,
    engine: Engine | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Runs a benchmark for each scorer; where steps are judged also for the baseline `position`.

    Args:
        benchmark: registered name.
        data: a file, or a folder whose files are the benchmark's subsets, or of such folders.
        scorers: names of baselines, of recorded verifiers, or checkpoints; all recorded ones where empty.
        settings: of the benchmark.
        reading: how the data are read; rows that cannot be read or scored are left out and counted, unless `strict`.
        recipe: how checkpoints are scored, where they do not say.
        engine: whose workers score; this process where None.
        quiet: show no progress.

    Raises:
        InputError: nothing can be read, or there is nothing to score with.
        UnknownNameError: no such benchmark, or setting of it.
    """
    method = bench[benchmark]
    items, places = _read(data, reading)
    wanted = Comparison if "Comparison" in str(inspect.signature(method.function).parameters["data"]) else Trajectory
    alien = next((item for item in items if not isinstance(item, wanted)), None)
    if alien is not None:
        kinds = {Comparison: "comparisons of candidates", Trajectory: "solutions"}
        what = f"{benchmark} needs {kinds[wanted]}, and {kinds[type(alien)]} are among these rows"
        raise InputError(what, source=data, remedy="choose another benchmark or --format")
    recorded = list(dict.fromkeys(name for item in items for name in _recorded_of(item)))
    names = [*(scorers or recorded)]
    if not names:
        raise InputError("the rows hold no scores", source=data, remedy="pass --scorer: tool, length, or a checkpoint")
    if benchmark in STEP_LEVEL and POSITION not in names:
        names.append(POSITION)
    results: dict[str, BenchResult] = {}
    made = {}
    for name in names:
        mine = [item for item in items if name in _recorded_of(item)] if name in recorded else items
        if name in recorded:
            solutions = [item for item in mine if isinstance(item, Trajectory)]
            recorder = RecordedScorer(solutions, name) if solutions else Recorded(name)
            results[name] = _result(method, recorder, mine, settings)
            made[name] = results[name].to_json() | {"rows": len(mine)}
            continue
        total = sum(len(item.candidates) if isinstance(item, Comparison) else 1 for item in mine)
        bare = without_secrets(name)
        load: Callable[[], Scorer] = PositionScorer if name == POSITION else partial(recipe.scorer, name)
        where = None if name == POSITION else engine
        with StageProgress(quiet=quiet) as progress, spread_over(load, where) as scorer:
            own = {**by_recipe(scorer, method), **settings}
            patient = RowByRow(scorer, places, on_progress=shown(progress, bare, total), strict=reading.strict)
            results[bare] = _result(method, patient, mine, own)
            made[bare] = results[bare].to_json() | {"rows": len(mine), "bad_rows": len(patient.bad)}
        tell_left_out(patient.bad, f"by {bare}")
    printed = [
        {"model": one.model, "group": one.group, "metric": one.metric, "percent": one.value, "source": one.source}
        for one in comparable(list(results.values()))
    ]
    return {"benchmark": benchmark, "rows": len(items), "scorers": made, "published": printed}


def _result(
    method: Method[..., Any], scorer: Scorer, data: Sequence[Trajectory | Comparison], settings: dict[str, Any]
) -> BenchResult:
    result: BenchResult = method.take({"scorer": scorer, "data": data}, **settings)
    return result


def _recorded_of(item: Trajectory | Comparison) -> list[str]:
    """The names of the scorers whose scores a row holds."""
    return [*item.scores, *(item.step_scores if isinstance(item, Comparison) else ())]


class Recorded:
    """Stands for candidates' recorded scores, which benchmarks of comparisons read by name."""

    batch_size = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def score_many(self, questions: Sequence[Any]) -> list[Any]:
        """Never needed where all comparisons have recorded scores."""
        raise InputError(f"some comparisons have no score of {self.name}", remedy="leave them out")


def _read(data: Path, flags: ReadFlags) -> tuple[list[Any], dict[Any, Place]]:
    """Everything in a file or in the files of a folder, and its file and row; a file is the subset of rows without one.

    What `stepreward label` wrote is read as well.
    """
    files = [data]
    if data.is_dir() and not is_saved(data) and not is_own_folder(data):
        endings = {".json", ".jsonl", ".parquet", ".gz"}
        within = [
            path for path in data.rglob("*") if endings & {one.lower() for one in path.suffixes} and path.is_file()
        ]
        # Folders in a folder are read where it holds no file itself, as a folder of judges does.
        files = sorted([path for path in within if path.parent == data] or within)
    if not files:
        raise InputError("no file of data is here", source=data, remedy="pass .json, .jsonl or .parquet files")
    items: list[Any] = []
    places: dict[Any, Place] = {}
    known: dict[Any, int] = {}
    for path in files:
        chosen = by_name(flags.form) if flags.form else detect(path)
        options = format_options(chosen, chosen.read, flags.read)
        reader: Any = read if chosen.kind == "solutions" else read_comparisons
        reading = reader(path, chosen.name, strict=flags.strict, **options)
        subset = path.name.split(".")[0]
        for item in reading:
            item = _in_subset(item, subset)
            if not _joined(items, known, item):
                items.append(item)
            for one in item.candidates if isinstance(item, Comparison) else (item,):
                places[one.problem.id, one.steps] = places[one.problem.id] = (path, reading.number)
        tell_left_out(unread(reading))
        tell_blank(reading.blank)
    if not items:
        raise InputError("no row can be read", source=data, remedy="name its --format")
    return items, places


def _joined(items: list[Any], known: dict[Any, int], item: Trajectory | Comparison) -> bool:
    """Whether an attempt was read before with the scores of others: these are added to it, a file may be a judge's."""
    if isinstance(item, Comparison) or not item.scores:
        return False
    of = item.problem.id, item.steps, item.facts["subset"]
    at = known.setdefault(of, len(items))
    if at == len(items) or item.scores.keys() & items[at].scores.keys():
        return False
    items[at] = items[at].with_columns({score_column(name): values for name, values in item.scores.items()})
    return True


def _in_subset(item: Trajectory | Comparison, subset: str) -> Trajectory | Comparison:
    if isinstance(item, Comparison):
        return item if item.subset else replace(item, subset=subset)
    return item if item.facts.get("subset") else replace(item, facts={**item.facts, "subset": subset})


def show(outcome: dict[str, Any]) -> None:
    """The table of scorers, what was published, and the protocol."""
    console = plain_console()
    first = next(iter(outcome["scorers"].values()))
    metrics = list(first["metrics"])[:5]
    table = Table(title=f"{outcome['benchmark']}, {outcome['rows']:,} rows", title_justify="left")
    for head in ("scorer", "group", *metrics):
        table.add_column(head, overflow="fold")
    for name, made in outcome["scorers"].items():
        table.add_row(name, "", *(_cell(made["metrics"], metric) for metric in metrics))
        for group, numbers in made["groups"].items():
            table.add_row("", group, *(_cell(numbers, metric) for metric in metrics))
    console.print(table)
    for metric, group in dict.fromkeys((row["metric"], row["group"]) for row in outcome["published"]):
        if metric in metrics:
            console.print(published_line(outcome["published"], metric, group), soft_wrap=True)
    for name, made in outcome["scorers"].items():
        if made["unscored"]:
            lack = (
                f"{made['unscored']:,} of {made['rows']:,} rows lack a score that is needed: no part of these numbers"
            )
            console.print(f"{name}: {lack}", soft_wrap=True)
    origin = (
        f" Threshold {first['threshold']:.3g}, {first['threshold_from']}." if first["threshold"] is not None else ""
    )
    console.print(first["protocol"] + origin, soft_wrap=True)


def published_line(rows: Sequence[dict[str, Any]], metric: str, group: str = "") -> str:
    """The published numbers of one metric, in one subset or over all, in a sentence."""
    mine = [row for row in rows if (row["metric"], row["group"]) == (metric, group)]
    numbers = ", ".join(f"{row['model']} {row['percent']}" for row in mine)
    return f"Published {f'{group} ' if group else ''}{metric} ({mine[0]['source']}): {numbers}."


def _cell(numbers: dict[str, Any], metric: str) -> str:
    found = numbers.get(metric)
    return percent(found) if found and found["value"] is not None else ""
