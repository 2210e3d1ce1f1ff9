"""The architecture, held on the syntax tree: who may import whom, and that nothing hides an import in a function."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "stepreward"
CORE_ONLY = {"core"}
BELOW = {"core", "tasks", "policies", "formats", "label", "score", "search", "credit", "train", "evaluate", "report"}
MAY_IMPORT = {
    "core": set(),
    **dict.fromkeys(["tasks", "policies", "formats", "label", "score", "search", "credit"], CORE_ONLY),
    "train": {"core", "score"},
    "evaluate": {"core", "score"},
    "report": {"core", "evaluate"},
    "serve": BELOW,
    "connect": BELOW,
    "pipeline": BELOW | {"connect"},
    "__main__": {"cli"},
    "cli": BELOW | {"serve", "connect", "pipeline"},
}


def own_imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Import statements of the package's own modules, with the module's dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "stepreward"):
            yield node, node.module or ""
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "stepreward":
                    yield node, alias.name


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    """The syntax tree of every file of the package."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def test_imports_flow_one_way(trees: dict[Path, ast.Module]) -> None:
    wrong = []
    for path, tree in trees.items():
        folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node, module in own_imports(tree) if folder != "__init__" else ():
            parts = module.split(".")
            if getattr(node, "level", 0):
                wrong.append(f"{path}:{node.lineno}: relative import; write it in full")
            elif len(parts) == 1:
                wrong.append(f"{path}:{node.lineno}: imports the package's front door; import the module itself")
            elif parts[1] not in MAY_IMPORT[folder] | {folder}:
                wrong.append(f"{path}:{node.lineno}: {folder} may not import {module}")
    assert not wrong, "\n".join(wrong)


def test_no_own_import_inside_a_function(trees: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{path}:{function.lineno}: {function.name} hides the import of {module}"
        for path, tree in trees.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name != "__getattr__"
        for _, module in own_imports(function)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "module", ["stepreward", *(f"stepreward.{v}" for v in ["label", "search", "credit", "evaluate"])]
)
def test_no_torch_without_a_gradient(module: str) -> None:
    code = f"import {module}, sys; assert 'torch' not in sys.modules, 'torch was loaded'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
