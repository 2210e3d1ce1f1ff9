"""Progress: speed and time left of what was done now, a line now and then, silence for machines."""

from __future__ import annotations

import pytest

from stepreward.cli.terminal import progress
from stepreward.cli.terminal.progress import StageProgress, duration, speed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test winds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_tell_speed_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress() as show:
        for seconds, done in ((2.0, 1), (5.0, 4), (20.0, 10), (40.0, 20)):
            clock[0] = 100.0 + seconds
            show("label", done, 20, "9 tokens")
    lines = capsys.readouterr().err.splitlines()
    # Of the first news nothing follows; the second comes too soon for a line; then 9 in 18 s, so 10 more in 20 s.
    assert lines == [
        "label: 1 of 20 9 tokens",
        "label: 10 of 20 at 2.0 s each, 20 s left, 9 tokens",
        "label: 20 of 20 at 2.0 s each, 9 tokens",
    ]


def test_answers_that_come_in_batches_are_timed_by_whole_batches(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    # Eight batches of 100, one a minute: 8 minutes in all. Each batch is told item by item, at one moment.
    with StageProgress() as show:
        for batch in range(8):
            clock[0] += 60.0
            for item in range(100):
                clock[0] += 1e-4
                show("label", 100 * batch + item + 1, 800, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "label: 1 of 800 "
    # The first of batch k + 1: 100 k items in k minutes, so 799 - 100 k others at 0.6 s; rich rounds up.
    expected = [f"{minutes} min 00 s" for minutes in (7, 6, 5, 4, 3, 2, 1)]
    assert [line.split(", ")[1].removesuffix(" left") for line in lines[1:8]] == expected
    assert "left" not in lines[-1]


def test_the_first_answers_of_many_are_not_taken_for_the_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """The built-in job's own first lines: 2 of 300 in 11 s are no hour, as all 300 come in 14 s."""
    with StageProgress() as show:
        for seconds, done in ((0, 1), (11.3, 2), (14.0, 300), (20.0, 300)):
            clock[0] = 100.0 + seconds
            show("sample", done, 300, "")
        clock[0] += 61
        show("label", 1, 4171, "")
        clock[0] += 301
        show("label", 5, 4171, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["sample: 1 of 300 ", "sample: 2 of 300 "]
    assert "left" in lines[-1]  # after five minutes in any case


def test_a_resumed_stage_counts_only_what_it_did(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress() as show:
        clock[0] += 50
        show("sample", 8, 8, "")
        clock[0] += 2
        show("train", 901, 1000, "")
        clock[0] += 18
        show("train", 910, 1000, "")
    # 9 steps in 18 s, 90 more in 180 s.
    assert capsys.readouterr().err.splitlines()[-1] == "train: 910 of 1,000 at 2.0 s each, 3 min 00 s left, "


@pytest.mark.parametrize("total", [50, 40])
def test_a_stage_that_comes_again_is_timed_anew(
    clock: list[float], capsys: pytest.CaptureFixture[str], total: int
) -> None:
    with StageProgress() as show:
        news = ((9, "sample", 40, 40), (500, "train", 7, 7), (4, "sample", 2, total), (12, "sample", 5, total))
        for seconds, stage, done, size in news:
            clock[0] += seconds
            show(stage, done, size, "")
    # Three in 12 s.
    left = {50: "3 min 00 s", 40: "2 min 20 s"}[total]
    assert capsys.readouterr().err.splitlines()[-1] == f"sample: 5 of {total} at 4.0 s each, {left} left, "


def test_machines_see_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(quiet=True) as show:
        show("label", 1, 1, "")
    assert capsys.readouterr() == ("", "")


def test_no_speed_is_told_before_it_can_be_measured(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress() as show:
        clock[0] += 0.5
        show("label", 3, 20, "")
    assert capsys.readouterr().err == "label: 3 of 20 \n"


@pytest.mark.parametrize(
    ("seconds", "says"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, says: str) -> None:
    assert duration(seconds) == says


@pytest.mark.parametrize(("rate", "says"), [(0.0, ""), (0.25, "4.0 s each"), (1.0, "1.0/s"), (1234.56, "1,234.6/s")])
def test_speeds(rate: float, says: str) -> None:
    assert speed(rate) == says
