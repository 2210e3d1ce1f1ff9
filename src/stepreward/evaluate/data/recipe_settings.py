"""Settings of a benchmark that the recipe of a checkpoint states."""

from __future__ import annotations

from typing import Any

from stepreward.core.method import Method
from stepreward.core.runtime.flows import Scorer
from stepreward.evaluate.data.scoring import NEXT_STEP
from stepreward.score.capabilities import use_of


def by_recipe(scorer: Scorer, method: Method[..., Any]) -> dict[str, Any]:
    """What a checkpoint's recipe says of its scores, where the protocol only states a default of its own.

    The threshold: scores of some are no probabilities, at 1/2 a difference of two is no even chance; calibrated ones
    are again. The aggregation: how it makes one number of a whole solution's scores. Where candidates share all steps
    but the last, the last score alone tells them apart, and the protocol's stays.
    """
    use = use_of(scorer)
    if use is None:
        return {}
    made: dict[str, Any] = {}
    if use.threshold is not None and method.settings.get("threshold") is not None:
        made["threshold"] = use.threshold
    if "aggregate" in method.settings and method.name not in NEXT_STEP:
        made["aggregate"] = use.aggregate
    return made
