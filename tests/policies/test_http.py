"""The policy over HTTP: against a server that fails in every way, and against one that no one here wrote."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
from tests.transformers_server import serving

from stepreward.core.errors import InputError, PolicyError, ServerWarning, SteprewardError
from stepreward.core.http.addresses import without_secrets
from stepreward.core.http.faults import retry_after
from stepreward.core.http.open_requests import OpenRequests
from stepreward.core.http.server import Server
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.answer_reader import steps_of
from stepreward.policies.chat_messages import messages_of
from stepreward.policies.http import SEEDS, HttpPolicy
from stepreward.policies.local import LocalPolicy
from stepreward.policies.model_sources import resolve
from stepreward.policies.named import policy_at
from stepreward.search.samples.independent import majority_vote
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

KEY = Key.seed(0)
PROBLEM = Problem("p", "What is 12 + 5?")


class Script:
    """What the server does with each request, in order; then it answers by the seed."""

    def __init__(self) -> None:
        self.faults: list[Any] = []
        self.seen: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.hung_up = threading.Event()
        self.muted = threading.Event()
        self.lines = ["12 + 5 = 17\n", "so it is 17\n", "Answer: 17"]
        self.reason = "stop"
        self.usage = True
        self.lock = threading.Lock()


def chunk(text: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {"index": 0, "delta": {"content": text}, "text": text, "finish_reason": reason, **more}
    return {"choices": [delta]}


class Handler(BaseHTTPRequestHandler):
    script: Script
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.script.lock:
            self.script.seen.append({**body, "path": self.path})
            self.script.headers.append(self.headers.get("authorization", ""))
            fault = self.script.faults.pop(0) if self.script.faults else None
        if isinstance(fault, tuple) and fault[0] == "stream":
            self._stream(fault[1])
        elif isinstance(fault, tuple) and fault[0] == "then":
            self._go_mute(fault[1], fault[2])
        elif isinstance(fault, tuple) and fault[0] == "ascii":
            self._raw("".join(f"data: {json.dumps(event)}\n\n" for event in fault[1]).encode())
        elif isinstance(fault, tuple):
            self._plain(*fault)
        elif fault == "hang up":
            self.close_connection = True
        elif fault == "half":
            self._stream([chunk("12 + ")], whole=False)
        elif fault == "garbage":
            self._raw(b"data: {not json\n\n")
        elif fault == "null choice":
            self._stream([{"choices": [None]}])
        elif fault == "bad usage":
            self._stream([{"choices": [], "usage": {"completion_tokens": "many"}}])
        elif fault == "tool":
            self._stream([chunk("", "tool_calls")])
        elif fault == "error":
            self._stream([{"error": {"message": "out of memory"}}])
        elif fault == "one":
            message = {"message": {"role": "assistant", "content": "Answer: 17"}, "finish_reason": "stop"}
            self._plain(200, json.dumps({"choices": [message], "usage": {"completion_tokens": 4}}))
        else:
            self._answer(body)

    def _answer(self, body: dict[str, Any]) -> None:
        mark = body["messages"][0]["content"] if "messages" in body else body["prompt"]
        words = [f"{mark}|" if i == 0 else "" for i in range(1)] + [
            piece for line in self.script.lines for piece in (line[:3], line[3:])
        ]
        events = [chunk(word) for word in words if word] + [chunk("", self.script.reason)]
        if body.get("stream_options", {}).get("continuous_usage_stats"):
            # This server's tokenizer parts each piece in two.
            for i, event in enumerate(events):
                event["usage"] = {"prompt_tokens": 9, "completion_tokens": 2 * (i + 1)}
        elif self.script.usage:
            events.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(words)}})
        self._stream(events)

    def _plain(self, status: int, text: str, wait: str | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if wait is not None:
            self.send_header("retry-after", wait)
        self.end_headers()
        self.wfile.write(data)

    def _raw(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:
            self.script.hung_up.set()

    def _go_mute(self, events: list[dict[str, Any]] | None, mute: bytes) -> None:
        """Sends events, or not even a header where they are None, and then none until the client leaves."""
        self.script.hung_up.clear()
        if events is not None:
            self._raw("".join(f"data: {json.dumps(event)}\n\n" for event in events).encode())
        self.connection.settimeout(0.1)
        for sent in range(200):
            if sent == 5:
                self.script.muted.set()
            try:
                if events is not None:
                    self.connection.sendall(mute)
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.close_connection = True
        self.script.hung_up.set()

    def _stream(self, events: list[dict[str, Any]], *, whole: bool = True) -> None:
        lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events] + (
            ["data: [DONE]\n\n"] if whole else []
        )
        self._raw("".join(lines).encode())


@pytest.fixture
def served() -> Iterator[tuple[Script, str]]:
    script = Script()
    handler = type("Bound", (Handler,), {"script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield script, f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def policy(url: str, **settings: Any) -> HttpPolicy:
    patience = settings.pop("server", {})
    slept = settings.pop("slept", [])
    return HttpPolicy(Server(url, "m", **patience), sleep=slept.append, **settings)


def ask(n: int = 1, prefix: tuple[Step, ...] = (), problem: Problem = PROBLEM, **how: Any) -> Propose:
    return Propose(problem, prefix, KEY, n, **how)


def test_a_whole_answer_comes_in_steps_with_the_server_s_count(served: tuple[Script, str]) -> None:
    script, url = served
    made = policy(url, server={"api_key": "secret"})
    ((one,),) = made.propose([ask()])
    assert [s.text for s in one.steps] == ["What is 12 + 5?|12 + 5 = 17\n", "so it is 17\n", "Answer: 17"]
    assert (one.finished, one.truncated, one.n_tokens) == (True, False, 7)
    assert (made.usage.requests, made.usage.prompt_tokens, made.usage.completion_tokens) == (1, 9, 7)
    assert script.headers == ["Bearer secret"]
    assert "secret" not in repr(made.server)
    body = script.seen[0]
    assert (body["path"], body["model"], body["temperature"]) == ("/v1/chat/completions", "m", 1.0)
    assert body["seed"] == KEY.fold(0).bits % SEEDS


def test_a_step_is_cut_where_it_ends_whatever_the_server_goes_on_to_say(served: tuple[Script, str]) -> None:
    script, url = served
    ((one,),) = policy(url).propose([ask(until="step")])
    assert [s.text for s in one.steps] == ["What is 12 + 5?|12 + 5 = 17\n"]
    assert (one.finished, one.truncated, one.n_tokens) == (False, False, 3)
    script.lines = ["Answer: 17"]
    ((last,),) = policy(url).propose([ask(until="step")])
    assert last.finished


def test_a_limit_is_no_end(served: tuple[Script, str]) -> None:
    script, url = served
    script.reason = "length"
    ((one,),) = policy(url).propose([ask(max_tokens=7)])
    assert (one.finished, one.truncated) == (False, True)
    assert script.seen[0]["max_tokens"] == 7


def test_samples_are_requests_of_their_own_and_none_are_crossed(served: tuple[Script, str]) -> None:
    script, url = served
    problems = [Problem(f"p{i}", f"question {i}") for i in range(9)]
    answers = policy(url, server={"concurrency": 4}).propose([ask(3, problem=p) for p in problems])
    for problem, some in zip(problems, answers, strict=True):
        assert [c.steps[0].text.split("|")[0] for c in some] == [problem.text] * 3
    assert len(script.seen) == 27
    assert {body["seed"] for body in script.seen} == {KEY.fold(i).bits % SEEDS for i in range(3)}


def test_a_prefix_is_a_started_answer(served: tuple[Script, str]) -> None:
    script, url = served
    prefix = (Step("look\n"), Step("a hall\n", "observation", "user"), Step("go\n"), Step("on\n"))
    policy(url).propose([ask(prefix=prefix)])
    body = script.seen[0]
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("user", PROBLEM.text), ("assistant", "look\n"), ("user", "a hall\n"), ("assistant", "go\non\n"),
    ]  # fmt: skip
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False
    policy(url, prefill="plain").propose([ask(prefix=prefix)])
    assert "continue_final_message" not in script.seen[1]
    policy(url, endpoint="completions", template="Q: {prompt}\nA: ").propose([ask(prefix=prefix[:1])])
    assert script.seen[2]["prompt"] == f"Q: {PROBLEM.text}\nA: look\n"
    assert messages_of(Problem("q", ({"role": "system", "content": "s"},)), ()) == [{"role": "system", "content": "s"}]


def test_log_probabilities_reach_the_steps_in_which_their_tokens_begin() -> None:
    tokens = [("ab", -1.0), ("c\nd", -2.0), ("e\n", -3.0), ("f", -4.0)]
    steps = steps_of("abc\nde\nf", "\n", tokens)
    assert [(s.text, s.logprobs) for s in steps] == [("abc\n", (-1.0, -2.0)), ("de\n", (-3.0,)), ("f", (-4.0,))]


@pytest.mark.parametrize(
    "fault", ["hang up", "half", "garbage", "error", "null choice", "bad usage", (500, "oops"), (503, "busy")]
)
def test_faults_that_pass_are_tried_again_and_billed_once(served: tuple[Script, str], fault: Any) -> None:
    script, url = served
    script.faults, slept = [fault, fault], []
    made = policy(url, slept=slept)
    ((one,),) = made.propose([ask()])
    assert one.finished
    assert len(script.seen) == 3
    assert len(slept) == 2
    assert (made.usage.requests, made.usage.completion_tokens) == (1, 7)
    assert script.seen[0] == script.seen[2], "a try again is the same request"
    assert made.usage.lost_tokens == (2 if fault == "half" else 0)


def test_line_breaks_inside_the_text_do_not_part_events(served: tuple[Script, str]) -> None:
    script, url = served
    script.lines = ["a\u2028b\u0085c\n", "d"]
    ((one,),) = policy(url).propose([ask()])
    assert "".join(s.text for s in one.steps).endswith("a\u2028b\u0085c\nd")


def test_a_filter_is_no_end(served: tuple[Script, str]) -> None:
    script, url = served
    script.reason = "content_filter"
    ((one,),) = policy(url).propose([ask()])
    assert (one.finished, one.truncated) == (False, True)


def test_an_answer_that_drips_for_ever_is_given_up(served: tuple[Script, str]) -> None:
    _, url = served
    with pytest.raises(PolicyError, match="longer than 1e-09 seconds"):
        policy(url, server={"longest": 1e-9, "retries": 0}).propose([ask()])


def test_names_tell_apart_what_answers_differently() -> None:
    names = {HttpPolicy(Server("http://x", "m"), **one).name for one in ({}, {"logprobs": True}, {"top_p": 0.5})}  # type: ignore[arg-type]
    assert len(names) == 3


def test_the_server_s_wish_to_wait_is_honoured(served: tuple[Script, str]) -> None:
    script, url = served
    script.faults, slept = [(429, "slow down", "7")], []
    policy(url, slept=slept, server={"backoff": 0.0}).propose([ask()])
    assert slept == [7.0]
    assert retry_after({"retry-after": "7"}) == 7
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert retry_after({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, now) == 30
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([(500, "oops")] * 5, r"failed 5 times, last with status 500: oops"),
        ([(401, "who are you")], r"refused with status 401: who are you; pass the API key"),
        ([(404, "no such model")], r"status 404.*check the address, with its /v1, and the model"),
        ([(200, '{"object": "list"}')], r"without choices.*OpenAI-compatible"),
        (["tool"], r"says that it calls a tool, and calls none"),
        (["half"] * 5, r"broke off before the answer ended"),
    ],
)
def test_what_does_not_pass_is_one_clear_error(served: tuple[Script, str], faults: list[Any], message: str) -> None:
    script, url = served
    script.faults = list(faults)
    with pytest.raises(PolicyError, match=message):
        policy(url).propose([ask()])


def test_a_server_that_does_not_stream_is_understood(served: tuple[Script, str]) -> None:
    script, url = served
    script.faults = ["one"]
    ((one,),) = policy(url).propose([ask()])
    assert ([s.text for s in one.steps], one.finished, one.n_tokens) == (["Answer: 17"], True, 4)


def test_without_usage_pieces_are_counted_and_said_to_be(served: tuple[Script, str]) -> None:
    script, url = served
    script.usage = False
    made = policy(url)
    ((one,),) = made.propose([ask()])
    assert one.n_tokens == 7
    assert made.usage.unreported == 1


def test_usage_that_runs_along_counts_a_cut_step_exactly(served: tuple[Script, str]) -> None:
    script, url = served
    made = policy(url, running_usage=True)
    ((one,),) = made.propose([ask(until="step")])
    # The step ends with the third piece: the mark, "12 " and "+ 5 = 17\n".
    assert (one.n_tokens, made.usage.completion_tokens, made.usage.prompt_tokens) == (6, 6, 9)
    assert made.usage.unreported == 0
    plain = policy(url)
    ((same,),) = plain.propose([ask(until="step")])
    assert (same.steps, same.n_tokens, plain.usage.unreported) == (one.steps, 3, 1)
    assert "continuous_usage_stats" not in script.seen[-1]["stream_options"]


def test_nobody_is_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(PolicyError, match="failed 2 times, last with ConnectError"):
        policy(url, server={"retries": 1}).propose([ask()])


@pytest.mark.parametrize(("settings", "message"), [({"separator": ""}, "separator"), ({"template": "x"}, "template")])
def test_impossible_settings(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HttpPolicy(Server("http://x", "m"), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def transformers_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve`."""
    pytest.importorskip("openai")  # the server's, beside FastAPI
    with serving(tmp_path_factory.mktemp("serve")) as url:
        if "/v1/completions" not in httpx.get(f"{url}/openapi.json").json()["paths"]:
            pytest.skip("this release of transformers serves no /v1/completions")
        yield f"{url}/v1"


