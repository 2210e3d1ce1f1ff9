"""Checks of a search's numbers: a loop that would never end is an error before it begins."""

from __future__ import annotations


def positive(**settings: float) -> None:
    """Checks settings that must be above 0.

    Raises:
        ValueError: one is not.
    """
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
