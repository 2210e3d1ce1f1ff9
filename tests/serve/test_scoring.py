"""The scoring server: our own steps with handles, and the shapes of vLLM and SGLang, held against the local model."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from stepreward.core.errors import InputError
from stepreward.core.http.server import Server
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import PerStep
from stepreward.score.load import load
from stepreward.score.remote.reward_server import ServedScorer
from stepreward.score.remote.token_outputs import TokenOutputs
from stepreward.serve.launch import require_search
from stepreward.serve.service import Served
from tests.score.models import model
from tests.score.tiny_checkpoints import build
from tests.serve.running import Digits, serving

QUESTION = "What is 12 + 5?"
STEPS = ["12 + 5 = 17\n", "naïve café 漢字\n", "Answer: 17\n"]
Pair = tuple[Any, str]


@pytest.fixture(scope="module")
def grown() -> Iterator[Pair]:
    """A checkpoint of our own whose steps are scored on kept prefixes."""
    scorer = DiscriminativeScorer(
        model(record=EncoderRecord()),
        cache_bytes="16MiB",
    )
    with serving(Served(scorer=scorer, scorer_name="prm")) as url:
        yield scorer, url


def public(folder: Path, layout: str, like: str) -> Iterator[Pair]:
    build(folder, "qwen", layout)
    scorer = load(folder, like=like)
    with serving(Served(scorer=load(folder, like=like), scorer_name="prm")) as url:
        yield scorer, url


@pytest.fixture(scope="module")
def two_labels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    yield from public(tmp_path_factory.mktemp("qwen"), "score-mlp", "Qwen/Qwen2.5-Math-PRM-7B")


@pytest.fixture(scope="module")
def one_label(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    yield from public(tmp_path_factory.mktemp("scan"), "token-classification-1", "SCAN-PRM")


def post(url: str, path: str, status: int = 200, **body: Any) -> Any:
    answer = httpx.post(f"{url}{path}", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_steps_are_scored_as_by_the_local_model(grown: Pair) -> None:
    scorer, url = grown
    made = post(url, "/v1/steps", problem=QUESTION, steps=STEPS)
    local = scorer.score(QUESTION, STEPS)
    np.testing.assert_allclose(made["scores"], local, atol=1e-6)
    assert made["total"] == pytest.approx(min(local), abs=1e-6)
    assert made["model"] == "prm"
    assert made["usage"]["prompt_tokens"] > 0
    mean = post(url, "/v1/steps", problem=QUESTION, steps=STEPS, aggregate="mean")
    assert mean["total"] == pytest.approx(np.mean(local), abs=1e-6)


def test_the_total_follows_the_recipe_of_the_checkpoint_where_a_request_does_not_say() -> None:
    scorer = DiscriminativeScorer(model(record=EncoderRecord(aggregation="mean")))
    with serving(Served(scorer=scorer, scorer_name="prm")) as url:
        made = post(url, "/v1/steps", problem=QUESTION, steps=STEPS)
        assert made["total"] == pytest.approx(np.mean(made["scores"]))
        least = post(url, "/v1/steps", problem=QUESTION, steps=STEPS, aggregate="min")
        assert least["total"] == pytest.approx(min(made["scores"]))


def test_behind_a_handle_only_new_steps_are_sent_and_encoded(grown: Pair) -> None:
    _, url = grown
    question = "What is 40 + 2?"
    whole = post(url, "/v1/steps", problem=question + " ", steps=STEPS)["scores"]
    first = post(url, "/v1/steps", problem=question, steps=STEPS[:1])
    second = post(url, "/v1/steps", prefix=first["prefix"], steps=STEPS[1:2])
    third = post(url, "/v1/steps", prefix=second["prefix"], steps=STEPS[2:])
    assert len(second["scores"]) == len(third["scores"]) == 1
    other = post(url, "/v1/steps", prefix=first["prefix"], steps=STEPS[2:])
    local = grown[0].score(question, STEPS)
    np.testing.assert_allclose([*first["scores"], *second["scores"], *third["scores"]], local, atol=1e-6)
    np.testing.assert_allclose(other["scores"], grown[0].score(question, [STEPS[0], STEPS[2]])[1:], atol=1e-6)
    assert third["total"] == pytest.approx(min(local), abs=1e-6)
    encoded = [one["usage"]["encoded_tokens"] for one in (first, second, third)]
    assert 0 < encoded[1] < encoded[0]
    assert sum(encoded) == third["usage"]["prompt_tokens"], "every token is encoded once"
    assert len(whole) == 3


def test_a_verifier_is_sent_the_reference_which_its_handle_keeps() -> None:
    record = EncoderRecord(PerStep(prompt_format="{prompt} {reference}\n"))
    scorer = DiscriminativeScorer(model(record=record), cache_bytes="16MiB")
    with serving(Served(scorer=scorer, scorer_name="prm")) as url:
        first = post(url, "/v1/steps", problem=QUESTION, reference="17", steps=STEPS[:1])
        later = post(url, "/v1/steps", prefix=first["prefix"], steps=STEPS[1:])
        other = post(url, "/v1/steps", problem=QUESTION, reference="18", steps=STEPS)
        missing = post(url, "/v1/steps", 400, problem=QUESTION, steps=STEPS)
        twice = post(url, "/v1/steps", 400, prefix=first["prefix"], reference="17", steps=STEPS[1:])
    local = scorer.score(QUESTION, STEPS, reference="17")
    np.testing.assert_allclose([*first["scores"], *later["scores"]], local, atol=1e-6)
    np.testing.assert_allclose(other["scores"], scorer.score(QUESTION, STEPS, reference="18"), atol=1e-6)
    assert np.abs(local - other["scores"]).max() > 1e-4
    assert "has no reference answer" in missing["error"]["message"]
    assert "a prefix has its reference already" in twice["error"]["message"]
    with pytest.raises(InputError, match="a reference answer, which no conversation has; leave --policy out"):
        require_search(Served(policy=Digits(), scorer=scorer), {"scorer"})


def test_messages_observations_and_speakers_are_steps_too(grown: Pair) -> None:
    scorer, url = grown
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    steps = [STEPS[0], {"text": "seen\n", "kind": "observation", "role": "tool"}, {"text": STEPS[2], "agent": "solver"}]
    made = post(url, "/v1/steps", problem=messages, steps=steps)
    problem = Problem("p", tuple(messages))
    local = (Step(STEPS[0]), Step("seen\n", "observation", "tool"), Step(STEPS[2], agent="solver"))
    (expected,) = scorer.score_many([Score(problem, local)])
    assert made["scores"][1] is None
    np.testing.assert_allclose(np.array(made["scores"], float), expected.scores, atol=1e-6)


def test_a_batch_answers_or_refuses_each_item_by_itself(grown: Pair) -> None:
    scorer, url = grown
    items = [
        {"problem": QUESTION, "steps": STEPS[:2]},
        {"problem": QUESTION, "steps": ["  "]},
        {"prefix": "prefix-unknown", "steps": STEPS[:1]},
        {"problem": QUESTION, "steps": STEPS[2:]},
    ]
    made = post(url, "/v1/steps/batch", items=items)["data"]
    np.testing.assert_allclose(made[0]["scores"], scorer.score(QUESTION, STEPS[:2]), atol=1e-6)
    np.testing.assert_allclose(made[3]["scores"], scorer.score(QUESTION, STEPS[2:]), atol=1e-6)
    assert "step 0 has no text" in made[1]["error"]["message"]
    assert made[2]["error"]["code"] == "gone"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"steps": ["x"]}, 400, "one of problem and prefix"),
        ({"problem": "p", "prefix": "q", "steps": ["x"]}, 400, "one of problem and prefix"),
        ({"problem": " ", "steps": ["x"]}, 400, "no text"),
        ({"problem": "p", "steps": []}, 400, "steps"),
        ({"problem": "p", "steps": [" "]}, 400, "step 0 has no text"),
        ({"prefix": "prefix-x", "steps": ["x"]}, 404, "send the problem"),
        ({"problem": "p", "steps": ["x"], "model": "prn"}, 404, "did you mean prm"),
        ({"problem": "p", "steps": ["x"], "aggregate": "mim"}, 400, "did you mean"),
    ],
)
def test_what_cannot_be_scored_is_one_clear_error(grown: Pair, body: dict[str, Any], status: int, says: str) -> None:
    assert says in post(grown[1], "/v1/steps", status, **body)["error"]["message"]


def test_requests_of_many_clients_at_once_share_batches_and_are_not_crossed(grown: Pair) -> None:
    scorer, url = grown

    async def ask() -> list[list[float]]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            bodies = [{"problem": f"What is {i} + 5?", "steps": STEPS[: 1 + i % 3]} for i in range(60)]
            answers = await asyncio.gather(*(client.post("/v1/steps", json=body) for body in bodies))
        return [answer.json()["scores"] for answer in answers]

    for i, scores in enumerate(asyncio.run(ask())):
        np.testing.assert_allclose(scores, scorer.score(f"What is {i} + 5?", STEPS[: 1 + i % 3]), atol=1e-5)


@pytest.mark.parametrize("endpoint", ["pooling", "classify"])
def test_a_client_of_vllm_reads_the_scores_of_the_local_model(two_labels: Pair, endpoint: Any) -> None:
    scorer, url = two_labels
    steps = ["12 + 5 = 17.", "inner <extra_0> tag", "So 17."]
    client = ServedScorer(Server(url, "prm", backoff=0.0), scorer.model.encoder, endpoint=endpoint)
    np.testing.assert_allclose(client.score(QUESTION, steps), scorer.score(QUESTION, steps), atol=1e-6)


@pytest.mark.parametrize("endpoint", ["pooling", "classify"])
def test_with_one_label_too(one_label: Pair, endpoint: Any) -> None:
    scorer, url = one_label
    server = Server(url, "prm", backoff=0.0)
    client = ServedScorer(server, scorer.model.encoder, endpoint=endpoint, probabilities=True)
    steps = ["12 + 5 = 17.", "So 17."]
    np.testing.assert_allclose(client.score(QUESTION, steps), scorer.score(QUESTION, steps), atol=1e-6)


def test_pairs_are_scored_at_their_last_token(one_label: Pair) -> None:
    scorer, url = one_label
    outputs = TokenOutputs(scorer.model)
    made = post(url, "/score", model="prm", text_1=QUESTION, text_2=STEPS)
    ids = [outputs.ids(QUESTION) + outputs.ids(step, special=False) for step in STEPS]
    expected = [float(1 / (1 + np.exp(-rows[-1, 0]))) for rows in outputs.rows(ids)]
    np.testing.assert_allclose([one["score"] for one in made["data"]], expected, atol=1e-6)
    assert made["usage"]["prompt_tokens"] == sum(map(len, ids))


def test_pooling_gives_step_ends_as_distributions_or_bare_and_in_base64(two_labels: Pair) -> None:
    scorer, url = two_labels
    tag = scorer.model.encoder.separator_ids[0]
    text = "12 + 5 = 17.<extra_0>So 17.<extra_0>"
    made = post(url, "/pooling", model="prm", input=text)
    ids = scorer.model.tokenizer(text)["input_ids"]
    rows = np.array(made["data"][0]["data"])
    assert rows.shape == (ids.count(tag), 2)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    assert made["usage"] == {"prompt_tokens": len(ids), "total_tokens": len(ids), "completion_tokens": 0, **details}
    bare = np.array(post(url, "/v1/pooling", input=ids, use_activation=False)["data"][0]["data"])
    np.testing.assert_allclose(np.exp(bare) / np.exp(bare).sum(axis=1, keepdims=True), rows, atol=1e-6)
    packed = post(url, "/pooling", input=[text, ids], encoding_format="base64")["data"]
    for one in packed:
        unpacked = np.frombuffer(base64.b64decode(one["data"]), "<f4").reshape(-1, 2)
        np.testing.assert_allclose(unpacked, rows, atol=1e-6)
    chat = post(
        url, "/pooling", messages=[{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
    )
    assert len(chat["data"][0]["data"]) == ids.count(tag)


@pytest.mark.parametrize(("side", "kept"), [({}, slice(3)), ({"truncation_side": "left"}, slice(-3, None))])
def test_the_first_tokens_or_the_last_are_kept_where_a_client_asks_for_it(
    side: Any, kept: slice, two_labels: Pair
) -> None:
    scorer, url = two_labels
    ids = scorer.model.tokenizer("one two three four<extra_0>")["input_ids"]
    short = post(url, "/classify", input=[ids], truncate_prompt_tokens=3, **side)
    assert short["usage"]["prompt_tokens"] == 3
    assert short["data"][0]["probs"] == post(url, "/classify", input=[ids[kept]])["data"][0]["probs"]
    assert short["data"][0]["num_classes"] == 2
    assert short["data"][0]["label"] == f"LABEL_{int(np.argmax(short['data'][0]['probs']))}"


def test_clients_of_sglang_get_its_shapes(one_label: Pair) -> None:
    scorer, url = one_label
    texts = ["12 + 5 = 17.", "So 17."]
    native = post(url, "/classify", model="prm", text=texts)
    plain = post(url, "/v1/classify", input=texts)
    assert [one["embedding"] for one in native] == [one["probs"] for one in plain["data"]]
    assert all(one["meta_info"]["prompt_tokens"] > 0 for one in native)
    assert isinstance(post(url, "/classify", text=texts[0]), list)
    # A list of scores for each item: of a model with labels of its own, its bare outputs, or their softmax.
    made = post(url, "/v1/score", query="Q: ", items=texts)
    outputs = TokenOutputs(scorer.model)
    ids = [outputs.ids("Q: " + text) for text in texts]
    np.testing.assert_allclose(made["scores"], [rows[-1] for rows in outputs.rows(ids)], atol=1e-6)
    assert np.shape(made["scores"]) == (2, 1)
    assert (made["object"], made["model"]) == ("scoring", "prm")
    assert made["usage"]["prompt_tokens"] == sum(map(len, ids))
    assert post(url, "/v1/score", query="Q: ", items=texts, apply_softmax=True)["scores"] == [[1.0], [1.0]]
    turned = post(url, "/v1/score", query=texts[0], items="Q: ", item_first=True)
    np.testing.assert_allclose(turned["scores"], made["scores"][:1], atol=1e-6)
    bare = post(url, "/v1/score", query=ids[0][:2], items=[ids[0][2:]])
    np.testing.assert_allclose(bare["scores"], made["scores"][:1], atol=1e-6)


def test_label_tokens_are_scored_as_sglang_scores_them(tmp_path: Path) -> None:
    """The oracle is the language model itself: probabilities of the next token, among the labels."""
    built = build(tmp_path, "qwen", "tokens")
    record = EncoderRecord(readout=Readout("softmax", n_labels=2, label_tokens=("+", "-")))
    plus, minus = (built.tokenizer.encode(text)[0] for text in "+-")
    items = ["12 + 5 = 17.", "So 17."]
    expected = []
    for item in items:
        ids = torch.tensor([built.tokenizer("Q: " + item)["input_ids"]])
        with torch.no_grad():
            probabilities = built.model(input_ids=ids).logits[0, -1].softmax(-1)
        right, wrong = probabilities[plus].item(), probabilities[minus].item()
        expected.append([wrong / (right + wrong), right / (right + wrong)])
    with serving(Served(scorer=load(tmp_path, record=record), scorer_name="prm")) as url:
        ask = {"query": "Q: ", "items": items, "apply_softmax": True}
        made = post(url, "/v1/score", **ask, label_token_ids=[minus, plus])
        np.testing.assert_allclose(made["scores"], expected, atol=1e-5)
        whole = post(url, "/v1/score", **ask)
        np.testing.assert_allclose(np.array(whole["scores"])[:, ::-1], expected, atol=1e-5)
        other = post(url, "/v1/score", 400, **ask, label_token_ids=[plus, minus + 1])["error"]
        assert f"reads the tokens [{plus}, {minus}] alone" in other["message"]
        among_all = post(url, "/v1/score", 400, query="Q: ", items=items, label_token_ids=[plus])["error"]
        assert "send apply_softmax=true" in among_all["message"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_reranked_by_their_scores(one_label: Pair, path: str) -> None:
    _, url = one_label
    scores = [one["score"] for one in post(url, "/score", text_1=QUESTION, text_2=STEPS)["data"]]
    assert scores == [one["score"] for one in post(url, "/score", queries=QUESTION, items=STEPS)["data"]]
    assert scores == [one["score"] for one in post(url, "/score", data_1=QUESTION, data_2=STEPS)["data"]]
    made = post(url, path, query=QUESTION, documents=STEPS)
    order = sorted(range(len(STEPS)), key=lambda i: -scores[i])
    assert [one["index"] for one in made["results"]] == order
    assert [one["relevance_score"] for one in made["results"]] == [scores[i] for i in order]
    assert [one["document"]["text"] for one in made["results"]] == [STEPS[i] for i in order]
    assert set(made["usage"]) == {"prompt_tokens", "total_tokens"}
    best = post(url, path, query=QUESTION, documents=STEPS, top_n=1)["results"]
    assert best == made["results"][:1]


@pytest.mark.parametrize(
    ("endianness", "embed_dtype", "kind"),
    [("little", "float32", "<f4"), ("big", "float32", ">f4"), ("native", "float16", "=f2")],
)
def test_outputs_come_as_bytes_in_the_order_that_is_asked_for(
    two_labels: Pair, endianness: str, embed_dtype: str, kind: str
) -> None:
    _, url = two_labels
    how = {"input": ["a<extra_0>b<extra_0>", "c<extra_0>"], "endianness": endianness, "embed_dtype": embed_dtype}
    plain = [np.array(one["data"]) for one in post(url, "/pooling", input=how["input"])["data"]]
    tolerance = 1e-6 if embed_dtype == "float32" else 1e-3
    packed = post(url, "/pooling", encoding_format="base64", **how)["data"]
    for one, expected in zip(packed, plain, strict=True):
        read = np.frombuffer(base64.b64decode(one["data"]), kind).reshape(expected.shape)
        np.testing.assert_allclose(read, expected, atol=tolerance)
    answer = httpx.post(f"{url}/pooling", json={"encoding_format": "bytes", **how})
    assert answer.headers["content-type"] == "application/octet-stream"
    told = json.loads(answer.headers["metadata"])
    assert told["usage"]["prompt_tokens"] > 0
    for one, expected in zip(told["data"], plain, strict=True):
        read = np.frombuffer(answer.content[one["start"] : one["end"]], kind).reshape(one["shape"])
        np.testing.assert_allclose(read, expected, atol=tolerance)
        assert (one["embed_dtype"], one["endianness"]) == (embed_dtype, endianness)
    bare = httpx.post(f"{url}/pooling", json={"encoding_format": "bytes_only", **how})
    assert (bare.content, "metadata" in bare.headers) == (answer.content, False)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/pooling", {}, "one of input and messages"),
        ("/pooling", {"input": "x", "messages": [{"role": "user", "content": "x"}]}, "one of input and messages"),
        ("/pooling", {"input": [[0, 10**9]]}, "token ids must be in"),
        ("/pooling", {"input": []}, "input"),
        ("/pooling", {"input": "x", "truncate_prompt_tokens": 0}, "no tokens"),
        ("/classify", {"input": "ab " * 20_000}, "more than"),
        ("/score", {"text_1": "a"}, "text_1 and text_2"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "as many texts"),
        ("/score", {"text_1": "a", "text_2": "b", "queries": "c"}, "text_1 and text_2"),
        ("/score", {"queries": "a", "documents": "b", "items": ["c"]}, "text_1 and text_2"),
        ("/score", {"queries": "a", "items": [[1]]}, "token ids are read with query"),
        ("/v1/score", {"query": "a", "items": ["b"], "label_token_ids": [1]}, "labels of its own"),
        ("/v1/score", {"query": "a"}, "expected items beside query"),
        ("/v1/score", {"query": "a", "items": ["b"], "text_1": "c"}, "no other texts"),
        ("/v1/score", {"query": "a", "items": [[1]]}, "texts, or token ids, both"),
        ("/pooling", {"input": "a", "embed_dtype": "int8"}, "embed_dtype"),
        ("/pooling", {"input": "a", "embed_dtyp": "float32"}, "did you mean embed_dtype"),
        ("/pooling", {"input": "a", "dimensions": 4}, "cannot honour 'dimensions'"),
        ("/pooling", {"input": "a", "task": "embed"}, "does not do 'embed'"),
        ("/pooling", {"input": "a", "truncate_prompt_tokens": 10**6}, "truncate_prompt_tokens"),
        ("/score", {"text_1": "a", "text_2": "b", "use_activation": False}, "one label"),
        ("/v1/completions", {"prompt": "a"}, "/v1/chat/completions"),
        ("/v1/chat/completions", {"model": "policy"}, "--policy"),
        ("/v1/steps", {"problem": "a", "steps": ["b"], "agregate": "min"}, "did you mean aggregate"),
        ("/rerank", {"query": "a"}, "documents"),
    ],
)
def test_token_requests_that_cannot_be_answered(two_labels: Pair, path: str, body: dict[str, Any], says: str) -> None:
    status = 404 if path in ("/v1/completions", "/v1/chat/completions") else 400
    assert says in post(two_labels[1], path, status, **body)["error"]["message"]


def test_scores_without_activation_and_of_shortened_texts(one_label: Pair) -> None:
    scorer, url = one_label
    pair = {"text_1": "ab cd ef", "text_2": "gh ij kl mn"}
    (plain,) = post(url, "/score", **pair)["data"]
    (bare,) = post(url, "/score", **pair, use_activation=False)["data"]
    assert plain["score"] == pytest.approx(1 / (1 + np.exp(-bare["score"])), abs=1e-6)
    first = scorer.model.tokenizer(pair["text_1"])["input_ids"][:2]
    second = scorer.model.tokenizer(pair["text_2"], add_special_tokens=False)["input_ids"][:3]
    cut = post(url, "/score", **pair, max_tokens_per_query=2, max_tokens_per_doc=3)
    assert cut["usage"]["prompt_tokens"] == 5
    (same,) = post(url, "/classify", input=[first + second])["data"]
    assert cut["data"][0]["score"] == pytest.approx(same["probs"][0], abs=1e-6)


def test_what_asks_for_nothing_is_no_fault(two_labels: Pair) -> None:
    asks = {"user": "me", "dimensions": None, "padding": False, "chat_template_kwargs": {}, "task": "token_classify"}
    assert post(two_labels[1], "/pooling", input="a b", **asks)["id"].startswith("pooling-")
    card = httpx.get(f"{two_labels[1]}/v1/models").json()["data"][0]
    assert (card["root"], card["parent"]) == (card["id"], None)
    assert card["max_model_len"] > 0