def test_a_server_that_no_one_here_wrote_answers(transformers_server: str) -> None:
    problems = list(generate("held_out", 3))
    model = resolve("builtin:arithmetic")
    made = HttpPolicy(
        Server(transformers_server, model, concurrency=2), endpoint="completions", max_tokens=64,
    )  # fmt: skip
    asked = [Propose(p, (), KEY.fold(p.id), 2) for p in problems]
    answers = made.propose(asked)
    assert all(len(some) == 2 for some in answers)
    ended = [c for some in answers for c in some if c.finished]
    assert len(ended) > 3
    assert any(c.steps[-1].text.startswith("Answer") for c in ended)
    assert made.usage.completion_tokens > 0
    first = answers[0][0].steps[:1]
    ((onward,),) = made.propose([Propose(problems[0], first, KEY, 1, until="step")])
    assert len(onward.steps) <= 1
    driver = Driver(policy=made, grader=ArithmeticGrader())
    found = [one.result for one in driver.run([majority_vote(p, KEY.fold(p.id), n=2) for p in problems[:2]])]
    assert all(f.answers for f in found)
    assert driver.bill.generated_tokens > 0


def test_thoughts_are_not_kept_but_counted(served: tuple[Script, str]) -> None:
    script, url = served
    thought = [{"choices": [{"index": 0, "delta": {name: "hm"}}]} for name in ("reasoning_content", "reasoning")] * 5
    script.faults = [("stream", [*thought, chunk("4"), chunk("", "length")])]
    ((one,),) = policy(url).propose([ask()])
    assert ([s.text for s in one.steps], one.n_tokens, one.truncated) == (["4"], 11, True)


