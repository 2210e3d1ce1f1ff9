"""Environments of this package in TRL's loop: classes for its `environment_factory`.

TRL calls every public method of an environment as a tool, so that a class has no other ones. Step rewards are kept in
`step_rewards`, which `trl_sources.EnvironmentNumbers` reads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from stepreward.core.runtime.acts import Environment, Observation
from stepreward.core.segment.tool_calls import CALLS, parsed
from stepreward.core.types import Problem, Step
from stepreward.environments.tools.standard import AgentTool
from stepreward.environments.tools.tool_episode import ToolEpisode, tools_of


def trl_environment(make: Callable[[], Environment]) -> type:
    """A class for TRL's `environment_factory` with one tool, `act`, which executes an action written as a text.

    Args:
        make: makes an environment for one episode, such as a class.
    """

    class Acting(_InTrl):
        """An episode."""

        def __init__(self) -> None:
            super().__init__(make)

        def act(self, action: str) -> str:
            """Executes an action.

            Args:
                action: what to do, as a text.

            Returns:
                What is seen then.
            """
            return self._acted(Step(action))

    return Acting


def trl_tools(example: Problem, **settings: Any) -> type:
    """A class for TRL's `environment_factory` with the tools that a problem offers, as methods of their names.

    Args:
        example: a problem of the data; all of them offer the same tools.
        settings: of `environments.tools.tool_episode.ToolEpisode`, such as `reward`.

    Raises:
        InputError: the problem names a tool that there is not.
    """

    def begun(self: _InTrl) -> None:
        _InTrl.__init__(self, lambda: ToolEpisode(**settings))

    methods = {name: _method(tool) for name, tool in tools_of(example).items()}
    return type("Tools", (_InTrl,), {"__init__": begun, "__doc__": "An episode of calls.", **methods})


class _InTrl:
    def __init__(self, make: Callable[[], Environment]) -> None:
        self._make = make
        self._environment: Environment | None = None
        self._last = Observation()
        self.step_rewards: list[float] = []

    def reset(self, **row: Any) -> str | None:
        """Begins an episode of a row of the data: `prompt`, and what the environment reads of it."""
        if self._environment is not None:
            self._environment.close()
        self._environment, self.step_rewards = self._make(), []
        self._last = self._environment.reset(_problem(row))
        return self._shown() or None

    def get_reward(self) -> float:
        """The outcome, NaN where the environment cannot tell."""
        return self._last.outcome

    def _acted(self, action: Step) -> str:
        assert self._environment is not None
        if self._last.done:
            return "The episode is over."
        self._last = self._environment.act(action)
        self.step_rewards.append(self._last.reward)
        return self._shown()

    def _shown(self) -> str:
        return "\n".join(step.text for step in self._last.steps)


def _problem(row: Mapping[str, Any]) -> Problem:
    """A row of TRL's data as a problem; absent fields of a row are None there, and objects may be JSON in text."""
    known = {
        name: parsed(value) if name != "prompt" and str(value).startswith(("{", "[")) else value
        for name, value in row.items()
        if value is not None
    }
    prompt = known.pop("prompt", "")
    reference = known.pop("reference", None)
    text = prompt if isinstance(prompt, str) else tuple(prompt)
    return Problem(str(known.pop("id", "")), text, None if reference is None else str(reference), known)


def _method(tool: AgentTool) -> Callable[..., str]:
    """A tool as a method whose signature and docstring TRL makes a schema of."""

    def called(self: _InTrl, **arguments: str) -> str:
        call = {"name": tool.name, "arguments": arguments}
        return self._acted(Step("", meta={CALLS: [call]}))

    names = tool.parameters["properties"]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str) for name in names]
    called.__name__ = called.__qualname__ = tool.name
    called.__signature__ = inspect.Signature([own, *given], return_annotation=str)  # type: ignore[attr-defined]
    called.__annotations__ = {**dict.fromkeys(names, str), "return": str}
    about = "\n".join(f"    {name}: {one.get('description', name)}" for name, one in names.items())
    called.__doc__ = f"{tool.description}\n\nArgs:\n{about}\n\nReturns:\n    What the tool shows."
    return called
