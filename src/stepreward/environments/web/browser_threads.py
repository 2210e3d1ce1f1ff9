"""Browsers in threads of their own: Playwright's objects belong to the thread that made them."""

from __future__ import annotations

import os
import queue
import shutil
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from stepreward.core.errors import ModelError
from stepreward.core.optional import optional

T = TypeVar("T")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = [
    # No name is resolved: whatever a page asks for beyond the packaged files is nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-sync", "--disable-gpu",
    "--disable-quic", "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
]  # fmt: skip
_END = 10.0
"""Seconds that a thread has to end its browser."""


class BrowserThread:
    """One browser, started at its first use, and the thread that everything done with it runs in.

    Args:
        path: of a Chromium; the system's or Playwright's own where it is empty.
    """

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[Any], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs, path), daemon=True, name="browser")
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, _end, self._jobs, self._thread)
        """Ends the browser; also done when the process ends."""

    def call(self, do: Callable[[Any], T]) -> T:
        """What a function of the browser returns; it runs in the browser's thread, one after another.

        Raises:
            ModelError: there is no browser, it does not start, or it was closed.
        """
        if not self.close.alive:
            raise ModelError("the browser was closed: make another environment")
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()
        answer: Future[T] = Future()
        self._jobs.put((answer, do))
        return answer.result()


def _end(jobs: queue.SimpleQueue[Any], thread: threading.Thread) -> None:
    jobs.put(None)
    if thread.ident is not None:
        thread.join(_END)


def _work(jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[Any], Any]] | None], path: str) -> None:
    """Does jobs until the end, with a browser that the first one starts."""
    engine = browser = None
    try:
        while (job := jobs.get()) is not None:
            answer, do = job
            try:
                if browser is None or not browser.is_connected():
                    if engine is None:
                        engine = optional("playwright.sync_api").sync_playwright().start()
                    browser = _launched(engine, path)
                answer.set_result(do(browser))
            except BaseException as error:  # It is raised where the answer is waited for.
                answer.set_exception(error)
    finally:
        if browser is not None:
            browser.close()
        if engine is not None:
            engine.stop()


def _launched(engine: Any, path: str) -> Any:
    found = path or next((one for name in BROWSERS if (one := shutil.which(name))), "")
    found = found or engine.chromium.executable_path
    if not Path(found).exists():
        raise ModelError(
            "no Chromium was found: install one, run `playwright install chromium`, or name it by browser="
        )
    # Chromium's own sandbox refuses root.
    return engine.chromium.launch(executable_path=found, args=_FLAGS, chromium_sandbox=os.getuid() != 0)
