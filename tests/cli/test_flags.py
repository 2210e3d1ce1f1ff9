"""Flags made from dataclasses: names, types, ranges, defaults and help come from the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from stepreward.cli.app import app as cli
from stepreward.cli.commands import COMMANDS, command_of
from stepreward.cli.flags.from_dataclasses import field_docstrings, with_flags
from stepreward.core.catalog import Family
from stepreward.core.errors import InputError
from stepreward.core.vocabulary import Count, Flag
from stepreward.pipeline.learning import ReinforceSettings
from stepreward.pipeline.run_settings import RunSettings
from stepreward.train.settings import TrainSettings
from tests.cli.running import invoke


@dataclass(frozen=True)
class Kitchen:
    """What is cooked."""

    cups: Count = 2
    """Cups of
    tea."""
    sweets: Annotated[tuple[str, ...], Flag("--sweet", choices=["honey", "sugar"])] = ("honey",)
    """Any of {choices}."""
    pot: Literal["small", "large"] = "small"
    """Size {of} the pot."""
    notes: Annotated[Mapping[str, Any], Flag(hidden=True)] = field(default_factory=dict)
    milk: bool = False
    heat: float | None = None

    def __post_init__(self) -> None:
        if self.cups > 9:
            raise ValueError(f"the pot holds 9 cups, got {self.cups}")


def cook(
    *,
    out: Annotated[Path, typer.Option()],
    kitchen: Kitchen,
    json_output: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Cooks."""
    typer.echo(f"{out} {kitchen.cups} {kitchen.sweets} {kitchen.pot} {kitchen.milk} {kitchen.heat} {json_output}")


def brew(*, cups: int = 1) -> None:
    """Makes a drink."""


DRINKS = Family("drink", "", "")
DRINKS.method("tea", note="here")(brew)
DRINKS.method("coffee", note="here", unverified="its paper")(brew)


@dataclass(frozen=True)
class Order:
    """What is poured."""

    drink: Annotated[str, Flag(choices=DRINKS)] = "tea"
    """One of {choices}."""


def pour(*, order: Order) -> None:
    """Pours."""


def run(*words: str) -> Any:
    app = typer.Typer()
    app.command()(with_flags(cook))
    return CliRunner().invoke(app, [*words])


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("--out o", "o 2 ('honey',) small False None False"),
        ("--out o --cups 3 --json --milk --heat 0.5", "o 3 ('honey',) small True 0.5 True"),
        ("--out o --sweet sugar --sweet salt --pot large", "o 2 ('sugar', 'salt') large False None False"),
    ],
)
def test_flags_fill_the_dataclass_and_defaults_are_those_of_its_fields(words: str, printed: str) -> None:
    assert run(*words.split()).stdout.strip() == printed


@pytest.mark.parametrize(
    "words", ["", "--out o --cups 0", "--out o --pot huge", "--out o --notes x", "--out o --sweets x"]
)
def test_what_no_field_allows_is_a_usage_error(words: str) -> None:
    assert run(*words.split()).exit_code == 2


def test_what_the_dataclass_refuses_is_an_error_about_input() -> None:
    error = run("--out", "o", "--cups", "10").exception
    assert isinstance(error, InputError)
    assert str(error) == "the pot holds 9 cups, got 10; see `stepreward cook --help`"


def test_help_is_the_docstring_with_its_choices() -> None:
    shown = " ".join(run("--help").stdout.replace("│", " ").split())
    for text in ("Cups of tea.", "Any of honey, sugar.", "Size {of} the pot.", "[default: 2]", "--no-milk"):
        assert text in shown, text


def test_the_choices_of_a_family_are_its_methods_as_they_are_listed() -> None:
    app = typer.Typer()
    app.command()(with_flags(pour))
    assert "One of tea, coffee (unverified)." in " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())


def test_docstrings_of_inherited_fields_are_found_and_the_nearest_one_counts() -> None:
    @dataclass(frozen=True)
    class Small(Kitchen):
        pot: Literal["small", "large"] = "small"
        """Another."""

    assert field_docstrings(Small) == {"cups": "Cups of tea.", "sweets": "Any of {choices}.", "pot": "Another."}


def test_two_flags_of_one_name_are_refused() -> None:
    def both(*, cups: int = 1, kitchen: Kitchen) -> None:
        """Names the cups twice."""

    with pytest.raises(ValueError, match="duplicate parameter name: 'cups'"):
        with_flags(both)


@pytest.mark.parametrize(
    ("command", "settings"), [("run", RunSettings), ("rl", ReinforceSettings), ("train", TrainSettings)]
)
def test_every_setting_is_a_flag_with_help_and_the_default_of_python(command: str, settings: Any) -> None:
    flags = {flag.opts[0]: flag for flag in command_of(command).params}
    for one in fields(settings):
        if one.name not in ("objective_settings", "domain_settings", "mix", "domain_weights"):  # Flags of name=value.
            flag = flags["--credit" if one.name == "credits" else "--" + one.name.replace("_", "-")]
            default = getattr(settings(), one.name)
            assert len(flag.help) > 10
            # No value of a flag that may be repeated is None to the command.
            assert flag.default == ((list(default) or None) if isinstance(default, tuple) else default)


OTHERWISE = {("train", "--device"), ("rounds", "--device"), ("convert", "--format"), ("export", "--dtype")}
"""Training takes an accelerator without its number; a conversion has a source; an export keeps the saved numbers."""


SHARED = """--format --read --strict --like --record --calibrator --answers --device --dtype --combine --doubt
--cache-memory --top-k --min-p --reasoning-effort --chat-template-kwargs --body --expert --judge --json --config"""


@pytest.mark.parametrize("flag", SHARED.split())
def test_a_flag_that_commands_share_has_one_help(flag: str) -> None:
    of = {name: one for name in COMMANDS for one in command_of(name).params if one.opts[0] == flag}
    assert len({(one.help, str(one.default)) for name, one in of.items() if (name, flag) not in OTHERWISE}) == 1
    assert len(of) > 1


@pytest.mark.parametrize("command", ["label", "score", "search", "evaluate", "train", "convert"])
def test_every_verb_reads_data(command: str) -> None:
    assert "--data" in {flag for one in command_of(command).params for flag in one.opts}


def test_convert_takes_files_as_arguments_or_as_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"prompt": "1 + 1?", "completions": ["1 + 1 = 2"], "labels": [true]}\n')
    by_argument, by_flag = invoke("convert rows.jsonl a.jsonl"), invoke("convert --data rows.jsonl --out b.jsonl")
    assert by_argument == by_flag.replace("b.jsonl", "a.jsonl")
    assert Path("a.jsonl").read_text() == Path("b.jsonl").read_text() != ""
    with pytest.raises(InputError, match="--data and an argument both name a file; drop one of them"):
        CliRunner().invoke(cli, ["convert", "rows.jsonl", "c.jsonl", "--data", "rows.jsonl"], catch_exceptions=False)
    with pytest.raises(InputError, match="a file to read and one to write are needed"):
        CliRunner().invoke(cli, ["convert", "--data", "rows.jsonl"], catch_exceptions=False)
