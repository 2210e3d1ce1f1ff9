"""What every adapter of an RL engine does: rollouts of a batch -> flat arrays -> a credit method -> advantages.

An adapter reads its engine's objects into `EngineRollout`s, calls a `StepCredit`, and writes what it returns where the
engine looks. `from_record` and `to_record` do the same with the step-reward contract (`schemas/step-rewards.json`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.connect.alarms import HackingAlarms
from stepreward.core.errors import HackedError, InputError
from stepreward.core.files.flat_data import NAMES, OF_TRAJECTORIES, numbers
from stepreward.credit.combined import Declared, credit_of
from stepreward.credit.tokens import TokenSpans, from_mask, to_tokens
from stepreward.formats.samples.step_rewards import VERSION

Floats = NDArray[np.float64]
Number = float | None
"""A reward or an outcome; None and NaN are unscored."""
_log = logging.getLogger(__name__)
STEP_REWARDS = "step_rewards"
"""Where an engine's own dictionary of extras (metadata, info) holds a list of step rewards, unless named otherwise."""


@dataclass(frozen=True)
class EngineRollout:
    """One rollout as an adapter reads it: the steps that the policy wrote, and what each was rewarded.

    Raises:
        InputError: rewards, spans or other data do not agree in the number of steps.
    """

    group: str | int
    """Identity of the problem."""
    rewards: Sequence[Number]
    """(S,) a step."""
    outcome: Number
    """Raw reward of the whole rollout."""
    spans: Sequence[tuple[int, int]]
    """(S,) first token of each step in the response, and the one behind its last."""
    length: int
    """Tokens of the response (T)."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """More data by name in the credit vocabulary: (S,) of steps, or one value of the rollout, such as `prior`."""

    def __post_init__(self) -> None:
        of_steps = {"rewards": self.rewards} | {n: v for n, v in self.data.items() if n not in OF_TRAJECTORIES}
        for name, values in of_steps.items():
            if len(values) != len(self.spans):
                what = f"a rollout of {self.group!r} has {len(values)} {name} for {len(self.spans)} steps"
                raise InputError(what, remedy="give one a step of the policy, None where it is unscored")


@dataclass(frozen=True)
class StepCredit:
    """A credit method with its settings, for the adapters of engines.

        credit = StepCredit("pure", {"temperature": 0.1})

    Args:
        method: name in the family `credit`, or a sum of several (`credit.combined.credit_of`).
        settings: its hyper-parameters.
        alarms: watches every batch of a training for reward hacking; None watches nothing.
    """

    method: Declared = "step-rloo"
    settings: Mapping[str, Any] = field(default_factory=dict)
    alarms: HackingAlarms | None = None

    def __call__(self, rollouts: Sequence[EngineRollout]) -> list[Floats]:
        """(S,) advantages of each rollout's steps, 0 where one is unscored; groups are of all these rollouts.

        Raises:
            MissingDataError: the method needs data that the rollouts have not.
            UnknownNameError: no such method or setting.
            HackedError: an alarm is to stop the training.
        """
        method = credit_of(self.method)
        if not rollouts:
            return []
        starts = np.cumsum([0, *(len(one.spans) for one in rollouts)])
        data: dict[str, Any] = {
            "rewards": _joined([numbers("rewards", one.rewards) for one in rollouts]),
            "outcome": numbers("outcome", [one.outcome for one in rollouts]),
            "group": np.unique([str(one.group) for one in rollouts], return_inverse=True)[1],
            "offsets": starts,
            "lengths": np.array([end - start for one in rollouts for start, end in one.spans], np.int64),
            "turn": _joined([turns_of(one.spans) for one in rollouts]),
        }
        for name in set.intersection(*(set(one.data) for one in rollouts)):
            given = [one.data[name] for one in rollouts]
            data[name] = given if name in OF_TRAJECTORIES else [value for values in given for value in values]
        if self.alarms is not None and _watch(self.alarms, data):
            data["rewards"] = np.where(np.isnan(data["rewards"]), np.nan, 0.0)
        made = np.asarray(method.take(data, **self.settings), np.float64)
        return np.split(made, starts[1:-1])

    def by_token(self, rollouts: Sequence[EngineRollout]) -> list[Floats]:
        """(T,) advantages of each rollout's tokens, 0 at tokens of no step."""
        return [spread(one, made) for one, made in zip(rollouts, self(rollouts), strict=True)]


