"""A hub of models on loopback: what `huggingface_hub` asks of the real one, answered from a folder."""

from __future__ import annotations

import base64
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
def serving(models: Path, token: str = "", private: set[str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serves the folders `owner/name` below `models`; the address, and the files that were downloaded so far.

    Args:
        models: the folders; who has the token may add to them.
        token: of those who may write; empty for nobody.
        private: names of private models.
    """
    sent: list[str] = []
    hidden: set[str] = set() if private is None else private
    blobs: dict[str, bytes] = {}

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body, path = self.body(), self.path.partition("?")[0].strip("/")
            if path == "api/validate-yaml":
                return self.reply({"errors": [], "warnings": []})
            if not token or self.headers.get("Authorization") != f"Bearer {token}":
                return self.reply({"error": "Invalid username or password."}, 401)
            if path == "api/repos/create":
                return self.create(json.loads(body))
            if path.endswith("/info/lfs/objects/batch"):
                place = f"http://{self.headers['Host']}/lfs/"
                objects = [
                    {**one, "actions": {"upload": {"href": place + one["oid"]}}} for one in json.loads(body)["objects"]
                ]
                return self.reply({"transfer": "basic", "objects": objects})
            _, _, owner, name, verb, *_ = path.split("/")
            if verb == "preupload":
                files = [
                    {
                        "path": one["path"], "shouldIgnore": False,
                        "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    }
                    for one in json.loads(body)["files"]
                ]  # fmt: skip
                return self.reply({"files": files})
            assert verb == "commit", self.path
            self.commit(models / owner / name, [json.loads(line) for line in body.splitlines()])
            url = f"http://{self.headers['Host']}/{owner}/{name}/commit/{_COMMIT}"
            return self.reply({"success": True, "commitUrl": url, "commitOid": _COMMIT})

        def do_PUT(self) -> None:
            body = self.body()
            blobs[hashlib.sha256(body).hexdigest()] = body
            self.reply({})

        def create(self, wanted: dict[str, Any]) -> None:
            name = f"{wanted['organization']}/{wanted['name']}"
            url = f"http://{self.headers['Host']}/{name}"
            if (models / name).is_dir():
                return self.reply({"error": "You already created this model repo", "url": url}, 409)
            (models / name).mkdir(parents=True)
            if wanted.get("private") or wanted.get("visibility") == "private":
                hidden.add(name)
            return self.reply({"url": url})

        def commit(self, folder: Path, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
                elif line["key"] == "lfsFile":
                    (folder / value["path"]).write_bytes(blobs[value["oid"]])
                elif line["key"] == "deletedFile":
                    (folder / value["path"]).unlink()

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made = b""
            while size := int(self.rfile.readline(), 16):
                made += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return made

        def reply(self, content: object, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

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
                info = {
                    "id": "/".join(name),
                    "sha": _COMMIT,
                    "private": "/".join(name) in hidden,
                    "siblings": [{"rfilename": f["path"]} for f in files],
                }
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
