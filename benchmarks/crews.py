"""Blame of four agents by labels from rollouts, held against the exact decisive errors of a small world.

    python -m benchmarks.crews [--write]

`--write` makes the page docs/results/crews.md.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import stepreward
from stepreward.core.types import Trajectory
from stepreward.evaluate.agent_blame import blame_agents
from stepreward.pipeline.run_report import decimal, percent
from stepreward.policies.crew import Crew, Member
from stepreward.policies.tabular import TabularPolicy
from stepreward.policies.turn_order import order_of
from stepreward.tasks.planned_sums import AGENTS, ROUTES, PlannedSums

PAGE = Path(__file__).parents[1] / "docs" / "results" / "crews.md"
PROBLEMS, SAMPLES, ROLLOUTS = 100, 4, (4, 16, 64)
TEXT = """# Several agents: blame

Written by `python -m benchmarks.crews --write`; no number in a table is typed by hand. In the world `planned_sums` a
planner, a multiplier, an adder and a critic work over one trace. The planner is wrong with chance {plan:g}, which
nobody checks; the two that calculate slip with chance {slip:g}; the critic sees a slip with chance {sees:g}, sends
right products back with chance {alarm:g}, and may send back {rounds} times. The exact chance to be right after every
turn is known, and the **decisive error** is the first turn after which it is 0.

{problems} problems are worked on {samples} times each, equal traces once: {failed} of {traces} traces failed. Their
decisive errors are {guilty}; {last} of them are the last turn. Labels are values by rollouts of the crew after each
turn (`math-shepherd`), and the blame is read from them as `stepreward blame` does it.

| rollouts a turn | rule | step blamed rightly | agent blamed rightly |
|---|---|---|---|
{rows}
| | the last turn | {last_step} | {last_agent} |
| | a turn at random | {random_step} | {random_agent} |

Intervals are bootstraps over traces. `lost` blames the first turn from which no rollout succeeds, `drop` the largest
fall of the value.

## What each agent's turns are worth

By {most} rollouts a turn. *Lost* is what an agent's turns took from the value, a mean over problems and their failed
traces; over the agents it adds up to the value before the first turn. Intervals are over problems. Advantages are near
0 because the agents' own traces are labelled: what follows a turn is on average what its value says. The value before
the first turn is estimated by the mean after the first turns of a problem's traces; these are few here, the failed one
among them, so that the first agent seems to lose less than it does.

| agent | value after its turns | exact | advantage | lost in failed traces | exact |
|---|---|---|---|---|---|
{agents}
"""


def crew(world: PlannedSums) -> Crew:
    """The agents of the world."""
    members = {name: Member(TabularPolicy(world.table(name), name)) for name in AGENTS}
    return Crew(members, order_of(AGENTS, "round-robin", ROUTES))


def measured() -> dict[str, Any]:
    """Everything that the page says."""
    world = PlannedSums()
    problems = [world.problem(number) for number in range(PROBLEMS)]
    made: dict[str, Any] = {"blame": {}, "settings": {**vars(world), "problems": PROBLEMS, "samples": SAMPLES}}
    rows: list[Trajectory] = []
    for n in ROLLOUTS:
        rows = [*stepreward.label(
            problems, policy=crew(world), grader=world, method="math-shepherd", transform="soft", n=n, samples=SAMPLES
        )]  # fmt: skip
        gold = [replace(one, first_error=world.decisive(one.problem, one.steps)) for one in rows]
        for rule in ("lost", "drop"):
            report = blame_agents(rows, gold, rule=rule)
            made["blame"][f"{n} {rule}"] = report.to_json()["accuracy"]
    failed = [one for one in gold if one.outcome < 0.5]
    guilty = Counter(one.steps[one.first_error].agent for one in failed if one.first_error is not None)
    exact = [one.with_columns({"exact": world.values(one.problem, one.steps)}, one.provenance[0]) for one in rows]
    exact = [replace(one, facts={**one.facts, "root_value": world.value(one.problem, ())}) for one in exact]
    made |= {
        "traces": len(rows), "failed": len(failed), "guilty": dict(guilty.most_common()),
        "last": sum(one.first_error == len(one.steps) - 1 for one in failed),
        "agents": blame_agents(rows).to_json()["agents"],
        "exact": blame_agents(exact, column="exact").to_json()["agents"],
    }  # fmt: skip
    return made


def page(made: dict[str, Any]) -> str:
    """The page, Markdown."""
    shares = made["blame"]
    first = next(iter(shares.values()))
    rows = [
        f"| {name.split()[0]} | `{name.split()[1]}` | {percent(one['step'])} | {percent(one['agent'])} |"
        for name, one in shares.items()
    ]
    agents = [
        f"| {name} | {decimal(one['value'])} | {made['exact'][name]['value']['value']:.3f} "
        f"| {decimal(one['advantage'])} | {decimal(one['lost'])} | {made['exact'][name]['lost']['value']:.3f} |"
        for name, one in made["agents"].items()
    ]
    return TEXT.format(
        **made["settings"], failed=made["failed"], traces=made["traces"], last=made["last"], most=ROLLOUTS[-1],
        guilty=", ".join(f"{n} the {name}'s" for name, n in made["guilty"].items()), rows="\n".join(rows),
        last_step=percent(first["step_of_last_turn"]), last_agent=percent(first["agent_of_last_turn"]),
        random_step=percent(first["step_at_random"]), random_agent=percent(first["agent_at_random"]),
        agents="\n".join(agents),
    )  # fmt: skip


def main() -> None:
    """Measures, prints and writes."""
    made = measured()
    print(json.dumps(made))
    if "--write" in sys.argv:
        PAGE.write_text(page(made), encoding="utf-8")


if __name__ == "__main__":
    main()
