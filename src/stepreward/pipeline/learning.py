"""Learning curves of reinforcement learning by step credit: settings, curves, their summary and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from stepreward.connect.alarms import OnAlarm
from stepreward.connect.rollout_trees import RECIPES
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import bootstrap, paired_difference
from stepreward.core.vocabulary import Count, Flag
from stepreward.credit.combined import credit_of
from stepreward.pipeline.run_report import INTERVAL, percent, points
from stepreward.report.page import MISSING, Page, Section, Table
from stepreward.report.svg import Series, curves

SCHEMA = "stepreward/reinforce/1"
_WHERE = {"arithmetic": "on arithmetic word problems", "tools": "in the shop, where it calls tools"}
_OWN = {"arithmetic": ("builtin:arithmetic", 96), "tools": ("builtin:shop", 400)}
"""Each world's own policy, and most tokens of a solution."""
_FIGURES = {
    "accuracy": "accuracy",
    "length": "steps of a solution",
    "score": "mean step score",
    "judged": "right verdicts of the reward model",
}
"""Columns of a curve that are drawn, with their names for people."""


@dataclass(frozen=True)
class ReinforceSettings:
    """Settings of the trainings and their evaluation."""

    world: Literal["arithmetic", "tools"] = "arithmetic"
    """Built-in world: word problems, or a shop in which an agent calls tools."""
    credits: Annotated[tuple[str, ...], Flag("--credit")] = (
        "rloo",
        "step-rloo",
        "clip-delta",
        "potential",
        "pure",
        "prime",
    )
    """Method of the family credit, or a sum such as "grpo + 0.5*step-rloo(outcome_weight=0)"; may be repeated. The
    others are compared with the first."""
    model: str = ""
    """Step reward model, such as runs/demo/model, or check:shop for exact truth of the world tools; methods that read
    step rewards need one."""
    rollouts: Annotated[int, Flag(low=0)] = 0
    """Rollouts of the policy by which each prefix is valued, an agent's in forks of its episode: step rewards without a
    model, and the values that some credits read. 0: none."""
    trees: Annotated[str, Flag(choices=RECIPES)] = ""
    """Groups are trees, sampled as for this credit: {choices}. Left out: independent solutions."""
    learn: Literal["nothing", "outcomes", "pairs", "one-pair"] = "nothing"
    """What the reward model learns of the rollouts that it has scored: their outcomes, by cross-entropy of the last
    score (PRIME, for a model of log-ratios); pairs of a right and a wrong one of a problem; or one pair of each problem
    (Cooper). Every training starts from --model."""
    reward_learning_rate: float = 1e-5
    """Of the reward model, constant."""
    policy: str = ""
    """A model folder, a hub name, or a built-in policy; empty: the world's own."""
    seeds: Count = 5
    """Trainings of each credit."""
    steps: Count = 40
    """Updates of the policy."""
    problems: Count = 16
    """Problems of an update."""
    generations: Annotated[int, Flag(low=2)] = 4
    """Solutions of each: a group."""
    learning_rate: float = 3e-4
    """Constant after two updates."""
    max_tokens: Annotated[int, Flag(low=0)] = 0
    """Most tokens of a solution; 0: 96, of an episode with all that is shown 400."""
    evaluate_every: Count = 10
    """Updates between evaluations."""
    on_alarm: OnAlarm = "log"
    """What is done where training looks hacked: log it, gate (step rewards count 0 for a while), or stop."""
    held_out: Annotated[int, Flag(low=2)] = 100
    """Problems to measure on, the same at every evaluation."""
    samples: Count = 4
    """Solutions of each, at temperature 1."""


def in_world(settings: ReinforceSettings) -> ReinforceSettings:
    """The settings with what the world decides where it is left out.

    Raises:
        InputError: a setting is not for this world.
    """
    if settings.world == "tools":
        for flag, given in (("--trees", settings.trees), ("--learn", settings.learn != "nothing")):
            if given:
                raise InputError(f"{flag} is for --world arithmetic", remedy=f"leave {flag} out")
    policy, most = _OWN[settings.world]
    return replace(settings, policy=settings.policy or policy, max_tokens=settings.max_tokens or most)


@dataclass
class Curve:
    """One training."""

    credit: str
    seed: int
    tokens: list[int] = field(default_factory=list)
    """Tokens generated for training before each evaluation, those of rollouts that value prefixes included."""
    accuracy: list[float] = field(default_factory=list)
    """Share of held-out solutions that are right."""
    length: list[float] = field(default_factory=list)
    """Steps of a held-out solution."""
    score: list[float] = field(default_factory=list)
    """Mean step score of held-out solutions; empty without a reward model."""
    alarms: list[str] = field(default_factory=list)
    """Signs of hacking seen in training."""
    judged: list[float] = field(default_factory=list)
    """Share of held-out solutions whose last score is on the side of the model's threshold that their grade says; empty
    where the reward model does not learn."""


