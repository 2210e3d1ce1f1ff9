"""The environment `tools`: an agent calls functions until it answers without a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from stepreward.core.catalog import check as checks
from stepreward.core.catalog import environment
from stepreward.core.errors import InputError
from stepreward.core.optional import optional
from stepreward.core.runtime.acts import Observation
from stepreward.core.segment.tool_calls import ANSWERS, Call, stated_calls
from stepreward.core.types import TOOLS, Problem, Step
from stepreward.core.vocabulary import Flag
from stepreward.environments.episode_pool import EpisodePool
from stepreward.environments.tools.standard import AgentTool, calculator, price, python, sql

OFFERED: Mapping[str, Callable[[Problem], AgentTool]] = {
    "calculate": lambda _: calculator(),
    "python": lambda _: python(),
    "sql": lambda problem: sql([*problem.meta["schema"]]),
    "price": price,
}
"""Tools by name, each made for a problem."""


class ToolEpisode:
    """An episode of calls; a `core.runtime.acts.Environment`.

    A problem says in its meta which tools it offers: `functions`, names of `OFFERED`, beside `calculate`; a tool may
    read further fields there, such as the `schema` of a database. Calls are the tool calls of a chat, or stated in the
    text as JSON. A turn without a call is the answer, which the grader decides; at the limit of turns the episode is
    over, and lost.

    Args:
        turns: most actions.
        reward: checker of the family `check` that rewards actions: 1 for a right one, 0 for a wrong one, NaN where it
            cannot tell; none where empty.
    """

    def __init__(self, turns: int = 12, reward: str = "") -> None:
        self._most, self._reward = turns, reward
        self._problem, self._steps = Problem("", ""), list[Step]()
        self._tools: dict[str, AgentTool] = {}

    def reset(self, problem: Problem) -> Observation:
        """Begins an episode; nothing is shown beside the problem.

        Raises:
            InputError: the problem names a tool that there is not.
        """
        self._problem, self._tools = problem, tools_of(problem)
        return Observation()

    def act(self, action: Step) -> Observation:
        """Runs the calls of an action, in order."""
        self._steps.append(action)
        reward, calls = self._rewarded(), stated_calls(action)
        if not calls:
            return Observation(done=True, reward=reward)
        shown = [_shown(call, self._result(call)) for call in calls]
        over = len(self._steps) >= self._most
        return Observation((*shown,), done=over, reward=reward, outcome=0.0 if over else float("nan"))

    def fork(self) -> ToolEpisode:
        """A copy: tools keep no state."""
        made = ToolEpisode(self._most, self._reward)
        made._problem, made._steps, made._tools = self._problem, [*self._steps], self._tools
        return made

    def close(self) -> None:
        """Nothing runs between calls."""

    def _rewarded(self) -> float:
        """What the checker says of the last action."""
        if not self._reward:
            return float("nan")
        said = checks[self._reward].take({"problem": self._problem, "steps": self._steps})[-1].right
        return float("nan") if said is None else float(said)

    def _result(self, call: Call) -> str:
        name, arguments = call["name"], call.get("arguments")
        if name is None:
            return f'this is no call; write {{"name": ..., "arguments": {{...}}}} with one of {_listed(self._tools)}'
        tool = self._tools.get(name)
        if tool is None:
            return f"there is no tool {name}; there are {_listed(self._tools)}"
        wrong = _misfit(arguments, tool.parameters)
        return f"{name} was not called: {wrong}" if wrong else tool.run(arguments)  # type: ignore[arg-type]


def tools_of(problem: Problem) -> dict[str, AgentTool]:
    """The tools that a problem offers, by name.

    Raises:
        InputError: it names one that there is not.
    """
    names = ["calculate", *problem.meta.get("functions", ())]
    for name in names:
        if name not in OFFERED:
            what = f"problem {problem.id!r} offers the tool {name!r}, and there is none"
            raise InputError(what, remedy=f"take any of {_listed(OFFERED)}")
    return {name: OFFERED[name](problem) for name in names}


def with_tools(problem: Problem) -> Problem:
    """The problem with its tools declared in OpenAI's form, as servers and chat templates take them."""
    declared = [tool.declared for tool in tools_of(problem).values()]
    return replace(problem, meta={**problem.meta, TOOLS: declared})


def _misfit(arguments: Any, wanted: Mapping[str, Any]) -> str:
    """Why arguments do not fit a JSON Schema; "" where they do."""
    errors = optional("jsonschema").Draft202012Validator(wanted).iter_errors(arguments)
    return next((error.message for error in errors), "")


def _shown(call: Call, text: str) -> Step:
    meta = {ANSWERS: call["id"]} if call.get("id") else {}
    return Step(text, "observation", "tool", meta=meta)


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    return ", ".join(sorted(names))


@environment.method("tools", note="ours: the loop of tool calls that chat interfaces share")
def tool_episodes(
    *, turns: Annotated[int, Flag(low=1)] = 12, reward: str = "", live: int = 1024, workers: int = 1
) -> EpisodePool:
    """Calls of functions: exact calculation, Python and SQL in a sandbox, functions of a problem's own.

    Args:
        turns: most actions of an episode.
        reward: checker that rewards actions, such as `shop`; see `stepreward methods check`.
        live: most episodes kept between actions.
        workers: calls that run at once, in threads: more than 1 where they are slow.
    """
    name = f"tools turns={turns}" + (f" reward={reward}" if reward else "")
    if reward:
        checks[reward]
    return EpisodePool(partial(ToolEpisode, turns, reward), name, live=live, concurrency=workers, prepare=with_tools)