def test_the_choice_read_is_the_first_one_by_index(served: tuple[Script, str]) -> None:
    script, url = served
    other = {"index": 1, "delta": {"content": "other"}, "finish_reason": None}
    script.faults = [("stream", [{"choices": [other, chunk("mine")["choices"][0]]}, chunk("", "stop")])]
    ((one,),) = policy(url).propose([ask()])
    assert [s.text for s in one.steps] == ["mine"]


def test_fields_are_renamed_and_left_out_for_servers_that_know_others(served: tuple[Script, str]) -> None:
    script, url = served
    made = policy_at(f"{url}#m?fields=max_tokens:max_completion_tokens,seed:,top_p:&max_tokens=9")
    made.propose([ask()])
    body = script.seen[0]
    assert body["max_completion_tokens"] == 9
    assert not {"max_tokens", "seed", "top_p"} & set(body)
    assert made.name != policy_at(f"{url}#m?max_tokens=9").name
    with pytest.raises(InputError, match="FIELD:OTHER"):
        policy_at(f"{url}#m?fields=seed")


@pytest.mark.parametrize("mute", [b": keep-alive\n\n", b"x", b""], ids=["comments", "one endless line", "silence"])
def test_what_nobody_waits_for_is_left_within_a_glance_whatever_the_server_sends(
    served: tuple[Script, str], mute: bytes
) -> None:
    script, url = served
    script.faults = [("then", [chunk("12 + 5 = 17\n"), chunk("so")], mute)]
    made = policy(url)
    ((one,),) = made.propose_while(lambda position: not script.muted.is_set(), [ask()])
    assert (one.interrupted, one.truncated, one.finished) == (True, True, False)
    assert [s.text for s in one.steps] == ["12 + 5 = 17\n", "so"]
    assert one.n_tokens == 2
    assert (made.in_flight, made.stuck) == (0, 0)
    script.faults = [("then", None, mute)]
    script.muted.clear()
    ((none,),) = made.propose_while(lambda position: not script.muted.is_set(), [ask()])
    assert (none.interrupted, none.steps, none.n_tokens) == (True, (), 0)
    ((never,), (whole,)) = made.propose_while(lambda position: position == 1, [ask(), ask()])
    assert (never.interrupted, whole.finished) == (True, True)
    assert (made.usage.interrupted, made.usage.lost_tokens) == (3, 0)


