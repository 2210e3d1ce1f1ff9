"""A policy behind any OpenAI-compatible server: chat or completions, sampled step by step or to the end."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import BoundedSemaphore, Lock
from typing import Any, Literal

import httpx

from stepreward.core.errors import PolicyError
from stepreward.core.flows import Continuation, Propose, Wanted
from stepreward.core.keys import Key
from stepreward.core.servers import PassingError, Patience, Server, UnwantedError, streamed
from stepreward.core.tool_calls import calling_step, parsed
from stepreward.core.types import Step
from stepreward.policies.chats import messages_of, tools_of
from stepreward.policies.streams import DONE, events, token_logprobs

Endpoint = Literal["chat", "completions"]
Prefill = Literal["continue", "plain"]
"""How a chat goes on with a started answer: by `continue_final_message`, as vLLM, SGLang and others have it, or by
a last message of the assistant alone, which some providers take for the answer's start."""
_THOUGHTS = ("reasoning_content", "reasoning")
"""What a reasoning model thinks before its answer, as servers name it: not kept, but written and paid for."""
SEEDS = 2**31 - 1
"""Seeds are below it: servers keep them in 32 bits."""


@dataclass
class Usage:
    """What a server was asked and said that it did."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unreported: int = 0
    """Answers without usage, or cut before it came: their tokens are counted by pieces of text as they arrived."""
    lost_tokens: int = 0
    """Pieces of streams that broke off and were asked for again; a server may charge for them."""
    interrupted: int = 0
    """Answers left where they were, since nobody waited for them any more."""


@dataclass
class _Written:
    """What came of one sample so far."""

    text: str = ""
    reason: str | None = None
    pieces: int = 0
    """Deltas with text; a server streams a token in each."""
    tokens: int | None = None
    """Completion tokens by the server's own count."""
    prompt: int = 0
    logprobs: list[tuple[str, float]] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    """Tool calls by their index: id, name and arguments as far as they came."""


