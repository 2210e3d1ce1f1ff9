"""Alarms and audits while TRL trains: a hacked run stops, or goes on without step rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")
from tests.connect.test_trl_sources import PROBLEMS as WORLD
from tests.connect.test_trl_sources import episodes, trainer

from stepreward.connect.alarms import HackingAlarms
from stepreward.connect.audits import HeldOutAudit
from stepreward.core.errors import InputError
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func':UserWarning"),
]


class Rising:
    """Episodes whose turns are rewarded more with every batch, and whose outcomes fall."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompts: Any, trainer: Any) -> dict[str, Any]:
        self.calls += 1
        return episodes(prompts, trainer) | {
            "turn_scores": [[0.1 * self.calls + 0.01 * (i % 2), 0.1] for i in range(8)]
        }

    def outcome(self, prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [float(i < 8 - self.calls) for i in range(len(completions))]


@pytest.mark.parametrize("on_alarm", ["stop", "gate"])
def test_trl_s_training_stops_or_goes_on_without_step_rewards(on_alarm: Any, tmp_path: Path) -> None:
    rising = Rising()
    alarms = HackingAlarms(window=4, threshold=2.0, on_alarm=on_alarm)
    made = trainer(
        tmp_path, steps=6, rollouts=rising, credit="step-rloo", step_rewards="turn_scores", step_end="", alarms=alarms
    )
    made.reward_funcs = [rising.outcome]
    made.train()
    assert made.alarmed >= {"diverging"}
    logged = [row for row in made.state.log_history if "process/alarm/diverging" in row]
    assert [row["process/alarm/diverging"] for row in logged][:4] == [0, 0, 0, 1]
    if on_alarm == "stop":
        assert made.state.global_step == 4
        return
    assert made.state.global_step == 6
    assert [row["process/alarm/gated"] for row in logged] == [0, 0, 0, 1, 1, 1]
    paid = [np.abs(data["rewards"]).max() for data in made.history]
    assert min(paid[:4]) > 0
    assert max(paid[4:]) == 0


def test_an_audit_of_held_out_problems_stops_a_training_that_forgets_them(tmp_path: Path) -> None:
    class Forgets(ArithmeticGrader):
        calls = 0

        def grade(self, problem: Any, steps: Any) -> float:
            self.calls += 1
            return float(self.calls <= 4)

    made = trainer(tmp_path, steps=3, credit="rloo", alarms=HackingAlarms(on_alarm="stop"))
    audit = HeldOutAudit(made, WORLD, Forgets(), every=1, max_tokens=64)
    made.add_callback(audit)
    made.train()
    assert audit.found == [1.0, 0.0]
    assert made.alarmed == {"held-out"}
    assert made.state.global_step == 1
    with pytest.raises(InputError, match="0 problems every 1 updates"):
        HeldOutAudit(made, [], ArithmeticGrader(), every=1)
