"""Fields of a chat that only some policies honour: passed on where they are, refused by name where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from stepreward.policies.local import LocalPolicy
from stepreward.policies.named import policy_at
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from tests.serve.backend import Backend, backing
from tests.serve.running import SaysAll, serving

FIELDS: dict[str, Any] = {
    "top_k": 5, "min_p": 0.25, "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def backend() -> Iterator[tuple[Backend, str]]:
    with backing() as made:
        yield made


def answer(url: str, **fields: Any) -> httpx.Response:
    body = {"model": "policy:majority?n=2", "messages": [{"role": "user", "content": "Add 2 and 3."}], **fields}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def test_a_server_of_the_policy_is_sent_each_field_with_every_sample(backend: tuple[Backend, str]) -> None:
    policy = policy_at(f"{backend[1]}#good?top_k=50", patience=0.0)
    with serving(Served(policy, grader=SaysAll(), method="majority", limits=Limits())) as url:
        assert answer(url, **FIELDS).status_code == 200
        for sent in list(backend[0].sent)[-2:]:
            assert {name: sent[name] for name in FIELDS} == FIELDS
        assert answer(url).status_code == 200
        assert backend[0].sent[-1]["top_k"] == 50, "one request's fields are no other's"
        assert not {"min_p", "reasoning_effort", "chat_template_kwargs"} & set(backend[0].sent[-1])
        assert answer(url, top_k=-1).status_code == 200
        assert backend[0].sent[-1]["top_k"] == -1
        refused = answer(url, chat_template_kwargs={"chat_template": "{{ 1 }}"})
    assert refused.status_code == 400
    assert "chat_template" in refused.json()["error"]["message"]


@pytest.mark.parametrize("name", FIELDS)
def test_a_model_without_a_chat_template_honours_sampling_alone(name: str) -> None:
    policy = LocalPolicy.load("builtin:arithmetic", max_tokens=20)
    with serving(Served(policy, grader=SaysAll(), method="majority", limits=Limits())) as url:
        got = answer(url, **{name: FIELDS[name]})
        neutral = answer(url, chat_template_kwargs={}, reasoning_effort=None, top_k=-1, min_p=0)
    assert neutral.status_code == 200
    if name in policy.takes:
        assert got.status_code == 200
    else:
        assert (got.status_code, got.json()["error"]["param"]) == (400, name)
