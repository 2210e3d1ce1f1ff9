"""What the documentation says can be run runs: Python blocks, commands, flags and make targets."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.__main__ import HERE, arguments, discover

from stepreward.cli.group import COMMANDS, command_of
from stepreward.policies.sources import resolve
from stepreward.score.encoder import EncoderRecord
from stepreward.score.model import StepRewardModel
from tests.forked import ran

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(path.read_text(encoding="utf-8")) if kind == language]


def commands() -> list[tuple[str, list[str]]]:
    """Every command line of the pages, with the page it stands on."""
    lines = [
        (path.name, line.removeprefix("$ "))
        for path in PAGES
        for code in blocks(path, "console")
        for line in code.splitlines()
        if line.startswith("$ ")
    ]
    prose = re.findall(r"`(stepreward [a-z][^`]*)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    return [(page, shlex.split(line, comments=True)) for page, line in [*lines, *(("README.md", p) for p in prose)]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `make demo` has left a model."""
    made = tmp_path_factory.mktemp("docs")
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord()).save_pretrained(
        made / "runs" / "demo" / "model"
    )
    return made


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: str(p.relative_to(ROOT)))
def test_python_blocks_run(page: Path, folder: Path, tmp_path: Path) -> None:
    # The blocks of a page are one program, in order: a later one may use what an earlier one made.
    program = "\n".join(blocks(page, "python"))
    (tmp_path / "page.py").write_text(program, encoding="utf-8")
    done = ran(tmp_path / "page.py", folder, tmp_path / "log")
    assert done.returncode == 0, done.stderr


def test_the_first_lines_of_the_readme_score_each_step(folder: Path) -> None:
    program = blocks(ROOT / "README.md", "python")[0].replace("scorer.score(", "result = scorer.score(", 1)
    command = [sys.executable, "-c", f"{program}\nprint(result.shape)"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout == "(2,)\n", done.stderr


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda v: v if isinstance(v, str) else " ".join(v))
def test_commands_exist_with_their_flags(page: str, words: list[str]) -> None:
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{page}: no target"
    elif words[:3] == ["python", "-m", "benchmarks"]:
        arguments([*discover(HERE)], words[3:])
    else:
        assert words[0] == "stepreward", f"{page}: {words}"
        words = words[:1] + words[3:] if words[1] == "--config" else words
        assert words[1] in COMMANDS, f"{page}: {words}"
        known = {flag for option in command_of(words[1]).params for flag in option.opts}
        assert {word for word in words[2:] if word.startswith("--")} <= known
