"""The architecture, held on the syntax tree: who may import whom, and that nothing hides an import in a function."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from stepreward.core.optional import EXTRAS
from tests.forked import coded

PACKAGE = Path(__file__).parents[1] / "src" / "stepreward"
CORE_ONLY = {"core"}
CAPABILITIES = ["tasks", "environments", "policies", "formats", "label", "score", "search", "credit"]
BELOW = {"core", *CAPABILITIES, "train", "evaluate", "report"}
MAY_IMPORT = {
    "core": set(),
    **dict.fromkeys(CAPABILITIES, CORE_ONLY),
    "train": {"core", "score"},
    "evaluate": {"core", "score"},
    "report": {"core", "evaluate"},
    "serve": BELOW,
    "connect": BELOW,
    "pipeline": BELOW | {"connect"},
    "testing": BELOW,
    "verbs": BELOW | {"serve", "connect", "pipeline"},
    "__main__": {"cli"},
    "cli": BELOW | {"serve", "connect", "pipeline", "verbs"},
}
IMPORT_BY_NAME = {
    "core/catalog.py": "fills a family from the modules of its home",
    "core/optional.py": "imports optional packages, and no module of this one",
    "core/on_demand.py": "imports what stands as a statement under `if TYPE_CHECKING`",
    "core/sandbox/bounded_child.py": "calls a function that its parent names",
    "core/plugins.py": "fills tables from the modules of their folder",
}
"""Who may import a module whose name is not written there."""

CLASSES_TWICE: set[str] = set()
"""Class names with two meanings: none."""
FILES_TWICE = {"__init__.py", "on_demand.py"}
"""File names that mean the same in every folder."""


def own_imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[ast.stmt, str]]:
    """Import statements of the package's own modules, with the module's dotted name."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "stepreward"):
            yield node, node.module or ""
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "stepreward":
                    yield node, alias.name


@pytest.fixture(scope="module")
def files() -> dict[Path, list[ast.AST]]:
    """Every file of the package, with all nodes of its syntax tree."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path: [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))] for path in paths}


def test_imports_flow_one_way(files: dict[Path, list[ast.AST]]) -> None:
    wrong = []
    for path, nodes in files.items():
        folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node, module in own_imports(nodes) if folder != "__init__" else ():
            parts = module.split(".")
            if getattr(node, "level", 0):
                wrong.append(f"{path}:{node.lineno}: relative import; write it in full")
            elif len(parts) == 1:
                wrong.append(f"{path}:{node.lineno}: imports the package's front door; import the module itself")
            elif parts[1] not in MAY_IMPORT[folder] | {folder}:
                wrong.append(f"{path}:{node.lineno}: {folder} may not import {module}")
    assert not wrong, "\n".join(wrong)


def test_no_class_name_twice(files: dict[Path, list[ast.AST]]) -> None:
    places = defaultdict(set)
    for path, nodes in files.items():
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                places[node.name].add(str(path.relative_to(PACKAGE)))
    twice = {name: sorted(paths) for name, paths in places.items() if len(paths) > 1}
    assert twice.keys() <= CLASSES_TWICE, f"one name for two things, rename one: {twice}"


def test_no_file_name_twice(files: dict[Path, list[ast.AST]]) -> None:
    places = defaultdict(list)
    for path in files:
        places[path.name].append(str(path.relative_to(PACKAGE)))
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert twice.keys() <= FILES_TWICE, f"one file name for two things, rename one: {twice}"


def test_no_own_import_inside_a_function(files: dict[Path, list[ast.AST]]) -> None:
    wrong = []
    for path, nodes in files.items():
        functions = [one for one in nodes if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
        wrong += [
            f"{path}:{node.lineno}: {function.name} hides the import of {module}"
            for node, module in own_imports(nodes)
            for function in functions
            if function.lineno <= node.lineno <= (function.end_lineno or 0)
        ]
    assert not wrong, "\n".join(wrong)


def hidden_imports(nodes: Iterable[ast.AST], may_import_by_name: bool = False) -> Iterator[tuple[int, str]]:
    """Line and function of imports of own modules by a string, and of imports of what is not written out."""
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called not in ("import_module", "__import__", "optional", "Deferred", "run_module"):
            continue
        name = node.args[0] if node.args else None
        if isinstance(name, ast.JoinedStr) and name.values and isinstance(name.values[0], ast.Constant):
            name = name.values[0]
        if isinstance(name, ast.Constant):
            if str(name.value).split(".")[0] in ("stepreward", ""):
                yield node.lineno, called
        elif not may_import_by_name:
            yield node.lineno, called


@pytest.mark.parametrize(
    ("line", "hides"),
    [
        ('optional("stepreward.score.load")', True),
        ('importlib.import_module("stepreward.score")', True),
        ('import_module(f"stepreward.cli.{name}")', True),
        ('import_module(".load", "stepreward.score")', True),
        ('Deferred("stepreward")', True),
        ("importlib.import_module(name)", True),
        ('optional("torch")', False),
        ('importlib.import_module("stepwise")', False),
        ('version("stepreward")', False),
    ],
)
def test_a_hidden_import_is_seen(line: str, hides: bool) -> None:
    assert bool([*hidden_imports(ast.walk(ast.parse(line)))]) == hides


def test_no_own_import_as_a_string(files: dict[Path, list[ast.AST]]) -> None:
    names = {path: str(path.relative_to(PACKAGE)) for path in files}
    modules = {f"stepreward.{name.removesuffix('.py').replace('/', '.')}" for name in names.values()}
    wrong = []
    for path, nodes in files.items():
        found = hidden_imports(nodes, names[path] in IMPORT_BY_NAME)
        wrong += [f"{path}:{line}: {called} hides an import of this package" for line, called in found]
        texts = [one for one in nodes if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        named = [one for one in texts if one.value.partition(":")[0] in modules]
        wrong += [f"{path}:{one.lineno}: names a module of this package in a string" for one in named]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_needed(files: dict[Path, list[ast.AST]]) -> None:
    for name in IMPORT_BY_NAME:
        assert [*hidden_imports(files[PACKAGE / name])], f"{name} imports nothing by name"


@pytest.mark.parametrize(
    "module",
    ["stepreward", *(f"stepreward.{v}" for v in ["label", "search", "credit", "evaluate", "testing", "verbs"])],
)
def test_no_torch_without_a_gradient(module: str) -> None:
    code = f"import {module}, sys; assert 'torch' not in sys.modules, 'torch was loaded'"
    done = coded(code, PACKAGE, without=EXTRAS)
    assert done.returncode == 0, done.stderr
