"""A policy behind any OpenAI-compatible server: chat or completions, sampled step by step or to the end."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Literal

from stepreward.core.errors import PolicyError, ServerWarning
from stepreward.core.http.client import ServerClient
from stepreward.core.http.event_streams import EventStream
from stepreward.core.http.faults import REFUSED_BODY, PassingError, RefusedError, UnwantedError
from stepreward.core.http.routing import Route
from stepreward.core.http.server import Server
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import EFFORT, TEMPLATE_KWARGS, Continuation, Propose, Wanted
from stepreward.core.types import TOOLS, Step
from stepreward.policies.answer_reader import Written, step_end, steps_of, with_calls
from stepreward.policies.chat_messages import messages_of, template_fields, tools_of
from stepreward.policies.completion_events import events
from stepreward.policies.finish_reasons import FILTERS, ending, incomplete, room_left

Endpoint = Literal["chat", "completions"]
Prefill = Literal["continue", "plain"]
"""How a chat continues a started answer: by `continue_final_message`, as in vLLM, SGLang and others, or only by a last
message of the assistant, which some providers take as the start of the answer."""
SEEDS = 2**31 - 1
"""Seeds are below it: servers keep them in 32 bits."""
_OWN_FIELDS = frozenset({
    "model", "messages", "prompt", "stream", "stream_options", "n", "seed", "temperature", "top_p", "max_tokens",
    "logprobs", "continue_final_message", "add_generation_prompt",
})  # fmt: skip
"""Fields of a request that `body` may not have: the policy sets them."""
_PREFILL_HINT = (
    "the answer was started: if that is refused, pass ?endpoint=completions or ?prefill=plain in the policy's address, "
    'or ?chat_template_kwargs={"enable_thinking":false} for a model that thinks'
)
_SUSPICIOUS_REPEATS = 2
"""A server is suspected to ignore prefixes after this many answers that begin as their prefix did..."""
_SUSPICIOUS_SHARE = 4
"""... if they are at least one in this many."""


@dataclass
class Usage:
    """What a server did, as it reports."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unreported: int = 0
    """Answers without usage, or cut before it came: their tokens are counted as the pieces of text that arrived."""
    lost_tokens: int = 0
    """Pieces of streams that broke off and were requested again; a server may charge for them."""
    interrupted: int = 0
    """Answers stopped because they were not wanted any more."""
    filtered: int = 0
    """Answers cut by a filter or a loop detector of the server; the search sees them as cut by a limit."""
    only_thoughts: int = 0
    """Answers, cut or ended, of thinking alone."""
    unknown_logprobs: int = 0
    """Tokens for which the server gave null in place of a log-probability; they are NaN in `Step.logprobs`."""
    continued: int = 0
    """Answers to questions with a prefix."""
    repeated: int = 0
    """Answers among them that begin as the prefix begins or ends: the server ignored or repeated the prefix."""


class _TooLongError(Exception):
    """The server's context does not hold the requested tokens.

    Args:
        room: tokens to ask for instead.
        refusal: of the server.
    """

    def __init__(self, room: int, refusal: RefusedError) -> None:
        super().__init__(str(refusal))
        self.room, self.refusal = room, refusal


