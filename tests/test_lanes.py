"""The lanes: which of them a commit needs, and that the least versions tested are the declared ones."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.lanes import FILES, digest, uses

ROOT = Path(__file__).parents[1]
WORLDS = {"gymnasium", "openenv", "retrieval", "repositories", "textworld", "web"}
WITHOUT_A_LANE = {"vllm", "ray", "quantized", "reasoning-gym", *WORLDS}
"""Extras that the lanes of versions do not install: `make vllm`, `make ray` and `make worlds` have their own versions,
and tests of the others skip without them."""


def test_every_declared_minimum_is_the_version_that_the_lane_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [project["dependencies"]]
    listed += [some for name, some in project["optional-dependencies"].items() if name not in {"dev", *WITHOUT_A_LANE}]
    declared = [Requirement(one) for some in listed for one in some]
    # One bound each, open upward.
    assert all(len(one.specifier) == 1 for one in declared if one.name != "stepreward")
    least = {canonicalize_name(one.name): str(one.specifier) for one in declared if one.name != "stepreward"}
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert least == {canonicalize_name(name): f">={version}" for name, version in pinned.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree with a file for each pattern of each lane."""
    for pattern in {pattern for patterns in FILES.values() for pattern in patterns}:
        path = tmp_path / pattern.replace("**/", "").replace("*", "some")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import numpy as np\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "added", "lanes"),
    [
        ("pyproject.toml", "", set(FILES)),
        ("tests/connect/vllm.txt", "", {"vllm"}),
        ("tests/lowest.txt", "", {"newest", "lowest"}),
        ("src/stepreward/connect/verl.py", "OWN = 1", {"verl", "evals", "engines"}),
        # A new use of another package needs the lanes of versions; a line of our own does not.
        ("src/stepreward/new.py", "OWN = 1", set()),
        ("src/stepreward/new.py", "import numpy as np\nNEW = np.zeros(1)", {"newest", "lowest"}),
    ],
)
def test_a_lane_is_needed_when_what_it_depends_on_has_changed(
    name: str, added: str, lanes: set[str], root: Path
) -> None:
    before = {lane: digest(lane, root) for lane in FILES}
    (root / name).write_text(f"{added}\n# changed\n")
    assert {lane for lane in FILES if digest(lane, root) != before[lane]} == lanes


def test_a_file_that_moved_is_named_instead_of_forgotten(root: Path) -> None:
    (root / "tests/connect/vllm.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file fits 'tests/connect/vllm\.txt' of vllm"):
        digest("vllm", root)
    # None of the patterns is out of date.
    assert all(list(ROOT.glob(pattern)) for patterns in FILES.values() for pattern in patterns)


def test_uses_of_other_packages_are_found_with_their_keywords() -> None:
    source = "import numpy as np, os\nfrom torch.nn import functional as F\nF.relu(np.sum(x, axis=0)); os.sep; Own.f()"
    found = {"numpy", "torch.nn.functional", "torch.nn.functional.relu", "numpy.sum", "numpy.sum(axis=)"}
    assert set(uses(ast.parse(source))) == found


def test_every_lane_is_a_target_that_says_when_it_has_passed() -> None:
    makefile = (ROOT / "Makefile").read_text()
    nightly = re.search(r"^nightly: test (.*)$", makefile, re.MULTILINE)
    assert nightly is not None
    assert set(FILES) < set(nightly[1].split())
    for lane in FILES:
        assert re.search(
            rf"^{lane}: .*\n(\t.*\n)+\t\$\(PYTHON\) tests/lanes.py --passed {lane}$", makefile, re.MULTILINE
        )
