"""The verb evaluate."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from stepreward.connect.ray_engine import engine_of
from stepreward.core.catalog import bench
from stepreward.core.runtime.flows import Scorer
from stepreward.core.runtime.made_in_parts import Engine
from stepreward.core.types import Comparison, Trajectory
from stepreward.evaluate.data.recipe_settings import by_recipe
from stepreward.evaluate.data.result import BenchResult
from stepreward.formats.registry import read_comparisons
from stepreward.verbs.names import scorer_of
from stepreward.verbs.read_rows import readable, rows_of
from stepreward.verbs.spread_scorer import spread_over


def evaluate(
    rows: str | Path | Iterable[Trajectory] | Iterable[Comparison],
    scorer: str | Path | Scorer,
    *,
    benchmark: str = "process-bench",
    engine: str | Engine = "",
    **settings: Any,
) -> BenchResult:
    """Measures a scorer by a public benchmark's protocol, with intervals.

    Args:
        rows: a file of any format, or trajectories; comparisons for benchmarks of preferences.
        scorer: a name that `stepreward.load` takes, or a scorer.
        benchmark: of the family bench.
        engine: where questions are scored, in parts, as in `label`.
        settings: of the benchmark; what the checkpoint's recipe states is taken where they do not say.

    Raises:
        InputError: rows cannot be read or do not fit.
        UnknownNameError: there is no such benchmark or setting.
    """
    method = bench[benchmark]
    if isinstance(rows, str | Path):
        pairs = "Comparison" in str(inspect.signature(method.function).parameters["data"])
        rows = [*readable(read_comparisons(rows))] if pairs else [*rows_of(rows)]
    with spread_over(partial(scorer_of, scorer), engine_of(engine)) as judged:
        data = {"scorer": judged, "data": list(rows)}
        result: BenchResult = method.take(data, **{**by_recipe(judged, method), **settings})
    return result
