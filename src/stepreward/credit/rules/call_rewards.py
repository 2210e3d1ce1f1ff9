"""Step rewards by rule for tool calls: whether they are well formed, and how they match those of a gold solution.

A step calls tools as many chat templates write it: JSON objects with a name and arguments, one a line or one a block,
between `<tool_call>` and `</tool_call>`. That text comes from a policy and is never trusted.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from stepreward.core.catalog import reward
from stepreward.core.errors import InputError, ModelError
from stepreward.core.sandbox.isolated_items import answers_of
from stepreward.core.types import Floats, Problem, Step
from stepreward.credit.rules import calls_child
from stepreward.credit.rules.matching import Call, assigned, overlap, similarities, transported
from stepreward.credit.rules.text_rules import at_actions, needed
from stepreward.credit.segments import one_of

OPEN, CLOSE = "<tool_call>", "</tool_call>"
Matching = Literal["assignment", "transport"]
WORDS = re.compile(r"\w+")
SLOW = frozenset({"pattern", "patternProperties", "uniqueItems", "$ref", "$dynamicRef", "format"})
"""Words of a schema whose check may take for ever; they are checked in a process of its own."""
SECONDS = 1.0
"""For the check of a call there."""
DEEPEST = 32
"""Most levels of nested JSON; a deeper call is malformed."""


def blocks(text: str) -> Iterator[str]:
    """The text between each opening mark and the next closing one, or the end where there is none."""
    start = text.find(OPEN)
    while start >= 0:
        start += len(OPEN)
        end = text.find(CLOSE, start)
        yield text[start:] if end < 0 else text[start:end]
        start = -1 if end < 0 else text.find(OPEN, end)


def calls(text: str) -> list[Call | None]:
    """Every call that a step makes, in order; None in the place of a malformed one."""
    made: list[Call | None] = []
    for block in blocks(text):
        whole = _call(block)
        if whole is not None:
            made.append(whole)
        else:
            made += [_call(line) for line in block.splitlines() if line.strip()] or [None]
    return made


def _call(text: str) -> Call | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if _is_too_deep(found) else as_call(found)


def as_call(found: Any) -> Call | None:
    """A JSON object with a `name` and an object of `arguments` or `parameters` as a call; None for anything else."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", found.get("parameters"))
    return (found["name"], arguments) if isinstance(arguments, dict) else None


def _is_too_deep(value: Any) -> bool:
    """Whether JSON is nested deeper than `DEEPEST`; without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            below
            for one in level
            if isinstance(one, dict | list)
            for below in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


@reward.method(
    "tool-calls",
    note="ours: calls checked against the JSON schemas of the tools, as servers of models check them",
)
def well_formed(problem: Problem, steps: Sequence[Step]) -> Floats:
    """Rewards a step for calls that a tool would accept, and charges it for those that none would.

        r_k = (well formed - others) / calls of step k,    0 where a step calls nothing

    A call is well formed if it is JSON with a name and an object of arguments, the name is that of a tool, and the
    arguments meet the tool's schema.

    Args:
        problem: `meta["tools"]`: descriptions with `name` and `parameters` (a JSON schema), bare or under `function`.
        steps: of one trajectory.

    Returns:
        (S,) in [-1, 1].

    Raises:
        MissingDataError: the problem lists no tools.
        InputError: a tool without a name, or with parameters that are no JSON schema.
        ModelError: jsonschema is not installed.
    """
    checks = _checks(needed(problem, "tool-calls", "tools"))
    made = []
    for step in steps:
        if step.kind == "action":
            found = _are_valid(checks, calls(step.text))
            made.append((2 * sum(found) - len(found)) / len(found) if found else 0.0)
    return at_actions(steps, made)


def _are_valid(checks: Mapping[str, Any], found: Sequence[Call | None]) -> list[bool]:
    """Whether each call meets its tool's schema, within a second; what cannot be checked does not."""
    known = [i for i, call in enumerate(found) if call is not None and call[0] in checks]
    checkable = [found[i] for i in known]
    said = [False] * len(found)
    if any(call is not None and SLOW & _schema_words(checks[call[0]].schema) for call in checkable):
        schemas = {name: check.schema for name, check in checks.items()}
        job = {"schemas": schemas, "memory": 1 << 30}
        listed = [list(call) for call in checkable if call is not None]
        packages = ("jsonschema", "referencing", "attrs", "rpds")
        answers = answers_of(calls_child.__file__, job, listed, SECONDS, packages)
    else:
        answers = [call is not None and _is_valid(checks[call[0]], call[1]) for call in checkable]
    for i, answer in zip(known, answers, strict=True):
        said[i] = answer is True
    return said


