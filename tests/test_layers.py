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
FILES = sorted(PACKAGE.rglob("*.py"))


def own_imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Import statements of the package's own modules, with the module's dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "stepreward"):
            yield node, node.module or ""
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "stepreward":
                    yield node, alias.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_flow_one_way(path: Path) -> None:
    folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if folder == "__init__":
        return
    for node, module in own_imports(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), f"{path}:{node.lineno}: relative import; write it in full"
        parts = module.split(".")
        assert len(parts) > 1, f"{path}:{node.lineno}: imports the package's front door; import the module itself"
        assert parts[1] in MAY_IMPORT[folder] | {folder}, f"{path}:{node.lineno}: {folder} may not import {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_own_import_inside_a_function(path: Path) -> None:
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name != "__getattr__":
            hidden = [module for _, module in own_imports(function)]
            assert not hidden, f"{path}:{function.lineno}: {function.name} hides imports of {hidden}"


@pytest.mark.parametrize(
    "module", ["stepreward", *(f"stepreward.{v}" for v in ["label", "search", "credit", "evaluate"])]
)
def test_no_torch_without_a_gradient(module: str) -> None:
    code = f"import {module}, sys; assert 'torch' not in sys.modules, 'torch was loaded'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
