"""Which lanes a commit needs: those whose files differ from the ones that they last passed on.

    python3 tests/lanes.py                # the lanes to run
    python3 tests/lanes.py --passed verl  # keeps the digest of a lane's files in tests/lanes.json

`make verl` and the others end with the second. A digest is of contents, so no history is needed. A lane whose digest
was not committed runs.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PASSED = ROOT / "tests" / "lanes.json"
FOR_ALL = ["pyproject.toml", "src/stepreward/tested.txt", "tests/conftest.py", "tests/lanes.py"]
VERSIONS = [*FOR_ALL, "tests/lanes.txt", "tests/lowest.txt", "tests/smoke/*.py"]
FILES = {
    "verl": [
        *FOR_ALL, "src/stepreward/connect/**/*.py", "tests/connect/test_verl_release.py", "tests/connect/verl.txt",
    ],
    "ray": [
        *FOR_ALL, "src/stepreward/connect/ray_engine.py", "src/stepreward/core/runtime/made_in_parts.py",
        "src/stepreward/verbs/*.py", "tests/connect/test_ray.py", "tests/connect/ray.txt",
    ],
    "worlds": [
        *FOR_ALL, "src/stepreward/environments/**/*.py", "tests/environments/*.py", "tests/environments/worlds.txt",
    ],
    "evals": [
        *FOR_ALL, "src/stepreward/connect/**/*.py", "tests/connect/test_evaluation_guide.py",
        "tests/connect/test_inspect_ai.py", "tests/connect/test_lm_eval.py", "tests/connect/judge.py",
        "tests/connect/evals.txt", "docs/guides/evaluat*.md",
    ],
    "engines": [
        *FOR_ALL, "src/stepreward/connect/engines/*.py", "src/stepreward/connect/alarms.py",
        "src/stepreward/connect/verl.py", "tests/connect/engines/*.py", "tests/connect/engines.txt",
    ],
    "vllm": [
        *FOR_ALL, "src/stepreward/policies/*.py", "src/stepreward/score/remote/*.py", "src/stepreward/score/load.py",
        "src/stepreward/core/http/*.py", "src/stepreward/score/model/*layout*.py",
        "src/stepreward/score/model/linear_outputs.py", "src/stepreward/pipeline/card_code.py",
        "src/stepreward/connect/ray_engine.py", "src/stepreward/core/runtime/made_in_parts.py",
        "src/stepreward/verbs/serve_on_ray.py", "src/stepreward/serve/http_app.py",
        "tests/connect/test_vllm_release.py", "tests/connect/test_vllm_on_ray.py", "tests/connect/test_ray_serve.py",
        "tests/connect/vllm.txt",
    ],
    "newest": VERSIONS,
    "lowest": VERSIONS,
}  # fmt: skip
"""Patterns of the files on whose contents each lane depends."""
OF_VERSIONS = ("newest", "lowest")
"""Lanes that also depend on which names of other packages, with which keywords, are used anywhere in the package."""


def digest(lane: str, root: Path = ROOT) -> str:
    """Digest of all on which a lane depends.

    Raises:
        FileNotFoundError: no file fits one of the lane's patterns, since something was moved.
    """
    made = hashlib.sha256()
    for pattern in FILES[lane]:
        found = sorted(root.glob(pattern))
        if not found:
            raise FileNotFoundError(f"tests/lanes.py: no file fits {pattern!r} of {lane}: name the file's new place")
        for path in found:
            made.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    if lane in OF_VERSIONS:
        sources = [path.read_text(encoding="utf-8") for path in (root / "src").rglob("*.py")]
        made.update("\n".join(sorted({use for source in sources for use in uses(ast.parse(source))})).encode())
    return made.hexdigest()


def uses(tree: ast.Module) -> Iterator[str]:
    """Names of other packages that a module uses, calls with their keywords: `numpy.where`, `torch.tensor(dtype=)`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(one.asname or one.name.split(".")[0]): one.name for one in node.names if _foreign(one.name)}
        elif isinstance(node, ast.ImportFrom) and _foreign(node.module or ""):
            names |= {(one.asname or one.name): f"{node.module}.{one.name}" for one in node.names}
    yield from names.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name | ast.Call):
            parts, root = [], node.func if isinstance(node, ast.Call) else node
            while isinstance(root, ast.Attribute):
                parts.append(root.attr)
                root = root.value
            if isinstance(root, ast.Name) and root.id in names:
                name = ".".join([names[root.id], *reversed(parts)])
                yield name
                yield from (f"{name}({k.arg}=)" for k in node.keywords) if isinstance(node, ast.Call) else ()


def _foreign(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] not in {"stepreward", *sys.stdlib_module_names}


def main() -> None:
    """Prints the lanes to run, or keeps that one has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passed", choices=FILES, help="a lane that has passed on the files as they are")
    lane = parser.parse_args().passed
    passed: dict[str, str] = json.loads(PASSED.read_text()) if PASSED.exists() else {}
    if lane is not None:
        PASSED.write_text(json.dumps({**passed, lane: digest(lane)}, indent=2, sort_keys=True) + "\n")
    else:
        print(*(name for name in FILES if passed.get(name) != digest(name)))


if __name__ == "__main__":
    main()
