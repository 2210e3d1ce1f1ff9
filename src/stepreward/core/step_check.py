"""What a checker says of a step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepCheck:
    """Whether a step is right, as far as a program can tell."""

    right: bool | None
    """None where it cannot: nothing in the step can be checked, or the check did not end within its limits."""
    kind: str = ""
    """Kind of error of a wrong step, in the words of its checker; of an unknown one why it is not known, or ""."""
    claim: str = ""
    """What was found wrong, as the step or the checker writes it."""