@pytest.mark.parametrize("mute", [b": keep-alive\n\n", b"x"], ids=["comments", "one endless line"])
def test_a_stream_without_events_frees_its_place_and_is_tried_again(served: tuple[Script, str], mute: bytes) -> None:
    script, url = served
    script.faults = [("then", [chunk("12")], mute)]
    made = policy(url, server={"timeout": 1.5, "concurrency": 1})
    ((one,),) = made.propose([ask()])
    assert one.finished
    assert (len(script.seen), made.usage.lost_tokens) == (2, 1)
    assert script.hung_up.wait(10)
    script.faults = [("then", [chunk("12")], mute)] * 2
    with pytest.raises(PolicyError, match=r"failed 2 times, last with no event in 0\.6 seconds"):
        policy(url, server={"timeout": 0.6, "retries": 1}).propose([ask()])


def test_requests_that_nothing_comes_of_count_as_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("stepreward.core.http.open_requests.time.monotonic", lambda: now[0])
    requests = OpenRequests()
    with requests.one() as first, requests.one():
        now[0] = 129.0
        assert (requests.count, requests.stuck) == (2, 0)
        first.last_event = now[0]
        now[0] = 131.0
        assert requests.stuck == 1
    assert (requests.count, requests.stuck) == (0, 0)


