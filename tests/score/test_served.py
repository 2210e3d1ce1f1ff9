"""Scoring through a vLLM server: a local HTTP server that answers in its shapes, with the weights of a tiny model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.score.tiny_checkpoints import Built, build

from stepreward.core.errors import InputError, ModelError
from stepreward.core.http.server import Server
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.score.by_recipe import load_served
from stepreward.score.checkpoints.known_checkpoints import by_name
from stepreward.score.encode.per_step import EncoderRecord, StepEncoder
from stepreward.score.load import load
from stepreward.score.remote.reward_server import ServedScorer

QUESTION, STEPS = "What is 12 + 5?", ["12 + 5 = 17.", "inner <extra_0> tag", "So 17."]


@dataclass
class Vllm:
    """What the server does: set before a request, read after it."""

    built: Built
    scorer: Any
    step_tag: int | None = 151651
    always: bool | None = None
    """Whether it applies softmax or sigmoid whatever is asked for; None does as asked."""
    faults: list[Any] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    pause: float = 0.0
    change: Any = None

    def rows(self, ids: list[int], body: dict[str, Any]) -> torch.Tensor:
        with torch.no_grad():
            z = self.scorer.model.head(self.built.hidden(ids))
        active = body.get("use_activation") is not False if self.always is None else self.always
        return (z.softmax(-1) if z.shape[-1] > 1 else z.sigmoid()) if active else z

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        usage = {"prompt_tokens": 1, "total_tokens": 1, "completion_tokens": 0, "prompt_tokens_details": None}
        whole = {"object": "list", "created": 1745383065, "model": body["model"], "usage": usage}
        if path == "/pooling":
            rows = self.rows(body["input"], body)
            if self.step_tag is not None:
                rows = rows[torch.tensor(body["input"]) == self.step_tag]
            return {"id": "pool-1", **whole, "data": [{"index": 0, "object": "pooling", "data": rows.tolist()}]}
        if path == "/classify":
            data = [
                {"index": i, "label": "LABEL_0", "probs": p, "num_classes": len(p)}
                for i, p in enumerate(self.rows(ids, body)[-1].tolist() for ids in body["input"])
            ]
            return {"id": "classify-1", **whole, "data": data[::-1]}
        texts = [body["text_1"] + text for text in body["text_2"]]
        data = [
            {
                "index": i,
                "object": "score",
                "score": float(self.rows(self.built.tokenizer(t)["input_ids"], body)[-1, 0]),
            }
            for i, t in enumerate(texts)
        ]
        return {"id": "embd-1", **whole, "data": data}


def served(state: Vllm) -> tuple[ThreadingHTTPServer, str]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.asked.append((self.path, body))
                state.headers.append(self.headers.get("Authorization", ""))
                state.under_way += 1
                state.most = max(state.most, state.under_way)
                fault = state.faults.pop(0) if state.faults else None
            if state.pause:
                time.sleep(state.pause)
            with lock:
                state.under_way -= 1
            if fault == "hang up":
                self.connection.close()
                return
            if isinstance(fault, int):
                self.reply(fault, b'{"object": "error", "message": "busy", "code": %d}' % fault)
            elif isinstance(fault, str):
                self.reply(200, fault.encode())
            else:
                answer = state.answer(self.path, body)
                self.reply(200, json.dumps(state.change(answer) if state.change else answer).encode())

        def reply(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Keeps the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


def running(tmp_path: Path, layout: str, like: str) -> Iterator[tuple[Vllm, str]]:
    built = build(tmp_path, "qwen", layout)
    state = Vllm(built, load(tmp_path, like=like))
    if layout.startswith("token"):
        built.model = built.model.model
    state.step_tag = int(built.tokenizer.encode("<extra_0>")[0])
    server, url = served(state)
    yield state, url
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def qwen_prm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vllm, str]]:
    yield from running(tmp_path_factory.mktemp("qwen"), "score-mlp", "Qwen/Qwen2.5-Math-PRM-7B")


@pytest.fixture(scope="module")
def one_label(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vllm, str]]:
    yield from running(tmp_path_factory.mktemp("scan"), "token-classification-1", "SCAN-PRM")


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> None:
    for name in ("qwen_prm", "one_label"):
        if name in request.fixturenames:
            state, _ = request.getfixturevalue(name)
            state.faults, state.asked, state.headers, state.change = [], [], [], None
            state.pause, state.most, state.always = 0.0, 0, None


def scorer_of(pair: tuple[Vllm, str], **settings: Any) -> ServedScorer:
    state, url = pair
    server = Server(url, "qwen-prm", backoff=0.0, **settings.pop("server", {}))
    return ServedScorer(server, StepEncoder(state.scorer.model.record, state.built.tokenizer), **settings)


@pytest.mark.parametrize("ignores", [False, True], ids=["gives logits", "applies its softmax anyway"])
@pytest.mark.parametrize("every_token", [False, True], ids=["step tags", "every token"])
@pytest.mark.parametrize("endpoint", ["pooling", "classify"])
def test_scores_are_those_of_the_local_model(qwen_prm, endpoint: str, every_token: bool, ignores: bool) -> None:
    state, _ = qwen_prm
    tag, state.always = state.step_tag, True if ignores else None
    if every_token:
        state.step_tag = None
    try:
        got = scorer_of(qwen_prm, endpoint=endpoint).score(QUESTION, STEPS)
    finally:
        state.step_tag = tag
    np.testing.assert_allclose(got, state.scorer.score(QUESTION, STEPS), atol=1e-6)
    path, body = state.asked[-1]
    assert path == f"/{endpoint}"
    assert body["model"] == "qwen-prm"
    assert isinstance(body["input"][0], list if endpoint == "classify" else int), "ids are sent, not text"
    assert body["use_activation"] is False


@pytest.mark.parametrize("probabilities", [True, False])
def test_with_one_label_the_sigmoid_is_where_the_user_says(one_label, probabilities: bool) -> None:
    state, _ = one_label
    state.step_tag, state.always = None, probabilities
    got = scorer_of(one_label, probabilities=probabilities).score(QUESTION, STEPS)
    np.testing.assert_allclose(got, state.scorer.score(QUESTION, STEPS), atol=1e-6)


def test_pairs_of_texts_go_to_score(one_label) -> None:
    state, _ = one_label
    state.always = True
    got = scorer_of(one_label, endpoint="score", probabilities=True).score(QUESTION, STEPS)
    (path, body), tok = state.asked[-1], state.built.tokenizer
    assert path == "/score"
    assert body["text_1"] == QUESTION + "\n\n"
    assert body["text_2"][1] == STEPS[0] + "\n\n" + STEPS[1] + "\n\n"
    expected = [float(state.rows(tok(body["text_1"] + t)["input_ids"], {})[-1, 0]) for t in body["text_2"]]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_many_questions_keep_their_order_within_the_bound_of_requests(qwen_prm) -> None:
    state, _ = qwen_prm
    state.pause = 0.02
    questions = [
        Score(Problem(f"p{i}", QUESTION), (Step(f"step {i}"), Step("seen", kind="observation"))) for i in range(12)
    ]
    scorer = scorer_of(qwen_prm, server={"concurrency": 3, "api_key": "secret"})
    answers = scorer.score_many(questions)
    local = state.scorer.score_many(questions)
    for got, expected in zip(answers, local, strict=True):
        np.testing.assert_allclose(got.scores, expected.scores, atol=1e-6)
        assert np.isnan(got.scores[1])
        assert got.tokens == got.tokens_unshared == expected.tokens_unshared
    assert 1 < state.most <= 3
    assert set(state.headers) == {"Bearer secret"}


def test_faults_that_pass_are_waited_out_with_growing_pauses(qwen_prm) -> None:
    state, url = qwen_prm
    state.faults, slept = [503, "hang up", 429], []
    scorer = ServedScorer(
        Server(url, "m", backoff=0.5), StepEncoder(state.scorer.model.record, state.built.tokenizer), sleep=slept.append
    )
    np.testing.assert_allclose(scorer.score(QUESTION, STEPS), state.scorer.score(QUESTION, STEPS), atol=1e-6)
    # Drawn at random below what doubles, so that many clients do not return together.
    assert len(slept) == 3
    assert all(0 <= pause <= longest for pause, longest in zip(slept, [0.5, 1.0, 2.0], strict=True))


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([503] * 5, "failed 5 times, last with status 503"),
        ([404], "refused with status 404"),
        (["not json"], "no JSON"),
        (['{"data": 3}'], "no list 'data'"),
        (['{"data": []}'], "answered 0 inputs of 1"),
        (['{"data": [{"index": 0, "data": "AAAA"}]}'], "no table"),
        (['{"data": [{"index": 0, "data": [[0.5, 0.5]]}]}'], "returned 1 rows for"),
    ],
)
def test_a_server_that_answers_wrongly_is_one_clear_error(qwen_prm, faults: list[Any], message: str) -> None:
    state, _ = qwen_prm
    state.faults = list(faults)
    with pytest.raises(ModelError, match=message):
        scorer_of(qwen_prm).score(QUESTION, STEPS)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_body_that_the_server_refuses_is_the_fault_of_its_row(qwen_prm, status: int) -> None:
    state, _ = qwen_prm
    state.faults = [status]
    with pytest.raises(InputError, match=f"refused with status {status}"):
        scorer_of(qwen_prm).score(QUESTION, STEPS)
    assert np.isfinite(scorer_of(qwen_prm).score(QUESTION, STEPS)).all()


def test_pairs_of_texts_follow_a_recipe_that_writes_each_prefix_anew(one_label) -> None:
    """HRM's text, as its own scripts write it: the earlier steps under one heading, the last one under another."""
    state, url = one_label
    encoder = StepEncoder(by_name("HRM").record, state.built.tokenizer)
    ServedScorer(Server(url, "m"), encoder, endpoint="score").score("q", ["one", "two", "three"])
    assert {text for _, body in state.asked for text in body["text_2"]} == {
        "Now, let's focus on the current step:\none\n",
        "Previous reasoning:\none\n\nNow, let's focus on the current step:\ntwo",
        "Previous reasoning:\nonetwo\n\nNow, let's focus on the current step:\nthree",
    }


