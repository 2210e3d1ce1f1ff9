"""What a judge's answer about a whole solution says: verdicts of its steps, read from anchored forms alone.

An answer that cannot be read is missing (NaN), never right: thoughts are cut off first, and of several well-formed
statements the last counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stepreward.core.measure.first_error import first_error
from stepreward.core.types import Floats
from stepreward.score.checkpoints.row import JudgeCheckpoint, Reading

_TEXT = re.compile(r"\\text\{([^}]*)\}")
_BOX = re.compile(r"\\boxed\{([^}]*)\}")
_WHOLE = re.compile(r"[+-]?\d{1,6}")
_NUMBER = re.compile(r"[+-]?\d{1,6}(?:\.\d{1,6})?")
_LINE = re.compile(r"^[\s*#>-]*step\s+(\d{1,6})\s*[*:.)]+\s*(.*)$", re.IGNORECASE | re.MULTILINE)
_YES = (("yes", 1.0), ("no", 0.0))


def boxes(text: str) -> list[str]:
    r"""The contents of the boxes of a text, in order; `\text{}` in them is taken off."""
    return [box.strip() for box in _BOX.findall(_TEXT.sub(r"\1", text))]


def boxed(text: str, labels: tuple[str, str]) -> list[float]:
    r"""The verdicts of an answer in order: 1 for `\boxed{right}`, 0 for `\boxed{wrong}`; other boxes do not count."""
    return [1.0 if box == labels[0] else 0.0 for box in boxes(text) if box in labels]


def boxed_number(text: str, highest: float) -> float:
    """The last number in a box as a share of the highest; NaN where there is none within 0 and that."""
    found = [float(box) for box in boxes(text) if _NUMBER.fullmatch(box)]
    return found[-1] / highest if found and 0 <= found[-1] <= highest else float("nan")


def behind_thoughts(text: str) -> str:
    """The answer without the thoughts before it; nothing where they do not end."""
    _, ended, answer = text.rpartition("</think>")
    return answer if ended or "<think>" not in text else ""


def _in_order(text: str, judge: JudgeCheckpoint, action: NDArray[np.bool_]) -> Floats:
    # Boxes are verdicts in the order of the steps: a judge that stops early leaves the last steps without one.
    row = boxed(text, judge.labels)
    return np.array((row + [np.nan] * len(action))[: len(action)], np.float64)[None]


def _by_index(text: str, judge: JudgeCheckpoint, action: NDArray[np.bool_]) -> Floats:
    found = [int(box) for box in boxes(behind_thoughts(text)) if _WHOLE.fullmatch(box)]
    at, made = (found[-1] - judge.base if found else len(action)), np.full((1, len(action)), np.nan)
    if found and found[-1] == -1:
        made[:] = 1.0
    elif 0 <= at < len(action) and action[at]:
        made[0, :at], made[0, at] = 1.0, 0.0
    return made


def _by_line(text: str, judge: JudgeCheckpoint, action: NDArray[np.bool_]) -> Floats:
    lines = {int(number) - judge.base: said for number, said in _LINE.findall(behind_thoughts(text))}
    names, words = judge.channels or ("",), dict(judge.words or _YES)
    made = np.full((len(names), len(action)), np.nan)
    for at, said in lines.items():
        if 0 <= at < len(action):
            made[:, at] = [_word(said, words, name) for name in names]
    return np.concatenate([made.prod(0)[None], made]) if judge.channels else made


def _word(said: str, words: Mapping[str, float], name: str) -> float:
    """What the word is worth that a line begins with, or that stands behind `name=`; NaN for none or several."""
    # Longer words first, as one may begin with another.
    every = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    lead = rf"\b{re.escape(name)}\s*[=:]\s*" if name else r"^\W*"
    found = {one.lower() for one in re.findall(rf"{lead}({every})(?!\w)", said, re.IGNORECASE)}
    worth = {word.lower(): value for word, value in words.items()}
    return worth[found.pop()] if len(found) == 1 else float("nan")


def _of_whole(text: str, judge: JudgeCheckpoint, action: NDArray[np.bool_]) -> Floats:
    made = np.full((1, len(action)), np.nan)
    made[0, np.flatnonzero(action)[-1:]] = boxed_number(behind_thoughts(text), judge.highest)
    return made


_READERS: Mapping[Reading, Callable[[str, JudgeCheckpoint, NDArray[np.bool_]], Floats]] = {
    "boxes": _in_order,
    "first-error": _by_index,
    "lines": _by_line,
    "total": _of_whole,
}


def read_solution(texts: Sequence[str], judge: JudgeCheckpoint, action: NDArray[np.bool_]) -> Floats:
    """What one sampled answer says of each step: its verdicts and then, by channel, the parts of which they are made.

    Args:
        texts: the answer and its revisions, in order.
        judge: how they are read.
        action: (S,) True at actions; an error that is said to be elsewhere is none that is read.

    Returns:
        (1 + C, S) verdicts, those of the last revision, also of observations where a judge speaks of them; NaN at what
        it does not say, and everywhere if the judge must agree with itself and the first text names another first
        error than the last one, or none can be read.
    """
    read = [_READERS[judge.reading](text, judge, action) for text in texts]
    made = read[-1]
    if judge.agree:
        known = all((~np.isnan(one[0])).any() for one in (read[0], made))
        if not known or first_error(read[0][0], 0.0) != first_error(made[0], 0.0):
            made = np.full_like(made, np.nan)
    return made