@pytest.mark.parametrize("reason", ["abort", "error", "cancelled", "load", "insufficient_system_resource", "new", None])
def test_an_answer_that_ended_by_a_fault_is_tried_again(served: tuple[Script, str], reason: str | None) -> None:
    script, url = served
    script.faults = [("stream", [chunk("12 + "), chunk("", reason)])]
    made = policy(url)
    ((one,),) = made.propose([ask()])
    assert (one.finished, len(script.seen), made.usage.lost_tokens) == (True, 2, 1)
    script.faults = [("stream", [chunk("12 + "), chunk("", reason)])] * 5
    with pytest.raises(PolicyError, match=f"failed 5 times, last with .*finish_reason {reason!r}"):
        policy(url).propose([ask()])


@pytest.mark.parametrize("reason", ["stop", "eos_token", "stop_sequence", "end_turn", "COMPLETE", "eos"])
def test_ends_by_other_names_are_ends(served: tuple[Script, str], reason: str) -> None:
    script, url = served
    script.reason = reason
    ((one,),) = policy(url).propose([ask()])
    assert (one.finished, one.truncated) == (True, False)


def test_filters_are_counted_apart_from_limits(served: tuple[Script, str]) -> None:
    script, url = served
    made = policy(url)
    for reason in ("length", "content_filter", "max_tokens", "repetition"):
        script.reason = reason
        ((one,),) = made.propose([ask()])
        assert (one.finished, one.truncated) == (False, True)
    assert made.usage.filtered == 2


def test_an_error_that_is_null_is_none(served: tuple[Script, str]) -> None:
    script, url = served
    script.faults = [("stream", [{"error": None, **chunk("17")}, {"error": None, **chunk("", "stop")}])]
    ((one,),) = policy(url).propose([ask()])
    assert ([s.text for s in one.steps], len(script.seen)) == (["17"], 1)


def test_content_in_parts_is_read_and_thinking_in_it_is_none(served: tuple[Script, str]) -> None:
    script, url = served
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "17"},
        {"type": "image_url", "image_url": {"url": "x"}},
    ]  # fmt: skip
    script.faults = [
        ("stream", [{"choices": [{"delta": {"content": parts}}]}, {"choices": [{"delta": None}]}, chunk("", "stop")])
    ]
    ((one,),) = policy(url).propose([ask()])
    assert ([s.text for s in one.steps], one.n_tokens) == (["17"], 2)


