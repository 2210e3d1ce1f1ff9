"""Tokens and money that logs record: of a step, and of a whole run, under the names of the tools that write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from stepreward.core.types import Step, Trajectory

_USAGE = ("usage", "metrics", "usageDetails", "usage_details", "token_usage")
"""Fields of a step, or of a run, that hold counts of tokens."""
_WRITTEN = ("completion_tokens", "output_tokens", "completion", "output")
_READ = ("prompt_tokens", "input_tokens", "prompt", "input")
_STATED: Mapping[str, tuple[str, ...]] = {
    "completion_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "tokens_received",
                          "total_completion_tokens", "completion_tokens"),
    "prompt_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "tokens_sent", "total_prompt_tokens",
                      "prompt_tokens"),
}  # fmt: skip
"""Names of the same counts beside other fields, where a plain `input` may be anything."""
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Anthropic's counts of cached tokens, which are beside `input_tokens`; others count them among those read."""
_COST = ("cost_usd", "total_cost_usd", "instance_cost", "cost", "total_cost", "totalCost")
_TOTALS = ("model_stats", "final_metrics", "result")
"""Fields of a run in which SWE-agent and its kin, Harbor, and Claude Code state what the whole run took."""


def tokens_written(fields: Mapping[str, Any]) -> float:
    """Tokens that a model wrote, by the log's fields; NaN if they do not say."""
    return _first(*(_number(one, *_WRITTEN) for one in _counts(fields)), _number(fields, *_STATED[_WRITTEN[0]]))


def tokens_read(fields: Mapping[str, Any]) -> float:
    """Tokens of the prompts that a model read, those from a cache among them; NaN if the fields do not say."""
    return _first(*map(_read, _counts(fields)), _number(fields, *_STATED[_READ[0]]))


def cost(fields: Mapping[str, Any]) -> float:
    """US dollars, as a log states them; NaN if it does not."""
    detailed = [fields[name] for name in ("costDetails", "cost_details") if isinstance(fields.get(name), Mapping)]
    extra = [fields["extra"]] if isinstance(fields.get("extra"), Mapping) else []
    others = (_number(one, *_COST) for one in (*_counts(fields), *extra, fields))
    return _first(*(_number(one, "total") for one in detailed), *others)


def tokens_of(step: Step) -> float:
    """Tokens that the policy wrote in an action, by their ids, log-probabilities or the log's usage; NaN if unknown."""
    recorded = step.tokens if step.tokens is not None else step.logprobs
    return float(len(recorded)) if recorded is not None else tokens_written(step.meta)


def sum_of_run(
    run: Trajectory, stated: Callable[[Mapping[str, Any]], float], of_step: Callable[[Step], float] | None = None
) -> float:
    """The sum over the actions of a run where its log counts each, else the total that it states; NaN if unknown.

    Args:
        run: the run.
        stated: `tokens_written`, `tokens_read` or `cost`.
        of_step: the number of an action, where more than its log's fields tell it.
    """
    each = [of_step(step) if of_step else stated(step.meta) for step in run.steps if step.kind == "action"]
    if each and not any(map(math.isnan, each)):
        return math.fsum(each)
    # SWE-agent writes zeros where it asked no model, as for demonstrations by people.
    totals = [one for name in _TOTALS if isinstance(one := run.facts.get(name), Mapping) and one.get("api_calls") != 0]
    return _first(*map(stated, totals), stated(run.facts))


def _counts(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The objects among the fields that count tokens."""
    found = [fields.get(name) for name in _USAGE]
    # mini-swe-agent keeps the server's whole response.
    for name in ("extra", "response"):
        inner = fields.get(name)
        fields = inner if isinstance(inner, Mapping) else {}
    return [one for one in (*found, fields.get("usage")) if isinstance(one, Mapping)]


def _read(counts: Mapping[str, Any]) -> float:
    found = _number(counts, *_READ)
    cached = _CACHED if "input_tokens" in counts else ()
    return found + sum(float(counts[name]) for name in cached if _is_number(counts.get(name)))


def _number(fields: Mapping[str, Any], *names: str) -> float:
    return next((float(fields[name]) for name in names if _is_number(fields.get(name))), math.nan)


def _first(*found: float) -> float:
    return next((one for one in found if not math.isnan(one)), math.nan)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