class HttpPolicy:
    """Samples from a model in a server; a `core.flows.Policy`.

    Each sample is a request of its own with a seed from its key, so that where the server keeps its promise on seeds a
    run repeats, and asking for 8 or for 2 and 6 draws the same. A step is read as a stream and the connection closed at
    its end, so that no server needs to know what a step is; what it wrote past the end is dropped.

    Tools that a problem's meta names (`tools`, `tool_choice`, as OpenAI has them) are sent along in a chat. An answer
    that calls tools is finished: its last step holds the calls, in its text and in its meta (`core.tool_calls`). A
    result goes back as an observation under the role `tool`, with `tool_call_id` in its meta.

    Args:
        server: where it is; `url` up to and with `/v1`.
        separator: text that ends a step.
        endpoint: `chat` sends messages, `completions` one text.
        template: text of a completions prompt; `{prompt}` stands for the problem's text.
        prefill: how a started chat answer goes on.
        temperature, top_p: of sampling.
        max_tokens: of one continuation, where the question sets no limit.
        logprobs: asks for the log-probability of each token, and keeps them in `Step.logprobs`.
        running_usage: asks for the usage so far in each event (`continuous_usage_stats`, as vLLM and SGLang have it),
            so that the tokens of an answer that is cut at a step's end are the server's own count too.
        fields: names of the request's own fields for servers that know them by others, such as `max_completion_tokens`
            for `max_tokens`; an empty name leaves a field out that the server refuses, such as `seed`.
        body: further fields of every request.
        name: identity for caches; made of the server, the model and the settings by default.
        sleep: waits between tries.

    Raises:
        ValueError: the separator is empty, or the template has no place for the prompt.
    """

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
            raise ValueError("separator must not be empty: it is what ends a step")
        if "{prompt}" not in template:
            raise ValueError(f"template must hold {{prompt}}, got {template!r}")
        self.server, self.separator, self.endpoint, self.template = server, separator, endpoint, template
        self.prefill, self.temperature, self.top_p, self.max_tokens = prefill, temperature, top_p, max_tokens
        self.logprobs, self.running_usage = logprobs, running_usage
        self.fields, self.body = dict(fields or {}), dict(body or {})
        settings: tuple[Any, ...] = (
            separator, endpoint, template, prefill, temperature, top_p, max_tokens, logprobs, sorted(self.body.items()),
            *([sorted(self.fields.items())] if self.fields else ()),
        )  # fmt: skip
        self._name = name or f"{server.model} at {server.url} {settings!r}"
        self._patience = Patience(server, PolicyError, sleep=sleep)
        self._lock, self._gate = Lock(), BoundedSemaphore(server.concurrency)
        self._client = server.client()
        weakref.finalize(self, self._client.close)
        self.usage = Usage()
        """All that was spent so far."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""
        return self._name

    @property
    def takes_tools(self) -> bool:
        """Whether a problem may name tools to call."""
        return self.endpoint == "chat"

    @property
    def batch_size(self) -> int:
        """Each question is a batch of its own: what is answered is kept, whatever becomes of the others."""
        return 1

    @property
    def concurrency(self) -> int:
        """Questions under way at once."""
        return self.server.concurrency

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order; their samples are requested at the same time.

        Raises:
            PolicyError: the server fails after its retries, refuses, or answers with another shape.
        """
        return self._answers(None, questions)

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Like `propose`; the connection of what is not wanted any more is closed at the next piece of text.

        Raises:
            PolicyError: as there.
        """
        return self._answers(wanted, questions)

    def _answers(self, wanted: Wanted | None, questions: Sequence[Propose]) -> list[list[Continuation]]:
        asked = [(i, key) for i, question in enumerate(questions) for key in question.sample_keys()]

        def one(sample: tuple[int, Key]) -> Continuation:
            position, key = sample
            return self._sample(questions[position], key, None if wanted is None else partial(wanted, position))

        if len(asked) == 1:
            return [[one(asked[0])]]
        with ThreadPoolExecutor(min(self.server.concurrency, len(asked) or 1)) as pool:
            made = iter(list(pool.map(one, asked)))
        return [[next(made) for _ in range(question.n)] for question in questions]

    def _sample(self, question: Propose, key: Key, wanted: Callable[[], bool] | None) -> Continuation:
        body = self._request(question, key)
        url = self.server.at("chat/completions" if self.endpoint == "chat" else "completions")

        def ask() -> Continuation:
            with self._gate, streamed(self._client, url, body) as response:
                return self._read(question, self._patience.accept(response, url), wanted)

        try:
            return self._patience.tries(ask, url, wanted)
        except UnwantedError:
            with self._lock:
                self.usage.interrupted += 1
            return Continuation((), finished=False, n_tokens=0, truncated=True, interrupted=True)

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
        named = {self.fields.get(name, name): value for name, value in body.items()}
        return {name: value for name, value in named.items() if name} | self.body

    def _read(self, question: Propose, response: httpx.Response, wanted: Callable[[], bool] | None) -> Continuation:
        """Reads a stream to its end, or to the end of a step, or as long as it is wanted."""
        step = question.until == "step"
        written, cut, started, left = _Written(), -1, time.monotonic(), False
        try:
            for event in events(response):
                self._take(written, event)
                cut = written.text.find(self.separator) if step else -1
                if cut >= 0:
                    break
                left = written.reason is None and wanted is not None and not wanted()
                if left:
                    break
                if time.monotonic() - started > self.server.longest:
                    raise PassingError(f"the answer took longer than {self.server.longest:g} seconds")
            if cut < 0 and written.reason is None and not left:
                raise PassingError("the stream broke off before the answer ended")
        except (PassingError, httpx.TransportError):
            with self._lock:
                self.usage.lost_tokens += written.pieces
            raise
        if cut < 0 and written.reason in ("tool_calls", "function_call") and not written.calls:
            raise PolicyError(f"{response.url} says that it calls a tool, and calls none in the form of tool_calls")
        tokens = self._count(written, cut >= 0 or left, left)
        text = written.text[: cut + len(self.separator)] if cut >= 0 else written.text
        # A filter cuts as a limit does: neither is the model's own end.
        truncated = left or (cut < 0 and written.reason in ("length", "content_filter"))
        steps = [*self._steps(text, written.logprobs)]
        if written.calls and cut < 0 and not truncated:
            steps = _with_calls(steps, written.calls, self.separator)
        return Continuation(tuple(steps), cut < 0 and not truncated, tokens, truncated, written.prompt, left)

    def _take(self, written: _Written, event: Mapping[str, Any]) -> None:
        try:
            self._add(written, event)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PassingError(f"an event of another shape: {str(event)[:200]}") from error

    def _add(self, written: _Written, event: Mapping[str, Any]) -> None:
        usage = event.get("usage")
        if isinstance(usage, Mapping):
            written.tokens = int(usage.get("completion_tokens") or 0)
            written.prompt = int(usage.get("prompt_tokens") or 0)
        if event.get(DONE):
            # Some servers give no reason where the model just ended.
            written.reason = written.reason or "stop"
        choice = next((one for one in event.get("choices") or () if not one.get("index")), None)
        if choice is None:
            return
        written.pieces += any((choice.get("delta") or {}).get(name) for name in _THOUGHTS)
        part = choice.get("text") if self.endpoint == "completions" else (choice.get("delta") or {}).get("content")
        if part:
            written.text += part
            written.pieces += 1
        for call in (choice.get("delta") or {}).get("tool_calls") or ():
            at, named = int(call.get("index", len(written.calls))), call.get("function") or {}
            own = written.calls.setdefault(at, {"id": "", "name": "", "arguments": ""})
            own["id"] += call.get("id") or ""
            own["name"] += named.get("name") or ""
            own["arguments"] += named.get("arguments") or ""
            written.pieces += 1
        written.reason = choice.get("finish_reason") or written.reason
        written.logprobs += token_logprobs(choice.get("logprobs"))

    def _count(self, written: _Written, cut: bool, left: bool) -> int:
        """Adds an answer to the usage; returns the tokens written."""
        tokens = written.tokens
        # In a stream that was cut, a count below the pieces that came is one from its beginning, not of what came.
        unreported = tokens is None or (cut and tokens < written.pieces)
        tokens = written.pieces if tokens is None or unreported else tokens
        with self._lock:
            self.usage.requests += 1
            self.usage.prompt_tokens += written.prompt
            self.usage.completion_tokens += tokens
            self.usage.unreported += unreported
            self.usage.interrupted += left
        return tokens

    def _steps(self, text: str, logprobs: Sequence[tuple[str, float]]) -> Iterator[Step]:
        """The text in steps, each with its separator; a token belongs to the step in which it begins."""
        parts = text.split(self.separator)
        texts = [part + self.separator for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
        at, end, begins = 0, 0, 0
        for part in texts:
            end += len(part)
            mine = []
            while at < len(logprobs) and begins < end:
                mine.append(logprobs[at][1])
                begins += len(logprobs[at][0])
                at += 1
            yield Step(part, logprobs=tuple(mine) if self.logprobs and logprobs else None)


def _with_calls(steps: list[Step], calls: Mapping[int, Mapping[str, str]], separator: str) -> list[Step]:
    """The steps with tool calls in the last one: that which the text has not ended, or one of their own."""
    told = [
        {"name": call["name"], "arguments": parsed(call["arguments"]), **({"id": call["id"]} if call["id"] else {})}
        for _, call in sorted(calls.items())
    ]
    unended = bool(steps) and not steps[-1].text.endswith(separator)
    return [*(steps[:-1] if unended else steps), calling_step(steps[-1].text if unended else "", told)]
