"""Commands against a server that misbehaves in one way at a time: what each of them makes of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.core.errors import ServerWarning
from tests.cli.running import solved
from tests.serve.backend import BEHAVIOURS, Backend, backing

ROW = {"id": "p", "prompt": "Add 2 and 3, then double it.", "reference": "10"}
MAJORITY = ("--method", "majority", "--samples")
BEAM = ("--model", "tool", "--method", "beam", "--beams", "2", "--width", "2", "--set", "max_steps=6")
STEPS = ["First, 2 + 3 = 5.\n", "Then 5 * 2 = 10.\n", "Answer: \\boxed{10}\n"]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Backend, str]]:
    with backing() as (backend, url):
        yield backend, url


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("p.jsonl").write_text(json.dumps(ROW) + "\n")
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    """Exit code, and what was printed or raised."""
    done = CliRunner().invoke(app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit | Exception)
    return done.exit_code, done.output + ("" if done.exception is None else str(done.exception))


def searched(url: str, model: str, *how: str) -> tuple[dict[str, Any], str]:
    """What a search found of its one problem, and what the command said."""
    code, said = run("search", "--problems", "p.jsonl", "--policy", f"{url}#{model}", *how, "--out", "o.jsonl")
    assert code == 0, said
    (row,) = solved(Path("o.jsonl"))
    return row, said


@pytest.mark.parametrize("model", ["unasked", "nullusage", "lpgap", "unasked+lpgap"])
def test_odd_accounts_change_no_answer(server: tuple[Backend, str], problems: Path, model: str) -> None:
    for how in ("", "?logprobs=true"):
        with warnings.catch_warnings(action="ignore", category=ServerWarning):
            row, said = searched(server[1], model + how, *MAJORITY, "2")
        assert (row["outcome"], row["bill"]["cut"], row.get("error")) == (1, 0, None), said
        assert [step["text"] for step in row["steps"]] == STEPS


@pytest.mark.parametrize("model", ["errnull", "parts", "blank", "leadnl", "half", "good+count+errnull", "context"])
def test_answers_of_odd_forms_are_read(server: tuple[Backend, str], problems: Path, model: str) -> None:
    row, said = searched(server[1], model, *MAJORITY, "2")
    right = "count" not in model
    assert (row["outcome"], row["bill"]["cut"], row.get("error")) == (right, 0, None), said
    assert not [step for step in row["steps"] if not step["text"].strip()]


@pytest.mark.parametrize("model", ["good", "blank", "leadnl", "unasked", "nullusage"])
def test_a_beam_grows_steps_that_say_something(server: tuple[Backend, str], problems: Path, model: str) -> None:
    row, _ = searched(server[1], model, *BEAM)
    assert [step["text"].strip() for step in row["steps"]] == [step.strip() for step in STEPS]
    assert row["outcome"] == 1


def test_a_separator_is_typed_as_in_a_shell(server: tuple[Backend, str], problems: Path) -> None:
    row, _ = searched(
        server[1], r"blank?separator=\n\n", "--model", "tool", "--method", "weighted-vote", "--samples", "2"
    )
    assert [step["text"] for step in row["steps"]] == [step + "\n" for step in STEPS]


@pytest.mark.parametrize(("model", "reason"), [("abort", "'abort'"), ("nullreason", "None")])
def test_answers_that_broke_off_are_no_answers(
    server: tuple[Backend, str], problems: Path, model: str, reason: str
) -> None:
    where = f"{server[1]}#{model}?retries=0"
    code, said = run("search", "--problems", "p.jsonl", "--policy", where, *MAJORITY, "2", "--out", "o.jsonl")
    assert code == 1
    assert f"finish_reason {reason}" in said


@pytest.mark.parametrize(
    ("model", "note"),
    [
        ("good?max_tokens=9", "4 of 4 samples reached max_tokens=9"),
        ("reasoncut", "4 of 4 samples reached max_tokens=1024, or the end of the context, and are cut; "
         "4 wrote nothing but thinking"),
        ("toolcut", "4 of 4 samples reached max_tokens=1024"),
    ],
)  # fmt: skip
def test_cut_answers_are_counted_and_named(server: tuple[Backend, str], problems: Path, model: str, note: str) -> None:
    row, said = searched(server[1], model, *MAJORITY, "4")
    assert note in said
    assert (row["bill"]["cut"], row.get("answer")) == (4, None)
    assert not any(one["terminal"] for one in row["candidates"])
    again, said = searched(server[1], model, *MAJORITY, "4")
    assert again["bill"]["cut"] == 4, "answers from the log are cut too"


def test_labels_of_cut_rollouts_are_unknown_and_not_zero(server: tuple[Backend, str], problems: Path) -> None:
    where = f"{server[1]}#good?max_tokens=6"
    code, said = run(
        "label", "--problems", "p.jsonl", "--policy", where, "--samples", "2", "--rollouts", "2", "--out", "lab"
    )
    assert code == 0, said
    assert "samples reached max_tokens=6" in said
    assert "1 of 1 solutions have no label on any step: most of their rollouts were cut" in said
    (labels,) = pq.read_table("lab/labels.parquet").column("label").to_pylist()
    assert set(labels or ()) <= {None}


def test_a_null_log_probability_is_named(server: tuple[Backend, str], problems: Path) -> None:
    with pytest.warns(ServerWarning, match="null in place of log-probabilities"):
        row, _ = searched(server[1], "lpnull?logprobs=true", *MAJORITY, "2")
    assert row["outcome"] == 1


def test_tokens_without_a_log_probability_do_not_shift_the_others(server: tuple[Backend, str], problems: Path) -> None:
    with pytest.warns(ServerWarning, match="null in place of log-probabilities of tokens, or none"):
        row, _ = searched(server[1], "lpgap?logprobs=true", *MAJORITY, "1")
    # "2 " of the first step and of the last number "2 " of the second have none; every other token has -0.5.
    given = [["nan" if value is None else value for value in step["logprobs"]] for step in row["steps"]]
    assert given == [[-0.5, "nan", -0.5, -0.5, -0.5, -0.5], [-0.5, -0.5, -0.5, "nan", -0.5, -0.5], [-0.5, -0.5]]


def test_null_usage_counts_pieces_and_thinking_without_an_answer_is_told(
    server: tuple[Backend, str], problems: Path
) -> None:
    row, _ = searched(server[1], "nullusage", *MAJORITY, "1")
    assert row["bill"]["generated_tokens"] == 14
    row, said = searched(server[1], "thinkonly", *MAJORITY, "3")
    assert "3 wrote nothing but thinking" in said
    assert (row.get("answer"), row["bill"]["cut"]) == (None, 0)


def test_a_search_says_once_that_a_server_begins_anew(server: tuple[Backend, str], problems: Path) -> None:
    for model in ("plain", "echo", "last", "odd"):
        with pytest.warns(ServerWarning, match="continued answers as their prefix began") as told:
            searched(server[1], model, *BEAM)
        assert len(told) == 1


def test_a_refused_start_says_the_way_out_and_takes_it(server: tuple[Backend, str], problems: Path) -> None:
    where = f"{server[1]}#nothink400"
    code, said = run("search", "--problems", "p.jsonl", "--policy", where, *BEAM, "--out", "o.jsonl")
    assert code == 1
    assert '?chat_template_kwargs={"enable_thinking":false}' in said
    for way in (
        'chat_template_kwargs={"enable_thinking":false}',
        'body={"chat_template_kwargs":{"enable_thinking":false}}',
    ):
        row, _ = searched(server[1], f"nothink400?{way}", *BEAM)
        assert row["outcome"] == 1


FLAGS = (
    "--top-k", "20", "--min-p", "0.1", "--reasoning-effort", "low", "--chat-template-kwargs",
    '{"enable_thinking": false}', "--body", '{"user": "me"}',
)  # fmt: skip
SENT = {
    "top_k": 20, "min_p": 0.1, "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False},
    "user": "me",
}  # fmt: skip


@pytest.mark.parametrize("command", ["search", "label", "doctor"])
def test_settings_of_a_policy_are_flags_too(server: tuple[Backend, str], problems: Path, command: str) -> None:
    backend, url = server
    words = {
        "search": (*MAJORITY, "2", "--problems", "p.jsonl", "--out", "o.jsonl"),
        "label": ("--samples", "1", "--rollouts", "1", "--problems", "p.jsonl", "--out", "lab"),
        "doctor": (),
    }[command]
    backend.sent.clear()
    code, said = run(command, "--policy", f"{url}#nothink400+count+draw", *words, *FLAGS)
    assert code == 0, said
    assert all({name: body[name] for name in SENT} == SENT for body in backend.sent)
    assert backend.sent
    code, said = run(command, "--policy", f"{url}#good?top_k=3", *words, *FLAGS)
    assert (code, "top_k is given twice" in said) == (1, True)


def test_streams_of_comments_do_not_hold_the_others(server: tuple[Backend, str], problems: Path) -> None:
    backend, url = server
    rows = [ROW | {"id": f"p{i}"} for i in range(20)]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = f"{url}#comments?timeout=0.5&retries=0"
    code, said = run("search", "--problems", "p.jsonl", "--policy", where, *MAJORITY, "4", "--out", "o.jsonl")
    assert code == 0, said
    made = solved(Path("o.jsonl"))
    assert backend.held > 5
    assert all(row["outcome"] == 1 for row in made)
    assert sum(row["bill"]["failed"] for row in made) == backend.held


def test_a_password_in_an_address_is_in_no_output(server: tuple[Backend, str], problems: Path) -> None:
    url = server[1].replace("://", "://me:HUSH99@") + "?key=HUSH88"
    said = run("search", "--problems", "p.jsonl", "--policy", f"{url}#secret", *MAJORITY, "1", "--out", "bad.jsonl")[1]
    said += run("doctor", "--policy", f"{url}#secret")[1]
    assert "not allowed" in said
    said += searched(url, "good", *MAJORITY, "1")[1]
    said += run("label", "--problems", "p.jsonl", "--policy", f"{url}#good", "--samples", "1", "--out", "lab")[1]
    said += run("search", "--problems", "p.jsonl", "--policy", url, *MAJORITY, "1", "--out", "bad.jsonl")[1]
    said += str(pq.read_table("lab/labels.parquet").to_pylist())
    held = said.encode() + b"".join(path.read_bytes() for path in problems.rglob("*") if path.is_file())
    assert (problems / "lab" / "plan.json").is_file()
    assert b"HUSH" not in held
    # The same folder, the same answers, without the password.
    code, said = run(
        "label", "--problems", "p.jsonl", "--policy", f"{server[1]}#good", "--samples", "1", "--out", "lab"
    )
    assert code == 0, said


@pytest.mark.parametrize(
    ("model", "lacks"),
    [
        ("count+draw", {}),
        ("count", {"seeds": "every seed gives the same answer"}),
        ("count+draw+plain", {"goes on": "a new answer is begun"}),
        ("count+draw+echo", {"goes on": "the start is repeated"}),
        ("count+draw+trim", {"goes on": "trims the started answer"}),
        ("draw+nothink400", {"goes on": "a started answer is refused"}),
        ("draw", {}),
        ("count+draw+last", {"goes on": "the last line of the start is repeated"}),
        ("count+draw+odd", {"goes on": "of 4 answers a new answer is begun"}),
        ("count+greedy+draw", {}),
        ("count+draw+unasked", {}),
        ("count+draw+nullusage", {"counts tokens": "usage is not reported"}),
        ("thinkonly", {"answers": "went into thinking"}),
        ("draw+plain", {"goes on": "a new answer is begun, or the start is repeated"}),
        ("reasoncut", {"answers": "went into thinking"}),
    ],
)
def test_the_doctor_tells_servers_apart(server: tuple[Backend, str], model: str, lacks: dict[str, str]) -> None:
    done = CliRunner().invoke(app, ["doctor", "--policy", f"{server[1]}#{model}", "--json"])
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert {what for what, row in found.items() if not row["good"] and what != "models"} == set(lacks), found
    for what, says in lacks.items():
        assert says in found[what]["says"]
    assert set(model.split("+")) <= set(BEHAVIOURS)


def test_a_resumed_search_says_that_scores_may_differ(
    server: tuple[Backend, str], problems: Path, inside: Path
) -> None:
    Path("s.jsonl").write_text(json.dumps(ROW) + "\n")
    words = (
        "search",
        "--problems",
        "s.jsonl",
        "--policy",
        f"{server[1]}#good",
        "--model",
        "model",
        "--out",
        "s.json",
    )
    how = ("--method", "best-of-n", "--samples", "1")
    told = "scores may differ in their last digits"
    assert told not in run(*words, *how)[1]
    assert told in run(*words, *how)[1]
    assert told not in run(*words, *how, "--cache-memory", "0")[1]
    tool = [word if word != "model" else "tool" for word in words]
    assert told not in run(*tool, *how)[1]
