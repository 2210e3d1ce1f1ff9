"""How much the tests try: a part of it where time is short, all with `STEPREWARD_TESTS=all`."""

from __future__ import annotations

import os
from collections import defaultdict
from zlib import crc32

import pytest

THOROUGH = os.environ.get("STEPREWARD_TESTS") == "all"


def scaled(examples: int) -> int:
    """The number of examples to try of those that a random test was made for: a fifth, at least 5."""
    return examples if THOROUGH else max(examples // 5, 5)


def left_out(items: list[pytest.Item]) -> list[pytest.Item]:
    """The cases of tests marked `sampled` that do not run now; their names decide, so that they are always the same.

    Of two tests over the same methods each leaves out others.
    """
    cases = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark and not THOROUGH:
            cases[item.nodeid.split("[")[0], int(mark.args[0])].append(item)
    dropped = []
    for (_, every), group in cases.items():
        ranked = sorted(group, key=lambda item: crc32(item.nodeid.encode()))
        dropped += ranked[-(-len(ranked) // every) :]
    return dropped
