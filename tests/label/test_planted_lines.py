"""Wrong lines of gold proofs, against a table of truth values that knows nothing of the checker."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.core.catalog import estimate, generate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import answer_all
from stepreward.core.table import read_table
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem
from stepreward.label.planted.planted_lines import ANSWER, MISSING, NEGATED, PREMISE, changes

KEY = Key.seed(2)
PROBLEMS = list(islice(generate["logic"].take({"key": KEY}, unknown=0.2), 150))


def planted(problem: Problem, **settings: Any) -> StepTree:
    tree: StepTree = answer_all(estimate["changed-lines"].take({"problem": problem, "key": KEY}, **settings))
    return tree


def holds(formula: str, world: dict[str, bool]) -> bool:
    """Truth of a formula without quantifiers: `->` binds least and to the right, then `|`, `&`, `~`."""
    text = formula.strip()

    def cut(sign: str) -> list[str]:
        parts, depth, last = [], 0, 0
        for i, c in enumerate(text):
            depth += (c == "(") - (c == ")")
            if not depth and text.startswith(sign, i):
                parts.append(text[last:i])
                last = i + len(sign)
        return [*parts, text[last:]]

    if len(parts := cut("->")) > 1:
        return not holds(parts[0], world) or holds("->".join(parts[1:]), world)
    if len(parts := cut("|")) > 1:
        return any(holds(part, world) for part in parts)
    if len(parts := cut("&")) > 1:
        return all(holds(part, world) for part in parts)
    if text.startswith("~"):
        return not holds(text[1:], world)
    return holds(text[1:-1], world) if text.startswith("(") else world[text]


def follows(premises: list[str], conclusion: str) -> bool:
    names = sorted(set(re.findall(r"[A-Z]", " ".join([*premises, conclusion]))))
    worlds = [dict(zip(names, some, strict=True)) for some in product([False, True], repeat=len(names))]
    return all(holds(conclusion, world) for world in worlds if all(holds(one, world) for one in premises))


def test_each_changed_line_is_wrong_by_a_table_of_truth_values() -> None:
    kinds, lines = Counter[str](), 0
    for problem in PROBLEMS:
        facts = problem.meta["facts"]
        if re.search("[a-z]", " ".join([*facts.values(), problem.meta["hypothesis"]])):
            continue  # predicates and quantifiers: a table does not say
        tree = planted(problem, n=6)
        own, *copies = tree.trajectories()
        assert [step.text.strip() for step in own.steps] == problem.meta["proof"]
        assert (tree.column("value")[tree.paths[0][: len(own)]] == 1).all()
        for row, copy in enumerate(copies, 1):
            at = len(copy) - 1
            assert copy.steps[:at] == own.steps[:at]
            assert copy.steps[at].text != own.steps[at].text
            assert tree.column("value")[tree.paths[row][at]] == 0
            kind = copy.steps[at].meta["planted"]
            kinds[kind] += 1
            known = dict(facts)
            for step in copy.steps[:at]:
                name, _, formula = step.text.strip().partition("-> ")[2].partition(": ")
                known |= {name: formula}
            if kind == ANSWER:
                assert copy.steps[at].text.split()[-1] != problem.reference
                continue
            names, _, concluded = copy.steps[at].text.strip().partition(" -> ")
            goal = problem.meta["hypothesis"] if concluded == "hypothesis" else concluded.partition(": ")[2]
            premises = [known[one] for one in names.split(" & ")]
            if concluded == "hypothesis":
                assert not follows(premises, goal) or problem.reference == "DISPROVED"
            else:
                assert not follows(premises, goal)
            lines += 1
    assert lines > 20
    assert set(kinds) == {PREMISE, MISSING, NEGATED, ANSWER}


def test_changes_by_hand() -> None:
    made = list(changes("fact1 & int1 -> int2: C -> B\n", ["fact1", "fact2", "int1"]))
    assert made == [
        ("fact2 & int1 -> int2: C -> B\n", PREMISE), ("int1 -> int2: C -> B\n", MISSING),
        ("fact1 & fact2 -> int2: C -> B\n", PREMISE), ("fact1 -> int2: C -> B\n", MISSING),
        ("fact1 & int1 -> int2: ~(C -> B)\n", NEGATED),
    ]  # fmt: skip
    assert [text for text, _ in changes("fact1 -> hypothesis", ["fact1", "fact2"])] == ["fact2 -> hypothesis"]
    assert [text for text, _ in changes("The final answer is PROVED", [])] == [
        "The final answer is DISPROVED", "The final answer is UNKNOWN",
    ]  # fmt: skip
    assert not list(changes("So it goes.", ["fact1"]))


def test_at_most_n_copies_and_what_was_not_confirmed_is_counted() -> None:
    for problem in PROBLEMS[:8]:
        tree = planted(problem, n=2)
        told = tree.trajectories()[0].facts["planted"]
        copies = len(tree.ends) - 1
        assert copies <= 2
        assert told["asked"] == copies + told["unconfirmed"]


def test_a_problem_without_a_proof_is_refused() -> None:
    with pytest.raises(InputError, match="no gold proof"):
        planted(Problem("p", "1 + 1?", reference="2"))


def test_rows_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    assert run.invoke(app, ["generate", "logic", "--n", "6", "--out", "logic.jsonl"]).exit_code == 0
    line = "label --problems logic.jsonl --grader logic --estimator changed-lines --set n=2 --out rows.parquet --json"
    done = run.invoke(app, line.split())
    assert done.exit_code == 0, done.output
    rows = list(read_table(tmp_path / "rows.parquet"))
    wrong = [one for one in rows if (one.labels == 0).any()]
    assert json.loads(done.stdout)["trajectories"] == len(rows) > len(wrong) > 0
    for one in wrong:
        assert np.flatnonzero(one.labels == 0).tolist() == [len(one) - 1]
        assert one.steps[-1].meta["planted"]
