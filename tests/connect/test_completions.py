"""Steps of completions: reasoning by separator, agents by turn, end tokens with what they end."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from stepreward.connect.alarms import HackingAlarms
from stepreward.connect.completions import StepFinder, problem_of
from stepreward.core.types import Problem
from stepreward.policies.model_sources import resolve

TOKENIZER = AutoTokenizer.from_pretrained(resolve("builtin:arithmetic"))
END = TOKENIZER.eos_token_id


def batch(*rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    width = max(map(len, rows))
    ids = np.full((len(rows), width), TOKENIZER.pad_token_id)
    present = np.zeros(ids.shape, bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], present[i, : len(row)] = row, True
    return ids, present


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text)["input_ids"]
    return ids


def finder(separator: str = "\n") -> StepFinder:
    return StepFinder(TOKENIZER, len(TOKENIZER), separator, [END, TOKENIZER.pad_token_id])


def test_an_end_token_belongs_to_the_last_step_and_says_nothing() -> None:
    ids, present = batch([*encode("12 + 5 = 17\nAnswer: 17\n"), END], encode("1 + 1"))
    spans = finder().spans(ids, present)
    assert np.asarray(spans.offsets).tolist() == [0, 2, 3]
    assert int(spans.end[1]) == int(present[0].sum())
    made = finder().trajectories([Problem("a", "?"), Problem("b", "?")], ids, present, present, spans)
    assert [step.text for step in made[0].steps] == ["12 + 5 = 17\n", "Answer: 17\n"]
    assert made[1].text == "1 + 1"


@pytest.mark.parametrize("separator", ["= ", "17\n", "\n"])
def test_a_separator_of_several_tokens_ends_the_step_where_it_is_complete(separator: str) -> None:
    text = "12 + 5 = 17\n17 + 1 = 18\n"
    ids, present = batch(encode(text))
    spans = finder(separator).spans(ids, present)
    (made,) = finder(separator).trajectories([Problem("a", "?")], ids, present, present, spans)
    assert made.text == text
    *inner, last = (step.text for step in made.steps)
    # A token may hold more than the separator's end, so steps end in the token that completes it.
    assert all(separator in part for part in inner)
    assert all(part.count(separator) == 1 for part in inner)
    assert last.count(separator) <= 1


def test_what_others_wrote_is_an_observation_between_turns() -> None:
    first, tool, second = encode("5 * 2\n1 + 1\n"), encode("10\n"), [*encode("Answer: 10\n"), END]
    ids, present = batch([*first, *tool, *second])
    own = present.copy()
    own[0, len(first) : len(first) + len(tool)] = False
    spans = finder("").spans(ids, own)
    (made,) = finder("").trajectories([Problem("a", "?")], ids, present, own, spans)
    assert [(step.text, step.kind, step.role) for step in made.steps] == [
        ("5 * 2\n1 + 1\n", "action", "assistant"),
        ("10\n", "observation", "tool"),
        ("Answer: 10\n", "action", "assistant"),
    ]
    assert np.asarray(spans.lengths).tolist() == [len(first), len(second)]


def test_equal_prompts_are_one_problem() -> None:
    one = problem_of([{"role": "user", "content": "1 + 1?"}], {"answer": 2})
    assert one == problem_of(({"role": "user", "content": "1 + 1?"},), {"answer": 2})
    assert one.reference == "2"
    assert one.text == "1 + 1?"
    assert problem_of("1 + 1?", {}).reference is None


def numbers(step: int, **slopes: float) -> dict[str, float]:
    noise = np.random.default_rng(step).normal(scale=0.01, size=4)
    names = ("process", "outcome", "steps", "repeated")
    return {name: slopes.get(name, 0.0) * step + noise[i] for i, name in enumerate(names)}


@pytest.mark.parametrize(
    ("slopes", "alarms"),
    [
        ({}, set()),
        ({"process": 0.01, "outcome": 0.01, "steps": 0.1, "repeated": 0.01}, set()),
        ({"process": 0.01, "outcome": -0.01}, {"diverging"}),
        ({"steps": 0.1}, {"padding"}),
        ({"steps": 0.1, "repeated": 0.01, "process": 0.01}, {"padding", "repetition"}),
        ({"process": 0.01}, set()),
    ],
)
def test_alarms_tell_trends_that_do_not_help(slopes: dict[str, float], alarms: set[str]) -> None:
    watch = HackingAlarms(window=20)
    early = [watch.observe(numbers(step, **slopes)) for step in range(19)]
    assert early == [{}] * 19
    assert watch.observe(numbers(19, **slopes)).keys() == alarms


def test_alarms_on_numbers_that_never_vary() -> None:
    watch = HackingAlarms(window=4)
    for step in range(4):
        found = watch.observe({"process": float(step >= 2), "outcome": -float(step >= 2), "steps": 3.0})
    assert found.keys() == {"diverging"}
