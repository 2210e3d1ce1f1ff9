"""Environments of this package in TRL's loop: classes for its `environment_factory`, and what goes with them.

TRL calls every public method of an environment as a tool, so that a class has no other ones. Step rewards are kept in
`step_rewards`, which `trl_sources.EnvironmentNumbers` reads.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepreward.core.errors import InputError, ModelError
from stepreward.core.runtime.acts import Environment, Observation
from stepreward.core.runtime.flows import Grader
from stepreward.core.segment.tool_calls import CALLS, parsed, step_of_message
from stepreward.core.types import Problem, Step
from stepreward.environments.tools.standard import AgentTool
from stepreward.environments.tools.tool_episode import ToolEpisode, tools_of

Message = Mapping[str, Any]
"""A message of TRL's completions: `role`, `content`, and `tool_calls` of a turn that makes some."""
_LINES = (
    "{% for m in messages %}{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}"
    "{% endfor %}{{ '\\n' }}{% endfor %}"
)
_CALL = {"name": "{name}", "arguments": "{content}"}
_READ = {
    "defaults": {"role": "assistant"},
    "start_anchor": "\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r'\{"name":\s*"(?P<name>[^"]+)",\s*"arguments":\s*', "close_pattern": r"\}\n",
            "repeats": True, "content": "json", "transform": {"type": "function", "function": _CALL},
        },
        "content": {"close_pattern": r"\n", "content": "text"},
    },
}  # fmt: skip
"""How transformers (from 5.13) reads a line: a call, or else a text."""


def trl_environment(make: Callable[[], Environment]) -> type:
    """A class for TRL's `environment_factory` with one tool, `act`, which executes an action written as a text.

    Args:
        make: makes an environment for one episode, such as a class.
    """

    class Acting(_InTrl):
        """An episode."""

        def __init__(self) -> None:
            super().__init__(make, answers=False)

        def act(self, action: str) -> str:
            """Executes an action.

            Args:
                action: what to do, as a text.

            Returns:
                What is seen then.
            """
            return self._called("act", {"action": action}, Step(action))

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
        _InTrl.__init__(self, lambda: ToolEpisode(**settings), answers=True)

    methods = {name: _method(tool) for name, tool in tools_of(example).items()}
    return type("Tools", (_InTrl,), {"__init__": begun, "__doc__": "An episode of calls.", **methods})


def trl_rows(problems: Sequence[Problem]) -> dict[str, list[Any]]:
    """Columns of a data set for TRL: `prompt` as messages, `id`, `reference`, and what the problems' meta holds.

    Objects and lists become JSON in text, since a data set would merge the keys of all rows; `reset` reads them again.
    """

    def written(value: Any) -> Any:
        return json.dumps(value) if isinstance(value, Mapping | list | tuple) else value

    names = sorted({name for one in problems for name in one.meta})
    return {
        "prompt": [[dict(message) for message in one.messages] for one in problems],
        "id": [one.id for one in problems],
        "reference": [one.reference for one in problems],
        **{name: [written(one.meta.get(name)) for one in problems] for name in names},
    }


def line_chat(tokenizer: Any) -> Any:
    """A copy of a tokenizer with the chat of the built-in agent `builtin:shop`, whose calls TRL then reads.

    A message is a line, a call is a line of JSON, and a turn ends where its line does.

    Raises:
        InputError: the end of a line is not one token.
        ModelError: transformers is older than 5.13, which reads no such answers.
    """
    made = copy.deepcopy(tokenizer)
    end = made("\n")["input_ids"]
    if len(end) != 1:
        raise InputError(f"the end of a line is {len(end)} tokens", remedy="take a tokenizer where it is one")
    if not hasattr(tokenizer, "response_template"):
        raise ModelError("transformers reads answers by a template from 5.13 on: pip install 'transformers>=5.13'")
    made.chat_template, made.response_template = _LINES, _READ
    # TRL ends turns where the tokenizer does, whatever the model's configuration says.
    made.eos_token = made.convert_ids_to_tokens(end)[0]
    return made


