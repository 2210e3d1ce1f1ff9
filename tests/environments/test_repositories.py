"""Generated repositories: their planted bugs, the episode, and agents in it on the command line."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.core.catalog import environment, generate, reward
from stepreward.core.errors import EpisodeError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act
from stepreward.core.segment.tool_calls import CALLS
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.environments.repositories.checked_files import CheckedFiles
from stepreward.environments.repositories.planted_bugs import BUGS, bugs_of
from stepreward.environments.repositories.repository_episode import RepositoryEpisode
from stepreward.testing import check_environment
from tests.environments.episodes import require_forks_equal_replays, require_resumes
from tests.environments.scripted_server import serving
from tests.sandboxed import needs_sandbox


def problems(n: int, seed: int = 0, **settings: Any) -> list[Problem]:
    return [*islice(generate["repositories"](Key.seed(seed), **settings), n)]


def edit(problem: Problem, **changed: str) -> str:
    """The mending edit of a problem as JSON, parts of it changed."""
    return json.dumps({"name": "edit", "arguments": {**json.loads(problem.reference or ""), **changed}})


def mended(problem: Problem) -> dict[str, str]:
    mend, files = json.loads(problem.reference or ""), dict(problem.meta["files"])
    return {**files, mend["path"]: files[mend["path"]].replace(mend["old"], mend["new"])}


def lines_that_differ(one: str, other: str) -> int:
    return sum(a != b for a, b in zip(one.splitlines(), other.splitlines(), strict=True))


def test_every_bug_of_a_function_is_of_its_kind() -> None:
    found = bugs_of('def f(a):\n    """Doc."""\n    if a < 3:\n        return a * 2\n    return 0\n')
    assert sorted((bug.kind, bug.line, bug.wrong.strip()) for bug in found) == [
        ("comparison", 2, "if a <= 3:"), ("condition", 2, "if not a < 3:"), ("name", 2, "if a_ < 3:"),
        ("name", 3, "return a_ * 2"), ("number", 2, "if a < 4:"), ("number", 3, "return a * 3"),
        ("number", 4, "return 1"), ("operator", 3, "return (a + 2)"),
    ]  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_a_repository_has_one_wrong_line_of_the_kind_that_was_asked_for(bug: str) -> None:
    for problem in problems(6, bug=bug):
        files, right = problem.meta["files"], mended(problem)
        assert problem.meta["bug"] == bug
        assert sum(lines_that_differ(files[path], right[path]) for path in files) == 1
        assert files[json.loads(problem.reference or "")["path"]].count(json.loads(problem.reference or "")["old"]) == 1
        for path, text in (files | right).items():
            ast.parse(text, path)
    assert problems(2, bug=bug) == problems(2, bug=bug)
    assert problems(1, bug=bug) != problems(1, seed=1, bug=bug)


def test_settings_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a bug of comparison"):
        problems(1, bug="typo")


def namespace_of(files: dict[str, str]) -> dict[str, Any]:
    """All functions of a repository and of its tests in one space: no two have one name."""
    space: dict[str, Any] = {}
    for _, text in sorted(files.items()):
        exec(re.sub(r"^from .*$", "", text, flags=re.MULTILINE), space)
    return space


def failing(files: dict[str, str]) -> list[str]:
    """The tests that fail, called one by one in this process."""
    made = []
    for name, test in namespace_of(files).items():
        if name.startswith("test_"):
            try:
                test()
            except Exception:
                made.append(name)
    return made


@needs_sandbox
def test_tests_in_the_sandbox_say_what_tests_in_a_plain_loop_say() -> None:
    check = CheckedFiles(diagnostics=False)
    for problem in problems(4, seed=2):
        files = dict(problem.meta["files"])
        wrong = failing(files)
        result = check.tested(files)
        assert result.total - result.passed == len(wrong) > 0
        assert all(f"{name}: " in result.told for name in wrong[:3])
        whole = check.tested(mended(problem))
        assert whole.passed == whole.total == result.total
        assert not failing(mended(problem))


@needs_sandbox
@pytest.mark.parametrize(
    "text",
    [
        "import os\nos._exit(0)\n", "while True:\n    pass\n", "def total(",
        "class Equal:\n    def __eq__(self, other):\n        return True\n",
        "import builtins\nbuiltins.AssertionError = None\n",
    ],
)  # fmt: skip
def test_no_file_passes_the_tests_but_by_its_values(text: str) -> None:
    files = {
        "p/__init__.py": "", "p/m.py": f"{text}\ndef f(x):\n    return globals().get('Equal', str)()\n",
        "tests/test_p.py": "from p.m import f\n\ndef test_f():\n    assert f(1) == 1\n",
    }  # fmt: skip
    result = CheckedFiles(diagnostics=False, seconds=1).tested(files)
    assert (result.passed, result.total) == (0, 1)
    assert result.told


@needs_sandbox
def test_the_contract_holds_and_forks_equal_replays() -> None:
    problem, check = problems(1, bug="number")[0], CheckedFiles(diagnostics=False)

    def make() -> RepositoryEpisode:
        return RepositoryEpisode(check, 4)

    wrong = edit(problem, new="x = (\n")
    check_environment(make, problem, ["search def", wrong, "test", edit(problem)])
    require_forks_equal_replays(make, problem, [[wrong, "test"], [wrong, "submit"], [wrong, edit(problem)]])


@needs_sandbox
def test_a_killed_run_goes_on_in_the_middle_of_an_episode(tmp_path: Path) -> None:
    problem = problems(1, bug="number")[0]
    actions = [edit(problem), edit(problem, new="x = (\n"), "view tests", "submit"]
    require_resumes(lambda: environment_at("repository?diagnostics=false&turns=3"), problem, actions, tmp_path)


@needs_sandbox
def test_commands_are_read_from_words_json_and_tool_calls() -> None:
    problem = problems(1, bug="condition")[0]
    mend = json.loads(problem.reference or "")
    episode = RepositoryEpisode(CheckedFiles(diagnostics=False), 20)
    episode.reset(problem)

    def shown(action: str | Step) -> str:
        return episode.act(action if isinstance(action, Step) else Step(action)).steps[0].text

    assert shown(f"I look.\nview {mend['path']}\n").startswith("1 ")
    assert shown("view nothing.py").startswith("There is no file 'nothing.py'; there are ")
    assert "No line has it." in shown("search no such text")
    assert f"{mend['path']}:" in shown(f"search {mend['old'].strip()}")
    assert shown('{"name": "test", "arguments": {}}').count("test_") == len(failing(problem.meta["files"]))
    assert "test was not executed: no argument 'now'" in shown("test now")
    assert "edit was not executed: old is missing, new is missing" in shown("edit a.py")
    assert "There is no command 'rm'" in shown('{"name": "rm", "arguments": {"path": "/"}}')
    assert "tests stay as they are" in shown(edit(problem, path=next(p for p in problem.meta["files"] if "test" in p)))
    assert "stands 0 times" in shown(edit(problem, old="nowhere"))
    assert "stands 0 times" in shown(edit(problem, old=""))
    call = {"id": "c1", "name": "edit", "arguments": mend}
    assert shown(Step("", meta={CALLS: [call]})) == f"{mend['path']} was edited.\n"
    done = episode.act(Step("submit"))
    assert (done.done, done.outcome, done.reward) == (True, 1.0, 0.0)
    answered = RepositoryEpisode(CheckedFiles(diagnostics=False), 20)
    answered.reset(problem)
    both = answered.act(Step("", meta={CALLS: [{**call, "id": "a"}, {"id": "b", "name": "test", "arguments": {}}]}))
    assert [(step.role, step.meta["tool_call_id"]) for step in both.steps] == [("tool", "a"), ("tool", "b")]
    failed = len(failing(problem.meta["files"]))
    assert both.reward == pytest.approx(failed / CheckedFiles(diagnostics=False).tested(mended(problem)).total)


@needs_sandbox
def test_a_problem_without_files_is_refused() -> None:
    episodes = environment_at("repository?diagnostics=false")
    with pytest.raises(EpisodeError, match="needs 'files' in its meta"):
        episodes.act_many([Act(Problem("p", "Mend it."), ())])


def told(**meta: float) -> Step:
    return Step("shown", "observation", "user", meta=meta)


def test_the_reward_of_an_edit_is_the_papers() -> None:
    """r = .5 (D before - D after) + .4 S - .1 (1 - conf), worked out by hand.

    The paper's second example with its own formula: no diagnostic less, an unsafe edit, conf .62: -.038.
    """
    steps = [
        told(diagnostics=3), Step("e1"), told(diagnostics=1, safe=1, confidence=1.0), Step("look"), told(),
        Step("e2"), told(diagnostics=1, safe=0, confidence=0.62), Step("e3"),
        told(diagnostics=4, safe=1, confidence=0.5), Step("submit"),
    ]  # fmt: skip
    made = reward["diagnostics"](Problem("p", "?"), steps)
    nan = np.nan
    np.testing.assert_allclose(made, [nan, 1.4, nan, nan, nan, -0.038, nan, -1.15, nan, nan], atol=1e-12)
    half = reward["diagnostics"](Problem("p", "?"), steps, fixed=0.25, safety=0.0, doubt=0.0)
    np.testing.assert_allclose(half[[1, 5, 7]], [0.5, 0.0, -0.75])


def test_an_edit_whose_diagnostics_were_not_counted_before_has_no_reward() -> None:
    steps = [Step("e", meta={"diagnostics": 1, "safe": 1, "confidence": 1}), Step("f", meta={"safe": 1})]
    assert np.isnan(reward["diagnostics"](Problem("p", "?"), steps)).all()
    assert reward["diagnostics"](Problem("p", "?"), []).shape == (0,)


@needs_sandbox
def test_the_linter_counts_what_an_edit_mends_and_breaks() -> None:
    pytest.importorskip("pyflakes")
    problem = problems(1, bug="name")[0]
    mend = json.loads(problem.reference or "")
    name = re.findall(r"\b(\w+_)\b", mend["old"])[0]
    indent = mend["new"][: -len(mend["new"].lstrip())]
    broken = f"{indent}unknown\n{mend['new']}"
    steps: tuple[Step, ...] = ()
    pool = environment["repository"]()
    for action in [
        "",
        edit(problem),
        json.dumps({"name": "edit", "arguments": {**mend, "old": mend["new"], "new": broken}}),
    ]:
        steps += (Step(action),) if action else ()
        (seen,) = pool.act_many([Act(problem, steps)])
        steps += seen.steps
    assert [step.meta["diagnostics"] for step in steps[::2]] == [1, 0, 1]
    assert steps[4].text.endswith("undefined name 'unknown'\n")
    assert [found for _, found in CheckedFiles().diagnostics(problem.meta["files"])[mend["path"]]] == [
        f"undefined name {name!r}"
    ]
    # One diagnostic less, one more, each by an edit that is safe and sure.
    np.testing.assert_allclose(reward["diagnostics"](problem, steps)[[1, 3]], [0.5 + 0.4, -0.5 + 0.4])


@needs_sandbox
@pytest.mark.parametrize("text", ["(" * 50_000, "x = " + "-" * 90_000 + "1", "\x00", "def f(:", "a" * 9 + "=" * 9])
def test_the_linter_survives_whatever_is_written(text: str) -> None:
    pytest.importorskip("pyflakes")
    found = CheckedFiles().diagnostics({"p/a.py": text, "p/b.py": "import os\n"})
    assert len(found["p/a.py"]) == 1
    assert found["p/b.py"] == [(1, "'os' imported but unused")]


def mending_agent(problem: Problem) -> Any:
    """Tests, edits rightly at two of three seeds, and submits."""

    def turn(messages: list[dict[str, Any]], seed: int) -> Any:
        done = sum(message["role"] == "tool" for message in messages)
        mend = json.loads(problem.reference or "")
        chosen = mend if seed % 3 else {**mend, "new": "    return None\n"}
        return [
            {"name": "test", "arguments": {}},
            {"name": "edit", "arguments": chosen},
            {"name": "submit", "arguments": {}},
        ][min(done, 2)]

    return turn


@needs_sandbox
def test_label_and_search_on_the_command_line(tmp_path: Path) -> None:
    """Steps of a scripted model with tool calls: an edit that mends is worth 1, one that breaks 0."""
    file = tmp_path / "repositories.jsonl"
    run = CliRunner().invoke(app, ["generate", "repositories", "--n", "1", "--out", str(file), "--set", "bug=operator"])
    assert run.exit_code == 0, run.output
    problem = replace(problems(1, bug="operator")[0])
    where = ["--environment", "repository?diagnostics=false", "--problems", str(file)]
    with serving(mending_agent(problem)) as (address, bodies):
        made = CliRunner().invoke(
            app,
            ["label", *where, "--policy", address, "--samples", "6", "--rollouts", "3", "--json",
             "--out", str(tmp_path / "labels")],
        )  # fmt: skip
        assert made.exit_code == 0, made.output
        found = CliRunner().invoke(
            app,
            ["search", *where, "--policy", address, "--method", "majority", "--samples", "4", "--grader", "mathematics",
             "--out", str(tmp_path / "found.jsonl"), "--json"],
        )  # fmt: skip
        assert found.exit_code == 0, found.output
    assert bodies[0]["tools"] == problem.meta["tools"]
    assert {message["role"] for body in bodies for message in body["messages"]} == {"user", "assistant", "tool"}
    rows = [*stepreward.read(json.loads(made.stdout)["labels"])]
    assert {row.outcome for row in rows} == {0.0, 1.0}
    for row in rows:
        edits = [at for at, step in enumerate(row.steps) if '"edit"' in step.text]
        assert row.columns["value"][edits[0]] == row.outcome
    assert len([*stepreward.read(tmp_path / "found.jsonl")]) == 4


@needs_sandbox
def test_a_search_with_execution_takes_the_edit_that_passes(tmp_path: Path) -> None:
    """Of the edits that are proposed at a turn, the one behind which tests pass is gone on with."""
    file = tmp_path / "repositories.jsonl"
    run = CliRunner().invoke(app, ["generate", "repositories", "--n", "1", "--out", str(file), "--set", "bug=operator"])
    assert run.exit_code == 0, run.output
    with serving(mending_agent(problems(1, bug="operator")[0])) as (address, _):
        found = CliRunner().invoke(
            app,
            ["search", "--environment", "repository?diagnostics=false", "--problems", str(file), "--policy", address,
             "--model", "executed", "--method", "greedy", "--width", "6", "--out", str(tmp_path / "found.jsonl"),
             "--json"],
        )  # fmt: skip
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["accuracy"]["value"] == 1.0
    rows = [*stepreward.read(tmp_path / "found.jsonl")]
    (edit,) = (at for at, step in enumerate(rows[0].steps) if '"edit"' in step.text)
    assert rows[0].columns["score"][edit] > 0.0, "the share of tests that pass has grown"
