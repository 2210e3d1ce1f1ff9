"""Judges equations with letters: identities at points, and what follows from or contradicts earlier equations.

Runs in a worker process of `tasks.equations.algebra`, since a Groebner basis may take for ever. Text is read by our own
reader and never by SymPy, whose objects are built from what was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stepreward.core.optional import Deferred
from stepreward.tasks.equations.written_equations import Chain, chains
from stepreward.tasks.expression_points import Evaluator, floating, mpmath
from stepreward.tasks.expressions import Node, NotAnExpression, TooCostly, holds, read, symbols_of

rings: Any = Deferred("sympy.polys.rings")
domains: Any = Deferred("sympy.polys.domains")
groebner: Any = Deferred("sympy.polys.groebnertools")
LETTERS, EQUATIONS, DEGREE, SOLUTIONS, TERMS = 3, 4, 4, 16, 200
"""Bounds of a system of equations: letters, equations, degree of each, product of degrees, terms of a polynomial."""
_SUPPOSED = re.compile(
    r"\b(?:if|let|case|cases|suppose|assume|assuming|try|trying|when|say|for|check|test|example|either|or|not|values?|"
    r"solutions?|roots?|first|consider|plug\w*|substitut\w*|setting|set|put\w*|choos\w*)\b"
)
"""Words after which an equation may be tried, one of several, or only named; it is then neither judged nor used."""
_DECIMALS = re.compile(r"^-?\d*\.(\d+)$")
_CALL = re.compile(r"(?<![A-Za-z\\])[A-Za-z]\(-?\d+\)")
"""A letter before a number in brackets may be a function."""
Sides = tuple[Node, Node]
Said = tuple[bool | None, str, str]
"""Whether a step or an equation is right, the kind of error, and the claim."""


class SolutionAlgebra:
    """What the equations of a solution so far say of the next ones."""

    def __init__(self) -> None:
        self._known: list[Sides] = []
        self._begun = 0
        """Number of equations known before this step."""
        self._supposed = False
        """Whether this step has tried something so far."""

    def step(self, text: str) -> Said:
        """The verdict on a step: wrong at its first wrong equation, right if none is wrong and one is right."""
        self._begun, self._supposed = len(self._known), False
        said = [one for chain in chains(text) for one in self._chain(chain)]
        wrong = next((one for one in said if one[0] is False), None)
        return wrong or (any(one[0] for one in said) or None, "", "")

    def _chain(self, chain: Chain) -> Iterator[Said]:
        self._supposed |= _SUPPOSED.search(chain.lead) is not None
        nodes = [_read(side) for side in chain.sides]
        for at, exact in enumerate(chain.exact):
            left, right, texts = nodes[at], nodes[at + 1], chain.sides[at : at + 2]
            # Without its words `2 hours = 120 minutes` says something else.
            sure = exact and not chain.worded and not any("." in text for text in texts)
            if left is None or right is None or left == right or any(_CALL.search(text) for text in texts):
                continue
            if any(holds(side, ("apply", "infty", r"\pm", r"\mp")) for side in (left, right)):
                continue
            if not _letters((left, right)):
                said, kind = numbers_agree((left, right), texts, exact=exact), "arithmetic"
                yield None if said is False and chain.worded else said, kind, " = ".join(texts)
            elif exact:
                said, kind = self._with_letters((left, right), sure=sure, inner=at > 0)
                yield said, kind, " = ".join(texts)

    def _with_letters(self, claim: Sides, *, sure: bool, inner: bool) -> tuple[bool | None, str]:
        """The verdict on an equation with letters; what is new is known from then on."""
        if agree_at_points(claim) or follows(self._known, claim):
            return True, ""
        letters, sure = _letters(claim), sure and not self._supposed
        same = [one for one in self._known[self._begun :] if _letters(one) == letters]
        strangers = not any(_letters(one) & letters for one in self._known[:-1])
        if not self._supposed:
            self._known.append(claim)
        # It rewrites the last equation in its letters; one that gave a letter its value may have been one of several.
        if sure and same and not _gives_value(same[-1]) and contradicts(same[-1], claim):
            return False, "contradiction"
        # In the middle of a chain, with nothing else known of its letters, it can only be meant for all their values.
        both = symbols_of(claim[0]) == symbols_of(claim[1])
        if sure and inner and both and strangers and _polynomial(claim, *_ring(letters)) is not None:
            return False, "algebra"
        return None, ""


def _letters(sides: Sides) -> frozenset[str]:
    return symbols_of(sides[0]) | symbols_of(sides[1])


def _gives_value(sides: Sides) -> bool:
    return any(one[0] == "symbol" and not symbols_of(other) for one, other in (sides, sides[::-1]))


def _read(text: str) -> Node | None:
    try:
        return read(text)
    except (NotAnExpression, TooCostly, RecursionError):
        return None


def numbers_agree(sides: Sides, texts: Sequence[str], *, exact: bool) -> bool | None:
    """Whether two sides without letters have one value, to the digits written; None where that is left open.

    Args:
        sides, texts: as they were read, and written.
        exact: they are said to be equal and not about equal, which forgives 2 %.
    """
    bare = [node[0] == "number" or (node[0] == "-" and node[1][0] == "number") for node in sides]
    if all(bare):
        return None
    try:
        one, other = (floating(Evaluator().value(node)) for node in sides)
    except (NotAnExpression, TooCostly):
        return None
    gap, size = abs(one - other), max(abs(one), abs(other))
    decimals = [len(found[1]) for text in texts if (found := _DECIMALS.match(text.replace(" ", "")))]
    slack = max(size * mpmath.mpf(10) ** -9, mpmath.mpf(10) ** -min(decimals) if decimals else 0)
    if gap <= (slack if exact else max(slack, size / 50)):
        return True
    # The base of a logarithm, percents, rounded numbers, quotients with a remainder: people write more than they say.
    unsure = any(holds(node, ("log", "i", "e", "!", "lfloor")) for node in sides)
    return None if unsure or any(set("%.:") & {*text} for text in texts) or (any(bare) and gap < 1) else False


def agree_at_points(sides: Sides) -> bool:
    """Whether two sides have equal values wherever their letters are: at three points drawn from their names."""
    for turn in range(3):
        try:
            one, other = (floating(Evaluator(turn).value(node)) for node in sides)
        except (NotAnExpression, TooCostly):
            return False
        if not abs(one - other) <= max(abs(one), abs(other)) * mpmath.mpf(10) ** -40:
            return False
    return True


def follows(known: Sequence[Sides], claim: Sides) -> bool:
    """Whether the polynomial of an equation is in the ideal of those of known ones that share letters with it.

    The latest ones are used, within the bounds; nothing follows from such as contradict each other.
    """
    letters = _letters(claim)
    chosen: list[Sides] = []
    for one in reversed(known):
        mine = _letters(one)
        if len(chosen) < EQUATIONS and mine & letters and len(letters | mine) <= LETTERS:
            chosen.append(one)
            letters |= mine
    ring, given = _ring(letters)
    own, polynomials, product = _polynomial(claim, ring, given), [], 1
    for one in chosen:
        made = _polynomial(one, ring, given)
        if made is not None and product * _degree(made) <= SOLUTIONS:
            product *= _degree(made)
            polynomials.append(made)
    if own is None or not polynomials:
        return False
    basis = groebner.groebner(polynomials, ring)
    return bool(basis != [ring.one] and own.rem(basis) == 0)


def contradicts(known: Sides, claim: Sides) -> bool:
    """Whether two equations have no common solution, in complex numbers either, though the first one has some."""
    ring, given = _ring(_letters(claim) | _letters(known))
    one, other = (_polynomial(sides, ring, given) for sides in (known, claim))
    if one is None or other is None or not _degree(one) or _degree(one) * _degree(other) > SOLUTIONS:
        return False
    return bool(groebner.groebner([one, other], ring) == [ring.one])


def _ring(letters: frozenset[str]) -> tuple[Any, dict[str, Any]]:
    """The polynomials over rational numbers, and the variable of each letter."""
    ring, *variables = rings.ring([f"x{at}" for at in range(len(letters))], domains.QQ)
    return ring, dict(zip(sorted(letters), variables, strict=True))


def _degree(made: Any) -> int:
    return int(max(sum(powers) for powers in made.itermonoms()))


def _polynomial(sides: Sides, ring: Any, given: Mapping[str, Any]) -> Any:
    """The numerator of the difference of two sides; None where it is 0, or no polynomial within the bounds."""
    if len(given) > LETTERS:
        return None
    try:
        (a, b), (c, d) = (_ratio(side, ring, given) for side in sides)
    except NotAnExpression:
        return None
    made = a * d - c * b
    return made if made and _degree(made) <= DEGREE else None


def _ratio(node: Node, ring: Any, given: Mapping[str, Any]) -> tuple[Any, Any]:
    """Numerator and denominator of an expression as polynomials.

    Raises:
        NotAnExpression: a part of it is no rational function of the letters within the bounds, or divides by zero.
    """
    kind, parts = node[0], node[1:]
    if kind == "number":
        return ring.ground_new(parts[0].numerator), ring.ground_new(parts[0].denominator)
    if kind == "symbol":
        return given[parts[0]], ring.one
    if kind == "^":
        power = parts[1][1] if parts[1][0] == "number" else None
        if power is None or power.denominator != 1 or power > DEGREE:
            raise NotAnExpression("no small whole power")
        a, b = _ratio(parts[0], ring, given)
        return _within(a ** int(power)), _within(b ** int(power))
    if kind not in ("sum", "-", "*", "/"):
        raise NotAnExpression(f"{kind} is no rational function")
    ratios = [_ratio(part, ring, given) for part in parts]
    a, b = ratios[0]
    if kind == "-":
        return -a, b
    for c, d in ratios[1:]:
        if kind == "/" and not c:
            raise NotAnExpression("division by zero")
        a, b = {"sum": (a * d + c * b, b * d), "*": (a * c, b * d), "/": (a * d, b * c)}[kind]
        a, b = _within(a), _within(b)
    return a, b


def _within(made: Any) -> Any:
    if len(made) > TERMS or (made and _degree(made) > DEGREE**2):
        raise NotAnExpression("too many terms")
    return made


def judge_steps(job: Mapping[str, Any]) -> list[Said]:
    """The verdicts on steps, one after another, each with the equations before it.

    Args:
        job: `problem`, its text, and `steps`, theirs.
    """
    judge = SolutionAlgebra()
    judge.step(job["problem"])
    return [judge.step(text) for text in job["steps"]]
