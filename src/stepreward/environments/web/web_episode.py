"""The environment `web`: an agent acts on a page in a real browser, and reads its accessibility tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import Annotated, Any

from stepreward.core.catalog import environment
from stepreward.core.errors import InputError
from stepreward.core.optional import optional, require_installed
from stepreward.core.runtime.acts import Observation
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Flag
from stepreward.environments.episode_pool import EpisodePool
from stepreward.environments.web.browser_threads import BrowserThread
from stepreward.environments.web.packaged_pages import COMMANDS, HOST, folder, page_file, serve_packaged

TIMEOUT, MOST_SHOWN = 10_000.0, 20_000
"""Milliseconds of one action, so many that a loaded machine decides of no action; characters of a page that are shown.
"""
_REF = re.compile(r"\[ref=(\w+)\]")
_NOON = 1_700_000_000_000
"""The time of every page, so that dates and speed say nothing of the machine."""
_START = """seed => {
  const style = document.createElement("style");
  style.textContent = "#reward-display, #click-canvas, #sync-task-cover { display: none !important }";
  document.head.appendChild(style);
  if (window.jQuery) jQuery.fx.off = true;
  core.EPISODE_MAX_TIME = 2e9;
  Math.seedrandom(String(seed));
  core.startEpisodeReal();
}"""
_SETTLED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
_STATE = "() => ({ done: WOB_DONE_GLOBAL, raw: WOB_RAW_REWARD_GLOBAL })"


class WebEpisode:
    """An episode on a page; a `core.runtime.acts.Environment` that is copied by acting again from the same seed.

    A problem has its `page` and `seed` in its meta. The page itself decides: the reward is its own without the part
    for speed, -1 to 1 at the end and 0 before, and the outcome that reward, no less than 0.

    Args:
        thread: of the browser.
        turns: most actions.
    """

    def __init__(self, thread: BrowserThread, turns: int) -> None:
        self._thread, self._most, self._taken = thread, turns, 0
        self._page: Any = None
        self._shown: set[str] = set()

    def reset(self, problem: Problem) -> Observation:
        """Opens the page; what it asks for is its first line.

        Raises:
            InputError: the problem names no page of MiniWoB++.
            ModelError: there is no browser.
        """
        name, seed = problem.meta.get("page"), problem.meta.get("seed")
        if not isinstance(name, str) or not isinstance(seed, int) or not page_file(name).is_file():
            what = f"problem {problem.id!r} needs 'page', one of MiniWoB++, and 'seed' in its meta"
            raise InputError(what, remedy="make problems by `stepreward generate miniwob`")
        return self._thread.call(lambda browser: self._opened(browser, name, seed))

    def act(self, action: Step) -> Observation:
        """Executes the commands of a turn; what cannot be done is told."""
        return self._thread.call(lambda _: self._acted(action))

    def close(self) -> None:
        """Closes the page."""
        page, self._page = self._page, None
        if page is not None:
            self._thread.call(lambda _: page.context.close())

    def _opened(self, browser: Any, name: str, seed: int) -> Observation:
        context = browser.new_context(
            accept_downloads=False, service_workers="block", viewport={"width": 500, "height": 320}
        )
        context.set_default_timeout(TIMEOUT * 6)
        context.route("**/*", serve_packaged)
        self._page = context.new_page()
        context.on("page", lambda other: other.close())
        self._page.clock.set_fixed_time(_NOON)
        self._page.goto(f"{HOST}miniwob/{name}.html")
        self._page.evaluate(_START, seed)
        self._page.wait_for_function("() => WOB_TASK_READY")
        return Observation.of(f"{self._tree()}\n", outcome=0.0)

    def _acted(self, action: Step) -> Observation:
        self._taken += 1
        steps = COMMANDS.executed(action, self._run)
        self._page.evaluate(_SETTLED)
        state = self._page.evaluate(_STATE)
        raw = float(state["raw"]) if state["done"] else 0.0
        tree = "The task is over." if state["done"] else self._tree()
        last = steps[-1]
        shown = (*steps[:-1], Step(f"{last.text}{tree}\n", "observation", last.role, meta=last.meta))
        over = bool(state["done"]) or self._taken >= self._most
        return Observation(shown, done=over, reward=raw, outcome=min(max(raw, 0.0), 1.0))

    def _tree(self) -> str:
        text = str(self._page.locator("body").aria_snapshot(mode="ai"))
        self._shown = set(_REF.findall(text))
        return text[:MOST_SHOWN]

    def _run(self, name: str, given: Mapping[str, Any]) -> str:
        error = optional("playwright.sync_api").Error
        element = str(given.get("element", "")).strip("[]").removeprefix("ref=")
        if "element" in given and element not in self._shown:
            return f"There is no element {element!r:.40} on the page."
        found = self._page.locator(f"aria-ref={element}")
        try:
            if name == "click":
                found.click(timeout=TIMEOUT)
            elif name == "type":
                found.fill(given["text"], timeout=TIMEOUT)
            elif name == "select":
                found.select_option(label=given["option"], timeout=TIMEOUT)
            else:
                self._page.keyboard.press(given["key"])
        except error:
            return f"{name} could not be done{f' to {element}' if element else ''}."
        return f"{name} was done."


@environment.method("web", note="the pages and rewards of the package miniwob; observations by Playwright")
def web_episodes(
    *,
    turns: Annotated[int, Flag(low=1)] = 12,
    workers: Annotated[int, Flag(low=1)] = 1,
    live: int = 16,
    browser: str = "",
) -> EpisodePool:
    """Web pages of MiniWoB++ in Chromium: click, type, select and press.

    Args:
        turns: most actions of an episode.
        workers: browsers, in threads of their own.
        live: most pages kept between actions.
        browser: path of a Chromium, if not the one that is installed.

    Raises:
        ModelError: miniwob or playwright is not installed.
    """
    folder()
    require_installed("playwright")
    threads, numbers = [BrowserThread(browser) for _ in range(workers)], count()

    def made() -> WebEpisode:
        return WebEpisode(threads[next(numbers) % workers], turns)

    return EpisodePool(made, f"web miniwob turns={turns}", live=live, concurrency=workers)
