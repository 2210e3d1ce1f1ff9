"""What every format of the registry keeps: one format a row, round trips, documented options, only stated errors."""

from __future__ import annotations

import copy
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepreward import formats
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.types import Comparison, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.registry import MISSHAPEN, Reading, by_name, evidence, fitting
from stepreward.formats.registry import formats as registry
from tests.effort import scaled

from .examples import EXAMPLES, FOLDER

JOINED = frozenset({
    "agent-process-bench-judge", "agent-reward-bench", "agent-reward-bench-judgment", "pool", "process-bench-scores",
})  # fmt: skip
"""Formats of two files; their examples are rows as joined."""
LOSSLESS = (
    "actprm", "bigbench-mistake", "comparisons", "er-prm", "implicit-prm", "masprm", "math-shepherd", "mp-bench",
    "mr-gsm8k", "openr", "openrlhf", "prm-bench", "process-bench", "rlhflow", "scan", "socratic-prm-bench", "trl",
    "unprm", "visual-process-bench", "who-and-when",
)  # fmt: skip
"""Formats whose rows come back as they were, options permitting."""
MIXED = frozenset({"comparisons", "mr-gsm8k"})
"""Formats with a column of several types, as texts and lists, which Parquet cannot hold where they meet."""
ALONE = sorted(set(EXAMPLES) - JOINED)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def rows_of(form: Format, row: Any, number: int = 1) -> list[Any]:
    return list(form.read(row, number))


def read_one(form: Format, row: Any, path: Path) -> Reading[Any]:
    """The row between two good ones, as a user's file has it."""
    good = EXAMPLES[form.name][0]
    path.write_text("".join(json.dumps(one) + "\n" for one in (good, row, good)), encoding="utf-8")
    return Reading(path, form)


@pytest.mark.parametrize("name", sorted(registry))
def test_every_format_has_examples(name: str) -> None:
    assert name in EXAMPLES, f"add rows in its layout as tests/formats/examples/{name}.jsonl"
    assert set(EXAMPLES) <= set(registry)


@pytest.mark.parametrize("name", ALONE)
def test_each_row_fits_its_format_and_no_other(name: str) -> None:
    for row in EXAMPLES[name]:
        assert [form.name for form in fitting(row)] == [name]
    found = evidence(FOLDER / f"{name}.jsonl")
    assert (found.format.name, found.row, found.agreeing, found.seen) == (name, 1, *[len(EXAMPLES[name])] * 2)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_each_row_reads_into_its_kind(name: str) -> None:
    form = by_name(name)
    for number, row in enumerate(EXAMPLES[name], start=1):
        before = copy.deepcopy(row)
        items = rows_of(form, row, number)
        assert row == before, "a reader changes its row"
        assert items
        for item in items:
            assert isinstance(item, Comparison if form.kind == "comparisons" else Trajectory)
            if isinstance(item, Trajectory):
                well_made(item)


def well_made(item: Trajectory) -> None:
    steps = len(item)
    assert steps == len(item.labels) > 0
    known = item.labels[~np.isnan(item.labels)]
    assert ((known >= 0) & (known <= 1)).all()
    assert item.first_error is None or -1 <= item.first_error < steps
    # Our own table states both, and soft labels need not be 0 at the first error.
    stated = any(not name.startswith(("label", "score")) for name in item.columns)
    if item.first_error is not None and item.first_error >= 0 and not stated:
        assert item.labels[item.first_error] == 0
        assert not (item.labels[: item.first_error] == 0).any()
    assert all(score.shape == (steps,) for score in item.scores.values())
    json.dumps(item.facts)
    json.dumps([dict(step.meta) for step in item.steps])
    json.dumps(dict(item.problem.meta))


@pytest.mark.parametrize("name", sorted(name for name, form in registry.items() if form.write and name in EXAMPLES))
def test_what_is_written_reads_the_same(name: str, tmp_path: Path) -> None:
    form = by_name(name)
    items = [item for number, row in enumerate(EXAMPLES[name], 1) for item in rows_of(form, row, number)]
    for ending in (".jsonl", ".json.gz", *([".parquet"] if name not in MIXED else [])):
        path = tmp_path / f"again{ending}"
        assert formats.write(path, items, name) == []
        again: list[Any] = list(Reading(path, form, strict=True))
        assert len(again) == len(items)
        for one, other in zip(items, again, strict=True):
            same(one, other)


def same(one: Any, other: Any) -> None:
    if isinstance(one, Comparison):
        assert [c.text for c in one.candidates] == [c.text for c in other.candidates]
        assert one.preferred == other.preferred
        return
    assert [step.text for step in one.steps] == [step.text for step in other.steps]
    assert [step.kind for step in one.steps] == [step.kind for step in other.steps]
    assert one.problem.messages == other.problem.messages
    assert one.problem.meta.get("images") == other.problem.meta.get("images")
    assert one.first_error == other.first_error
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.outcome, other.outcome)


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_their_rows_back(name: str) -> None:
    form = by_name(name)
    chosen: dict[int, dict[str, Any]] = {1: {"key": "label", "threshold": 0.5}} if name == "openrlhf" else {}
    chosen = {1: {"scale": "packed"}} if name == "masprm" else chosen
    assert form.write
    for number, row in enumerate(EXAMPLES[name]):
        (item,) = rows_of(form, row)
        assert form.write(item, **chosen.get(number, {})) == row


