"""docs/commands.md: every command and every flag is there, and every example runs."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.cli.commands import COMMANDS, command_of
from tests.cli.running import trl_model
from tests.effort import THOROUGH

# All examples of the page run within the first test: on a loaded machine that takes minutes.
pytestmark = [pytest.mark.xdist_group("commands"), pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
FILES = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, list[str]]]:
    """Every line of every console block, in order, with the lines of output that the page shows for it."""
    made: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                made.append((line.removeprefix("$ stepreward "), []))
            else:
                made[-1][1].append(line)
    return made


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each example printed, run in the order of the page in a folder with the files of the page."""
    place, printed = tmp_path_factory.mktemp("page"), {}
    for name, text in FILES:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    trl_model(place / "trl-model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for line, _ in examples():
            if line.startswith("rl ") and not THOROUGH:
                continue  # Takes the longest; tests/smoke runs the one of the README.
            done = CliRunner().invoke(app, shlex.split(line))
            assert done.exit_code == 0, (line, done.output, done.exception)
            printed[line] = done.stdout
    return printed


def test_every_example_runs_and_prints_what_the_page_says(ran: dict[str, str]) -> None:
    assert len(ran) > 15
    for line, shown in examples():
        for text in shown:
            assert any(got.startswith(text) for got in ran.get(line, text).splitlines()), (line, ran[line])


def test_json_examples_print_json(ran: dict[str, str]) -> None:
    lines = [line for line in ran if "--json" in line]
    assert {line.split()[0] for line in lines} == {"evaluate", "view", "methods"}
    for line in lines:
        json.loads(ran[line])


def test_flags_on_the_command_line_win_over_the_file(ran: dict[str, str]) -> None:
    (line,) = (line for line in ran if line.startswith("--config flags"))
    assert "--samples 4" in line
    asked = [line for line in ran if "--method majority --samples 4" in line]
    assert ran[line].split(":")[1] == ran[asked[0]].split(":")[1]


@pytest.fixture(scope="module")
def hooks() -> Any:
    """What writes the pages that follow from the code."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_verbs_are_listed_as_users_import_them(hooks: Any) -> None:
    page = hooks.verbs_page()
    headings = re.findall(r"^      heading: stepreward\.(\w+)$", page, re.MULTILINE)
    functions = {name for name in stepreward.__all__ if name.islower()} - {"methods", "testing"}
    assert set(headings) == functions
    for place in re.findall(r"^::: (\S+)$", page, re.MULTILINE):
        module, _, name = place.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name)), place


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_an_example_and_every_flag(name: str, hooks: Any) -> None:
    page = hooks.commands_page(PAGE)
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert f"$ stepreward {name}" in section
    for option in command_of(name).params:
        flag = ", ".join(option.opts) if option.param_type_name == "option" else option.name.upper()
        (row,) = (line for line in section.splitlines() if line.startswith(f"| `{flag}` |"))
        meaning = row.split("|")[3].strip()
        assert len(meaning) > 10, row


def test_no_table_of_flags_is_left_out() -> None:
    assert set(re.findall(r"<!-- flags of (\w+) -->", PAGE)) == set(COMMANDS)
