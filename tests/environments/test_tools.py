"""Tools: calls of chats and of texts, the sandboxed ones, and the exact truth of the shop."""

from __future__ import annotations

import itertools
import json
import re
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core import optional
from stepreward.core.catalog import check, generate
from stepreward.core.errors import InputError, ModelError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act, Observation
from stepreward.core.segment.tool_calls import calling_step, stated_calls
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.environments.tools import standard
from stepreward.environments.tools.shop import known_after, needed, nodes_of
from stepreward.environments.tools.shop_writers import call, written_episode
from stepreward.environments.tools.standard import calculated, number_of, shown_number
from stepreward.environments.tools.tool_episode import ToolEpisode, tools_of, with_tools
from stepreward.testing import check_environment
from tests.sandboxed import needs_sandbox


def shops(n: int = 20, seed: int = 0, **how: Any) -> list[Problem]:
    return [*itertools.islice(generate["shop"].take({"key": Key.seed(seed)}, **how), n)]


def shown(problem: Problem, *actions: str | Step) -> Observation:
    """What the last action shows."""
    episodes, steps = environment_at("tools"), ()
    last = Observation()
    for action in (None, *actions):
        steps += () if action is None else (action if isinstance(action, Step) else Step(action),)
        (last,) = episodes.act_many([Act(problem, steps)])
        steps += last.steps
    return last


def text_of(observed: Observation) -> str:
    return "\n".join(step.text for step in observed.steps)


# Calls ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"name": "price", "arguments": {"item": "lamp"}}', [("price", {"item": "lamp"})]),
        ('I ask.\n<tool_call>\n{"name": "a", "arguments": {"b": "c"}}\n</tool_call>', [("a", {"b": "c"})]),
        ('{"name": "a", "arguments": "{\\"x\\": 1}"}\n{"name": "b"}', [("a", {"x": 1}), ("b", {})]),
        ('{"name": "price", "argu', [(None, '{"name": "price", "argu')]),
        ("Answer: 5", []),
        ("The set {1, 2} is it.", []),
    ],
)  # fmt: skip
def test_calls_that_a_text_states(text: str, calls: list[Any]) -> None:
    assert [(one["name"], one["arguments"]) for one in stated_calls(Step(text))] == calls


def test_the_calls_of_a_chat_come_first() -> None:
    step = calling_step("I ask.", [{"name": "price", "arguments": {"item": "rug"}, "id": "c1"}])
    assert stated_calls(step) == [{"name": "price", "arguments": {"item": "rug"}, "id": "c1"}]
    problem = Problem("p", "?", meta={"functions": ["price"], "prices": {"rug": 7}})
    (result,) = shown(problem, step).steps
    assert (result.text, result.role, result.meta["tool_call_id"]) == ("7", "tool", "c1")


# Calculation ----------------------------------------------------------------------------------------------------------

NUMBERS = st.integers(-999, 999)


EXPRESSIONS = st.recursive(
    NUMBERS.map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda three: "({} {} {})".format(*three)),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_calculation_is_exact(expression: str) -> None:
    exact = re.sub(r"\d+", r"Fraction(\g<0>)", expression)
    try:
        wanted: Any = eval(exact, {"Fraction": Fraction})
    except ZeroDivisionError:
        wanted = None
    assert calculated(expression) == wanted


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "9**9**9**9", "1/0", "x + 1", "(" * 200 + "1" + ")" * 200, "'a' * 9", "1" * 400,
     "2 if 1 else 3", "10**400", "f'{1}'", "True + 1", "1e999", ""],
)  # fmt: skip
def test_what_is_no_calculation_has_no_value(text: str) -> None:
    assert calculated(text) is None


def test_numbers_as_they_are_shown() -> None:
    assert shown_number(Fraction(7)) == "7"
    assert shown_number(Fraction(2, 3)) == "0.666666666667"
    assert number_of("Answer: 1,250.") == 1250
    assert number_of("none") is None


# The episode ----------------------------------------------------------------------------------------------------------


