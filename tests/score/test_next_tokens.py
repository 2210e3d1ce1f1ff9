"""Label tokens through a completions server: a local one that answers in servers' shapes, by a tiny model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.cli.running import invoke
from tests.score.awkward_texts import cases
from tests.score.literal_recipes import RECIPES
from tests.score.tiny_checkpoints import Built, build

import stepreward
from stepreward.core.errors import ModelError, SteprewardError
from stepreward.core.http.server import Server
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose, Score
from stepreward.core.types import Problem, Step
from stepreward.score.by_recipe import load_served
from stepreward.score.checkpoints.known_checkpoints import by_name, checkpoints
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.judges.continuations import LanguageModelChooser
from stepreward.score.remote.label_tokens_server import NextTokens, ServedChooser
from stepreward.score.remote.reward_server import ServedScorer

ROWS = [row for row in checkpoints.values() if row.record.readout.label_tokens and not row.record.second_pass]
QUESTION, STEPS = "What is 12 + 5?", ["12 + 5 = 17.", "So the answer is 17."]
SHEPHERD = "peiyi9979/math-shepherd-mistral-7b-prm"


@dataclass
class Completions:
    """A completions server: what it can, and what it was asked."""

    built: Built
    names: str = "ids"
    """How it names tokens: `ids`, `texts`, or `content`, the form of chat."""
    forced: str = "raw"
    """What it does with `allowed_token_ids`: `raw` keeps to them and tells the model's log-probability, `processed`
    tells the one among them, `ignored` does neither."""
    cached: int | None = None
    drawn: int | None = None
    """The token that it draws and adds to the likeliest, as vLLM does; the likeliest where None."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.asked.append(body)
            logs = self.built.logits(body["prompt"])[-1].double().log_softmax(-1)
        allowed = body.get("allowed_token_ids") if self.forced != "ignored" else None
        chosen = allowed[0] if allowed else int(logs.argmax()) if self.drawn is None else self.drawn
        top = torch.topk(logs, min(body["logprobs"], len(logs))).indices.tolist()
        sure = allowed and self.forced == "processed"
        told = {token: 0.0 if sure else float(logs[token]) for token in [chosen, *top]}
        usage: dict[str, Any] = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1}
        if self.cached is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached}
        return {"choices": [{"text": "?", "logprobs": self.shaped(chosen, told)}], "usage": usage}

    def shaped(self, chosen: int, told: dict[int, float]) -> dict[str, Any]:
        if self.names == "content":
            rows = [{"id": t, "token": self.text(t), "logprob": v} for t, v in told.items()]
            return {"content": [{**rows[0], "top_logprobs": rows}]}
        name = self.text if self.names == "texts" else "token_id:{}".format
        top = {name(token): value for token, value in told.items()}
        return {"tokens": [name(chosen)], "token_logprobs": [told[chosen]], "top_logprobs": [top], "text_offset": [0]}

    def text(self, token: int) -> str:
        return str(self.built.tokenizer.decode([token]))


