"""The page of trained agents: its numbers and sentences follow from the runs, whatever these found."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from benchmarks.agent_training_page import Run, listed, page, summary, windows

from tests.pages import assert_page

SIZES = {
    "seeds": 2, "updates": 4, "faulty_updates": 4, "problems": 8, "generations": 4, "learning_rate": 5e-4, "items": 2,
    "every": 2, "held_out": 10, "samples": 2, "window": 4,
}  # fmt: skip


def run(arm: str, seed: int, held_out: list[float], **known: Any) -> Run:
    """A training of four updates."""
    numbers = {"outcome": [0.5] * 4, "process": [0.25] * 4, "steps": [4.0, 5.0, 6.0, 7.0]}
    return Run(arm, seed, held_out, **{**numbers, "tokens": 100.0, "alarms": {}, "seconds": 1.0, **known})


RUNS = [
    run("outcome", 1, [0.5, 0.6, 0.6]), run("outcome", 0, [0.5, 0.6, 0.8]),
    run("good", 0, [0.5, 0.7, 0.9]), run("good", 1, [0.5, 0.9, 0.9], alarms={"padding": 3}),
    run("same", 0, [0.5, 0.6, 0.7]), run("same", 1, [0.5, 0.7, 0.7]),
    run("sure", 0, [0.5, 0.7, 0.9]), run("sure", 1, [0.5, 0.7, 0.7]),
    run("lost", 0, [0.5, 0.4, 0.6]), run("lost", 1, [0.5, 0.4, 0.4]),
    run("bad", 0, [0.5, 0.3, 0.1]), run("bad", 1, [0.5, 0.4, 0.2]),
]  # fmt: skip


def test_arms_are_compared_seed_by_seed() -> None:
    made = summary(RUNS)
    assert [point["value"] for point in made["outcome"]["curve"]] == [0.5, 0.6, 0.7]
    # Seed 0: 0.9 - 0.8 at the end and 0.8 - 0.7 over the curve; seed 1: 0.9 - 0.6 and 0.9 - 0.6.
    np.testing.assert_allclose([made["good"]["gains"][what]["value"] for what in ("end", "curve")], [0.2, 0.2])
    np.testing.assert_allclose(made["same"]["gains"]["end"]["value"], 0.0, atol=1e-12)
    np.testing.assert_allclose(made["bad"]["gains"]["curve"]["value"], -0.4)
    assert made["good"]["alarms"] == {"1": {"padding": 3}}
    assert made["bad"]["steps"] == [4.0, 7.0]
    # Student's t of one degree of freedom is 12.706; the mean of two has a standard error of half their difference.
    gain = made["good"]["gains"]["end"]
    np.testing.assert_allclose(gain["high"] - gain["low"], 2 * 12.706 * 0.1, rtol=1e-4)


def test_the_page_says_what_was_found() -> None:
    arms = summary(RUNS)
    told = {name: {"credit": f"c-{name}", "about": f"about {name}"} for name in [*arms, "hacked", "quiet"]}
    hacked = run(
        "hacked", 0, [0.5, 0.3, 0.1], outcome=[0.5, 0.3, 0.2, 0.0], process=[0.5, 0.5, 1.0, 1.0],
        alarms={"held-out": 4, "diverging": 3},
    )  # fmt: skip
    faulty = {"hacked": asdict(hacked), "quiet": asdict(run("quiet", 0, [0.5]))}
    said = page({"settings": SIZES, "told": told, "arms": arms, "faulty": faulty})
    assert_page(
        said,
        "- `sure` is better than `outcome` at the end and better than `outcome` over the whole curve.",
        "- `same` is not told apart from `outcome` at the end",
        "- `lost` is worse than `outcome` at the end and worse than `outcome` over the whole curve.",
        "| `good` | 2 | 1 | seed 1: `padding` at update 3 |",
        "| `bad` | 2 | 0 | none |",
        "50.0, 30.0, 10.0. Alarms: `diverging` at update 3, `held-out` at update 4.",
        "**No alarm rang.**",
        "**They about quiet** (`c-quiet`).",
    )
    assert "| `good` is" not in said
    assert "Turns without" not in said
    assert "`learned`" not in said


def test_the_page_says_what_measured_rewards_are_and_how_many_are_missing() -> None:
    runs = [*RUNS[:2], *(run("learned", seed, [0.5, 0.6, 0.7], unscored=[0.0, 0.01 * seed]) for seed in (0, 1))]
    told = {name: {"credit": "c", "about": "a"} for name in ("outcome", "learned")}
    said = page({"settings": SIZES, "told": told, "arms": summary(runs), "faulty": {}})
    lines = "The reward model of `learned` is the one that", "Turns without a step reward: `learned` 0.25%."
    assert_page(said, *lines)
    assert "Rollouts of `forks`" not in said


def test_a_faulty_run_is_told_in_windows() -> None:
    ran = asdict(run("hacked", 0, [], outcome=[0.5, 0.3, 0.0, 0.1], process=[0.5, 0.5, -1.0, -1.0]))
    # Turns 4 and 5 at half a reward each: 2 and 2.5; then 6 and 7 at a whole one.
    assert windows(ran, 2) == ["| 1 to 2 | 4.5 | +2.2 | +0.50 | 40.0 |", "| 3 to 4 | 6.5 | -6.5 | -1.00 | 5.0 |"]
    assert windows(ran, 3)[-1] == "| 4 to 4 | 7.0 | -7.0 | -1.00 | 10.0 |"
    assert listed({"b": 5, "a": 2}) == "`a` at update 2, `b` at update 5"