def _watch(alarms: HackingAlarms, data: Mapping[str, Any]) -> bool:
    """Shows a batch to the alarms; returns whether step rewards are to count 0."""
    steps = np.split(data["rewards"], data["offsets"][1:-1])
    scored = [np.nanmean(row) for row in steps if not np.isnan(row).all()]
    outcome = data["outcome"][~np.isnan(data["outcome"])]
    numbers = {
        "process": np.mean(scored) if scored else 0.0,
        "outcome": outcome.mean() if outcome.size else 0.0,
        "steps": np.diff(data["offsets"]).mean(),
        "tokens": data["lengths"].mean() if data["lengths"].size else 0.0,
        "unscored_steps": np.isnan(data["rewards"]).mean() if data["rewards"].size else 0.0,
    }
    was_gated = alarms.gated
    before = set(alarms.raised)
    found = alarms.observe({name: float(value) for name, value in numbers.items()})
    for name in found.keys() - before:
        _log.warning("%s", found[name])
    if alarms.stopped:
        raise HackedError(f"stopped by {', '.join(alarms.raised)}: {'; '.join(alarms.raised.values())}")
    return was_gated or alarms.gated


def _joined(parts: Sequence[Any]) -> NDArray[Any]:
    return np.concatenate([np.asarray(part) for part in parts]) if parts else np.zeros(0)


def spread(rollout: EngineRollout, advantages: Floats) -> Floats:
    """(T,) the advantage of its step at each token of the response, 0 at tokens of no step."""
    start, end = np.array(rollout.spans, np.int64).reshape(-1, 2).T
    made = to_tokens(advantages, TokenSpans(np.zeros_like(start), start, end, (1, rollout.length)))
    return np.asarray(made[0], np.float64)


def turns_of(spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """(S,) turn of each step: a new one begins where tokens of others stand between two steps."""
    start, end = np.array(spans, np.int64).reshape(-1, 2).T
    return np.cumsum(start != np.concatenate([start[:1], end[:-1]]), dtype=np.int64)


def mask_spans(mask: Sequence[int | bool]) -> list[tuple[int, int]]:
    """Turns of a response: runs of the tokens that the policy wrote.

    Args:
        mask: (T,) nonzero where the policy wrote the token.
    """
    found = from_mask(np.array(mask, bool).reshape(1, -1))
    return list(zip(found.start.tolist(), found.end.tolist(), strict=True))


def read_rewards(holder: Mapping[str, Any] | None, key: str, steps: int) -> Sequence[Number]:
    """The step rewards in an engine's dictionary of extras; all unscored where it holds none."""
    given = (holder or {}).get(key)
    return [None] * steps if given is None else list(given)


def to_record(
    rollout: EngineRollout,
    *,
    prompt: str | None = None,
    texts: Sequence[str] | None = None,
    tokens: Sequence[int] | None = None,
    advantages: Sequence[float] | None = None,
) -> dict[str, Any]:
    """A record of the step-reward contract, which every command of stepreward reads where it has prompt and texts.

    Args:
        rollout: what an adapter read.
        prompt: its text.
        texts: (S,) text of each step.
        tokens: (T,) ids of the response.
        advantages: (S,) what a credit method made of it, kept as `data`. Identities, such as states, are kept as meta.
    """
    data = {name: list(values) for name, values in rollout.data.items() if name not in OF_TRAJECTORIES}
    data |= {} if advantages is None else {"advantage": list(advantages)}
    steps = [
        {
            "kind": "action", "reward": _null(rollout.rewards[i]), "trainable": True,
            "span": [int(start), int(end)], "text": None if texts is None else texts[i],
            "data": {name: _null(values[i]) for name, values in data.items() if name not in NAMES},
            "meta": {name: values[i] for name, values in data.items() if name in NAMES},
        }
        for i, (start, end) in enumerate(rollout.spans)
    ]  # fmt: skip
    made = {
        "schema": VERSION, "problem": str(rollout.group), "prompt": prompt, "aligned": "step",
        "outcome": _null(rollout.outcome), "steps": steps, "tokens": None if tokens is None else list(tokens),
        "meta": {"response_length": rollout.length},
    }  # fmt: skip
    return {name: value for name, value in made.items() if value is not None or name == "outcome"}


def _null(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def from_record(record: Mapping[str, Any]) -> EngineRollout:
    """The rollout of a record of the step-reward contract: its trainable actions, by their spans.

    Raises:
        InputError: a trainable action has no span.
    """
    acts = [step for step in record["steps"] if step["kind"] == "action" and step["trainable"]]
    if bare := [place for place, step in enumerate(acts) if not step.get("span")]:
        raise InputError(
            f"action {bare[0]} of a rollout of {record['problem']!r} has no span", remedy="state its tokens"
        )
    spans = [(step["span"][0], step["span"][1]) for step in acts]
    known = [
        {**(step.get("data") or {}), **{n: v for n, v in (step.get("meta") or {}).items() if n in NAMES}}
        for step in acts
    ]
    named = [name for name in dict.fromkeys(name for one in known for name in one) if name != "advantage"]
    data = {name: [one.get(name) for one in known] for name in named}
    length = (record.get("meta") or {}).get("response_length", max((end for _, end in spans), default=0))
    length = max(length, len(record.get("tokens") or ()))
    return EngineRollout(
        record["problem"], [step["reward"] for step in acts], record["outcome"], spans, int(length), data
    )
