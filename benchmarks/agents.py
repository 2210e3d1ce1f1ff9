"""A guided agent against the plain one in every world, over training seeds: what step scores add at equal actions.

    python -m benchmarks.agents [WORLD ...] [--runs FOLDER] [--write]

Runs `stepreward run --world WORLD` with 200 held-out problems and three training seeds for each world that is named, or
all. Runs stay in `--runs`, if it is given, and one that is finished there is not run again. `--write` keeps the numbers
of these worlds in docs/results/agents.json, beside those of the others, and makes the page docs/results/agents.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.demo import run
from stepreward.pipeline.agent_worlds import AGENT_WORLDS
from stepreward.pipeline.run_report import decimal, number, percent, points

PAGE = Path(__file__).parents[1] / "docs" / "results" / "agents.md"
NUMBERS = PAGE.with_suffix(".json")
WIDTH = 120
FLAGS = ("--seeds", "3", "--held-out-problems", "200")
HEAD = """# Agents

Written by `python -m benchmarks.agents --write` from the numbers in [agents.json](agents.json); no number in a table is
typed by hand. Each world is one command, `stepreward run --world WORLD`: an agent acts, rollouts from forks label its
actions, reward models are trained on the labels, and held-out problems are solved. No truth takes part.

*Plain*: one action is proposed and executed, turn by turn. *Guided*: four actions are proposed by the same agent, the
best-scored is executed, in one episode a problem and training seed. So both execute one action a turn, within the same
limit of turns; the guided agent proposes four times as many. Gains are paired by problem, intervals are over training
seeds and problems.

| world | tasks | seeds | plain, won | guided, won | gain, points | actions an episode, plain and guided |
|---|---|---|---|---|---|---|
{rows}
"""
WORLD = (
    "{train} problems with {samples} episodes each, labelled by {estimator} with {rollouts} rollouts of a fork; "
    "{seeds} training seeds; {held_out} held-out problems, {each} plain episodes of each. The reward model starts from "
    "{start}. Its AUROC against the labels of {validation} validation problems, by training seed: {auroc}."
)
TRUTH = """The truth counts an action that only costs a turn as wrong too; rollouts call wrong what loses the episode.

| against the exact truth of actions | |
|---|---|
| labels by rollouts: first wrong action named | {label} |
| reward model: first-error F1 | {f1} |
| reward model: AUROC of actions | {auroc} |
"""
VOTES = (
    "Majority of {each} episodes: {majority}; weighted by the worst action score: {weighted} ({versus} points over the "
    "majority)."
)
FEW = "Fewer training seeds than three were run here, so that the interval says less of another training."
HARM = "The interval lies below 0: here guidance harms.{guess}"
NOTHING = "The interval holds 0: here guidance is not shown to help.{guess}"
WHY = {
    "repository": "whether an edit mends a function follows from what code means, which a fresh model of this size and "
    "this many labels does not read; and an agent that finds no proposal good goes on until its turns are over.",
    "textworld": "a fresh model learns from few games, and has to tell a direction in the request from one in a list.",
    "web": "a fresh model of this size and this many labels has to learn that two texts on a page are equal.",
}
"""A guess at the reason, where guidance is not shown to help."""


def numbers_of(summary: dict[str, Any]) -> dict[str, Any]:
    """What the page says of a run."""
    label, evaluation = summary["label"], summary.get("evaluate")
    made = {name: summary[name] for name in ("settings", "acting")}
    made["label"] = {name: label[name] for name in ("trajectories", "wrong", "against_truth")}
    made["auroc"] = [one["metrics"]["auroc"] for one in (summary["train"], *summary["retrained"])]
    if evaluation is not None:
        made["evaluate"] = {
            "f1": evaluation["first_error"]["f1"], "auroc": evaluation["steps"]["auroc"],
            "majority": evaluation["curves"]["majority"][-1], "weighted": evaluation["headline"]["accuracy"],
            "versus_majority": evaluation["headline"]["versus_majority"],
        }  # fmt: skip
    return made


def row(name: str, made: dict[str, Any]) -> str:
    """A world's row of the table."""
    acting = made["acting"]
    plain, guided = acting["plain"], acting["guided"]
    cells = (
        f"[{name}](#{name})", made["settings"]["held_out_problems"], made["settings"]["seeds"],
        percent(plain["accuracy"]), percent(guided["accuracy"]), f"**{points(acting['gain'])}**",
        f"{plain['actions']:.1f}, {guided['actions']:.1f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def section(name: str, made: dict[str, Any]) -> str:
    """A world's own part of the page."""
    s, world, gain = made["settings"], AGENT_WORLDS[name], made["acting"]["gain"]  # type: ignore[index]
    run = WORLD.format(
        train=s["train_problems"], samples=s["train_samples"], estimator=s["estimator"], rollouts=s["rollouts"],
        seeds=s["seeds"], held_out=s["held_out_problems"], each=s["held_out_samples"],
        start="random weights" if world.table is not None else "the agent's own model",
        validation=s["validation_problems"], auroc=", ".join(map(number, made["auroc"])),
    )  # fmt: skip
    parts = [f"## {name}", fill(world.about, WIDTH), fill(run, WIDTH)]
    if (found := made.get("evaluate")) is not None:
        truth = made["label"]["against_truth"]["first_error_accuracy"]
        parts.append(TRUTH.format(label=number(truth), f1=decimal(found["f1"]), auroc=number(found["auroc"])))
        votes = VOTES.format(
            each=s["held_out_samples"], majority=percent(found["majority"]), weighted=percent(found["weighted"]),
            versus=points(found["versus_majority"]),
        )  # fmt: skip
        parts.append(fill(votes, WIDTH))
    if s["seeds"] < 3:
        parts.append(FEW)
    if gain["low"] <= 0:
        guess = f" A guess, not tested: {WHY[name]}" if name in WHY else ""
        parts.append(fill((HARM if gain["high"] < 0 else NOTHING).format(guess=guess), WIDTH))
    return "\n" + "\n\n".join(part.strip() for part in parts) + "\n"


def page(worlds: dict[str, dict[str, Any]]) -> str:
    """The page, Markdown, of all worlds that were measured."""
    there = {name: worlds[name] for name in AGENT_WORLDS if name in worlds}
    rows = "\n".join(row(name, made) for name, made in there.items())
    missing = [name for name in AGENT_WORLDS if name not in worlds]
    said = f"\nNot measured yet: {', '.join(missing)}.\n" if missing else ""
    return HEAD.format(rows=rows) + said + "".join(section(name, made) for name, made in there.items())


def measured(name: str, folder: Path) -> dict[str, Any]:
    """The summary of a world's run, which is run if it is not there."""
    done = folder / name / "summary.json"
    if not done.exists():
        run(folder / name, threads=1, seed=0, flags=("--world", name, *FLAGS))
    made: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
    return made


def main() -> None:
    """Runs, prints and writes."""
    parser = argparse.ArgumentParser(description="Guided agents against plain ones.")
    parser.add_argument("worlds", nargs="*", choices=[*AGENT_WORLDS, []], metavar="WORLD")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--write", action="store_true")
    asked, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: numbers_of(measured(name, asked.runs or Path(folder))) for name in asked.worlds or [*AGENT_WORLDS]
        }
    print(json.dumps({name: made["acting"] for name, made in found.items()}, indent=1))
    if asked.write:
        before = json.loads(NUMBERS.read_text(encoding="utf-8")) if NUMBERS.exists() else {}
        worlds = {**before, **found}
        NUMBERS.write_text(json.dumps(worlds, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(worlds), encoding="utf-8")


if __name__ == "__main__":
    main()
