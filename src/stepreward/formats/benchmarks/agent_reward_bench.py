"""AgentRewardBench (arXiv:2504.08942): runs of web agents that experts judged, and what judges said of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, annotated, check_choice, need, shown

Unread = Literal["failure", "nan"]
_PLACES = ("annotations.csv", "data/annotations.csv", "agent_reward_bench/data/annotations.csv")
"""Where the experts' file is, below a folder that holds the judgments or runs; splits.csv is beside it."""
_WORTH = {
    "successful": 1.0,
    "success": 1.0,
    "yes": 1.0,
    "unsuccessful": 0.0,
    "unsuccesful": 0.0,
    "failure": 0.0,
    "no": 0.0,
}
_SUCCESS, _STATUS, _REWARD = (
    re.compile(r"<success>(.*?)</success>", re.DOTALL),
    re.compile(r"^Status:(.*)$", re.MULTILINE),
    re.compile(r"Reward:\s*(\d+)\s*$"),
)
_FOUR_OF_FIVE = 4
"""The least of NNetNav's five points that its judge calls a success by."""
Run = tuple[str, str, str]
"""Benchmark, agent and task."""


@lru_cache(maxsize=4)
def _experts(path: Path, written: int) -> tuple[Mapping[Run, Row], Mapping[str, str]]:
    """The first expert's row of each run, and the split of each task; `written` is when the file was."""
    runs: dict[Run, Row] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            runs.setdefault((row["benchmark"], row["model_name"], row["task_id"]), row)
    splits = path.with_name("splits.csv")
    if not splits.is_file():
        return runs, {}
    with splits.open(encoding="utf-8", newline="") as file:
        return runs, {row["task_id"]: row["split"] for row in csv.DictReader(file)}


def _joined(path: Path, run: Run) -> dict[str, Any]:
    """What experts say of a run, as far as their file is in a folder above."""
    found = (folder / place for folder in path.resolve().parents[:7] for place in _PLACES)
    experts = next((one for one in found if one.is_file()), None)
    made: dict[str, Any] = {"benchmark": run[0], "agent": run[1], "task_id": run[2]}
    if experts is None:
        return made
    runs, splits = _experts(experts, experts.stat().st_mtime_ns)
    plain = run[2].replace(".resized", "").replace(".improved", "")
    return {**made, "expert": dict(runs.get(run, {})), "split": splits.get(plain)}


def open_judgment(path: Path) -> Iterator[Numbered]:
    """The judgment in `BENCHMARK/AGENT/JUDGE/TASK.json` with its task and what experts say of the run.

    Raises:
        InputError: the experts' file is in no folder above.
    """
    judge, agent, benchmark = (folder.name for folder in path.resolve().parents[:3])
    run = benchmark, agent, path.name.removesuffix(".gz").removesuffix(".json").removesuffix("_error")
    for number, row in read_rows(path):
        if isinstance(row, InputError):
            yield number, row
            continue
        joined = _joined(path, run)
        if "expert" not in joined:
            raise InputError(
                "needs the experts' judgments", source=path, remedy="put annotations.csv into a folder above"
            )
        yield number, {**row, **joined, "judge": judge}


def open_run(path: Path) -> Iterator[Numbered]:
    """The run in `BENCHMARK/AGENT/EXPERIMENT/TASK.json` with its task, and what experts say of it if that is known."""
    _, agent, benchmark = (folder.name for folder in path.resolve().parents[:3])
    run = benchmark, agent, path.name.removesuffix(".gz").removesuffix(".json")
    for number, row in read_rows(path):
        yield number, row if isinstance(row, InputError) else {**row, **_joined(path, run)}


def _judged(row: Row, steps: tuple[Step, ...], **rest: Any) -> Trajectory:
    """A run with the expert's verdict as its outcome; NaN where no expert was sure."""
    benchmark, task = need(row, "benchmark"), need(row, "task_id")
    expert = row.get("expert") or {}
    said = expert.get("trajectory_success")
    if said is not None and str(said).strip().lower() not in {*_WORTH, "unsure", ""}:
        raise InputError(f"the expert's verdict must be Successful, Unsuccessful or Unsure, got {shown(said)}")
    # The authors report the longer tasks of WorkArena, of level 2, apart.
    subset = "workarena++" if benchmark == "workarena" and "l2" in task.lower() else benchmark
    facts = {"subset": subset, "agent": need(row, "agent"), **({"split": row["split"]} if row.get("split") else {})}
    facts |= {name: value for name, value in expert.items() if name.startswith("trajectory_")}
    return annotated(
        Problem(task, str(row.get("goal") or "")), steps, None, "agent-reward-bench experts", policy=need(row, "agent"),
        outcome=_WORTH.get(str(said).strip().lower(), float("nan")), facts=facts, **rest,
    )  # fmt: skip


