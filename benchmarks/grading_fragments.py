r"""Fragments of answers: what is left of a reference where one part of it is left out, by its text alone.

A grader that accepts one is a grader that reads a part of an answer for the whole: 3 for `3\sqrt{13}`, 1728 for
"1331 and 1728". No code is shared with the grader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_OPENING, _CLOSING = (
    ("\\left(", "\\left[", "\\left\\{", "\\{", "(", "[", "{"),
    ("\\right)", "\\right]", "\\}", ")", "]", "}"),
)
_TOKEN = re.compile(
    r"\\left\s*(?:\\[a-zA-Z{}|]+|.)|\\right\s*(?:\\[a-zA-Z{}|]+|.)|\\(?:begin|end)\{[a-z]*\*?\}|\\[a-zA-Z]+|\\.|"
    r"\d+(?:\.\d+)?|[A-Za-z]+|\s+|.",
    re.DOTALL,
)
_RELATIONS = frozenset(
    ("=", "<", ">", r"\le", r"\leq", r"\ge", r"\geq", r"\ne", r"\neq", r"\in", r"\approx", r"\leqslant", r"\geqslant")
)
_LABEL = re.compile(r"^(?:[A-Za-z]{1,3}'*|\\[A-Za-z]+)(?:_\{?\\?\w+ ?\}?)?(?:\([A-Za-z](?:, ?[A-Za-z])*\))?$")
_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_UNIT = re.compile(
    r"(?:\s|\\,|\\ |~)*(?:\\(?:text|mbox|mathrm|rm|textrm|hbox)\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?|\^\s*\{?\\circ\}?|"
    r"\\?%|(?<=[\d}])\s*(?:cm|am)(?:\^\{?\d\}?)?|"
    r"(?<=\d)\s+[A-Za-z][A-Za-z ]+)\s*$"
)
_WORDED = (r"\text", r"\mbox", r"\mathrm", r"\textbf", r"\rm", r"\textnormal", r"\begin")
_NOTHING = re.compile(r"\\!|\\[,;:](?=\\text|[a-z])|\\quad")
_MONEY = re.compile(r"^(?:\\\$|\$)\s*")
ALLOWED = frozenset(("its unit", "its label", "its unit in brackets"))
"""What an answer may leave out."""


@dataclass(frozen=True)
class Fragment:
    """A text that is a part of a reference."""

    text: str
    left_out: str
    """What kind of part is missing."""


def tokens(text: str) -> list[str]:
    """Commands, numbers, words, brackets and signs of LaTeX."""
    return _TOKEN.findall(text)


def depths(parts: list[str]) -> list[int]:
    """How many brackets are open before each token; a closing one counts as outside."""
    made, depth = [], 0
    for part in parts:
        bare = part.removeprefix("\\left").strip() if part.startswith("\\left") and len(part) > 5 else part
        if part.startswith("\\begin") or bare in _OPENING:
            made.append(depth)
            depth += 1
            continue
        if (part.startswith(("\\end", "\\right")) and part != "\\rightarrow") or part in _CLOSING:
            depth -= 1
        made.append(depth)
    return made


def fragments(reference: str) -> list[Fragment]:
    """Every fragment of a reference, each text once, the reference itself left out."""
    bare = _NOTHING.sub("", re.sub(r"(?<!\\)\$", "", reference)).strip().rstrip(".").strip()
    made: dict[str, Fragment] = {}
    for one in _all(bare):
        text = one.text.strip(" ,;~")
        if text and text not in (bare, f"+{bare}", bare.removeprefix("+")):
            made.setdefault(text, Fragment(text, one.left_out))
    return list(made.values())


def _all(text: str, *, deep: bool = True) -> Iterator[Fragment]:
    parts = tokens(text)
    depth = depths(parts)
    if any(level < 0 for level in depth):
        return
    yield from _digits(parts)
    yield from _units(text)
    yield from _pieces(parts, depth)
    yield from _groups(parts, depth)
    if deep:
        yield from _ends(parts, depth)
        yield from _inside(parts, depth)


def _ends(parts: list[str], depth: list[int]) -> Iterator[Fragment]:
    """A text that begins later, or ends earlier."""
    for i in range(1, len(parts)):
        if depth[i] == 0 and not (
            parts[i].isspace() or parts[i] in ("{", *_CLOSING) or parts[i].startswith((r"\right", r"\end"))
        ):
            yield Fragment("".join(parts[:i]), "an end")
            told = parts[i] in (r"\in", "=") or _names_the_rest(parts, i)
            yield Fragment("".join(parts[i:]), "its label" if told else "a beginning")


def _names_the_rest(parts: list[str], i: int) -> bool:
    """Whether a token stands in a name in front of an equals sign."""
    return (
        "=" in parts[i:]
        and _LABEL.match("".join(parts[: parts.index("=")]).strip()) is not None
        and i <= parts.index("=")
    )


def _inside(parts: list[str], depth: list[int]) -> Iterator[Fragment]:
    """The same text with a fragment of what stands in one pair of brackets."""
    for i, part in enumerate(parts):
        if part not in ("{", "(", r"\left("):
            continue
        end = next((j for j in range(i + 1, len(parts)) if depth[j] == depth[i]), len(parts))
        if i and parts[i - 1] in _WORDED:
            continue
        for one in _all("".join(parts[i + 1 : end]), deep=False):
            if one.text:
                yield Fragment("".join([*parts[: i + 1], one.text, *parts[end:]]), f"{one.left_out} in brackets")


def _digits(parts: list[str]) -> Iterator[Fragment]:
    """Numbers that lose their first or their last digit, and signs."""
    for i, part in enumerate(parts):
        if re.fullmatch(r"\d{2,}", part):
            for less in (part[1:] if part[0] != "0" else part, part[:-1]):
                yield Fragment("".join([*parts[:i], less, *parts[i + 1 :]]), "a digit")
    if parts and parts[0] == "-":
        yield Fragment("".join(parts[1:]).strip(), "the sign")


def _units(text: str) -> Iterator[Fragment]:
    """A value without its unit, which may pass, and a unit without its value, which may not."""
    if found := _UNIT.search(text):
        yield Fragment(text[: found.start()].strip(), "its unit")
        yield Fragment(found[0].strip(), "the value of a unit")
    elif found := _MONEY.search(text):
        yield Fragment(text[found.end() :], "its unit")


def _pieces(parts: list[str], depth: list[int]) -> Iterator[Fragment]:
    """Answers, sides, terms and factors outside all brackets: each alone, and all but each."""
    words = [part.lower() for part in parts]
    yield from _cut(
        parts, [d == 0 and p in (",", ";", "and", "or") for p, d in zip(words, depth, strict=True)], "an answer"
    )
    sides = [d == 0 and p in _RELATIONS for p, d in zip(parts, depth, strict=True)]
    yield from _sides(parts, sides)
    if any(sides):
        return
    unions = [d == 0 and p in (r"\cup", r"\pm", r"\mp", ":") for p, d in zip(parts, depth, strict=True)]
    yield from _cut(parts, unions, "a part")
    signs = [d == 0 and p in ("+", "-") and i > 0 for i, (p, d) in enumerate(zip(parts, depth, strict=True))]
    yield from _cut(parts, signs, "a term")
    if not any(signs) and not any(unions):
        yield from _factors(parts, depth)


def _cut(parts: list[str], at: list[bool], kind: str) -> Iterator[Fragment]:
    places = [i for i, here in enumerate(at) if here]
    if not places:
        return
    bounds = [-1, *places, len(parts)]
    for low, high in pairwise(bounds):
        yield Fragment("".join(parts[low + 1 : high]).strip(), kind)
        rest = parts[: max(low, 0)] + parts[high:] if low >= 0 else parts[high + 1 :]
        yield Fragment("".join(rest).strip(), kind)


def _sides(parts: list[str], at: list[bool]) -> Iterator[Fragment]:
    places = [i for i, here in enumerate(at) if here]
    if not places:
        return
    bounds = [-1, *places, len(parts)]
    sides = ["".join(parts[low + 1 : high]).strip() for low, high in pairwise(bounds)]
    signs = [parts[i] for i in places]
    for i, side in enumerate(sides):
        named = set(signs) <= {"=", r"\in", r"\approx"} and i > 0 and _LABEL.match(sides[0])
        told = named or (
            len(sides) == 2 and signs == ["="] and not _LETTERS.search(side) and _LETTERS.search(sides[1 - i])
        )
        yield Fragment(side, "its label" if told else "a side")
    if len(sides) > 2:
        yield Fragment("".join(parts[: places[-1]]).strip(), "a side")
        yield Fragment("".join(parts[places[0] + 1 :]).strip(), "its label" if _LABEL.match(sides[0]) else "a side")


def _factors(parts: list[str], depth: list[int]) -> Iterator[Fragment]:
    """Factors with their exponents and arguments: each alone, and all but each."""
    units: list[list[str]] = []
    takes, i = 0, 0
    while i < len(parts):
        part, start = parts[i], i
        i += 1
        if part.isspace():
            continue
        while i < len(parts) and depth[i] > depth[start]:
            i += 1
        if i < len(parts) and i > start + 1:
            i += 1  # the closing bracket
        piece = parts[start:i]
        joins = units and (
            takes > 0 or part in ("^", "_", "!", "'") or (len(units[-1]) and units[-1][-1] in ("^", "_"))
        )
        if joins:
            units[-1] += piece
            takes = max(0, takes - 1) if part not in ("^", "_", "!", "'", "[") else takes
        else:
            units.append(piece)
        if part in (r"\frac", r"\dfrac", r"\tfrac", r"\binom"):
            takes = 2
        elif part == r"\sqrt" or part in (
            r"\sin",
            r"\cos",
            r"\tan",
            r"\log",
            r"\ln",
            r"\text",
            r"\mbox",
            r"\mathrm",
            r"\textbf",
        ):
            takes = 1
    if len(units) > 1:
        for j, unit in enumerate(units):
            if unit in (["*"], [r"\cdot"], [r"\times"], ["/"], [r"\,"], [r"\ "], ["~"], [","]) or unit[:2] == [
                "{",
                ",",
            ]:
                continue
            worded = unit[0] in ("cm", "am", r"\text", r"\mbox", r"\mathrm", r"\textbf", r"\rm", "%", r"\%", r"\$")
            rest = [*units[:j], *units[j + 1 :]]
            yield Fragment(" ".join("".join(one) for one in rest).strip(" *"), "its unit" if worded else "a factor")
            yield Fragment("".join(unit), "all but a factor")


def _groups(parts: list[str], depth: list[int]) -> Iterator[Fragment]:
    """Exponents, arguments, entries, and what commands are applied to."""
    for i, part in enumerate(parts):
        if part in ("^", "_") and i + 1 < len(parts) and depth[i] == 0:
            end = i + 2
            while end < len(parts) and depth[end] > 0:
                end += 1
            end = end + 1 if parts[i + 1] == "{" else i + 2
            inside = "".join(parts[i + 1 : end])
            if parts[max(0, i - 2) : i + 1].count(r"\log") and inside.strip("{}") == "10":
                continue
            kind = "its unit" if "circ" in inside else "an exponent" if part == "^" else "an index"
            kind = "its label" if part == "_" and _names_the_rest(parts, i) else kind
            yield Fragment("".join(parts[:i] + parts[end:]).strip(), kind)
            yield Fragment(inside.strip("{}"), "all but an exponent")
        if (
            part in (r"\frac", r"\dfrac", r"\tfrac", r"\sqrt", r"\sin", r"\cos", r"\tan", r"\ln", r"\log")
            and depth[i] == 0
        ):
            yield Fragment("".join(parts[:i] + parts[i + 1 :]).strip(), "a command")
        if part == "!" and i == len(parts) - 1:
            yield Fragment("".join(parts[:i]), "a factorial")
        if depth[i] == 0 and (part.removeprefix("\\left").strip() in _OPENING or part.startswith("\\begin")):
            end = next((j for j in range(i + 1, len(parts)) if depth[j] == 0), len(parts))
            head, inner, tail = parts[: i + 1], parts[i + 1 : end], parts[end:]
            commas = [
                d == depth[i] + 1 and p in (",", ";", "&", r"\\")
                for p, d in zip(inner, depth[i + 1 : end], strict=True)
            ]
            for one in _cut(inner, commas, "an entry"):
                yield one
                yield Fragment("".join(head) + one.text + "".join(tail), "an entry")
            if not any(commas) and i > 0 and parts[i - 1] not in _WORDED:
                yield Fragment("".join(inner).strip(), "all but an argument")
