"""Formulas of scores: numbers worked by hand, what is no formula, and the same numbers by every way to score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from tests.score.models import SEEDS, model, random_trajectories

import stepreward
from stepreward.core.errors import InputError, ModelError
from stepreward.core.runtime.answer_codec import decode, encode
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step
from stepreward.score.cache.incremental_scorer import IncrementalScorer
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.formula import parse, scored_before
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerPrefix, WholeText
from stepreward.score.encode.record_file import load_record, save_record
from stepreward.score.load import load
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.remote.head_outputs import HeadReader
from stepreward.score.remote.token_outputs import TokenOutputs


def of(formula: str, parts: Sequence[Sequence[float]], previous: Sequence[int] | None = None, names: Any = ()) -> Any:
    """The values of a formula for (Q, 1 + K) parts."""
    table = np.array(parts, np.float64)
    found = parse(formula, tuple(names) or tuple(f"out{k}" for k in range(table.shape[1] - 1)))
    return found.evaluate(table, None if previous is None else np.array(previous, np.int64))


class TestNumbers:
    def test_arithmetic_and_names(self) -> None:
        assert of("success + 1.5 * correct", [[0, 0.2, 0.7]], names=["correct", "success"]) == pytest.approx(1.0)
        assert of("-(score - 2) / 4 ** 2", [[0.4, 0.0]]) == pytest.approx(0.1)

    def test_functions_of_a_step(self) -> None:
        row = [[9.0, 0.2, 0.9, 0.4]]
        assert of("min(outputs)", row) == 0.2
        assert of("max(outputs, 2)", row) == 2
        assert of("mean(outputs)", row) == pytest.approx(0.5)
        assert of("median(out0, out1, out2)", row) == 0.4
        assert of("std(outputs)", row) == pytest.approx(np.sqrt((0.09 + 0.16 + 0.01) / 3))
        assert of("weighted(1, 2, 3)", row) == pytest.approx(0.2 + 1.8 + 1.2)
        assert of("above(out1, 0.5) * out0 + above(out2, 0.4)", row) == 0.2
        assert of("logit(out0) + sigmoid(0)", row) == pytest.approx(np.log(0.25) + 0.5)
        assert of("exp(log(out0))", row) == pytest.approx(0.2)

    def test_the_prover_of_the_best_of_four(self) -> None:
        """Q from 0.3 to 0.4 is an advantage of 0.1; for the best of four 0.7599 to 0.8704, 0.1105."""
        parts = [[0.3, 0.0], [0.4, 0.0]]
        assert of("gain(score, 0.25)", parts, [-1, 0]) == pytest.approx([0.05, 0.1])
        prover = of("gain(1 - (1 - score) ** 4, 1 - (1 - 0.3) ** 4)", parts, [-1, 0])
        assert prover == pytest.approx([0, 0.1105], abs=1e-10)
        assert of("gain(1 - (1 - score) ** 1, 0.25)", parts, [-1, 0]) == pytest.approx([0.05, 0.1])

    def test_gains_telescope(self) -> None:
        parts = np.random.default_rng(0).random((6, 2))
        assert of("gain(score, 0.5)", parts.tolist(), range(-1, 5)).sum() == pytest.approx(parts[-1, 0] - 0.5)

    def test_running_numbers_on_a_tree(self) -> None:
        """Read 0 is above 1 and 2, read 2 above 3."""
        parts, previous = [[4.0, 0], [1.0, 0], [5.0, 0], [0.0, 0]], [-1, 0, 0, 2]
        assert of("sum_so_far(score)", parts, previous).tolist() == [4, 5, 9, 9]
        assert of("mean_so_far(score)", parts, previous).tolist() == [4, 2.5, 4.5, 3]
        assert of("min_so_far(score)", parts, previous).tolist() == [4, 1, 4, 0]
        assert of("max_so_far(score)", parts, previous).tolist() == [4, 4, 5, 5]

    def test_definitions(self) -> None:
        assert of("a = 2 * score; b = a + 1\nb * a", [[3.0, 0]]) == 42

    def test_a_constant_is_the_score_of_every_read(self) -> None:
        assert of("0.5", [[1.0, 0], [2.0, 0]]).tolist() == [0.5, 0.5]
        assert of("sum_so_far(1)", [[1.0, 0], [2.0, 0]], [-1, 0]).tolist() == [1, 2]

    def test_what_has_no_value_is_no_score(self) -> None:
        assert np.isnan(of("log(score - 1)", [[0.5, 0]]))
        assert np.isnan(of("above(score, 0.5)", [[np.nan, 0]]))


def test_the_scored_step_before() -> None:
    """A chain 0-1-2-3 with 2 not scored, and a branch 1-4."""
    parent, scored = np.array([-1, 0, 1, 2, 1]), np.array([False, True, False, True, True])
    assert scored_before(parent, scored)[1:].tolist() == [-1, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no score"),
        ("a = 1", "has no score: end it with an expression"),
        ("1 +", "is no formula"),
        ("nothing + 1", "'nothing' is no name here; names: out0, score"),
        ("outputs", "'outputs' is an argument of functions"),
        ("__import__('os')", "'__import__' is no function"),
        ("score.real", "'score.real' may not be in a formula"),
        ("[score]", "may not be in a formula"),
        ("'text'", "may not be in a formula"),
        ("True", "may not be in a formula"),
        ("score if score else 1", "may not be in a formula"),
        ("(lambda: 1)()", "may not be in a formula"),
        ("min(x=1)", "may not be in a formula"),
        ("score; score", "'score' must be name = expression"),
        ("score = 1; score", "'score' has a meaning already"),
        ("min = 1; min", "'min' has a meaning already"),
        ("a = b = 1; a", "must be name = expression"),
        ("gain(score)", "gain takes 2 arguments, got 1"),
        ("above(score)", "above takes 2 arguments, got 1"),
        ("min()", "min takes some arguments, got 0"),
        ("log(1, 2)", "log takes 1 arguments, got 2"),
        ("weighted(1, 2)", "weighted takes 1 arguments, got 2"),
        ("-" * 200 + "1", "nested at most 100 deep"),
        ("1 + " * 10_000 + "1", "at most 20000 characters"),
    ],
)
def test_what_is_no_formula(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)").replace("+", r"\+")):
        parse(text, ("out0",))


def test_a_number_beyond_all_bounds_ends() -> None:
    assert np.isinf(of("9 ** 9 ** 9 ** 9", [[0.0, 0]]))


class TestReadout:
    def test_names(self) -> None:
        for names in (("a",), ("a", "a"), ("a", "min"), ("a", "score"), ("a", "x y"), ("a", "lambda")):
            with pytest.raises(ValueError, match="names must be n_labels=2 different words"):
                Readout("value", n_labels=2, names=names)
        with pytest.raises(ValueError, match="'b' is no name here"):
            Readout("value", n_labels=1, names=("a",), formula="b")
        with pytest.raises(ValueError, match="an implicit score has none"):
            Readout("implicit", formula="score")

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("sigmoid", [0.5, 0.75]), ("mean-sigmoid", [0.5, 0.75]), ("value", [0.0, np.log(3)]),
            ("tanh", [0.0, 0.8]), ("softmax", [0.25, 0.75]), ("difference", [0.25, 0.75]),
        ],
    )  # fmt: skip
    def test_outputs_are_what_the_kind_makes_of_them(self, kind: Any, expected: list[float]) -> None:
        """Logits 0 and log 3."""
        outputs = np.array([[0.0, np.log(3)]])
        for k in range(2):
            readout = Readout(kind, n_labels=2, formula=f"out{k}")
            assert readout.scores(outputs) == pytest.approx(expected[k])
            assert float(readout.scores(torch.tensor(outputs))[0]) == pytest.approx(expected[k])
            assert not readout.is_probability

    def test_score_is_the_score_without_a_formula(self) -> None:
        outputs = np.random.default_rng(0).normal(size=(5, 3))
        for plain in (Readout("softmax", 3, 1, (0,)), Readout("difference", 3, 2), Readout("value", 3, 1)):
            made = replace(plain, formula="score").scores(outputs)
            np.testing.assert_array_equal(made, plain.scores(outputs))

    def test_outputs_of_a_server_are_activated_already(self) -> None:
        outputs = np.array([[0.3, -1.0]])
        for kind in ("sigmoid", "value", "tanh"):
            readout = Readout(kind, n_labels=2, formula="out1 + out0")  # type: ignore[arg-type]
            done = readout.scores(1 / (1 + np.exp(-outputs)), activated=True)
            assert done == pytest.approx(readout.scores(outputs))

    def test_another_score_keeps_the_definitions(self) -> None:
        readout = Readout("value", n_labels=2, names=("a", "b"), formula="both = a + b; 2 * both")
        assert readout.with_formula("both - b").formula == "both = a + b; both - b"
        assert readout.with_formula("").formula == ""
        assert Readout().with_formula("gain(score, 0)").looks_back

    def test_an_unused_definition_does_not_look_back(self) -> None:
        assert not Readout(formula="up = gain(score, 0); score").looks_back
        assert Readout(formula="up = gain(score, 0); twice = 2 * up; twice").looks_back

    def test_it_needs_the_step_before(self) -> None:
        with pytest.raises(ValueError, match="this formula reads earlier steps"):
            Readout(formula="gain(score, 0)").scores(np.zeros((1, 1)))


FORMULAS = ("success + 1.5 * mean_so_far(correct)", "gain(score, 0.5)", "std(outputs) - min_so_far(success) ** 2")


def heads(formula: str = "", **more: Any) -> Readout:
    return Readout("sigmoid", n_labels=2, names=("correct", "success"), formula=formula, **more)


def slow(formula: str, outputs: np.ndarray) -> list[float]:
    """The three formulas, step by step, of the activated outputs (S, 2) of scored steps."""
    made = []
    for s, (correct, success) in enumerate(outputs):
        so_far = outputs[: s + 1]
        made.append({
            FORMULAS[0]: success + 1.5 * so_far[:, 0].mean(),
            FORMULAS[1]: correct - (outputs[s - 1, 0] if s else 0.5),
            FORMULAS[2]: abs(correct - success) / 2 - so_far[:, 1].min() ** 2,
        }[formula])  # fmt: skip
    return made


@pytest.mark.sampled(3)
@pytest.mark.parametrize("formula", FORMULAS)
@given(seed=SEEDS)
def test_every_way_to_score_gives_the_formula(formula: str, seed: int) -> None:
    """Packed trees, cut trees, growing trees, a server's outputs, whole texts and texts of prefixes."""
    rows = random_trajectories(seed)
    questions = [Score(one.problem, one.steps) for one in rows]
    plain = DiscriminativeScorer(_model(EncoderRecord(readout=heads("correct"))))
    other = DiscriminativeScorer(_model(EncoderRecord(readout=heads("success"))))
    expected = []
    for one, c, v in zip(rows, plain.score_many(questions), other.score_many(questions), strict=True):
        column = np.full(len(one), np.nan)
        column[one.action] = slow(formula, np.stack([c.scores, v.scores], -1)[one.action])
        expected.append(column)
    reward = _model(EncoderRecord(readout=heads(formula)))
    whole = DiscriminativeScorer(reward)
    ways: list[Any] = [
        whole.score_many(questions),
        DiscriminativeScorer(reward, row_tokens=16).score_many(questions),
        IncrementalScorer(reward, max_bytes=1 << 30).score_many(questions),
    ]
    tree = StepTree.from_trajectories(rows)
    node = whole.score_tree(tree)
    for one, path in zip(expected, tree.paths, strict=True):
        np.testing.assert_allclose(node[path[path >= 0]], one, atol=1e-5)
    growing = IncrementalScorer(reward, max_bytes=1 << 30)
    for depth in range(1, max(map(len, rows)) + 1):
        last = [growing.score_many([Score(one.problem, one.steps[:depth])])[0] for one in rows]
    ways.append(last)
    outputs = TokenOutputs(_model(EncoderRecord(readout=heads())))

    def ask(asked: Any) -> list[Any]:
        found = outputs.rows([one.ids.tolist() for _, one in asked])
        return [(rows[[*one.reads.values()]], False, 1) for rows, (_, one) in zip(found, asked, strict=True)]

    reader = HeadReader(reward.encoder)
    # The first steps are known when the whole is scored: their outputs are needed again.
    reader.score_many([Score(one.problem, one.steps[:1]) for one in rows], ask)
    ways.append(reader.score_many(questions, ask))
    for found in ways:
        for one, made in zip(expected, found, strict=True):
            np.testing.assert_allclose(made.scores, one, atol=1e-5)


