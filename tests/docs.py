"""The code blocks of the documentation, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a page that are in a language."""
    return [code for kind, code in _BLOCK.findall(path.read_text(encoding="utf-8")) if kind == language]


def lines_of(path: Path) -> list[list[str]]:
    """The command lines of a page in words: those of its blocks, and for the README those in its text."""
    lines = [line.removeprefix("$ ") for code in blocks(path, "console") for line in code.splitlines()
             if line.startswith("$ ")]  # fmt: skip
    prose = re.findall(r"`(stepreward [a-z][^`]*)`", path.read_text(encoding="utf-8")) if path == README else []
    return [shlex.split(line, comments=True) for line in [*lines, *prose]]


def commands_of(path: Path) -> list[list[str]]:
    """The same, of stepreward alone."""
    return [words for words in lines_of(path) if words[0] == "stepreward"]