def options_of(form: Format) -> list[tuple[Callable[..., Any], str]]:
    functions = [function for function in (form.read, form.write) if function is not None]
    return [(function, name) for function in functions for name in form.options(function)]


@pytest.mark.parametrize("name", sorted(registry))
def test_every_option_is_documented(name: str) -> None:
    for function, option in options_of(by_name(name)):
        text = inspect.getdoc(function) or ""
        assert re.search(rf"^    {option}: ", text, re.MULTILINE), f"{function.__name__}: {option} has no line in Args"


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_choice_of_an_option_is_one(name: str) -> None:
    form = by_name(name)
    for option, hint in get_type_hints(form.read).items():
        for kind in (hint, *get_args(hint)):
            for choice in get_args(kind) if get_origin(kind) is Literal else ():
                assert list(form.read(EXAMPLES[name][0], 1, **{option: choice}))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_unknown_value_of_an_option_is_an_input_error(name: str) -> None:
    form = by_name(name)
    for function, option in options_of(form):
        default = form.options(function)[option]
        if not isinstance(default, str) or option in ("separator", "tag", "mark", "scorer"):
            continue
        item = rows_of(form, EXAMPLES[name][0])[0]
        shown = item if isinstance(item, Comparison) else unlabelled_at_its_end(item)
        given = (EXAMPLES[name][0], 1) if function is form.read else (shown,)
        with pytest.raises((InputError, UnknownNameError)):
            list(function(*given, **{option: "no such value"}))


def unlabelled_at_its_end(item: Trajectory) -> Trajectory:
    """A solution of which `unknown` must be decided."""
    made = item.labels.copy()
    made[-1] = np.nan
    return replace(item.with_columns({"label": made}), first_error=None)


# Readers meet what people's files hold: every error is the documented one, and the good rows around it are kept.


@pytest.mark.sampled(4)
@settings(max_examples=scaled(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_rows_with_anything_changed_cost_no_other_row(name: str, data: st.DataObject, tmp_path: Path) -> None:
    form = by_name(name)
    row = mutated(copy.deepcopy(data.draw(st.sampled_from(EXAMPLES[name]))), data)
    kept_around(form, row, tmp_path)


@pytest.mark.sampled(4)
@settings(max_examples=scaled(8), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.dictionaries(st.text(max_size=8), json_values, max_size=6))
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_arbitrary_rows_cost_no_other_row(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    kept_around(by_name(name), row, tmp_path)


def bad_rows(form: Format, row: Any) -> range:
    """The numbers that a changed second line has: a log of several samples is numbered by the sample."""
    samples = row.get("samples") if form.name == "inspect" and isinstance(row, dict) else None
    return range(2, 3 + max(len(samples) - 1, 0)) if isinstance(samples, list) else range(2, 3)


def kept_around(form: Format, row: Any, folder: Path) -> None:
    if form.name in JOINED:
        try:
            items = rows_of(form, row)
        except MISSHAPEN:
            return
    else:
        reading = read_one(form, row, folder / "rows.jsonl")
        good = len(rows_of(form, EXAMPLES[form.name][0]))
        items = list(reading)
        assert len(items) >= 2 * good
        for error in reading.bad:
            assert error.row in bad_rows(form, row)
            assert error.remedy
    for item in items:
        if isinstance(item, Trajectory):
            well_made(item)
            round_trip_or_say_why(form, item)


def round_trip_or_say_why(form: Format, item: Any) -> None:
    if form.write:
        try:
            json.dumps(form.write(item))
        except InputError:
            return


@settings(max_examples=scaled(100), deadline=None)
@given(row=st.dictionaries(st.text(max_size=8), json_values, max_size=6))
def test_recognising_never_fails_on_arbitrary_rows(row: dict[str, Any]) -> None:
    for form in registry.values():
        assert form.matches(row) in (True, False)


@settings(max_examples=scaled(150), deadline=None)
@given(data=st.data())
def test_recognising_never_fails_on_changed_rows(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(EXAMPLES)))
    row = mutated(copy.deepcopy(data.draw(st.sampled_from(EXAMPLES[name]))), data)
    for form in registry.values():
        assert form.matches(row) in (True, False)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value inside a value stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, one in inner for path in [(*at, key), *places(one, (*at, key))]]


def mutated(row: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """The row with one to three places dropped, retyped, truncated or doubled."""
    for _ in range(data.draw(st.integers(1, 3))):
        found = places(row)
        if not found:
            break
        *above, last = data.draw(st.sampled_from(found))
        holder: Any = row
        for key in above:
            holder = holder[key]
        value = holder[last]
        how = data.draw(st.sampled_from(["drop", "retype", "truncate", "double"]))
        if how == "drop":
            del holder[last]
        elif how == "retype" or not isinstance(value, str | list):
            holder[last] = data.draw(json_values)
        else:
            holder[last] = value[: len(value) // 2] if how == "truncate" else value * 2
    return row
