"""Episodes of agents in files of their own kind: tau-bench, ReAct on FEVER and WebShop, FireAct, SWE-agent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.agents.messages import Reasoning, as_messages, message_list, problem_and_steps, turns_of
from stepreward.formats.agents.runs import trajectory_of
from stepreward.formats.fields import object_at, outcome_of
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, annotated, need, other_fields, shown, text_or_none


def read_tau_bench(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads an episode: the agent's messages and tool calls are actions, those of the user and the tools observations.

    Trials of a task are trajectories of one problem. Gold actions are the reference.

    Args:
        number: its 1-based number, used where the row has no `trial`.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: a field is missing or of another shape, or the reward is not in [0, 1].
    """
    info = need(row, "info", Mapping)
    task = object_at(info, "task")
    gold = task.get("actions")
    yield trajectory_of(
        turns_of(message_list(row.get("traj"), "traj")), f"tau-bench-{row['task_id']}", "tau-bench",
        reference=None if gold is None else json.dumps(gold, ensure_ascii=False), reasoning=reasoning,
        problem_meta=other_fields(task, "actions"), won=outcome_of(row.get("reward"), "reward"),
        meta={"trial": row.get("trial", number), **other_fields(info, "task")},
    )  # fmt: skip


def read_fire_act(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads an episode of thoughts and actions on HotpotQA; exact match is the outcome.

    It is a list of chat messages, or one text under `### Instruction:` and `### Response:` whose lines that begin with
    "Observation" are the environment's.

    Args:
        number: its 1-based number, used where the row has no `id`.

    Raises:
        InputError: a field is missing or of another shape.
    """
    name, gold = f"fire-act-{row.get('id', number)}", text_or_none(row.get("gt"))
    if isinstance(row.get("traj"), str):
        prompt, steps = _transcript(row["traj"])
        problem = Problem(name, prompt, gold)
    else:
        talk = turns_of(message_list(row.get("traj"), "traj"))
        problem, steps = problem_and_steps(talk, name, reference=gold)
    won = outcome_of(row.get("reward"), "reward")
    own = ("traj", "traj_by_line", "prompt", "gt", "pred", "reward", "id")
    yield annotated(problem, steps, None, "fire-act", outcome=won, answer=text_or_none(row.get("pred")),
                    facts=other_fields(row, *own))  # fmt: skip


def _transcript(text: str) -> tuple[str, tuple[Step, ...]]:
    """The question and the steps of an instruction and its response."""
    _, marked, rest = text.partition("### Instruction:\n")
    prompt, answered, said = rest.partition("\n\n### Response:\n")
    if not marked or not answered or not prompt.strip():
        raise InputError("'traj' has no instruction and response")
    steps: list[Step] = []
    for line in said.rstrip("\n").splitlines(keepends=True):
        seen = line.startswith("Observation")
        # A line without a mark continues the last marked one, and an action follows its thought.
        thought = bool(steps) and steps[-1].kind == "action" and line.startswith("Action")
        if not steps or (line.startswith(("Observation", "Thought", "Action")) and not thought):
            steps.append(Step(line, "observation", "tool") if seen else Step(line))
        else:
            steps[-1] = replace(steps[-1], text=steps[-1].text + line)
    if not steps:
        raise InputError("'traj' has an empty response")
    return prompt, tuple(steps)


def is_react(row: Row) -> bool:
    """Whether a row looks like an episode of ReAct: steps of an action and an observation."""
    steps = row.get("steps")
    first = steps[0] if isinstance(steps, list) and steps else None
    return isinstance(first, Mapping) and {"action", "observation"} <= first.keys() and "reward" in row


def read_react(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads an episode of ReAct: thought and action are one action, what follows is an observation.

    On WebShop the action `reset` asks for the instruction, which is the problem; on FEVER the claim is.

    Args:
        number: its 1-based number, used where the row has no `idx`.

    Raises:
        InputError: a field is missing or of another shape, or the reward is not in [0, 1].
    """
    turns = need(row, "steps", list)
    prompt = row.get("claim", row.get("question"))
    for i, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("action"), str):
            raise InputError(f"step {i} must have an 'action', got {shown(turn)}")
    if not isinstance(prompt, str) and turns and turns[0]["action"] == "reset":
        prompt, turns = str(turns[0].get("observation", "")), turns[1:]
    if not isinstance(prompt, str) or not prompt or not turns:
        raise InputError("there is no claim, question or first observation to act on")
    steps: list[Step] = []
    for turn in turns:
        said = [part for part in (turn.get("thought"), turn["action"]) if isinstance(part, str) and part]
        steps.append(Step("\n".join(said) + "\n"))
        if isinstance(turn.get("observation"), str) and turn["observation"]:
            steps.append(Step(turn["observation"] + "\n", "observation", "tool"))
    problem = Problem(f"react-{row.get('idx', number)}", prompt, text_or_none(row.get("gt_answer")))
    yield annotated(
        problem, tuple(steps), None, "react", outcome=outcome_of(row.get("reward"), "reward"),
        answer=text_or_none(row.get("answer")),
        facts=other_fields(row, "steps", "claim", "question", "reward", "gt_answer", "answer", "idx"),
    )  # fmt: skip


def read_swe_agent(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads a `.traj` file: what the model wrote is an action, the answer of the environment is an observation.

    The problem is the history before the model first speaks, without demonstrations. A trajectory has
    no outcome: whether its patch resolves the issue is measured elsewhere.

    Args:
        row: the file's object.
        number: 1, as a file holds one.

    Raises:
        InputError: a field is missing or of another shape, or the model does nothing.
    """
    steps: list[Step] = []
    turns: list[Any] = need(row, "trajectory", list)
    for i, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            raise InputError(f"step {i} of the trajectory must be an object, got {shown(turn)}")
        # `response` is what the model wrote; `thought` and `action` are cut out of it.
        texts = [turn.get(name) for name in ("response", "thought", "action")]
        said = next((text for text in texts if isinstance(text, str) and text), None)
        if said is None:
            continue
        meta = {name: turn[name] for name in ("action", "thought", "state") if isinstance(turn.get(name), str | dict)}
        steps.append(Step(said + "\n", meta={**meta, "turn": i}))
        if isinstance(turn.get("observation"), str) and turn["observation"]:
            steps.append(Step(turn["observation"] + "\n", "observation", "tool", meta={"turn": i}))
    if not steps:
        raise InputError("the model says nothing")
    info = need(row, "info", Mapping)
    more = other_fields(row, "trajectory", "history", "info", "instance_id", "replay_config")
    # Demonstrations come before the task, and the model speaks in them too.
    own = [one for one in message_list(row.get("history"), "history") if not one.get("is_demo")]
    prompt = as_messages(turns_of(list(takewhile(lambda message: message.get("role") != "assistant", own))))
    problem = Problem(f"swe-agent-{row.get('instance_id', number)}", prompt, meta=more)
    yield annotated(problem, tuple(steps), None, "swe-agent", answer=text_or_none(info.get("submission")),
                    facts=other_fields(info, "submission"))  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("tau-bench", "tau-bench episodes with rewards and gold actions",
           has("task_id", "traj", "reward", info=Mapping), read_tau_bench),
    Format("fire-act", "FireAct episodes on HotpotQA", has("traj", "reward", "gt", "pred"), read_fire_act),
    Format("react", "ReAct episodes of actions and observations", is_react, read_react),
    Format("swe-agent", "SWE-agent trajectories", has("history", "info", trajectory=list), read_swe_agent),
)  # fmt: skip