_MODELS: dict[EncoderRecord, StepRewardModel] = {}


def _model(record: EncoderRecord) -> StepRewardModel:
    if record not in _MODELS:
        _MODELS[record] = model(record=record)
    return _MODELS[record]


@pytest.mark.parametrize("encoding", [WholeText(separator="\n"), PerPrefix()], ids=lambda e: e.kind)
def test_encodings_of_whole_trajectories_look_back_too(encoding: Any) -> None:
    rows = random_trajectories(3, observations=False)
    questions = [Score(one.problem, one.steps) for one in rows]
    formula = FORMULAS[0]
    single = [
        DiscriminativeScorer(_model(EncoderRecord(encoding, readout=heads(name)))).score_many(questions)
        for name in ("correct", "success")
    ]
    found = DiscriminativeScorer(_model(EncoderRecord(encoding, readout=heads(formula)))).score_many(questions)
    for c, v, one in zip(*single, found, strict=True):
        read = np.isfinite(c.scores)
        assert read.any()
        np.testing.assert_allclose(one.scores[read], slow(formula, np.stack([c.scores, v.scores], -1)[read]), atol=1e-5)
        assert np.isnan(one.scores[~read]).all()


def test_where_earlier_steps_are_not_there_it_is_refused() -> None:
    record = EncoderRecord(readout=heads(FORMULAS[0]))
    with pytest.raises(ModelError, match="scores depend on other steps"):
        TokenOutputs(_model(record))
    with pytest.raises(ModelError, match="each step is a request of its own here"):
        HeadReader(_model(EncoderRecord(PerPrefix(), readout=heads(FORMULAS[0]))).encoder)


