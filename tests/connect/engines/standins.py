"""Stand-ins for engines that no CPU environment here can hold: modules of their names, and what the adapters call."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pytest

from stepreward.connect.engines.engine_rollouts import EngineRollout, StepCredit, to_record
from stepreward.formats.samples.step_rewards import schema

VALIDATOR = jsonschema.Draft202012Validator(schema())


def valid(rollout: EngineRollout, credit: StepCredit | None = None) -> dict[str, Any]:
    """The record of an adapter's rollout, which the published schema accepts."""
    advantages = None if credit is None else credit([rollout])[0].tolist()
    record = to_record(rollout, advantages=advantages)
    VALIDATOR.validate(record)
    return record


def adapter(monkeypatch: pytest.MonkeyPatch, name: str, modules: Mapping[str, Mapping[str, Any]]) -> Any:
    """An adapter's module, imported while modules of an engine's names stand in for it.

    Args:
        monkeypatch: takes all of them away again.
        name: of the adapter.
        modules: names and what the adapter imports from them.
    """
    for path, attributes in modules.items():
        parts = path.split(".")
        for depth in range(1, len(parts) + 1):
            whole = ".".join(parts[:depth])
            if whole not in sys.modules:
                made = ModuleType(whole)
                made.__spec__, made.__path__ = ModuleSpec(whole, None), []
                monkeypatch.setitem(sys.modules, whole, made)
            if depth > 1:
                setattr(sys.modules[".".join(parts[: depth - 1])], parts[depth - 1], sys.modules[whole])
        for attribute, value in attributes.items():
            setattr(sys.modules[path], attribute, value)
    place = f"stepreward.connect.engines.{name}"
    monkeypatch.delitem(sys.modules, place, raising=False)
    made = importlib.import_module(place)
    monkeypatch.delitem(sys.modules, place)
    return made


def totals(rewards: Sequence[Sequence[float]], outcomes: Sequence[float]) -> list[list[float]]:
    """Step-RLOO by hand: what is still to come, less the mean total of the others of the group."""
    whole = [sum(row) + outcome for row, outcome in zip(rewards, outcomes, strict=True)]
    made = []
    for i, (row, outcome) in enumerate(zip(rewards, outcomes, strict=True)):
        base = np.mean([one for j, one in enumerate(whole) if j != i])
        made.append([sum(row[k:]) + outcome - base for k in range(len(row))])
    return made
