"""Step rewards in NeMo-Gym: a gymnasium server whose every step is rewarded by a scorer.

    class Server(scored(MyServer, stepreward.load("runs/demo/model"))):   # MyServer: a GymnasiumServer
        pass

NeMo-Gym's agent adds up the rewards of steps, and its trainers read the sum; `info` holds the step rewards and the raw
outcome. Needs no import of NeMo-Gym.
"""

from __future__ import annotations

import math
from typing import Any

from stepreward.connect.engines.engine_rollouts import STEP_REWARDS
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.types import Problem, Step


def said(action: Any) -> str:
    """What a response of the Responses API says and calls, as text."""
    parts = []
    for item in action.output:
        if item.type == "message":
            content = item.content
            parts += [content] if isinstance(content, str) else [p.text for p in content if p.type == "output_text"]
        elif item.type == "function_call":
            parts.append(f"{item.name}({item.arguments})")
    return "\n".join(parts)


def scored(server: type, scorer: Scorer, *, weight: float = 1.0) -> type:
    """A gymnasium server that adds the scorer's number of the newest action to its reward.

    Args:
        server: a subclass of `GymnasiumServer`.
        scorer: of steps; an action that it leaves out adds nothing, and is None in `info["step_rewards"]`.
        weight: of the scorer's numbers beside the server's own reward.
    """
    sessions: dict[str | None, tuple[Problem, list[Step], list[float | None], list[float]]] = {}

    class ScoredServer(server):  # type: ignore[misc]
        """The server with a reward for each step."""

        async def reset(self, metadata: dict[str, Any], session_id: str | None = None) -> tuple[str | None, Any]:
            """What the server says first is the problem."""
            first, info = await super().reset(metadata, session_id)
            name = str(metadata.get("id", session_id))
            sessions[session_id] = Problem(name, first or str(metadata.get("prompt", name))), [], [], []
            return first, info

        async def step(
            self, action: Any, metadata: dict[str, Any], session_id: str | None = None
        ) -> tuple[str | None, float, bool, bool, dict[str, Any]]:
            """One action: the server's answer, rewarded."""
            problem, steps, rewards, own = sessions[session_id]
            seen, reward, terminated, truncated, info = await super().step(action, metadata, session_id)
            steps.append(Step(said(action)))
            (answer,) = scorer.score_many([Score(problem, tuple(steps))])
            score = float(answer.scores[-1])
            steps += [Step(seen, "observation", "tool")] if seen else []
            rewards.append(None if math.isnan(score) else score)
            own.append(reward)
            more = {STEP_REWARDS: list(rewards), "outcome": sum(own)}
            if terminated or truncated:
                del sessions[session_id]
            return seen, reward + weight * (rewards[-1] or 0.0), terminated, truncated, {**info, **more}

    return ScoredServer
