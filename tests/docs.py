"""The code blocks of the documentation, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^(?:<!-- needs (\S+) -->\n)?```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a page that are in a language, without those that need a newer package than is here."""
    found = _BLOCK.findall(path.read_text(encoding="utf-8"))
    return [code for needs, kind, code in found if kind == language and (not needs or _is_here(needs))]


def _is_here(needs: str) -> bool:
    wanted = Requirement(needs)
    return wanted.specifier.contains(version(wanted.name), prereleases=True)


def lines_of(path: Path) -> list[list[str]]:
    """The command lines of a page in words: those of its blocks, and for the README those in its text."""
    lines = [line.removeprefix("$ ") for code in blocks(path, "console") for line in code.splitlines()
             if line.startswith("$ ")]  # fmt: skip
    prose = re.findall(r"`(stepreward [a-z][^`]*)`", path.read_text(encoding="utf-8")) if path == README else []
    return [shlex.split(line, comments=True) for line in [*lines, *prose]]


def commands_of(path: Path) -> list[list[str]]:
    """The same, of stepreward alone."""
    return [words for words in lines_of(path) if words[0] == "stepreward"]
