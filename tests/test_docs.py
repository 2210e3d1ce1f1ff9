"""What the documentation says can be run runs: Python blocks, commands, flags and make targets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.__main__ import HERE, arguments, discover

from stepreward.cli.commands import COMMANDS, command_of
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from tests.docs import PAGES, ROOT, blocks, lines_of
from tests.forked import ran


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


def test_numbers_of_the_readme_are_those_of_the_measured_pages() -> None:
    checked = 0
    for paragraph in (ROOT / "README.md").read_text().split("\n\n"):
        pages = [(ROOT / name).read_text() for name in re.findall(r"\((docs/results/[\w-]+\.md)\)", paragraph)]
        numbers = re.findall(r"[+-]?\d+\.\d+", paragraph) if pages else []
        checked += len(numbers)
        assert not [number for number in numbers if not any(number in page for page in pages)], paragraph
    assert checked, "no paragraph has a number and the page that it is from"


@pytest.mark.parametrize(
    ("page", "words"),
    [(page.name, words) for page in PAGES for words in lines_of(page)],
    ids=lambda v: v if isinstance(v, str) else " ".join(v),
)
def test_commands_exist_with_their_flags(page: str, words: list[str]) -> None:
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{page}: no target"
    elif words[:3] == ["python", "-m", "benchmarks"]:
        arguments([*discover(HERE)], words[3:])
    else:
        words = words[words.index("-m") + 1 :] if words[0] in ("torchrun", "accelerate") else words
        assert words[0] == "stepreward", f"{page}: {words}"
        words = words[:1] + words[3:] if words[1] == "--config" else words
        assert words[1] in COMMANDS, f"{page}: {words}"
        known = {flag for option in command_of(words[1]).params for flag in option.opts}
        assert {word for word in words[2:] if word.startswith("--")} <= known
