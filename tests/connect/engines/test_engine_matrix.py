"""The matrix of engines says what is: its adapters, its tests and its versions exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from stepreward.connect.engines.engine_matrix import ENGINES, RLEngine, engines_table

ROOT = Path(__file__).parents[3]
CONNECT = ROOT / "src" / "stepreward" / "connect"
PINS = {
    line.split("==")[0].lower(): line.split("==")[1]
    for name in ("tests/connect/engines.txt", "tests/connect/verl.txt", "src/stepreward/tested.txt")
    for line in (ROOT / name).read_text(encoding="utf-8").split()
    if "==" in line
}


@pytest.mark.parametrize("engine", ENGINES, ids=lambda one: one.name)
def test_adapter_and_tests_are_there(engine: RLEngine) -> None:
    path = CONNECT / f"{engine.adapter.replace('.', '/')}.py"
    assert path.is_file()
    file, _, begins = engine.tests.partition("::")
    tree = ast.parse((ROOT / "tests" / "connect" / file).read_text(encoding="utf-8"))
    found = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith(begins)]
    assert found, f"no test of {engine.name} begins with {begins}"


@pytest.mark.parametrize("engine", ENGINES, ids=lambda one: one.name)
def test_versions_are_those_that_the_lanes_install(engine: RLEngine) -> None:
    if engine.tested == "released package":
        assert PINS[engine.name.partition(",")[0].lower()] == engine.version
    else:
        file = engine.tests.partition("::")[0]
        text = (ROOT / "tests" / "connect" / file).read_text(encoding="utf-8")
        commit = re.search(r"[0-9a-f]{7,}", engine.version)
        assert commit
        assert commit[0] in text, "the stand-in names the version of whose signatures it is"


def test_every_adapter_is_in_the_table_and_is_thin() -> None:
    core = {"__init__", "engine_rollouts", "token_rewards", "engine_matrix"}
    named = {one.adapter.removeprefix("engines.") for one in ENGINES if one.adapter.startswith("engines.")}
    assert named == {path.stem for path in (CONNECT / "engines").glob("*.py")} - core
    for name in named:
        lines = code_lines(CONNECT / "engines" / f"{name}.py")
        assert lines <= 65, f"{name} has {lines} lines of code: what others need too belongs in the core"
    assert len(list(engines_table())) == 2 + len(ENGINES)


def code_lines(path: Path) -> int:
    """Lines that are neither blank, comments nor docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    text = path.read_text(encoding="utf-8").splitlines()
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and at not in said for at, line in enumerate(text, 1)
    )
