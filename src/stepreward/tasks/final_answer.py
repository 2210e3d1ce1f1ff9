"""Finds where a solution states its final answer: a box, GSM8K's "#### 42", "the answer is", or its last line."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*(\{|[^\s{}\\$]|\\[A-Za-z]+)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_THOUGHT = re.compile(r"</think(?:ing)?>")
_THINKS = re.compile(r"<think(?:ing)?>")
# Quantifiers are possessive, so that hostile text is read in time that is linear in its length.
_GAP = r"[ \t]*+"
_NUMBER = rf"[-+−]?{_GAP}\\?\$?{_GAP}[-+−]?(?:\d[\d,]*+(?:\.\d++)?|\.\d++)(?:{_GAP}/{_GAP}\d++)?"
_MARKED = re.compile(
    rf"####{_GAP}(?:[*$]++{_GAP})?({_NUMBER}){_GAP}\$?{_GAP}(\\?%|(?:[A-Za-z°]++{_GAP}){{0,3}})[*$.。 \t]*+$",
    re.MULTILINE,
)
_STATED = re.compile(
    rf"(?:answer|solution|result){_GAP}(?:is|are|was|equals|:|=|\uff1a)(?:{_GAP}(?:that|option|choice|:))*+"
    rf"{_GAP}(?:[*_]++{_GAP})?(\S[^\n]*+)",
    re.IGNORECASE,
)
_REASON = re.compile(r"(?<=\S) \((?:since|because|as|from|see|i\.e\.|that is)\b[^()]*\)$", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?。](?=\s|$)")
_DOLLARS = re.compile(r"(?<!\\)\$\$?([^$]+?)\$\$?|\\\(((?:[^\\]|\\[^()])+?)\\\)|\\\[((?:[^\\]|\\[^\[\]])+?)\\\]")
_NUMBERS = re.compile(r"(?<![\w.])[-−]?\\?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")


def final_answer(text: str) -> str | None:
    r"""The final answer of a solution as it is written; None where there is none.

    The last complete `\boxed{}` counts, after the last `</think>` where there is one. A box that is cut off is no
    answer, and an earlier one does not replace it. Without a box, the last `#### NUMBER` line counts, then the
    last "the answer is ...", then the last line: its one formula, the text after its last equals sign, its one number.
    """
    ends = [found.end() for found in _THOUGHT.finditer(text)]
    if ends:
        text = text[ends[-1] :]
    elif _THINKS.match(text.lstrip()):
        return None  # It was cut while it was thinking: what it considered is not its answer.
    box = last_box(text)
    if box is not None:
        return box.strip() or None
    marked = [found[1] + " " + found[2] for found in _MARKED.finditer(text)]
    if marked:
        return marked[-1].strip()
    stated = [found[1] for found in _STATED.finditer(text)]
    return _stated_answer(stated[-1]) if stated else _last_line_answer(text)


def last_box(text: str) -> str | None:
    """The content of a text's last outermost box, empty where that is cut off; None without a box."""
    at, inside = 0, None
    while (found := _BOX.search(text, at)) is not None:
        if found[1] != "{":
            inside, at = found[1], found.end()
            continue
        end = _closing_brace(text, found.end())
        if end < 0:
            return ""
        inside, at = text[found.end() : end], end + 1
    return inside


def _closing_brace(text: str, start: int) -> int:
    """Where the brace that opened before `start` closes; -1 where it does not."""
    depth = 1
    for found in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    return -1


def _stated_answer(said: str) -> str | None:
    """The answer of "the answer is ...", up to the end of its sentence."""
    said = _SENTENCE.split(said, maxsplit=1)[0].strip().strip("*_").strip()
    said = _REASON.sub("", said) or said
    formulas = [next(filter(None, found.groups())) for found in _DOLLARS.finditer(said)]
    rest = _DOLLARS.sub("", said)
    # One formula among words is the answer; with a number or an "or" beside it, it may be a part of it.
    if len(formulas) == 1 and not re.search(r"\d|\b(?:or|and)\b", rest):
        return str(formulas[0])
    return said or None


def _last_line_answer(text: str) -> str | None:
    """The answer of a last line that is one formula, or ends in one value."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    line = lines[-1].lstrip("#").strip("*_ ")
    if line != lines[-1].strip("*_ ") and _PROSE.search(line):
        return None  # A heading, such as "## Step 2": the text after it is missing.
    line = _SENTENCE.split(line.rstrip(".。"))[-1].strip() or line
    formulas = [next(filter(None, found.groups())) for found in _DOLLARS.finditer(line)]
    if len(formulas) == 1 and not re.search(r"\d|\bor\b", _DOLLARS.sub("", line)):
        return str(formulas[0])
    if not _PROSE.search(line):
        return line
    after = line.rsplit("=", 1)[-1].strip() if "=" in line else ""
    if after and not _PROSE.search(after):
        return after
    numbers = _NUMBERS.findall(line)
    return numbers[0] if len(numbers) == 1 else None
