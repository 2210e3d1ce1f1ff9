"""The contract of an environment, checked by acting in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from stepreward.core.runtime.acts import Environment, Forkable, Observation
from stepreward.core.types import Problem, Step
from stepreward.testing.rules import require


def check_environment(make: Callable[[], Environment], problem: Problem, actions: Sequence[str | Step]) -> None:
    """Checks that an environment keeps its contract: it repeats itself, and forks share nothing.

    Args:
        make: makes an environment for one episode, such as a class.
        problem: what an episode is about.
        actions: what is executed in turn, as far as the episode goes; the more it changes, the better the check. One
            that makes no sense is executed too.

    Raises:
        ContractError: a rule is broken; the message names the rule and the remedy.
    """
    steps = [one if isinstance(one, Step) else Step(one) for one in actions]
    first = _episode(make, problem, steps)
    again = _episode(make, problem, steps)
    for at, (one, other) in enumerate(zip(first, again, strict=False)):
        found = f"after {at} actions it shows {_seen(one)} once, and {_seen(other)} another time"
        remedy = "draw randomness from the problem's id or seed alone"
        require(_seen(one) == _seen(other), make(), "repeats itself", found, remedy)
    nonsense = make()
    nonsense.reset(problem)
    try:
        _check_shown(nonsense, nonsense.act(Step("\u2042")))
    except Exception as error:
        found = f"an action without sense raised {type(error).__name__}: {error}"
        require(False, nonsense, "errors are observations", found, "show what is wrong; the agent reads it")
    nonsense.close()
    forked = make()
    if isinstance(forked, Forkable):
        forked.reset(problem)
        for at in range(len(first) - 1):
            branch = forked.fork()
            branch.act(Step("\u2042"))
            shown, alone = _seen(forked.act(steps[at])), _seen(first[at + 1])
            found = f"after action {at + 1} it shows {shown} where a fork acted before, else {alone}"
            require(shown == alone, forked, "forks share nothing", found, "copy all that acting changes")
            branch.close()
    forked.close()


def _episode(make: Callable[[], Environment], problem: Problem, actions: Sequence[Step]) -> list[Observation]:
    environment = make()
    shown = [environment.reset(problem)]
    _check_shown(environment, shown[0])
    found = "an episode is over before its first action"
    require(not shown[0].done, environment, "begins", found, "reset to a state in which something can be done")
    for action in actions:
        if shown[-1].done:
            break
        shown.append(environment.act(action))
        _check_shown(environment, shown[-1])
    environment.close()
    return shown


def _check_shown(environment: Environment, shown: Observation) -> None:
    is_one = isinstance(shown, Observation)
    require(is_one, environment, "observations", f"{shown!r} was returned", "return a core.runtime.acts.Observation")
    kinds = {step.kind for step in shown.steps}
    found = f"steps of the kinds {sorted(kinds)} are shown"
    require(kinds <= {"observation"}, environment, "observations", found, 'make each Step(text, "observation", role)')
    outcome = shown.outcome
    sane = math.isnan(outcome) or 0 <= outcome <= 1
    require(sane, environment, "outcomes", f"an outcome is {outcome}", "give a grade in [0, 1], NaN where unknown")


def _seen(shown: Observation) -> tuple[object, ...]:
    """What an agent can tell apart; NaN is equal to itself."""
    numbers = tuple(None if math.isnan(value) else value for value in (shown.reward, shown.outcome))
    return (*(step.text for step in shown.steps), shown.done, *numbers, shown.answer)