class EpisodeOutcome:
    """A reward function of TRL that ends the episodes of `trl_tools` and `trl_environment`, and says how they went.

        Tools = trl_tools(problem, reward="shop")
        StepGRPOTrainer(model, EpisodeOutcome(grader), config, data, environment_factory=Tools,
                        step_rewards=EnvironmentNumbers(), credit="pure", step_end="")

    TRL tells an environment of calls alone. So the answer, a last turn without a call, is given to the episode here,
    and graded where the environment leaves that to a grader; an episode of tools that ends without an answer is lost.
    Then `step_rewards` has one number a turn, as trainers read it: the mean over the calls of a turn, NaN for a turn
    whose calls TRL refused, such as those of a tool that there is not.

    Args:
        grader: of answers.
    """

    def __init__(self, grader: Grader) -> None:
        self.grader, self.__name__ = grader, "outcome"

    def __call__(self, completions: Sequence[Sequence[Message]], environments: Sequence[Any], **_: Any) -> list[float]:
        """(B,) outcomes, NaN where the environment's own `get_reward` has told it: TRL adds the two.

        Raises:
            InputError: an environment is none of this package.
        """
        for one in environments:
            if not isinstance(one, _InTrl):
                what = f"{type(one).__name__} is no environment of trl_tools or trl_environment"
                raise InputError(what, remedy="give it a get_reward of its own, and leave EpisodeOutcome out")
        return [one._ended(row, self.grader) for row, one in zip(completions, environments, strict=True)]


class _InTrl:
    def __init__(self, make: Callable[[], Environment], answers: bool) -> None:
        self._make, self._answers = make, answers
        self._environment: Environment | None = None
        self.problem, self._last = Problem("", ""), Observation()
        self._calls: list[tuple[dict[str, Any], float]] = []
        self.step_rewards: list[float] = []

    def reset(self, **row: Any) -> str | None:
        """Begins an episode of a row of the data: `prompt`, and what the environment reads of it."""
        if self._environment is not None:
            self._environment.close()
        self._environment, self._calls, self.step_rewards = self._make(), [], []
        self.problem = _problem(row)
        self._last = self._environment.reset(self.problem)
        return self._shown() or None

    def get_reward(self) -> float:
        """The outcome, NaN where the environment cannot tell."""
        return self._last.outcome

    def _called(self, name: str, arguments: Mapping[str, Any], action: Step) -> str:
        assert self._environment is not None
        reward, shown = float("nan"), "The episode is over."
        if not self._last.done:
            self._last = self._environment.act(action)
            reward, shown = self._last.reward, self._shown()
        self._calls.append(({"name": name, "arguments": dict(arguments)}, reward))
        self.step_rewards.append(reward)
        return shown

    def _ended(self, messages: Sequence[Message], grader: Grader) -> float:
        """The outcome that the environment leaves to the grader, NaN where it does not; rewards are by turn then."""
        turns = [message for message in messages if message["role"] == "assistant"]
        self.step_rewards = self._by_turn(turns)
        if not self._answers or self._last.done:
            return float("nan")
        if not turns or turns[-1].get("tool_calls"):
            return 0.0
        assert self._environment is not None
        steps = [step_of_message(message) for message in messages]
        seen = self._environment.act(steps[-1])
        self.step_rewards[-1] = seen.reward
        if not seen.done:
            return 0.0
        self._last = seen
        return grader.grade(self.problem, steps) if np.isnan(seen.outcome) else float("nan")

    def _by_turn(self, turns: Sequence[Message]) -> list[float]:
        """The mean reward of each turn's calls; those that TRL refused never came here, and are not scored."""
        made, done = [], 0
        for turn in turns:
            found = []
            for call in turn.get("tool_calls") or ():
                function = {name: call["function"][name] for name in ("name", "arguments")}
                if done < len(self._calls) and self._calls[done][0] == function:
                    found.append(self._calls[done][1])
                    done += 1
            scored = [one for one in found if not np.isnan(one)]
            made.append(float(np.mean(scored)) if scored else float("nan"))
        return made

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
        return self._called(tool.name, arguments, Step("", meta={CALLS: [call]}))

    names = tool.parameters["properties"]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str) for name in names]
    called.__name__ = called.__qualname__ = tool.name
    called.__signature__ = inspect.Signature([own, *given], return_annotation=str)  # type: ignore[attr-defined]
    called.__annotations__ = {**dict.fromkeys(names, str), "return": str}
    about = "\n".join(f"    {name}: {one.get('description', name)}" for name, one in names.items())
    called.__doc__ = f"{tool.description}\n\nArgs:\n{about}\n\nReturns:\n    What the tool shows."
    return called