def _verdict(row: Row, unread: Unread) -> float:
    """1 or 0 for what the judge says of success, NaN where it gave no answer at all."""
    judge = need(row, "judge")
    if judge == "functional":
        return float(need(row["trajectory_info"]["summary_info"], "cum_reward", (int, float)) > 0.5)
    choices = (row.get("response") or {}).get("choices")
    if not choices:
        return float("nan")
    text = str(choices[0]["message"]["content"] or "")
    if judge == "nnetnav":
        found = _REWARD.search(text)
        if found:
            return float(int(found[1]) >= _FOUR_OF_FIVE)
    else:
        found = (_STATUS if judge in ("aer", "aerv") else _SUCCESS).search(text)
        word = found[1].strip().strip("'\"").lower() if found else ""
        if word and word not in _WORTH:
            raise InputError(
                f"{judge} says {shown(word)} of success, which is neither yes nor no", remedy="drop the file"
            )
        if word:
            return _WORTH[word]
    return 0.0 if unread == "failure" else float("nan")


def read_judgment(row: Row, number: int, *, unread: Unread = "failure") -> Iterator[Trajectory]:
    """Reads a judge's verdict on a run, joined with the experts': the score 1 or 0 of the judge at one step.

    The step stands for the whole run, which judgments do not hold. The verdict is read as the authors do, by the
    judge's folder: `functional` is the environment's reward above 1/2, `aer` and `aerv` a line `Status:`, `nnetnav` at
    least 4 points after `Reward:`, and all others the tag `success`. An answer that was never given is NaN.

    Args:
        row: a judgment with `task_id`, `expert` and `split`.
        number: its 1-based number, of which nothing is made.
        unread: what an answer without a verdict counts as; the authors count "failure".

    Raises:
        InputError: a field is missing, or a verdict is neither yes nor no.
    """
    check_choice("unread", unread, Unread)
    run = (Step(f"{need(row, 'agent')} on {need(row, 'task_id')}\n"),)
    yield _judged(row, run, scores={need(row, "judge"): np.array([_verdict(row, unread)])})


def read_run(row: Row, number: int, *, page: bool = False) -> Iterator[Trajectory]:
    """Reads a run: at each step where the agent is, an observation, and what it thinks and does.

    The outcome is what the first expert says of success, where annotations.csv is in a folder above.

    Args:
        row: the run with `task_id`, and `expert` and `split` where they are known.
        number: its 1-based number, of which nothing is made.
        page: whether the page's accessibility tree comes with its address.

    Raises:
        InputError: a field is missing, or there is no step.
    """
    steps: list[Step] = []
    for one in need(row, "steps", list):
        seen = f"URL: {one.get('url') or ''}\n" + (f"{one.get('axtree') or ''}\n" if page else "")
        steps.append(Step(seen, kind="observation", role="user"))
        images = (one["screenshot_path"],) if isinstance(one.get("screenshot_path"), str) else ()
        did = f"Reasoning: {one.get('reasoning') or ''}\nAction: {one.get('action') or ''}\n"
        steps.append(Step(did, images=images, meta={"num": one.get("num")}))
    if not steps:
        raise InputError("'steps' must hold at least one step", remedy="drop the run")
    yield _judged(row, tuple(steps))


FORMATS: tuple[Format, ...] = (
    Format("agent-reward-bench", "AgentRewardBench: runs of web agents with experts' verdicts",
           has("benchmark", "goal", "agent", "summary_info", steps=list), read_run, rows=open_run),
    Format("agent-reward-bench-judgment", "AgentRewardBench: a judge's verdict on a run",
           lambda row: isinstance(row.get("trajectory_info"), Mapping) and ("judge" in row or "error" in row),
           read_judgment, rows=open_judgment),
)  # fmt: skip
