"""A group of solutions that lies in two processes is one group: its advantages are those worked out from all of it."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from tests.forked import begun, ended

pytest.importorskip("trl")


def two_processes(folder: Path) -> list[CompletedProcess[str]]:
    """Runs the script as ranks 0 and 1 of one group, as `torchrun` would, without its own process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("two_processes.py")
    environment = {
        "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1", "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip

    processes = [
        begun(
            script, folder, folder / f"log-{rank}", words=[str(folder)],
            environment={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    return [ended(process, folder / f"log-{rank}", 140) for rank, process in enumerate(processes)]


def test_a_group_across_two_processes_is_one_group(tmp_path: Path) -> None:
    finished = two_processes(tmp_path)
    if any(done.returncode == -signal.SIGKILL for done in finished):
        # Gloo itself hangs now and then on a loaded machine, in the first collective.
        finished = two_processes(tmp_path)
    for done in finished:
        assert done.returncode == 0, done.stderr[-3000:]
    halves = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [half["processes"] for half in halves] == [2, 2]
    assert len({problem for half in halves for problem in half["problems"]}) == 1, "the group of eight was not split"
    assert all(half["training"] for half in halves), "sampling must leave the trainer in training mode"

    steps = [row for half in halves for row in half["steps"]]
    advantages = [row for half in halves for row in half["advantages"]]
    # The trainer hands every process the outcomes of all.
    assert halves[0]["outcome"] == halves[1]["outcome"]
    outcome = halves[0]["outcome"]
    totals = [sum(row) + o for row, o in zip(steps, outcome, strict=True)]
    for i, (row, given) in enumerate(zip(steps, advantages, strict=True)):
        others = np.mean([total for j, total in enumerate(totals) if j != i])
        expected = [sum(row[k:]) + outcome[i] - others for k in range(len(row))]
        np.testing.assert_allclose(given, expected, atol=1e-5)
