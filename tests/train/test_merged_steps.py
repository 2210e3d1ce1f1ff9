"""Two steps taught as one: labels of the originals stay, and the published order counts anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import stepreward
from stepreward.core.files.stored_rows import StoredRows
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.train.data import merged_steps
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.merged_steps import with_compressed_nodes, with_merged_steps
from stepreward.train.data.stored_trees import StoredTrees
from stepreward.train.settings import TrainSettings

NAN = float("nan")
PROBLEM = Problem("p", "Say")


def row(texts: str, labels: list[float], outcome: float = 1.0, kinds: str = "") -> Trajectory:
    names = {"a": "action", "o": "observation"}
    steps = tuple(
        Step(f"{text}\n", names[kind])  # type: ignore[arg-type]
        for text, kind in zip(texts, kinds or "a" * len(texts), strict=True)
    )
    return Trajectory(
        PROBLEM, steps, outcome, columns={"label": np.array(labels)}, facts={"log_weight": 1.0, "domain": "d"}
    )


def shown(rows: list[Trajectory]) -> list[tuple[list[str], list[float]]]:
    return [([step.text for step in one.steps], one.labels.tolist()) for one in rows]


class TestMerged:
    def test_each_pair_is_one_step_with_the_label_of_the_later_one(self) -> None:
        one = row("abc", [1.0, 0.0, 0.5])
        made = with_merged_steps([one])
        assert made[0] is one
        np.testing.assert_equal(shown(made[1:]), [(["a\nb\n"], [0.0]), (["a\n", "b\nc\n"], [NAN, 0.5])])
        assert all(np.isnan(new.outcome) and new.facts == {"domain": "d"} for new in made[1:])

    def test_observations_and_other_agents_are_not_merged(self) -> None:
        assert len(with_merged_steps([row("abcd", [1, NAN, 1, 1], kinds="aoaa")])) == 2
        one = row("ab", [1, 1])
        other = replace(one, steps=(one.steps[0], replace(one.steps[1], agent="another")))
        assert with_merged_steps([other]) == [other]

    def test_words_do_not_run_together(self) -> None:
        one = Trajectory(PROBLEM, (Step("2"), Step("3")), columns={"label": np.ones(2)})
        assert with_merged_steps([one])[1].steps[0].text == "2\n3"

    def test_the_labels_of_the_originals_stay(self) -> None:
        rows = [row("abc", [1.0, 0.0, 0.5]), row("abd", [1.0, 0.0, 0.25])]
        plain, more = labelled_trees(rows)[0], labelled_trees(with_merged_steps(rows))[0]
        np.testing.assert_array_equal(more.step_column("label")[:2], plain.step_column("label"))
        # The merged first pair is one branch, though two rows teach it.
        assert more.n == plain.n + 3

    def test_a_share_is_drawn_by_prefix(self) -> None:
        rows = [row("abcdefgh", [1.0] * 8), row("abcdefgi", [1.0] * 8)]
        few = with_merged_steps(rows, share=0.5, key=Key.seed(1))
        assert 2 < len(few) < 16
        assert few == with_merged_steps(rows, share=0.5, key=Key.seed(1))
        texts = [[step.text for step in one.steps] for one in few[2:] if one.steps[-1].text[-2] not in "hi"]
        assert all(texts.count(one) == 2 for one in texts)
        assert with_merged_steps(rows, share=0.0) == rows
        with pytest.raises(ValueError, match="share of merged steps must be in"):
            with_merged_steps(rows, share=1.5)


ROWS = [row(f"gn{last}", [0.25, 0.25, float(last == "a")], float(last == "a")) for last in "abcd"]
"""A node n of four children, of which the first is right."""


class TestCompressed:
    def test_the_published_order_counts_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Children 1, 0, 0, 0: the node has 0.25, and 0 of 3 once the right child has gone; its parent stays."""
        monkeypatch.setattr(merged_steps, "_passed_children", lambda tree, *_: {int(tree.paths[0][2])})
        made = with_compressed_nodes(ROWS)
        np.testing.assert_equal(
            shown(made),
            [
                (["g\n", "n\n", "a\n"], [0.25, 0.0, NAN]),
                *((["g\n", "n\n", f"{last}\n"], [0.25, 0.0, 0.0]) for last in "bcd"),
                (["g\n", "n\na\n"], [NAN, 1.0]),
            ],
        )

    def test_who_passes_a_child_on(self) -> None:
        """A node with 4 children, by a fair coin each in order: in all but 1 of 16 cases; never the problem itself."""
        passed = 0
        for seed in range(400):
            made = with_compressed_nodes(ROWS, key=Key.seed(seed))
            merged = [one for one in made if len(one) == 2]
            assert len(made) == 4 + len(merged) <= 5
            passed += len(merged)
        assert passed == pytest.approx(400 * 15 / 16, abs=20)
        assert len(with_compressed_nodes(ROWS[:3])) == 3
        of_the_problem = [row(last, [1.0]) for last in "abcd"]
        assert len(with_compressed_nodes(of_the_problem)) == 4

    def test_a_child_of_a_passed_node_is_not_passed(self) -> None:
        deep = [row(f"gna{last}", [0.5] * 4, 1.0) for last in "wxyz"] + ROWS[1:]
        found = set()
        for seed in range(60):
            last = [one.steps[-1].text for one in with_compressed_nodes(deep, key=Key.seed(seed))]
            found.add(tuple(text for text in last if text.count("\n") == 2))
        # Where n passes a on, a passes none of w, x, y, z on.
        assert ("n\na\n",) in found
        assert not any("n\na\n" in merged and len(merged) > 1 for merged in found)

    def test_solutions_without_an_outcome_do_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(merged_steps, "_passed_children", lambda tree, *_: {int(tree.paths[0][2])})
        rows = [ROWS[0], replace(ROWS[1], outcome=NAN), *(replace(one, outcome=0.5) for one in ROWS[2:])]
        assert with_compressed_nodes(rows)[0].labels[1] == 0.5


def test_training_teaches_them() -> None:
    rows, stored = [row("abc", [1.0, 0.0, 0.5])], StoredRows()
    stored.extend(rows)
    for settings, trajectories in (
        (TrainSettings(), 1),
        (TrainSettings(merge_steps=1.0), 3),
        (TrainSettings(compress=True), 2),
        (TrainSettings(compress=True, merge_steps=1.0), 6),
    ):
        (tree,) = StoredTrees(stored, [0], settings.loss(), settings.augmented)
        assert len(tree.ends) == trajectories


def test_the_verb_trains_on_them(tmp_path: Path) -> None:
    rows = [replace(row("abc", [1.0, 0.0, 0.5]), problem=Problem(str(i), f"Say {i}")) for i in range(4)]
    tokens = []
    for share in (0.0, 1.0):
        out = tmp_path / str(share)
        stepreward.train(rows, out, backbone="scratch", held_out=0.0, epochs=1, merge_steps=share)
        tokens.append(json.loads((out / "training.json").read_text())["tokens"])
    assert tokens[1] > tokens[0]
