"""Training data: labels merged on trees, batches of a token budget, and gradients equal to those of trajectories."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled
from tests.train.toy import toy_labels, toy_model

from stepreward.core.keys import Key
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.train.data.fingerprint import fingerprint
from stepreward.train.data.labelled_trees import labelled_trees, once_per_node
from stepreward.train.data.training_set import TrainingSet, make_batches
from stepreward.train.objective import Objective

NAN = float("nan")
PROBLEM = Problem("p", "Say something")


def made(words: str, label: list[float], rollouts: list[int] | None = None) -> Trajectory:
    """A labelled trajectory with one step a letter."""
    n = len(words)
    steps = tuple(Step(w + "\n") for w in words)
    counts = np.array(rollouts or [0] * n, float)
    return Trajectory(PROBLEM, steps, columns={"label": np.array(label), "n_rollouts": counts})


def random_labels(seed: int) -> list[Trajectory]:
    """Trajectories over two letters, so that many prefixes are shared, with labels that may disagree."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(6):
        n = int(rng.integers(1, 5))
        label = np.where(rng.random(n) < 0.2, NAN, rng.random(n)).tolist()
        rows.append(made("".join(rng.choice(["a", "b"], n)), label))
    rows.append(made("ab", [1.0, 0.0]))
    return rows


def test_a_shared_step_has_the_mean_label_weighted_by_rollouts() -> None:
    """Step a: 6 rollouts at 1/2 and 2 at 1 make (3 + 2) / 8; an inferred label without rollouts counts as one."""
    (one,) = labelled_trees([made("ab", [0.5, 0.0], [6, 4]), made("ac", [1.0, 1.0], [2, 0]), made("ac", [NAN, 0.0])])
    np.testing.assert_allclose(one.step_column("label"), [[0.625, 0.0], [0.625, 0.5], [NAN, 0.5]])


def test_each_node_is_supervised_once_when_nodes_weigh_the_same() -> None:
    (one,) = labelled_trees([made("ab", [NAN, 0.0]), made("ac", [1.0, 1.0]), made("ac", [1.0, 1.0])])
    np.testing.assert_array_equal(once_per_node(one).step_column("label"), [[NAN, 0.0], [1.0, 1.0], [NAN, NAN]])


def test_a_tree_without_the_step_column_reads_the_labels_of_its_trajectories() -> None:
    """Set means are not needed: the gradient of two labels of a step is that of their mean."""
    given = [made("ab", [0.5, 0.0]), made("ac", [1.0, NAN])]
    tree = StepTree.from_trajectories(given)
    np.testing.assert_array_equal(tree.step_column("label"), [[0.5, 0.0], [1.0, NAN]])
    mean = gradient(labelled_trees(given), 1000)
    assert (gradient([tree], 1000) - mean).norm() / mean.norm() < 1e-5


def gradient(trees: list[StepTree], row_tokens: int) -> torch.Tensor:
    model = toy_model()
    (batch,) = make_batches(trees, model.encoder, row_tokens=row_tokens, batch_tokens=1_000_000)
    Objective.of("bce")(model, model(batch.packed), batch).value.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@settings(deadline=None, max_examples=scaled(15))
@given(st.integers(0, 10_000))
def test_gradients_of_trees_equal_those_of_trajectories(seed: int) -> None:
    """Also where labels of a shared step disagree: the mean label has the mean gradient. Also where trees are cut."""
    labels = random_labels(seed)
    apart = gradient(
        [tree for one in labels if not np.isnan(one.labels).all() for tree in labelled_trees([one])], 10_000
    )
    for row_tokens in (10_000, 40):
        together = gradient(labelled_trees(labels), row_tokens)
        assert (together - apart).norm() / apart.norm() < 1e-4


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([24, 40, 60]))
def test_wide_trees_are_cut_into_rows_that_hold_every_trajectory_once(seed: int, row_tokens: int) -> None:
    (one,), encoder = labelled_trees(random_labels(seed)), toy_model().encoder
    data = TrainingSet([one], encoder, row_tokens=row_tokens, batch_tokens=100)
    for part, encoded in data.parts:
        assert len(encoded) <= row_tokens or len(part.ends) == 1
    rows = [
        (t.text, y[m].tolist())
        for p, _ in data.parts
        for t, y, m in zip(p.trajectories(), p.step_column("label"), p.mask, strict=True)
    ]
    whole = [
        (t.text, y[m].tolist()) for t, y, m in zip(one.trajectories(), one.step_column("label"), one.mask, strict=True)
    ]
    supervised = [row for row in whole if not np.isnan(row[1]).all()]
    assert sorted(map(str, supervised)) == sorted(str(row) for row in rows if not np.isnan(row[1]).all())


