"""Preferences and next steps: what each published layout says, and any of them in one layout of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepreward import formats
from stepreward.core.errors import InputError
from stepreward.core.types import Comparison
from stepreward.formats.preferences.as_solutions import as_solutions
from stepreward.formats.registry import by_name, detect, read_comparisons
from stepreward.formats.registry import formats as registry

from .examples import EXAMPLES, items, one

PREFERENCES = sorted(name for name, form in registry.items() if form.kind == "comparisons")


def shown(item: Comparison) -> list[list[tuple[str, str]]]:
    return [[(step.kind, step.text) for step in candidate.steps] for candidate in item.candidates]


def test_web_reward_bench_reads_history_page_and_actions() -> None:
    item = one("web-reward-bench")
    assert item.preferred == (1.0, 0.0, 0.0)
    assert shown(item)[1] == [
        ("action", "THOUGHT: Start.\nACTION: goto('shop.example')\n"),
        ("observation", "Current URL: shop.example/home\n[1] link 'Shoes'\n[2] link 'Hats'\n"),
        ("action", "THOUGHT: Hats first.\nACTION: click('2')\n"),
    ]
    assert (item.problem.text, item.subset) == ("Buy the red shoes.", "mind2web_test_task")
    assert item.problem.meta == {"checklist": "1. The shoes are found\n2. They are in the basket"}
    assert (item.meta["task_id"], item.meta["step_id"]) == ("mind2web_test_task:12", 1)
    bare = one("web-reward-bench", history=0, page=False)
    assert [len(candidate) for candidate in bare.candidates] == [1, 1, 1]


def test_the_web_prm_collection_has_one_chosen_action_and_columns_of_rejected_ones() -> None:
    item = one("web-reward-bench", 1)
    assert [candidate.steps[-1].text for candidate in item.candidates] == [
        "THOUGHT: Shoes are under Shoes.\nACTION: click('1')\n",
        "THOUGHT: Hats first.\nACTION: click('2')\n",
        "THOUGHT: Wait.\nACTION: noop()\n",
    ]
    assert item.problem.meta == {"checklist": "1. Found"}


def test_of_several_chosen_actions_the_first_is_taken() -> None:
    row = EXAMPLES["web-reward-bench"][0]
    (item,) = by_name("web-reward-bench").read({**row, "chosen": row["chosen"] + row["rejected"]}, 1)
    assert item.preferred == (1.0, 0.0, 0.0)


def test_web_prm_bench_takes_state_and_responses_out_of_the_prompt() -> None:
    first, second = one("web-prm-bench", 0), one("web-prm-bench", 1)
    assert first.problem.id == second.problem.id == "webarena:0"
    assert first.problem.text == second.problem.text
    assert first.problem.text.startswith("#### Intent ####\nBuy the red shoes.\n")
    assert first.problem.text.endswith("#### current url ####\nshop.example\n")
    assert (first.preferred, second.preferred) == ((1.0, 0.0), (0.0, 1.0))
    right = "THOUGHT:\nShoes are under Shoes.\n\nACTION:\nclick('1')\n"
    assert first.candidates[0].text == second.candidates[1].text == right
    assert second.candidates[0].text == "THOUGHT:\nWait.\n\nACTION:\nnoop()\n"


def test_tool_comp_compares_plans_then_steps() -> None:
    plan, step = one("tool-comp", 0), one("tool-comp", 1)
    assert (plan.subset, step.subset) == ("action plan", "react step")
    assert shown(plan)[1] == [("action", "Action Plan: Ask weather for Peru.\n")]
    assert plan.problem.meta["tools"] == ["google_search", "weather"]
    assert shown(step)[0] == [
        ("action", "Action Plan: Look the city up, then its weather.\n"),
        ("action", "Thought: I need the capital.\nAction: google_search\nAction Input: capital of Peru\n"),
        ("observation", "Observation: Lima\n"),
        ("action", "Thought: Now its weather.\nAction: weather\nAction Input: Lima\n"),
    ]
    assert step.candidates[1].steps[-1].text.endswith("Action Input: Peru\n")
    assert step.preferred == (1.0, 0.0)


def test_tool_prm_bench_reads_text_and_json() -> None:
    item, plain = one("tool-prm-bench", 0), one("tool-prm-bench", 1)
    assert [candidate.text for candidate in item.candidates] == [
        '{"name": "book", "arguments": {"people": 2}}\n',
        '{"name": "book", "arguments": {"people": 4}}\n',
    ]
    assert (plain.problem.text, plain.problem.meta) == ("User: what time is it?", {"tools": "time(): the time"})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("web-reward-bench", {"rejected": []}, "'rejected' must hold at least one"),
        ("web-reward-bench", {"thought_history": []}, None),
        ("web-reward-bench", {"thought_history": ["a", "b"]}, "differ in number"),
        ("web-prm-bench", {"prompt": "no marks"}, "two marked responses"),
        ("web-prm-bench", {"expected": 3}, "must be 1 or 2"),
        ("tool-comp", {"history": "[{"}, "is no JSON"),
        ("tool-comp", {"preferred": {"action plan": None}}, "needs a 'text'"),
        ("tool-prm-bench", {"action_rejected": None}, "is missing or empty"),
        ("mp-bench", {"paradigm": "answer aggregation"}, "'paradigm' must be"),
        ("comparisons", {"rejected": []}, None),
        ("comparisons", {"chosen": [], "rejected": ["x"]}, "must be two candidates"),
        ("comparisons", {"scores": {"v": [1.0]}}, "must be 3"),
    ],
)
def test_rows_of_another_shape(name: str, change: dict[str, Any], message: str | None) -> None:
    row = {**EXAMPLES[name][0], **change}
    if name == "comparisons" and message is None:
        row = {**row, "chosen": ["a", "b"], "scores": None}
    if message is None:
        assert list(by_name(name).read(row, 1))
        return
    with pytest.raises(InputError, match=message):
        list(by_name(name).read(row, 1))


def test_comparisons_hold_steps_texts_messages_and_ranks() -> None:
    first, ranked = one("comparisons", 0), one("comparisons", 1)
    assert shown(first)[0] == [("action", "2 + 3 = 5\n\n"), ("action", "2 * 5 = 10\n\n")]
    assert shown(first)[2] == [("action", "12")]
    assert first.scores == {"v": (0.9, 0.2, 0.4)}
    np.testing.assert_array_equal(first.step_scores["steps"][1], [0.9, 0.1])
    assert ranked.preferred == (7.5, 5.0, 1.0)
    assert [(step.kind, step.agent) for step in ranked.candidates[2].steps] == [("action", "a"), ("observation", None)]
    talk = {
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    (made,) = by_name("comparisons").read(talk, 1)
    assert [candidate.text for candidate in made.candidates] == ["Hello.", "No."]


def test_plain_rows_of_prompt_chosen_and_rejected_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "1 + 1?", "chosen": "2", "rejected": ["3", "11"]}) + "\n")
    assert detect(path).name == "comparisons"
    (item,) = read_comparisons(path, strict=True)
    assert item.preferred == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("name", PREFERENCES)
def test_every_preference_format_becomes_comparisons_and_stays_the_same(name: str, tmp_path: Path) -> None:
    made = [item for at in range(len(EXAMPLES[name])) for item in items(name, at)]
    path = tmp_path / "made.jsonl"
    assert formats.write(path, made, "comparisons", strict=True) == []
    assert detect(path).name == "comparisons"
    for item, again in zip(made, read_comparisons(path, strict=True), strict=True):
        assert_same(item, again)


def assert_same(item: Comparison, again: Comparison) -> None:
    assert [candidate.steps for candidate in item.candidates] == [candidate.steps for candidate in again.candidates]
    assert [[step.meta for step in one.steps] for one in item.candidates] == [
        [step.meta for step in one.steps] for one in again.candidates
    ]
    assert (item.problem, item.preferred, item.subset) == (again.problem, again.preferred, again.subset)
    assert item.meta == again.meta
    assert item.scores.keys() == again.scores.keys()
    for name, values in item.scores.items():
        np.testing.assert_array_equal(values, again.scores[name])
    assert item.step_scores.keys() == again.step_scores.keys()
    for name, rows in item.step_scores.items():
        for row, other in zip(rows, again.step_scores[name], strict=True):
            np.testing.assert_array_equal(row, other)
    np.testing.assert_array_equal([c.outcome for c in item.candidates], [c.outcome for c in again.candidates])


def help_steer_3(scores: list[Any], **own: Any) -> dict[str, Any]:
    said = [{"score": score, "reasoning": "r", "feedback1": "a", "feedback2": "b", **own} for score in scores]
    return {
        "domain": "code", "context": [{"role": "user", "content": "Hi"}], "response1": "Hello.", "response2": "No.",
        "overall_preference": -1, "individual_preference": said,
    }  # fmt: skip


def test_the_people_behind_a_preference_are_comparisons_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "steer.jsonl"
    path.write_text(json.dumps(help_steer_3([-2, 1, 0], annotator="kai")) + "\n")
    (overall,) = read_comparisons(path)
    assert (overall.preferred, overall.meta["strength"]) == ((1.0, 0.0), 1.0)
    people = list(read_comparisons(path, individual=True))
    assert [one.preferred for one in people] == [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    assert [one.meta["strength"] for one in people] == [2.0, 1.0, 0.0]
    assert {(one.meta["annotator"], one.subset) for one in people} == {("kai", "code")}
    assert "individual_preference" not in people[0].meta
    rows = [row for row in as_solutions(people) if row.outcome == 1]
    # A problem each, so that what one said is not compared with what another said.
    assert [row.problem.id for row in rows] == ["help-steer-1", "help-steer-1#2"]
    assert [row.facts["strength"] for row in rows] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ([], "'individual_preference' is empty"),
        ([4], "'score' must be from -3 to 3"),
        ([-4], "'score' must be from -3 to 3"),
    ],
)
def test_a_person_without_a_preference_is_named(scores: list[Any], why: str, tmp_path: Path) -> None:
    path = tmp_path / "steer.jsonl"
    path.write_text(json.dumps(help_steer_3(scores)) + "\n")
    with pytest.raises(InputError, match=why):
        list(read_comparisons(path, individual=True, strict=True))


def test_the_strongest_preferences_are_read_and_an_opinion_without_a_score_is_named(tmp_path: Path) -> None:
    path = tmp_path / "steer.jsonl"
    path.write_text(json.dumps(help_steer_3([-3, 3])) + "\n")
    people = list(read_comparisons(path, individual=True, strict=True))
    assert [(one.preferred, one.meta["strength"]) for one in people] == [((1.0, 0.0), 3.0), ((0.0, 1.0), 3.0)]
    path.write_text(json.dumps({**help_steer_3([]), "individual_preference": [2]}) + "\n")
    with pytest.raises(InputError, match="'individual_preference' must hold objects, got 2"):
        list(read_comparisons(path, individual=True, strict=True))
