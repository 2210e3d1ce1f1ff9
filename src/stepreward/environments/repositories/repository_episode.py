"""The environment `repository`: an agent reads and edits the files of a repository until its tests pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from stepreward.core.catalog import environment
from stepreward.core.errors import InputError
from stepreward.core.runtime.acts import Observation
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Flag
from stepreward.environments.episode_pool import EpisodePool
from stepreward.environments.repositories.checked_files import CheckedFiles, Files, is_test
from stepreward.environments.repositories.edit_commands import COMMANDS

LONGEST_FILE, LONGEST_VIEW, MOST_FOUND = 100_000, 20_000, 50
"""Characters of a file that an edit may leave, and that are shown; lines that a search shows."""


class RepositoryEpisode:
    """An episode of edits; a `core.runtime.acts.Environment` that forks by its files.

    A problem has its `files`, texts by path, in its meta; those under `tests/` are the tests. The outcome is whether
    all of them pass, the reward by how much their share has grown. What the reward rule `diagnostics` reads is in the
    meta of observations: `diagnostics`, the number in all files; behind an edit `safe`, 1 where it was made, and
    `confidence`, 1 where its place was found: the old text stands in the file exactly once.

    Args:
        check: runs tests and linter.
        turns: most actions.
    """

    def __init__(self, check: CheckedFiles, turns: int) -> None:
        self._check, self._most, self._taken = check, turns, 0
        self._files: Files = {}
        self._share = 0.0
        self._over = False
        self._edit: dict[str, float] = {}

    def reset(self, problem: Problem) -> Observation:
        """Begins an episode with the list of files.

        Raises:
            InputError: the problem has no files, or no tests.
        """
        files = problem.meta.get("files")
        whole = isinstance(files, Mapping) and all(isinstance(part, str) for pair in files.items() for part in pair)
        if not isinstance(files, Mapping) or not whole or not any(map(is_test, files)):
            what = f"problem {problem.id!r} needs 'files' in its meta: texts by path, tests under tests/"
            raise InputError(what, remedy="make problems by `stepreward generate repositories`")
        self._files = dict(files)
        self._share = self._tests_share()
        listed = "\n".join(f"{path} ({text.count(chr(10))} lines)" for path, text in self._files.items())
        shown = Step(f"{listed}\n", "observation", "user", meta=self._measured())
        return Observation((shown,), outcome=self._outcome())

    def act(self, action: Step) -> Observation:
        """Executes the commands of a turn; one that cannot be read or done is told so."""
        self._taken += 1
        self._edit = {}
        before = self._share
        steps = COMMANDS.executed(action, self._run)
        self._share = self._tests_share()
        meta = {**self._measured(), **self._edit}
        steps = (*steps[:-1], replace(steps[-1], meta={**steps[-1].meta, **meta}))
        done = self._over or self._taken >= self._most
        return Observation(steps, done=done, reward=self._share - before, outcome=self._outcome())

    def fork(self) -> RepositoryEpisode:
        """A copy; files are replaced as a whole by an edit."""
        made = RepositoryEpisode(self._check, self._most)
        made._taken, made._files, made._share, made._over = self._taken, self._files, self._share, self._over
        return made

    def close(self) -> None:
        """Nothing runs between actions."""

    def _tests_share(self) -> float:
        result = self._check.tested(self._files)
        return result.passed / result.total if result.total else 0.0

    def _outcome(self) -> float:
        return float(self._share == 1.0)

    def _measured(self) -> dict[str, Any]:
        if not self._check.lints:
            return {}
        return {"diagnostics": sum(map(len, self._check.diagnostics(self._files).values()))}

    def _run(self, name: str, given: Mapping[str, Any]) -> str:
        if self._over:
            return "The work was submitted before."
        if name == "view":
            return self._view(given["path"])
        if name == "search":
            return self._search(given["text"])
        if name == "edit":
            return self._edited(**given)
        result = self._check.tested(self._files)
        self._over = name == "submit"
        return f"{result.passed} of {result.total} tests pass.{result.told and chr(10)}{result.told}"

    def _view(self, path: str) -> str:
        if path not in self._files:
            return f"There is no file {path!r:.200}; there are {', '.join(self._files)}"
        lines = self._files[path].splitlines()
        return "\n".join(f"{number} {line}" for number, line in enumerate(lines, 1))[:LONGEST_VIEW] or "It is empty."

    def _search(self, text: str) -> str:
        found = [
            f"{path}:{number}: {line.strip()[:200]}"
            for path, whole in self._files.items()
            for number, line in enumerate(whole.splitlines(), 1)
            if text and text in line
        ]
        more = f"\nand {len(found) - MOST_FOUND} more" if len(found) > MOST_FOUND else ""
        return "\n".join(found[:MOST_FOUND]) + more or "No line has it."

    def _edited(self, path: str, old: str, new: str) -> str:
        wrong = self._refusal(path, old, new)
        # Of several edits in one turn the worst counts.
        made = min(self._edit.get("safe", 1.0), float(not wrong))
        self._edit = {"safe": made, "confidence": made}
        if wrong:
            return f"Nothing was edited: {wrong}"
        before = self._files
        self._files = {**before, path: before[path].replace(old, new, 1)}
        if not self._check.lints:
            return f"{path} was edited."
        known = {said for _, said in self._check.diagnostics(before)[path]}
        found = [one for one in self._check.diagnostics(self._files).get(path, []) if one[1] not in known]
        told = "".join(f"\nline {line}: {said[:200]}" for line, said in found[:10])
        return f"{path} was edited.{' New diagnostics:' if told else ''}{told}"

    def _refusal(self, path: str, old: str, new: str) -> str:
        """Why an edit is not made; "" where it can be."""
        if path not in self._files:
            return f"there is no file {path!r:.200}"
        if is_test(path):
            return "tests stay as they are"
        times = self._files[path].count(old) if old else 0
        if times != 1:
            return f"the old text stands {times} times in {path}; give one that stands there once"
        return "the file would be too long" if len(self._files[path]) + len(new) > LONGEST_FILE else ""


@environment.method("repository", note="ours: the loop of view, search, edit and test that SWE-like agents share")
def repository_episodes(
    *, turns: Annotated[int, Flag(low=1)] = 20, diagnostics: bool = True, live: int = 1024,
    workers: Annotated[int, Flag(low=1)] = 2,
) -> EpisodePool:  # fmt: skip
    """Small code repositories with failing tests: view, search, edit, test and submit.

    Args:
        turns: most actions of an episode.
        diagnostics: whether pyflakes counts what is wrong after each edit, for the reward rule `diagnostics`.
        live: most episodes kept between actions.
        workers: actions that run at once; each runs the tests in sandboxes.

    Raises:
        ModelError: there is no sandbox here, or pyflakes is wanted and not installed.
    """
    check = CheckedFiles(diagnostics=diagnostics)
    name = f"repository-1 turns={turns}" + ("" if diagnostics else " without diagnostics")
    return EpisodePool(partial(RepositoryEpisode, check, turns), name, live=live, concurrency=workers)
