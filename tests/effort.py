"""How many examples the random tests try: a fifth of them where time is short, all with `STEPREWARD_TESTS=all`."""

from __future__ import annotations

import os

THOROUGH = os.environ.get("STEPREWARD_TESTS") == "all"


def scaled(examples: int) -> int:
    """The number of examples to try of those that a test was made for; at least 5."""
    return examples if THOROUGH else max(examples // 5, 5)
