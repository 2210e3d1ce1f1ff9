"""The words of the arithmetic world: names, items, and a sentence for each operation."""

from __future__ import annotations

NAMES = (
    "Mia", "Tom", "Ana", "Ben", "Zoe", "Leo", "Ivy", "Max", "Eva", "Sam", "Noa", "Kai", "Lin", "Raj", "Uma", "Ali",
)  # fmt: skip
ITEMS = (
    "apples", "books", "coins", "stamps", "pens", "shells", "cards", "plums", "beads", "stones", "cups", "keys",
    "rings", "nuts", "balls", "kites",
)  # fmt: skip
CHANGES = {
    "+": (
        "{name} buys {n} more.",
        "{name} finds {n} more {item}.",
        "A friend gives {name} {n} {item}.",
        "Then {name} gets {n} more as a gift.",
    ),
    "-": (
        "{name} loses {n} of them.",
        "{name} gives {n} {item} away.",
        "{name} sells {n} {item}.",
        "Then {n} of the {item} of {name} break.",
    ),
    "*": (
        "The {item} of {name} become {n} times as many.",
        "A trick turns each of the {item} of {name} into {n}.",
    ),
    "/": (
        "{name} keeps one of every {n} {item}.",
        "{name} splits the {item} into {n} equal parts and keeps one part.",
    ),
}
# Each sentence names the new person first, so that its words alone say which operation it takes.
COMPARISONS = {
    "+": ("{name} has {n} more {item} than {other}.",),
    "-": ("{name} has {n} fewer {item} than {other}.",),
    "*": ("{name} has {n} times as many {item} as {other}.",),
    "/": ("For every {n} {item} of {other}, {name} has one.",),
}
TOTALS = (
    "How many {item} do {name} and {other} have together?",
    "How many {item} is that for {name} and {other} in total?",
)
SHARES = {
    "-": (
        "{name} eats or drops {n} {item}. How many {item} are left for {name}?",
        "{name} pays a toll of {n} {item}. How many {item} does {name} have now?",
    ),
    "/": (
        "{name} packs them into {n} equal boxes. How many {item} are in each box?",
        "{name} shares all {item} fairly among {n} friends. How many {item} does each friend get?",
    ),
}
