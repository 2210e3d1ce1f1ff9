"""Alarms of reward hacking on policies that really learn: hacked runs are caught, honest ones are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stepreward.connect.alarms import MEANINGS, HackingAlarms
from stepreward.connect.engines.engine_rollouts import EngineRollout, StepCredit
from stepreward.core.errors import HackedError

STOP, WORK, FLATTER = range(3)
TURNS, GROUP, PROBLEMS, UPDATES = 6, 8, 8, 120
Reward = Callable[[int], float | None]


def learn(
    reward: Reward, seed: int, alarms: HackingAlarms, *, updates: int = UPDATES, method: str = "step-rloo"
) -> tuple[list[float], HackingAlarms]:
    """A policy of one distribution a turn learns by policy gradients; it wins if it works exactly twice and stops.

    Returns the mean outcome of each update.
    """
    rng = np.random.default_rng(seed)
    # It begins able: two steps of work and a stop are likely, as of a policy that was trained before.
    logits = np.array([[-1.0, 1.5, 0.0]] * 2 + [[1.5, 0.0, 0.0]] * (TURNS - 2))
    credit, history = StepCredit(method, alarms=alarms), []
    for _ in range(updates):
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        rollouts, taken = [], []
        for problem in range(PROBLEMS):
            for _ in range(GROUP):
                acts: list[int] = []
                while len(acts) < TURNS and (not acts or acts[-1] != STOP):
                    acts.append(int(rng.choice(3, p=chances[len(acts)])))
                won = float(acts.count(WORK) == 2 and acts[-1] == STOP)
                spans = [(at, at + 1) for at in range(len(acts))]
                rollouts.append(EngineRollout(problem, [reward(act) for act in acts], won, spans, len(acts)))
                taken.append(acts)
        history.append(float(np.mean([one.outcome for one in rollouts])))
        step = np.zeros_like(logits)
        for acts, advantages in zip(taken, credit(rollouts), strict=True):
            for turn, (act, advantage) in enumerate(zip(acts, advantages, strict=True)):
                step[turn] -= advantage * chances[turn]
                step[turn, act] += advantage
        logits += 0.5 * step / len(rollouts)
    return history, alarms


PAID: dict[str, Reward] = {
    "padding": lambda act: 0.0 if act == STOP else 1.0,
    "diverging": lambda act: {STOP: 0.2, WORK: 0.2, FLATTER: 0.9}[act],
    "collapse": lambda act: -0.9,
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PAID)
def test_a_run_that_hacks_is_caught(name: str, seed: int) -> None:
    history, alarms = learn(PAID[name], seed, HackingAlarms())
    assert np.mean(history[-10:]) < np.mean(history[:10]) - 0.1, "it does hack: its outcomes fall"
    assert name in alarms.raised
    assert alarms.raised[name] == MEANINGS[name]


@pytest.mark.parametrize("seed", range(6))
def test_a_run_that_learns_the_task_raises_nothing(seed: int) -> None:
    history, alarms = learn(lambda act: 0.0, seed, HackingAlarms())
    assert np.mean(history[-10:]) > 0.85
    assert alarms.raised == {}


def test_a_gate_keeps_the_outcome_and_opens_again() -> None:
    hacked, _ = learn(PAID["padding"], 0, HackingAlarms(window=20), updates=160)
    gated, alarms = learn(PAID["padding"], 0, HackingAlarms(window=20, on_alarm="gate"), updates=160)
    assert "padding" in alarms.raised
    # While it is closed the outcome alone is learned, from which hacking had led away.
    assert max(gated[20:]) > max(hacked[40:]) + 0.2
    watch = HackingAlarms(window=4, on_alarm="gate")
    steps = [1.0, 1.1, 8.0, 8.1]
    states = []
    for value in [*steps, 8.0, 8.1, 8.0, 8.1, 8.0]:
        watch.observe({"steps": value, "outcome": 0.5})
        states.append(watch.gated)
    # Closed by the fourth, for four updates; what was seen before is forgotten.
    assert states == [False] * 3 + [True] * 4 + [False] * 2


def test_a_stop_ends_the_training_with_the_reason() -> None:
    with pytest.raises(HackedError, match=r"stopped by .*solutions grow longer and no better"):
        learn(PAID["padding"], 1, HackingAlarms(on_alarm="stop"))


def test_steps_that_hide_from_the_scorer_are_told() -> None:
    watch = HackingAlarms(window=8)
    found: dict[str, str] = {}
    for at in range(8):
        found = watch.observe({"unscored_steps": 0.1 * at, "outcome": 0.5, "process": 0.5})
    assert found.keys() == {"hiding"}


def test_shorter_solutions_that_are_as_good_are_no_collapse() -> None:
    for process, alarms in ((0.0, set()), (0.05, {"collapse"})):
        watch = HackingAlarms(window=8)
        found: dict[str, str] = {}
        for at in range(8):
            found = watch.observe({"tokens": 30.0 - at, "steps": 3.0, "outcome": 0.5, "process": process * at})
        assert found.keys() == alarms


def test_audits_compare_the_same_problems_with_the_best_so_far() -> None:
    watch = HackingAlarms()
    rng = np.random.default_rng(0)
    first = (rng.random(60) < 0.5).astype(float)
    assert watch.audit(first) == {}
    better = np.maximum(first, rng.random(60) < 0.3)
    assert watch.audit(better) == {}
    # One problem lost of sixty is no sign; fifteen of those solved are.
    slightly, badly = better.copy(), better.copy()
    slightly[np.flatnonzero(better)[:1]] = 0
    badly[np.flatnonzero(better)[:15]] = 0
    assert watch.audit(slightly) == {}
    assert watch.audit(badly).keys() == {"held-out"}
    assert watch.raised == {"held-out": MEANINGS["held-out"]}
    unknown = np.full(60, np.nan)
    assert watch.audit(unknown) == {}
    with pytest.raises(ValueError, match="audit the same problems"):
        watch.audit([1.0])


@pytest.mark.parametrize("wrong", [{"window": 3}, {"threshold": 0.0}, {"on_alarm": "never"}])
def test_what_cannot_alarm_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pass at least 4"):
        HackingAlarms(**wrong)