def test_a_tool_call_that_breaks_off_is_a_cut_answer(served: tuple[Script, str]) -> None:
    script, url = served

    def call(arguments: str) -> list[dict[str, Any]]:
        made = {"index": 0, "id": "k", "function": {"name": "calc", "arguments": arguments}}
        return [{"choices": [{"delta": {"tool_calls": [made]}}]}, chunk("", "tool_calls")]

    told = {
        '{"a": "2+': True, '{"a": 2': True, '{"a": [1, 2': True, '{"a": "\\"': True,
        '{"a": "{"}': False, "{'a': 2}": False, "": False, '{"a": 2}': False,
    }  # fmt: skip
    for arguments, cut in told.items():
        script.faults = [("stream", call(arguments))]
        ((one,),) = policy(url).propose([ask()])
        assert (one.truncated, one.finished, len(one.steps)) == (cut, not cut, 0 if cut else 1), arguments


def test_white_space_alone_is_no_step(served: tuple[Script, str]) -> None:
    script, url = served
    script.faults = [("stream", [chunk("\n\n a\n"), chunk("\n \nb\n\n"), chunk(" ", "stop")])]
    ((one,),) = policy(url).propose([ask()])
    assert [s.text for s in one.steps] == ["\n\n a\n", "\n \nb\n\n "]
    script.faults = [("stream", [chunk("\n\n"), chunk("\na\n\nb")])]
    ((first,),) = policy(url).propose([ask(until="step")])
    assert ([s.text for s in first.steps], first.truncated) == (["\n\n\na\n"], False)
    script.faults = [("stream", [chunk("\n"), chunk("\n", "stop")])]
    ((none,),) = policy(url).propose([ask(until="step", prefix=first.steps)])
    assert (none.steps, none.finished) == ((), True)


def test_lone_surrogates_are_replaced_and_pairs_joined(served: tuple[Script, str]) -> None:
    script, url = served
    script.faults = [("ascii", [chunk("a\ud83d"), chunk("\ude00b\n"), chunk("c\ud83d\n", "stop")])]
    ((one,),) = policy(url).propose([ask()])
    assert [s.text for s in one.steps] == ["a\U0001f600b\n", "c\N{REPLACEMENT CHARACTER}\n"]


def test_log_probabilities_of_thinking_are_no_step_s(served: tuple[Script, str]) -> None:
    script, url = served

    def told(delta: dict[str, str], *tokens: tuple[str, float]) -> dict[str, Any]:
        content = [{"token": token, "logprob": value} for token, value in tokens]
        return {"choices": [{"index": 0, "delta": delta, "logprobs": {"content": content}}]}

    script.faults = [("stream", [
        told({"reasoning_content": "hm\n"}, ("hm", -5.0), ("\n", -6.0)),
        told({}, ("</think>", -7.0)),
        told({"content": "one\n"}, ("one\n", -0.1)),
        told({"content": "two"}, ("two", -0.2)),
        told({"content": ""}, ("<|end|>", -0.3)),
        chunk("", "stop"),
    ])]  # fmt: skip
    ((one,),) = policy(url, logprobs=True).propose([ask()])
    assert [(s.text, s.logprobs) for s in one.steps] == [("one\n", (-0.1,)), ("two", (-0.2,))]


def test_log_probabilities_of_halves_of_characters_do_not_shift_the_later_ones() -> None:
    half = "\N{REPLACEMENT CHARACTER}"
    # What vLLM tells of a character in three tokens: halves, then halves and the character.
    tokens = [("a", -1.0), (half, -2.0), (half * 2, -3.0), (half * 2 + "字", -4.0), ("\n", -5.0), ("b", -6.0)]
    (first, second) = steps_of("a字\nb", "\n", tokens)
    assert (first.logprobs, second.logprobs) == ((-1.0, -2.0, -3.0, -4.0, -5.0), (-6.0,))
    # Another server tells halves only.
    tokens = [("a", -1.0), (half, -2.0), (half, -3.0), (half, -4.0), ("\n", -5.0), ("b", -6.0)]
    (first, second) = steps_of("a字\nb", "\n", tokens)
    assert (first.logprobs, second.logprobs) == ((-1.0, -2.0, -3.0, -4.0, -5.0), (-6.0,))


