"""Small functions that generated repositories are made of, and calls that test them. None has a loop without an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Draw = Callable[[np.random.Generator], Any]


def whole(low: int, high: int) -> Draw:
    """Draws a whole number, both ends included."""
    return lambda rng: int(rng.integers(low, high + 1))


def several(draw: Draw, fewest: int = 2, most: int = 6) -> Draw:
    """Draws a list."""
    return lambda rng: [draw(rng) for _ in range(int(rng.integers(fewest, most + 1)))]


def one_of(*values: Any) -> Draw:
    """Draws one of the values."""
    return lambda rng: values[int(rng.integers(len(values)))]


WORD = one_of("red", "blue", "tea", "oak", "sun", "map", "ink", "jar", "fox", "rye")


def text(rng: np.random.Generator) -> str:
    """A few words."""
    return " ".join(several(WORD, 2, 5)(rng))


@dataclass(frozen=True)
class SmallFunction:
    """A function of a repository."""

    name: str
    source: str
    """Python, with `{setting}` where a number of the repository's own stands, and `{function}` where another is called;
    no other braces."""
    arguments: tuple[Draw, ...]
    """What each argument of a test is drawn by."""
    settings: Mapping[str, Draw]
    calls: tuple[str, ...] = ()
    """Functions that it calls; they may stand in other modules."""


FUNCTIONS: Sequence[SmallFunction] = (
    SmallFunction(
        "total",
        '''def total(prices):
    """Sum of the prices."""
    result = 0
    for price in prices:
        result = result + price
    return result
''',
        (several(whole(1, 40)),), {},
    ),
    SmallFunction(
        "discounted",
        '''def discounted(price, percent):
    """The price less a percentage, rounded up; percentages above {most} count as {most}."""
    if percent > {most}:
        percent = {most}
    return price - price * percent // 100
''',
        (whole(20, 400), whole(10, 90)), {"most": one_of(40, 50, 60)},
    ),
    SmallFunction(
        "shipping",
        '''def shipping(weight):
    """Nothing below {light}; from there on {fee}, and 1 more for each unit above."""
    if weight < {light}:
        return 0
    return {fee} + (weight - {light})
''',
        (whole(1, 12),), {"light": whole(3, 7), "fee": whole(4, 15)},
    ),
    SmallFunction(
        "clamped",
        '''def clamped(value, low, high):
    """The value, but no less than low and no more than high."""
    if value < low:
        return low
    if value > high:
        return high
    return value
''',
        (whole(-9, 19), whole(0, 4), whole(6, 10)), {},
    ),
    SmallFunction(
        "running_totals",
        '''def running_totals(values):
    """The sum of the values up to and with each."""
    result = []
    so_far = 0
    for value in values:
        so_far = so_far + value
        result.append(so_far)
    return result
''',
        (several(whole(-5, 9)),), {},
    ),
    SmallFunction(
        "chunks",
        '''def chunks(values, size):
    """The values in lists of the size; the last one may be shorter."""
    result = []
    for start in range(0, len(values), size):
        result.append(values[start:start + size])
    return result
''',
        (several(whole(0, 9), 3, 8), whole(2, 3)), {},
    ),
    SmallFunction(
        "largest_gap",
        '''def largest_gap(values):
    """The largest difference of neighbours once the values are sorted; 0 for fewer than two."""
    ordered = sorted(values)
    gap = 0
    for position in range(1, len(ordered)):
        difference = ordered[position] - ordered[position - 1]
        if difference > gap:
            gap = difference
    return gap
''',
        (several(whole(0, 30), 1, 6),), {},
    ),
    SmallFunction(
        "word_counts",
        '''def word_counts(text):
    """How often each word of a text occurs."""
    counts = dict()
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return counts
''',
        (text,), {},
    ),
    SmallFunction(
        "long_words",
        '''def long_words(text):
    """The words of at least {length} letters, in order and each once."""
    found = []
    for word in text.split():
        if len(word) >= {length} and word not in found:
            found.append(word)
    return found
''',
        (text,), {"length": whole(3, 4)},
    ),
    SmallFunction(
        "shifted",
        '''def shifted(text, by):
    """A text whose small letters are moved on in the alphabet, z followed by a; anything else stays."""
    result = ""
    for letter in text:
        if "a" <= letter <= "z":
            letter = chr((ord(letter) - 97 + by) % 26 + 97)
        result = result + letter
    return result
''',
        (text, whole(1, 25)), {},
    ),
    SmallFunction(
        "is_leap",
        '''def is_leap(year):
    """Whether a year of the Gregorian calendar has a 29th of February."""
    if year % 400 == 0:
        return True
    return year % 4 == 0 and year % 100 != 0
''',
        (one_of(1900, 2000, 2023, 2024, 2100, 1996, 2400),), {},
    ),
    SmallFunction(
        "nested_depth",
        '''def nested_depth(text):
    """How deep round brackets are nested; -1 where they do not match."""
    depth = 0
    deepest = 0
    for letter in text:
        if letter == "(":
            depth = depth + 1
        if letter == ")":
            depth = depth - 1
        if depth < 0:
            return -1
        deepest = max(deepest, depth)
    return deepest if depth == 0 else -1
''',
        (one_of("(a(b))", "()()", "((", "a)b(", "((x)(y(z)))", "none"),), {},
    ),
    SmallFunction(
        "invoice",
        '''def invoice(prices, percent):
    """What is paid: the discounted total, and shipping by the number of items."""
    return {discounted}({total}(prices), percent) + {shipping}(len(prices))
''',
        (several(whole(1, 40), 2, 9), whole(5, 90)), {}, ("discounted", "total", "shipping"),
    ),
    SmallFunction(
        "peak",
        '''def peak(values):
    """The highest running total, and 0 for no values."""
    highest = 0
    for reached in {running_totals}(values):
        if reached > highest:
            highest = reached
    return highest
''',
        (several(whole(-5, 9)),), {}, ("running_totals",),
    ),
    SmallFunction(
        "favourite",
        '''def favourite(text):
    """The word that occurs most often; of several the first in the alphabet."""
    counts = {word_counts}(text)
    best = ""
    for word in sorted(counts):
        if not best or counts[word] > counts[best]:
            best = word
    return best
''',
        (text,), {}, ("word_counts",),
    ),
)  # fmt: skip
