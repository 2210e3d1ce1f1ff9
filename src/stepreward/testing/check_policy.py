"""The contract of a policy, checked by calling it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from stepreward.core.keys import Key
from stepreward.core.runtime.flows import (
    READ_BY_POLICIES,
    Continuation,
    Interruptible,
    Policy,
    Propose,
    always,
    honoured_settings,
)
from stepreward.core.types import Problem, Step
from stepreward.testing.rules import require, require_attributes

PROBLEM = Problem("check", "Mia has 12 apples. Mia buys 5 more. How many apples does Mia have?", reference="17")
_TAKEN = {"top_k", "min_p", *READ_BY_POLICIES}
Answer = list[Continuation]


def check_policy(policy: Policy, problem: Problem = PROBLEM, *, n: int = 20, seed: int = 0, keyed: bool = True) -> None:
    """Checks that a policy keeps its contract, so that batching, caching and resuming cannot change a result.

    Args:
        policy: what is checked; it samples about 10 `n` continuations.
        problem: one that the policy can work on.
        n: samples of a question, at least 2; few samples find fewer faults.
        seed: of the keys.
        keyed: whether samples depend on the key; False for a script, which answers by sample number alone.

    Raises:
        ContractError: a rule is broken; the message names the rule and the remedy.
        ValueError: `n` is less than 2.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    require_attributes(policy, "batch_size", "concurrency")
    question = Propose(problem, (), Key.seed(seed).fold("check"), n=n)
    samples = _ask(policy, [question])[0]
    for one in samples:
        _check_continuation(policy, question, one)
    _check_repeated(policy, question, samples)
    _check_parts(policy, question, samples)
    if keyed:
        _check_keys(policy, question, samples)
    _check_prefixes(policy, question, samples)
    _check_batches(policy, question, samples)
    _check_separators(policy, samples)
    _check_max_tokens(policy, question, samples)
    _check_optional(policy, question, samples)


def _ask(policy: Policy, questions: Sequence[Propose]) -> list[Answer]:
    answers = policy.propose(questions)
    counts = [len(answer) for answer in answers]
    wanted = [question.n for question in questions]
    found = f"{counts} continuations came where {wanted} were requested"
    require(counts == wanted, policy, "n continuations a question", found, "return one list a question, of length n")
    return answers


def _check_continuation(policy: Policy, question: Propose, one: Continuation) -> None:
    shown = repr(one)[:200]
    steps = isinstance(one, Continuation) and all(isinstance(step, Step) for step in one.steps)
    remedy = "return Continuation(steps=tuple of Step, ...)"
    require(steps, policy, "answers are continuations", f"it gave {shown}", remedy)
    sane = isinstance(one.n_tokens, int) and one.n_tokens >= bool(one.steps)
    found = f"n_tokens is {one.n_tokens!r} for {len(one.steps)} steps"
    require(sane, policy, "n_tokens", found, "count the tokens generated, the end token included")
    require(not (one.finished and one.truncated), policy, "ends", f"finished and truncated at once: {shown}",
            "truncated is for what a limit cut, finished for what the policy ended")  # fmt: skip
    if question.until == "step":
        found = f'until="step" gave {len(one.steps)} steps'
        require(len(one.steps) <= 1, policy, "one step", found, "return at most the next step")
        moves = bool(one.steps) or one.finished or one.truncated or one.interrupted
        require(moves, policy, "progress", "no step, and neither finished nor truncated: a search would ask for ever",
                "say finished where the solution is over")  # fmt: skip
    else:
        ended = one.finished or one.truncated or one.interrupted
        require(ended, policy, "ends", f'until="end" gave what is neither finished nor truncated: {shown}',
                "set finished at the policy's own end, truncated at a limit")  # fmt: skip
    for step in one.steps:
        pair = step.tokens is None or step.logprobs is None or len(step.tokens) == len(step.logprobs)
        require(pair, policy, "logprobs", f"a step has {len(step.tokens or ())} tokens and {len(step.logprobs or ())} "
                "logprobs", "give one log-probability a token, or None")  # fmt: skip


def _same(one: Sequence[Continuation], other: Sequence[Continuation]) -> bool:
    """Whether two answers are equal in all but measurements."""

    def seen(answer: Sequence[Continuation]) -> list[object]:
        return [([step.identity for step in c.steps], c.finished, c.truncated, c.n_tokens) for c in answer]

    return seen(one) == seen(other)


def _check_repeated(policy: Policy, question: Propose, samples: Answer) -> None:
    again = _ask(policy, [question])[0]
    require(_same(again, samples), policy, "repeatable", "the same question was answered in two ways",
            "draw every random number from the key of its sample")  # fmt: skip


def _check_parts(policy: Policy, question: Propose, samples: Answer) -> None:
    # Budgets and searches request further samples later: they must be those of one larger request.
    half = question.n // 2
    parts = [replace(question, n=half), replace(question, first=half, n=question.n - half)]
    one, two = (_ask(policy, [part])[0] for part in parts)
    found = f"n={question.n} at once is not n={half} followed by first={half}, n={question.n - half}"
    require(_same([*one, *two], samples), policy, "parts equal the whole", found,
            "draw sample i from key.fold(first + i): question.sample_keys() gives these keys")  # fmt: skip


