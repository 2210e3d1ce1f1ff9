"""The table of missing rewards: TRL's own trainers beside our methods, and the page that shows it."""

from __future__ import annotations

import pytest

pytest.importorskip("trl")
from benchmarks.missing_rewards import CASES, FIRST, LIMIT, PAGE, main, page


def test_every_method_of_trl_gives_what_trl_gives_and_the_page_says_so() -> None:
    found = main()
    assert {row["method"] for row in found["rows"]} == {"grpo", "lite-ppo", "dr-grpo", "gdpo", "rloo"}
    assert len(found["rows"]) == 2 * len(CASES)
    for row in found["rows"]:
        assert row["difference"] < LIMIT, row["method"]
        assert any(row["ours"])
        if row["functions"] == 1:
            assert [value for value, given in zip(row["ours"], FIRST, strict=True) if given is None] == [
                0.0
            ] * FIRST.count(None)
    written = PAGE.read_text(encoding="utf-8")
    assert page(found).partition("## ")[2] == written.partition("## ")[2]