def test_a_record_keeps_names_and_formula(tmp_path: Path) -> None:
    record = EncoderRecord(readout=heads("both = correct + success; both"))
    save_record(record, tmp_path, probe=[1])
    assert load_record(tmp_path) == (record, [1])


class TestLoad:
    def test_another_score_of_the_same_model(self, tmp_path: Path) -> None:
        reward = _model(EncoderRecord(readout=heads("both = correct + success; both")))
        reward.save_pretrained(tmp_path)
        steps = ["12 + 5 = 17\n", "Answer: 17\n"]
        both, correct, success = (
            load(tmp_path, readout=name).score("What?", steps) for name in ("", "correct", "success")
        )
        np.testing.assert_allclose(both, correct + success, atol=1e-6)
        assert np.std(correct - success) > 0
        gain = load(tmp_path, readout="gain(both, 0.5)")
        assert gain.name == f"{tmp_path} read by gain(both, 0.5)"
        np.testing.assert_allclose(gain.score("What?", steps), np.diff(both, prepend=0.5), atol=1e-6)

    def test_a_calibrator_is_of_the_models_own_score(self, tmp_path: Path) -> None:
        _model(EncoderRecord(readout=heads())).save_pretrained(tmp_path)
        (tmp_path / "calibrator.json").write_text("{}")
        assert load(tmp_path, readout="success").score("What?", ["17\n"]).shape == (1,)

    def test_what_is_no_formula_is_named(self, tmp_path: Path) -> None:
        _model(EncoderRecord(readout=heads())).save_pretrained(tmp_path)
        with pytest.raises(InputError, match="readout: 'nothing' is no name here"):
            load(tmp_path, readout="nothing")
        with pytest.raises(InputError, match="has no weights"):
            load("tool", readout="score")


