"""The step-reward contract: one rollout with a reward a step or turn, as RL engines and reward models exchange it.

`step_rewards.json` beside this file is its JSON Schema.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import resources
from typing import Any, Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.table import VERSION as TABLE
from stepreward.core.table import item_of, row_of
from stepreward.core.types import SCORE, Floats, Step, Trajectory
from stepreward.formats.fields import outcome_or_nan
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, check_choice, need, shown

NAME = "step-rewards"
CONTRACT = "stepreward/step-rewards/"
"""How the field `schema` of each record begins, whatever its version."""
VERSION = f"{CONTRACT}1"
REWARD = "reward"
"""Step column of rewards whose record gives no other name."""
_AS_THEY_ARE = ("problem", "prompt", "messages", "reference", "terminal", "answer", "first_error", "provenance")
_OF_STEPS = ("text", "kind", "role", "agent", "images", "logprobs")
Turned = Literal["sum", "mean", "min", "last"]
_TURNED: Mapping[str, Callable[[Floats], Any]] = {"sum": np.sum, "mean": np.mean, "min": np.min}


def schema() -> dict[str, Any]:
    """The JSON Schema of a record, draft 2020-12."""
    made: dict[str, Any] = json.loads((resources.files(__package__) / "step_rewards.json").read_text(encoding="utf-8"))
    return made


def matches(row: Row) -> bool:
    """Whether a row says that it is a record of the contract."""
    return str(row.get("schema", "")).startswith(CONTRACT)


def read(row: Row, number: int, *, scale: float = 1.0) -> Iterator[Trajectory]:
    """Reads `steps` with a `reward` each, `aligned` by step or turn, `problem`, `prompt` or `messages`, and `outcome`.

    Rewards become the step column that `rewards` names, `reward` if none; null is NaN. Other numbers of a step are
    columns by their names. A step gets the tokens of its `span`; an action that is not `trainable` says so in its meta.
    An outcome that is not in [0, 1] after scaling is NaN and stays as the fact `raw_outcome`.

    Args:
        number: its 1-based number.
        scale: the largest outcome; outcomes are divided by it.

    Raises:
        InputError: a field is missing or of another shape, a step has no text, or spans overlap or leave the tokens.
    """
    steps = need(row, "steps", list)
    if row.get("schema") != VERSION:
        raise InputError(f"{shown(row.get('schema'))} is not {VERSION}", remedy="use the release that wrote it")
    aligned, tokens = row.get("aligned"), row.get("tokens")
    if aligned not in ("step", "turn") or not isinstance(row.get("problem"), str):
        raise InputError("'aligned' must be step or turn, and 'problem' the problem's identity")
    spans = _spans(steps, tokens)
    # Where every token is of a step, the steps' own tokens say all.
    tiled = tokens is not None and spans == tiles([end - start for start, end in spans if start >= 0])
    tiled = tiled and len(spans) > 0 and spans[-1][1] == len(tokens or ())
    made = [
        _step(step, place, span, tokens, tiled) for place, (step, span) in enumerate(zip(steps, spans, strict=True))
    ]
    known = {name: row[name] for name in _AS_THEY_ARE if row.get(name) is not None}
    raw = row.get("outcome")
    outcome = outcome_or_nan(raw, scale)
    facts = dict(row.get("meta") or {}) | {name: row[name] for name in ("rollout", "tokenizer") if row.get(name)}
    facts |= {"aligned": "turn"} if aligned == "turn" else {}
    facts |= {"raw_outcome": raw} if raw is not None and outcome != raw else {}
    facts |= {"tokens": tokens} if tokens is not None and not tiled else {}
    rewards = row.get("rewards") or REWARD
    measured = [{**(step.get("data") or {}), rewards: step.get("reward")} for step in steps]
    columns = {name: [one.get(name) for one in measured] for name in dict.fromkeys(n for one in measured for n in one)}
    for name, values in columns.items():
        if bad := [one for one in values if isinstance(one, bool) or not isinstance(one, int | float | None)]:
            raise InputError(f"'{name}' of a step must be a number, or null where unscored, got {shown(bad[0])}")
    if taken := sorted({"schema", "steps", "outcome", "meta", "facts", *_AS_THEY_ARE} & columns.keys()):
        raise InputError(f"columns {taken} have the names of fields of the table", remedy="rename them")
    for place, step in enumerate(steps):
        if step.get("kind") == "observation" and (step.get("reward") is not None or step.get("trainable")):
            raise InputError(f"step {place} is an observation with a reward, or trained on", remedy="make it an action")
    yield item_of(
        {"schema": TABLE, **known, "meta": row.get("problem_meta"), "steps": made, "facts": facts, **columns,
         "outcome": None if math.isnan(outcome) else outcome}
    )  # fmt: skip


def _spans(steps: Sequence[Any], tokens: object) -> list[tuple[int, int]]:
    """First token and the one behind the last of each step, (-1, -1) where a step states none."""
    if tokens is not None and not (isinstance(tokens, list) and all(type(one) is int for one in tokens)):
        raise InputError(f"'tokens' must be a list of whole numbers, got {shown(tokens)}")
    last, made = 0, []
    for place, step in enumerate(steps):
        if not isinstance(step, Mapping):
            raise InputError(f"step {place} must be an object, got {shown(step)}")
        span = step.get("span")
        if span is None:
            made.append((-1, -1))
            continue
        if not isinstance(span, list | tuple) or len(span) != 2 or not all(type(one) is int for one in span):
            raise InputError(f"'span' of step {place} must be two whole numbers, got {shown(span)}")
        start, end = span
        if not last <= start <= end or (tokens is not None and end > len(tokens)):
            what = f"'span' of step {place} is {start} to {end}, after a step that ends at {last}"
            raise InputError(what + ("" if tokens is None else f", of {len(tokens)} tokens"), remedy="order the spans")
        made.append((start, end))
        last = end
    return made


def tiles(lengths: Iterable[int]) -> list[tuple[int, int]]:
    """Spans of these lengths, one directly after another."""
    ends = np.cumsum([0, *lengths]).tolist()
    return list(itertools.pairwise(ends))


def _step(
    step: Mapping[str, Any], place: int, span: tuple[int, int], tokens: Sequence[int] | None, tiled: bool
) -> dict[str, Any]:
    """The step as a row of the table has it."""
    if not isinstance(step.get("text"), str):
        raise InputError(f"step {place} has no text", remedy="decode its tokens with the engine's tokenizer")
    for name in ("data", "meta"):
        if not isinstance(step.get(name), Mapping | None):
            raise InputError(f"'{name}' of step {place} must be an object, got {shown(step[name])}")
    made = {name: step[name] for name in _OF_STEPS if step.get(name) is not None}
    own = step.get("tokens") if span[0] < 0 or tokens is None else list(tokens[span[0] : span[1]])
    made |= {} if own is None else {"tokens": own}
    # Parquet gives every object the fields of all.
    meta = {name: value for name, value in (step.get("meta") or {}).items() if value is not None}
    meta |= {} if step.get("trainable") is not False or step.get("kind") == "observation" else {"trainable": False}
    meta |= {"span": list(span)} if span[0] >= 0 and not tiled else {}
    return made | {"meta": meta}


def write(
    item: Trajectory, *, reward: str = "", aligned: Literal["step", "turn"] = "step", turn_reward: Turned = "sum"
) -> dict[str, Any]:
    """A record of the trajectory, with its other step columns as `data`.

    Args:
        reward: the step column of the rewards; by default `reward`, else `score`, else the only `score:NAME`.
        aligned: `turn` joins the actions between two observations to one entry, if they are of one agent.
        turn_reward: what a turn of several steps is rewarded, of those that are scored: their sum, mean or minimum, or
            the last one's. Its other numbers are those of its last step.

    Raises:
        InputError: there is no such column.
    """
    check_choice("aligned", aligned, Literal["step", "turn"])
    check_choice("turn_reward", turn_reward, Turned)
    name = _reward_column(item, reward)
    if aligned == "turn" and item.facts.get("aligned") != "turn":
        item = _by_turn(item, name, turn_reward)
    row, facts = row_of(item), dict(item.facts)
    spans, tokens = _stated_spans(item.steps), facts.pop("tokens", None)
    if None not in (whole := [step.tokens for step in item.steps]) and tokens is None and not any(spans):
        spans = [list(span) for span in tiles([len(one or ()) for one in whole])]
        tokens = [one for own in whole for one in own or ()]
    kept = {one: facts.pop(one) for one in ("rollout", "tokenizer") if isinstance(facts.get(one), str)}
    columns = {one: values for one, values in item.columns.items() if one != name}
    made = {
        "schema": VERSION, **{one: row[one] for one in _AS_THEY_ARE if one in row}, **kept,
        "aligned": "turn" if facts.pop("aligned", aligned) == "turn" else aligned,
        "outcome": facts.pop("raw_outcome", row.get("outcome")), "rewards": name, "tokens": tokens,
        "steps": [
            _entry(step, span, item.column(name)[i], {one: values[i] for one, values in columns.items()})
            for i, (step, span) in enumerate(zip(item.steps, spans, strict=True))
        ],
        "problem_meta": dict(item.problem.meta) or None, "meta": facts or None,
    }  # fmt: skip
    made |= {"messages": json.loads(row["messages"])} if "messages" in row else {}
    # What says nothing is left out: a Parquet file cannot hold empty objects.
    made["provenance"] = [
        {one: value for one, value in asdict(who).items() if value not in (None, "", {})} | {"what": list(who.what)}
        for who in item.provenance
    ] or None
    return {one: value for one, value in made.items() if value is not None or one == "outcome"}


def _reward_column(item: Trajectory, asked: str) -> str:
    if asked and asked not in item.columns:
        raise InputError(f"no step column {asked!r}", remedy=f"name one of {', '.join(item.columns) or 'none'}")
    named = [one for one in item.columns if one.startswith(f"{SCORE}:")]
    found = [one for one in (asked, REWARD, SCORE) if one in item.columns]
    if not found and len(named) > 1:
        raise InputError(f"several columns of scores: {', '.join(named)}", remedy="pass --write reward=NAME")
    return (found or named or [REWARD])[0]


def _stated_spans(steps: Sequence[Step]) -> list[list[int] | None]:
    return [step.meta.get("span") for step in steps]


def _entry(step: Step, span: list[int] | None, reward: float, data: Mapping[str, float]) -> dict[str, Any]:
    meta = {one: value for one, value in step.meta.items() if one not in ("span", "trainable")}
    acts = step.kind == "action"
    more = {
        "span": span, "agent": step.agent, "images": list(step.images) or None, "meta": meta or None,
        "tokens": list(step.tokens) if step.tokens is not None and span is None else None,
        "logprobs": None if step.logprobs is None else [_null(one) for one in step.logprobs],
        "data": {one: _null(value) for one, value in data.items()} or None,
    }  # fmt: skip
    made = {
        "kind": step.kind, "role": step.role, "text": step.text, "reward": _null(reward) if acts else None,
        "trainable": acts and step.meta.get("trainable") is not False,
    }  # fmt: skip
    return made | {one: value for one, value in more.items() if value is not None}


def _null(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _by_turn(item: Trajectory, name: str, turn_reward: Turned) -> Trajectory:
    """The trajectory with the actions of each turn joined."""
    turns: list[list[int]] = []
    for i, step in enumerate(item.steps):
        before = item.steps[turns[-1][-1]] if turns else None
        joins = before is not None and before.kind == step.kind == "action" and before.agent == step.agent
        turns = [*turns[:-1], [*turns[-1], i]] if joins else [*turns, [i]]
    last = [turn[-1] for turn in turns]
    columns = {one: values[last] for one, values in item.columns.items()}
    columns[name] = np.array([_turned(item.column(name)[turn], turn_reward) for turn in turns])
    first = item.first_error
    if first is not None and first >= 0:
        first = next(place for place, turn in enumerate(turns) if first in turn)
    steps = tuple(_joined([item.steps[i] for i in turn]) for turn in turns)
    return replace(item, steps=steps, columns=columns, first_error=first, facts={**item.facts, "aligned": "turn"})


def _turned(rewards: Floats, how: Turned) -> float:
    scored = rewards[~np.isnan(rewards)]
    if not scored.size:
        return math.nan
    return float(scored[-1] if how == "last" else _TURNED[how](scored))


def _joined(steps: Sequence[Step]) -> Step:
    """The steps of a turn as one."""
    first, last = steps[0], steps[-1]
    if len(steps) == 1:
        return first
    tokens = [step.tokens for step in steps]
    logprobs = [step.logprobs for step in steps]
    spans = _stated_spans(steps)
    meta = {name: value for step in steps for name, value in step.meta.items() if name != "trainable"}
    meta |= {} if all(step.meta.get("trainable") is not False for step in steps) else {"trainable": False}
    if spans[0] is not None and spans[-1] is not None:
        meta["span"] = [spans[0][0], spans[-1][1]]
    return replace(
        last, text="".join(step.text for step in steps), images=tuple(one for step in steps for one in step.images),
        tokens=None if None in tokens else tuple(one for own in tokens for one in own or ()),
        logprobs=None if None in logprobs else tuple(one for own in logprobs for one in own or ()), meta=meta,
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format(NAME, "the step-reward contract of RL engines, by a JSON Schema", matches, read, write),
)