def test_every_epoch_holds_every_tree_once_in_its_own_order_within_the_budget() -> None:
    trees, encoder = labelled_trees(toy_labels(40, 0)), toy_model().encoder

    def data(seed: int, epochs: float = 2) -> TrainingSet:
        return TrainingSet(trees, encoder, row_tokens=128, batch_tokens=256, epochs=epochs, key=Key.seed(seed))

    first, n = data(0), len(data(0, 1))
    flat = [sorted(i for rows in plans for row in rows for i in row) for plans in (first.plans[:n], first.plans[n:])]
    assert flat == [list(range(len(first.parts)))] * 2
    assert first.plans[:n] != first.plans[n : 2 * n]
    assert first.plans == data(0).plans
    assert first.plans != data(1).plans
    assert len(data(0, 0.5)) == round(n / 2)
    assert int(first.sizes[:n].sum()) == first.tokens
    for i in range(len(first)):
        batch = first[i]
        assert batch.packed.input_ids.numel() <= 256
        assert batch.packed.tokens == first.sizes[i]
        assert torch.equal(batch.mask, ~batch.data["labels"].isnan())


def test_batches_of_a_shuffled_epoch_are_full() -> None:
    """Four windows of eight batches: what does not fill a window's last batch waits, so one batch at most is small."""
    trees, encoder = labelled_trees(toy_labels(400, 0)), toy_model().encoder
    data = TrainingSet(trees, encoder, row_tokens=128, batch_tokens=256, key=Key.seed(0))
    assert data.tokens > 4 * 8 * 256
    assert len(data) <= 1.2 * data.tokens / 256
    assert np.sort(data.sizes)[1] > 128


def test_the_reads_of_a_batch_are_those_of_its_labels() -> None:
    """Numbers written on nodes come back at the trajectories that pass them."""
    trees, encoder = labelled_trees(random_labels(3)), toy_model().encoder
    (batch,) = make_batches(trees, encoder, row_tokens=1000, batch_tokens=1000)
    merged = trees[0].scatter_mean(trees[0].step_column("label"))
    found = batch.gather(torch.from_numpy(merged)[batch.packed.node])
    known = ~batch.data["labels"].isnan()
    torch.testing.assert_close(found[known].float(), batch.data["labels"][known])


def test_a_fingerprint_tells_data_apart() -> None:
    labels = random_labels(1)
    same, other = fingerprint(labelled_trees(labels)), labels[-1].with_columns({"label": np.array([0.9, 0.0])})
    assert same == fingerprint(labelled_trees(labels))
    assert same != fingerprint(labelled_trees([*labels[:-1], other]))


def test_the_tokens_behind_each_step() -> None:
    """Two solutions share their first step; the second one was cut; an observation counts."""
    steps = [Step("good\n"), Step("bad\n", "observation"), Step("fine\n"), Step("nice\n")]
    rows = [
        Trajectory(Problem("p", "Say"), tuple(steps[:3]), columns={"label": np.array([1.0, NAN, 1.0])}),
        Trajectory(Problem("p", "Say"), (steps[0], steps[3]), terminal=False, columns={"label": np.array([1.0, 0.0])}),
    ]
    model = toy_model()
    objective = Objective.of("value-and-length")
    (batch,) = make_batches(labelled_trees(rows, objective), model.encoder, objective, row_tokens=256, batch_tokens=512)
    seen, last = (len(model.encoder.step_ids(step)) for step in steps[1:3])
    np.testing.assert_array_equal(batch.data["remaining"][:, :2], [[seen + last, 0], [NAN, NAN]])


def test_a_problems_draws_are_its_own() -> None:
    objective = Objective.of("ensemble")
    trees = labelled_trees(toy_labels(3, 0), objective)
    found = []
    for some in (trees, trees[::-1]):
        batches = make_batches(some, toy_model().encoder, objective, row_tokens=256, batch_tokens=512)
        found.append({tuple(row) for batch in batches for row in batch.data["draws"].tolist()})
    assert found[0] == found[1]
    assert len(found[0]) == 3
    assert all(len(row) == 5 and min(row) >= 0 and max(row) < 1 for row in found[0])
