"""Episodes of TRL as an environment has them: values of forks against exact ones, and a reward model's form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")

from stepreward.connect.trl_episodes import played
from stepreward.connect.trl_sources import InEnvironment, RolloutValues
from stepreward.core.catalog import generate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act
from stepreward.core.segment.tool_calls import stated_calls
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.environments.by_address import environment_at
from stepreward.environments.tools.shop import known_after, needed, nodes_of
from stepreward.environments.tools.shop_writers import call
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.mathematics import MathGrader

USELESS = call("calculate", expression="1 + 1")
PROBLEM = next(generate["shop"].take({"key": Key.seed(0)}, fewest=2, most=2))
WHOLE = len(needed(nodes_of(PROBLEM), set()))
"""Calls that are needed in all."""
TURNS = WHOLE + 3
END = ord("\n")


class Letters:
    """A tokenizer whose tokens are letters; a line ends a turn."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, ids))


def known(steps: Sequence[Step]) -> set[int]:
    found = set[int]()
    for step in steps:
        for one in stated_calls(step) if step.kind == "action" else ():
            found = known_after(nodes_of(PROBLEM), one, found)
    return found


def next_call(steps: Sequence[Step]) -> str:
    """The action that is needed next."""
    nodes = nodes_of(PROBLEM)
    at = (needed(nodes, known(steps)) or [-1])[0]
    if at < 0:
        return f"Answer: {PROBLEM.reference}"
    node = nodes[at]
    if node.item:
        return call("price", item=node.item)
    return call("calculate", expression=f"{nodes[node.left].value} {node.operator} {nodes[node.right].value}")


def policy(right: float, wrong: float) -> TabularPolicy:
    """Acts rightly, answers wrongly, or wastes a turn."""

    def turns(_: Problem, steps: Sequence[Step]) -> list[tuple[Step, float, bool]]:
        chances = {next_call(steps): right, "Answer: -1": wrong, USELESS: 1 - right - wrong}
        return [(Step(text), chance, True) for text, chance in chances.items() if chance > 0]

    return TabularPolicy(turns, "clerk")


def exact(right: float, wrong: float, left: int, turns: int) -> float:
    """The chance to win with some actions needed before the answer, and some turns: by enumeration."""

    @cache
    def value(left: int, turns: int) -> float:
        if not turns:
            return 0.0
        # An answer ends the episode in any turn; a call in the last one loses it.
        return right * (1.0 if not left else value(left - 1, turns - 1)) + (1 - right - wrong) * value(left, turns - 1)

    return value(left, turns)


def from_trl(*acts: str, shown: str = "") -> Trajectory:
    """An episode as TRL writes it: lines, and nothing of the problem but its prompt; `shown` in place of what is."""
    environment, steps, mine = environment_at(f"tools?turns={TURNS}"), list[Step](), list[Step]()
    for at, act in enumerate(acts):
        line = f"{act}\n"
        steps.append(Step(line, tokens=tuple(map(ord, line))))
        mine.append(Step(act))
        (seen,) = environment.act_many([Act(PROBLEM, tuple(mine))])
        mine += seen.steps
        if at + 1 < len(acts):
            text = shown or "\n".join(one.text for one in seen.steps)
            steps.append(Step(f"{text}\n", "observation", "tool"))
    outcome = float(acts[-1] == f"Answer: {PROBLEM.reference}")
    return Trajectory(Problem(PROBLEM.text, PROBLEM.prompt), tuple(steps), outcome)


def trainer(count: int) -> Any:
    return SimpleNamespace(
        environments=[SimpleNamespace(problem=PROBLEM) for _ in range(count)], processing_class=Letters(),
        eos_token_ids=[END], accelerator=SimpleNamespace(process_index=0),
        model=SimpleNamespace(training=False, eval=lambda: None, train=lambda _: None),
    )  # fmt: skip