def _is_valid(check: Any, arguments: Any) -> bool:
    try:
        return bool(check.is_valid(arguments))
    except Exception:  # The boundary: arguments that break the checker are invalid, whatever its error.
        return False


def _schema_words(schema: Any) -> set[str]:
    """Every key of a schema, at any depth."""
    words, left = set[str](), [schema]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            words |= one.keys()
            left += one.values()
        elif isinstance(one, list):
            left += one
    return words


def _checks(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A validator for the arguments of each tool. References to other places are not followed."""
    if importlib.util.find_spec("jsonschema") is None:
        raise ModelError("checking calls needs jsonschema: pip install 'stepreward[rules]'")
    jsonschema, referencing = importlib.import_module("jsonschema"), importlib.import_module("referencing")
    made = {}
    for number, tool in enumerate(tools):
        described = tool.get("function", tool)
        schema = described.get("parameters") or {}
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
            made[str(described["name"])] = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
        except (KeyError, jsonschema.SchemaError) as error:
            what = f"tool {number} of meta['tools'] is not described: {error}"
            raise InputError(what, remedy="give name and parameters") from error
    return made


@reward.method(
    "toolrl",
    paper="arXiv:2504.13958",
    equation="section 3.3: format and correctness rewards",
    note="the best assignment of calls of one name; the code takes the best pair first. A turn without gold calls "
    "gets its format reward alone",
)
def format_and_calls(problem: Problem, steps: Sequence[Step], *, form: float = 1.0, correctness: float = 3.0) -> Floats:
    """Rewards a turn for its format and for how its calls match the gold ones of the turn.

        r = form 1[tags in order] + correctness (2 S / S_max - 1)
        S = Jaccard of names + best sum over pairs of one name (Jaccard of argument names + number of equal arguments)
        S_max = 1 + sum over gold calls (1 + number of arguments)

    Equal calls get the most in any order, malformed ones the least. The tags are `think`, then `tool_call` where gold
    calls are, else `response`, each once and nothing around them.

    Args:
        problem: `meta["calls"]`: for each of its turns the list of gold calls, objects with `name` and `arguments`.
        steps: of one trajectory; its k-th action is compared with the k-th list, later ones with none.
        form: weight of the format.
        correctness: largest reward for calls, and minus the least.

    Returns:
        (S,) in [-correctness, form + correctness].

    Raises:
        MissingDataError: the problem has no gold calls.
        InputError: a gold call is malformed.
    """
    turns = needed(problem, "toolrl", "calls")
    made = []
    for number, step in enumerate(step for step in steps if step.kind == "action"):
        gold = [_gold(one) for one in turns[number]] if number < len(turns) else []
        formed = form * float(well_tagged(step.text, ("think", "tool_call" if gold else "response")))
        made.append(formed + (correctness * (2 * matched(calls(step.text), gold) - 1) if gold else 0.0))
    return at_actions(steps, made)


@reward.method(
    "matchtir",
    paper="arXiv:2601.10712",
    equation="section 3.2: turn rewards by bipartite matching, hard or soft",
    note="the best assignment of all, where the code takes the best pair first; transported shares are times the "
    "number of calls, so that both kinds have one scale; malformed calls count as calls that match nothing",
)
def matched_turns(
    problem: Problem, steps: Sequence[Step], *, matching: Matching = "assignment", regularisation: float = 0.1
) -> Floats:
    """Rewards a turn by how its calls match those of the gold solution, each gold call paying once a trajectory.

        r_k = mean over the calls of turn k of their similarity to what they are matched with

    All calls of the trajectory are matched at once, in whatever turn and order they come. A turn with an answer between
    `<answer>` and `</answer>` gets the F1 of its words and the reference's instead; one with neither gets 0.

    Args:
        problem: `meta["calls"]`: for each turn of the gold solution the list of its calls, as for `toolrl`, or all of
            them in one list; `reference`, the gold answer, if any.
        steps: of one trajectory.
        matching: one gold call for each call, or a share of several by optimal transport.
        regularisation: of the transport.

    Returns:
        (S,) in [0, 1], with transport up to the number of calls.

    Raises:
        MissingDataError: the problem has no gold calls.
        InputError: a gold call is malformed.
        UnknownNameError: no such matching.
    """
    one_of("matching", matching, Matching)
    turns = needed(problem, "matchtir", "calls")
    gold = [_gold(one) for turn in turns for one in (turn if isinstance(turn, list | tuple) else [turn])]
    acts = [step.text for step in steps if step.kind == "action"]
    answers = [_answer(text) for text in acts]
    made = [[] if answer is not None else calls(text) for text, answer in zip(acts, answers, strict=True)]
    table = similarities([call for turn in made for call in turn if call is not None], gold)
    paid = iter(assigned(table) if matching == "assignment" else transported(table, regularisation=regularisation))
    rewards = []
    for turn, answer in zip(made, answers, strict=True):
        shares = [0.0 if call is None else float(next(paid)) for call in turn]
        worded = 0.0 if answer is None else shared_words(answer, problem.reference or "")
        rewards.append(sum(shares) / len(shares) if shares else worded)
    return at_actions(steps, rewards)


def _answer(text: str) -> str | None:
    """The text within the last pair of answer tags, None without one."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start < 0 else text[start + len("<answer>") : end]


def shared_words(text: str, reference: str) -> float:
    """F1 of the words of two texts, each counted once, whatever their case; 0 where either has none."""
    mine, theirs = set(WORDS.findall(text.lower())), set(WORDS.findall(reference.lower()))
    return 2 * len(mine & theirs) / (len(mine) + len(theirs)) if mine and theirs else 0.0


def _gold(given: Any) -> Call:
    made = as_call(given)
    if made is None:
        raise InputError(f"no gold call: {given!r}", remedy="give an object with name and arguments")
    return made


def matched(found: Sequence[Call | None], gold: Sequence[Call]) -> float:
    """How well calls match gold ones, in [0, 1]: S / S_max of ToolRL; 0 if any is malformed or none is made."""
    made = [call for call in found if call is not None]
    if not made or len(made) < len(found):
        return 0.0
    table = np.array([[_pair_reward(one, other) for other in gold] for one in made])
    most = 1 + sum(1 + len(arguments) for _, arguments in gold)
    names = overlap((name for name, _ in made), (name for name, _ in gold))
    return (names + float(assigned(table).sum())) / most


def _pair_reward(made: Call, gold: Call) -> float:
    if made[0] != gold[0]:
        return 0.0
    equal = sum(name in made[1] and bool(made[1][name] == value) for name, value in gold[1].items())
    return overlap(made[1], gold[1]) + equal


def well_tagged(text: str, tags: Sequence[str]) -> bool:
    """Whether a text is these tags in this order, each once, with nothing around them but white space."""
    rest = text.strip()
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1 or not rest.startswith(opening):
            return False
        rest = rest.partition(closing)[2].lstrip()
    return not rest
