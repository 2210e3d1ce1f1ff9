"""What a page that a benchmark writes must say."""

from __future__ import annotations


def assert_page(page: str, *lines: str) -> None:
    """Checks that a page has each of some lines once, and no place that was left to be filled."""
    counts = {line: page.count(line) for line in lines if page.count(line) != 1}
    assert not counts, f"on the page not once: {counts}"
    assert "{" not in page
