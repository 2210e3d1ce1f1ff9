"""VllmPolicy on a stand-in engine with vLLM's signatures, beside LocalPolicy on the same model."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from tests.vllm_engine import PoolingParams, SamplingParams, StandIn
from tiny_models import byte_level, tiny

from stepreward.core.errors import ModelError, PolicyError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.local import LocalPolicy
from stepreward.policies.named import policy_at
from stepreward.policies.vllm_policy import VllmPolicy

BYTES = byte_level()
MODEL = tiny("qwen2", BYTES)
PROBLEMS = [Problem(str(i), f"Mia has {i} apples. " * (1 + i % 3)) for i in range(6)]
PREFIX = (Step("a b\n"), Step("seen\n", kind="observation"))


def both(**settings: Any) -> tuple[StandIn, VllmPolicy, LocalPolicy]:
    engine = StandIn(MODEL, BYTES)
    shared = {"max_tokens": 40, **settings}
    return (
        engine,
        VllmPolicy(engine, BYTES, SamplingParams, logprobs=True, **shared),
        LocalPolicy(MODEL, BYTES, **shared),
    )


def shown(answers: Sequence[Sequence[Continuation]]) -> list[Any]:
    return [[(c.steps, c.finished, c.n_tokens, c.truncated, c.n_prompt_tokens) for c in some] for some in answers]


def without_logprobs(answers: Sequence[Sequence[Continuation]]) -> list[Any]:
    return [[([(s.text, s.tokens) for s in steps], *rest) for steps, *rest in some] for some in shown(answers)]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("until", ["step", "end"])
@pytest.mark.parametrize("separator", ["\n", " a", "th"])
@pytest.mark.parametrize("max_tokens", [None, 3])
def test_greedy_continuations_are_those_of_the_local_policy(until: Any, separator: str, max_tokens: int | None) -> None:
    _, far, near = both(separator=separator, temperature=0.0)
    questions = [
        Propose(problem, prefix, Key.seed(i), until=until, max_tokens=max_tokens)
        for i, problem in enumerate(PROBLEMS)
        for prefix in ((), PREFIX)
    ]
    got, expected = far.propose(questions), near.propose(questions)
    assert without_logprobs(got) == without_logprobs(expected)
    for one, other in zip(got, expected, strict=True):
        for a, b in zip(one[0].steps, other[0].steps, strict=True):
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)  # type: ignore[arg-type]


def test_each_sample_has_its_own_seed_and_settings_are_the_question_s() -> None:
    engine, far, _ = both(temperature=0.9, top_p=0.8, top_k=20)
    question = Propose(PROBLEMS[0], (), Key.seed(1), n=6, temperature=0.5)
    (first,), (again,) = far.propose([question]), far.propose([question])
    assert shown([first]) == shown([again])
    (tail,) = far.propose([Propose(PROBLEMS[0], (), Key.seed(1), n=2, first=4, temperature=0.5)])
    assert shown([tail]) == shown([first[4:]]), "asking for 6 or for 4 and 2 draws the same"
    asked = [one for _, given in engine.calls for one in given]
    assert len({one.seed for one in asked}) == 6
    assert {(one.temperature, one.top_p, one.top_k, one.stop) for one in asked} == {(0.5, 0.8, 20, None)}
    assert len(engine.calls[0][0]) == 6, "all samples are one call"


def test_a_sampled_prefix_is_found_in_the_engine_s_cache() -> None:
    engine, far, _ = both()
    ((answer,),) = far.propose([Propose(PROBLEMS[2], (), Key.seed(2), until="end")])
    before = [*far.prompt_ids(PROBLEMS[2]), *(token for step in answer.steps for token in step.tokens or ())]
    far.propose([Propose(PROBLEMS[2], answer.steps, Key.seed(3), until="step")])
    assert engine.calls[-1][0] == [before]


def test_a_prefix_that_fills_the_context_is_cut_before_it_begins() -> None:
    engine = StandIn(MODEL, BYTES, max_model_len=30)
    far = VllmPolicy(engine, BYTES, SamplingParams)
    long, short = Problem("long", "x" * 40), Problem("short", "x")
    (one, two) = far.propose([Propose(long, (), Key.seed(0), n=2), Propose(short, (), Key.seed(0))])
    assert [c.truncated for c in one] == [True, True]
    assert one[0].n_tokens == 0
    assert two[0].n_tokens > 0


def test_an_engine_that_gives_up_is_an_error() -> None:
    engine, far, _ = both()
    engine.gives_up = True
    with pytest.raises(PolicyError, match="'abort'"):
        far.propose([Propose(PROBLEMS[0], (), Key.seed(0))])


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_without_vllm_the_error_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"pip install 'stepreward\[vllm\]'.*URL#NAME"):
        policy_at("vllm:Qwen/Qwen2.5-Math-1.5B")


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not here")
def test_the_installed_release_has_the_fields_that_are_used() -> None:
    package = pytest.importorskip("vllm")
    for ours, theirs in ((SamplingParams, package.SamplingParams), (PoolingParams, package.PoolingParams)):
        assert {one.name for one in fields(ours)} <= set(theirs.__struct_fields__)  # type: ignore[arg-type]
