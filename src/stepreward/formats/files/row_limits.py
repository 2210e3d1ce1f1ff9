"""What a row may take of memory: more is a bomb, or no row of this kind."""

from __future__ import annotations

from typing import Any

LARGEST_ROW = 1 << 28
"""Bytes of a row's JSON once unpacked."""
MOST_VALUES = 1 << 24
"""Values in a row: an empty list of two bytes takes 64 in memory."""


def too_large(text: bytes | str) -> str:
    """Why a row's JSON, or the beginning of one, is not read; "" where it is."""
    if len(text) > LARGEST_ROW:
        return f"larger than {LARGEST_ROW >> 20} MiB"
    if len(text) <= MOST_VALUES:
        return ""
    # Before it is parsed: every value but the first of a list or an object has a comma before it.
    marks: tuple[Any, ...] = (b",", b"[", b"{") if isinstance(text, bytes) else (",", "[", "{")
    return f"more than {MOST_VALUES:,} values" if sum(map(text.count, marks)) > MOST_VALUES else ""
