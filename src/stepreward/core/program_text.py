"""The program in a solution, in the layouts of public data: a fenced block, or what goes on from a prompt."""

from __future__ import annotations

import re

from stepreward.core.types import Problem

_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)


def program_of(problem: Problem, text: str) -> str:
    """The program in a solution: its last fenced block, or all of it; it goes on from a prompt that is code.

    Args:
        problem: its `entry_point` is the function that the prompt may begin.
        text: the solution.
    """
    before, start, end = program_in(problem, text)
    return before + text[start:end]


def program_in(problem: Problem, text: str) -> tuple[str, int, int]:
    """What the prompt has of the program, and the places in a solution where the rest of it starts and ends."""
    blocks = [*_FENCE.finditer(text)]
    start, end = blocks[-1].span(1) if blocks else (0, len(text))
    entry = str(problem.meta.get("entry_point") or "")
    begun = re.search(rf"^[ \t]*def {re.escape(entry)}\b", problem.text, re.MULTILINE) if entry else None
    if begun is None:
        return "", start, end
    # What a prompt has before the function, as imports and helpers, belongs to the program in any case.
    whole = re.search(rf"^[ \t]*(?:async )?def {re.escape(entry)}\b", text[start:end], re.MULTILINE)
    return (f"{problem.text[: begun.start()]}\n" if whole else problem.text), start, end
