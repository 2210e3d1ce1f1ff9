"""Prompts with the reference answer: the same tokens as the answer written out, in every encoding and cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.score.models import model
from tests.score.tiny_checkpoints import qwen

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.runtime.answer_log import digest
from stepreward.core.runtime.flows import Score
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_prefix import pass_encoder
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.record import Conversation, EncoderRecord, PerPrefix, PerStep, WholeText

STEPS = (Step("12 + 5 = 17\n"), Step("Answer: 17\n"))
FORM = "{prompt}\nReference: {reference}"
RECORD = EncoderRecord(PerStep(prompt_format=FORM))
KNOWN = Problem("p", "What is 12 + 5?", reference="17")
OTHER, UNKNOWN = replace(KNOWN, reference="18"), replace(KNOWN, reference=None)
ENCODINGS = [
    PerStep(),
    PerStep(template="chat", separator="\n\n", separator_token=False),
    WholeText(tag=None),
    PerPrefix(),
    Conversation(prompt_format="{prompt}{step}", answer="+"),
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda one: f"{one.kind}-{one.template}")
@pytest.mark.parametrize("answer", ["17", "{step} of {reference}"])
def test_a_reference_is_encoded_as_if_it_stood_in_the_question(encoding: Any, answer: str) -> None:
    def ids(form: str, problem: Problem) -> list[list[int]]:
        own = form + "{step}" * (encoding.kind == "conversation")
        encoder = StepEncoder(EncoderRecord(replace(encoding, prompt_format=own)), qwen())
        return [one.ids.tolist() for one in pass_encoder(encoder).passes(problem, STEPS)]

    written = replace(UNKNOWN, prompt=f"What is 12 + 5?\nReference: {answer}")
    assert ids(FORM, replace(KNOWN, reference=answer)) == ids("{prompt}", written)
    for missing in (None, ""):
        with pytest.raises(InputError, match=r"problem 'p' has no reference answer.*give each problem a 'reference'"):
            ids(FORM, replace(KNOWN, reference=missing))


@pytest.mark.parametrize("cache", [0, "4MiB"])
def test_problems_that_differ_in_their_reference_share_no_score(cache: Any) -> None:
    scorer = DiscriminativeScorer(model(record=RECORD), cache_bytes=cache)
    alone = [scorer.score(KNOWN.text, [one.text for one in STEPS], reference=name) for name in ("17", "18")]
    assert np.abs(alone[0] - alone[1]).max() > 1e-4
    together = scorer.score_many([Score(problem, STEPS) for problem in (KNOWN, OTHER, KNOWN)])
    for found, expected in zip(together, (alone[0], alone[1], alone[0]), strict=True):
        np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    assert digest(Score(KNOWN, STEPS), "prm") != digest(Score(OTHER, STEPS), "prm")


def test_a_solution_without_a_reference_costs_no_other_its_scores() -> None:
    scorer = DiscriminativeScorer(model(record=RECORD))
    assert scorer.use.reference
    with pytest.warns(UserWarning, match="1 .*could not be scored"):
        found = stepreward.score([Trajectory(one, STEPS) for one in (KNOWN, UNKNOWN, OTHER)], scorer)
    assert [one.problem.reference for one in found] == ["17", "18"]
    np.testing.assert_allclose(found[1].column("score"), scorer.score_many([Score(OTHER, STEPS)])[0].scores, atol=1e-6)
    ((name, error),) = found.failed
    assert (name, "no reference answer" in str(error)) == ("p", True)
    with pytest.raises(InputError, match="no reference answer"):
        scorer.score(KNOWN.text, ["Answer: 17"])


def test_one_tree_has_one_reference() -> None:
    rows = [Trajectory(KNOWN, STEPS), Trajectory(OTHER, STEPS)]
    tree = stepreward.core.tree.group_trees(rows)[0]
    with pytest.raises(InputError, match="solutions of problem 'p' have different reference answers"):
        StepEncoder(RECORD, qwen()).encode_tree(tree)
    # Where the prompt does not hold it, what a grader knows does not matter.
    assert len(StepEncoder(EncoderRecord(), qwen()).encode_tree(tree))
    assert len(StepEncoder(RECORD, qwen()).encode_tree(StepTree.from_trajectories(rows[:1])))


def test_the_command_line_reads_references_and_names_rows_without(tmp_path: Path) -> None:
    from tests.cli.running import CliRunner, app

    model(record=RECORD).save_pretrained(tmp_path / "verifier")
    rows = '{"question": "12 + 5?", "steps": ["17"], "reference": "17"}\n{"question": "1 + 1?", "steps": ["2"]}\n'
    (tmp_path / "rows.jsonl").write_text(rows)
    words = ["score", "--model", str(tmp_path / "verifier"), "--data", str(tmp_path / "rows.jsonl")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    first, second = done.stdout.splitlines()
    assert '"scores": [' in first
    assert "has no reference answer" in second
