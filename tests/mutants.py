"""Tests the tests: changes one thing at a time in files of the whole tree and lists the changes that no test noticed.

    python -m tests.mutants [--files src/stepreward/core/metrics.py ...] [--limit 48] [--seed 0] [--jobs 2]

Each mutant flips a sign, an order, a comparison or a condition, or drops a mask, in one file of a copy of the package;
the tests that import this file, or else those of its folder, must then fail. Without `--files` every mutant is in
another file, drawn at random.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.forked import started

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "stepreward"
SLOW = ("tests/smoke/", "tests/real/", "tests/cli/test_startup", "tests/test_docs", "tests/test_examples")
"""Tests that run whole programs: they are not what should notice a wrong sign."""
PASSED = 10
"""Exit status of a process whose tests passed; pytest's own statuses are added to it."""
BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr}
COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def change(node: ast.AST) -> str | None:
    """Changes a node in place; says what changed, or None if it is of no kind that is changed."""
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        old, node.op = type(node.op).__name__, BINARY[type(node.op)]()
        return f"{old} -> {type(node.op).__name__}"
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARE:
        old, node.ops[0] = type(node.ops[0]).__name__, COMPARE[type(node.ops[0])]()
        return f"{old} -> {type(node.ops[0]).__name__}"
    if isinstance(node, ast.BoolOp):
        old, node.op = type(node.op).__name__, ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return f"{old} -> {type(node.op).__name__}"
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.where" and len(node.args) == 3:
        node.args[0] = ast.parse("True", mode="eval").body
        return "mask dropped from np.where"
    return None


def annotations(tree: ast.AST) -> set[ast.AST]:
    """Nodes within annotations: a change there changes nothing that runs."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            found |= set(ast.walk(part)) if part is not None else set()
    return found


def places(source: str) -> list[int]:
    """Numbers of the nodes of a source, in the order of `ast.walk`, that `change` can change."""
    tree = ast.parse(source)
    skipped = annotations(tree)
    kinds = (ast.BinOp, ast.Compare, ast.BoolOp, ast.Call)
    nodes = [(i, node) for i, node in enumerate(ast.walk(tree)) if isinstance(node, kinds) and node not in skipped]
    return [i for i, node in nodes if change(copy.deepcopy(node)) is not None]


def mutant(source: str, place: int) -> tuple[int, str, str]:
    """Line, description and text of the mutant of a source that is changed at a place."""
    tree = ast.parse(source)
    node = list(ast.walk(tree))[place]
    said = str(change(node))
    return getattr(node, "lineno", 0), said, ast.unparse(ast.fix_missing_locations(tree))


def tests_of(path: Path) -> list[str]:
    """The test files that import a module, those of its folder first; all of its folder where none does."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    module = re.compile(rf"stepreward\.{re.escape('.'.join(parts))}\b")
    folder = ROOT / "tests" / parts[0]
    files = [f for f in sorted((ROOT / "tests").rglob("test_*.py")) if not str(f.relative_to(ROOT)).startswith(SLOW)]
    found = [f for f in files if f.stem == f"test_{path.stem}" or module.search(f.read_text(encoding="utf-8"))]
    found = found or [f for f in files if folder in f.parents]
    found.sort(key=lambda f: (f.stem != f"test_{path.stem}", folder not in f.parents))
    return [str(f) for f in found] or [str(ROOT / "tests")]


def survives(path: Path, text: str, *, seconds: float) -> bool:
    """True if the tests pass with the mutant in place; one that makes them hang does not survive."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PACKAGE, Path(folder) / "stepreward", ignore=shutil.ignore_patterns("__pycache__"))
        (Path(folder) / "stepreward" / path.relative_to(PACKAGE)).write_text(text, encoding="utf-8")
        process = started(_tested, folder, tests_of(path))
        process.join(seconds)
        process.kill()
        process.join()
    # A failed test, an import that fails, or no end in time; anything else says nothing about the tests.
    if process.exitcode not in {PASSED, PASSED + 1, PASSED + 2, -signal.SIGKILL}:
        raise RuntimeError(f"{path}: its tests could not be run; see {' '.join(['pytest', *tests_of(path)])}")
    return process.exitcode == PASSED


def _tested(folder: str, tests: list[str]) -> None:
    """Runs tests in this process on the package of a folder; exits as pytest does."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = folder
    sys.path.insert(0, folder)
    # Some plug-ins are loaded here before pytest can rewrite their assertions.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    sys.exit(PASSED + pytest.main(["-x", "-p", "no:cacheprovider", "-p", "no:xdist", *quiet, *tests]))


def main() -> None:
    """Runs the mutants and exits with the number of survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="*", type=Path, help="files to change; the whole package where none is given")
    parser.add_argument("--limit", type=int, default=48, help="mutants tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at a time")
    parser.add_argument("--seconds", type=float, default=600, help="limit for the tests of one mutant")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    files = [path.resolve() for path in options.files or sorted(PACKAGE.rglob("*.py"))]
    draw.shuffle(files)
    chosen: list[tuple[Path, int]] = []
    for path in files:
        every = [(path, place) for place in places(path.read_text(encoding="utf-8"))]
        chosen += every if options.files else draw.sample(every, min(1, len(every)))
        if not options.files and len(chosen) == options.limit:
            break
    chosen = draw.sample(chosen, min(options.limit, len(chosen)))

    def tried(drawn: tuple[Path, int]) -> bool:
        path, place = drawn
        line, said, text = mutant(path.read_text(encoding="utf-8"), place)
        lived = survives(path, text, seconds=options.seconds)
        print(f"{'SURVIVED' if lived else 'killed  '} {path.relative_to(ROOT)}:{line} {said}", flush=True)
        return lived

    first = min((path for path, _ in chosen), key=lambda path: len(tests_of(path)))
    if not survives(first, first.read_text(encoding="utf-8"), seconds=3600):
        sys.exit(f"{first.relative_to(ROOT)}: its tests fail without any change; make them pass first")
    with ThreadPoolExecutor(options.jobs) as pool:
        alive = sum(pool.map(tried, chosen))
    print(f"{len(chosen) - alive} of {len(chosen)} mutants killed, in {len({path for path, _ in chosen})} files")
    sys.exit(min(alive, 100))


if __name__ == "__main__":
    main()
