"""The answer log: what was put is got back after kills, damage and full disks, or asked again; never another answer."""

from __future__ import annotations

import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepreward.core.errors import StoreError
from stepreward.core.runtime.answer_log import AnswerLog, digest
from stepreward.core.runtime.flows import Continuation, Extract, Grade, Judged, Scored
from stepreward.core.types import Problem, Step

PAGE = 4096
N = 120


def answer(i: int) -> list[Continuation]:
    """Short, long, and longer than a page of the file."""
    text = f"{i} " + "x" * (10, 300, 9000)[i % 3]
    return [Continuation((Step(text, tokens=(1, i), logprobs=(-0.5, -1.5)),), True, 3)]


def filled(path: Path) -> bytes:
    with AnswerLog(path) as log:
        for start in range(0, N, 8):
            log.put([(f"q{i}", answer(i)) for i in range(start, start + 8)])
    return path.read_bytes()


def lost(path: Path) -> tuple[int, int]:
    """Answers that are not there, none of them another's, and those that the log counted; then all can be put again."""
    with AnswerLog(path) as log:
        found = [log.get(f"q{i}") for i in range(N)]
        assert all(one in (None, answer(i)) for i, one in enumerate(found))
        log.put([(f"q{i}", answer(i)) for i in range(N)])
        assert [log.get(f"q{i}") for i in range(N)] == [answer(i) for i in range(N)]
        return sum(one is None for one in found), log.damaged


def test_every_kind_of_answer_comes_back(tmp_path: Path) -> None:
    answers: list[tuple[str, Any]] = [
        ("a", Scored(np.array([0.5, np.nan]), 1, 2)), ("b", answer(3)), ("c", Judged(0.25, 7)), ("d", 0.5),
        ("e", np.nan), ("f", None), ("g", "42"), ("h", "half a pair \ud83d"), ("i", np.float64(1)),
    ]  # fmt: skip
    with AnswerLog(tmp_path / "log.sqlite") as log:
        log.put(answers)
    with AnswerLog(tmp_path / "log.sqlite") as log:
        scored = log.get("a")
        assert (len(log), scored.tokens, scored.tokens_unshared) == (9, 1, 2)
        np.testing.assert_array_equal(scored.scores, [0.5, np.nan])
        assert [log.get(name, "absent") for name in "bcdfghi"] == [
            answer(3), Judged(0.25, 7), 0.5, None, "42", "half a pair \ud83d", 1.0,
        ]  # fmt: skip
        assert np.isnan(log.get("e"))
        assert (log.get("z"), log.get("z", "absent")) == (None, "absent")


def test_grades_are_named_by_all_that_a_grader_reads() -> None:
    def name(reference: str, meta: dict[str, Any], text: str = "x", kind: type = Grade, grader: str = "exact") -> str:
        return digest(kind(Problem("p", "?", reference, meta), (Step(text),)), grader)

    first = name("1", {"tests": ["a"], "level": 3})
    assert first == name("1", {"level": 3, "tests": ["a"]})
    others = [
        name("2", {"tests": ["a"], "level": 3}), name("1", {"tests": ["b"], "level": 3}), name("1", {}),
        name("1", {"tests": ["a"], "level": 3}, "y"), name("1", {"tests": ["a"], "level": 3}, kind=Extract),
        name("1", {"tests": ["a"], "level": 3}, grader="other"),
    ]  # fmt: skip
    assert len({first, *others}) == 7


