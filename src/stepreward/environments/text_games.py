"""Text games that TextWorld makes and runs: cooking, errands in a house, treasure hunts.

A problem names its game by kind, settings and seed: the package makes the same game of them in every process, and a
file that its interpreter runs. What a game shows and scores is the interpreter's; which commands win is known exactly.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from stepreward.core.catalog import environment, generate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.optional import optional
from stepreward.core.runtime.acts import Observation
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Flag
from stepreward.environments.episode_pool import EpisodePool

Game = Literal["cooking", "household", "treasure"]
Outcome = Literal["won", "score"]
_MAKERS: Mapping[str, str] = {"cooking": "tw-cooking", "household": "tw-simple", "treasure": "tw-treasure_hunter"}
_STATUS = re.compile(r"\n>[^\n]*\Z|[ \t]+$", re.MULTILINE)
"""The prompt and the status line that an interpreter writes last, and blanks at ends of lines."""
_REQUEST = "You play a text game. Write one command a turn, alone on the last line, such as `go east`."
_LISTED = "You can: "
_LOCK = threading.Lock()
"""Held while a game is made: the package's makers share their grammars."""


def made_game(meta: Mapping[str, Any]) -> tuple[Any, Any]:
    """The game that a problem names, and the options that it is compiled with.

    Raises:
        InputError: the problem names none.
        ModelError: TextWorld is not installed.
    """
    challenges, games = optional("textworld.challenges"), optional("textworld.generator.game")
    name, settings, seed = str(meta.get("game")), meta.get("settings"), meta.get("seed")
    if name not in _MAKERS or not isinstance(settings, Mapping) or not isinstance(seed, int):
        what = "a problem needs 'game', 'settings' and 'seed' in its meta"
        raise InputError(what, remedy="make problems by `stepreward generate textworld`")
    options = games.GameOptions()
    options.seeds = seed
    return challenges.CHALLENGES[_MAKERS[name]][1](dict(settings), options), options


@generate.method("textworld", note="games of the package TextWorld; wording of the request ours")
def textworld_problems(
    key: Key,
    *,
    game: Game = "cooking",
    ingredients: Annotated[int, Flag(low=1, high=5)] = 1,
    rooms: Annotated[int, Flag(low=1, high=12)] = 1,
    level: Annotated[int, Flag(low=1, high=30)] = 1,
) -> Iterator[Problem]:
    """Makes text games; the reference is the commands of a way to win, one a line.

    Args:
        key: randomness.
        game: what is to be done: cook a meal by a cookbook, errands in a house with keys and food, find a thing.
        ingredients: of a meal.
        rooms: of a cooking game: 1, 6, 9 or 12.
        level: of a treasure hunt, from 5 rooms to 20.

    Raises:
        ModelError: TextWorld is not installed.
        ValueError: there is no such game, or not with so many rooms.
    """
    if game not in _MAKERS or rooms not in (1, 6, 9, 12):
        raise ValueError(f"expected a game of {', '.join(_MAKERS)} and 1, 6, 9 or 12 rooms, got {game} and {rooms}")
    number = 0
    while True:
        seed = key.fold("textworld", game, number).bits % 2**31
        cooking = {
            "recipe": ingredients, "take": ingredients, "go": rooms, "open": True, "cook": True, "cut": True,
            "drop": False, "recipe_seed": seed, "split": None,
        }  # fmt: skip
        house: dict[str, Any] = {"rewards": "dense", "goal": "detailed", "test": False}
        settings = {"cooking": cooking, "household": house, "treasure": {"level": level}}[game]
        meta = {"game": game, "settings": settings, "seed": seed}
        with _LOCK:
            made, _ = made_game(meta)
        way = "\n".join(made.metadata["walkthrough"])
        yield Problem(f"textworld-{game}-{key.bits:016x}-{number}", f"{made.objective}\n\n{_REQUEST}", way, meta)
        number += 1


class GameFiles:
    """Files of games that the interpreter runs, each made at its first use; may be used from any thread.

    Args:
        folder: where they stay; a temporary folder where it is empty.

    Raises:
        ModelError: TextWorld is not installed.
    """

    def __init__(self, folder: str = "") -> None:
        self._package = optional("textworld")
        if folder:
            self._folder = Path(folder)
            self._folder.mkdir(parents=True, exist_ok=True)
        else:
            self._folder = Path(tempfile.mkdtemp(prefix="stepreward-games-"))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)

    def started(self, meta: Mapping[str, Any]) -> Any:
        """A game of its own that runs from its beginning."""
        named = json.dumps(
            [meta.get("game"), meta.get("settings"), meta.get("seed"), version("textworld")], default=str
        )
        file = self._folder / f"{hashlib.blake2b(named.encode(), digest_size=12).hexdigest()}.z8"
        with _LOCK:
            if not file.exists():
                game, options = made_game(meta)
                with tempfile.TemporaryDirectory(dir=self._folder) as beside:
                    # The description of the game must be there once the file is.
                    options.path = str(Path(beside) / file.name)
                    made = Path(self._package.generator.compile_game(game, options))
                    made.with_suffix(".json").replace(file.with_suffix(".json"))
                    made.replace(file)
        wanted = dict.fromkeys(
            ("admissible_commands", "won", "lost", "score", "max_score", "intermediate_reward", "policy_commands"), True
        )
        return self._package.start(str(file), self._package.EnvInfos(feedback=True, **wanted))


