"""Numbers of a run after each of its turns that need no model: length, repetition, errors of tools, surprise.

They are computed turn by turn in bounded memory, by the same code from a log and in a running agent. None reads what
comes later: neither the length of the whole run, nor the environment's answer to its last action.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from stepreward.core.segment.tool_calls import calls_of, spelled
from stepreward.core.types import Floats, Step

SIGNALS: Mapping[str, str] = {
    "turn": "number of the turn, from 1",
    "log_turn": "its logarithm",
    "action_length": "log(1 + characters) of this turn's action",
    "mean_action_length": "mean of these so far",
    "observation_length": "log(1 + characters) of what this turn's action was answered",
    "repeats": "1 where this action was taken before",
    "repeated": "share of turns that repeat an action",
    "same_observation": "share of turns answered as an earlier one was",
    "overlap": "words shared with the action before, over the words of both",
    "error": "1 where this turn's answer speaks of an error",
    "errors": "share of turns with such an answer",
    "error_streak": "such turns in a row up to now",
    "regrets": "share of actions that apologise or say that something cannot be done",
    "call": "1 where this action calls a tool",
    "calls": "share of actions that do",
    "surprise": "mean negative log-probability of this action's tokens, where recorded: it estimates the entropy",
    "mean_surprise": "mean of these so far",
    "score": "a scorer's score of this action, where there is one",
    "min_score": "the lowest so far",
    "mean_score": "their mean so far",
}
"""The numbers of a turn, in order, and what they are."""
_KEPT = 512
"""Different actions, and answers, that are remembered."""
_WORDS, _LETTERS = 500, 32
"""Words of an action that are compared, and their letters."""
_ERROR = re.compile(
    r"\b(error|errors|exception|traceback|invalid|failed|failure|not found|no such|no results?|unable to|denied|refused"
    r"|timed? ?out|nothing happens|could not|couldn't|cannot|can't|exitcode: [1-9]\d*|exit code:? [1-9]\d*)\b",
    re.IGNORECASE,
)
_REGRET = re.compile(
    r"\b(sorry|apologi[sz]e|apologies|unfortunately|unable to|cannot|can't|could not find|not able to|mistake)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class AgentTurn:
    """One action and what the world answered to it."""

    action: Step
    answers: tuple[Step, ...] = ()
    place: int = 0
    """Index of the action among the run's steps."""
    ends: int = 1
    """Index of the step behind the turn."""


def agent_turns(steps: Sequence[Step]) -> list[AgentTurn]:
    """The turns of a run: each action with the observations up to the next one; those before the first are left out."""
    starts = [place for place, step in enumerate(steps) if step.kind == "action"]
    ends = [*starts[1:], len(steps)][: len(starts)]
    return [AgentTurn(steps[a], tuple(steps[a + 1 : b]), a, b) for a, b in zip(starts, ends, strict=True)]


def is_failed(answers: Sequence[Step]) -> bool:
    """Whether what an action was answered is marked as an error, or speaks of one."""
    answer = "\n".join(step.text.strip() for step in answers)
    return any(step.meta.get("is_error") is True for step in answers) or _ERROR.search(answer) is not None


class TurnSignals:
    """The numbers of a run so far, which grow by a turn at a time; memory is bounded, however long it goes on."""

    def __init__(self) -> None:
        self.turn = 0
        self._sums = dict.fromkeys(SIGNALS, 0.0)
        self._counts = dict.fromkeys(("surprise", "score"), 0)
        self._actions, self._answers = _Recent(), _Recent()
        self._before: frozenset[str] = frozenset()
        self._streak = 0
        self._lowest = float("nan")

    def after(self, turn: AgentTurn, score: float = float("nan")) -> Floats:
        """(F,) the numbers of `SIGNALS` after one more turn; NaN where something is not recorded.

        Args:
            turn: the turn.
            score: a scorer's, of its action.
        """
        self.turn += 1
        action, answer = turn.action, "\n".join(step.text.strip() for step in turn.answers)
        calls = calls_of(action)
        said = "\n".join(map(spelled, calls)) if calls else " ".join(action.text.lower().split())
        words = frozenset(one[0][:_LETTERS] for one in islice(_WORD.finditer(action.text.lower()), _WORDS))
        both = words | self._before
        failed = is_failed(turn.answers)
        self._streak = self._streak + 1 if failed else 0
        length = float(np.log1p(len(action.text)))
        now = {
            "turn": float(self.turn),
            "log_turn": float(np.log(self.turn)),
            "action_length": length,
            "mean_action_length": self._mean("action_length", length),
            "observation_length": float(np.log1p(len(answer))),
            "repeats": float(self._actions.seen(said)),
            "overlap": len(words & self._before) / len(both) if both and self.turn > 1 else 0.0,
            "error": float(failed),
            "errors": self._mean("error", float(failed)),
            "error_streak": float(self._streak),
            "regrets": self._mean("regrets", float(_REGRET.search(action.text) is not None)),
            "same_observation": self._mean("same_observation", float(bool(answer) and self._answers.seen(answer))),
            "call": float(bool(calls)),
            "calls": self._mean("call", float(bool(calls))),
            "score": score,
        }
        now["repeated"] = self._mean("repeats", now["repeats"])
        now["surprise"] = -float(np.mean(action.logprobs)) if action.logprobs else float("nan")
        now["mean_surprise"] = self._measured_mean("surprise", now["surprise"])
        now["mean_score"] = self._measured_mean("score", score)
        self._lowest = float(np.fmin(self._lowest, score))
        now["min_score"] = self._lowest
        self._before = words
        return np.array([now[name] for name in SIGNALS], np.float64)

    @property
    def size(self) -> int:
        """Bytes that it takes, or a little more."""
        return 8192 + 224 * (len(self._actions) + len(self._answers)) + 256 * len(self._before)

    def _mean(self, name: str, value: float) -> float:
        self._sums[name] += value
        return self._sums[name] / self.turn

    def _measured_mean(self, name: str, value: float) -> float:
        """The mean of the values that are not NaN; NaN where there is none."""
        if not np.isnan(value):
            self._sums[name] += value
            self._counts[name] += 1
        return self._sums[name] / self._counts[name] if self._counts[name] else float("nan")


class _Recent:
    """Which texts came before, of the latest different ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def seen(self, text: str) -> bool:
        """Whether the text came before; it has now."""
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        known = key in self._kept
        self._kept[key] = None
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return known


def signals_of(turns: Iterable[AgentTurn], scores: Iterable[float]) -> Floats:
    """(T, F) the numbers after each turn of a run."""
    made = TurnSignals()
    rows = [made.after(turn, score) for turn, score in zip(turns, scores, strict=True)]
    return np.array(rows, np.float64).reshape(-1, len(SIGNALS))