def written() -> tuple[str, ...]:
    """An episode with a wasted turn, whose answer is right."""
    steps: list[Step] = [Step(USELESS)]
    while not steps[-1].text.startswith("Answer"):
        steps.append(Step(next_call(steps)))
    return tuple(step.text for step in steps)


EPISODE = written()
LEFT = [len(needed(nodes_of(PROBLEM), known([Step(act) for act in EPISODE[: at + 1]]))) for at in range(len(EPISODE))]
"""Actions that are needed behind each turn, before the answer."""


def values(right: float, wrong: float, n: int, episodes: Sequence[Trajectory], **how: Any) -> list[np.ndarray]:
    environment = environment_at(f"tools?turns={TURNS}")
    source = RolloutValues(MathGrader(), n=n, key=Key.seed(1), environment=environment, **how)
    source.attach(trainer(len(episodes)))
    source._rollouts = SimpleNamespace(policy_of=lambda _: policy(right, wrong))  # type: ignore[assignment]
    return source(episodes)


def test_values_of_forks_are_exact_where_nothing_is_left_to_chance() -> None:
    slow = from_trl(USELESS, *[USELESS] * 3, next_call([]))
    made = values(1.0, 0.0, 1, [from_trl(*EPISODE), slow])
    turns = TURNS - 1 - np.arange(len(EPISODE))
    assert made[0].tolist() == [exact(1.0, 0.0, LEFT[at], turns[at]) for at in range(len(EPISODE) - 1)] + [1.0]
    # Four turns are wasted: from some turn on the limit comes before the answer.
    expected = [exact(1.0, 0.0, WHOLE, TURNS - 1 - at) for at in range(4)]
    assert made[1].tolist() == [*expected, 0.0]
    assert set(expected) == {0.0, 1.0}


def test_values_of_forks_are_those_of_the_policy_and_may_stand_before_the_turns() -> None:
    n, right, wrong = 40, 0.8, 0.1
    (before,) = values(right, wrong, n, [from_trl(*EPISODE)], before=True, root=True)
    expected = [exact(right, wrong, LEFT[at], TURNS - 1 - at) for at in range(len(EPISODE) - 1)]
    deviation = np.sqrt(np.array(expected) * (1 - np.array(expected)) / n)
    assert (np.abs(before[1:] - expected) < 4 * deviation).all()
    root = exact(right, wrong, WHOLE, TURNS)
    assert abs(before[0] - root) < 4 * np.sqrt(root * (1 - root) / n)


def test_an_episode_in_which_trl_showed_something_else_has_no_numbers() -> None:
    good, other = from_trl(*EPISODE), from_trl(*EPISODE, shown="no such tool")
    made = values(1.0, 0.0, 1, [other, good])
    assert np.isnan(made[0]).all()
    assert made[0].shape == made[1].shape == (len(EPISODE),)
    assert not np.isnan(made[1]).any()
    assert np.isnan(values(1.0, 0.0, 1, [other])[0]).all()


def test_a_source_reads_episodes_as_their_environment_has_them() -> None:
    seen: list[Trajectory] = []

    def scores(trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        seen.extend(trajectories)
        return [np.where(one.action, np.arange(len(one)), np.nan) for one in trajectories]

    source = InEnvironment(scores, environment_at(f"tools?turns={TURNS}"))
    source.attach(trainer(1))
    (made,) = source([from_trl(*EPISODE)])
    assert made.tolist() == [2.0 * at for at in range(len(EPISODE))]
    (one,) = seen
    assert one.problem == PROBLEM
    assert [step.text for step in one.steps if step.kind == "action"] == [*EPISODE]
    assert one.steps[1].text == "2", "without the end of the line that a template wrote"
    assert one.steps[0].tokens == tuple(map(ord, EPISODE[0]))


def test_a_trainer_without_such_environments_is_refused() -> None:
    for running in (None, [SimpleNamespace()], []):
        with pytest.raises(InputError, match="environment_factory=trl_tools"):
            played([from_trl(*EPISODE)], SimpleNamespace(environments=running), environment_at("tools"))
