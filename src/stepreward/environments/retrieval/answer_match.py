"""Answers to questions about facts, compared by their words."""

from __future__ import annotations

import re
import string
from collections import Counter

_LEFT_OUT = str.maketrans("", "", string.punctuation)


def normal(answer: str) -> str:
    """An answer in small letters, without articles and punctuation, one space between words."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", answer.lower().translate(_LEFT_OUT)).split())


def exact_match(answer: str, reference: str) -> float:
    """1 where both are equal in `normal` form, else 0: SQuAD's exact match."""
    return float(normal(answer) == normal(reference))


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words of both in `normal` form, as bags: SQuAD's; equality where either has none.

    F1 = 2 n / (|answer| + |reference|),    n words in common
    """
    one, other = Counter(normal(answer).split()), Counter(normal(reference).split())
    if not one or not other:
        return float(one == other)
    return 2 * (one & other).total() / (one.total() + other.total())
