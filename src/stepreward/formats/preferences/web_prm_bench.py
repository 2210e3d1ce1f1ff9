"""WebPRMBench (arXiv:2601.21872): judging prompts that hold the state of a web agent and two next actions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, compared, need, shown

_STATE, _ANSWERS = "#### Intent ####", "#### Assistant Responses ####"
_PAIR = re.compile(
    r"\[The Begin of Response 1\](.*?)\[The End of Response 1\].*?"
    r"\[The Begin of Response 2\](.*?)\[The End of Response 2\]",
    re.DOTALL,
)


def read(row: Row, number: int) -> Iterator[Comparison]:
    """Reads a pair of actions out of the `prompt` that a judge is shown; `expected` says which is right, 1 or 2.

    The problem is the state in that prompt: intent, page, trajectory and addresses, without the instructions to the
    judge. A state has four rows, the right action against each wrong one: comparisons of one problem.

    Args:
        row: the row; `source_name` becomes the subset.
        number: its 1-based number, of which nothing is made.

    Raises:
        InputError: a field is missing, the prompt does not hold two responses, or `expected` is neither 1 nor 2.
    """
    prompt, expected = need(row, "prompt"), need(row, "expected", int)
    # The last heading: the page in the state may hold any text, this heading too.
    head, marked, tail = prompt.rpartition(_ANSWERS)
    pair = _PAIR.search(tail)
    if not marked or pair is None:
        what = f"'prompt' must hold {_ANSWERS!r} and two marked responses, got {shown(prompt)}"
        raise InputError(what, remedy="read the file as it is published")
    if expected not in (1, 2):
        raise InputError(f"'expected' must be 1 or 2, got {shown(expected)}")
    source = str(row.get("source_name") or "")
    state = head[max(head.find(_STATE), 0) :].strip() + "\n"
    yield compared(
        Problem(f"{source}:{row['state_idx']}", state), [[Step(text.strip() + "\n")] for text in pair.groups()],
        [float(expected == place) for place in (1, 2)], source, terminal=False, meta={"pair_idx": row["pair_idx"]},
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("web-prm-bench", "WebPRMBench: pairs of a web agent's next actions",
           has("state_idx", "pair_idx", "expected", "prompt"), read, kind="comparisons"),
)  # fmt: skip
