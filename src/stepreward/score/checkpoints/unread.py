"""Public reward models whose recipe could not be read: refused by name, since a guess would look like a score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stepreward.core.errors import ModelError


@dataclass(frozen=True, slots=True)
class Unread:
    """A model without a row, and why."""

    names: tuple[str, ...]
    """Hub names."""
    lacks: str
    """What could not be read."""
    instead: str = ""
    """What can be done all the same."""


UNREAD = (
    Unread(
        ("RioLee/ToolRM-Qwen3-4B-Thinking-2507",),
        "its prompt stands in its data files alone (Parquet of TRBench-BFCL and ToolPref-Pairwise-30K; repository "
        "lirenhao1997/ToolRM has the programs, arXiv:2510.26167), and no copy of them could be read",
        "what it wrote by its own programs is measured with `evaluate --benchmark both-orders`, and its other model, "
        "which scores, has the row ToolRM-Disc-Qwen3-4B-Instruct-2507",
    ),
    Unread(
        ("ZYao720/WebArbiter-3B", "ZYao720/WebArbiter-7B", "ZYao720/WebArbiter-8B-Qwen3"),
        "its program is not public where we looked, and no source has its prompt (arXiv:2601.21872 describes it)",
        "its benchmark is read: `evaluate --benchmark web-prm-bench`",
    ),
    Unread(
        ("OpenHands/openhands-critic-32b-exp-20250417", "all-hands/openhands-critic-32b-exp-20250417"),
        "no source says which tokens of a run are read and what is made of them",
        "its successor OpenHands/openhands-critic-4b-v1.0 has a row",
    ),
)
"""In the order of the page."""


def refuse_unread(name: str | Path) -> None:
    """Refuses the name, folder or address of a model whose recipe could not be read.

    Raises:
        ModelError: it is one.
    """
    last = str(name).rpartition("#")[2].partition("?")[0].rstrip("/").rpartition("/")[2].lower()
    for row in UNREAD:
        if any(last == known.rpartition("/")[2].lower() for known in row.names):
            instead = f" ({row.instead})" if row.instead else ""
            raise ModelError(
                f"{row.names[0]} cannot be scored as its authors do: {row.lacks}{instead}; pass like= (--like) the row "
                "of another model whose recipe it may follow, or record= (--record) one of your own"
            )
