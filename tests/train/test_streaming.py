"""Training data of a table larger than memory: the same trees and the same batches as of rows in memory."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled
from tests.train.test_data import random_labels
from tests.train.toy import toy_labels, toy_model

from stepreward.core.errors import InputError
from stepreward.core.files.stored_rows import StoredRows
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.encode import per_step
from stepreward.train.data.fingerprint import fingerprint
from stepreward.train.data.held_out import held_out_split
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.stored_trees import StoredTrees
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.objective import Objective


def scattered(seed: int) -> list[Trajectory]:
    rows = [*toy_labels(40, 0), *random_labels(seed)]
    random.Random(seed).shuffle(rows)
    return rows


def stored(rows: list[Trajectory]) -> StoredTrees:
    kept = StoredRows()
    kept.extend(rows)
    return StoredTrees(kept, range(len(kept)))


@settings(deadline=None, max_examples=scaled(10))
@given(st.integers(0, 1000))
def test_trees_are_those_of_rows_in_memory(seed: int) -> None:
    rows = scattered(seed)
    trees, on_disk = labelled_trees(rows), stored(rows)
    assert len(on_disk) == len(trees)
    assert fingerprint(on_disk) == fingerprint(trees)
    for one, again in zip(trees, on_disk[:5], strict=False):
        assert [row.steps for row in one.trajectories()] == [row.steps for row in again.trajectories()]
        np.testing.assert_array_equal(one.outcomes, again.outcomes)
        np.testing.assert_array_equal(one.step_column("label"), again.step_column("label"))
    assert on_disk[-1].problem == trees[-1].problem


def digest(data: TrainingSet) -> str:
    """Hash of all arrays of all batches."""
    made = hashlib.blake2b(digest_size=8)
    for batch in data:
        packed = [
            getattr(batch.packed, one.name)
            for one in fields(batch.packed)
            if one.name not in ("tokens", "said", "pairs", "given")
        ]
        for array in (*packed, batch.read, batch.mask, *(batch.data[name] for name in sorted(batch.data))):
            made.update(str(tuple(array.shape)).encode() + array.numpy().tobytes())
    return made.hexdigest()


def test_batches_of_a_seed_are_the_same_streamed_or_not_in_every_release() -> None:
    """The digest was made by the release that had all trees in memory; a resumed training needs equal batches."""
    rows = [*toy_labels(40, 0), *random_labels(3)]
    random.Random(0).shuffle(rows)
    for trees in (labelled_trees(rows), stored(rows)):
        data = TrainingSet(
            trees, toy_model().encoder, row_tokens=96, batch_tokens=256, epochs=1.5, key=Key.seed(5), processes=2
        )
        assert len(data) == 12
        assert digest(data) == "78d432b1418a55da"


def test_memory_is_that_of_a_batch_and_of_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five arrays of 8 bytes a token: all trees together would hold 20 MB at least."""

    def rows() -> Iterator[Trajectory]:
        rng = np.random.default_rng(0)
        for i in range(300):
            text = " ".join(map(str, rng.integers(0, 10**6, 280)))
            yield Trajectory(Problem(str(i), "Say something"), (Step(text),), columns={"label": np.ones(1)})

    encoder = toy_model().encoder
    # A store of fixed size, which these few rows would not fill.
    monkeypatch.setattr(per_step, "KEPT_STEPS", 0)
    tracemalloc.start()
    kept = StoredRows()
    kept.extend(rows())
    data = TrainingSet(
        StoredTrees(kept, range(300)), encoder, row_tokens=4096, batch_tokens=4096, key=Key.seed(0), epochs=2
    )
    tokens = sum(batch.packed.tokens for batch in data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tokens == 2 * data.tokens
    assert 40 * data.tokens > 20e6
    assert peak < 8e6


def test_rows_without_anything_to_learn_are_refused() -> None:
    rows = [Trajectory(Problem("1", "?"), (Step("x"),))]
    with pytest.raises(InputError, match="there is no supervised step to learn from"):
        stored(rows)
    kept = StoredRows()
    kept.extend([rows[0].with_columns({"label": np.array([2.0])})])
    with pytest.raises(InputError, match=r"problem '1' has a label of 2"):
        StoredTrees(kept, [0], Objective.of("bce"))


def test_held_out_problems_do_not_depend_on_the_rows_around_them() -> None:
    names = [str(i) for i in range(1000)]
    learned, kept = held_out_split(names, 0.1, 3)
    assert sorted(learned + kept) == list(range(1000))
    assert 60 < len(kept) < 140
    assert held_out_split(names[500:], 0.1, 3)[1] == [i - 500 for i in kept if i >= 500]
    assert held_out_split(names, 0.0, 3)[1] == []
