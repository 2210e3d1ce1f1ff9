"""What an agent may do in a repository, and the edit that makes one text of another."""

from __future__ import annotations

from stepreward.environments.given_commands import Command, CommandSet

COMMANDS = CommandSet(
    [
        Command("view", "Shows a file, its lines numbered.", {"path": "string"}),
        Command("search", "Shows the lines of all files that have a text.", {"text": "string"}),
        Command(
            "edit", "Puts a new text in the place of an old one that stands once in a file; give it as JSON.",
            {"path": "string", "old": "string", "new": "string"},
        ),
        Command("test", "Runs the tests."),
        Command("submit", "Ends the work; the tests decide."),
    ]
)  # fmt: skip


def edit_between(path: str, before: str, after: str) -> dict[str, str]:
    """The smallest edit of whole lines that mends the first line in which a module differs from another of its length.

    The old text stands once in the module.
    """
    old, new = before.splitlines(), after.splitlines()
    at = next(i for i, (one, other) in enumerate(zip(old, new, strict=True)) if one != other)
    first = at
    while before.count("\n".join(old[first : at + 1]) + "\n") > 1:
        first -= 1
    return {"path": path, "old": "\n".join(old[first : at + 1]) + "\n", "new": "\n".join(new[first : at + 1]) + "\n"}
