"""`transformers serve`, a server that no one here wrote, in a process that finds torch loaded."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.forked import begun

_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Starts it with its log in a folder, and ends it; gives its address, without `/v1`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
    words = ["serve", "--host", "127.0.0.1", "--port", str(port)]
    program = Path(sys.executable).with_name("transformers")
    process = begun(program, folder, folder / "log", words=words, environment=_ENVIRONMENT)
    try:
        with httpx.Client(timeout=1) as client:  # One for all tries: each new one would read all certificates.
            while not _is_up(client, url):
                assert process.is_alive(), (folder / "log" / "err").read_text()[-2000:]
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.join()


def _is_up(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
