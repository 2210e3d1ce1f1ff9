"""Folders of logs: events a file each, sessions a file each, and folders that hold no rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from stepreward import formats
from stepreward.core.errors import InputError

from .examples import EXAMPLES, items, texts

OLD, NEW = EXAMPLES["openhands"][0]["history"], EXAMPLES["openhands"][1]["lines"]


def session(folder: Path, events: list[Any], name: str = "{}.json") -> Path:
    folder.mkdir(parents=True)
    for number, event in enumerate(events):
        (folder / name.format(number)).write_text(json.dumps(event, indent=1))
    return folder


@pytest.mark.parametrize("name", ["{}.json", "event-{:05d}-0a1b2c3d.json"])
def test_a_folder_of_events_is_one_run_in_the_order_of_their_numbers(name: str, tmp_path: Path) -> None:
    talk = [
        {"id": 0, "source": "user", "action": "message", "args": {"content": "Count."}, "message": "Count."},
        *({"id": n, "source": "agent", "action": "message", "args": {"content": str(n)}, "message": ""}
          for n in range(1, 13)),
    ]  # fmt: skip
    reading = formats.read(session(tmp_path / "s1" / "events", talk, name))
    (item,) = reading
    assert reading.format.name == "openhands"
    assert texts(item) == [f"{n}\n" for n in range(1, 13)], "10 comes behind 9"


@pytest.mark.parametrize(("at", "events"), [(0, OLD), (1, NEW)])
def test_a_session_s_folder_is_what_its_events_are(at: int, events: list[Any], tmp_path: Path) -> None:
    session(
        tmp_path / "s1" / "events", [one for event in events for one in (event if isinstance(event, list) else [event])]
    )
    (tmp_path / "s1" / "base_state.json").write_text('{"id": "s1"}')
    (item,) = formats.read(tmp_path / "s1", strict=True)
    assert texts(item) == texts(items("openhands", at)[0])
    assert item.problem.id == "openhands-s1"


def test_sessions_in_a_folder_stay_apart_and_a_broken_event_costs_no_other(tmp_path: Path) -> None:
    for name, said in (("s1", "A"), ("s2", "B")):
        asked = {"id": 0, "source": "user", "action": "message", "args": {"content": "Q"}, "message": "Q"}
        answer = {"id": 1, "source": "agent", "action": "message", "args": {"content": said}, "message": said}
        session(tmp_path / name / "events", [asked, answer])
    (tmp_path / "s1" / "events" / "2.json").write_text("{broken")
    reading = formats.read(tmp_path)
    assert [texts(item) for item in reading] == [["A\n"], ["B\n"]]
    assert [error.source for error in reading.bad] == [tmp_path / "s1" / "events" / "2.json"]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz"])
def test_conversations_a_file_each_stay_apart(ending: str, tmp_path: Path) -> None:
    for name, said in (("a", "one"), ("b", "two")):
        talk = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": said}]
        text = json.dumps(talk) if ending == ".json" else "".join(json.dumps(one) + "\n" for one in talk)
        (tmp_path / f"{name}{ending}").write_bytes(gzip.compress(text.encode()) if ".gz" in ending else text.encode())
    assert [texts(item) for item in formats.read(tmp_path, strict=True)] == [["one\n"], ["two\n"]]


def test_sessions_of_claude_code_and_trajectories_of_agents_are_parts(tmp_path: Path) -> None:
    for number in range(2):
        lines = [{**line, "sessionId": f"s{number}"} for line in EXAMPLES["claude-code"][0]["lines"]]
        (tmp_path / f"s{number}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [item.problem.id for item in formats.read(tmp_path)] == ["claude-code-s0", "claude-code-s1"]
    folder = tmp_path / "mini"
    folder.mkdir()
    for number in range(2):
        row = {**EXAMPLES["mini-swe-agent"][0], "instance_id": f"i{number}"}
        (folder / f"i{number}.traj.json").write_text(json.dumps(row, indent=2))
    assert len(list(formats.read(folder, strict=True))) == 2


def test_a_folder_without_rows_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no events are in this folder; name a file"):
        formats.read(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(InputError, match=r"settings\.json are notes and results"):
        formats.read(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InputError, match="no finished shard of labels"):
        formats.read(tmp_path)
