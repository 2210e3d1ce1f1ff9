"""Secrets in addresses of policies, reward models and judges stand in nothing that a command prints or writes."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stepreward.core.http.addresses import without_secrets
from tests.cli.running import trl_model
from tests.forked import coded
from tests.serve.backend import backing

SECRETS = ("HUSH99", "HUSH88", "HUSH77")


class Rewards(BaseHTTPRequestHandler):
    """Outputs of two labels at every token, or the request itself in an error."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ok = body["model"] != "fails"
        rows = {"data": [{"index": 0, "data": [[0.0, 1.0]] * len(body["input"])}]}
        said = json.dumps(rows if ok else {"error": f"not allowed: {self.path} {self.headers}"}).encode()
        self.send_response(200 if ok else 400)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def addresses() -> Iterator[tuple[str, str]]:
    """A policy's server and a reward model's, with secrets in both addresses."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rewards)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = "http://me:HUSH99@127.0.0.1:{}{}?key=HUSH88&api_key=HUSH77"
    with backing() as (_, url):
        port = url.removesuffix("/v1").rpartition(":")[2]
        yield told.format(port, "/v1"), told.format(server.server_port, "")
    server.shutdown()
    server.server_close()


def commands(policy: str, rewards: str) -> list[tuple[int, str]]:
    """Exit statuses with command lines."""
    ask, bench = "--problems p.jsonl", "evaluate --benchmark process-bench --threshold 0.5"
    good, rated = f"--policy '{policy}#good'", f"--model '{rewards}#prm' --like trl-prm"
    failing = f"--model '{rewards}#prm?served_as=fails' --like trl-prm"
    pairs = f"--policy '{policy}#draw' --method knockout --samples 2"
    return [
        (0, f"score {rated} --data ask.jsonl"),
        (1, f"score {failing} --data ask.jsonl"),
        (1, f"score --model '{rewards}#prm?endpoint=any' --data ask.jsonl"),
        (1, f"score --model '{rewards}#prm?api_key=HUSH77' --data ask.jsonl"),
        (1, f"score --model '{rewards}' --data ask.jsonl"),
        (1, f"score --model '{rewards}#nowhere?token=HUSH77' --data ask.jsonl"),
        (0, f"evaluate {rated} --data labelled.jsonl --threshold 0.5 --json"),
        (0, f"{bench} --scorer '{rewards}#prm' --like trl-prm --data gsm8k.jsonl"),
        (0, f"doctor --policy '{policy}#good' {rated}"),
        (1, f"doctor --policy '{policy}#secret' {failing}"),
        (0, f"search {ask} {good} {rated} --method beam --beams 1 --width 2 --out s.jsonl"),
        (1, f"search {ask} {good} {failing} --method best-of-n --out f.jsonl"),
        (0, f"search {ask} {pairs} --judge '{policy}#good' --out k.jsonl"),
        (1, f"search {ask} {pairs} --judge '{policy}' --out l.jsonl"),
        (1, f"search {ask} {good} --expert '{policy}' --method intervention --model tool --out e.jsonl"),
        (1, f"search {ask} --policy '{policy}#good?api_key=HUSH77' --method majority --out g.jsonl"),
        (0, f"label {ask} --policy '{policy}#good' --samples 1 --out lab"),
        (1, f"run --policy '{policy}#good' --out run"),
        (1, f"rl --policy '{policy}#good' --model '{rewards}#prm' --out rl"),
        (1, f"train --data labelled.jsonl --backbone '{rewards}#prm' --out trained"),
    ]  # fmt: skip


def test_nothing_that_is_printed_or_written_holds_a_secret(
    addresses: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trl_model(tmp_path / "prm")
    steps = {"prompt": "1 + 1?", "completions": ["1 + 1 = 2\n", "2\n"], "labels": [True, True]}
    Path("p.jsonl").write_text(json.dumps({"id": "p", "prompt": "Add 2 and 3, then double it.", "reference": "10"}))
    Path("ask.jsonl").write_text(json.dumps({"problem": "1 + 1?", "steps": steps["completions"]}))
    Path("labelled.jsonl").write_text(json.dumps(steps) + "\n" + json.dumps(steps | {"labels": [True, False]}))
    bench = {
        "id": "gsm8k-1",
        "problem": "1 + 1?",
        "steps": ["1 + 1 = 3", "3"],
        "label": 0,
        "final_answer_correct": False,
    }
    Path("gsm8k.jsonl").write_text(json.dumps(bench) + "\n" + json.dumps(bench | {"label": -1, "id": "gsm8k-2"}))
    lines = [(status, shlex.split(line)) for status, line in commands(*addresses)]
    (tmp_path / "lines.json").write_text(json.dumps([words for _, words in lines]))
    # One process for all of them: what they load takes longer than what they do.
    program = (
        "import json, logging, sys, warnings\n"
        "from stepreward.cli.app import main\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "for i, words in enumerate(json.load(open('lines.json'))):\n"
        "    sys.argv[:] = ['stepreward', *words]\n"
        "    try:\n"
        "        main()\n"
        "        code = 0\n"
        "    except SystemExit as end:\n"
        "        code = end.code or 0\n"
        "    print(f'\\nSTATUS {i} {code}', flush=True)\n"
    )
    done = coded(program, tmp_path, seconds=280)
    Path("lines.json").unlink()
    told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("STATUS")]
    wrong = [(lines[int(i)][1], code) for i, code in told if int(code) != lines[int(i)][0]]
    assert not wrong, (wrong, done.stdout[-4000:], done.stderr[-4000:])
    assert len(told) == len(lines), done.stderr[-4000:]
    assert "not allowed" in done.stderr + done.stdout, "a server said what it was sent"
    held = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    held |= {Path("stdout"): done.stdout.encode(), Path("stderr"): done.stderr.encode()}
    found = [(str(path), secret) for path, data in held.items() for secret in SECRETS if secret.encode() in data]
    assert not found, (found, [line for line in (done.stdout + done.stderr).splitlines() if "HUSH" in line][:8])
    assert Path("lab/plan.json").is_file()
    assert Path("s.jsonl").is_file()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@h/v1#m?top_k=3", "http://h/v1#m?top_k=3"),
        ("https://h/v1?key=s&b=1#m", "https://h/v1#m"),
        ("see http://h/v1?key=s, or not", "see http://h/v1 or not"),
        ("http://h/v1#m?api_key=s&top_k=3", "http://h/v1#m?api_key=***&top_k=3"),
        ("http://h#m?top_k=3&access-token=s", "http://h#m?top_k=3&access-token=***"),
        ("a 'http://u@h/v1#m' b", "a 'http://h/v1#m' b"),
        ("nothing?key here", "nothing?key here"),
    ],
)
def test_what_is_shown_of_an_address(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
