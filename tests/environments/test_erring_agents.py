"""The agents that are no models: what they do, and that their errors are errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice

import pytest

from stepreward.core.catalog import generate
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act, Observation
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.environments.repositories.mender import mender
from stepreward.environments.text_games import wanderer
from stepreward.environments.web.browser_threads import BROWSERS
from stepreward.environments.web.clicker import clicker
from stepreward.policies.tabular import NextSteps
from tests.sandboxed import needs_sandbox

REPOSITORY = "repository?turns=12&diagnostics=false"
PAGE = """- generic [ref=e2]:
  - generic [ref=e3]: Enter the username "ada" into the field, choose and press "Go".
  - generic [ref=e4]:
    - textbox [ref=e5]
    - combobox [ref=e6]:
      - option "Oslo" [selected]
      - option "Lima"
    - button "Go" [ref=e7] [cursor=pointer]
"""


def acted(address: str, problem: Problem, table: NextSteps, choose: Callable[[list[Step]], Step]) -> list[Observation]:
    """An episode in which one of a table's turns is chosen every time: what was shown."""
    pool = environment_at(address)
    steps: tuple[Step, ...] = ()
    seen: list[Observation] = []
    while not seen or not seen[-1].done:
        (shown,) = pool.act_many([Act(problem, steps)])
        seen.append(shown)
        steps += shown.steps
        if not shown.done:
            steps += (choose([step for step, _, _ in table(problem, steps)]),)
    return seen


def repositories(n: int) -> list[Problem]:
    return [*islice(generate["repositories"](Key.seed(0), actions="words"), n)]


@needs_sandbox
def test_a_mender_that_does_not_err_wins_in_five_actions() -> None:
    for problem in repositories(3):
        seen = acted(REPOSITORY, problem, mender(miss=0, hasty=0), lambda turns: turns[0])
        assert (len(seen) - 1, seen[-1].outcome) == (5, 1.0)
        assert len(mender(miss=0, hasty=0)(problem, ())) == 1


@needs_sandbox
def test_edits_that_miss_plant_bugs_that_the_next_ones_mend() -> None:
    table = mender(miss=0.3, hasty=0.1, wrong=2)

    for problem in repositories(3):
        turns_taken = 0

        def choose(turns: list[Step]) -> Step:
            nonlocal turns_taken
            turns_taken += 1
            # Test, view, then one edit that misses; right moves from there on.
            return turns[1] if turns_taken == 3 else turns[0]

        seen = acted(REPOSITORY, problem, table, choose)
        assert "was edited" in seen[3].steps[0].text
        assert seen[3].outcome == 0.0
        # Each of the two lines is mended and tested; an edit in the line of the bug itself is mended with it.
        assert len(seen) - 1 in (7, 9)
        assert seen[-1].outcome == 1.0


def test_chances_of_a_mender_are_those_that_are_asked_for() -> None:
    (problem,) = repositories(1)
    path = json.loads(problem.reference or "")["path"]
    turns = {step.text: chance for step, chance, _ in mender(miss=0.3, hasty=0.1)(problem, ())}
    assert turns["test\n"] == pytest.approx(0.6)
    assert turns["submit\n"] == 0.1
    others = {text for text in turns if text.startswith("view ")}
    assert sum(turns[text] for text in others) == pytest.approx(0.3)
    assert f"view {path}\n" not in others
    with pytest.raises(ValueError, match="sum to at most 1"):
        mender(miss=0.8, hasty=0.3)


def test_a_wanderer_gives_the_listed_commands_equally_often() -> None:
    shown = Step("A room.\n\nYou can: go east; look; take red key\n", "observation", "user")
    turns = wanderer(
        Problem("g", "Play."), (Step("An old room.\n\nYou can: look\n", "observation"), Step("look"), shown)
    )
    assert [(step.text, chance, over) for step, chance, over in turns] == [
        ("go east\n", 1 / 3, True), ("look\n", 1 / 3, True), ("take red key\n", 1 / 3, True),
    ]  # fmt: skip


def test_a_clicker_does_what_a_page_offers_and_nothing_twice_at_once() -> None:
    first = (Step(PAGE, "observation", "user"),)
    turns = [step.text for step, _, _ in clicker(Problem("p", "Act."), first)]
    assert turns == [
        "textbox\ntype e5 ada\n", "textbox\ntype e5 Go\n", "textbox\nclick e5\n", "combobox\nselect e6 Oslo\n",
        "combobox\nselect e6 Lima\n", 'button "Go"\nclick e7\n',
    ]  # fmt: skip
    after = (*first, Step(turns[0]), Step(f"type was done.\n{PAGE}", "observation", "user"))
    assert [step.text for step, _, _ in clicker(Problem("p", "Act."), after)] == turns[1:]
    empty = (Step("- generic [ref=e1]: Nothing.\n", "observation"),)
    ((only, chance, _),) = clicker(Problem("p", "Act."), empty)
    assert (only.text.splitlines()[-1], chance) == ("press Tab", 1.0)


def test_a_wanderer_that_takes_the_first_command_of_a_way_wins_a_real_game() -> None:
    pytest.importorskip("textworld")
    problem = next(generate["textworld"](Key.seed(0), game="treasure", level=3))
    way = (problem.reference or "").splitlines()
    seen = acted("textworld", problem, wanderer, lambda turns: {one.text.strip(): one for one in turns}[way.pop(0)])
    assert seen[-1].outcome == 1.0


def test_a_clicker_wins_a_real_page_with_one_button() -> None:
    pytest.importorskip("playwright.sync_api")
    if find_spec("miniwob") is None or not any(map(shutil.which, BROWSERS)):
        pytest.skip("needs miniwob and a browser")
    problem = next(generate["miniwob"](Key.seed(0), page="click-test", actions="words"))
    seen = acted("web", problem, clicker, lambda turns: turns[0])
    assert (len(seen) - 1, seen[-1].outcome) == (1, 1.0)
