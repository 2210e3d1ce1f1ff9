"""Several agents over one trace: who speaks, what each reads, and that labels and searches know nothing of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.running import invoke, refused
from tests.environments.scripted_server import serving

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act
from stepreward.core.runtime.flows import Continuation, Policy, Propose, Scored
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.crew import Crew, Member, crew_at, placed
from stepreward.policies.named import policy_at
from stepreward.policies.tabular import TabularPolicy
from stepreward.policies.turn_order import TurnOrder, order_of
from stepreward.tasks.planned_sums import ADDER, AGENTS, CRITIC, MULTIPLIER, PLANNER, ROUTES, PlannedSums

WORLD = PlannedSums()
PROBLEM = Problem("p", "Say it.\n", "1")


def crew(world: PlannedSums = WORLD) -> Crew:
    members = {name: Member(TabularPolicy(world.table(name), name)) for name in AGENTS}
    return Crew(members, order_of(AGENTS, "round-robin", ROUTES))


def sampled(problems: int, **how: Any) -> list[Trajectory]:
    given = [WORLD.problem(number) for number in range(problems)]
    settings = {"method": "math-shepherd", "transform": "soft", "n": 16, "samples": 4, **how}
    return [*stepreward.label(given, policy=crew(), grader=WORLD, **settings)]


def said(*turns: tuple[str, str]) -> tuple[Step, ...]:
    return tuple(Step(text, agent=agent) for agent, text in turns)


def test_agents_speak_in_turn_by_a_plan_and_by_what_was_said() -> None:
    around = order_of(["a", "b", "c"], "round-robin", {})
    assert [around.speaker(said(*[("x", "")] * n)) for n in range(5)] == ["a", "b", "c", "a", "b"]
    plan = order_of(["a", "b"], ["a", "b", "b", "a"], {})
    assert [plan.speaker(said(*[("x", "")] * n)) for n in range(5)] == ["a", "b", "b", "a", ""]
    by_text = order_of(AGENTS, "round-robin", ROUTES)
    work = said((PLANNER, "p"), (MULTIPLIER, "m"), (ADDER, "a"))
    assert by_text.speaker(work) == CRITIC
    assert by_text.speaker(said(*[(s.agent or "", s.text) for s in work], (CRITIC, "Accepted."))) == ""
    back = said(*[(s.agent or "", s.text) for s in work], (CRITIC, "Wrong sum."))
    assert by_text.speaker(back) == ADDER
    # Behind the agent that was sent back to, the plan goes on: an adder is followed by the critic.
    assert by_text.speaker((*back, Step("Answer: 1", agent=ADDER))) == CRITIC
    shown = (*work, Step("observation, which is no turn", "observation"))
    assert by_text.speaker(shown) == CRITIC


@pytest.mark.parametrize(
    ("order", "routes", "told"),
    [
        (["a", "z"], {}, "an order is round-robin or a list of a, b"),
        ("sometimes", {}, "an order is round-robin"),
        ("round-robin", {"a": [{"says": "x", "next": "z"}]}, "who never speaks"),
        ("round-robin", {"z": [{"says": "x", "next": "a"}]}, "who never speaks"),
        ("round-robin", {"a": [{"says": "(", "next": "b"}]}, "no regular expression"),
        ("round-robin", {"a": [{"next": "b"}]}, 'write {"says"'),
        ("round-robin", [], "routes are an object"),
        ([], {}, "this crew has no agent"),
    ],
)
def test_orders_that_are_none_are_refused(order: Any, routes: Any, told: str) -> None:
    with pytest.raises(InputError) as error:
        order_of(["a", "b"], order, routes)
    assert told in f"{error.value}"


class Recording:
    """Says one line, and keeps what it read."""

    batch_size, concurrency = 8, 1

    def __init__(self, name: str) -> None:
        self.name, self.read = name, list[Propose]()

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.read += questions
        return [[Continuation((Step(f"{self.name} speaks\n"),), True, 3)] * one.n for one in questions]


def test_each_agent_reads_its_own_turns_and_hears_the_others() -> None:
    one, other = Recording("one"), Recording("other")
    made = Crew({"a": Member(one, "You are a."), "b": Member(other)}, TurnOrder(("a", "b"), once=True))
    trace = said(("a", "first\n"))
    questions = [Propose(PROBLEM, (), Key.seed(0)), Propose(PROBLEM, trace, Key.seed(1), n=2), Propose(
        PROBLEM, (*trace, *said(("b", "second\n"))), Key.seed(2), n=3
    )]  # fmt: skip
    ((first,), (second, again), over) = made.propose(questions)
    assert [(step.agent, step.text) for c in (first, second, again) for step in c.steps] == [
        ("a", "one speaks\n"), ("b", "other speaks\n"), ("b", "other speaks\n")
    ]  # fmt: skip
    assert over == [Continuation((), True, 0)] * 3
    assert one.read[0].problem.messages == (
        {"role": "system", "content": "You are a."}, {"role": "user", "content": "Say it.\n"}
    )  # fmt: skip
    (heard,) = other.read[0].prefix
    assert (heard.text, heard.role, heard.kind) == ("a: first\n", "user", "observation")
    assert other.read[0].problem == PROBLEM
    assert (one.read[0].key, other.read[0].key, other.read[0].n) == (Key.seed(0), Key.seed(1), 2)


def test_the_result_of_a_call_is_a_tools_for_its_caller_alone() -> None:
    one, other = Recording("one"), Recording("other")
    made = Crew({"a": Member(one, acts=True), "b": Member(other)}, TurnOrder(("a", "b")))
    call = Step("call\n", agent="a")
    result = Step("5", "observation", "tool", meta={"tool_call_id": "c1"})
    made.propose([Propose(PROBLEM, (call, result), Key.seed(0))])
    assert [(s.role, s.meta) for s in other.read[0].prefix] == [("user", {}), ("user", {})]
    made.propose([Propose(PROBLEM, (call, result, Step("fine\n", agent="b")), Key.seed(0))])
    assert [(s.role, s.text) for s in one.read[0].prefix] == [
        ("assistant", "call\n"),
        ("tool", "5"),
        ("user", "b: fine\n"),
    ]


def test_rollouts_of_a_crew_estimate_the_exact_values() -> None:
    rows = sampled(4, n=64, samples=1)
    errors = [row.column("value") - WORLD.values(row.problem, row.steps) for row in rows]
    # 64 rollouts have a standard error of at most 1/16.
    assert all(np.abs(error).max() < 5 / 16 for error in errors)
    assert abs(np.mean(np.concatenate(errors))) < 0.1
    assert all(step.agent in AGENTS for row in rows for step in row.steps)
    assert all(row.outcome == WORLD.grade(row.problem, row.steps) for row in rows)


def test_the_value_before_a_turn_is_the_mean_after_it() -> None:
    problem, tables, order = WORLD.problem(3), {n: WORLD.table(n) for n in AGENTS}, crew().order

    def check(steps: tuple[Step, ...]) -> float:
        speaker = order.speaker(steps)
        if not speaker:
            return WORLD.grade(problem, steps)
        moves = [(check((*steps, replace(s, agent=speaker))), p) for s, p, _ in tables[speaker](problem, steps)]
        value = sum(p * v for v, p in moves)
        assert WORLD.value(problem, steps) == pytest.approx(value, abs=1e-12)
        return value

    assert 0.6 < check(()) < 0.8


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("a=x;a=y", "'a' is twice in this crew"), ("a=x;acts=b", "'b' acts, and is not in this crew"),
        ("a=x;turns=²", "a whole number from 1"), ("nowhere.json", "nowhere.json states no crew"),
        ("a=crew:b=builtin:arithmetic", "an agent of a crew is a crew"),
    ],
)  # fmt: skip
def test_an_address_that_states_no_crew_is_refused(source: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        policy_at(f"crew:{source}".replace("=x", "=builtin:arithmetic"))


@pytest.mark.parametrize("first", [0, 1])
def test_limits_of_a_crew_are_those_of_all_its_agents(first: int) -> None:
    class Limited:
        name = "limited"

        def __init__(self, limit: int) -> None:
            self.batch_size = self.concurrency = self.max_tokens = limit

        def room(self, problem: Problem) -> int:
            return self.batch_size - len(problem.text)

        def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
            raise AssertionError

    limits = {"small": Limited(20), "large": Limited(90)}
    order = ("small", "large") if first else ("large", "small")
    made = Crew({name: Member(limits[name]) for name in order}, TurnOrder(order))
    assert (made.batch_size, made.concurrency, made.max_tokens) == (20, 20, 90)
    assert made.room(Problem("p", "12345")) == 15
    unlimited = Crew(
        {"large": Member(limits["large"]), "free": Member(TabularPolicy(lambda *_: []))}, TurnOrder(("free",))
    )
    assert unlimited.max_tokens is None


def test_a_search_works_on_a_crew_and_an_expert_stands_in_for_its_agents() -> None:
    class Truth:
        name, batch_size = "truth", 64

        def score_many(self, questions: Sequence[Any]) -> list[Any]:
            return [Scored(WORLD.values(one.problem, one.steps)) for one in questions]

    problems = [WORLD.problem(number) for number in range(30)]
    settings: dict[str, Any] = {"scorer": Truth(), "grader": WORLD}
    plain = stepreward.search(problems, policy=crew(), method="majority", n=1, grader=WORLD)
    beam = stepreward.search(problems, policy=crew(), method="beam", beams=1, width=4, aggregate="last", **settings)

    def won(found: Any) -> float:
        return float(np.mean([one.found.answer == one.problem.reference for one in found]))

    assert won(beam) > 0.95 > won(plain)


def test_an_expert_stands_in_for_whoever_speaks() -> None:
    sure, order = PlannedSums(plan=0.0, slip=0.0, sees=1.0, alarm=0.0), crew().order
    # An expert hears what others said as observations: whose turn it is follows from how many there were.
    expert = TabularPolicy(lambda p, heard: sure.table(AGENTS[len(heard)])(p, heard), "expert")
    made = crew().helped_by(expert)
    problem, steps = WORLD.problem(1), tuple[Step, ...]()
    while speaker := order.speaker(steps):
        ((turn,),) = made.propose([Propose(problem, steps, Key.seed(3), expert=True)])
        steps += turn.steps
        assert steps[-1].agent == speaker
    assert WORLD.value(problem, steps) == 1.0


def test_a_crew_acts_in_an_environment_by_those_who_act() -> None:
    problem = Problem("s", "Work it out.", "12")

    def solver(_: Problem, prefix: tuple[Step, ...]) -> list[tuple[Step, float, bool]]:
        shown = [step.text for step in prefix if step.kind == "observation" and step.text.isdigit()]
        call = '{"name": "calculate", "arguments": {"expression": "3 * 4"}}'
        return [(Step(f"Answer: {shown[-1]}" if shown else call), 1.0, True)]

    talk = TabularPolicy(lambda *_: [(Step("Go on.\n"), 1.0, True)], "critic")
    made = Crew(
        {"critic": Member(talk), "solver": Member(TabularPolicy(solver, "solver"), acts=True)},
        TurnOrder(("critic", "solver")),
    )
    agent = stepreward.policy(made, environment="tools")
    (row,) = stepreward.label([problem], policy=agent, grader="mathematics", method="math-shepherd", n=2, samples=1)
    assert [(s.agent, s.kind) for s in row.steps] == [
        ("critic", "action"), ("solver", "action"), (None, "observation"), ("critic", "action"), ("solver", "action")
    ]  # fmt: skip
    assert (row.steps[2].text, row.outcome) == ("12", 1.0)
    with pytest.raises(InputError, match="agent 'solver' acts, and nothing is there to act in"):
        stepreward.policy(made)
    with pytest.raises(InputError, match="no agent of this crew acts"):
        placed(Crew({"critic": Member(talk)}, TurnOrder(("critic",))), agent.environment)  # type: ignore[attr-defined]


def test_an_episode_ends_at_its_limit_of_turns() -> None:
    talk: Policy = TabularPolicy(lambda *_: [(Step("And so on.\n"), 1.0, True)], "talker")
    made = Crew({"a": Member(talk), "b": Member(talk)}, TurnOrder(("a", "b")), turns=3)
    shown = made.environment.act_many([Act(PROBLEM, said(*[("a", "x")] * n)) for n in range(4)])
    assert [one.done for one in shown] == [False, False, False, True]


def test_addresses_name_policies_a_plan_and_a_limit(tmp_path: Path) -> None:
    opened = list[str]()

    def opening(address: str) -> Policy:
        opened.append(address)
        return TabularPolicy(lambda *_: [], address)

    made = crew_at(
        "solver=http://x/v1#m?top_p=0.5;critic=builtin:a;order=solver,critic,solver;turns=5;acts=solver", opening
    )
    assert opened == ["http://x/v1#m?top_p=0.5", "builtin:a"]
    assert (made.order.plan, made.order.once, made.turns) == (("solver", "critic", "solver"), True, 5)
    assert [one.acts for one in made.members.values()] == [True, False]
    path = tmp_path / "crew.json"
    path.write_text(json.dumps({"agents": {"a": "same", "b": {"policy": "same", "instructions": "Be b."}}}))
    opened.clear()
    assert crew_at(str(path), opening).members["b"].instructions == "Be b."
    assert opened == ["same"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"agents": {"a": 1}}, "agent 'a' names no policy"),
        ({"agents": {"a": {"policy": "x", "mood": 1}}}, "has no setting 'mood'"),
        ({"agents": {"a": {"policy": "x", "acts": "yes"}}}, "acts is true or false"),
        ({"agents": {"a": "x"}, "turns": 0}, "a whole number from 1"),
        ({"agents": {"a": "x"}, "moods": 1}, "a crew is a JSON object"),
        ([], "a crew is a JSON object"),
        ({"agents": {"": "x"}}, "an agent of this crew has no name"),
        ({"agents": {"a": "x"}, "routes": {"a": 5}}, "routes are an object by agent"),
    ],
)
def test_a_file_that_states_no_crew_is_refused(row: Any, told: str, tmp_path: Path) -> None:
    path = tmp_path / "crew.json"
    path.write_text(json.dumps(row))
    with pytest.raises(InputError) as error:
        crew_at(str(path), lambda address: TabularPolicy(lambda *_: [], address))
    assert told in f"{error.value}"
    assert "crew.json" in f"{error.value}"


def test_the_command_line_labels_a_crew_of_servers_and_blames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def agent(messages: list[dict[str, Any]], seed: int) -> str:
        if messages[0]["content"] == "You plan.":
            assert [m["role"] for m in messages] == ["system", "user"]
            return "First 3 * 4.\n" if seed % 2 else "First 3 + 4.\n"
        assert "planner: First" in messages[-1]["content"]
        return "Answer: 12\n" if "First 3 * 4" in messages[-1]["content"] else "Answer: 7\n"

    rows = [{"id": f"p{n}", "prompt": f"What is 3 * 4? ({n})", "reference": "12"} for n in range(4)]
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(agent) as (address, _):
        spec = {
            "agents": {"planner": {"policy": address, "instructions": "You plan."}, "solver": address},
            "order": ["planner", "solver"],
        }
        Path("crew.json").write_text(json.dumps(spec))
        told = json.loads(invoke(
            "label --problems problems.jsonl --policy crew:crew.json --estimator math-shepherd --rollouts 4 "
            "--samples 4 --transform soft --out labels --json"
        ))  # fmt: skip
        told_off = refused(
            "label --problems problems.jsonl --policy crew:crew.json --top-k 5 --out x", capsys, monkeypatch
        )
        assert "top_k is a setting of one policy" in told_off
    # Equal solutions of a problem are one.
    assert told["trajectories"] == 8
    shown = invoke("blame labels/labels.parquet --out blame.jsonl")
    assert "planner" in shown
    blamed = [json.loads(line) for line in Path("blame.jsonl").read_text().splitlines()]
    assert blamed
    assert {(one["agent"], one["step"], one["text"]) for one in blamed} == {("planner", 0, "First 3 + 4.")}
