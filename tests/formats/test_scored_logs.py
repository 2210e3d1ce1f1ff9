"""Scores written back into logs: each layout gives its runs and the scores back, and all that it held before."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.core.errors import InputError
from stepreward.core.failures import Failures
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.registry import formats, read
from stepreward.formats.scored_logs import Goal, PlacedScores
from stepreward.verbs.score_logs import score_log
from tests.cli.running import invoke, refused
from tests.formats.examples import EXAMPLES

LAYOUTS = {
    name: [line for row in EXAMPLES[name] for line in row.get("lines", [row])]
    for name in ("atif", "openinference", "otel-genai", "langfuse")
}
# An observation alone, without its trace, holds no scores of observations.
LAYOUTS["langfuse"] = [row for row in LAYOUTS["langfuse"] if "type" not in row]
ANNOTATION = {"name", "score", "label", "explanation", "annotator_kind", "identifier", "metadata"}
"""`annotation.*` of openinference-semantic-conventions 0.1.42."""
LANGFUSE = {
    "id", "traceId", "sessionId", "observationId", "datasetRunId", "name", "value", "comment", "metadata",
    "environment", "queueId", "dataType", "configId", "source", "timestamp",
}  # fmt: skip
"""`CreateScoreRequest` of langfuse 5.0.4."""
PHOENIX = {"name", "annotator_kind", "span_id", "result", "metadata", "identifier"}
"""`SpanAnnotationData` of arize-phoenix-client 3.5.0."""


class ByLength:
    """A scorer: an action's score is one over its characters; of what says `unsure` there is none."""

    name, batch_size = "by-length", 4

    def __init__(self, unsure: str = "unsure") -> None:
        self.unsure = unsure

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [
            Scored(np.array([self.of(step.text) if step.kind == "action" else np.nan for step in one.steps]))
            for one in questions
        ]

    def of(self, text: str) -> float:
        return math.nan if self.unsure in text else 1 / len(text)


