"""A folder in which the examples of label, train and search have run; every test of a command runs inside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import httpx
import pytest
import uvicorn

from stepreward.serve.launch import Announced
from stepreward.tasks.arithmetic import generate
from tests.cli.running import FAST, example, invoke
from tests.workers import made_once


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples of label, train and search have run on twelve problems."""
    return made_once(tmp_path_factory, "user", _run_examples)


def _run_examples(made: Path) -> None:
    rows = [{"id": p.id, "prompt": p.text, "reference": p.reference} for p in generate("train", 12, seed=5)]
    (made / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with chdir(made):
        for command in ("label", "train", "search"):
            (made / f"{command}.json").write_text(invoke(f"{example(command)} {FAST[command]} --json"))


@pytest.fixture(scope="package", autouse=True)
def brief_servers() -> Iterator[None]:
    """A server that a command starts ends once it has said that it is well."""

    async def well(server: uvicorn.Server) -> None:
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/health")).json()["status"] == "ok"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Announced, "main_loop", well)
        yield


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, as the current one."""
    monkeypatch.chdir(folder)
    return folder
