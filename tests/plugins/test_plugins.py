"""Plug-ins of other packages: a small package is installed and used, a broken one is left out with a warning."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.running import solved
from tests.forked import coded

TOY = Path(__file__).parent / "toy"
MAIN = "import sys; sys.argv[0] = 'stepreward'; from stepreward.cli import main; main()"


def described(site: Path, name: str, points: Mapping[str, Mapping[str, str]]) -> None:
    """Writes what an installed package says of itself: its name and its entry points."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    text = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in named.items())
        for group, named in points.items()
    )
    (folder / "entry_points.txt").write_text(text)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed in it: by pip, or by hand where there is nothing to build with."""
    folder = tmp_path_factory.mktemp("toy")
    source, site = folder / "source", folder / "site"
    shutil.copytree(TOY, source)
    if all(importlib.util.find_spec(name) for name in ("pip", "setuptools")):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*command, "--target", site, source], check=True, capture_output=True, timeout=200)
    else:
        project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        described(site, project["name"], project["entry-points"])
        shutil.copytree(source / "toy_rewards", site / "toy_rewards")
    return site


def python(code: str, site: Path, words: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs code in a process that finds the packages in a folder and has loaded nothing of this one."""
    found = f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"
    return coded(found, folder or Path.cwd(), words=shlex.split(words))


