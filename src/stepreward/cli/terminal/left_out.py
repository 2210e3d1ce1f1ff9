"""What commands say on standard error of rows and steps that they leave out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stepreward.core.errors import InputError

SHOWN = 10
"""Rows whose errors are shown; further ones are counted."""


def tell_left_out(bad: Sequence[InputError], by: str = "", *, more: int = 0) -> None:
    """Says on standard error which rows are left out, the first ones in full."""
    of = f" {by}" if by else ""
    for error in bad[:SHOWN]:
        print(f"stepreward: left out{of}: {error}", file=sys.stderr)
    rest = len(bad[SHOWN:]) + more
    if rest:
        print(f"stepreward: left out{of}: {rest:,} more rows", file=sys.stderr)


def tell_blank(steps: int) -> None:
    """Says on standard error how many steps hold no text."""
    if steps:
        print(f"stepreward: {steps:,} steps hold no text: context, without label or score", file=sys.stderr)
