"""Games of TextWorld as they come, on the command line and in Python (`make worlds`)."""

from __future__ import annotations

import json
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.core.catalog import environment, generate
from stepreward.core.errors import EpisodeError, InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.environments.text_games import GameFiles, TextGameEpisode
from stepreward.testing import check_environment
from tests.environments.episodes import require_forks_equal_replays, require_resumes, shown_along
from tests.environments.scripted_server import serving

pytest.importorskip("textworld")


@cache
def problem() -> Problem:
    return next(generate["textworld"](Key.seed(0), game="treasure", level=3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("games"))


def way(game: Problem) -> list[str]:
    return (game.reference or "").splitlines()


@pytest.mark.parametrize("game", ["cooking", "household", "treasure"])
def test_the_reference_wins_and_every_command_of_a_way_shortens_it(game: str, folder: str) -> None:
    (made,) = islice(generate["textworld"](Key.seed(1), game=game), 1)
    seen = shown_along(environment_at(f"textworld?folder={folder}"), made, way(made))
    assert seen[-1].done
    assert seen[-1].outcome == 1.0
    assert all(one.outcome == 0.0 for one in seen[:-1])
    left = [one.steps[0].meta["to_win"] for one in seen]
    # Looking and reading are part of the cookbook's way, and of no shortest one.
    for before, after, one in zip(left, left[1:], seen[1:], strict=False):
        assert one.reward == np.sign(before - after) or one.done
    assert "You can: " in seen[0].steps[0].text
    assert all(f"{command};" in f"{one.steps[0].text.strip()};" for command, one in zip(way(made), seen, strict=False))
    assert "$$" not in seen[0].steps[0].text


def test_equal_keys_make_equal_games(folder: str) -> None:
    again = next(generate["textworld"](Key.seed(0), game="treasure", level=3))
    assert again == problem()
    assert again.meta == problem().meta
    first, other = (shown_along(environment_at("textworld"), problem(), way(problem())) for _ in range(2))
    assert (
        repr(first) == repr(other) == repr(shown_along(environment_at(f"textworld?folder={folder}"), again, way(again)))
    )


def test_the_share_of_the_score_is_an_outcome(folder: str) -> None:
    made = next(generate["textworld"](Key.seed(1), game="household"))
    seen = shown_along(environment_at(f"textworld?folder={folder}&outcome=score&admissible=false"), made, way(made))
    outcomes = [one.outcome for one in seen]
    assert outcomes == sorted(outcomes)
    assert (outcomes[0], outcomes[-1]) == (0.0, 1.0)
    assert 0 < outcomes[len(outcomes) // 2] < 1
    assert "You can: " not in seen[0].steps[0].text


def test_the_contract_holds_and_forks_equal_replays(folder: str) -> None:
    make = partial(TextGameEpisode, GameFiles(folder), True, "won", 6)
    actions = way(problem())
    check_environment(make, problem(), ["look", "dance", *actions])
    require_forks_equal_replays(make, problem(), [["look", *actions], ["look", "inventory"], actions])


def test_a_killed_run_goes_on_in_the_middle_of_an_episode(folder: str, tmp_path: Path) -> None:
    actions = ["look", "inventory", "go east", "go north"]
    require_resumes(lambda: environment_at(f"textworld?folder={folder}&turns=3"), problem(), actions, tmp_path)  # type: ignore[arg-type,return-value]


def test_nonsense_is_answered_by_the_game_and_the_last_line_is_the_command(folder: str) -> None:
    episode = TextGameEpisode(GameFiles(folder), False, "won", 50)
    start = episode.reset(problem())
    assert "not a verb" in episode.act(Step("xyzzy plugh")).steps[0].text
    assert "carrying" in episode.act(Step("I see what I have.\n\n> inventory\n")).steps[0].text
    assert episode.act(Step("")).steps[0].text.split("\n")[0] == start.steps[0].text.split("\n")[0]
    episode.close()


def test_what_is_no_game_is_refused() -> None:
    with pytest.raises(EpisodeError, match="needs 'game', 'settings' and 'seed'"):
        environment_at("textworld").act_many([Act(Problem("p", "Play."), ())])
    with pytest.raises(InputError, match="no outcome 'lost'"):
        environment["textworld"](outcome="lost")
    with pytest.raises(ValueError, match="1, 6, 9 or 12 rooms"):
        next(generate["textworld"](Key.seed(0), rooms=2))


def test_label_and_search_on_the_command_line(folder: str, tmp_path: Path) -> None:
    """A scripted model takes the winning way at odd seeds: the values of its steps are 1 there, and 0 else."""
    commands = way(problem())
    row = {"id": problem().id, "prompt": problem().text, "reference": problem().reference, **problem().meta}
    (tmp_path / "games.jsonl").write_text(json.dumps(row) + "\n")

    def player(messages: list[dict[str, Any]], seed: int) -> str:
        said = [message["content"].strip() for message in messages if message["role"] == "assistant"]
        right = said == commands[: len(said)] and (seed % 2 or said)
        return commands[len(said)] if right else "look"

    where = ["--problems", str(tmp_path / "games.jsonl"), "--environment", f"textworld?folder={folder}&turns=4"]
    with serving(player) as (address, bodies):
        made = CliRunner().invoke(
            app,
            ["label", *where, "--policy", address, "--samples", "4", "--rollouts", "2", "--json",
             "--out", str(tmp_path / "labels")],
        )  # fmt: skip
        assert made.exit_code == 0, made.output
        found = CliRunner().invoke(
            app, ["search", *where, "--policy", address, "--method", "majority", "--samples", "3",
                  "--out", str(tmp_path / "found.jsonl")],
        )  # fmt: skip
        assert found.exit_code == 0, found.output
    assert "-=" in bodies[0]["messages"][0]["content"]
    rows = [*stepreward.read(json.loads(made.stdout)["labels"])]
    assert {row.outcome for row in rows} == {0.0, 1.0}
    for one in rows:
        values = one.columns["value"][one.action]
        assert (values == one.outcome).all()
