"""Objects in a temporary file: read back as they were, by number and by problem, in little memory."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.errors import StoreError
from stepreward.core.files import stored_rows
from stepreward.core.files.stored_rows import Stored, StoredRows
from stepreward.core.types import Problem, Step, Trajectory


@given(st.lists(st.one_of(st.integers(), st.text(), st.lists(st.floats(allow_nan=False)))))
def test_items_come_back_as_they_were(items: list[object]) -> None:
    stored = Stored[object]()
    for at, one in enumerate(items):
        stored.append(one)
        assert stored[at] == stored[-1] == one
    assert list(stored) == items
    with pytest.raises(IndexError):
        stored[len(items)]


def test_threads_read_at_the_same_time() -> None:
    stored = Stored[str]()
    for i in range(200):
        stored.append(str(i) * 500)
    wrong: list[int] = []

    def read() -> None:
        wrong.extend(i for i in range(200) if stored[i] != str(i) * 500)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []


def test_a_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stored_rows.tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(StoreError, match=r"cannot write a temporary file in .*none: .*TMPDIR"):
        Stored[str]()


def large(n: int) -> Iterator[Trajectory]:
    """Rows of 20 KB that do not compress to nothing, four a problem."""
    rng = np.random.default_rng(0)
    for i in range(n):
        text = rng.bytes(10_000).hex()
        yield Trajectory(Problem(str(i % (n // 4)), "Say something"), (Step(text),), columns={"label": np.ones(1)})


def test_rows_come_back_by_problem_in_little_memory() -> None:
    """400 rows hold 8 MB of text; scattered rows of a problem are together."""
    tracemalloc.start()
    rows = StoredRows()
    rows.extend(large(400))
    assert [sum(len(one.text) for one in rows.of(number)) for number in range(len(rows))] == [80_000] * 100
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6
    assert rows.problems == [str(i) for i in range(100)]


def test_equal_ids_of_two_sources_are_two_problems() -> None:
    rows = StoredRows()
    for source, words in (("a", "x"), ("b", "y"), ("a", "z")):
        rows.extend([Trajectory(Problem("1", "?"), (Step(words),))], source)
    assert rows.problems == ["1", "1"]
    assert [[one.text for one in rows.of(number)] for number in (0, 1)] == [["x", "z"], ["y"]]
