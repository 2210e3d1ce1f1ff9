"""Pages of MiniWoB++ in a real browser, in Python and on the command line (`make worlds`)."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.core.catalog import generate
from stepreward.core.errors import EpisodeError, InputError, ModelError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act, Observation
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.segment.tool_calls import CALLS
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.environments.episode_pool import EpisodePool
from stepreward.environments.web.browser_threads import BROWSERS, BrowserThread
from stepreward.environments.web.packaged_pages import PAGES, page_file
from stepreward.environments.web.web_episode import WebEpisode
from stepreward.label.samples import graded_samples
from stepreward.policies.tabular import TabularPolicy
from stepreward.testing import check_environment
from tests.environments.episodes import require_resumes, shown_along
from tests.environments.scripted_server import serving

pytest.importorskip("playwright.sync_api")
if find_spec("miniwob") is None or not any(map(shutil.which, BROWSERS)):
    pytest.skip("needs miniwob and a browser", allow_module_level=True)
pytestmark = pytest.mark.xdist_group("browser")


def problem(page: str, seed: int = 0) -> Problem:
    return next(generate["miniwob"](Key.seed(seed), page=page))


@pytest.fixture(scope="module")
def thread() -> Iterator[BrowserThread]:
    made = BrowserThread()
    yield made
    made.close()


def pool(thread: BrowserThread, turns: int = 6, live: int = 8) -> EpisodePool:
    return EpisodePool(lambda: WebEpisode(thread, turns), "web", live=live)


def login(text: str) -> list[str]:
    """The commands that log in, read from the page."""
    user, password = re.findall(r'username "(\w+)" and the password "(\w+)"', text.replace("\\", ""))[0]
    fields = re.findall(r"textbox.*\[ref=(\w+)\]", text)
    (button,) = re.findall(r'button "Login".*?\[ref=(\w+)\]', text)
    return [f"type {fields[0]} {user}", f"type {fields[1]} {password}", f"click {button}"]


def test_a_login_is_won_by_its_own_words_and_lost_by_others(thread: BrowserThread) -> None:
    task = problem("login-user")
    episodes = pool(thread)
    (first,) = episodes.act_many([Act(task, ())])
    right = login(first.steps[0].text)
    won = shown_along(episodes, task, right)
    assert [(one.done, one.reward, one.outcome) for one in won[1:]] == [(False, 0, 0), (False, 0, 0), (True, 1, 1)]
    assert right[0].split()[2] in won[1].steps[0].text
    lost = shown_along(episodes, task, [right[0], right[2]])
    assert [(one.done, one.reward, one.outcome) for one in lost[1:]] == [(False, 0, 0), (True, -1, 0)]
    # The second path begins like the first, which has gone on: its first action was known, and executed again.
    assert episodes.repeated == 1
    # Replayed from the seed in a new page, all is as it was.
    assert repr(shown_along(pool(thread, live=1), task, right)) == repr(won)
    episodes.close()


def test_the_contract_holds(thread: BrowserThread) -> None:
    task = problem("click-button")
    actions = ["click e999", "press Tab", "press Nokey", "scroll down", "type e2 x", "press Enter"]
    check_environment(lambda: WebEpisode(thread, 8), task, actions)


@pytest.mark.parametrize("page", PAGES[::6])
def test_seeds_make_pages_and_everything_to_act_on_has_a_name(page: str, thread: BrowserThread) -> None:
    texts = []
    for seed in (0, 0, 1):
        episode = WebEpisode(thread, 3)
        texts.append(episode.reset(problem(page, seed)).steps[0].text)
        episode.close()
    assert texts[0] == texts[1]
    assert texts[0] != texts[2] or page == "click-test"
    assert "[ref=" in texts[0]
    assert "START" not in texts[0]


def test_calls_select_and_keys(thread: BrowserThread) -> None:
    episode = WebEpisode(thread, 9)
    text = episode.reset(problem("choose-list")).steps[0].text
    wanted = re.findall(r"Select (.*?) from the list", text)[0]
    (box,) = re.findall(r"combobox.*?\[ref=(\w+)\]", text)
    (button,) = re.findall(r'button "Submit".*?\[ref=(\w+)\]', text)

    def shown(name: str, **arguments: str) -> Observation:
        return episode.act(Step("", meta={CALLS: [{"id": "c", "name": name, "arguments": arguments}]}))

    assert (
        shown("select", element=box, option="nothing of that name").steps[0].text.startswith("select could not be done")
    )
    assert shown("select", element=box, option=wanted).steps[0].role == "tool"
    assert shown("click", element=f"[ref={button}]").outcome == 1.0
    episode.close()


def test_a_page_reaches_nothing_but_packaged_files(thread: BrowserThread) -> None:
    episode = WebEpisode(thread, 3)
    episode.reset(problem("click-test"))
    tried = """async () => {
      const got = [];
      for (const url of ["http://127.0.0.1:1/", "https://example.com/", "file:///etc/passwd",
                         "/../../../../../../etc/passwd", "/%2e%2e/%2e%2e/__init__.py", "/core/core.js"])
        got.push(await fetch(url).then(r => r.ok, () => false));
      return got;
    }"""
    assert thread.call(lambda _: episode._page.evaluate(tried)) == [False] * 5 + [True]
    episode.close()


def test_threads_ask_for_episodes_of_several_browsers(thread: BrowserThread) -> None:
    """A policy that tabs and presses Enter at random, with two browsers and with one: the same episodes."""
    task = problem("click-button")
    keys = TabularPolicy(lambda *_: [(Step("press Tab\n"), 0.6, True), (Step("press Enter\n"), 0.4, True)], "keys")
    made = []
    for episodes in (pool(thread, 3), environment_at("web?workers=2&turns=3")):
        (ended,) = Driver(policy=Agent(keys, episodes)).run([graded_samples(task, Key.seed(1), n=4, temperature=None)])
        made.append([(one.text, one.outcome) for one in ended.result])
        episodes.close()  # type: ignore[attr-defined]
    assert made[0] == made[1]


def test_a_killed_run_goes_on_in_the_middle_of_an_episode(thread: BrowserThread, tmp_path: Path) -> None:
    task = problem("click-button")
    require_resumes(lambda: pool(thread, 3), task, ["press Tab", "click e999"], tmp_path)


def test_a_browser_that_is_closed_or_not_there_is_an_error() -> None:
    made = BrowserThread()
    made.close()
    with pytest.raises(ModelError, match="the browser was closed"):
        made.call(lambda browser: browser)
    with pytest.raises(ModelError, match="no Chromium was found"):
        BrowserThread("/no/such/chromium").call(lambda browser: browser)


def test_what_is_no_page_is_refused(thread: BrowserThread) -> None:
    for meta in ({}, {"page": "no-such-page", "seed": 1}, {"page": "../core/core", "seed": 1}):
        with pytest.raises(EpisodeError, match="page"):
            pool(thread).act_many([Act(Problem("p", "Act.", meta=meta), ())])
    with pytest.raises(ValueError, match="has no page 'no-such-page'"):
        next(generate["miniwob"](Key.seed(0), page="no-such-page"))
    with pytest.raises(InputError, match="no name of a page"):
        page_file("../login-user")
    words = next(generate["miniwob"](Key.seed(0), actions="words"))
    assert "click ELEMENT: " in words.text
    assert "tools" not in words.meta
    assert len({one.meta["page"] for one in islice(generate["miniwob"](Key.seed(0)), 30)}) > 10


def test_label_on_the_command_line(tmp_path: Path) -> None:
    """A scripted model logs in by tool calls, without the password at even seeds: steps are worth 1 or 0."""
    file = tmp_path / "pages.jsonl"
    run = CliRunner().invoke(app, ["generate", "miniwob", "--n", "1", "--out", str(file), "--set", "page=login-user"])
    assert run.exit_code == 0, run.output

    def agent(messages: list[dict[str, Any]], seed: int) -> Any:
        done = sum(message["role"] == "tool" for message in messages)
        first, second, last = login(messages[0]["content"])
        skips = done and not seed % 2
        name, element, *rest = [first, last if skips else second, last][min(done, 2)].split()
        return {"name": name, "arguments": {"element": element, **({"text": rest[0]} if rest else {})}}

    with serving(agent) as (address, _):
        made = CliRunner().invoke(
            app,
            ["label", "--problems", str(file), "--environment", "web", "--policy", address, "--samples", "4",
             "--rollouts", "2", "--json", "--out", str(tmp_path / "labels")],
        )  # fmt: skip
    assert made.exit_code == 0, made.output
    rows = [*stepreward.read(json.loads(made.stdout)["labels"])]
    assert {row.outcome for row in rows} == {0.0, 1.0}
    assert all(row.columns["value"][row.action][-1] == row.outcome for row in rows)
    assert all(row.steps[0].text.count("[ref=") > 3 for row in rows)