def _check_keys(policy: Policy, question: Propose, samples: Answer) -> None:
    if all(_same([one], samples[:1]) for one in samples):
        return  # it draws nothing, or has one way to go on
    others = [_ask(policy, [replace(question, key=question.key.fold("other", i))])[0] for i in range(3)]
    fixed = all(_same(other, samples) for other in others)
    require(not fixed, policy, "keys", "four keys gave the same samples, which differ among themselves",
            "draw from the key of the question, or pass keyed=False for a script")  # fmt: skip


def _check_prefixes(policy: Policy, question: Propose, samples: Answer) -> None:
    """Asks for single steps, and behind prefixes."""
    steps = max((one.steps for one in samples), key=len)
    parts = [replace(question, prefix=steps[:length], n=4, until=until)
             for length in {0, len(steps) // 2, max(len(steps) - 1, 0)} for until in ("step", "end")]  # fmt: skip
    for part, answer in zip(parts, _ask(policy, parts), strict=True):
        for one in answer:
            _check_continuation(policy, part, one)
        size = len(part.prefix)
        repeats = size > 1 and all(one.steps[:size] == part.prefix for one in answer)
        require(not repeats, policy, "new steps only", f"each continuation begins with the {size} steps of its prefix",
                "return only the steps after the prefix")  # fmt: skip


def _check_batches(policy: Policy, question: Propose, samples: Answer) -> None:
    other = replace(question, key=question.key.fold("second"), n=3)
    third = replace(question, key=question.key.fold("third"), until="step", n=2)
    alone = [samples, *(_ask(policy, [part])[0] for part in (other, third))]
    found = "a question has another answer in a batch than alone"
    remedy = "let no sample depend on what else is in the batch, and keep the order of the questions"
    for order in ([0, 1, 2], [2, 0, 1]):
        together = _ask(policy, [(question, other, third)[i] for i in order])
        same = all(_same(answer, alone[i]) for i, answer in zip(order, together, strict=True))
        require(same, policy, "batches equal singles", found, remedy)
    if policy.concurrency > 1:
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(lambda part: policy.propose([part])[0], (question, other)))
        same = all(_same(answer, one) for answer, one in zip(answers, alone, strict=False))
        require(same, policy, "threads", f"concurrency is {policy.concurrency}, and two threads got other answers",
                "share no state between calls, or set concurrency to 1")  # fmt: skip


def _check_separators(policy: Policy, samples: Answer) -> None:
    """The texts of the steps, joined, must be the text that was written."""
    places = [(one, other) for sample in samples for one, other in zip(sample.steps, sample.steps[1:], strict=False)
              if (one.kind, one.role, one.agent) == (other.kind, other.role, other.agent)]  # fmt: skip
    glued = [one.text[-1:].isalnum() and other.text[:1].isalnum() for one, other in places]
    shown = "" if not places else repr(places[0][0].text[-20:] + places[0][1].text[:20])
    require(not places or not all(glued), policy, "lossless steps", f"steps run into each other: {shown}",
            "keep each step's trailing separator in its text")  # fmt: skip


def _check_max_tokens(policy: Policy, question: Propose, samples: Answer) -> None:
    i, whole = max(enumerate(samples), key=lambda numbered: numbered[1].n_tokens)
    # The longest sample is the one that a limit certainly cuts.
    limit = whole.n_tokens // 2
    if not limit:
        return
    cut = _ask(policy, [replace(question, first=question.first + i, n=1, max_tokens=limit)])[0][0]
    remedy = "stop at question.max_tokens, and say truncated"
    found = f"max_tokens={limit} gave {cut.n_tokens} tokens"
    require(cut.n_tokens <= limit, policy, "max_tokens", found, remedy)
    found = f"max_tokens={limit} cut a solution of {whole.n_tokens} tokens, and it does not say so"
    require(cut.truncated and not cut.finished, policy, "max_tokens", found, remedy)
    texts = ["".join(step.text for step in one.steps) for one in (cut, whole)]
    found = f"max_tokens={limit} gave the whole text of {whole.n_tokens} tokens"
    require(whole.n_tokens < 4 or texts[0] != texts[1], policy, "max_tokens", found, remedy)


def _check_optional(policy: Policy, question: Propose, samples: Answer) -> None:
    takes: object = honoured_settings(policy)
    known = isinstance(takes, frozenset) and takes <= _TAKEN
    require(known, policy, "takes", f"takes is {takes!r}", f"name a frozenset of {', '.join(sorted(_TAKEN))}")
    if isinstance(policy, Interruptible):
        same = _same(policy.propose_while(always, [question])[0], samples)
        require(same, policy, "propose_while", "while every answer is wanted it answers otherwise than propose",
                "let both take the same path")  # fmt: skip