class HttpPolicy:
    """Samples from a model in a server; a `core.runtime.flows.Policy`.

    Each sample is a request of its own with a seed from its key: if the server honours seeds, a run repeats, and 8
    samples at once equal 2 and then 6. A step is read from a stream whose connection is closed at the step's end, so
    that the server needs no notion of a step; text after the end is dropped.

    Tools in a problem's meta (`tools`, `tool_choice`, in OpenAI's form) are sent with a chat. An answer that calls
    tools is finished: its last step holds the calls, in its text and in its meta (`core.segment.tool_calls`). A result
    goes back as an observation under the role `tool`, with `tool_call_id` in its meta.

    Args:
        server: its address ends with `/v1`. Of several, a problem's questions go to one of them, as long as it is up
            and no busier than the others, so that the prompt is found in its cache.
        separator: text that ends a step.
        endpoint: `chat` sends messages, `completions` one text.
        template: text of a completions prompt; `{prompt}` is replaced by the problem's text.
        prefill: how a chat continues a started answer.
        temperature, top_p: of sampling.
        max_tokens: of one continuation, where the question sets no limit.
        logprobs: request the log-probability of each token, and keep them in `Step.logprobs`.
        running_usage: request the usage so far in each event (`continuous_usage_stats` of vLLM and SGLang), so that the
            server's own count covers answers that are cut at a step's end.
        fields: other names for fields of the request, such as `max_completion_tokens` for `max_tokens`; an empty name
            leaves out a field that the server refuses, such as `seed`.
        body: further fields of every request, such as `top_k`, `min_p`, `reasoning_effort` or `chat_template_kwargs`.
        name: identity for caches; by default from the server, the model and the settings.
        sleep: waits between tries.

    Raises:
        ValueError: the separator is empty, the template has no place for the prompt, or `body` has a field that the
            policy sets.
    """

    batch_size = 1
    """Each question is a batch of its own, so that a failure costs only its own question."""

    def __init__(
        self,
        server: Server,
        *,
        separator: str = "\n",
        endpoint: Endpoint = "chat",
        template: str = "{prompt}\n",
        prefill: Prefill = "continue",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 1024,
        logprobs: bool = False,
        running_usage: bool = False,
        fields: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        name: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not separator:
            raise ValueError("separator must not be empty: it ends a step")
        if "{prompt}" not in template:
            raise ValueError(f"template must contain {{prompt}}, got {template!r}")
        if taken := sorted(_OWN_FIELDS & set(body or {})):
            raise ValueError(f"body may not have {', '.join(taken)}: the policy sets it, or has a setting of that name")
        self.server, self.separator, self.endpoint, self.template = server, separator, endpoint, template
        self.prefill, self.temperature, self.top_p, self.max_tokens = prefill, temperature, top_p, max_tokens
        self.logprobs, self.running_usage = logprobs, running_usage
        self.fields, self.body = dict(fields or {}), dict(body or {})
        settings: tuple[Any, ...] = (
            separator, endpoint, template, prefill, temperature, top_p, max_tokens, logprobs, sorted(self.body.items()),
            *([sorted(self.fields.items())] if self.fields else ()),
        )  # fmt: skip
        self.name = name or f"{server.known_as} {settings!r}"
        """Identity for caches and provenance."""
        self.concurrency = server.places
        """Questions that are answered at once."""
        self._client = ServerClient(server, PolicyError, sleep=sleep)
        self._lock = Lock()
        self._most_field = self.fields.get("max_tokens", "max_tokens")
        self._warned: set[str] = set()
        self.usage = Usage()
        """The usage of all requests so far."""

    @property
    def takes(self) -> frozenset[str]:
        """Settings of questions that it sends on (`core.runtime.flows.Policy`); a server may refuse some of them."""
        fields = {"top_k", "min_p"} | ({TOOLS, TEMPLATE_KWARGS, EFFORT} if self.endpoint == "chat" else set())
        return frozenset(name for name in fields if self.fields.get(name, name))

    @property
    def measures(self) -> frozenset[str]:
        """Measurements in its steps (`core.runtime.flows.Measuring`)."""
        return frozenset({"logprobs"} if self.logprobs else ())

    @property
    def in_flight(self) -> int:
        """Open requests."""
        return self._client.open_streams

    @property
    def stuck(self) -> int:
        """Open requests without an event for 30 seconds: silent, or with comments alone."""
        return self._client.stuck_streams

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order; their samples are requested at the same time.

        Raises:
            PolicyError: the server fails after its retries, refuses, or answers with another shape.
        """
        return self._answers(None, questions)

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Like `propose`; the connection of an answer that is not wanted any more is closed within a second.

        Raises:
            PolicyError: as there.
        """
        return self._answers(wanted, questions)

    def _answers(self, wanted: Wanted | None, questions: Sequence[Propose]) -> list[list[Continuation]]:
        samples = [(i, key) for i, question in enumerate(questions) for key in question.sample_keys()]

        def one(sample: tuple[int, Key]) -> Continuation:
            position, key = sample
            return self._sample(questions[position], key, None if wanted is None else partial(wanted, position))

        if len(samples) == 1:
            return [[one(samples[0])]]
        # A pool for each call: its threads end with it, and the client bounds open requests over all calls.
        with ThreadPoolExecutor(min(self.server.places, len(samples) or 1)) as pool:
            made = iter(list(pool.map(one, samples)))
        return [[next(made) for _ in range(question.n)] for question in questions]

    def _sample(self, question: Propose, key: Key, wanted: Callable[[], bool] | None) -> Continuation:
        body = self._request(question, key)
        path = "chat/completions" if self.endpoint == "chat" else "completions"

        def attempt(route: Route) -> Continuation:
            try:
                with self._client.stream(route, path, body, wanted) as stream:
                    return self._read(question, stream)
            except RefusedError as refusal:
                raise self._refusal(body, refusal) from None

        # Ends: a context that is too full either refuses for good or is requested again with what it has room for.
        while True:
            try:
                made = self._client.retried(attempt, path, wanted, start=question.problem.text)
            except UnwantedError:
                with self._lock:
                    self.usage.interrupted += 1
                return Continuation((), finished=False, n_tokens=0, truncated=True, interrupted=True)
            except _TooLongError as full:
                # A solution that fills the context is cut; a prompt that does not fit is the user's to shorten.
                if full.room < 1 and question.prefix:
                    return Continuation((), finished=False, n_tokens=0, truncated=True)
                if full.room < 1:
                    raise PolicyError(self.server.hidden(str(full.refusal))) from None
                body[self._most_field] = full.room
            else:
                self._note_repeats(question.prefix, made)
                return made

    def _request(self, question: Propose, key: Key) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.server.model, "stream": True,
            "temperature": self.temperature if question.temperature is None else question.temperature,
            "top_p": self.top_p if question.top_p is None else question.top_p,
            "stream_options": {"include_usage": True}, "seed": key.bits % SEEDS,
            "max_tokens": question.max_tokens or self.max_tokens,
        }  # fmt: skip
        if self.running_usage:
            body["stream_options"]["continuous_usage_stats"] = True
        if self.endpoint == "completions":
            said = "".join(step.text for step in question.prefix)
            body["prompt"] = self.template.replace("{prompt}", question.problem.text) + said
            body |= {"logprobs": 1} if self.logprobs else {}
        else:
            body["messages"] = messages_of(question.problem, question.prefix)
            body |= tools_of(question.problem)
            body |= {"logprobs": True} if self.logprobs else {}
            if body["messages"][-1]["role"] == "assistant" and self.prefill == "continue":
                body |= {"continue_final_message": True, "add_generation_prompt": False}
            body |= template_fields(question.problem, self.body)
        body |= {} if question.min_p is None else {"min_p": question.min_p}
        # `top_k` 0 means "no token" to some servers; -1 means "no limit" to all.
        body |= {} if question.top_k is None else {"top_k": question.top_k or -1}
        named = {self.fields.get(name, name): value for name, value in (self.body | body).items()}
        return {name: value for name, value in named.items() if name}

    def _refusal(self, body: Mapping[str, Any], refusal: RefusedError) -> Exception:
        """The refusal with a hint, or an error that says how many tokens the context has left."""
        if refusal.status == 400 and body.get("continue_final_message"):
            refusal = RefusedError(f"{refusal}; {_PREFILL_HINT}", refusal.status, refusal.body)
        if refusal.status in REFUSED_BODY and self._most_field in body:
            room = room_left(refusal.body, body[self._most_field])
            if room is not None:
                return _TooLongError(room, refusal)
        return refusal

    def _read(self, question: Propose, stream: EventStream) -> Continuation:
        """Reads a stream to its end, to the end of a step, or until it is not wanted any more."""
        written, cut, left = Written(), -1, False
        try:
            for event in events(stream, stream.url):
                try:
                    written.add(event, completions=self.endpoint == "completions")
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise PassingError(f"an event of another shape: {str(error)[:200]}") from error
                cut = step_end(written.text, self.separator) if question.until == "step" else -1
                if cut >= 0:
                    break
        except UnwantedError:
            left = written.reason is None
            if left and not written.pieces:
                raise
        except PassingError:
            # After the finish reason only the usage comes: the answer is complete.
            if written.reason is None:
                self._count_lost(written)
                raise
        reason = ending(written.reason)
        if reason == "fault" and cut < 0 and not left:
            self._count_lost(written)
            raise PassingError(
                "the stream broke off before the answer ended" if not (written.reason or written.done)
                else f"an answer that ended by finish_reason {written.reason!r}, which is no end of an answer"
            )  # fmt: skip
        if reason == "calls" and cut < 0 and not left and not written.calls:
            raise PolicyError(f"{stream.url} says that it calls a tool, and calls none in the form of tool_calls")
        return self._continuation(written, cut, left)

    def _count_lost(self, written: Written) -> None:
        with self._lock:
            self.usage.lost_tokens += written.pieces

    def _continuation(self, written: Written, cut: int, left: bool) -> Continuation:
        """The continuation from an answer: all of it, or its first step."""
        text = written.text[:cut] if cut >= 0 else written.text
        broken = any(incomplete(call["arguments"]) for call in written.calls.values())
        truncated = left or (cut < 0 and (ending(written.reason) == "cut" or broken))
        # Some servers send log-probabilities that were not requested.
        steps = steps_of(text, self.separator, written.logprobs if self.logprobs and written.measured else ())
        with self._lock:
            self.usage.only_thoughts += not left and not steps and not written.calls and written.thoughts > 0
        tokens = self._count(written, cut, left, sum(len(step.logprobs or ()) for step in steps))
        if unknown := sum(math.isnan(value) for step in steps for value in step.logprobs or ()):
            with self._lock:
                self.usage.unknown_logprobs += unknown
            self._warn("logprobs", "gives null in place of log-probabilities of tokens, or none; they are NaN")
        if written.calls and cut < 0 and not truncated:
            steps = with_calls(steps, written.calls, self.separator)
        return Continuation(tuple(steps), cut < 0 and not truncated, tokens, truncated, written.prompt, left)

    def _warn(self, kind: str, what: str) -> None:
        """Warns once about each kind of fault in the server's answers."""
        with self._lock:
            warned, self._warned = kind in self._warned, self._warned | {kind}
        if not warned:
            warnings.warn(f"{self.server.known_as} {what}", ServerWarning, stacklevel=2)

    def _note_repeats(self, prefix: Sequence[Step], made: Continuation) -> None:
        """Counts answers that begin as their prefix did, and warns where most do."""
        said = [step.text.strip() for step in prefix if step.kind == "action" and step.text.strip()]
        # Behind an observation a new answer begins: one that says the same again is no sign.
        if not said or not made.steps or prefix[-1].kind == "observation":
            return
        repeats = made.steps[0].text.strip() in (said[0], said[-1])
        with self._lock:
            self.usage.continued += 1
            self.usage.repeated += repeats
            suspect = (
                self.usage.repeated >= _SUSPICIOUS_REPEATS
                and _SUSPICIOUS_SHARE * self.usage.repeated >= self.usage.continued
            )
        if repeats and suspect:
            self._warn(
                "repeats", f"begins {self.usage.repeated} of {self.usage.continued} continued answers as their prefix "
                "began or ended: it writes a new answer or repeats the prefix in place of continuing it; try "
                "?endpoint=completions or ?prefill=plain in the policy's address, and `stepreward doctor --policy`",
            )  # fmt: skip

    def _count(self, written: Written, cut: int, left: bool, measured: int) -> int:
        """Adds an answer to the usage; returns the tokens of the answer, or of its first step where it was cut there.

        Args:
            written: the answer.
            cut: where the step ends in the text; negative where the answer ended.
            left: whether the rest was not wanted any more.
            measured: tokens of the answer whose log-probabilities are known.
        """
        short = cut >= 0 or left
        # In a stream that was cut, a usage below the number of pieces is an early one and not that of all pieces.
        unreported = written.tokens is None or (short and written.tokens < written.pieces)
        tokens = written.pieces if unreported or written.tokens is None else written.tokens
        if cut >= 0 and measured:
            tokens = written.thought + measured
        elif cut >= 0 and not unreported and written.part:
            # The last event may go beyond the step's end: its tokens are divided in proportion to characters.
            kept = (written.part - (len(written.text) - cut)) / written.part
            tokens = written.before + math.ceil(kept * (tokens - written.before))
        with self._lock:
            self.usage.requests += 1
            self.usage.prompt_tokens += written.prompt
            self.usage.completion_tokens += tokens
            self.usage.unreported += unreported
            self.usage.interrupted += left
            self.usage.filtered += cut < 0 and (written.reason or "").lower() in FILTERS
        return tokens
