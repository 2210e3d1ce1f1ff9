"""The report in a browser: fits, can be read, can be explored, asks for nothing, and shows hostile text as text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile_report as made
import pytest
from tests.effort import THOROUGH

from stepreward.report.page import write

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the dev extra")
pytestmark = pytest.mark.xdist_group("browser")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]

# Paints every background below an element on one pixel, then its text colour: the browser's own blending, any syntax.
CONTRASTS = """
() => {
  const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (colour) => { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); };
  const light = () => {
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const own = (node) => [...node.childNodes].some((c) => c.nodeType === Node.TEXT_NODE && c.textContent.trim());
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    if (!own(node) || node.closest("script, style, title") || !node.getClientRects().length) continue;
    const chain = [];
    for (let up = node; up; up = up.parentElement) chain.unshift(getComputedStyle(up).backgroundColor);
    paint("white");
    chain.forEach(paint);
    const below = light(), style = getComputedStyle(node);
    paint(node.closest("svg") ? style.fill : style.color);
    const above = light();
    const ratio = (Math.max(above, below) + 0.05) / (Math.min(above, below) + 0.05);
    found.push([ratio, `${node.tagName}.${node.getAttribute("class")}: ${node.textContent.trim().slice(0, 40)}`]);
  }
  return found;
}
"""
TOO_WIDE = """
() => [...document.querySelectorAll("body *")]
  .filter((node) => !node.closest("svg, .sheet table, script") && node.getBoundingClientRect().right > innerWidth + 0.5)
  .map((node) => `${node.tagName}.${node.className}`)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with playwright.sync_playwright() as engine:
        path = path or engine.chromium.executable_path
        if not Path(path).exists():
            pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed, nor playwright's own")
        running = engine.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(made.page(), tmp_path_factory.mktemp("report") / "report.html")


VIEWS = [(1200, "light"), (480, "dark"), (1200, "dark"), (480, "light")]


@pytest.fixture(params=VIEWS[: 4 if THOROUGH else 2], ids=lambda p: f"{p[0]}-{p[1]}")
def view(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Any]:
    """The report, open; nothing that a test does with it may be complained of or leave the file."""
    width, theme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert complaints == []
    assert requests == [report.as_uri()]


def test_nothing_is_wider_than_the_page(view: Any) -> None:
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert view.evaluate(TOO_WIDE) == []


def test_all_text_has_contrast(view: Any) -> None:
    view.locator(".row .step").last.click()
    for button in view.locator("[data-by]").all():
        button.click()
        ratios = view.evaluate(CONTRASTS)
        assert len(ratios) > 100
        assert [(ratio, what) for ratio, what in ratios if ratio < 4.5] == []


def test_the_theme_is_the_readers(view: Any) -> None:
    dark = view.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    red = int(view.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
    assert (red < 60) if dark else (red > 230)


def test_hostile_text_is_shown_and_not_run(view: Any) -> None:
    shown = view.locator(".step").all_text_contents()
    assert made.SCRIPT in shown
    assert made.IMAGE in shown
    assert made.SCRIPT in view.locator(".prompt").inner_text()
    assert made.IMAGE in view.locator("dd").all_text_contents()
    assert any(made.IMAGE in cell for cell in view.locator("td").all_text_contents())
    view.locator(".row .step", has_text="onerror").click()
    assert made.IMAGE in view.locator(".panel").inner_text()
    assert view.evaluate("window.hacked") is None
    assert view.evaluate("document.images.length + document.querySelectorAll('iframe, object, link').length") == 0
    assert view.evaluate("document.scripts.length") == 1


def test_a_selected_step_shows_its_path_and_its_numbers(view: Any) -> None:
    panel = view.locator(".panel")
    assert "Select a step" in panel.inner_text()
    end = view.locator(".row .step", has_text="Answer: 13")
    end.click()
    path = [text.split(". ", 1)[1] for text in panel.locator(".step").all_text_contents()]
    assert path == [text.strip() for text in made.STEPS["wrong"]]
    node = made.tree().ends[2]
    assert f"score {made.tree().column('score')[node]:.2f}" in panel.locator("li").last.inner_text()
    assert "wrong" in panel.locator("li").last.inner_text()
    assert view.locator(".row.on").count() == 4
    assert end.get_attribute("aria-pressed") == "true"
    box = panel.bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 900 + 1
    view.locator(".row .step", has_text="onerror").click()
    assert panel.locator("li").count() == 2, "steps after the selected one are not on its path"
    view.locator(".row .step", has_text="Answer: 14").click()
    assert view.locator(".row.on").count() == 2
    assert end.get_attribute("aria-pressed") == "false"


def test_branches_fold_by_mouse_and_by_keyboard(view: Any) -> None:
    inner = view.locator(".row .step", has_text="Answer: 13")
    twist = view.locator(".twist")
    assert inner.is_visible()
    twist.click()
    assert not inner.is_visible()
    assert twist.get_attribute("aria-expanded") == "false"
    twist.focus()
    view.keyboard.press("Enter")
    assert inner.is_visible()
    view.get_by_role("button", name="fold", exact=True).click()
    assert not inner.is_visible()
    view.get_by_role("button", name="unfold").click()
    assert inner.is_visible()


def test_another_column_colours_the_steps(view: Any) -> None:
    colours = "[...document.querySelectorAll('.tree .row .step')].map((s) => getComputedStyle(s).borderLeftColor)"
    by_score = view.evaluate(colours)
    assert len(set(by_score)) == len(by_score)
    buttons = view.locator("[data-by]")
    assert buttons.all_text_contents() == ["score", "truth"]
    buttons.nth(1).click()
    # Truth is 1 at even nodes and not measured at odd ones: two colours.
    assert len(set(view.evaluate(colours))) == 2
    buttons.first.click()
    assert view.evaluate(colours) == by_score


def test_the_page_can_be_read_without_scripts(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".row .step", has_text="Answer: 13").is_visible()
    context.close()
