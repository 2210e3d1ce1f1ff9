"""The contract of a method, by its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stepreward.core.errors import ContractError, InputError
from stepreward.core.method import Method
from stepreward.testing.check_flat import check_flat
from stepreward.testing.check_loss import check_loss
from stepreward.testing.check_search import check_search
from stepreward.testing.rules import require

_TEXTS = (
    "", "one line", "  Two lines.\nSecond line.  \n", "a\n\nb\n\n\n\nc", "Step 1: x = 3.14\r\nStep 2: e.g. 計算 🙂\n\n",
    "```\ncode\n\nmore\n```\n\n$$ a\n\n= b $$\n", "User: hi\nAssistant: so\n\nWait, no.\n",
)  # fmt: skip
_SCORES = np.array([[0.5, 0.8, 0.0], [0.2, 0.9, 0.4], [0.7, 0.0, 0.0]])
_MASK = np.array([[True, True, False], [True, True, True], [True, False, False]])


def check_method(method: Any, *, batch_wide: bool = False) -> None:
    """Checks that a method keeps the contract of its family.

    Families: segment, aggregate, select, calibrate, loss, credit, shape, search.

    Args:
        method: such as `stepreward.methods["credit"]["pure"]`.
        batch_wide: of credit and shape: whether statistics over the whole batch are meant.

    Raises:
        ContractError: a rule is broken; the message names the rule and the remedy.
        InputError: the family has no contract that can be checked, or `method` is no method.
    """
    if not isinstance(method, Method):
        remedy = "register the function and pass family[name]"
        raise InputError(f"expected a registered method, got {type(method).__name__}", remedy=remedy)
    checks: Mapping[str, Callable[[Method[..., Any]], None]] = {
        "segment": _check_segment, "aggregate": _check_aggregate, "select": _check_select,
        "calibrate": _check_calibrate, "loss": check_loss, "search": check_search,
        "credit": lambda one: check_flat(one, batch_wide=batch_wide),
        "shape": lambda one: check_flat(one, batch_wide=batch_wide),
    }  # fmt: skip
    if method.family not in checks:
        what = f"the family {method.family} has no contract that can be checked"
        raise InputError(what, remedy=f"known: {', '.join(checks)}")
    try:
        checks[method.family](method)
    except (ContractError, KeyboardInterrupt):
        raise
    except Exception as error:
        # A method of others may raise anything: the author needs the rule, and the error as its cause.
        name, found = f"{method.family} {method.name}", f"it raised {type(error).__name__}: {error}"
        raise ContractError(name, "valid data", found, "accept the family's data") from error


def _check_segment(method: Method[..., Any]) -> None:
    for text in _TEXTS:
        steps = method.take({"text": text})
        joined = "".join(step.text for step in steps)
        require(joined == text, method, "lossless steps", f"{text!r} became {joined!r}",
                "keep every character, separators at the end of their step")  # fmt: skip
        blank = len(steps) > 1 and not all(step.text.strip() for step in steps)
        require(not blank, method, "no blank step", f"{text!r} has a step of blanks", "join blanks to the step before")
        again = [step.text for step in method.take({"text": text})]
        same = again == [step.text for step in steps]
        require(same, method, "repeatable", f"{text!r} was cut in two ways", "draw nothing")


def _check_aggregate(method: Method[..., Any]) -> None:
    totals = method(_SCORES.copy(), _MASK)
    found = f"3 rows gave shape {np.shape(totals)}"
    require(np.shape(totals) == (3,), method, "one total a row", found, "reduce the axis of steps")
    before = _SCORES.copy()
    method(before, _MASK)
    require(bool((before == _SCORES).all()), method, "inputs untouched", "it wrote into scores", "work on a copy")
    wide = np.pad(_SCORES, ((0, 0), (0, 2)), constant_values=9.0), np.pad(_MASK, ((0, 0), (0, 2)))
    hidden = np.where(_MASK, _SCORES, np.nan), _MASK
    for scores, mask in (wide, hidden):
        same = np.allclose(method(scores, mask), totals)
        require(same, method, "padding", "values where mask is False change the total", "read scores through the mask")
    same = np.allclose(method(_SCORES[::-1], _MASK[::-1]), totals[::-1])
    require(same, method, "rows are apart", "another order of rows changes totals", "take each row by itself")
    empty = np.asarray(method(_SCORES, np.zeros_like(_MASK)))
    require(bool(np.isnan(empty).all()), method, "NaN for unscored", f"rows without a step got {empty}", "return NaN")


def _check_select(method: Method[..., Any]) -> None:
    data = {
        "totals": np.array([0.1, 0.7, np.nan, 0.4, 0.4, 0.2]), "answers": np.array([0, 1, 0, 2, -1, 2]),
        "group": np.array([3, 3, 3, 1, 1, 1]), "outcome": np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0]),
    }  # fmt: skip
    rows = np.asarray(method.take(data))
    groups = np.unique(data["group"])
    known = rows.shape == groups.shape and rows.dtype.kind == "i" and bool(((rows >= 0) & (rows < 6)).all())
    require(known, method, "one row a group", f"2 groups of 6 rows gave {rows}", "return one row index a group")
    own, found = data["group"][rows].tolist() == groups.tolist(), f"groups {groups} got rows {rows}"
    require(own, method, "its own group", found, "return indices in the order of np.unique(group)")
    alone = np.asarray(method.take({name: value[3:] for name, value in data.items()}))
    same = alone.tolist() == [rows[0] - 3]
    require(same, method, "groups are apart", "another group changes the choice", "look at one group at a time")


def _check_calibrate(method: Method[..., Any]) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(200)
    outcome = (rng.random(200) < scores).astype(np.float64)
    made = method().fit(scores, outcome)
    queries = np.array([[0.1, np.nan], [0.5, 0.9]])
    found = np.asarray(made.predict(queries))
    require(found.shape == queries.shape, method, "same shape", f"(2, 2) scores gave {found.shape}", "keep the shape")
    real = ~np.isnan(queries)
    sane = bool(((found[real] >= 0) & (found[real] <= 1)).all())
    require(sane, method, "probabilities", f"predicted {found[real]}", "return numbers in [0, 1]")
    require(bool(np.isnan(found[~real]).all()), method, "NaN for unscored", "NaN got a probability", "keep NaN")
    again = np.asarray(method().fit(scores, outcome).predict(queries))
    same = np.array_equal(again, found, equal_nan=True)
    require(same, method, "repeatable", "two fits differ", "draw nothing unseeded")
