"""Every command in a process of its own: those of the README in their order, made small, and the rest.

Most are forked off a process that has loaded torch already. `serve` and `--version` are the installed program itself.
`make newest` and `make lowest` run them with the newest and the least versions of every dependency.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest

from stepreward.cli.commands import COMMANDS
from stepreward.tasks.arithmetic import generate
from tests.docs import README, commands_of
from tests.forked import command

pytestmark = [pytest.mark.xdist_group("smoke commands"), pytest.mark.timeout(600)]
PROGRAM = str(Path(sys.executable).with_name("stepreward"))
QUIET = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
SMALL = {
    "run": "--train-problems 8 --validation-problems 4 --held-out-problems 4 --train-samples 3 --held-out-samples 4 "
    "--rollouts 2 --epochs 1 --beams 2 --width 2",
    "label": "--samples 4 --set n=4",
    "train": "--epochs 1 --batch-tokens 1024",
    "search": "--set beams=2 --set width=2",
    "search --compare": "--only beam --budget 2",
    "rl": "--seeds 1 --steps 1 --problems 2 --generations 2 --evaluate-every 1 --held-out 2 --samples 2",
    "evaluate --benchmark": "--threshold 0.5",
}
"""Flags that make a command of the README small enough."""
LEAVES = {
    "label": "labels/labels.parquet",
    "train": "model/config.json",
    "search": "found.jsonl",
    "search --compare": "compared",
    "rl": "runs/rl/reinforce.html",
    "convert": "labels.parquet",
}
"""What a command must have written."""
PLACEHOLDERS = {"MODEL": "builtin:arithmetic", "FILE.jsonl": "problems.jsonl"}


def kind(words: list[str]) -> str:
    """A command, told from its other use."""
    other = next((flag for flag in ("--compare", "--benchmark") if flag in words), "")
    return f"{words[1]} {other}".strip()


def ran(folder: Path, line: str | list[str]) -> subprocess.CompletedProcess[str]:
    """A command in a folder."""
    return command(line, folder, environment={"NO_COLOR": "1"}, seconds=580)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the README's commands read."""
    made = tmp_path_factory.mktemp("stranger")
    rows = [{"id": p.id, "prompt": p.text, "reference": p.reference} for p in generate("train", 16, seed=5)]
    (made / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = {"prompt": "1 + 1?", "completions": ["1 + 1 = 2", "1 + 1 = 3"], "labels": [True, False]}
    (made / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (made / "ask.jsonl").write_text('{"question": "1 + 1?", "steps": ["1 + 1 = 2\\n", "Answer: 2\\n"]}\n')
    (made / "ProcessBench").mkdir()
    bench = [
        {"id": f"gsm8k-{i}", "generator": "g", "problem": "1 + 1?", "steps": ["1 + 1 = 2", f"So {2 + i}."],
         "final_answer_correct": not i, "label": 1 if i else -1}
        for i in range(2)
    ]  # fmt: skip
    (made / "ProcessBench" / "gsm8k.json").write_text(json.dumps(bench))
    return made


@pytest.mark.parametrize("words", commands_of(README), ids=" ".join)
def test_a_command_of_the_readme_runs(words: list[str], folder: Path) -> None:
    what = kind(words)
    if words[1] == "serve":
        pytest.skip("see below")
    given = [PLACEHOLDERS.get(word, word) for word in words[1:]]
    if "--policy" in given and what == "run":
        given += ["--out", "runs/own"]
    done = ran(folder, [*given, *shlex.split(SMALL.get(what, ""))])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    if what == "run":
        assert (folder / given[given.index("--out") + 1] / "report.html").exists()
    elif what in LEAVES:
        assert (folder / LEAVES[what]).exists()


def test_every_command_is_one_of_the_readme_or_below() -> None:
    here = Path(__file__).read_text()
    named = {words[1] for words in commands_of(README)}
    assert [name for name in COMMANDS if name not in named and not re.search(rf'ran\(folder, f?"{name} ', here)] == []


def test_the_other_commands_run(folder: Path) -> None:
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=100, check=True)
    assert version.stdout.startswith("stepreward ")
    scored = ran(folder, "score --model model --data ask.jsonl")
    assert scored.returncode == 0, scored.stderr[-3000:]
    assert all(0 < score < 1 for score in json.loads(scored.stdout)["scores"])
    assert ran(folder, "export model exported").returncode == 0
    again = ran(folder, "score --model exported --data ask.jsonl")
    assert json.loads(again.stdout)["scores"] == json.loads(scored.stdout)["scores"]
    shown = ran(folder, "view runs/quick --json")
    assert json.loads(shown.stdout)["report"].startswith("file://"), shown.stderr
    assert ran(folder, "pairs --data labels/labels.parquet --out pairs.jsonl --to trl-preference").returncode == 0
    assert ran(folder, "relabel --data labels/labels.parquet --transform soft --out soft.parquet").returncode == 0
    (folder / "kept.jsonl").write_text((folder / "rows.jsonl").read_text())
    assert ran(folder, "generate logic --n 3 --set depth=1 --out logic.jsonl").returncode == 0
    learned = "--labelled labels/labels.parquet --solutions labels/labels.parquet --held-out-data kept.jsonl"
    assert ran(folder, f"rounds {learned} --rounds 2 --epochs 1 --out runs/rounds").returncode == 0
    assert ran(folder, "evaluate --data labels/labels.parquet --model tool --threshold 0.5 --json").returncode == 0
    watched = ran(folder, "monitor fit labels/labels.parquet --reads turn --alpha 0.2 --out monitor")
    assert watched.returncode == 0, watched.stderr
    assert ran(folder, "compare labels/labels.parquet labels/labels.parquet --model tool").returncode == 0
    assert ran(folder, "blame soft.parquet --out blame.jsonl").returncode == 0
    asked = [
        {"schema": "stepreward/trajectories/1", "problem": f"p{n}", "prompt": "1 + 1?", "outcome": n % 2,
         "steps": [{"text": "1 + 1 = 2", "meta": json.dumps({"asked": n > 1})}], "score": [n / 4]}
        for n in range(4)
    ]  # fmt: skip
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    assert ran(folder, "interventions fit asked.jsonl --out table.json").returncode == 0


def test_serve_answers_clients_of_openai_and_ends_at_sigterm(folder: Path) -> None:
    (words,) = (words for words in commands_of(README) if words[1] == "serve")
    program = [PROGRAM, *words[1:], "--port", "0", "--set", "beams=2", "--set", "width=2", "--grader", "arithmetic"]
    with (folder / "serve.log").open("w") as log:
        run = subprocess.Popen(program, cwd=folder, env=QUIET, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert run.stdout is not None
        found = re.search(r"http://\S+", run.stdout.readline())
        assert found, (folder / "serve.log").read_text()
        body = json.loads((folder / "ask.jsonl").read_text())
        scored = httpx.post(
            f"{found[0]}/v1/steps", json={"problem": body["question"], "steps": body["steps"]}, timeout=60
        )
        assert len(scored.json()["scores"]) == 2, scored.text
        client = openai.OpenAI(base_url=f"{found[0]}/v1", api_key="none", timeout=120)
        asked = json.loads((folder / "problems.jsonl").read_text().splitlines()[0])["prompt"]
        answer = client.chat.completions.create(model="policy", messages=[{"role": "user", "content": asked}])
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 0
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 0
    finally:
        run.kill()
        run.communicate()
