"""A trial of TRL: its trainer can be extended."""

from __future__ import annotations

from stepreward.connect.trl import StepGRPOTrainer


def credits_steps() -> str:
    """The trainer that takes step credit is there; importing it needs a TRL that it extends."""
    return f"TRL's trainer takes step credit: {StepGRPOTrainer.__name__}"
