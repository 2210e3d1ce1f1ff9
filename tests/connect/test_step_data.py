"""Places of steps, worked out by hand."""

from __future__ import annotations

from itertools import combinations

from stepreward.connect.step_data import DERIVED, places
from stepreward.core.types import Problem, Step, Trajectory

PROBLEM = Problem("p", "Find the key.")


def act(text: str) -> Step:
    return Step(text)


def see(text: str) -> Step:
    return Step(text, "observation", "tool")


def walk(*steps: Step) -> dict[str, list[int]]:
    return {name: ids.tolist() for name, ids in places(Trajectory(PROBLEM, steps)).items()}


def test_an_observation_is_the_state_whatever_led_there() -> None:
    left = walk(act("go left"), see("a hall"), act("open box"))
    right = walk(act("go right"), see("a hall"), act("open box"))
    assert left["state"][0] == right["state"][0], "the bare problem"
    assert left["state"][1] == right["state"][1], "the same hall"
    assert left["edge"][1] == right["edge"][1], "the same action there"
    assert left["node"][1] != right["node"][1], "but not by the same way"
    assert left["turn"] == right["turn"] == [0, 1]


def test_without_observations_a_state_is_all_that_was_said() -> None:
    one = walk(act("a\n"), act("b\n"), act("c\n"))
    other = walk(act("a\n"), act("x\n"), act("c\n"))
    assert one["state"][:2] == other["state"][:2]
    assert one["state"][2] != other["state"][2]
    assert one["turn"] == [0, 0, 0]
    assert one["state"][1] == one["edge"][0]


def test_actions_of_one_turn_are_not_in_one_state() -> None:
    made = walk(see("start"), act("think\n"), act("do\n"), see("done"), see("and more"), act("answer"))
    assert made["turn"] == [0, 0, 1]
    assert len(set(made["state"])) == 3


def test_who_speaks_is_part_of_what_is_said_and_ids_do_not_depend_on_the_process() -> None:
    made = [walk(Step("yes", agent=name))["node"][0] for name in ("a", "b")]
    assert made[0] != made[1]
    assert walk(act("a"))["node"] == [3696382478217550447]
    assert all(name in DERIVED for name in ("state", "edge", "node", "turn"))


def test_different_problems_share_no_place() -> None:
    trajectories = [Trajectory(Problem(str(i), f"problem {i}"), (act("a"),)) for i in range(3)]
    for one, other in combinations(map(places, trajectories), 2):
        assert not {int(i) for i in one["node"]} & {int(i) for i in other["node"]}
