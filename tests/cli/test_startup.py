"""What each command loads, and what a plain installation, without any extra, can do and says."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stepreward.cli.commands import COMMANDS, command_of
from stepreward.core.optional import EXTRAS
from tests.forked import COMMAND, coded, command

HEAVY = sorted({*EXTRAS, "scipy", "sklearn", "pyarrow", "httpx", "jinja2"})
COMPILED = {"scipy", "sklearn", "pyarrow"}
"""What a forked process finds loaded, and cannot load twice."""
LOADED = f"import sys; print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
TELLS = COMMAND.format(before="").replace("\nmain()", f"\ntry:\n    main()\nfinally:\n    {LOADED}")
WITHOUT_EXTRAS = f"""
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *more):
        return None if name.partition(".")[0] in {sorted(EXTRAS)} else self.finder.find_spec(name, *more)
    def find_distributions(self, context):
        found = getattr(self.finder, "find_distributions", lambda context: ())(context)
        return (one for one in found if one.name.replace("-", "_") not in {sorted(EXTRAS)})
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def run(before: str, line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command line in a process that has loaded nothing of the package and no extra, after some lines of Python."""
    return command(line, folder, before, without=EXTRAS)


def run_cold(before: str, line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The same in a fresh interpreter."""
    words = [sys.executable, "-c", COMMAND.format(before=before), *shlex.split(line)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    row = {"prompt": "1 + 1?", "completions": ["1 + 1 = 2", "1 + 1 = 3"], "labels": [True, False]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "ask.jsonl").write_text('{"question": "1 + 1?", "steps": ["1 + 1 = 2", "1 + 1 = 3"]}\n')
    return tmp_path


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("line", "may"),
    [
        ("--help", set()),
        ("view nowhere", set()),
        ("rl --help", {"scipy", "jinja2"}),
        ("doctor --help", {"httpx"}),
        ("train --help", {"pyarrow"}),
        ("run --help", {"jinja2"}),
        ("train --data nowhere.jsonl --out model", {"scipy", "sklearn", "pyarrow", "httpx", "jinja2"}),
        ("train --data rows.jsonl --out model --backbone ./nowhere", {"scipy", "sklearn", "pyarrow", "httpx"}),
        ("score --help", {"pyarrow", "httpx"}),
        ("score --model ./nowhere --data nowhere.jsonl", {"pyarrow", "httpx"}),
        ("label --data nowhere.jsonl --out labels", {"scipy", "sklearn", "pyarrow", "httpx"}),
        ("label --problems problems.jsonl --out labels --policy ./nowhere", {"scipy", "sklearn", "pyarrow", "httpx"}),
        ("methods --json", {"scipy", "sklearn", "pyarrow"}),
        ("methods credit", {"scipy", "sklearn", "pyarrow"}),
        ("convert --formats", {"pyarrow"}),
        # pyarrow itself imports pandas, where it is installed, at the first array that it makes.
        ("convert rows.jsonl rows.parquet", {"pyarrow", "pandas"}),
        ("label --help", {"scipy", "sklearn", "pyarrow", "httpx"}),
        ("search --help", {"scipy", "sklearn", "pyarrow", "httpx", "jinja2"}),
        ("evaluate --help", {"scipy", "sklearn", "pyarrow", "httpx", "jinja2"}),
        ("score --model tool --data ask.jsonl", {"pyarrow", "httpx"}),
    ],
)
def test_a_command_loads_what_it_needs(line: str, may: set[str], rows: Path) -> None:
    words = shlex.split(line)
    if may >= COMPILED:  # to be seen is only that no other is loaded: these take seconds in a cold start
        done = coded(TELLS, rows, words=words, without={*HEAVY} - COMPILED)
    else:
        cold = [sys.executable, "-c", TELLS, *words]
        done = subprocess.run(cold, cwd=rows, capture_output=True, text=True, check=False, timeout=120)
    assert set(done.stderr.splitlines()[-1].split()) <= may, done.stderr


def test_a_forked_program_finds_torch_loaded_wherever_the_first_one_was_started(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rows)
    assert coded("import sys; print('torch' in sys.modules)", rows).stdout == "True\n"


def test_help_tells_of_each_command_what_it_says_itself(rows: Path) -> None:
    shown = " ".join(run("", "--help", rows).stdout.replace("│", " ").split())
    for name, line in COMMANDS.items():
        assert line == (inspect.getdoc(command_of(name).callback) or "").split("\n")[0]
        assert f"{name} {line}" in shown


def test_every_method_of_the_package_is_listed(rows: Path) -> None:
    walk = """
import importlib, pkgutil, stepreward
for one in pkgutil.walk_packages(stepreward.__path__, "stepreward."):
    if not one.name.startswith(("stepreward.cli", "stepreward.connect", "stepreward.serve")):
        importlib.import_module(one.name)
from stepreward.core.catalog import families
for family in families.values():
    for method in family:
        print(family.name, method.name)
"""
    every = coded(walk, rows).stdout
    listed = json.loads(run("", "methods --json", rows).stdout)
    assert sorted(every.splitlines()) == sorted(f"{row['family']} {row['name']}" for row in listed)


def test_a_plain_installation_converts_lists_and_scores_by_computing(rows: Path) -> None:
    made = run(WITHOUT_EXTRAS, "convert rows.jsonl rows.parquet --json", rows)
    assert json.loads(made.stdout)["written"] == 1, made.stderr
    methods = json.loads(run(WITHOUT_EXTRAS, "methods --json", rows).stdout)
    assert {"loss", "credit", "search"} <= {row["family"] for row in methods}
    assert json.loads(run(WITHOUT_EXTRAS, "score --model tool --data ask.jsonl", rows).stdout)["scores"] == [1.0, 0.0]
    measured = run(WITHOUT_EXTRAS, "evaluate --data rows.jsonl --model tool --threshold 0.5 --json", rows)
    assert json.loads(measured.stdout)["scorers"]["model"]["steps"]["brier"] == 0, measured.stderr
    doctor = {row["what"]: row["says"] for row in json.loads(run(WITHOUT_EXTRAS, "doctor --json", rows).stdout)}
    assert doctor["torch"] == "not installed; pip install 'stepreward[models]'"


@pytest.mark.parametrize(
    ("line", "package", "extra"),
    [
        ("train --data rows.jsonl --out model", "torch", "models"),
        ("run --out demo", "transformers", "models"),
        ("score --model model --data ask.jsonl", "torch", "models"),
        ("label --problems problems.jsonl --out labels --grader arithmetic", "torch", "models"),
        ("serve --model model", "uvicorn", "serve"),
        ("rl --model model", "trl", "trl"),
    ],
)
def test_what_needs_an_extra_names_it(line: str, package: str, extra: str, rows: Path) -> None:
    (rows / "problems.jsonl").write_text('{"prompt": "1 + 1?", "reference": "2"}\n')
    done = run(WITHOUT_EXTRAS, line, rows)
    assert done.returncode == 1
    assert done.stderr == f"stepreward: {package} is not installed: pip install 'stepreward[{extra}]'\n"


def test_python_users_are_told_as_well(rows: Path) -> None:
    code = f"import sys\n{WITHOUT_EXTRAS}\nimport stepreward\nstepreward.load('model')"
    done = coded(code, rows, without=EXTRAS)
    assert "ModelError: torch is not installed: pip install 'stepreward[models]'" in done.stderr


def test_the_package_runs_as_a_module(rows: Path) -> None:
    words = [sys.executable, "-m", "stepreward", "view", "nowhere"]
    done = subprocess.run(words, cwd=rows, capture_output=True, text=True, check=False)
    assert done.stderr == "stepreward: nowhere: this run has no report yet; finish it: stepreward run --out FOLDER\n"


def test_every_optional_package_stands_under_the_extra_that_brings_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    modules = {"z3_solver": "z3"}
    names = {extra: [re.split(r"[\[<>=]", one)[0].replace("-", "_") for one in listed] for extra, listed in
             project["optional-dependencies"].items()}  # fmt: skip
    extras = {extra: {modules.get(one, one) for one in listed} for extra, listed in names.items()}
    with_others = {"datasets", "starlette"}  # of trl and of fastapi
    for package, extra in EXTRAS.items():
        assert package in extras[extra] | with_others
    others = {"stepreward", "jsonschema"}  # jsonschema is of rules, which errors name, and of openenv
    for extra in set(extras) - {"all", "dev"}:
        assert extras[extra] - others <= {package for package, where in EXTRAS.items() if where == extra}


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_needs_no_extra(name: str, rows: Path) -> None:
    done = run(WITHOUT_EXTRAS, f"{name} -h", rows)
    assert done.returncode == 0, done.stderr
    assert "Usage: stepreward" in done.stdout


def test_the_version_is_that_of_the_package(rows: Path) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert run("", "--version", rows).stdout == f"stepreward {project['version']}\n"


@pytest.mark.parametrize(("words", "expected"), [("stepreward ev", "evaluate"), ("stepreward score --mod", "--model")])
def test_shells_complete_commands_and_flags(words: str, expected: str, rows: Path) -> None:
    asked = {"_STEPREWARD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = run(f"import os; os.environ.update({asked})", "", rows)
    assert expected in done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    "line", ["--config c.toml convert {}", "convert --config c.toml {}", "convert {} --config c.toml"]
)
def test_a_configuration_may_stand_before_and_behind_the_command(line: str, rows: Path) -> None:
    (rows / "c.toml").write_text("[convert]\njson = true\n")
    done = run("", line.format("rows.jsonl rows.parquet"), rows)
    assert json.loads(done.stdout)["written"] == 1, done.stderr
    (rows / "c.toml").write_text("[convert]\njsn = true\n")
    assert "did you mean json" in run("", line.format("rows.jsonl rows.parquet"), rows).stderr


SILENT = """
import socket, threading, os, signal, time
server = socket.create_server(("127.0.0.1", 0))
sys.argv[sys.argv.index("--policy") + 1] = f"http://127.0.0.1:{server.getsockname()[1]}/v1#m"
def asked():
    held = [server.accept()]
    os.kill(os.getpid(), signal.SIGINT)
    while True: held.append(server.accept())
threading.Thread(target=asked, daemon=True).start()
"""


def test_ctrl_c_ends_a_command_that_waits_for_a_silent_server(rows: Path) -> None:
    (rows / "problems.jsonl").write_text('{"prompt": "1 + 1?", "reference": "2"}\n')
    done = run_cold(SILENT, "label --problems problems.jsonl --grader arithmetic --out labels --policy here", rows)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "stepreward: interrupted; run the same command again to resume\n"
