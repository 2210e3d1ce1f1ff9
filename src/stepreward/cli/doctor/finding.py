"""What `stepreward doctor` says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    good: bool
    says: str
    needed: bool = True
    """Whether it is an error where it is not good."""