def test_errors_are_shown_and_change_nothing() -> None:
    problem = shops(1)[0]
    assert "there is no tool buy; there are calculate, price" in text_of(shown(problem, '{"name": "buy"}'))
    assert "'item' is a required property" in text_of(shown(problem, '{"name": "price", "arguments": {}}'))
    assert "this is no call" in text_of(shown(problem, '{"name": pri'))
    assert text_of(shown(problem, call("price", item="yacht"))) == "there is no yacht in the shop"
    with pytest.raises(InputError, match="offers the tool 'fly', and there is none; take any of"):
        tools_of(Problem("p", "?", meta={"functions": ["fly"]}))


def test_an_episode_ends_with_an_answer_or_at_its_limit() -> None:
    problem = shops(1)[0]
    assert shown(problem, "Answer: 5").done
    assert np.isnan(shown(problem, "Answer: 5").outcome), "the grader decides"
    episode = ToolEpisode(turns=2)
    episode.reset(problem)
    assert not episode.act(Step(call("calculate", expression="1 + 1"))).done
    last = episode.act(Step(call("calculate", expression="1 + 1")))
    assert (last.done, last.outcome) == (True, 0.0)


def test_it_keeps_the_contract() -> None:
    problem = shops(1, fewest=2)[0]
    actions = [step.text for step in written_episode(problem, np.random.default_rng(0), 0.5) if step.kind == "action"]
    check_environment(ToolEpisode, problem, actions)


def test_tools_are_declared_as_servers_take_them() -> None:
    declared = with_tools(shops(1)[0]).meta["tools"]
    assert [one["function"]["name"] for one in declared] == ["calculate", "price"]
    assert declared[1]["function"]["parameters"]["required"] == ["item"]
    assert json.loads(json.dumps(declared)) == declared


@needs_sandbox
def test_python_runs_in_the_sandbox() -> None:
    problem = Problem("p", "?", meta={"functions": ["python"]})
    code = "x = 3\nprint(x ** 2)\nimport os\nprint(os.path.exists('/home'))\n1 / 0"
    made = text_of(shown(problem, call("python", code=code)))
    assert made == "9\nFalse\nZeroDivisionError: division by zero"
    assert "the program was ended" in text_of(shown(problem, call("python", code="while True: pass")))


@needs_sandbox
def test_sql_runs_on_a_database_of_the_problem() -> None:
    schema = ["create table sales(item text, n int)", "insert into sales values ('rug', 2), ('rug', 3), ('pan', 1)"]
    problem = Problem("p", "?", meta={"functions": ["sql"], "schema": schema})
    query = "select item, sum(n) as n from sales group by item order by item"
    assert text_of(shown(problem, call("sql", query=query))) == "item | n\npan | 1\nrug | 5"
    assert "CatalogException" in text_of(shown(problem, call("sql", query="select * from nothing")))
    outside = text_of(shown(problem, call("sql", query="select * from read_csv('/etc/passwd')")))
    assert "root" not in outside
    assert "PermissionException" in outside


# The shop -------------------------------------------------------------------------------------------------------------


def test_problems_are_disjoint_repeatable_and_solved_by_a_careful_writer() -> None:
    assert shops(30) == shops(30)
    assert not {p.id for p in shops(200)} & {p.id for p in shops(200, seed=1, split="held_out")}
    for problem in shops(60, fewest=1, most=4):
        steps = written_episode(problem, np.random.default_rng(0), 0.0)
        actions = [step for step in steps if step.kind == "action"]
        assert len(actions) == len(needed(nodes_of(problem), set())) + 1
        assert number_of(steps[-1].text) == int(problem.reference or "")
        calculated_values = [node.value for node in nodes_of(problem) if node.operator]
        if len({*calculated_values}) == len(calculated_values):
            # Otherwise one calculation makes two numbers known, and the writer's second one is useless.
            assert [one.right for one in _checked(problem, steps)] == [step.kind == "action" or None for step in steps]
        # The environment shows what the writer says that it shows.
        for at, step in enumerate(steps):
            if step.kind == "observation":
                assert text_of(shown(problem, *[s for s in steps[:at] if s.kind == "action"])) == step.text


