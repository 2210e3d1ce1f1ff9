"""A backend in OpenAI's shape that answers at once and fails on command; a process of its own where memory counts.

A model's name may be made of `BEHAVIOURS`, several joined by `+`: the server then behaves so with every request.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINES = 3
CITIES = ("Rome", "Paris", "Oslo")
"""What is asked for where there are tools, by the seed."""

TOO_LONG = (
    "This model's maximum context length is 4096 tokens. However, your request has 9000 input tokens.",
    "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
    "the request exceeds the available context size, try increasing it",
)
"""What vLLM, SGLang and llama.cpp say of a prompt that is too long, with status 400."""


FULL = "First, 2 + 3 = 5.\nThen 5 * 2 = 10.\nAnswer: \\boxed{10}\n"
COUNT = "".join(f"{i}\n" for i in range(1, 21))
BEHAVIOURS = {
    "good": "answers by its text, whatever the seed",
    "count": "counts from 1 to 20",
    "draw": "begins with the seed",
    "plain": "begins a started answer anew",
    "echo": "repeats a started answer before it goes on",
    "last": "repeats the last line of a started answer before it goes on",
    "odd": "begins a started answer anew at odd seeds",
    "greedy": "answers by the seed, but at temperature 0",
    "trim": "writes the line break that a started answer ends with once more",
    "nothink400": "refuses a started answer of a model that thinks",
    "abort": "breaks off by finish_reason",
    "nullreason": "gives no finish_reason",
    "errnull": "has an error of null in each piece",
    "parts": "gives content as a list",
    "blank": "parts steps by blank lines",
    "leadnl": "begins with line breaks",
    "reasoncut": "spends all tokens on thinking",
    "lpnull": "gives null for a log-probability",
    "unasked": "gives log-probabilities whether they are asked for or not",
    "lpgap": "gives no log-probabilities of some tokens",
    "nullusage": "reports null tokens",
    "thinkonly": "ends, without a word behind its thinking",
    "toolcut": "breaks a tool call off",
    "half": "ends in half a character",
    "context": "holds 16 tokens of an answer",
    "comments": "answers every fourth seed by comments that never end",
    "secret": "tells what it was sent in an error",
}
CONTEXT = 16


def pieces(text: str) -> list[str]:
    """A text in tokens."""
    return re.findall(r"\S+[ \n]?|\s", text)


def told(kinds: set[str], body: dict[str, Any]) -> tuple[list[str], str | None]:
    """The tokens that a server of these behaviours answers with, and why it ends."""
    last = body.get("messages", [{"role": "user"}])[-1]
    started = last["content"] if last["role"] == "assistant" else ""
    text = COUNT if "count" in kinds else FULL
    text = f"{body.get('seed')}\n{text}" if "draw" in kinds and body["temperature"] and not started else text
    text = text.replace("\n", "\n\n") if "blank" in kinds else "\n\n" + text if "leadnl" in kinds else text
    anew = "plain" in kinds or ("odd" in kinds and body["seed"] % 2)
    if started and not anew:
        text = text[len(started) :] if text.startswith(started) else "Answer: \\boxed{10}\n"
        text = f"{started.splitlines()[-1]}\n{text}" if "last" in kinds else text
        text = started + text if "echo" in kinds else "\n" + text if "trim" in kinds else text
    made, reason = pieces(text + ("\ud83d" if "half" in kinds else "")), "stop"
    if len(made) > body["max_tokens"]:
        made, reason = made[: body["max_tokens"]], "length"
    if "abort" in kinds:
        made, reason = made[: len(made) // 2], "abort"
    if kinds & {"reasoncut", "thinkonly"}:
        made, reason = [], "length" if "reasoncut" in kinds else "stop"
    return made, "tool_calls" if "toolcut" in kinds else None if "nullreason" in kinds else reason


class Backend:
    """Three lines an answer, each with the prompt's mark; the next requests meet the faults that are listed."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        """Of requests with tools."""
        self.sent: deque[dict[str, Any]] = deque(maxlen=64)
        """Of the latest requests."""
        self.asked = 0
        self.held = 0
        """Streams of comments that were begun."""
        self.tasks: set[asyncio.Task[Any]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            _plain(writer, 200, {"data": [{"id": name} for name in BEHAVIOURS]})
            return True
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        body = json.loads(await reader.readexactly(length))
        self.sent.append(body)
        self.asked += 1
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "hang up":
            return False
        if fault == "silence":
            await asyncio.wait_for(reader.read(1), 30)
            return False
        if fault.isdigit() or fault in TOO_LONG:
            said = json.dumps({"error": {"message": fault}} if fault in TOO_LONG else {"error": "busy"}).encode()
            status = b"400" if fault in TOO_LONG else fault.encode()
            writer.write(b"HTTP/1.1 %s x\r\ncontent-length: %d\r\n\r\n%s" % (status, len(said), said))
            await writer.drain()
            return True
        if (kinds := set(body["model"].split("+"))) <= set(BEHAVIOURS):
            return await self._behave(writer, body, kinds, head)
        await self._stream(writer, body, fault)
        return not fault

    async def _behave(self, writer: asyncio.StreamWriter, body: dict[str, Any], kinds: set[str], head: bytes) -> bool:
        thinks = body.get("chat_template_kwargs", {}).get("enable_thinking", True)
        refused = ""
        if "nothink400" in kinds and thinks and body["messages"][-1]["role"] == "assistant":
            refused = "A started answer and thinking do not go together."
        if "context" in kinds and body["max_tokens"] > CONTEXT:
            refused = f"max_tokens={body['max_tokens']} cannot be greater than max_model_len={CONTEXT + 1}"
        if "secret" in kinds:
            refused = f"not allowed: {head.decode()}"
        if refused:
            _plain(writer, 400, {"error": {"message": refused}})
            return True
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if "comments" in kinds and body["seed"] % 4 == 0:
            self.held += 1
            while True:
                _chunk(writer, b": keep-alive\n\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        made, reason = told(kinds, body)
        more = {"error": None} if "errnull" in kinds else {}
        for _ in range(5 * bool(kinds & {"reasoncut", "thinkonly"})):
            _event(writer, {"choices": [{"delta": {"content": None, "reasoning_content": "hm "}}]})
        for token in made:
            choice: dict[str, Any] = {"index": 0, "delta": {"content": token}, "text": token, "finish_reason": None}
            if "parts" in kinds:
                choice["delta"] = {"content": [{"type": "text", "text": token}]}
            gap = "lpgap" in kinds and token.startswith("2")
            if (body.get("logprobs") or "unasked" in kinds) and not gap:
                value = None if "lpnull" in kinds and token.startswith("Then") else -0.5
                choice["logprobs"] = {"content": [{"token": token, "logprob": value}]}
            _event(writer, {"choices": [choice], **more})
            await writer.drain()
        if "toolcut" in kinds:
            call = {"index": 0, "id": "k", "function": {"name": "calc", "arguments": '{"expr": "2+'}}
            _event(writer, {"choices": [{"delta": {"tool_calls": [call]}}]})
        _event(writer, {"choices": [{"delta": {}, "text": "", "finish_reason": reason}], **more})
        count = None if "nullusage" in kinds else len(made)
        _event(writer, {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": count}})
        _chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _stream(self, writer: asyncio.StreamWriter, body: dict[str, Any], fault: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if "tools" in body:
            self.bodies.append(body)
            await self._call(writer, body)
            return
        mark = body["messages"][0]["content"][-8:]
        said = body["messages"][-1]["content"] if body["messages"][-1]["role"] == "assistant" else ""
        for line in range(said.count("\n"), LINES):
            if fault == "garbage":
                _chunk(writer, b"data: {not json\n\n")
            _event(writer, {"choices": [{"delta": {"content": f"{mark} "}, "finish_reason": None}]})
            if fault == "half":
                await writer.drain()
                return
            digit = body["seed"] // 7 % 10
            _event(writer, {"choices": [{"delta": {"content": f"{digit}{line}\n"}, "finish_reason": None}]})
            await writer.drain()  # a client that has read enough is gone: asyncio warns of each further write
        _event(writer, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
        _event(writer, {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2 * LINES}})
        _chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _call(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        """A tool call in pieces, as servers stream it; behind a tool's result, an answer."""
        last = body["messages"][-1]
        if last["role"] == "tool":
            said = [{"content": f"It is {last['content']}.\n"}, {"content": "Answer: done"}]
            reason = "stop"
        else:
            city = CITIES[body["seed"] // 7 % 3]
            half = {
                "index": 0,
                "id": f"call-{city}",
                "type": "function",
                "function": {"name": "weather", "arguments": ""},
            }
            parts = ['{"city": ', f'"{city}"', "}"]
            said = [{"content": "I look it up."}, {"tool_calls": [half]}]
            said += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts]
            reason = "tool_calls"
        for delta in said:
            _event(writer, {"choices": [{"delta": delta, "finish_reason": None}]})
        _event(writer, {"choices": [{"delta": {}, "finish_reason": reason}]})
        _event(writer, {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": len(said)}})
        _chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _plain(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
    said = json.dumps(body).encode()
    writer.write(
        b"HTTP/1.1 %d x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(said), said)
    )


def _event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    _chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


@contextmanager
def backing(port: int = 0) -> Iterator[tuple[Backend, str]]:
    """A backend in a thread, and its address up to /v1."""
    loop, backend, started = asyncio.new_event_loop(), Backend(), threading.Event()
    address: list[int] = []

    async def run() -> None:
        server = await asyncio.start_server(backend.connected, "127.0.0.1", port)
        address.append(server.sockets[0].getsockname()[1])
        started.set()
        async with server:
            await stopped.wait()
            for task in backend.tasks:
                task.cancel()
            await asyncio.gather(*backend.tasks, return_exceptions=True)

    stopped = asyncio.Event()
    thread = threading.Thread(target=lambda: (loop.run_until_complete(run()), loop.close()), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield backend, f"http://127.0.0.1:{address[0]}/v1"
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)


if __name__ == "__main__":

    async def alone() -> None:
        server = await asyncio.start_server(Backend().connected, "127.0.0.1", int(sys.argv[1]))
        print("ready", flush=True)
        await server.serve_forever()

    asyncio.run(alone())
