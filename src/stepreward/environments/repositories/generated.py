"""Small Python repositories with one planted bug: several modules, tests, and the edit that mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from stepreward.core.catalog import generate
from stepreward.core.keys import Key
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Flag
from stepreward.environments.repositories.edit_commands import COMMANDS, edit_between
from stepreward.environments.repositories.functions import FUNCTIONS, SmallFunction
from stepreward.environments.repositories.planted_bugs import BUGS, Bug, Planted, bugs_of

Actions = Literal["tools", "words"]
_NAMES = ("shop", "stock", "depot", "market", "ledger", "atlas")
_MODULES = ("pricing", "texts", "numbers", "reports", "orders", "rules")
_BY_NAME = {function.name: function for function in FUNCTIONS}
_TESTS = 3
"""Of each function."""


@dataclass(frozen=True)
class _Repository:
    name: str
    modules: Mapping[str, list[SmallFunction]]
    settings: Mapping[str, int]
    """Numbers of the repository's own, as `function.setting`."""

    def module_of(self, function: str) -> str:
        return next(name for name, some in self.modules.items() if any(one.name == function for one in some))

    def source(self, function: SmallFunction) -> str:
        own = {name: str(self.settings[f"{function.name}.{name}"]) for name in function.settings}
        return function.source.format(**own, **{name: name for name in function.calls})

    def module(self, name: str, replaced: Mapping[str, str]) -> str:
        """The text of a module, some of its functions replaced."""
        wanted = sorted({(self.module_of(one), one) for function in self.modules[name] for one in function.calls})
        imports = [f"from {self.name}.{module} import {one}\n" for module, one in wanted if module != name]
        bodies = [replaced.get(one.name) or self.source(one) for one in self.modules[name]]
        return "\n\n".join(["".join(imports), *bodies] if imports else bodies)


@generate.method("repositories", note="ours: problems for the environment `repository`, the mending edit as reference")
def repository_problems(
    key: Key, *, bug: Bug | Literal["any"] = "any", modules: Annotated[int, Flag(low=2, high=6)] = 3,
    actions: Actions = "tools",
) -> Iterator[Problem]:  # fmt: skip
    """Makes repositories in which one line is wrong, so that at least one test fails.

    The reference is JSON of the edit that mends it: `path`, `old` and `new`.

    Args:
        key: randomness.
        bug: its kind: a comparison, an operator, a number, a condition that is negated, a name that is not defined.
        modules: of each repository.
        actions: whether commands are declared as tools, or described in the prompt.

    Raises:
        ValueError: there is no such kind of bug or of actions, or too many modules.
    """
    if bug not in (*BUGS, "any") or actions not in ("tools", "words") or not 2 <= modules <= len(_MODULES):
        what = f"expected a bug of {', '.join(BUGS)} or any, actions of tools or words and 2 to {len(_MODULES)} modules"
        raise ValueError(f"{what}, got {bug}, {actions}, {modules}")
    number = 0
    while True:
        rng = key.fold("repository", bug, modules, number).rng()
        made = None
        while made is None:
            made = _problem(rng, _drawn(rng, modules), bug)
        files, mend, kind = made
        said = f" Write one of these commands a turn:\n{COMMANDS.listed}" if actions == "words" else ""
        prompt = (
            "Tests of this Python repository fail: one line of it is wrong. Find it by the documentation of the "
            f"functions, mend it, and submit. Files under tests/ stay as they are.{said}"
        )
        meta = {"files": files, "bug": kind, **({"tools": COMMANDS.declared} if actions == "tools" else {})}
        yield Problem(f"repository-{key.bits:016x}-{number}", prompt, json.dumps(mend), meta)
        number += 1


def _drawn(rng: np.random.Generator, modules: int) -> _Repository:
    """Functions, with all that they call, spread over modules."""
    chosen: dict[str, SmallFunction] = {}
    for at in rng.permutation(len(FUNCTIONS)):
        if len(chosen) >= 2 * modules:
            break
        for name in (*FUNCTIONS[at].calls, FUNCTIONS[at].name):
            chosen[name] = _BY_NAME[name]
    # What is called stands in a module before its callers' own, or the same: imports have no circle.
    ordered = sorted(chosen.values(), key=lambda function: (bool(function.calls), function.name))
    parts = np.array_split(np.arange(len(ordered)), modules)
    names = [_MODULES[at] for at in rng.permutation(len(_MODULES))[:modules]]
    spread = {name: [ordered[i] for i in part] for name, part in zip(names, parts, strict=True)}
    settings = {f"{one.name}.{name}": draw(rng) for one in ordered for name, draw in one.settings.items()}
    return _Repository(str(rng.choice(_NAMES)), spread, settings)


def _problem(
    rng: np.random.Generator, repository: _Repository, bug: Bug | Literal["any"]
) -> tuple[dict[str, str], dict[str, str], Bug] | None:
    """Files, the mending edit and the kind of the bug; None where no test notices the one that was drawn."""
    functions = [one for some in repository.modules.values() for one in some]
    kind = BUGS[int(rng.integers(len(BUGS)))] if bug == "any" else bug
    places = [(one, at) for one in functions for at in bugs_of(repository.source(one)) if at.kind == kind]
    if not places:
        return None
    function, planted = places[int(rng.integers(len(places)))]
    tests = [
        (one.name, [draw(rng) for draw in one.arguments])
        for one in functions for _ in range(_TESTS)
    ]  # fmt: skip
    right = _results(repository, functions, tests)
    wrong_source = _with_bug(repository.source(function), planted)
    if right == _results(repository, functions, tests, {function.name: wrong_source}):
        return None
    module = repository.module_of(function.name)
    texts = {name: repository.module(name, {}) for name in repository.modules}
    wrong = repository.module(module, {function.name: wrong_source})
    path = f"{repository.name}/{module}.py"
    mend = edit_between(path, wrong, texts[module])
    files = {f"{repository.name}/{name}.py": text for name, text in texts.items()}
    files |= {path: wrong, f"{repository.name}/__init__.py": ""}
    files[f"tests/test_{repository.name}.py"] = _test_file(repository, tests, right)
    return dict(sorted(files.items())), mend, kind


def _with_bug(source: str, planted: Planted) -> str:
    lines = source.splitlines()
    lines[planted.line] = planted.wrong
    return "\n".join(lines) + "\n"


def _results(
    repository: _Repository, functions: Sequence[SmallFunction], tests: Sequence[tuple[str, list[Any]]],
    replaced: Mapping[str, str] | None = None,
) -> list[str]:  # fmt: skip
    """What each test's call returns, as Python writes it, or the name of what it raises."""
    space: dict[str, Any] = {}
    sources = [(replaced or {}).get(one.name) or repository.source(one) for one in functions]
    exec("\n".join(sources), space)  # noqa: S102 - texts of this package, of which each ends
    made = []
    for name, given in tests:
        try:
            made.append(repr(space[name](*given)))
        except Exception as error:
            made.append(type(error).__name__)
    return made


def _test_file(repository: _Repository, tests: Sequence[tuple[str, list[Any]]], right: Sequence[str]) -> str:
    names = sorted({name for name, _ in tests})
    imports = [f"from {repository.name}.{repository.module_of(name)} import {name}\n" for name in names]
    bodies = []
    for number, ((name, given), result) in enumerate(zip(tests, right, strict=True)):
        call = f"{name}({', '.join(map(repr, given))})"
        check = f'    found = {call}\n    assert found == {result}, f"found {{found!r}}"\n'
        bodies.append(f"def test_{name}_{number % _TESTS + 1}():\n{check}")
    return "\n\n".join(["".join(imports), *bodies])
