"""What a server of a policy or of a reward model can do, found out by asking it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import httpx

from stepreward.cli.doctor.finding import Finding
from stepreward.core.errors import InputError, PolicyError, ServerWarning, SteprewardError
from stepreward.core.http.addresses import SEVERAL, is_address, split_address, without_secrets
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation, Policy, Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.http import HttpPolicy
from stepreward.policies.named import policy_at
from stepreward.score.load import load

_COUNT = Problem("doctor", "Count from 1 to 20, one number a line. Write nothing else.")
_DRAW = Problem("doctor", "Write 12 random words, one a line. Write nothing else.")
_TOKENS = 48
_COUNTED = tuple(Step(f"{i}\n") for i in range(1, 8))
_ODD = (Step("Let me see.\n"), *_COUNTED)
"""A start that no model would write again by itself, so that a repeated start differs from a new answer."""
_NEXT = "8"
_TRIES = 4
"""Started answers that a server has to continue."""
_EMPTY = (
    f"all of {_TOKENS} tokens went into thinking, none into an answer: pass ?reasoning_effort=low, or "
    '?chat_template_kwargs={"enable_thinking":false}, or a large ?max_tokens='
)
_PLAIN = "pass ?endpoint=completions, or ?prefill=plain if the server knows no continue_final_message"


def policy_findings(address: str, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Finding]:
    """What the server of a policy can do: `URL#MODEL`, settings in it and beside it as everywhere.

    Each of several servers is asked by itself, and then whether all of them answer alike.

    Raises:
        InputError: it is no address.
    """
    # A name that is no address would have a model loaded first, or looked for in the network.
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{without_secrets(address)} is no address of a server", remedy="pass URL#MODEL")
    policy = policy_at(address, concurrency=2, settings=settings)
    assert isinstance(policy, HttpPolicy)
    if policy.server.others:
        urls, model, query = split_address(address)
        each = [f"{url}#{model}?{query}".rstrip("?") for url in SEVERAL.split(urls)]
        for one, server in zip(each, policy.server.each, strict=True):
            for found in policy_findings(one, settings):
                yield replace(found, what=f"{found.what}, {server.url}")
        policies = [policy_at(one, concurrency=1, settings=settings) for one in each]
        yield _found("alike", lambda: _alike(policies))
        return
    yield _listed(policy)
    began = time.monotonic()
    try:
        first = _answer(policy)
    except SteprewardError as error:
        yield Finding("answers", False, str(error))
        return
    seconds = time.monotonic() - began
    if not first.steps:
        yield Finding("answers", False, _EMPTY)
        return
    yield Finding("answers", True, f"{first.n_tokens} tokens in {seconds:.1f} s at {policy.server.at('')}")
    counts = policy.usage.unreported == 0 and first.n_prompt_tokens > 0
    yield _optional("counts tokens", counts, "usage is not reported: tokens are counted by pieces")
    yield _found("seeds", lambda: _seeds(policy))
    yield _found("goes on", lambda: _goes_on(policy))
    yield _found("length", lambda: _holds(policy))
    yield _optional("logprobs", _tried(lambda: _tells(policy)), "no log-probabilities: self-prm needs them")


def model_findings(address: str, like: str) -> Iterator[Finding]:
    """Whether a reward model in a server scores.

    Raises:
        InputError: it is no address.
    """
    if not is_address(address):
        raise InputError(f"{without_secrets(address)} is no address of a server", remedy="pass URL#NAME")
    try:
        scorer = load(address, like=like)
        (score,) = scorer.score("1 + 1 = ?", ["1 + 1 = 2"])
    except SteprewardError as error:
        yield Finding("scores", False, str(error))
        return
    yield Finding("scores", score == score, f"1 + 1 = 2 has the score {score:.3f} by {scorer.name}")


def _listed(policy: HttpPolicy) -> Finding:
    server = policy.server
    try:
        names = [row["id"] for row in _models(policy)]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        says = f"{server.at('models')} lists nothing ({type(error).__name__}); is the address right, up to /v1?"
        return Finding("models", False, says, needed=False)
    there = server.model in names
    shown = ", ".join(names[:5]) or "none"
    says = f"{server.model} is served" if there else f"{server.model} is not among those served: {shown}"
    return Finding("models", there, says, needed=False)


def _models(policy: HttpPolicy) -> Any:
    """The rows of the server's list of models."""
    with policy.server.client() as client:
        return client.get(policy.server.at("models"), timeout=10).json()["data"]


def _answer(
    policy: Policy, problem: Problem = _COUNT, *, sample: int = 0, prefix: tuple[Step, ...] = (), **how: Any
) -> Continuation:
    question = Propose(problem, prefix, Key.seed(0), first=sample, **{"max_tokens": _TOKENS, **how})
    assert isinstance(policy, HttpPolicy)
    thought = policy.usage.only_thoughts
    with warnings.catch_warnings(action="ignore", category=ServerWarning):
        ((made,),) = policy.propose([question])
    if not (made.steps or made.truncated or policy.usage.only_thoughts > thought):
        raise PolicyError("the answer is empty")
    return made