def served(state: Completions) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = self.path == "/v1/completions"
            content = json.dumps(state.answer(body) if found else {"error": self.path}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Keeps the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


Running = Callable[..., tuple[Completions, str]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of a family's tiny model, kept over the tests of this file; what it can is set anew."""
    made: dict[tuple[str, int], tuple[Completions, str, Iterator[str]]] = {}

    def of(family: str, seed: int = 0, layout: str = "tokens", **can: Any) -> tuple[Completions, str]:
        if (family, seed) not in made:
            state = Completions(build(tmp_path_factory.mktemp("served"), family, layout, seed=seed))
            keeps = served(state)
            made[family, seed] = (state, next(keeps), keeps)
        state, url, _ = made[family, seed]
        state.names, state.forced, state.cached, state.asked = "ids", "raw", None, []
        for name, value in can.items():
            setattr(state, name, value)
        return state, url

    yield of
    for *_, keeps in made.values():
        next(keeps, None)


def scorer_of(name: str, state: Completions, url: str, **more: Any) -> ServedScorer:
    encoder = StepEncoder(by_name(name).record, state.built.tokenizer)
    return ServedScorer(Server(url, "m", backoff=0.0, concurrency=4), encoder, endpoint="completions", **more)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.split("/")[-1])
def test_a_row_of_label_tokens_scores_as_its_published_recipe(row: Any, running: Running) -> None:
    recipe, spread = RECIPES[row.name], []
    for family in recipe.families:
        state, url = running(family, recipe.seed + (100 if recipe.layout != "tokens" else 0), recipe.layout)
        scorer = scorer_of(row.name, state, url)
        for name, (question, steps) in cases(row.record).items():
            (answer,) = scorer.score_many([Score(Problem(name, question), tuple(Step(s) for s in steps))])
            expected = recipe.score(state.built, question, recipe.cleaned(steps))
            np.testing.assert_allclose(answer.scores, expected, rtol=0, atol=1e-5, equal_nan=True)
            spread += [score for score in expected if score == score]
    assert np.std(spread) > 1e-2


@pytest.mark.parametrize("names", ["ids", "texts", "content"])
@pytest.mark.parametrize("top", [1, 20, 5000])
def test_any_form_of_answer_and_any_number_of_likeliest(names: str, top: int, running: Running) -> None:
    state, url = running("qwen", names=names)
    scorer = scorer_of("openreasoner/Math-psa", state, url, top=top)
    expected = RECIPES["openreasoner/Math-psa"].score(state.built, QUESTION, STEPS)
    np.testing.assert_allclose(scorer.score(QUESTION, STEPS), expected, atol=1e-5)
    forced = [body for body in state.asked if "allowed_token_ids" in body]
    assert bool(forced) == (top < 5000), "what is likely enough is not asked for again"


@pytest.mark.parametrize("forced", ["processed", "ignored"])
def test_a_label_that_the_server_cannot_tell_is_no_zero(forced: str, running: Running) -> None:
    state, url = running("qwen", forced=forced)
    with pytest.raises(ModelError, match=r"does not tell how likely the token .* is: it is not among the 1 likeliest"):
        scorer_of("openreasoner/Math-psa", state, url, top=1).score(QUESTION, STEPS)


class Trimmed:
    """A tokenizer that does not show white space at a token's beginning, as those of some families."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self.tokenizer)

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids)).lstrip()


def test_a_text_of_several_tokens_names_none(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    state, url = running("qwen", names="texts")
    trimmed = Trimmed(state.built.tokenizer)
    monkeypatch.setattr(state, "text", lambda token: trimmed.decode([token]))
    texts = [trimmed.decode([token]) for token in range(len(trimmed))]
    (once,), (twice, *_) = (state.built.tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("<extra_0>", "+"))
    assert (texts.count("<extra_0>"), texts.count("+")) == (1, 2)
    asking = NextTokens(Server(url, "m"), trimmed, top=5000)
    expected = state.built.logits([1, 2, 3])[-1].double().log_softmax(-1)[once]
    assert asking.ask([[1, 2, 3]], [once])[0][0, 0] == pytest.approx(float(expected), abs=1e-6)
    with pytest.raises(ModelError, match="does not tell how likely"):
        asking.ask([[1, 2, 3]], [twice])


def test_a_step_is_asked_for_once_and_paid_without_what_the_server_had(running: Running) -> None:
    state, url = running("metaspace")
    scorer, problem = scorer_of(SHEPHERD, state, url, top=5000), Problem("p", QUESTION)
    first, second = (tuple(Step(text) for text in STEPS[:n]) for n in (1, 2))
    (one,) = scorer.score_many([Score(problem, first)])
    assert (one.tokens, len(state.asked)) == (len(state.asked[0]["prompt"]), 1)
    state.cached = one.tokens - 1
    (both,) = scorer.score_many([Score(problem, second)])
    assert len(state.asked) == 2
    assert both.scores[0] == one.scores[0]
    assert both.tokens == len(state.asked[1]["prompt"]) - state.cached
    assert both.tokens_unshared > both.tokens
    (again,) = scorer.score_many([Score(problem, second)])
    assert (again.tokens, len(state.asked)) == (0, 2)
    np.testing.assert_array_equal(again.scores, both.scores)


def test_a_folder_and_an_address_are_enough(running: Running) -> None:
    state, url = running("metaspace")
    expected = RECIPES[SHEPHERD].score(state.built, QUESTION, STEPS)
    for address in (url, url + "/v1", url + "/v1/"):
        scorer = load_served(state.built.folder, address, endpoint="completions", like=SHEPHERD)
        np.testing.assert_allclose(scorer.score(QUESTION, STEPS), expected, atol=1e-5)


def test_an_address_says_it_all(running: Running, tmp_path: Path) -> None:
    state, url = running("metaspace")
    address = f"{url}#{state.built.folder}?endpoint=completions&served_as=other&top=7&concurrency=2"
    scorer = stepreward.load(address, like=SHEPHERD)
    assert isinstance(scorer, ServedScorer)
    expected = RECIPES[SHEPHERD].score(state.built, QUESTION, STEPS)
    np.testing.assert_allclose(scorer.score(QUESTION, STEPS), expected, atol=1e-5)
    assert {(body["model"], body["logprobs"]) for body in state.asked} <= {("other", 7), ("other", 1)}
    (tmp_path / "ask.jsonl").write_text(json.dumps({"question": QUESTION, "steps": STEPS}) + "\n")
    said = json.loads(invoke(f"score --data {tmp_path / 'ask.jsonl'} --model '{address}' --like {SHEPHERD}"))
    np.testing.assert_allclose(said["scores"], expected, atol=1e-5)
    # The record of a file is for a model in a server as for one in a folder.
    (tmp_path / "wrong.json").write_text(json.dumps({"positive": 1 - by_name(SHEPHERD).record.readout.positive}))
    flags = f"--like {SHEPHERD} --record {tmp_path / 'wrong.json'}"
    said = json.loads(invoke(f"score --data {tmp_path / 'ask.jsonl'} --model '{address}' {flags}"))
    np.testing.assert_allclose(said["scores"], 1 - np.array(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://localhost:9", "names no model; write http://localhost:9#NAME"),
        ("http://localhost:9#m?top=many", "top cannot be 'many'"),
        ("http://localhost:9#m?probabilities=perhaps", "probabilities cannot be 'perhaps'"),
        ("http://localhost:9#m?endpoint=chat", "endpoint must be one of pooling, classify, score, completions"),
        ("http://localhost:9#m?tops=2", "did you mean top"),
    ],
)
def test_addresses_that_do_not_fit(address: str, message: str) -> None:
    with pytest.raises(SteprewardError, match=message):
        stepreward.load(address)


def test_options_of_several_tokens_are_weighed_as_the_model_in_this_process_does(running: Running) -> None:
    state, url = running("qwen")
    local = LanguageModelChooser(state.built.model, state.built.tokenizer)
    far = ServedChooser(NextTokens(Server(url, "m"), state.built.tokenizer))
    asked = [
        Propose(Problem(text, text), (Step("Judgement: "),), Key.seed(0)) for text in ("What is 12 + 5?", "a b", "17.")
    ]
    options = ["{Yes", "{No", " + - 17"]
    np.testing.assert_allclose(far.choose(asked, options), local.choose(asked, options), atol=1e-4)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": []}, "without log-probabilities"),
        ({"choices": [{"text": "a", "logprobs": None}]}, "does the server give logprobs"),
        ({"object": "error"}, "without log-probabilities"),
        ([], "without log-probabilities"),
    ],
)
def test_answers_of_another_shape(answer: Any, message: str, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    state, url = running("qwen")
    monkeypatch.setattr(state, "answer", lambda body: answer)
    with pytest.raises(ModelError, match=message):
        scorer_of("openreasoner/Math-psa", state, url).score(QUESTION, STEPS)


def test_what_completions_cannot_tell(running: Running) -> None:
    state, url = running("qwen")
    with pytest.raises(ModelError, match="must compare label_tokens"):
        scorer_of("Qwen/Qwen2.5-Math-PRM-7B", state, url)
    with pytest.raises(ValueError, match="top must be"):
        NextTokens(Server(url, "m"), state.built.tokenizer, top=0)
    assert NextTokens(Server(url, "m"), state.built.tokenizer).ask([], [1, 2])[0].shape == (0, 2)


def test_a_drawn_token_below_the_likeliest_hides_no_label(running: Running) -> None:
    """vLLM adds what it drew to the likeliest; a label between the two is no proof of a server that forces tokens."""
    state, url = running("metaspace")
    tokenizer, ids = state.built.tokenizer, state.built.tokenizer("What is 12 + 5?")["input_ids"]
    logs = state.built.logits(ids)[-1].double().log_softmax(-1)
    order = logs.argsort(descending=True).tolist()
    state.drawn = order[-1]
    try:
        found, _ = NextTokens(Server(url, "m"), tokenizer, top=5).ask([ids], [order[20]])
    finally:
        state.drawn = None
    np.testing.assert_allclose(found, [[float(logs[order[20]])]], atol=1e-9)