@pytest.mark.sampled(2)
@pytest.mark.parametrize("noise", [bytes, lambda n: random.Random(n).randbytes(n)])
def test_a_damaged_page_costs_what_it_held(tmp_path: Path, noise: Callable[[int], bytes]) -> None:
    path = tmp_path / "log.sqlite"
    whole = filled(path)
    costs = []
    for page in range(len(whole) // PAGE):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        path.write_bytes(whole[: page * PAGE] + noise(PAGE) + whole[(page + 1) * PAGE :])
        gone, told = lost(path)
        assert told or not gone
        costs.append(gone)
    # A page of 4096 bytes holds at most 12 answers of 300 characters and their likes.
    assert 0 < max(costs) <= 24


def test_flipped_bits_never_give_another_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.sqlite"
    whole = filled(path)
    draw, told = random.Random(5), 0
    for _ in range(60):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        content = bytearray(whole)
        for _ in range(3):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            told += lost(path)[1]
        except StoreError as error:
            # The one field that says which version wrote the file.
            assert "of another version" in str(error)  # noqa: PT017
    assert told > 20
    assert "paid for again" in caplog.text


@pytest.mark.parametrize("kept", [0, 1, 10, 99, 5000, 20_000])
def test_a_file_cut_short_keeps_what_stands_in_it(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "log.sqlite"
    whole = filled(path)
    path.write_bytes(whole[:kept])
    if kept in (1, 10):
        with pytest.raises(StoreError, match="no answer log"):
            AnswerLog(path)
        assert path.read_bytes() == whole[:kept]
        return
    assert lost(path)[0] <= N


WRITER = """
import os, sys
from stepreward.core.runtime.answer_log import AnswerLog
sys.path.insert(0, {here!r})
from test_answer_log import N, answer
log = AnswerLog({path!r})
for i in range(N):
    log.put([(f"q{{i}}", answer(i))])
    print(i, flush=True)
sys.stdin.read()
"""


def writing(path: Path) -> subprocess.Popen[str]:
    code = WRITER.format(here=str(Path(__file__).parent), path=str(path))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


@pytest.mark.parametrize("after", [1, 40, N])
def test_a_kill_loses_nothing_and_leaves_no_lock(tmp_path: Path, after: int) -> None:
    path = tmp_path / "log.sqlite"
    with writing(path) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(after)]
        with pytest.raises(StoreError, match="in use by another process: wait for its end"):
            AnswerLog(path)
        process.send_signal(signal.SIGKILL)
    with AnswerLog(path) as log:
        assert [log.get(f"q{i}") for i in told] == [answer(i) for i in told]


@pytest.mark.parametrize("at", [0.05, 0.5, 0.9])
def test_a_damaged_write_ahead_log_costs_what_its_frame_held(tmp_path: Path, at: float) -> None:
    path = tmp_path / "log.sqlite"
    with writing(path) as process:
        assert process.stdout is not None
        for _ in range(N):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    journal = path.with_name("log.sqlite-wal")
    content = bytearray(journal.read_bytes())
    middle = int(len(content) * at)
    content[middle : middle + 50] = bytes(50)
    journal.write_bytes(content)
    assert lost(path)[0] <= 24


def test_threads_share_a_log_that_another_closes(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "log.sqlite")

    def work(start: int) -> None:
        for i in range(start, start + 30):
            log.put([(f"q{i}", answer(i))])
            assert log.get(f"q{i}") == answer(i)

    threads = [threading.Thread(target=work, args=(30 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log) == N
    closing = threading.Thread(target=log.close)
    closing.start()
    closing.join()
    assert lost(tmp_path / "log.sqlite") == (0, 0)
    with pytest.raises(StoreError, match="open it again"):
        log.get("q1")


def test_a_log_in_json_lines_is_taken_over_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"steps": [{"text": "x\n", "tokens": [1, 2]}], "finished": True, "n_tokens": 3, "truncated": False}
    lines = [
        b'{"answer_log":2}\n',
        json.dumps({"question": "a", "continuations": [{**row, "n_prompt_tokens": 0}]}).encode() + b"\n",
        b"garbage in the middle\n", b'{"question":"b"}\n', b'{"question":"b","continuations":{"x":1}}\n', b"[1]\n",
        b'{"question":"c","scores":[0.5,null],"tokens":1,"unshared":2}\n', b'{"question":"d","chan',
    ]  # fmt: skip
    old = tmp_path / "answers.jsonl"
    old.write_bytes(b"".join(lines))
    for _ in range(2):
        with caplog.at_level(logging.WARNING), AnswerLog(tmp_path / "answers.sqlite") as log:
            assert log.get("a") == [Continuation((Step("x\n", tokens=(1, 2)),), True, 3)]
            assert (len(log), log.get("c").tokens, log.get("d")) == (2, 1, None)
    assert caplog.text.count("2 answers were taken over into answers.sqlite; 5 lines could not be read") == 1
    assert old.read_bytes() == b"".join(lines)
    with pytest.raises(StoreError, match=r"is an answer log in JSON lines: open answers\.sqlite beside it"):
        AnswerLog(old)


@pytest.mark.parametrize("found", [b'{"question":"abc","preference":1.0}\n', b"not a log at all\n", b"abc"])
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path: Path, found: bytes) -> None:
    (tmp_path / "answers.jsonl").write_bytes(found)
    (tmp_path / "other.sqlite").write_bytes(found)
    for _ in range(2):
        with pytest.raises(StoreError, match="names questions otherwise; no answer in it can be found: move"):
            AnswerLog(tmp_path / "answers.sqlite")
        with pytest.raises(StoreError, match="other"):
            AnswerLog(tmp_path / "other.sqlite")
    assert (tmp_path / "answers.jsonl").read_bytes() == (tmp_path / "other.sqlite").read_bytes() == found


def test_an_unwritable_log_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="choose a writable folder"):
        AnswerLog(tmp_path / "file" / "log.sqlite")
    with pytest.raises(StoreError, match="choose a writable folder"):
        AnswerLog(tmp_path)


def test_a_full_disk_is_one_clear_error_and_what_was_put_stays(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with AnswerLog(path) as log:
        log.put([("a", answer(1))])
        # SQLite reports a full disk and a full quota of pages alike.
        log._db.execute("pragma max_page_count=3")
        with pytest.raises(StoreError, match="full; free some space and run again"):
            log.put([(f"q{i}", answer(i)) for i in range(N)])
        assert log.get("a") == answer(1)
    with AnswerLog(path) as log:
        assert (len(log), log.get("a")) == (1, answer(1))
