"""Tokens and cost under the names of the tools that write logs, by hand-worked sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from stepreward.core.measure.step_usage import cost, sum_of_run, tokens_of, tokens_read, tokens_written
from stepreward.core.types import Problem, Step, Trajectory

LAYOUTS: dict[str, tuple[dict[str, Any], float, float, float]] = {
    "OpenAI": ({"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}, 3, 7, math.nan),
    # Anthropic counts what came from a cache beside the other input.
    "Anthropic": ({"usage": {"input_tokens": 7, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 3,
                             "output_tokens": 4}}, 4, 100, math.nan),
    "ATIF": ({"metrics": {"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 5, "cost_usd": 0.25}}, 2, 9,
             0.25),
    "OpenInference": ({"usage": {"prompt": 5, "completion": 6, "total": 11}}, 6, 5, math.nan),
    "GenAI": ({"gen_ai.usage.input_tokens": 8, "gen_ai.usage.output_tokens": 1}, 1, 8, math.nan),
    "Langfuse": ({"usageDetails": {"input": 4, "output": 2, "total": 6}, "costDetails": {"input": 0.1, "total": 0.3}},
                 2, 4, 0.3),
    "mini-swe-agent": ({"extra": {"cost": 0.5, "response": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}}},
                       2, 1, 0.5),
    # A total of tokens is no price, nor is a field called `output` a count.
    "neither": ({"usage": {"total": 12}, "output": 4, "input": 3, "cost": "free"}, math.nan, math.nan, math.nan),
    "damaged": ({"usage": "3", "metrics": None, "extra": {"response": [1]}}, math.nan, math.nan, math.nan),
    "not finite": ({"usage": {"completion_tokens": math.inf, "prompt_tokens": True}}, math.nan, math.nan, math.nan),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_read(name: str) -> None:
    fields, *want = LAYOUTS[name]
    np.testing.assert_equal([tokens_written(fields), tokens_read(fields), cost(fields)], want)


def test_tokens_of_an_action_are_those_sampled_before_those_counted() -> None:
    usage = {"usage": {"completion_tokens": 9}}
    assert tokens_of(Step("a", tokens=(1, 2), meta=usage)) == 2
    assert tokens_of(Step("a", logprobs=(-1.0,), meta=usage)) == 1
    assert tokens_of(Step("a", meta=usage)) == 9
    assert math.isnan(tokens_of(Step("a")))


def run(*metas: dict[str, Any], **facts: Any) -> Trajectory:
    steps = [one for meta in metas for one in (Step("act", meta=meta), Step("see", "observation", "tool"))]
    return Trajectory(Problem("p", "p"), tuple(steps), facts=facts)


def test_a_run_is_the_sum_of_its_actions_or_else_what_its_log_states() -> None:
    counted = [{"usage": {"completion_tokens": n, "cost": n / 10}} for n in (1, 2, 4)]
    stated = {"model_stats": {"api_calls": 3, "tokens_received": 50, "tokens_sent": 60, "instance_cost": 2.5}}
    assert sum_of_run(run(*counted, **stated), tokens_written) == 7
    assert sum_of_run(run(*counted), cost) == pytest.approx(0.7)
    # One action without a count leaves no sum.
    assert sum_of_run(run(*counted, {}, **stated), tokens_written) == 50
    assert sum_of_run(run({}, **stated), tokens_read) == 60
    assert sum_of_run(run({}, **stated), cost) == 2.5
    assert math.isnan(sum_of_run(run(*counted, {}), tokens_written))
    assert sum_of_run(run({}, result={"total_cost_usd": 0.5, "usage": {"output_tokens": 3}}), cost) == 0.5
    assert sum_of_run(run({}, final_metrics={"total_completion_tokens": 3}), tokens_written) == 3
    assert sum_of_run(run({}, cost=0.0), cost) == 0


def test_zeros_where_no_model_was_asked_are_no_counts() -> None:
    stated = {"model_stats": {"api_calls": 0, "tokens_received": 0, "instance_cost": 0, "total_cost": 0}}
    assert math.isnan(sum_of_run(run({}, **stated), cost))
