"""An agent for web pages that tries what is there by chance: no model, for measurements."""

from __future__ import annotations

import json
import re

from stepreward.core.types import Problem, Step

_ELEMENT = re.compile(r'^\s*- (\w+)(?: "((?:[^"\\]|\\.)*)")?[^\n]*? \[ref=(\w+)\]', re.MULTILINE)
_OPTION = re.compile(r'^\s*- option "((?:[^"\\]|\\.)*)"', re.MULTILINE)
_SAID = re.compile(r"\]: (.*)")
"""A text on the page; the first one is the request."""
_QUOTED = re.compile(r'"([^"]*)"')
_PLAIN = ("generic", "paragraph", "list", "dialog", "group", "heading", "table", "row", "document", "main")
"""Roles of elements that only hold others or text."""


def clicker(problem: Problem, prefix: tuple[Step, ...]) -> list[tuple[Step, float, bool]]:
    """A table for `policies.tabular.TabularPolicy`: an agent that does each of what a page offers equally often.

    It clicks an element, types one of the texts that the request has in quotes, or selects an option. A turn names the
    element before the command. What was done already is not done again at once.

    Args:
        problem: a page.
        prefix: of an episode.
    """
    page = next(step.text for step in reversed(prefix) if step.kind == "observation")
    request = _SAID.search(prefix[0].text)
    texts = _QUOTED.findall(request[1]) if request else []
    last = next((step.text for step in reversed(prefix) if step.kind == "action"), "")
    turns: list[str] = []
    for role, name, ref in _ELEMENT.findall(page):
        said = f"{role} {json.dumps(name)}" if name else role
        if role == "textbox":
            turns += [f"{said}\ntype {ref} {text}\n" for text in texts if text]
        if role == "combobox":
            turns += [f"{said}\nselect {ref} {option}\n" for option in _OPTION.findall(page)]
        elif role not in _PLAIN:
            turns.append(f"{said}\nclick {ref}\n")
    turns = [one for one in dict.fromkeys(turns) if one != last] or ["Nothing is there.\npress Tab\n"]
    return [(Step(one), 1 / len(turns), True) for one in turns]
