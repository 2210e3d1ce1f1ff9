"""What a server of a policy or of a reward model can do, found out by asking it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from stepreward.core.engines import optional
from stepreward.core.errors import InputError, PolicyError, SteprewardError
from stepreward.core.flows import Continuation, Propose
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step
from stepreward.policies.http import HttpPolicy
from stepreward.policies.named import policy_at

_ASK = Problem("doctor", "Count from 1 to 20, one number a line.")
_TOKENS = 48


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    good: bool
    says: str
    needed: bool = True
    """Whether nothing works without it."""


def policy_findings(address: str) -> Iterator[Finding]:
    """What the server of a policy can do: `URL#MODEL`, settings as everywhere.

    Raises:
        InputError: it is no address.
    """
    # A name that is no address would have a model loaded first, or looked for in the network.
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{address} is no address of a server", remedy="pass URL#MODEL")
    policy = policy_at(address, concurrency=2)
    assert isinstance(policy, HttpPolicy)
    yield _listed(policy)
    began = time.monotonic()
    try:
        first = _asked(policy)
    except SteprewardError as error:
        yield Finding("answers", False, str(error))
        return
    seconds = time.monotonic() - began
    yield Finding("answers", True, f"{first.n_tokens} tokens in {seconds:.1f} s at {policy.server.at('')}")
    yield _optional("counts tokens", _counts(policy, first), "usage is not reported: tokens are counted by pieces")
    yield _optional("seeds", _tried(lambda: _same(policy)), "equal seeds give other answers: runs do not repeat")
    yield _optional("goes on", _tried(lambda: _goes_on(policy)), "a started answer is refused: pass ?prefill=plain")
    yield _optional("logprobs", _tried(lambda: _tells(address)), "no log-probabilities: self-certainty needs them")


def model_findings(address: str, like: str) -> Iterator[Finding]:
    """Whether a reward model in a server scores.

    Raises:
        InputError: it is no address.
    """
    load = optional("stepreward.score.load")
    if not load.is_address(address):
        raise InputError(f"{address} is no address of a server", remedy="pass URL#NAME")
    try:
        scorer = load.load(address, like=like)
        (score,) = scorer.score("1 + 1 = ?", ["1 + 1 = 2"])
    except SteprewardError as error:
        yield Finding("scores", False, str(error))
        return
    yield Finding("scores", score == score, f"1 + 1 = 2 has the score {score:.3f} by {scorer.name}")


def _listed(policy: HttpPolicy) -> Finding:
    server = policy.server
    try:
        with server.client() as client:
            answer = client.get(server.at("models"), timeout=10)
        names = [row["id"] for row in answer.json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        says = f"{server.at('models')} lists nothing ({type(error).__name__}); is the address right, up to /v1?"
        return Finding("models", False, says, needed=False)
    there = server.model in names
    shown = ", ".join(names[:5]) or "none"
    says = f"{server.model} is served" if there else f"{server.model} is not among those served: {shown}"
    return Finding("models", there, says, needed=False)


def _asked(policy: HttpPolicy, *, sample: int = 0, prefix: tuple[Step, ...] = ()) -> Continuation:
    question = Propose(_ASK, prefix, Key.seed(0), until="end", max_tokens=_TOKENS, first=sample)
    ((made,),) = policy.propose([question])
    if not made.steps:
        raise PolicyError("the answer is empty")
    return made


def _optional(what: str, good: bool, otherwise: str) -> Finding:
    return Finding(what, good, "yes" if good else otherwise, needed=False)


def _tried(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except SteprewardError:
        return False


def _counts(policy: HttpPolicy, first: Continuation) -> bool:
    return policy.usage.unreported == 0 and first.n_prompt_tokens > 0


def _same(policy: HttpPolicy) -> bool:
    return [s.text for s in _asked(policy, sample=1).steps] == [s.text for s in _asked(policy, sample=1).steps]


def _goes_on(policy: HttpPolicy) -> bool:
    return bool(_asked(policy, prefix=(Step("1\n"), Step("2\n"))).steps)


def _tells(address: str) -> bool:
    mark = "&" if "?" in address.partition("#")[2] else "?"
    policy = policy_at(f"{address}{mark}logprobs=true", concurrency=2)
    assert isinstance(policy, HttpPolicy)
    return all(step.logprobs for step in _asked(policy).steps)
