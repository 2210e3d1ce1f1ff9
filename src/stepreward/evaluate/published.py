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
_AGENT_PROCESS_BENCH: Mapping[str, tuple[float, ...]] = {
    "GPT-5.2": (72.1, 69.6, 66.3, 54.4, 71.6, 52.8, 70.3, 56.4, 70.1, 58.3),
    "GPT-5.2-Chat": (71.4, 70.0, 69.3, 58.0, 71.6, 58.0, 80.4, 58.4, 74.8, 61.1),
    "DeepSeek-V3.2": (74.4, 65.2, 61.8, 48.0, 74.1, 50.0, 73.3, 57.6, 71.4, 55.2),
    "Gemini-3-Flash-Preview": (76.7, 70.0, 73.8, 53.2, 77.6, 40.8, 81.2, 56.0, 78.3, 55.0),
    "Kimi-K2.5": (71.7, 67.2, 61.4, 54.4, 75.3, 56.4, 73.0, 49.2, 71.4, 56.8),
    "GPT-5.2-Thinking (medium)": (72.3, 73.2, 70.9, 58.8, 64.9, 44.4, 75.2, 53.6, 71.0, 57.5),
    "DeepSeek-V3.2-Thinking": (70.4, 69.2, 60.2, 49.2, 75.3, 54.4, 77.2, 65.6, 72.8, 59.6),
    "Gemini-3-Flash-Preview-Thinking": (75.8, 70.4, 79.7, 65.2, 81.8, 64.0, 83.4, 63.6, 81.6, 65.8),
    "Kimi-K2.5-Thinking": (70.6, 68.4, 66.6, 58.0, 79.8, 57.6, 78.3, 65.6, 75.9, 62.4),
    "Qwen3-4B": (58.6, 59.2, 35.8, 29.2, 65.0, 29.2, 57.9, 38.0, 55.9, 38.9),
    "Qwen3-8B": (60.4, 57.2, 39.9, 32.0, 64.9, 30.8, 58.5, 42.8, 57.1, 40.7),
    "Qwen3-4B-Instruct-2507": (66.6, 59.2, 44.0, 36.0, 65.8, 33.6, 59.2, 48.8, 58.9, 44.4),
    "Qwen3-30B-A3B-Instruct-2507": (65.8, 54.4, 48.3, 35.2, 72.4, 36.4, 67.2, 49.6, 65.0, 43.9),
    "Llama-3.1-8B-Instruct": (34.6, 53.6, 26.8, 31.2, 61.2, 28.8, 61.1, 47.2, 52.3, 40.2),
    "Llama-3.2-3B-Instruct": (44.3, 58.4, 22.5, 27.6, 37.7, 23.6, 37.6, 40.4, 35.3, 37.5),
    "Llama-3.3-70B-Instruct": (46.3, 60.0, 36.6, 30.8, 64.6, 30.8, 56.9, 46.8, 54.4, 42.1),
    "Qwen3-4B-Thinking": (60.1, 56.0, 44.4, 39.6, 65.5, 33.2, 60.3, 47.6, 58.8, 44.1),
    "Qwen3-8B-Thinking": (59.7, 58.0, 45.9, 41.2, 70.9, 38.8, 66.4, 46.0, 63.2, 46.0),
    "Qwen3-4B-Thinking-2507": (66.9, 60.4, 41.9, 36.8, 65.4, 33.6, 63.0, 46.8, 60.0, 44.4),
    "Qwen3-30B-A3B-Thinking-2507": (70.0, 64.8, 53.1, 46.4, 73.2, 35.2, 71.8, 61.6, 68.5, 52.0),
}
_AGENT_PROCESS_BENCH_ROWS: Mapping[str, int] = {"hotpotqa": 250, "gaia_dev": 250, "bfcl": 250, "tau2": 250, "": 1000}
_AGENT_REWARD_BENCH: Mapping[str, tuple[float, ...]] = {
    "functional": (83.8, 55.9, 67.1, 25.0, 85.2, 79.0, 100.0, 83.3),
    "aer": (67.7, 71.9, 69.7, 83.3, 56.0, 68.8, 100.0, 66.7),
    "aerv": (67.6, 71.5, 69.5, 83.3, 61.2, 67.6, 96.4, 59.3),
    "nnetnav": (52.5, 82.4, 64.1, 20.8, 54.5, 54.3, 77.3, 43.2),
    "claude-3.7-sonnet-noscreen": (68.8, 81.6, 74.7, 87.5, 61.0, 69.3, 85.0, 66.7),
    "gpt-4o-noscreen": (69.8, 83.1, 75.9, 77.8, 63.0, 70.2, 94.6, 63.0),
    "gpt-4o-mini-noscreen": (61.5, 86.1, 71.7, 80.0, 57.9, 63.5, 84.2, 49.4),
    "llama-3.3-70b-noscreen": (67.7, 79.0, 72.9, 75.0, 59.6, 68.2, 94.3, 62.7),
    "qwen-2.5-vl-noscreen": (64.3, 89.8, 75.0, 72.7, 59.3, 63.6, 87.2, 60.3),
    "claude-3.7-sonnet-noaxtree": (69.4, 76.3, 72.7, 71.4, 64.8, 69.3, 85.3, 66.7),
    "gpt-4o-noaxtree": (68.1, 80.3, 73.7, 77.8, 60.7, 69.9, 93.8, 59.6),
    "gpt-4o-mini-noaxtree": (64.5, 78.3, 70.8, 80.0, 57.4, 66.9, 90.3, 54.8),
    "qwen-2.5-vl-noaxtree": (64.5, 86.1, 73.7, 70.0, 58.5, 62.9, 93.8, 64.4),
}
"""By the judge's folder: precision, recall and F1 over all, then precision by benchmark."""
_AGENT_REWARD_BENCH_ROWS: Mapping[str, int] = {
    "assistantbench": 108, "visualwebarena": 276, "webarena": 310, "workarena": 64, "workarena++": 348,
}  # fmt: skip


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
    elif benchmark == "agent-reward-bench":
        source = "results.csv of the authors, arXiv:2504.08942"
        total = sum(_AGENT_REWARD_BENCH_ROWS.values())
        for model, row in _AGENT_REWARD_BENCH.items():
            for metric, value in zip(("precision", "recall", "f1"), row[:3], strict=True):
                yield Published(benchmark, model, "", metric, value, total, source)
            for (group, rows), value in zip(_AGENT_REWARD_BENCH_ROWS.items(), row[3:], strict=True):
                yield Published(benchmark, model, group, "precision", value, rows, source)
    elif benchmark == "agent-process-bench":
        source = "arXiv:2603.14465, table of results"
        for model, both in _AGENT_PROCESS_BENCH.items():
            # Each data set's step accuracy, then its first-error accuracy.
            pairs = zip(_AGENT_PROCESS_BENCH_ROWS.items(), both[::2], both[1::2], strict=True)
            for (group, rows), steps, first in pairs:
                yield Published(benchmark, model, group, "step_accuracy", steps, rows, source)
                yield Published(benchmark, model, group, "first_error_accuracy", first, rows, source)


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