def _text(made: Continuation) -> str:
    return "".join(step.text for step in made.steps)


def _found(what: str, look: Callable[[], str]) -> Finding:
    """A finding by a look that returns what is wrong, or nothing."""
    try:
        wrong = look()
    except SteprewardError as error:
        wrong = str(error)
    return Finding(what, not wrong, wrong or "yes", needed=False)


def _optional(what: str, good: bool, otherwise: str) -> Finding:
    return Finding(what, good, "yes" if good else otherwise, needed=False)


def _tried(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except SteprewardError:
        return False


def _seeds(policy: HttpPolicy) -> str:
    """What is wrong with how the server draws: one seed must repeat, several at temperature 1 must differ."""
    first, again, *others = (_text(_answer(policy, _DRAW, sample=i, temperature=1.0)) for i in (1, 1, 2, 3, 4))
    if first != again:
        return "equal seeds give other answers: runs do not repeat"
    if all(one == first for one in others):
        return "every seed gives the same answer at temperature 1: n samples are one sample, and votes mean nothing"
    return ""


def _alike(policies: Sequence[Policy]) -> str:
    """What is wrong with servers that stand for one: equal seeds must give equal answers at each."""
    made = [_text(_answer(policy, _DRAW, sample=1, temperature=1.0)) for policy in policies]
    differing = sum(text != made[0] for text in made)
    return f"equal seeds give other answers at {differing} of {len(made)} servers: runs do not repeat" * bool(differing)


def _goes_on(policy: HttpPolicy) -> str:
    """What is wrong with how the server goes on with a started answer; some do so in some of the answers alone."""
    found = [_once(policy, sample) for sample in range(_TRIES)]
    wrong = [one for one in found if one]
    return "" if not wrong else wrong[0] if len(wrong) == _TRIES else f"in {len(wrong)} of {_TRIES} answers {wrong[0]}"


def _once(policy: HttpPolicy, sample: int) -> str:
    """The same of one answer, found from what the server writes after one to seven."""
    try:
        text = _text(_answer(policy, prefix=_COUNTED, temperature=0.0, sample=sample))
    except SteprewardError as error:
        return f"a started answer is refused: {_PLAIN} ({error})"
    said = text.split()
    if said[:1] == [_NEXT] and not text[:1].isspace():
        return ""
    if said[:1] == [_NEXT]:
        return (
            "the chat template trims the started answer: the model writes the line break again, and text differs from "
            "one that is written at once; pass ?endpoint=completions"
        )
    if said[:1] == [_COUNTED[-1].text.strip()]:
        return f"the last line of the start is repeated in place of going on: {_PLAIN}"
    if said[:1] == [_COUNTED[0].text.strip()]:
        odd = _text(_answer(policy, prefix=_ODD, temperature=0.0, sample=sample)).split()
        repeats = odd[:2] == _ODD[0].text.split()[:2]
        return f"{'the start is repeated' if repeats else 'a new answer is begun'} in place of going on: {_PLAIN}"
    return _compared(policy, text, sample)


def _compared(policy: HttpPolicy, text: str, sample: int) -> str:
    """The same for a model that does not count: it goes on with its own answer as it did when it wrote it at once."""
    whole = _answer(policy, temperature=0.0)
    if len(whole.steps) < 2:
        return f"cannot be found out: the model does not count on from seven, but writes {text[:40]!r}"
    start, rest = whole.steps[:1], "".join(step.text for step in whole.steps[1:])
    on = _text(_answer(policy, prefix=start, temperature=0.0, sample=sample))
    shared = min(len(on), len(rest), 20)
    if on[:shared] == rest[:shared]:
        return ""
    if on.lstrip().startswith(start[0].text.strip()):
        return f"a new answer is begun, or the start is repeated, in place of going on: {_PLAIN}"
    return f"not as the model goes on when it writes at once: {on[:40]!r} in place of {rest[:40]!r}; {_PLAIN}"


def _holds(policy: HttpPolicy) -> str:
    """Whether the server's context holds as many tokens as an answer may have."""
    limit = _context(policy)
    if limit is not None and policy.max_tokens >= limit:
        return f"max_tokens={policy.max_tokens} does not fit the context of {limit} tokens: pass ?max_tokens="
    _answer(policy, until="step", max_tokens=None)
    return ""


def _context(policy: HttpPolicy) -> int | None:
    """Tokens of the model's context, where the server's list of models says so, as vLLM's does."""
    try:
        return next((int(row["max_model_len"]) for row in _models(policy) if row["id"] == policy.server.model), None)
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _tells(policy: HttpPolicy) -> bool:
    policy.logprobs = True
    steps = _answer(policy).steps
    return bool(steps) and all(step.logprobs for step in steps)