class TextGameEpisode:
    """An episode of a text game; a `core.runtime.acts.Environment` that forks.

    To copy an interpreter costs as much as some seven commands. So a fork takes it along, and the episode that it left
    gives its commands again to a copy of the game's beginning once it goes on itself.

    The command is the last line of a turn that is not empty. The reward is TextWorld's: 1 where a command shortens the
    way to win, -1 where it lengthens it, 0 else. The meta of an observation has the number of commands `to_win`.

    Args:
        files: of games.
        admissible: whether observations list the commands that do something.
        outcome: whether an episode is worth 1 once it is won, or its share of the score.
        turns: most actions.
    """

    def __init__(self, files: GameFiles, admissible: bool, outcome: Outcome, turns: int) -> None:
        self._files, self._admissible, self._worth, self._most = files, admissible, outcome, turns
        self._beginning: Any = None
        """The game before the first command, which all forks share."""
        self._game: Any = None
        """The game as it is; None where a fork has it."""
        self._given: tuple[str, ...] = ()

    def reset(self, problem: Problem) -> Observation:
        """Begins an episode with the first room."""
        self._beginning = self._files.started(problem.meta)
        state = self._beginning.reset()
        text = str(state.feedback)
        # A title and the objective stand before the first room, and the prompt has the objective.
        first = text.find("-=")
        return self._shown(state, text[max(first, 0) :], done=False, reward=float("nan"))

    def act(self, action: Step) -> Observation:
        """Gives the command of a turn; what the game does not understand it says itself."""
        lines = [line.strip().removeprefix(">").strip(" `") for line in action.text.splitlines() if line.strip()]
        command = lines[-1][:200] if lines else "look"
        if self._game is None:
            self._game = self._beginning.copy()
            for one in self._given:
                self._game.step(one)
        state, _, done = self._game.step(command)
        self._given += (command,)
        over = bool(done or state.won or state.lost) or len(self._given) >= self._most
        return self._shown(state, str(state.feedback), done=over, reward=float(state.intermediate_reward))

    def fork(self) -> TextGameEpisode:
        """A copy in the same state, which takes the interpreter along."""
        made = TextGameEpisode(self._files, self._admissible, self._worth, self._most)
        made._beginning, made._given = self._beginning, self._given
        made._game, self._game = self._game, None
        return made

    def close(self) -> None:
        """Ends the interpreter; that of the beginning ends with the last fork."""
        if self._game is not None:
            self._game.close()
        self._game = self._beginning = None

    def _shown(self, state: Any, text: str, *, done: bool, reward: float) -> Observation:
        _share(state.game, state["_game_progression"])
        said = re.sub(r"\n{3,}", "\n\n", _STATUS.sub("", text)).strip()
        if self._admissible and not done:
            said += f"\n\n{_LISTED}{'; '.join(sorted(state.admissible_commands))}"
        share = state.score / state.max_score if state.max_score else 0.0
        outcome = float(bool(state.won)) if self._worth == "won" else min(max(float(share), 0.0), 1.0)
        left = None if state.policy_commands is None or state.lost else len(state.policy_commands)
        return Observation.of(f"{said}\n", done=done, reward=reward, outcome=outcome, meta={"to_win": left})


def wanderer(problem: Problem, prefix: tuple[Step, ...]) -> list[tuple[Step, float, bool]]:
    """A table for `policies.tabular.TabularPolicy`: an agent that gives each listed command equally often.

    Args:
        problem: a game.
        prefix: of an episode whose observations list commands.
    """
    shown = next(step.text for step in reversed(prefix) if step.kind == "observation")
    commands = shown.rpartition(_LISTED)[2].strip().split("; ")
    return [(Step(f"{one}\n"), 1 / len(commands), True) for one in commands]


def _share(*parts: Any) -> None:
    """Lets copies of a state have these parts in common: a copy of an interpreter makes its own of what changes."""
    for part in parts:
        part.__dict__["__deepcopy__"] = lambda _, part=part: part


@environment.method("textworld", note="the games and rewards of the package TextWorld")
def textworld_episodes(
    *,
    admissible: bool = True,
    outcome: Outcome = "won",
    turns: Annotated[int, Flag(low=1)] = 50,
    live: int = 64,
    folder: str = "",
) -> EpisodePool:
    """Text games of TextWorld: one command a turn.

    Args:
        admissible: whether each observation lists the commands that do something.
        outcome: `won` is 1 once the game is won; `score` is the share of its points.
        turns: most actions of an episode.
        live: most games kept between actions.
        folder: where games stay for the next run; a temporary one if not given.

    Raises:
        InputError: there is no such outcome.
        ModelError: TextWorld is not installed.
    """
    if outcome not in ("won", "score"):
        raise InputError(f"there is no outcome {outcome!r}", remedy="take won or score")
    files = GameFiles(folder)
    name = f"textworld {version('textworld')} outcome={outcome} turns={turns}" + ("" if admissible else " no commands")
    return EpisodePool(partial(TextGameEpisode, files, admissible, outcome, turns), name, live=live)
