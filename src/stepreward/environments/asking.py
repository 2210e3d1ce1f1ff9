"""Models as actions: an agent asks other models by name, each at its price, beside what it does in an environment.

    Ask[small: What is the capital of Chad?]

The loop is that of Router-R1 (repository ulab-uiuc/Router-R1, commit 801a240), where an action names a model and a
question and the model's reply is shown; its reward that pays cheap answers is the shape `router-r1`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.catalog import environment
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.prefix_names import Name, prefix_of
from stepreward.core.runtime.acts import Act, Episodes, Observation, episode_of
from stepreward.core.runtime.flows import Continuation, Policy, Propose
from stepreward.core.segment.tool_calls import ANSWERS, calls_of, stated_calls
from stepreward.core.types import TOOLS, Floats, Problem, Step, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.environments.given_commands import arguments_schema, declared_tool

ASK = "ask"
COST, ASKED_MODEL = "cost", "asked_model"
"""Keys of an observation's meta: what the model's answer cost, and which model it was."""
KNOWN = 65_536
"""Answers that are kept, so that an episode that is looked at again asks nothing twice."""
_IN_TEXT = re.compile(r"\bask\s*\[([^:\[\]\n]+):([^\[\]]*)\]", re.IGNORECASE)
_OTHER = re.compile(r"\w\s*\[[^\[\]\n]*\]")
OpenPolicy = Callable[[str], Policy]


@dataclass(frozen=True)
class AskedModel:
    """A model that an agent may ask."""

    policy: Policy
    price: float = 0.0
    """Of a million generated tokens."""
    price_read: float = 0.0
    """Of a million tokens of questions, where the policy counts them."""
    about: str = ""
    """What the agent is told of it."""

    def cost(self, answer: Continuation) -> float:
        """What an answer cost."""
        return (self.price * answer.n_tokens + self.price_read * answer.n_prompt_tokens) / 1e6


class AskingEpisodes:
    """Episodes in which models can be asked; a `core.runtime.acts.Episodes`.

    Answers are the models'; all other turns, and what they show, are the inner environment's, which sees no questions.
    A question depends on the steps before it, so that the same one after others is drawn anew.

    Args:
        models: by name.
        inner: where the agent acts beside.
        most: questions of an episode; more are refused.
        turns: most turns of an episode, questions among them.
    """

    def __init__(self, models: Mapping[str, AskedModel], inner: Episodes, most: int = 8, turns: int = 24) -> None:
        self._models, self._inner, self._most, self._turns = models, inner, most, turns
        who = [(name, one.policy.name, one.price, one.price_read, one.about) for name, one in models.items()]
        digest = hashlib.blake2b(repr((who, most, turns)).encode(), digest_size=6).hexdigest()
        self.name = f"{inner.name}, asking {', '.join(models)} ({digest})"
        """Identity for caches and provenance."""
        self._known: OrderedDict[tuple[str, Name], Observation] = OrderedDict()

    @property
    def batch_size(self) -> int:
        """That of the inner environment."""
        return self._inner.batch_size

    @property
    def concurrency(self) -> int:
        """That of the inner environment."""
        return self._inner.concurrency

    def prepared(self, problem: Problem) -> Problem:
        """The problem as the inner environment prepares it; where it declares tools, `ask` is one of them."""
        made = self._inner.prepared(problem)
        if not made.meta.get(TOOLS):
            return made
        properties: dict[str, dict[str, Any]] = {
            "model": {"type": "string", "enum": [*self._models]},
            "question": {"type": "string"},
        }
        own = declared_tool(ASK, "Asks another model, at its price.", arguments_schema(properties))
        return replace(made, meta={**made.meta, TOOLS: [*made.meta[TOOLS], own]})

    def act_many(self, questions: Sequence[Act]) -> list[Observation]:
        """Answers the questions, in order; those to one model are asked together.

        Raises:
            PolicyError: a model cannot be asked.
        """
        answers: list[Observation | None] = [None] * len(questions)
        asked: dict[str, list[tuple[int, str, str]]] = {}
        acting: list[int] = []
        for at, one in enumerate(questions):
            said = asked_of(one.steps[-1]) if one.acts else None
            if said is None:
                acting.append(at)
                continue
            model, question, call = said
            answers[at] = self._known.get(_place(one)) or self._refused(one, model, call)
            if answers[at] is None:
                asked.setdefault(model, []).append((at, question, call))
        for model, some in asked.items():
            made = self._models[model].policy.propose([_question(questions[at], model, text) for at, text, _ in some])
            for (at, _, call), (answer,) in zip(some, made, strict=True):
                answers[at] = self._shown(questions[at], model, answer, call)
        seen = [Act(questions[at].problem, _without_questions(questions[at].steps)) for at in acting]
        shown = self._inner.act_many(seen)
        for at, made_there in zip(acting, shown, strict=True):
            answers[at] = self._beside(questions[at], made_there)
        return [one for one in answers if one is not None]

    def _refused(self, question: Act, model: str, call: str) -> Observation | None:
        """Why a question is not asked; None where it is."""
        before = sum(step.kind == "action" and asked_of(step) is not None for step in question.steps[:-1])
        why = ""
        if model not in self._models:
            why = f"There is no model {model:.80}; there are {', '.join(self._models)}."
        elif before >= self._most:
            why = f"All {self._most} questions are asked."
        return self._ended(question, _seen(f"{why}\n", call, {})) if why else None

    def _shown(self, question: Act, model: str, answer: Continuation, call: str) -> Observation:
        text, cost = "".join(step.text for step in answer.steps).strip(), self._models[model].cost(answer)
        cut = " (cut)" if answer.truncated else ""
        seen = _seen(f"{text or '(nothing was said)'}{cut}\n", call, {ASKED_MODEL: model, COST: cost})
        tokens = answer.n_tokens + answer.n_prompt_tokens
        made = self._ended(question, replace(seen, reward=-cost, cost=cost, tokens=tokens))
        # Looked at again, it costs nothing again.
        self._known[_place(question)] = replace(made, cost=0.0, tokens=0)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return made

    def _beside(self, question: Act, shown: Observation) -> Observation:
        """What the inner environment shows, behind the list of models at the beginning."""
        if question.steps:
            # Behind a question the inner environment is where it was, and shows nothing again.
            return self._ended(question, shown if question.acts else replace(shown, steps=()))
        return replace(shown, steps=(Step(self._list(), "observation", "user"), *shown.steps))

    def _ended(self, question: Act, shown: Observation) -> Observation:
        turns = sum(step.kind == "action" for step in question.steps)
        return replace(shown, done=shown.done or turns >= self._turns)

    def _list(self) -> str:
        lines = [
            f"{name}, {one.price:g} a million tokens{f': {one.about}' if one.about else ''}\n"
            for name, one in self._models.items()
        ]
        return f"Other models may be asked by Ask[model: question], at most {self._most} times:\n{''.join(lines)}"


def asked_of(turn: Step) -> tuple[str, str, str] | None:
    """The model, the question and the id of the call, where a turn asks; None where it does something else.

    It is a call of `ask`, or `Ask[model: question]` as the last command of a text.
    """
    for call in stated_calls(turn):
        given = call.get("arguments")
        if call.get("name") == ASK and isinstance(given, Mapping):
            model, question = (str(given.get(name, "")).strip() for name in ("model", "question"))
            return model, question, str(call.get("id") or "")
    found = [] if calls_of(turn) else [*_IN_TEXT.finditer(turn.text)]
    if not found or _OTHER.search(turn.text, found[-1].end()):
        return None
    return found[-1][1].strip(), found[-1][2].strip(), ""


def asked_costs(trajectory: Trajectory) -> Floats:
    """(S,) what each action's questions cost; 0 for other actions, NaN at observations.

    Of the actions alone it is the `duration` of the shape `router-r1`.
    """
    made, last = np.where(trajectory.action, 0.0, np.nan), -1
    for at, step in enumerate(trajectory.steps):
        if step.kind == "action":
            last = at
        elif last >= 0:
            made[last] += float(step.meta.get(COST, 0.0))
    return made


def _without_questions(steps: Sequence[Step]) -> tuple[Step, ...]:
    """What the inner environment knows of an episode: neither the list of models, nor questions and their answers."""
    kept, asks = list[Step](), False
    for at, step in enumerate(steps):
        if step.kind == "action":
            asks = asked_of(step) is not None
        elif at == 0:
            continue  # The list of models.
        if not asks:
            kept.append(step)
    return tuple(kept)


def _place(question: Act) -> tuple[str, Name]:
    return episode_of(question.problem), prefix_of(question.steps).name


def _question(question: Act, model: str, text: str) -> Propose:
    episode, name = _place(question)
    key = Key.seed(0).fold("asked", episode, model, name.hex())
    digest = hashlib.blake2b(repr((model, text)).encode(), digest_size=6).hexdigest()
    return Propose(Problem(f"{episode}/asked/{digest}", text), (), key)


def _seen(text: str, call: str, meta: Mapping[str, Any]) -> Observation:
    return Observation.of(text, role="tool" if call else "user", meta={**meta, **({ANSWERS: call} if call else {})})


def models_of(row: object, open_policy: OpenPolicy) -> dict[str, AskedModel]:
    """Models as JSON states them: by name, `{"policy": ADDRESS, "price": 0.5, "price_read": 0.1, "about": "..."}`.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(row, Mapping) or not row:
        raise InputError("models to ask are a JSON object by name", remedy='write {"small": {"policy": "URL#MODEL"}}')
    made = {}
    for name, one in row.items():
        known = isinstance(one, Mapping) and isinstance(one.get("policy"), str)
        if not known or not {*one} <= {"policy", "price", "price_read", "about"} or ":" in name or "]" in name:
            raise InputError(f"model {name!r} is {one!r:.200}", remedy="give it policy, price, price_read and about")
        prices = {field: one.get(field, 0.0) for field in ("price", "price_read")}
        if not all(type(price) in (int, float) and price >= 0 for price in prices.values()):
            raise InputError(f"prices of model {name!r} are {prices}", remedy="write numbers that are not negative")
        made[name] = AskedModel(open_policy(one["policy"]), **prices, about=str(one.get("about", "")))
    return made