def test_the_words_of_a_problem_say_what_its_reference_is() -> None:
    """Read by a person's rules: so many of each at its price, then the delivery or the coupon."""
    seen = set[str]()
    for problem in shops(200, most=4):
        bought = re.match(r"\w+ buys (.*?)\.", problem.text)
        assert bought
        pairs = re.findall(r"(\d+) (\w+)", bought[1])
        assert re.fullmatch(r"\d+ \w+|(\d+ \w+, )*\d+ \w+ and \d+ \w+", bought[1])
        prices, total = problem.meta["prices"], 0
        assert len(prices) == 2 * len(pairs)
        for amount, item in pairs:
            total += int(amount) * prices[item if amount == "1" else item.removesuffix("s")]
        ends = re.findall(r"(The delivery costs|A coupon takes off) (\d+)\.", problem.text)
        for kind, amount in ends:
            total += int(amount) if kind.startswith("The") else -int(amount)
        assert total == int(problem.reference or "") > 0
        seen.add(ends[0][0] if ends else "")
    assert len(seen) == 3


def _checked(problem: Problem, steps: tuple[Step, ...]) -> Any:
    return check["shop"].take({"problem": problem, "steps": steps})


def _every_call(problem: Problem, values: frozenset[int]) -> list[str]:
    """Calls with any numbers that were seen."""
    made = [call("price", item=item) for item in problem.meta["prices"]]
    for left, right in itertools.product(sorted(values), repeat=2):
        made += [call("calculate", expression=f"{left} {op} {right}") for op in "+-*"]
    return made


@pytest.mark.parametrize("problem", shops(6, fewest=1, most=1), ids=lambda one: one.id)
def test_the_number_of_actions_left_is_that_of_a_search_over_all_calls(problem: Problem) -> None:
    """Breadth-first over every call with numbers that were seen: none finds the answer in fewer actions."""
    nodes = nodes_of(problem)
    given = frozenset(node.value for node in nodes if not node.item and not node.operator)

    @cache
    def result(action: str) -> int | None:
        arguments = json.loads(action)["arguments"]
        if "item" in arguments:
            return int(problem.meta["prices"][arguments["item"]])
        return int(calculated(arguments["expression"]) or 0)

    depth, states = 0, {given}
    wanted = int(problem.reference or "")
    # A node of another meaning may have the answer's number by chance: only calculations count.
    while not any(wanted in state - given for state in states) and depth < 4:
        states = {
            state | {found} for state in states for action in _every_call(problem, state)
            if (found := result(action)) is not None and abs(found) < 10_000
        }  # fmt: skip
        depth += 1
    assert depth <= len(needed(nodes, set()))
    if depth < len(needed(nodes, set())):
        pytest.skip("numbers of this problem meet by chance")


def test_slips_are_named() -> None:
    problem = shops(1, fewest=2, most=2)[0]
    nodes = nodes_of(problem)
    item = next(node.item for node in nodes if node.item)
    other = next(name for name in problem.meta["prices"] if name not in {node.item for node in nodes})
    steps = (
        Step(call("price", item=item)), Step("1", "observation", "tool"), Step(call("price", item=item)),
        Step(call("price", item=other)), Step(call("calculate", expression="1 + 1")), Step("Answer: -1"),
    )  # fmt: skip
    made = _checked(problem, steps)
    assert [one.right for one in made] == [True, None, False, False, False, False]
    assert [one.kind for one in made] == ["", "", "useless", "useless", "useless", "answer"]
    assert known_after(nodes, {"name": "calculate", "arguments": {"expression": "no"}}, set()) == set()


def test_a_problem_of_another_world_is_named() -> None:
    with pytest.raises(InputError, match="has no graph of the shop"):
        nodes_of(Problem("p", "?"))


def test_the_sandbox_of_sql_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional.importlib.util, "find_spec", lambda name: None)
    standard._duckdb.cache_clear()
    with pytest.raises(ModelError, match=r"stepreward\[rules\]"):
        standard._duckdb()