def test_numbers_of_another_head_are_refused(qwen_prm) -> None:
    state, _ = qwen_prm

    def wide(answer: dict[str, Any]) -> dict[str, Any]:
        answer["data"][0]["data"] = [[*row, 0.0] for row in answer["data"][0]["data"]]
        return answer

    state.change = wide
    with pytest.raises(ModelError, match=r"shape \(3, 3\), expected \(3, 2\)"):
        scorer_of(qwen_prm).score(QUESTION, STEPS)


def test_a_folder_or_hub_name_and_an_address_are_enough(qwen_prm) -> None:
    state, url = qwen_prm
    scorer = load_served(state.built.folder, url + "/", like="Qwen/Qwen2.5-Math-PRM-7B", served_as="prm")
    np.testing.assert_allclose(scorer.score(QUESTION, STEPS), state.scorer.score(QUESTION, STEPS), atol=1e-6)
    assert state.asked[-1][1]["model"] == "prm"
    with pytest.raises(ModelError, match="pass like="):
        load_served(state.built.folder, url)


def test_a_server_that_is_not_there_and_impossible_settings(qwen_prm) -> None:
    state, _ = qwen_prm
    encoder = StepEncoder(state.scorer.model.record, state.built.tokenizer)
    with pytest.raises(ModelError, match="failed 2 times, last with ConnectError"):
        ServedScorer(Server("http://127.0.0.1:9", "m", retries=1, backoff=0), encoder).score(QUESTION, STEPS)
    with pytest.raises(InputError, match="at least one step"):
        ServedScorer(Server("http://127.0.0.1:9", "m"), encoder).score(QUESTION, [])
    with pytest.raises(ModelError, match="pass probabilities=True"):
        ServedScorer(Server("http://x", "m"), StepEncoder(EncoderRecord(), state.built.tokenizer))
    with pytest.raises(ModelError, match="use pooling"):
        ServedScorer(Server("http://x", "m"), encoder, endpoint="score")
    with pytest.raises(ValueError, match="must be positive"):
        Server("http://x", "m", concurrency=0)