def wrote(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(name)


def scored(path: Path, out: str, to: Goal = "log", column: str = "score:mine", **options: Any) -> PlacedScores:
    failed = Failures()
    made = score_log(read(path, **options), ByLength, out, to=to, column=column, failed=failed)
    assert not failed
    return made


def contains(large: Any, small: Any) -> bool:
    """Whether one value has all of another: fields of objects, and entries of lists in their order."""
    if isinstance(small, Mapping):
        return isinstance(large, Mapping) and all(k in large and contains(large[k], v) for k, v in small.items())
    if isinstance(small, list):
        left = iter(large)
        return all(any(contains(one, part) for one in left) for part in small)
    return bool(large == small and type(large) is type(small))


def whole(run: Trajectory) -> tuple[Any, ...]:
    """A run with all that equality leaves out, but for step columns."""
    return run, dict(run.facts), [dict(step.meta) for step in run.steps], run.provenance, run.outcome


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_runs_come_back_with_their_scores(name: str) -> None:
    source = wrote("log.jsonl", LAYOUTS[name])
    made = scored(source, "out.jsonl")
    before, after = list(read(source)), list(read(Path("out.jsonl")))
    np.testing.assert_equal([whole(run) for run in after], [whole(run) for run in before])
    seen = 0
    for run in after:
        got = run.column("score:mine")
        for step, value in zip(run.steps, got.tolist(), strict=True):
            # Where the layout has no place for a score, as in a trace without observations, there is none.
            if step.kind == "action" and not (name == "langfuse" and "observation_id" not in step.meta):
                assert value == 1 / len(step.text)
                seen += 1
            else:
                assert math.isnan(value)
    assert seen == len(made.placed) > 1
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert contains(rows, LAYOUTS[name])
    assert not contains(LAYOUTS[name], rows)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_log_that_is_scored_twice_has_each_score_once(name: str) -> None:
    source = wrote("log.jsonl", LAYOUTS[name])
    scored(source, "once.jsonl")
    scored(Path("once.jsonl"), "twice.jsonl")
    assert Path("twice.jsonl").read_bytes() == Path("once.jsonl").read_bytes()
    scored(Path("once.jsonl"), "both.jsonl", column="score:other")
    (run, *_) = read(Path("both.jsonl"))
    assert set(run.scores) == {"mine", "other"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_not_scored_is_not_there(name: str) -> None:
    source = wrote("log.jsonl", LAYOUTS[name])
    failed = Failures()
    made = score_log(read(source), lambda: ByLength("17"), "out.jsonl", column="score:mine", failed=failed)
    assert made.unscored == sum("17" in one.text and one.kind == "action" for run in read(source) for one in run.steps)
    assert made.unscored
    assert "NaN" not in Path("out.jsonl").read_text()
    for run in read(Path("out.jsonl")):
        unsure = np.array(["17" in step.text for step in run.steps])
        assert np.isnan(run.column("score:mine")[unsure]).all()
    lines = zip(source.read_bytes().splitlines(), Path("out.jsonl").read_bytes().splitlines(), strict=True)
    assert all(after == before for before, after in lines if b"mine" not in after)


def test_atif_keeps_scores_in_extra_alone() -> None:
    scored(wrote("log.jsonl", LAYOUTS["atif"]), "out.jsonl")
    first = json.loads(Path("out.jsonl").read_text().splitlines()[0])
    steps = first["steps"]
    assert steps[1]["extra"].keys() == {"reward", "step_scores"}
    assert steps[1]["extra"]["step_scores"].keys() == {"mine"}
    assert "extra" not in steps[0]
    # Copied context was no action of this run; the sub-agent's own action is.
    inner = first["subagent_trajectories"][0]["steps"]
    assert ["extra" in step for step in inner] == [False, False, True]


def test_a_trajectory_in_a_column_of_text_stays_there() -> None:
    row = {"trial": 1, "trajectory": json.dumps(LAYOUTS["atif"][1])}
    scored(wrote("log.jsonl", [row]), "out.jsonl")
    made = json.loads(Path("out.jsonl").read_text())
    assert made.keys() == row.keys()
    assert "step_scores" in json.loads(made["trajectory"])["steps"][2]["extra"]
    assert contains(json.loads(made["trajectory"]), LAYOUTS["atif"][1])


def test_open_inference_names_annotations_as_its_conventions_do() -> None:
    scored(wrote("log.jsonl", LAYOUTS["openinference"]), "out.jsonl")
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    flat = {name for row in rows for name in row.get("attributes", {}) if name.startswith("annotations.")}
    assert {name.removeprefix("annotations.0.annotation.") for name in flat} <= ANNOTATION
    columns = next(row for row in rows if "context.trace_id" in row)["attributes.annotations"]
    assert columns[0]["annotation"].keys() <= ANNOTATION
    (span,) = rows[-1]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    typed = {one["key"]: one["value"] for one in span["attributes"]}
    assert typed["annotations.0.annotation.name"] == {"stringValue": "mine"}
    assert typed["annotations.0.annotation.score"].keys() == {"doubleValue"}


def test_annotations_of_others_stay() -> None:
    attributes = {
        "openinference": {"span": {"kind": "LLM"}},
        "llm": {
            "input_messages": [{"message": {"role": "user", "content": "1 + 1"}}],
            "output_messages": [{"message": {"role": "assistant", "content": "2"}}],
        },
        "annotations": [{"annotation": {"name": "tone", "label": "kind", "score": 0.5}}],
    }
    span = {"context": {"trace_id": "t", "span_id": "s"}, "attributes": attributes}
    scored(wrote("log.jsonl", [span]), "out.jsonl")
    (run,) = read(Path("out.jsonl"))
    assert {name: values.tolist() for name, values in run.columns.items()} == {"score:tone": [0.5], "score:mine": [0.5]}
    by_name = {**span, "attributes": {**attributes, "annotations": {"tone": 1}}}
    with pytest.raises(InputError, match="row 1: span s has annotations by name"):
        scored(wrote("other.jsonl", [by_name]), "out.jsonl")


def test_gen_ai_spans_hold_an_event_of_evaluation() -> None:
    span = {**LAYOUTS["otel-genai"][0], "end_time": "2026-01-01T00:00:01Z"}
    scored(wrote("log.jsonl", [span]), "out.jsonl")
    (event,) = json.loads(Path("out.jsonl").read_text())["events"]
    assert (event["name"], event["timestamp"]) == ("gen_ai.evaluation.result", span["end_time"])
    assert event["attributes"].keys() == {"gen_ai.evaluation.name", "gen_ai.evaluation.score.value"}


def test_scores_for_langfuse_have_ids_that_stay() -> None:
    source = wrote("log.jsonl", LAYOUTS["langfuse"])
    made = scored(source, "scores.jsonl", to="scores")
    rows = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    assert made.homeless == 1  # the trace without observations
    assert [(row["traceId"], row["observationId"], row["name"], row["dataType"]) for row in rows] == [
        ("t1", "o1", "mine", "NUMERIC"), ("t1", "o2", "mine", "NUMERIC"),
    ]  # fmt: skip
    assert all(row.keys() <= LANGFUSE for row in rows)
    scored(source, "again.jsonl", to="scores")
    assert Path("again.jsonl").read_bytes() == Path("scores.jsonl").read_bytes()
    scored(source, "other.jsonl", to="scores", column="score:other")
    others = [json.loads(line)["id"] for line in Path("other.jsonl").read_text().splitlines()]
    assert len({*others, *(row["id"] for row in rows)}) == 4
    # The same scores, with the same ids, are among those of the trace.
    scored(source, "out.jsonl")
    trace = json.loads(Path("out.jsonl").read_text().splitlines()[0])
    assert [one for one in trace["scores"] if "observationId" in one] == sorted(
        rows, key=lambda row: row["id"] != rows[1]["id"]
    )


def test_scores_of_observations_are_no_outcome() -> None:
    about = {"name": "right", "value": 0, "traceId": "t1", "observationId": "o1"}
    row = {**LAYOUTS["langfuse"][0], "scores": [about]}
    (run,) = read(wrote("log.jsonl", [row]))
    assert math.isnan(run.outcome)
    assert run.column("score:right").tolist()[0] == 0
    (both,) = read(wrote("both.jsonl", [{**row, "scores": [about, *LAYOUTS["langfuse"][0]["scores"]]}]))
    assert both.outcome == 1


def test_scores_for_phoenix_are_span_annotations() -> None:
    scored(wrote("log.jsonl", LAYOUTS["openinference"]), "scores.jsonl", to="scores")
    rows = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    assert {row["span_id"] for row in rows} == {"s1", "s2", "x", "y"}
    assert all(row.keys() <= PHOENIX and row["result"].keys() == {"score"} for row in rows)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", ["object", "array", "wrapped"])
def test_json_stays_an_object_or_an_array(shape: str, packed: bool) -> None:
    rows = LAYOUTS["atif"]
    value = {"object": rows[0], "array": rows, "wrapped": {"version": 2, "data": rows}}[shape]
    name = "log.json.gz" if packed else "log.json"
    text = json.dumps(value, indent=2).encode()
    Path(name).write_bytes(gzip.compress(text) if packed else text)
    scored(Path(name), f"out-{name}")
    data = Path(f"out-{name}").read_bytes()
    made = json.loads(gzip.decompress(data) if packed else data)
    assert type(made) is type(value)
    assert contains(made, value)
    assert all("mine" in run.scores for run in read(Path(f"out-{name}")))


def test_lines_that_cannot_be_read_stay_byte_for_byte() -> None:
    good = json.dumps(LAYOUTS["atif"][1])
    lines = ["{broken", good, "", '{"schema_version": "ATIF-v1.4", "steps": [3]}', '{"x":1,   "y":1e3}']
    Path("log.jsonl").write_text("\r\n".join(lines) + "\n")
    failed = Failures()
    score_log(read(Path("log.jsonl"), "atif"), ByLength, "out.jsonl", failed=failed)
    assert failed.total == 3
    before, after = (Path(name).read_bytes().split(b"\n") for name in ("log.jsonl", "out.jsonl"))
    assert [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [1]
    assert after[1].endswith(b"}\r")


def test_a_table_of_spans_stays_a_table() -> None:
    rows = [row for row in LAYOUTS["openinference"] if "context.trace_id" in row]
    pq.write_table(pa.Table.from_pylist(rows), "spans.parquet")
    scored(Path("spans.parquet"), "out.parquet")
    made = pq.read_table("out.parquet").to_pylist()
    assert made[0].keys() == {*rows[0], "attributes.annotations"}
    assert [run.column("score:mine").tolist() for run in read(Path("out.parquet"))] == [[1 / 3]]


def test_every_layout_that_holds_scores_is_tested() -> None:
    assert {name for name, one in formats.items() if one.scores} == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_score_writes_the_log_again(name: str) -> None:
    wrote("log.jsonl", LAYOUTS[name])
    done = CliRunner().invoke(
        app, ["score", "--model", "tool", "--data", "log.jsonl", "--out", "out.jsonl", "--to", "log"]
    )
    assert done.exit_code == 0, done.output
    assert f"actions in out.jsonl, {name}" in done.stderr
    assert ("have no place in the log" in done.stderr) == (name == "langfuse")
    table = stepreward.score("log.jsonl", "tool")
    for run, again in zip(table, read(Path("out.jsonl")), strict=True):
        if name != "langfuse" or "observation_id" in run.steps[0].meta:
            np.testing.assert_equal(again.column("score"), run.column("score"))


def test_refusals_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    chat = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]
    wrote("chat.jsonl", [{"messages": chat}])
    wrote("log.jsonl", LAYOUTS["atif"])
    Path("folder").mkdir()
    wrote("folder/log.jsonl", LAYOUTS["atif"])
    score = "score --model tool --data"
    for line, said in {
        f"{score} chat.jsonl --out o.jsonl --to log": "has no place for scores of steps; write the table, or pass",
        f"{score} log.jsonl --out o.jsonl --to scores": "no platform is known that takes scores",
        f"{score} log.jsonl --out log.jsonl --to log": "is read and written at once",
        f"{score} log.jsonl --out o.parquet --to log": "a .jsonl log stays one",
        f"{score} folder --out o.jsonl --to log": "a folder cannot be written again",
        f"{score} log.jsonl --to log": "pass --data and --out",
    }.items():
        assert said in refused(line, capsys, monkeypatch), line
    wrote("observations.jsonl", [LAYOUTS["langfuse"][0]["observations"][0]])
    assert "row 1 is an observation, which can hold no scores of steps; write --to scores" in refused(
        f"{score} observations.jsonl --out o.jsonl --to log", capsys, monkeypatch
    )
    assert not Path("o.jsonl").exists()
    invoke(f"{score} observations.jsonl --out scores.jsonl --to scores")
    assert json.loads(Path("scores.jsonl").read_text())["observationId"] == "o2"


@pytest.mark.parametrize("to", ["log", "scores"])
def test_scores_of_a_table_are_written_without_scoring_again(to: Goal) -> None:
    source = wrote("log.jsonl", LAYOUTS["langfuse"])
    for scorer, out in (("length", "direct.jsonl"), ("stored:table.parquet#score:mine", "stored.jsonl")):
        if scorer == "length":
            invoke(f"score --model length --data {source} --out table.parquet --column score:mine")
        invoke(f"score --model {scorer} --data {source} --out {out} --to {to} --column score:mine")
    assert Path("stored.jsonl").read_bytes() == Path("direct.jsonl").read_bytes()
    # A column that is not there, and a run that is not in the table.
    with pytest.raises(InputError, match=r"row 1: the row has no column 'score'; its columns: .*score:mine"):
        stepreward.load("stored:table.parquet")
    stored = stepreward.load("stored:table.parquet#score:mine")
    with pytest.raises(InputError, match="no such solution"):
        stored.score("What?", ["This."])


def test_a_log_is_scored_by_names_alone() -> None:
    source = wrote("log.jsonl", LAYOUTS["langfuse"])
    made = stepreward.score_log(source, "length", "out.jsonl")
    assert made.placed
    assert next(iter(read(Path("out.jsonl")))).column("score").any()


def test_a_table_with_two_scores_of_one_solution_is_refused() -> None:
    one = Trajectory(Problem("p", "How many?"), (Step("2"),))
    stepreward.write("twice.parquet", [one.with_columns({"score": np.array([x])}) for x in (0.5, 0.25)])
    with pytest.raises(InputError, match="row 2: a solution of problem 'p' has other scores"):
        stepreward.load("stored:twice.parquet")