def test_a_null_log_probability_is_not_a_number_and_told_once(served: tuple[Script, str]) -> None:
    script, url = served
    null = {"content": [{"token": "17", "logprob": None}]}
    script.faults = [("stream", [chunk("17", "stop", logprobs=null)])] * 2
    made = policy(url, logprobs=True)
    with pytest.warns(ServerWarning, match="m at http.* null in place of log-probabilities") as told:
        ((one,), _) = made.propose([ask(), ask()])
    assert one.steps[0].logprobs is not None
    assert np.isnan(one.steps[0].logprobs).tolist() == [True]
    assert (made.usage.unknown_logprobs, len(told)) == (2, 1)


def test_a_server_that_begins_anew_is_told_of_once(served: tuple[Script, str]) -> None:
    script, url = served
    script.faults = [("stream", [chunk("look\n")])] * 4
    made = policy(url, server={"concurrency": 1})
    prefix = (Step("look\n"), Step("a hall\n", "observation", "user"), Step("go\n"))
    with pytest.warns(ServerWarning, match=r"begins 2 of 2 continued answers as their prefix began") as told:
        made.propose([ask(4, prefix=prefix, until="step")])
    assert (made.usage.continued, made.usage.repeated, len(told)) == (4, 4, 1)
    script.faults = [("stream", [chunk("on\n")])] * 4
    policy(url).propose([ask(4, prefix=prefix, until="step")])


@pytest.mark.parametrize(
    ("refusal", "rooms"),
    [
        ("max_tokens=1024 cannot be greater than max_model_len=512. Please request fewer", [511]),
        ("This model's maximum context length is 512 tokens. However, your request has 20 input tokens.", [492]),
        ("'max_tokens' is too large: 1024. This model's maximum context length is 512 tokens and your request has 20 "
         "input tokens (1024 > 512 - 20).", [492]),
        ("Requested token count exceeds the model's maximum context length of 512 tokens. You requested a total of "
         "1044 tokens: 20 tokens from the input messages and 1024 tokens for the completion.", [492]),
    ],
)  # fmt: skip
def test_tokens_beyond_the_server_s_context_are_not_asked_for(
    served: tuple[Script, str], refusal: str, rooms: list[int]
) -> None:
    script, url = served
    script.faults = [(400, json.dumps({"error": {"message": refusal}}))]
    ((one,),) = policy(url).propose([ask()])
    assert one.finished
    assert [body["max_tokens"] for body in script.seen] == [1024, *rooms]


def test_a_prefix_without_room_is_a_cut_answer_and_a_prompt_without_room_an_error(served: tuple[Script, str]) -> None:
    script, url = served
    full = "This model's maximum context length is 4096 tokens. However, your request has 9000 input tokens."
    script.faults = [(400, full)]
    ((one,),) = policy(url).propose([ask(prefix=(Step("long\n"),))])
    assert (one.steps, one.finished, one.truncated, one.n_tokens) == ((), False, True, 0)
    script.faults = [(400, full)]
    with pytest.raises(PolicyError, match="9000 input tokens"):
        policy(url).propose([ask()])
    script.faults = [(400, "This model's maximum context length is 128 tokens.")] * 9
    with pytest.raises(PolicyError, match="128 tokens"):
        policy(url).propose([ask()])
    assert [body["max_tokens"] for body in script.seen[2:]] == [1024, 127, 63, 31, 15, 7, 3, 1]


def test_cut_steps_share_the_tokens_of_the_event_that_goes_past_their_end(served: tuple[Script, str]) -> None:
    script, url = served
    events = [chunk("12 + "), chunk("5\nso it")]
    events[0]["usage"], events[1]["usage"] = ({"prompt_tokens": 9, "completion_tokens": n} for n in (3, 7))
    script.faults = [("stream", events)]
    ((one,),) = policy(url, running_usage=True).propose([ask(until="step")])
    # 2 of the 7 characters of the last event, of 4 tokens: 3 + ceil(8 / 7).
    assert one.n_tokens == 5
    told = {"content": [{"token": t, "logprob": -1.0} for t in ("12", " + ", "5", "\n", "so", " it")]}
    script.faults = [("stream", [chunk("12 + 5\nso it", logprobs=told)])]
    ((one,),) = policy(url, logprobs=True).propose([ask(until="step")])
    assert one.n_tokens == 4