@environment.method("asking", note="the loop of Router-R1's released code (ulab-uiuc/Router-R1 801a240); words ours")
def asking_episodes(
    open_policy: OpenPolicy, open_environment: Callable[[str], Episodes], *, place: str = "", most: Count = 8,
    turns: Count = 24,
) -> AskingEpisodes:  # fmt: skip
    """Other models are asked beside what an agent does in an environment: `asking:FILE.json`.

    Args:
        open_policy: makes a policy of an address.
        open_environment: makes an environment of an address.
        place: the file, `{"environment": "retrieval", "models": {"small": {"policy": "URL#MODEL", "price": 0.1}}}`.
        most: questions of an episode.
        turns: most turns of an episode, questions among them.

    Raises:
        InputError: the file cannot be read, or states something else.
    """
    try:
        row = json.loads(Path(place).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{place or 'nothing'} names no models: {error}", remedy="write asking:FILE.json") from error
    if not isinstance(row, Mapping) or {*row} != {"environment", "models"} or not isinstance(row["environment"], str):
        raise InputError("expected an object with environment and models", source=place)
    try:
        models = models_of(row["models"], open_policy)
    except InputError as error:
        raise InputError(str(error), source=place) from error
    return AskingEpisodes(models, open_environment(row["environment"]), most, turns)
