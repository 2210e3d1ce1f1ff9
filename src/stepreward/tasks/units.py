"""Units after a value: their names, and where the value ends."""

from __future__ import annotations

import re
from fractions import Fraction

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
_SIZES: tuple[dict[str, str], ...] = (
    {"mm": "1", "cm": "10", "dm": "100", "m": "1000", "km": "1000000"},
    {"inch": "1", "foot": "12", "yard": "36", "mile": "63360"},
    {"mg": "1", "g": "1000", "kg": "1000000"},
    {"oz": "1", "lb": "16"},
    {"ml": "1", "l": "1000"},
    {"second": "1", "minute": "60", "hour": "3600", "day": "86400", "week": "604800"},
    {"cent": "1", "dollar": "100"},
)
"""Units that measure the same, each in the smallest of them."""
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
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")


def split_unit(text: str) -> tuple[str, str]:
    """A tidied value and its unit, "" where it has none: `5 cm` and `5` beside `cm`."""
    if _MONEY.search(text):
        bare, unit = split_unit(_MONEY.sub("", text).strip())
        return bare, "dollar" if unit in ("", "dollar") else unit
    if _PERCENT.search(text):
        return _PERCENT.sub("", text), "%"
    # In sin 30° the degrees belong to the angle, not to the value.
    if _DEGREES.search(text) and not _TRIGONOMETRIC.search(text):
        return _DEGREES.sub("", text), "degree"
    found = _TAIL.match(text)
    if found is None or not re.search(r"\d|\\[A-Za-z]|^[a-z]\s*$", found["value"]) or "\\text" in found["value"]:
        return text, ""
    return found["value"].strip(), _unit_name(found["unit"])


def same_unit(one: str, other: str) -> bool:
    """Whether two units are the same; the word "unit" matches any unit of the same power."""
    bases = [re.sub(r"^[a-z]+", "unit", unit) for unit in (one, other)]
    return one == other or ("unit" in (one[:4], other[:4]) and bases[0] == bases[1])


def factor_of(unit: str, wanted: str) -> Fraction | None:
    """The factor from one unit to another; None where they measure different quantities."""
    for sizes in _SIZES:
        if unit in sizes and wanted in sizes:
            return Fraction(sizes[unit]) / Fraction(sizes[wanted])
    return None


def _unit_name(unit: str) -> str:
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
