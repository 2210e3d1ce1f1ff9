"""Families fill themselves at the first look-up: in a fresh interpreter, from any module, and without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.forked import coded

from stepreward.core.catalog import Family, families
from stepreward.core.errors import UnknownNameError
from stepreward.core.optional import EXTRAS
from stepreward.formats import formats

ONE_OF_EACH = {
    "segment": "sentences", "estimate": "bisection", "transform": "hard", "filter": "consensus", "loss": "bce",
    "aggregate": "min", "calibrate": "isotonic", "select": "majority", "search": "beam", "credit": "pure",
    "shape": "clip-delta", "reward": "repetition", "bench": "process-bench", "check": "equations",
    "generate": "arithmetic", "environment": "gymnasium",
}  # fmt: skip
"""A method of every family, by name."""
COUNTED = "len(list(f)), len(f), sorted(m.name for m in f)"


def fresh(code: str) -> str:
    """What code prints in a process that has imported nothing of the package and no extra."""
    done = coded(code, Path.cwd(), without=EXTRAS)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", families)
def test_a_family_fills_itself_at_the_first_look_up_and_loads_no_torch(name: str) -> None:
    code = (
        f"import sys; from stepreward.core.catalog import families; f = families[{name!r}]; "
        f"method = f[{ONE_OF_EACH[name]!r}]; assert 'torch' not in sys.modules; print(method.name, {COUNTED})"
    )
    assert fresh(code).strip() == f"{ONE_OF_EACH[name]} " + " ".join(
        map(str, (len(list(families[name])), len(families[name]), sorted(m.name for m in families[name])))
    )


@pytest.mark.parametrize("first", ["list(f)", "len(f)", "'pure' in f"])
def test_every_way_of_looking_fills(first: str) -> None:
    code = f"from stepreward.core.catalog import credit as f; assert {first}; print(len(f))"
    assert int(fresh(code)) == len(families["credit"]) > 50


@pytest.mark.parametrize("module", ["credit.gating", "search.trees.mcts", "cli.search"])
def test_a_module_that_is_imported_first_changes_nothing(module: str) -> None:
    code = (
        f"import stepreward.{module}; from stepreward.core.catalog import families; "
        "import json; print(json.dumps({name: [m.name for m in f] for name, f in families.items()}))"
    )
    made = json.loads(fresh(code))
    assert {name: set(some) for name, some in made.items()} == {n: {m.name for m in f} for n, f in families.items()}


def test_a_preset_may_come_before_what_it_is_a_preset_of() -> None:
    family = Family("drink", "() -> cups", "for tests", home=("core.keys",))
    family.preset("latte", of="coffee", note="with milk", cups=2)
    family.preset("double-latte", of="latte", note="more of it", cups=4)

    @family.method("coffee", note="plain")
    def coffee(*, cups: int = 1) -> int:
        """Counts its cups."""
        return cups

    assert [(m.name, m(), m.settings) for m in family] == [
        ("latte", 2, {"cups": 2}), ("double-latte", 4, {"cups": 4}), ("coffee", 1, {"cups": 1}),
    ]  # fmt: skip
    with pytest.raises(UnknownNameError, match="no drink method is called 'nothing'"):
        family.preset("tea", of="nothing", note="of what is not there")
    assert "tea" not in family


def test_a_home_that_cannot_be_imported_says_so_at_every_look_up() -> None:
    family = Family("lost", "", "for tests", home=("core.no_such_module",))
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            family["any"]


def test_threads_that_look_at_the_same_time_see_a_full_family() -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from threading import Barrier\n"
        "from stepreward.core.catalog import credit, search\n"
        "from stepreward.formats import formats\n"
        "barrier = Barrier(12)\n"
        "def look(i):\n"
        "    barrier.wait()\n"
        "    return len((credit, search, formats)[i % 3])\n"
        "with ThreadPoolExecutor(12) as pool:\n"
        "    print(*sorted(set(pool.map(look, range(12)))))"
    )
    sizes = sorted(map(len, (families["credit"], families["search"], formats)))
    assert fresh(code).split() == [*map(str, sizes)]
