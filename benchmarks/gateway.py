"""The search gateway under 64 clients on loopback, against the same clients at its backend without it.

    python -m benchmarks.gateway [--quick]

Three processes: a backend that answers at once, the gateway (`stepreward serve`, one sample a request, so that the
work behind both ways is the same), and the clients. What is measured is the gateway's own cost: requests a second,
latency, what it adds to each, and its memory at the end of each third of the run.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CLIENTS, SECONDS = 64, 24.0
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
Latencies = list[float]


@contextmanager
def running(*command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program and the first line that it says."""
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert run.stdout is not None
    try:
        yield run, run.stdout.readline()
    finally:
        run.kill()
        run.wait()
        run.stdout.close()


async def client(port: int, name: str, mark: str, end: float, took: Latencies, wrong: list[str]) -> None:
    """Asks again and again on one connection until the end, and checks that each answer is its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    n = 0
    while time.monotonic() < end:
        own = f"{mark}{n:05d}"
        asked = {"model": name, "messages": [{"role": "user", "content": f"say {own}"}], "seed": n, "stream": True}
        body = json.dumps(asked).encode()
        began = time.perf_counter()
        writer.write(HEAD % len(body) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        said = await reader.readuntil(b"\r\n0\r\n\r\n")
        took.append(time.perf_counter() - began)
        if not head.startswith(b"HTTP/1.1 200") or own.encode() not in said or b"[DONE]" not in said:
            wrong.append(own)
        n += 1
    writer.close()


async def load(port: int, name: str, clients: int, seconds: float) -> dict[str, Any]:
    """Requests a second, median and 99th percentile in ms, and how many were wrong."""
    took: Latencies = []
    wrong: list[str] = []
    began, end = time.monotonic(), time.monotonic() + seconds
    await asyncio.gather(*(client(port, name, f"{i:03d}", end, took, wrong) for i in range(clients)))
    passed = time.monotonic() - began
    p50, p99 = np.percentile(np.array(took) * 1e3, [50, 99])
    return {
        "clients": clients, "requests": len(took), "per_second": len(took) / passed, "p50_ms": p50, "p99_ms": p99,
        "wrong": len(wrong),
    }  # fmt: skip


def resident(process: int) -> float:
    """Memory of a process in MiB."""
    told = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(told.group(1)) / 1024 if told else float("nan")


def main(seconds: float) -> dict[str, Any]:
    """Both ways, one after the other, with one client and with many."""
    port = 18_301
    with running(sys.executable, "-m", "tests.serve.backend", str(port)):
        direct = [asyncio.run(load(port, "m", clients, seconds / 4)) for clients in (1, CLIENTS)]
        serve = (
            str(Path(sys.executable).with_name("stepreward")), "serve", "--port", "0", "--policy",
            f"http://127.0.0.1:{port}/v1#m", "--name", "m", "--method", "majority", "--set", "n=1",
        )  # fmt: skip
        with running(*serve) as (gateway, told):
            own = int(told.rsplit(":", 1)[1])
            asyncio.run(load(own, "m", CLIENTS, seconds / 8))
            through = [asyncio.run(load(own, "m", 1, seconds / 4))]
            memory = [resident(gateway.pid)]
            for _ in range(3):
                through.append(asyncio.run(load(own, "m", CLIENTS, seconds / 3)))
                memory.append(resident(gateway.pid))
    added = {
        f"added_{name}_{one['clients']}_clients": one[name] - plain[name]
        for plain, one in zip(direct, through, strict=False)
        for name in ("p50_ms", "p99_ms")
    }
    return {"direct": direct, "gateway": through, **added, "memory_mib": memory}


if __name__ == "__main__":
    print(json.dumps(main(3.0 if "--quick" in sys.argv else SECONDS), indent=2))
