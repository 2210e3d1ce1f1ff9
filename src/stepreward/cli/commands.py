"""The group of commands: each is imported when it is called, so that help and light commands start at once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command as built

from stepreward.cli.flags.config_file import with_config
from stepreward.cli.flags.from_dataclasses import with_flags
from stepreward.core.on_demand import on_demand

if TYPE_CHECKING:
    from stepreward.cli.blame import blame as blame
    from stepreward.cli.convert import convert as convert
    from stepreward.cli.doctor.command import doctor as doctor
    from stepreward.cli.evaluate import evaluate as evaluate
    from stepreward.cli.export import export as export
    from stepreward.cli.generate import generate as generate
    from stepreward.cli.interventions import interventions as interventions
    from stepreward.cli.label import label as label
    from stepreward.cli.methods import methods as methods
    from stepreward.cli.monitor import monitor as monitor
    from stepreward.cli.pairs import pairs as pairs
    from stepreward.cli.relabel import relabel as relabel
    from stepreward.cli.rl import rl as rl
    from stepreward.cli.rounds import rounds as rounds
    from stepreward.cli.run import run as run
    from stepreward.cli.score import score as score
    from stepreward.cli.search import search as search
    from stepreward.cli.serve import serve as serve
    from stepreward.cli.train import train as train
    from stepreward.cli.two_agents import compare as compare
    from stepreward.cli.view import view as view

_imported = on_demand(__file__)
if not TYPE_CHECKING:  # a type checker then refuses names that are not above
    __getattr__ = _imported

COMMANDS = {
    "run": "Sample, label, train, score, search, evaluate and report, in one folder that resumes after a kill.",
    "label": (
        "Label steps of solutions by rollouts, tests or checkers; writes labels.parquet into OUT, resumes after a kill."
    ),
    "relabel": (
        "Make labels of measured values or scores anew, and keep the solutions that teach most; no policy is called."
    ),
    "train": "Train a step reward model on whole trees; writes a checkpoint that `score` and `stepreward.load` read.",
    "export": "Write a reward model for transformers, TRL, vLLM or SGLang, in a folder or onto the hub, with a card.",
    "score": 'Score the steps of solutions; one JSON line {"scores": [...], ...} a row, {"error": ...} for a bad row.',
    "search": "Search for solutions; a row of the table for each candidate, with the bill in that of the chosen one.",
    "evaluate": (
        "Measure step scores: first-error F1, AUROC and calibration; selection where problems have several solutions."
    ),
    "compare": (
        "Compare two agents on the same problems: success, step scores, actions, tokens, cost, with paired intervals."
    ),
    "monitor": "Watch agents: after each turn continue, warn or stop, at a stated rate of false alarms.",
    "blame": "Say which agent lost a trace and at which turn, and what each agent's turns are worth.",
    "interventions": "Say when a search asks a stronger policy: a table by dynamic programming, within a budget.",
    "rounds": "Train in rounds, each on what the model before found or labelled; shows a held-out curve, and resumes.",
    "rl": (
        "Train the policy with TRL under several step credits and compare their learning curves; needs the extra `trl`."
    ),
    "serve": "Serve step scores and guided answers over HTTP, for the clients of OpenAI, vLLM and SGLang.",
    "generate": "Write problems with exact truth, as many as wanted; `label`, `search` and `rounds` read them.",
    "convert": "Convert data between formats, streaming; says by which evidence it chose the format of the source.",
    "pairs": "Write preference data: pairs of a better and a worse step or solution, out of labelled or graded ones.",
    "view": "Print the address of a run's report; it is one file that opens offline.",
    "methods": "List every method with its family, paper, data and settings.",
    "doctor": "Check the installation, or what servers can do, and say what to do about what is missing.",
}
"""Every command and its line of help."""


RESUMED = frozenset({"run", "label", "train", "search", "rounds", "rl"})
"""Commands that go on where they were interrupted."""


class LazyGroup(TyperGroup):
    """Lists commands by the table alone, and imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Stand-ins with a name and a line of help, so that `--help` imports no command.
        for name, line in COMMANDS.items():
            self.add_command(TyperCommand(name, help=line))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments call, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and command_of(str(command.name)), rest


@cache
def command_of(name: str) -> Any:
    """The command of a name of the table, with its flags.

    Raises:
        ModelError: an extra that it needs is not installed.
    """
    one = typer.Typer(add_completion=False)
    function = _imported(name)
    one.command(name)(with_config(with_flags(function), name, COMMANDS))
    return built(one)
