"""Tests the tests: changes one thing at a time in a sample of files and lists the changes that no test noticed.

    python -m tests.mutants [--files src/stepreward/core/measure/step_metrics.py ...] [--limit 40] [--seed 0]

Each mutant flips a sign, an order, a comparison or a boolean, or drops a mask, in a copy of one file; the tests of that
file's folder must then fail. The file is always restored.
"""

from __future__ import annotations

import argparse
import ast
import copy
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLE = [
    "core/measure/step_metrics.py",
    "core/measure/statistics.py",
    "core/tree.py",
    "label/transforms.py",
    "core/measure/aggregation.py",
    "train/objectives.py",
]
BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr}
COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}


def change(node: ast.AST) -> str | None:
    """Changes a node in place; says what changed, or None if it is of no kind that is changed."""
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        old, node.op = type(node.op).__name__, BINARY[type(node.op)]()
        return f"{old} -> {type(node.op).__name__}"
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARE:
        old, node.ops[0] = type(node.ops[0]).__name__, COMPARE[type(node.ops[0])]()
        return f"{old} -> {type(node.ops[0]).__name__}"
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.where" and len(node.args) == 3:
        node.args[0] = ast.parse("True", mode="eval").body
        return "mask dropped from np.where"
    return None


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, description and text of every mutant of a source."""
    tree = ast.parse(source)
    for index in range(len(list(ast.walk(tree)))):
        twin = copy.deepcopy(tree)
        node = list(ast.walk(twin))[index]
        said = change(node)
        if said is not None:
            yield getattr(node, "lineno", 0), said, ast.unparse(ast.fix_missing_locations(twin))


def survives(path: Path, text: str, tests: Path) -> bool:
    """True if the tests pass with the mutant in place."""
    original = path.read_text()
    try:
        path.write_text(text)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(tests)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600, check=False).returncode == 0
    finally:
        path.write_text(original)


def tests_of(path: Path) -> Path:
    """The test file of a module, or its folder's tests."""
    folder = ROOT / "tests" / path.parent.name
    single = folder / f"test_{path.stem}.py"
    return single if single.exists() else folder


def main() -> None:
    """Runs the mutants and exits with the number of survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--files", nargs="*", type=Path, default=[ROOT / "src" / "stepreward" / name for name in SAMPLE]
    )
    parser.add_argument("--limit", type=int, default=40, help="mutants tried, drawn at random over all files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    every = [(path.resolve(), *m) for path in options.files for m in mutants(path.read_text())]
    chosen = random.Random(options.seed).sample(every, min(options.limit, len(every)))
    alive = 0
    for path, line, said, text in chosen:
        lived = survives(path, text, tests_of(path))
        alive += lived
        print(f"{'SURVIVED' if lived else 'killed  '} {path.relative_to(ROOT)}:{line} {said}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutants killed ({len(every)} possible)")
    sys.exit(min(alive, 100))


if __name__ == "__main__":
    main()
