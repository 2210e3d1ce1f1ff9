"""The least versions that `make lowest` installs are those that pyproject.toml declares."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
WITHOUT_A_LANE = {"vllm"}
"""Extras whose packages have an environment of their own: `make vllm`."""


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