def test_methods_of_a_plug_in_are_listed_with_their_package(toy: Path) -> None:
    done = python(MAIN, toy, "methods --json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    plugged = {row["name"]: row for row in json.loads(done.stdout) if row["plugin"]}
    assert {name: (row["family"], row["plugin"]) for name, row in plugged.items()} == {
        "toy-own-reward": ("credit", "toy-rewards:toy"),
        "toy-doubled": ("credit", "toy-rewards:toy"),
        "toy-longest": ("search", "toy-rewards:toy"),
    }


def test_a_credit_method_of_a_plug_in_is_called_by_name(toy: Path) -> None:
    code = (
        "from stepreward.core.catalog import credit\n"
        "flat = {'rewards': [1.0, float('nan'), -2.0], 'offsets': [0, 2, 3]}\n"
        "print(*credit['toy-doubled'].take(flat), credit['toy-own-reward'].summary)"
    )
    assert python(code, toy).stdout == "2.0 0.0 -4.0 Pays each step its own reward and nothing else.\n"


def test_a_search_and_a_grader_of_a_plug_in_run_from_the_command_line(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text('{"prompt": "Tom has 3 pens and buys 4. How many?", "reference": "7"}\n')
    line = (
        "search --problems problems.jsonl --method toy-longest --samples 3 --grader last-word --out found.jsonl --json"
    )
    done = python(MAIN, toy, line, tmp_path)
    assert done.returncode == 0, done.stderr
    (best,) = solved(tmp_path / "found.jsonl")
    assert len(best["candidates"]) == 3
    # The total is the number of steps: the best has the most lines, and its last word is the answer.
    assert best["total"] == len(best["steps"]) == max(one["total"] for one in best["candidates"])
    assert best["answer"] == best["steps"][-1]["text"].split()[-1].strip(".")


def test_a_format_of_a_plug_in_is_detected_and_converted(toy: Path, tmp_path: Path) -> None:
    row = {"toy_question": "1 + 1?", "toy_lines": ["1 + 1 = 2\n", "so 3"], "toy_marks": [1, 0]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    done = python(MAIN, toy, "convert rows.jsonl out.jsonl --to trl", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "toy (lines with marks): row 1 has toy_question, toy_lines, toy_marks" in done.stdout + done.stderr
    made = json.loads((tmp_path / "out.jsonl").read_text())
    assert (made["prompt"], made["labels"]) == ("1 + 1?", [True, False])
    assert "toy " in python(MAIN, toy, "convert --formats").stdout


def test_a_checkpoint_of_a_plug_in_is_found_by_its_name(toy: Path) -> None:
    code = (
        "from stepreward.score.checkpoints.known_checkpoints import by_name, judge_by_name, judges, recognised\n"
        "row = by_name('toy/prm')\n"
        "assert judge_by_name('toy/writes') is judges['toy/writes'], 'a verifier that writes'\n"
        "print(row.source, recognised('/models/prm', '', ()) == [row], by_name('Qwen/Qwen2.5-Math-PRM-7B').name)"
    )
    done = python(code, toy)
    assert done.stdout == "an example of a plug-in True Qwen/Qwen2.5-Math-PRM-7B\n", done.stderr


BROKEN = {
    "absent": ("stepreward.methods", "no_such_module", "ModuleNotFoundError"),
    "halfway": ("stepreward.methods", "halfway", "RuntimeError: out of luck"),
    "twice": ("stepreward.methods", "twice", "credit 'pure' is already registered"),
    "leaves": ("stepreward.methods", "leaves", "SystemExit"),
    "wrong-kind": ("stepreward.formats", "halfway_formats:FORMATS", "not a Format"),
    "taken": ("stepreward.formats", "taken", "'trl' is taken"),
    "no-row": ("stepreward.checkpoints", "math:pi", "not a Checkpoint"),
    "no-maker": ("stepreward.graders", "math:pi", "expected a class or function that makes a grader, got math:pi"),
    "mathematics": ("stepreward.graders", "math:floor", "'mathematics' is taken"),
}
MODULES = {
    "halfway": (
        "from stepreward.core.catalog import credit, select\n"
        "@credit.method('broken-half', note='x')\n"
        "def half(rewards):\n"
        "    'Registers before it fails.'\n"
        "select.preset('broken-preset', of='majority', note='x')\n"
        "raise RuntimeError('out of luck')\n"
    ),
    "twice": (
        "from stepreward.core.catalog import credit\n"
        "@credit.method('pure', note='x')\n"
        "def mine(rewards):\n"
        "    'Takes a name of the package.'\n"
    ),
    "leaves": "raise SystemExit(3)\n",
    "halfway_formats": "FORMATS = ['trl']\n",
    "taken": (
        "from stepreward.formats.format import Format\n"
        "FORMATS = [Format('trl', 'x', lambda row: True, lambda row: ())]\n"
    ),
}


def test_broken_plug_ins_are_left_out_with_a_line_each_and_stop_nothing(toy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(toy, site)
    points: dict[str, dict[str, str]] = {}
    for name, (group, value, _) in BROKEN.items():
        points.setdefault(group, {})[name] = value
    described(site, "broken-rewards", points)
    for name, text in MODULES.items():
        (site / f"{name}.py").write_text(text)
    code = """
import sys; sys.argv[0] = 'stepreward'
from stepreward.core.catalog import credit, families
from stepreward.formats import formats
from stepreward.score.checkpoints.known_checkpoints import checkpoints
from stepreward.tasks.graders import graders
from stepreward.cli import main
try:
    main()
except SystemExit as end:
    print(end.code, 'broken-half' in credit, 'broken-preset' in families['select'], credit['pure'].plugin == '',
        'toy-doubled' in credit, 'toy' in formats, formats['trl'].about != 'x', 'toy/prm' in checkpoints,
        graders['mathematics'].__name__, 'last-word' in graders, file=sys.stderr)
"""
    done = python(code, site, "methods credit")
    assert done.returncode == 0, done.stderr
    assert "toy-own-reward" in done.stdout
    assert "broken" not in done.stdout
    *lines, last = done.stderr.splitlines()
    assert last == "0 False False True True True True True MathGrader True"
    assert len(lines) == len(BROKEN), done.stderr
    for name, (group, value, why) in BROKEN.items():
        (told,) = [line for line in lines if f"plug-in {name!r} of broken-rewards ({group}: {value})" in line]
        assert told.startswith("stepreward: ")
        assert why in told
        assert "repair or uninstall it" in told


def test_a_format_whose_test_of_rows_fails_keeps_no_file_from_being_read(toy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(toy, site)
    described(site, "careless", {"stepreward.formats": {"careless": "careless"}})
    (site / "careless.py").write_text(
        "from stepreward.formats.format import Format\n"
        "FORMATS = Format('careless', 'x', lambda row: row['mine'] > 0, lambda row, number: iter(()))\n"
    )
    row = {"prompt": "1 + 1?", "completions": ["1 + 1 = 2"], "labels": [True]}
    (tmp_path / "rows.jsonl").write_text(3 * (json.dumps(row) + "\n"))
    done = python(MAIN, site, "convert rows.jsonl out.jsonl --to trl", tmp_path)
    assert done.stderr.count("plug-in 'careless' of careless (stepreward.formats: careless) is left out: KeyError") == 1
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
