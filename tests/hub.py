"""A hub of models on loopback: what `huggingface_hub` asks of the real one, answered from a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

_COMMIT = "0" * 39 + "1"


@contextmanager
def serving(models: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves the folders `owner/name` below `models`; the address, and the files that were downloaded so far."""
    sent: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self.answer(parts[2:4], None)
            else:
                self.answer(parts[:2], "/".join(parts[4:]))

        def do_HEAD(self) -> None:
            self.do_GET()

        def answer(self, name: list[str], file: str | None) -> None:
            folder = models.joinpath(*name)
            if not folder.is_dir():
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if file is None:
                paths = [path for path in folder.rglob("*") if path.is_file()]
                files = [
                    {"type": "file", "path": p.relative_to(folder).as_posix(), "size": p.stat().st_size} for p in paths
                ]
                info = {"id": "/".join(name), "sha": _COMMIT, "siblings": [{"rfilename": f["path"]} for f in files]}
                tree = [
                    {**f, "oid": hashlib.sha1(p.read_bytes()).hexdigest()} for f, p in zip(files, paths, strict=True)
                ]
                body = json.dumps(tree if "/tree/" in self.path else info).encode()
            else:
                body = (folder / file).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", _COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)
                if file is not None:
                    sent.append(file)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        server.server_close()