def summarise(
    curves: Sequence[Curve], settings: ReinforceSettings, objectives: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Means over seeds with bootstrap intervals; each credit against the first one of the settings, seed by seed.

    Args:
        curves: all trainings.
        settings: what was done; its first credit is the one to compare with.
        objectives: what each credit climbs; the catalog's statements where None.
    """
    stated = objectives or {name: credit_of(name).objective for name in settings.credits}
    key = Key.seed(0).fold("reinforce", "summary")
    by_name = {name: [c for c in curves if c.credit == name] for name in settings.credits}
    base = by_name[settings.credits[0]]
    # What the first credit reaches is the line that the tokens of the others are counted to.
    target = float(np.mean([c.accuracy[-1] for c in base]))
    made = {}
    for name, mine in by_name.items():
        points = {
            what: [bootstrap(column, key.fold(name, what), bounds=bounds).to_json() for column in _columns(mine, what)]
            for what, bounds in (("accuracy", (0.0, 1.0)), ("length", None), ("score", None), ("judged", (0.0, 1.0)))
        }
        final, other = [c.accuracy[-1] for c in mine], [c.accuracy[-1] for c in base]
        made[name] = {
            "objective": stated[name],
            "tokens": [float(np.mean(column)) for column in _columns(mine, "tokens")],
            **points,
            "versus_first": paired_difference(final, other, key.fold(name, "paired")).to_json(),
            "tokens_to_first": [tokens_to(c, target) for c in mine],
            "alarms": sorted({alarm for c in mine for alarm in c.alarms}),
        }
    stated_settings = asdict(settings) | {"credits": list(settings.credits)}
    return {"schema": SCHEMA, "settings": stated_settings, "target": target, "credits": made}


def _columns(curves: Sequence[Curve], what: str) -> list[tuple[float, ...]]:
    return list(zip(*(getattr(c, what) for c in curves), strict=True))


def tokens_to(curve: Curve, accuracy: float) -> float | None:
    """Tokens at which a curve first reaches an accuracy, linear between evaluations; None if it does not."""
    if curve.accuracy[0] >= accuracy:
        return float(curve.tokens[0])
    for i, (low, high) in enumerate(pairwise(curve.accuracy)):
        if high >= accuracy:
            share = (accuracy - low) / (high - low)
            return float(curve.tokens[i] + share * (curve.tokens[i + 1] - curve.tokens[i]))
    return None


def build_page(summary: dict[str, Any]) -> Page:
    """The report: accuracy, length and step scores against generated tokens, each credit compared with the first."""
    found, settings = summary["credits"], summary["settings"]
    first = settings["credits"][0]
    figures = []
    for what, label in _FIGURES.items():
        series = [
            Series(name, made["tokens"], *([e[part] for e in made[what]] for part in INTERVAL))
            for name, made in found.items()
            if made[what]
        ]
        if series:
            percents = what in ("accuracy", "judged")
            figures.append(curves(series, x_label="generated tokens", y_label=label, percent=percents))
    rows = [
        (
            name,
            made["objective"],
            percent(made["accuracy"][-1]),
            MISSING if name == first else points(made["versus_first"]),
            _reached(made["tokens_to_first"]),
            ", ".join(made["alarms"]) or MISSING,
        )
        for name, made in found.items()
    ]
    table = Table(
        ("credit", "climbs", "final accuracy", f"points over {first}", f"tokens to {first}'s end", "alarms"),
        rows,
        f"{settings['seeds']} seeds, {settings['steps']} updates of {settings['problems']} x {settings['generations']} "
        f"solutions; 95 % intervals over seeds. {first} ends at {100 * summary['target']:.1f} %.",
    )
    text = (
        "Every credit starts from the same policy and sees the same problems. What a credit climbs was found by "
        "enumeration. Step scores come from the reward model alone, so a credit that sums scores which are all "
        "positive is paid for every step more."
    )
    best = max(found, key=lambda name: found[name]["accuracy"][-1]["value"])
    end = found[best]["accuracy"][-1]
    return Page(
        "Reinforcement learning by step credit",
        f"{settings['policy']} {_WHERE[settings['world']]}",
        [
            (f"{100 * found[first]['accuracy'][0]['value']:.1f} %", "solved before", "at temperature 1"),
            (f"{100 * summary['target']:.1f} %", f"solved after {first}", f"{settings['seeds']} seeds"),
            (f"{100 * end['value']:.1f} %", f"solved after {best}", points(found[best]["versus_first"])),
        ],
        [Section("Learning curves", text, figures, [table])],
        details={name: str(value) for name, value in settings.items()},
    )


def _reached(tokens: Sequence[float | None]) -> str:
    """Median tokens to the target over the seeds that reached it, and how many did."""
    there = [one for one in tokens if one is not None]
    return f"{np.median(there):,.0f} ({len(there)} of {len(tokens)})" if there else f"none of {len(tokens)}"
