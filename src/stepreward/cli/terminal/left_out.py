"""What commands say on standard error of rows and steps that they leave out."""

from __future__ import annotations

import sys

from stepreward.core.failures import Failures, shown_failure

SHOWN = 10
"""Rows whose errors are shown; further ones are counted."""


def tell_left_out(failed: Failures, by: str = "") -> None:
    """Says on standard error what is left out, the first ones in full."""
    of = f" {by}" if by else ""
    for one in failed[:SHOWN]:
        print(f"stepreward: left out{of}: {shown_failure(one)}", file=sys.stderr)
    if failed.total > SHOWN:
        print(f"stepreward: left out{of}: {failed.total - SHOWN:,} more rows", file=sys.stderr)


def tell_blank(steps: int) -> None:
    """Says on standard error how many steps hold no text."""
    if steps:
        print(f"stepreward: {steps:,} steps hold no text: context, without label or score", file=sys.stderr)