def test_a_restart_of_a_minute_is_ridden_out_by_whom_the_server_answered_before(served: tuple[Script, str]) -> None:
    script, url = served
    slept: list[float] = []
    made = policy(url, slept=slept)
    made.propose([ask()])
    script.faults = [(503, "loading")] * 1000

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) > 60:
            script.faults = []

    made._client._sleep = sleep
    ((one,),) = made.propose([ask()])
    assert one.finished
    assert 60 < sum(slept) < 90
    script.faults = [(503, "gone")] * 1000
    slept.clear()
    made._client._sleep = slept.append
    with pytest.raises(PolicyError, match="last with status 503: gone"):
        made.propose([ask()])
    assert 90 <= sum(slept) < 100
    # One that never answered is not waited for.
    script.seen.clear()
    with pytest.raises(PolicyError, match="failed 5 times"):
        policy(url).propose([ask()])
    assert len(script.seen) == 5


def test_what_is_secret_in_an_address_is_sent_and_shown_nowhere(served: tuple[Script, str]) -> None:
    script, url = served
    secret = url.replace("://", "://me:S%40CRET@") + "?api-key=TOPKEY"
    made, plain = policy_at(f"{secret}#m"), policy_at(f"{url}#m")
    assert isinstance(made, HttpPolicy)
    assert made.name == plain.name
    made.propose([ask()])
    assert script.headers == ["Basic " + base64.b64encode(b"me:S@CRET").decode()]
    assert script.seen[0]["path"] == "/v1/chat/completions?api-key=TOPKEY"
    told = [made.name, repr(made.server)]
    for fault in ((401, "S@CRET and TOPKEY are wrong"), (200, '{"TOPKEY": 1}'), (500, "S@CRET\x1b[31m")):
        script.faults = [fault] * 5
        with pytest.raises(PolicyError) as error:
            made.propose([ask()])
        told.append(str(error.value))
    for wrong in (secret, secret.replace("/v1", "x/v1") + "#m", f"{secret}#m?no=1", f"{secret}#m?top_p=x"):
        with pytest.raises(SteprewardError) as raised:
            policy_at(wrong)
        told.append(str(raised.value))
    text = " ".join(told)
    assert not [one for one in ("CRET", "TOPKEY", "\x1b") if one in text], text
    assert without_secrets(f"cannot read {secret}#m?top_p=1") == f"cannot read {url}#m?top_p=1"


@pytest.mark.parametrize("url", ["x", "ftp://h", "http://", "http://me:p@ss@h:port/v1", "https://me:pw#d@h"])
def test_what_is_no_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="expected the address of a server") as error:
        Server(url, "m")
    assert "p@ss" not in str(error.value)


def test_settings_of_an_address_reach_the_request(served: tuple[Script, str]) -> None:
    script, url = served
    given = 'top_k=20&min_p=0.1&reasoning_effort=low&chat_template_kwargs={"enable_thinking":false}&body={"user":"a=b"}'
    made = policy_at(rf"{url}#m?{given}&separator=\n\n&template=Q:\t{{prompt}}&timeout=7&retries=1")
    assert isinstance(made, HttpPolicy)
    made.propose([ask()])
    sent = {
        name: script.seen[0][name] for name in ("top_k", "min_p", "reasoning_effort", "chat_template_kwargs", "user")
    }
    assert sent == {
        "top_k": 20, "min_p": 0.1, "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False},
        "user": "a=b",
    }  # fmt: skip
    assert (made.separator, made.template) == ("\n\n", "Q:\t{prompt}")
    assert (made.server.timeout, made.server.retries) == (7.0, 1)
    assert made.name != policy_at(f"{url}#m").name
    for wrong in ("body=[1]", "body={x", 'body={"stream":false}', 'body={"temperature":0}', "top_k=many"):
        with pytest.raises(InputError):
            policy_at(f"{url}#m?{wrong}")


def test_settings_behind_a_name_reach_a_model_on_this_machine() -> None:
    made = policy_at(r"builtin:arithmetic?separator=\n\n&top_k=3&max_tokens=9")
    plain = policy_at("builtin:arithmetic")
    assert isinstance(made, LocalPolicy)
    assert made.max_tokens == 9
    assert made.name != plain.name
    ((one,),) = made.propose([ask()])
    assert len(one.steps) <= 1, "single line breaks end no step"
    with pytest.raises(InputError, match="enable_thinking are settings of a chat template"):
        policy_at('builtin:arithmetic?chat_template_kwargs={"enable_thinking":false}')
    with pytest.raises(InputError, match="seed cannot be set for a model on this machine"):
        policy_at('builtin:arithmetic?body={"seed":1}')
