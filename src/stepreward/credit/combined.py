"""Several credits as one: a weighted sum of advantages, each normalised in its own way, declared as data or as text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

from stepreward.core.catalog import credit
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.method import Method
from stepreward.core.settings_text import read_settings
from stepreward.credit.segments import Array, Groups, Trajectories, one_of, typed, whitened
from stepreward.credit.verify import NOTHING

Norm = Literal["none", "group", "batch", "once"]
"""What is done to advantages: nothing; standardise over all tokens of the group; whiten over all tokens of the batch;
or divide by the number of trajectories that share the step's whole prefix, so that shared steps count once."""
Declared = str | Mapping[str, Any] | Method[..., Array]
"""A credit: a name of the family, a text or a mapping that declares a combination, or the method itself."""
_SUM = re.compile(r"\s\+\s")
_TERM = re.compile(r"(?:(?P<weight>[^*()]+)\*)?\s*(?P<name>[^*()\s]+)\s*(?:\((?P<inside>.*)\))?", re.DOTALL)


@dataclass(frozen=True)
class Term:
    """A credit of a sum.

    Raises:
        UnknownNameError: no such credit, normalisation or setting.
    """

    credit: Declared
    weight: float = 1.0
    norm: Norm = "none"
    """Done to its advantages before they are weighed."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its hyper-parameters."""

    def __post_init__(self) -> None:
        one_of("norm", self.norm, Norm)
        known = self.method.settings
        for name in self.settings:
            if name not in known:
                raise UnknownNameError(f"setting of {self.method.name}", name, known)

    @property
    def method(self) -> Method[..., Array]:
        """The credit as a method."""
        return credit_of(self.credit)


def combined(terms: Sequence[Term], *, norm: Norm = "none", name: str = "") -> Method[..., Array]:
    """A method of the family credit that sums others.

        A_k = n(sum_j w_j n_j(A_k of credit j))

    It takes all data that its terms take. A step or trajectory that one of them cannot score is unscored for all: it
    gets 0, as in every credit. Its one setting `term_weights` replaces the weights w; a trainer may give a function of
    updates for it, as for annealing.

    Args:
        terms: at least one.
        norm: n, done to the sum.
        name: of the method; the sum as text where empty.

    Raises:
        InputError: there are no terms.
        UnknownNameError: no such credit, setting or normalisation.
    """
    one_of("norm", norm, Norm)
    if not terms:
        raise InputError("a combination has no terms", remedy="give at least one credit")
    methods = [term.method for term in terms]
    fixed = [{**method.fixed, **term.settings} for method, term in zip(methods, terms, strict=True)]
    norms = [*(term.norm for term in terms), norm]
    data = dict.fromkeys([*(name for one in methods for name in one.parameters), *(d for n in norms for d in NEEDS[n])])

    def weighted_sum(
        *, term_weights: tuple[float, ...] = tuple(term.weight for term in terms), **given: Array
    ) -> Array:
        """Adds the advantages of several credits, each weighed and normalised in its own way."""
        if len(term_weights) != len(terms):
            raise InputError(f"{len(term_weights)} term_weights for {len(terms)} credits", remedy="give one a term")
        parts = [
            weight * NORMS[term.norm](method.function(**{d: given[d] for d in method.parameters}, **settings), given)
            for term, method, settings, weight in zip(terms, methods, fixed, term_weights, strict=True)
        ]
        return NORMS[norm](reduce(lambda one, other: one + other, parts), given)

    kinds = inspect.Parameter
    weights = inspect.signature(weighted_sum).parameters["term_weights"]
    parameters = [*(kinds(one, kinds.POSITIONAL_OR_KEYWORD) for one in data), weights]
    weighted_sum.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    stated = {method.objective for method in methods}
    # A positive sum of gradients of one objective has its direction; a norm may change it.
    same = len(stated) == 1 and all(term.weight > 0 for term in terms) and set(norms) == {"none"}
    return Method(
        credit.name, name or _text(terms, norm), weighted_sum, "", note="the credits that it names",
        objective=stated.pop() if same else NOTHING, unscored=credit.unscored,
        unverified="; ".join(dict.fromkeys(method.unverified for method in methods if method.unverified)),
    )  # fmt: skip


