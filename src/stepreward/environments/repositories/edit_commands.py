"""What an agent may do in a repository."""

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
