"""The verb evaluate."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stepreward.core.catalog import bench
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Comparison, Trajectory
from stepreward.evaluate.data.recipe_settings import by_recipe
from stepreward.evaluate.data.result import BenchResult
from stepreward.formats.registry import read_comparisons
from stepreward.verbs.names import scorer_of
from stepreward.verbs.read_rows import readable, rows_of


def evaluate(
    rows: str | Path | Iterable[Trajectory] | Iterable[Comparison],
    scorer: str | Path | Scorer,
    *,
    benchmark: str = "process-bench",
    **settings: Any,
) -> BenchResult:
    """Measures a scorer by a public benchmark's protocol, with intervals.

    Args:
        rows: a file of any format, or trajectories; comparisons for benchmarks of preferences.
        scorer: a name that `stepreward.load` takes, or a scorer.
        benchmark: of the family bench.
        settings: of the benchmark; what the checkpoint's recipe states is taken where they do not say.

    Raises:
        InputError: rows cannot be read or do not fit.
        UnknownNameError: there is no such benchmark or setting.
    """
    method = bench[benchmark]
    judged = scorer_of(scorer)
    if isinstance(rows, str | Path):
        pairs = "Comparison" in str(inspect.signature(method.function).parameters["data"])
        rows = [*readable(read_comparisons(rows))] if pairs else [*rows_of(rows)]
    data = {"scorer": judged, "data": list(rows)}
    result: BenchResult = method.take(data, **{**by_recipe(judged, method), **settings})
    return result