def credit_of(declared: Declared) -> Method[..., Array]:
    """The credit that a name, a text, a mapping or a method says.

        credit_of("grpo + 0.5*group(step-rloo(outcome_weight=0))")
        credit_of({"terms": [{"credit": "grpo"}, {"credit": "step-rloo", "weight": 0.5, "norm": "group",
                                                  "settings": {"outcome_weight": 0}}]})

    In a text, terms are separated by a plus sign between spaces. A term is a weight and `*`, which may be left out, and
    a name with settings in brackets, or one of the normalisations `group`, `batch` and `once` around another sum.

    Raises:
        InputError: the text or mapping is no combination.
        UnknownNameError: no such credit, setting or normalisation.
    """
    if isinstance(declared, Method):
        return declared
    if isinstance(declared, str):
        return credit[declared] if declared in credit else _read(declared)
    try:
        terms = [Term(**one) for one in declared["terms"]]
        return combined(terms, **{name: value for name, value in declared.items() if name != "terms"})
    except (TypeError, KeyError) as error:
        remedy = "give terms=[{credit, weight, norm, settings}, ...], and norm for the sum"
        raise InputError(f"a combination of credits cannot be read: {error}", remedy=remedy) from error


def _group(made: Array, given: Mapping[str, Array]) -> Array:
    return Groups(_problem(made, given)).standardised(made, typed(given["lengths"], made))


def _once(made: Array, given: Mapping[str, Array]) -> Array:
    return made / Groups.of_pairs(_problem(made, given), given["node"]).count(made)


def _problem(made: Array, given: Mapping[str, Array]) -> Array:
    """(N,) problem of each step."""
    return Trajectories(given["offsets"], made.shape[0]).spread(given["group"])


NORMS: Mapping[str, Callable[[Array, Mapping[str, Array]], Array]] = {
    "none": lambda made, given: made,
    "group": _group,
    "batch": lambda made, given: whitened(made, typed(given["lengths"], made)),
    "once": _once,
}
NEEDS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "group": ("group", "offsets", "lengths"),
    "batch": ("lengths",),
    "once": ("group", "offsets", "node"),
}
"""Data that each normalisation takes."""


def _read(text: str) -> Method[..., Array]:
    """The combination that a text declares."""
    return combined([_read_term(part, text) for part in _split(text, _SUM)], name=text)


def _read_term(part: str, text: str) -> Term:
    found = _TERM.fullmatch(part.strip())
    try:
        weight = float(found["weight"] or 1.0) if found else float("nan")
    except ValueError:
        weight = float("nan")
    if found is None or weight != weight:
        raise InputError(f"{part.strip()!r} is no term of a sum of credits, in {text!r}", remedy=_REMEDY)
    name, inside = found["name"], found["inside"]
    if name in NORMS and name not in credit and inside is not None:
        return Term(credit_of(inside.strip()), weight, norm=name)  # type: ignore[arg-type]
    method = credit[name]
    given = [one for one in _split(inside or "", re.compile(",")) if one.strip()]
    return Term(name, weight, settings=read_settings(given, method)[0])


_REMEDY = "write WEIGHT*NAME(setting=value) + ..., norms group(...), batch(...) or once(...) around what they are of"


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The text cut at a separator outside all brackets."""
    parts, start = [], 0
    for found in separator.finditer(text):
        before = text[: found.start()]
        if sum(map(before.count, "([")) == sum(map(before.count, ")]")):
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def _text(terms: Sequence[Term], norm: Norm) -> str:
    made = " + ".join(map(_term_text, terms))
    return made if norm == "none" else f"{norm}({made})"


def _term_text(term: Term) -> str:
    name = term.method.name
    if term.settings:
        name += f"({', '.join(f'{key}={value}' for key, value in term.settings.items())})"
    name = name if term.norm == "none" else f"{term.norm}({name})"
    return name if term.weight == 1.0 else f"{term.weight:g}*{name}"
