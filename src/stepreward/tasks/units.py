"""Units behind a value: what they are called, and where the value ends."""

from __future__ import annotations

import re

from stepreward.tasks.latex_text import CLOSE, OPEN

_SAME = {
    "dollars": "dollar", "usd": "dollar", "bucks": "dollar", "degrees": "degree", "deg": "degree", "percent": "%",
    "percents": "%", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "meter": "m", "metre": "m",
    "kilometer": "km", "kilometre": "km", "inche": "inch", "in": "inch", "feet": "foot", "ft": "foot", "hr": "hour",
    "h": "hour", "min": "minute", "sec": "second", "s": "second", "gram": "g", "kilogram": "kg", "liter": "l",
    "litre": "l", "pound": "lb", "ounce": "oz", "mph": "mile/hour", "kph": "km/hour", "kmh": "km/hour", "per": "/",
    "squared": "^2", "cubed": "^3",
}  # fmt: skip
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
_BARE = (
    "mm", "cm", "dm", "km", "kg", "mg", "ml", "lb", "lbs", "oz", "ft", "inch", "inches", "feet", "foot", "hr", "hrs",
    "min", "mins", "sec", "hour", "hours", "minute", "minutes", "second", "seconds", "day", "days", "week", "weeks",
    "month", "months", "year", "years", "mph", "meter", "meters", "metre", "metres", "mile", "miles", "yard",
    "yards", "gram", "grams", "liter", "liters", "dollar", "dollars", "cent", "cents", "percent", "degree",
    "degrees", "unit", "units", "square", "cubic", "sq",
)  # fmt: skip
_UNIT = (
    rf"(?:{OPEN}[^{CLOSE}]*{CLOSE}|(?<![A-Za-z\\])(?:{'|'.join(_BARE)})(?![A-Za-z])|(?<![A-Za-z\\])(?i:[ap]\.?m)\b\.?|"
    r"(?<=\s)(?!and\b|or\b)[A-Za-z]{3,}(?![A-Za-z]))"
)
_TAIL = re.compile(
    rf"^(?P<value>.*?[\w)\]}}!|]\s*)(?P<unit>{_UNIT}(?:{_UNIT}|[\s./()-]|\\cdot|\\times|\^\s*\{{?-?\d\}}?|[A-Za-z])*+)$",
    re.DOTALL,
)
_MONEY = re.compile(r"\\\$|[$€£]")
_PERCENT = re.compile(r"\s*\\?%$")
_DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*(?:[CFK]|\{?" + OPEN + r"[CFK]" + CLOSE + r"\}?)?$")
_TURNING = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")


def split_unit(text: str) -> tuple[str, str]:
    """A tidied value and its unit, "" where it has none: `5 cm` and `5` beside `cm`."""
    if _MONEY.search(text):
        bare, unit = split_unit(_MONEY.sub("", text).strip())
        return bare, "dollar" if unit in ("", "dollar") else unit
    if _PERCENT.search(text):
        return _PERCENT.sub("", text), "%"
    if _DEGREES.search(text) and not _TURNING.search(text):
        return _DEGREES.sub("", text), "degree"
    found = _TAIL.match(text)
    if found is None or not re.search(r"\d|\\[A-Za-z]|^[a-z]\s*$", found["value"]) or "\\text" in found["value"]:
        return text, ""
    return found["value"].strip(), _named(found["unit"])


def same_unit(one: str, other: str) -> bool:
    """Whether two units are one; the plain "unit" is any of the same power."""
    bases = [re.sub(r"^[a-z]+", "unit", unit) for unit in (one, other)]
    return one == other or ("unit" in (one[:4], other[:4]) and bases[0] == bases[1])


def _named(unit: str) -> str:
    words = re.findall(r"[ap]\.m|[A-Za-z]+\.?|\d+|[/^-]", re.sub(rf"[{OPEN}{CLOSE}]", " ", unit.lower()))
    named, power = [], ""
    for word in words:
        low = word.replace(".", "")
        if low in _POWERS:
            power = _POWERS[low]
        elif low not in ("of", "the"):
            low = low[:-1] if len(low) > 2 and low.endswith("s") else low
            named.append(_SAME.get(low, low) + power)
            power = ""
    return "".join(named) or power
