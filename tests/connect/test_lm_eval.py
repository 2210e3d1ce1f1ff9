"""Step scores in lm-evaluation-harness itself, where it is installed (`make evals` does that)."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.connect.judge import Judge

pytest.importorskip("lm_eval")
import datasets
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import get_filter
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable

from stepreward.connect.lm_eval import StepChoice, StepScores, best_of_n, step_total, weighted_vote
from stepreward.core.errors import InputError, MissingDataError, UnknownNameError
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.load import load
from stepreward.score.model.step_reward_model import StepRewardModel

ROWS = [{"question": "What is 12 + 5?", "answer": "17"}, {"question": "What is 3 + 4?", "answer": "7"}]
SAMPLES = ["12 + 5 = 16\nAnswer: 16", "12 + 5 = 17\nAnswer: 17", "12 + 5 = 16\nAnswer: 16"]
ANSWER = [{"function": "regex", "regex_pattern": r"Answer: (\d+)"}, {"function": "take_first"}]
MODULE = "stepreward.connect.lm_eval"


class Parrot(LM):
    """Says the samples in turn; the harness asks for those of a document one after the other."""

    def __init__(self, samples: Sequence[str] = SAMPLES) -> None:
        super().__init__()
        self.samples = samples
        self.prompts: list[str] = []

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.prompts += [request.args[0] for request in requests]
        return [self.samples[i % len(self.samples)] for i in range(len(requests))]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(-1.0, False) for _ in requests]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord()).save_pretrained(made)
    return made


def task(folder: Path, name: str, filters: dict[str, list[dict[str, Any]]], **more: Any) -> str:
    """A task in YAML; a string that begins with "!" becomes a `!function`."""
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    made = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_target": "{{answer}}",
        "repeats": 3,
        "generation_kwargs": {"until": ["Q:"], "do_sample": True, "temperature": 1.0},
        "filter_list": [{"name": key, "filter": value} for key, value in filters.items()],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        **more,
    }
    (folder / f"{name}.yaml").write_text(re.sub(r"'!([\w.]+)'", r"!function \1", yaml.safe_dump(made)))
    return name


def evaluate(folder: Path, name: str, model: LM | None = None) -> dict[str, Any]:
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(model or Parrot(), tasks=[name], task_manager=manager, bootstrap_iters=0)
    assert found is not None
    json.dumps(found, default=handle_non_serializable)
    return {"metrics": found["results"][name], "samples": found["samples"][name]}


def test_filters_of_a_yaml_choose_by_a_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    scorer = {"scorer": str(checkpoint), "segment": "lines"}
    filters = {
        "first": ANSWER,
        "best": [{"function": f"!{MODULE}.best_of_n", **scorer}, *ANSWER],
        "vote": [{"function": f"!{MODULE}.weighted_vote", **scorer, "answer": r"Answer: (\d+)"}, *ANSWER],
        "borda": [{"function": "stepreward_borda", **scorer, "answer": r"Answer: (\d+)"}, *ANSWER],
    }
    model = Parrot()
    found = evaluate(tmp_path, task(tmp_path, "sums", filters), model)
    assert model.prompts == [f"Q: {row['question']}\nA:" for row in ROWS for _ in range(3)]
    judge = load(checkpoint)
    for row, document in enumerate(ROWS):
        totals = [judge.score(document["question"], text.splitlines(keepends=True)).min() for text in SAMPLES]
        kept = {s["filter"]: s["filtered_resps"] for s in found["samples"] if s["doc_id"] == row}
        assert kept["first"] == ["16"]
        assert kept["best"] == [SAMPLES[int(np.argmax(totals))][-2:]]
        # Two samples to one, of nearly the same worth: a fresh model decides nothing.
        assert kept["vote"] == kept["borda"] == ["16"]


def test_selections_are_as_good_as_the_scores(tmp_path: Path) -> None:
    rows, samples = [ROWS[0]], [[*SAMPLES]]
    answer = r"Answer: (\d+)"
    assert [*best_of_n(Judge(), segment="lines").apply(samples, rows)] == [[SAMPLES[1]]]
    # 0.9 to 0.2 + 0.2 with weights, but by rank sqrt(2/3) + sqrt(1/3) to 1.
    assert [*weighted_vote(Judge(), answer=answer).apply(samples, rows)] == [[SAMPLES[1]]]
    assert [*StepChoice("borda", Judge(), answer=answer).apply(samples, rows)] == [[SAMPLES[0]]]
    # Without an expression, the whole response is the answer; the last match and its first group count.
    assert [*weighted_vote(Judge()).apply([["a", "b", " b "]], rows)] == [["b"]]
    several = r"is (\d+)|Answer: (\d+)"
    # 0.9 + 0.2 for 16 to 0.9 for 17; if the first match counted, 17 would have it all.
    texts = ["Answer: 17", "It is 17. No: Answer: 16", "It is 16", "none"]
    assert [*weighted_vote(Judge(), answer=several).apply([texts], rows)] == [[texts[1]]]


def test_what_cannot_be_scored_loses_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    rows = [["", "too long", "So 16."], ["too long", "too long"]]
    with caplog.at_level(logging.WARNING, logger=MODULE):
        assert [*best_of_n(Judge()).apply(rows, ROWS)] == [["So 16."], ["too long"]]
    assert [record.getMessage() for record in caplog.records] == [
        "4 of 5 responses have no step scores: a trajectory has too many tokens; the model wrote nothing",
    ]


def test_documents_of_one_problem_and_their_samples_keep_their_places() -> None:
    judge = Judge()
    rows = [[f"{i} So 1{7 if i == j else 6}." for j in range(i + 1)] for i in range(5)]
    kept = [*best_of_n(judge).apply(rows, [{"question": f"q{i % 2}"} for i in range(5)])]
    assert kept == [[f"{i} So 17."] for i in range(5)]
    assert judge.calls == [15]
    assert {question.problem.text for question in judge.asked} == {"q0", "q1"}
    assert [*best_of_n(Judge()).apply([], [])] == []


def test_step_scores_are_a_metric_and_stand_in_the_samples(tmp_path: Path, checkpoint: Path) -> None:
    filters = {"steps": [{"function": f"!{MODULE}.StepScores", "scorer": str(checkpoint), "segment": "lines"}]}
    metrics = [{"metric": "stepreward_total", "aggregation": "mean", "higher_is_better": True}]
    name = task(tmp_path, "scores", filters, metric_list=metrics, repeats=2)
    found = evaluate(tmp_path, name, Parrot([SAMPLES[1], "", "", ""]))
    first, second = ([*map(json.loads, sample["filtered_resps"][0])] for sample in found["samples"])
    expected = load(checkpoint).score(ROWS[0]["question"], ["12 + 5 = 17\n", "Answer: 17"])
    assert first == [
        {"total": expected.min(), "step_scores": expected.tolist(), "steps": ["12 + 5 = 17\n", "Answer: 17"]},
        {"total": None, "step_scores": [], "steps": []},
    ]
    assert [record["total"] for record in second] == [None, None]
    # The second document has no score at all: it is left out of the mean, not counted as 0.
    assert found["metrics"]["stepreward_total,steps"] == expected.min()


def test_the_metric_is_the_mean_of_a_documents_samples() -> None:
    half, none, whole = ('{"total": 0.5}', '{"total": null}', '{"total": 1.0}')
    assert step_total(references=["17"], predictions=[[half, none, whole]]) == {"stepreward_total": 0.75}
    assert step_total(references=["17"], predictions=[[none]]) == {}


def test_the_problem_is_a_template_of_the_document() -> None:
    judge = Judge()
    StepScores(judge, problem="{{a}} + {{b}} = ?").apply([["17"]], [{"a": 12, "b": 5}])
    assert judge.asked[0].problem.text == "12 + 5 = ?"
    with pytest.raises(InputError, match=r"document, which has a, b: 'question' is undefined; pass problem"):
        StepScores(judge).apply([["17"]], [{"a": 12, "b": 5}])


def test_responses_that_are_no_text_are_refused() -> None:
    with pytest.raises(InputError, match=r"got \(-1.0, False\); use output_type: generate_until"):
        best_of_n(Judge()).apply([[(-1.0, False)]], ROWS[:1])


def test_names_are_those_of_the_registry() -> None:
    assert get_filter("stepreward_scores") is StepScores
    for name in ("best_of_n", "weighted_vote", "hybrid_vote", "reward_frequency_vote", "borda"):
        assert isinstance(get_filter(f"stepreward_{name}"), partial)
        assert [*get_filter(f"stepreward_{name}")(Judge()).apply([["16", "17", "17"]], ROWS[:1])] == [["17"]]
    with pytest.raises(MissingDataError, match="oracle needs 'outcome'"):
        StepChoice("oracle", Judge())
    with pytest.raises(UnknownNameError, match="did you mean best-of-n"):
        StepChoice("best_of_n", Judge())
