from dataclasses import replace

import pytest

from stepreward.core.errors import PolicyError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation, Policy, Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.scripted import ScriptedPolicy

PROBLEM = Problem("p", "1 + 1?")
SCRIPT = {"": ["a\nb\n", "c"], "a\n": ["B\n"]}


def ask(prefix: str = "", **settings: object) -> Propose:
    steps = (Step(prefix),) if prefix else ()
    return Propose(PROBLEM, steps, Key.seed(0), **settings)  # type: ignore[arg-type]


def test_says_its_lines_in_turn() -> None:
    policy: Policy = ScriptedPolicy(SCRIPT)
    first, after = policy.propose([ask(n=3), ask("a\n")])
    assert [[s.text for s in c.steps] for c in first] == [["a\n", "b\n"], ["c"], ["a\n", "b\n"]]
    assert [c.n_tokens for c in first] == [2, 1, 2]
    assert all(c.finished for c in first)
    assert after[0].steps == (Step("B\n"),)


def test_one_step_is_the_end_only_if_nothing_follows() -> None:
    (first,) = ScriptedPolicy(SCRIPT).propose([ask(n=2, until="step")])
    assert [(c.steps[0].text, c.finished, c.truncated) for c in first] == [("a\n", False, False), ("c", True, False)]


def test_a_limit_truncates() -> None:
    (((cut),),) = ScriptedPolicy(SCRIPT).propose([ask(max_tokens=1)])
    assert cut == Continuation((Step("a\n"),), finished=False, n_tokens=1, truncated=True)


def test_a_function_sees_question_and_index_and_every_question_is_remembered() -> None:
    policy = ScriptedPolicy(lambda question, i: f"{question.problem.id}{i}")
    question = ask(n=2)
    (answers,) = policy.propose([question])
    assert [c.steps[0].text for c in answers] == ["p0", "p1"]
    assert policy.questions == [question]
    (later,) = policy.propose([replace(question, first=5)])
    assert [c.steps[0].text for c in later] == ["p5", "p6"]


def test_an_unknown_prefix_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(PolicyError, match=r"no line after 'x'; it has lines after '', 'a\\n'"):
        ScriptedPolicy(SCRIPT).propose([ask("x")])
