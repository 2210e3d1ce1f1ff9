"""Published numbers, to print beside measured ones. Data, not code: shares in percent as printed at the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stepreward.evaluate.data.result import BenchResult


@dataclass(frozen=True, slots=True)
class Published:
    """One printed number."""

    benchmark: str
    """Registered name."""
    model: str
    group: str
    """Category within the benchmark; "" for the whole."""
    metric: str
    value: float
    """In percent."""
    rows: int
    """Solutions that it was measured on."""
    source: str


_PROCESS_BENCH_ROWS: Mapping[str, int] = {"gsm8k": 400, "math": 1000, "olympiadbench": 1000, "omnimath": 1000}
_PROCESS_BENCH: Mapping[str, tuple[float, float, float, float, float]] = {
    "Math-Shepherd-PRM-7B": (47.9, 29.5, 24.8, 23.8, 31.5),
    "RLHFlow-PRM-Mistral-8B": (50.4, 33.4, 13.8, 15.8, 28.4),
    "RLHFlow-PRM-Deepseek-8B": (38.8, 33.8, 16.9, 16.9, 26.6),
    "Skywork-PRM-1.5B": (59.0, 48.0, 19.3, 19.2, 36.4),
    "Skywork-PRM-7B": (70.8, 53.6, 22.9, 21.0, 42.1),
    "EurusPRM-Stage1": (44.3, 35.6, 21.7, 23.1, 31.2),
    "EurusPRM-Stage2": (47.3, 35.7, 21.2, 20.9, 31.3),
    "Qwen2.5-Math-7B-Math-Shepherd": (62.5, 31.6, 13.7, 7.7, 28.9),
    "Qwen2.5-Math-7B-PRM800K": (68.2, 62.6, 50.7, 44.3, 56.5),
    "Qwen2.5-Math-PRM-7B": (82.4, 77.6, 67.5, 66.3, 73.5),
    "Qwen2.5-Math-PRM-72B": (87.3, 80.6, 74.3, 71.1, 78.3),
}
_PRM_BENCH: Mapping[str, tuple[float, float, float, float]] = {
    "Skywork-PRM-7B": (36.2, 38.4, 32.7, 54.3),
    "MathShepherd-Mistral-7B": (47.0, 47.1, 45.7, 60.7),
    "ReasonEval-7B": (60.0, 55.5, 63.9, 71.0),
    "RLHFlow-PRM-Mistral-8B": (54.4, 46.7, 57.5, 68.5),
    "RLHFlow-PRM-Deepseek-8B": (54.2, 47.6, 57.5, 68.1),
    "ReasonEval-34B": (60.5, 51.5, 63.0, 73.1),
    "Qwen2.5-Math-PRM-7B": (65.5, 52.1, 71.0, 75.5),
    "Qwen2.5-Math-PRM-72B": (68.2, 54.6, 73.9, 77.0),
}


_PRM_BENCH_ROWS = 6211
"""Without the five that the files repeat."""


def published(benchmark: str) -> Iterator[Published]:
    """The numbers printed for a benchmark; none where none are kept."""
    if benchmark == "process-bench":
        source = "arXiv:2501.07301, Table 7"
        for model, values in _PROCESS_BENCH.items():
            for (group, rows), value in zip(_PROCESS_BENCH_ROWS.items(), values, strict=False):
                yield Published(benchmark, model, group, "f1", value, rows, source)
            yield Published(benchmark, model, "", "average_f1", values[-1], sum(_PROCESS_BENCH_ROWS.values()), source)
    elif benchmark == "prm-bench":
        source = "arXiv:2501.03124, Table 3"
        for model, (overall, *by_group) in _PRM_BENCH.items():
            yield Published(benchmark, model, "", "prm_score", overall, _PRM_BENCH_ROWS, source)
            for group, value in zip(("simplicity", "soundness", "sensitivity"), by_group, strict=True):
                yield Published(benchmark, model, "", group, value, _PRM_BENCH_ROWS, source)


def comparable(results: Sequence[BenchResult]) -> list[Published]:
    """The published numbers over the rows that were measured, the same subsets whole; all others compare nothing.

    Args:
        results: of scorers on the same data. Rows that a scorer left without a score count as measured.
    """

    def whole(one: Published, result: BenchResult) -> bool:
        measured = result.groups.get(one.group, {}) if one.group else result.metrics
        total = result.metrics[result.main].n
        if one.metric not in measured or (not one.group and total + result.unscored != one.rows):
            return False
        return not one.group or one.rows - result.unscored <= measured[one.metric].n <= one.rows

    return [
        one
        for one in published(results[0].benchmark if results else "")
        if any(whole(one, result) for result in results)
    ]
