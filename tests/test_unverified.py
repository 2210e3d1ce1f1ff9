"""What no source confirms is marked in every listing, and does not bear a paper's name."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from stepreward.cli.commands import command_of
from stepreward.core.catalog import Family, families
from stepreward.core.method import Method
from stepreward.credit.verify import CHANGES, OBJECTIVES
from tests.cli.running import invoke

ROOT = Path(__file__).parents[1]
GUESSED = [method for family in families.values() for method in family if method.unverified]
EACH = pytest.mark.parametrize("method", GUESSED, ids=lambda m: f"{m.family}:{m.name}")


def plain(name: str) -> str:
    return re.sub(r"[-\s]", "", name.lower())


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """What writes the documentation's listings."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@EACH
def test_it_names_the_paper_that_it_follows_and_bears_another_name(method: Method) -> None:
    paper, found, what = method.unverified.partition(" (arXiv:")
    assert found
    assert len(what.partition("):")[2]) > 10
    assert not plain(paper).startswith(plain(method.name))
    assert method.name not in [plain(word) for word in re.split(r"[ ,]", paper)]


@EACH
def test_every_listing_marks_it(method: Method, hooks: ModuleType) -> None:
    marked = f"{method.name} (unverified)"
    page = hooks.methods_page()
    _, _, section = page.partition(f"### {method.family}: {marked}\n")
    assert f"- **Unverified**: {method.unverified}" in section.partition("###")[0]
    rows = json.loads(invoke(f"methods {method.family} --json"))
    assert [row["unverified"] for row in rows if row["name"] == method.name] == [method.unverified]
    table = invoke(f"methods {method.family}")
    assert table.count("unverified: ") == sum(other.family == method.family for other in GUESSED)
    assert f"<{method.family} {marked}: " in repr(method)
    assert f"unverified: {method.unverified}" in repr(method)
    assert method.source.startswith(f"unverified: {method.unverified}")


def test_what_is_confirmed_is_not_marked(hooks: ModuleType) -> None:
    names = {(m.family, m.name) for m in GUESSED}
    assert ("select", "hybrid-vote") in names
    assert ("search", "reward-frequency-vote") in names
    assert ("credit", "grpo") not in names
    assert "### credit: grpo\n" in hooks.methods_page()
    listed = {(row["family"], row["name"]) for row in json.loads(invoke("methods --json")) if row["unverified"]}
    assert listed == names


def test_help_and_the_page_of_objectives_mark_it(hooks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    (how,) = (option for option in command_of("search").params if "--method" in option.opts)
    assert "hybrid-vote (unverified)" in how.help
    assert "beam," in how.help
    monkeypatch.setattr(hooks, "verify", Found)
    page = hooks.objectives_page()
    rows = {line.split(" | ")[0].removeprefix("| ") for line in page.splitlines()}
    credit = [method for method in GUESSED if method.family == "credit"]
    assert credit
    assert {f"{method.name} (unverified)" for method in credit} <= rows
    assert "grpo" in rows


class Found:
    """In place of an enumeration of minutes."""

    def __init__(self, method: Method) -> None:
        self.cosine = self.limit = self.invariant = dict.fromkeys([*OBJECTIVES, *CHANGES], 1.0)


def test_a_method_without_a_paper_may_be_unverified() -> None:
    family = Family("vote", "(totals) -> (G,)", "a family for tests")

    @family.method("by-share", unverified="HMR (arXiv:2508.01773): its formula")
    def by_share(totals: object) -> object:
        """Votes."""
        return totals

    assert family["by-share"].listed == "by-share (unverified)"
    assert family["by-share"].source == "unverified: HMR (arXiv:2508.01773): its formula"