class TestFurtherNumbers:
    """Several formulas of one pass are the numbers of each by itself."""

    ALSO: ClassVar = {"low": "min(correct, success)", "up": "gain(success, 0.5)", "plain": "score"}

    @pytest.mark.parametrize(
        "record",
        [
            EncoderRecord(readout=heads()), EncoderRecord(readout=heads("correct * success")),
            EncoderRecord(WholeText(separator="\n"), readout=heads()), EncoderRecord(PerPrefix(), readout=heads()),
        ],
        ids=["plain", "formula", "whole text", "prefixes"],
    )  # fmt: skip
    def test_each_is_as_by_itself(self, record: EncoderRecord) -> None:
        rows, reward = random_trajectories(5), _model(record)
        questions = [Score(one.problem, one.steps) for one in rows]
        several = DiscriminativeScorer(reward, also=self.ALSO, cache_bytes=1 << 20)
        assert several.growing is None
        found = several.score_many(questions)
        tree = StepTree.from_trajectories(rows)
        (of_nodes,) = several.score_trees([tree])
        for name, formula in {"": record.readout.formula, **self.ALSO}.items():
            alone = DiscriminativeScorer(_model(replace(record, readout=record.readout.with_formula(formula))))
            for one, expected in zip(found, alone.score_many(questions), strict=True):
                made = one.columns[name] if name else one.scores
                np.testing.assert_allclose(made, expected.scores, atol=1e-6)
                assert one.tokens == expected.tokens
            (nodes,) = alone.score_trees([tree])
            np.testing.assert_allclose(of_nodes.columns[name] if name else of_nodes.scores, nodes.scores, atol=1e-6)

    def test_both_ways(self) -> None:
        steps = ["12 + 5 = 17\n", "x\n"]
        record = EncoderRecord(readout=heads(), both_ways=True)
        question = Score(Problem("p", "What?"), tuple(map(Step, steps)))
        plain = model()
        whole, one = (
            StepRewardModel(plain.backbone, plain.tokenizer, replace(record, readout=heads(name)))
            for name in ("", "success")
        )
        (found,) = DiscriminativeScorer(whole, also={"s": "success"}).score_many([question])
        alone = DiscriminativeScorer(one)
        np.testing.assert_allclose(found.columns["s"], alone.score_many([question])[0].scores, atol=1e-6)

    def test_they_become_columns_of_the_table(self, tmp_path: Path) -> None:
        _model(EncoderRecord(readout=heads())).save_pretrained(tmp_path)
        scorer = load(tmp_path, also={"s": "success"})
        assert scorer.name == f"{tmp_path} and s = success"
        rows = random_trajectories(2)
        for one in stepreward.score(rows, scorer, column="score:m"):
            expected = load(tmp_path, readout="success").score_many([Score(one.problem, one.steps)])[0].scores
            np.testing.assert_allclose(one.column("score:m:s"), expected, atol=1e-6)
            assert one.provenance[-1].what == ("score:m", "score:m:s")

    def test_an_answer_log_keeps_them(self) -> None:
        answer = Scored(np.array([0.5, np.nan]), 3, 4, {"low": np.array([0.25, np.nan])})
        made = decode(encode(answer))
        assert isinstance(made, Scored)
        np.testing.assert_array_equal(made.columns["low"], [0.25, np.nan])
        np.testing.assert_array_equal(made.scores, answer.scores)

    def test_what_has_none_is_refused(self, tmp_path: Path) -> None:
        _model(EncoderRecord(readout=heads())).save_pretrained(tmp_path)
        with pytest.raises(InputError, match="also: 'nothing' is no name here"):
            load(tmp_path, also={"a": "nothing"})
        with pytest.raises(InputError, match="has no weights"):
            load("tool", also={"a": "score"})
        with pytest.raises(InputError, match="gives one number a step"):
            load("http://localhost:1#m", also={"a": "score"})
