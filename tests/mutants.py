"""Tests the tests: changes one thing at a time in files of the whole tree and lists the changes that no test noticed.

    python -m tests.mutants [--files src/stepreward/core/metrics.py ...] [--limit 48] [--seed 0] [--jobs 2]

Each mutant flips a sign, an order, a comparison or a condition, or drops a mask, in one file of a copy of the package;
the tests that import this file, that use its names or that are of its folder must then fail. Without `--files` every
mutant is in another file, drawn at random.
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
SURVIVED, KILLED, HUNG, SKIPPED = "SURVIVED", "killed", "hung", "skipped"
"""What the tests of a module say of its mutant; one that makes them hang is noticed."""
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


def names_of(source: str) -> set[str]:
    """What tests may call a module by: the public names that it defines, and those that it registers."""
    made: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
            calls = [call for call in node.decorator_list if isinstance(call, ast.Call) and call.args]
            made |= {str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)}
        elif isinstance(node, ast.Assign):
            made |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in made if not name.startswith("_")}


def tests_of(path: Path) -> list[str]:
    """The test files of a module, in the order in which they run until one fails.

    Those that import it are first, then the ten others that use most of its names, then those of its folder.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    module = re.compile(rf"stepreward\.{re.escape('.'.join(parts))}\b")
    names = names_of(path.read_text(encoding="utf-8"))
    folder = ROOT / "tests" / parts[0]
    files = [f for f in sorted((ROOT / "tests").rglob("test_*.py")) if not str(f.relative_to(ROOT)).startswith(SLOW)]
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    used = {file: len(names & {*re.findall(r"[\w-]+", text)}) for file, text in texts.items()}
    found = [f for f in files if f.stem == f"test_{path.stem}" or module.search(texts[f])]
    found.sort(key=lambda f: (f.stem != f"test_{path.stem}", folder not in f.parents))
    users = sorted((f for f in files if used[f] and f not in found), key=lambda f: (-used[f], folder not in f.parents))
    found += users[:10]
    found += [f for f in files if folder in f.parents and f not in found]
    return [str(f) for f in found] or [str(ROOT / "tests")]


def tried(path: Path, text: str, *, seconds: float) -> str:
    """What the tests of a module say of its mutant: SURVIVED, KILLED, HUNG or SKIPPED."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PACKAGE, Path(folder) / "stepreward", ignore=shutil.ignore_patterns("__pycache__"))
        (Path(folder) / "stepreward" / path.relative_to(PACKAGE)).write_text(text, encoding="utf-8")
        process = started(_tested, folder, tests_of(path))
        process.join(seconds)
        process.kill()
        process.join()
    # A failed test, an import that fails, or no end in time; anything else says nothing about the tests.
    code = pytest.ExitCode
    ends = {
        PASSED + code.OK: SURVIVED, PASSED + code.TESTS_FAILED: KILLED, PASSED + code.INTERRUPTED: KILLED,
        PASSED + code.NO_TESTS_COLLECTED: SKIPPED, -signal.SIGKILL: HUNG,
    }  # fmt: skip
    if process.exitcode not in ends:
        raise RuntimeError(f"{path}: its tests could not be run; see {' '.join(['pytest', *tests_of(path)])}")
    return ends[process.exitcode]


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

    def end_of(drawn: tuple[Path, int]) -> str:
        path, place = drawn
        line, said, text = mutant(path.read_text(encoding="utf-8"), place)
        end = tried(path, text, seconds=options.seconds)
        print(f"{end:8} {path.relative_to(ROOT)}:{line} {said}", flush=True)
        return end

    first = chosen[0][0]
    if tried(first, first.read_text(encoding="utf-8"), seconds=3600) == KILLED:
        sys.exit(f"{first.relative_to(ROOT)}: its tests fail without any change; make them pass first")
    with ThreadPoolExecutor(options.jobs) as pool:
        ends = {drawn: end for drawn, end in zip(chosen, pool.map(end_of, chosen), strict=True) if end != SKIPPED}
    alive = [*ends.values()].count(SURVIVED)
    print(f"{len(ends) - alive} of {len(ends)} mutants killed, in {len({path for path, _ in ends})} files")
    print(f"the tests of {len(chosen) - len(ends)} more are skipped in this environment")
    sys.exit(min(alive, 100))


if __name__ == "__main__":
    main()
