"""Formats of process supervision: what each row means, worked by hand, and what is said of bad ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepreward import formats
from stepreward.core.errors import InputError
from stepreward.core.tree import StepTree
from stepreward.core.types import Comparison, Trajectory
from stepreward.formats.registry import by_name

from .examples import EXAMPLES, items, one, texts

DATA = Path(__file__).parents[2].parent / "shared" / "data"
NAN = float("nan")


LABELS: list[tuple[str, int, dict[str, Any], list[float], int | None]] = [
    # Soft labels decide no first error: 0.25 is neither right nor wrong until a threshold is named.
    ("openrlhf", 0, {}, [1, 0.25], None),
    ("openrlhf", 0, {"threshold": 0.5}, [1, 0], 1),
    ("openrlhf", 1, {}, [1, 0], 1),
    ("er-prm", 0, {}, [0.9, 0], None),
    ("er-prm", 0, {"threshold": 0.0}, [1, 0], 1),
    ("openr", 0, {}, [1, 0], 1),
    ("rlhflow", 0, {}, [1, 0], 1),
    ("visual-prm-turns", 0, {}, [1, 0], 1),
    ("visual-prm", 0, {}, [0.75, 0], None),
    ("visual-prm", 0, {"threshold": 0.0}, [1, 0], 1),
    # The first step is neutral: the benchmark leaves it out, and it is no error.
    ("visual-process-bench", 0, {}, [NAN, 1, 0], 2),
    ("visual-process-bench", 0, {"neutral": "right"}, [1, 1, 0], 2),
    ("visual-process-bench", 0, {"neutral": "half"}, [0.5, 1, 0], 2),
    ("unprm", 0, {}, [1, 0], 1),
    ("actprm", 0, {}, [1, 0, NAN], 1),
    ("actprm", 0, {"labels": "soft"}, [0.9, 0.1, NAN], None),
    # Q = 0.5 and -1 are (0.5 + 1) / 2 and 0; packed, 1005000 = 10000 * 0.5 + 1000000.
    ("masprm", 0, {}, [0.75, 0], None),
    ("masprm", 1, {}, [0.75, 0], None),
    ("masprm", 0, {"threshold": 0.5}, [1, 0], 1),
    # error_labels says true, false, null: right, wrong, not labelled.
    ("fover", 0, {}, [1, 0, NAN], 1),
    ("fover", 0, {"polarity": "true-is-wrong"}, [0, 1, NAN], 0),
    # Steps 2 and 3 of three, counted from 1.
    ("prm-bench", 0, {}, [1, 0, 0], 1),
    ("prm-bench", 0, {"after_first_error": "mask"}, [1, 0, NAN], 1),
    ("prm-bench", 0, {"which": "original"}, [1, 1], -1),
    ("prm-bench", 1, {}, [1], -1),
    ("socratic-prm-bench", 0, {}, [1, 0], 1),
    ("mr-gsm8k", 0, {}, [1, 0, NAN], 1),
    ("mr-gsm8k", 0, {"after_first_error": "wrong"}, [1, 0, 0], 1),
    ("mr-gsm8k", 1, {}, [1], -1),
    ("mr-ben", 0, {}, [1, 0], 1),
    ("mr-ben", 1, {}, [1, 0], 1),
    ("bigbench-mistake", 0, {}, [1, 1, 0], 2),
    ("bigbench-mistake", 1, {}, [1], -1),
    ("hard2verify", 0, {}, [1, 0, 0], 1),
    ("genprm", 0, {}, [1, 0], 1),
    ("implicit-prm", 0, {}, [NAN, NAN], None),
    ("tdrm", 0, {}, [NAN, NAN], None),
    ("tdrm", 1, {}, [0], None),
    ("agent-prm", 0, {}, [NAN, NAN, NAN, 0.875], None),
    # Messages 2 to 5: rated 1, a tool's, rated 0, rated -1.
    ("agent-process-bench", 0, {}, [1, NAN, 0.5, 0], 3),
    ("agent-process-bench", 0, {"neutral": "mask"}, [1, NAN, NAN, 0], 3),
    ("who-and-when", 0, {}, [NAN, 0, NAN, NAN], 1),
]


@pytest.mark.parametrize(("name", "at", "options", "labels", "first"), LABELS)
def test_labels_by_hand(name: str, at: int, options: dict[str, Any], labels: list[float], first: int | None) -> None:
    item = one(name, at, **options)
    np.testing.assert_allclose(item.labels, labels, rtol=1e-15)
    assert item.first_error == first


@pytest.mark.parametrize("name", ["openrlhf", "er-prm", "rlhflow"])
def test_the_mark_parts_question_and_steps(name: str) -> None:
    item = one(name)
    assert item.problem.text == "How many?"
    assert texts(item) == ["Step 1: 1 + 1 = 2.\n", "Step 2: 2 + 2 = 5.\n"]
    whole = one(name, mark="")
    assert whole.problem.text == ""
    assert texts(whole)[0] == "How many? Step 1: 1 + 1 = 2.\n"
    with pytest.raises(InputError, match=r"'First' must part the question .* mark=''"):
        one(name, mark="First")


def test_a_labelled_prefix_of_math_aps_is_one_step() -> None:
    item = one("openr", 1)
    assert texts(item) == ["1 + 1 = 2.\n\n2 + 2 = 5.\n"]
    assert item.labels.tolist() == [0]
    with pytest.raises(InputError, match="has no step: no '#'"):
        one("openr", tag="#")


def test_a_tree_gives_a_solution_for_each_leaf_and_comes_back_by_merging() -> None:
    made = items("omega-prm-tree")
    assert [texts(item) for item in made] == [
        ["1 + 1 = 2.\n", "2 + 2 = 4.\n"],
        ["1 + 1 = 2.\n", "2 + 2 = 5.\n"],
        ["It is 4.\n"],
    ]
    assert [item.labels.tolist() for item in made] == [[0.5, 1], [0.5, 0], [1]]
    assert made[0].problem.meta["root_value"] == 0.75
    assert (made[0].problem.id, made[0].problem.reference) == ("omega-prm-7", "4")
    # The root, the shared first step, its two children, and the other leaf.
    assert StepTree.from_trajectories(list(made)).n == 5


def test_prefixes_give_the_steps_of_their_tree() -> None:
    tree = {tuple(texts(item)): item.labels.tolist() for item in items("omega-prm-tree")}
    made = {tuple(texts(item)): item.labels.tolist() for item in items("omega-prm-prefixes")}
    # The tree's leaf "It is 4." is right once; among the prefixes it stands twice, with 1 and 1/2.
    assert made == {**tree, ("It is 4.\n",): [0.75]}
    assert items("omega-prm-prefixes")[0].problem.meta["root_value"] == 0.75


def test_a_tree_deeper_than_calls_may_be_is_read() -> None:
    node: dict[str, Any] = {"text": "end", "mc_value": 1.0, "children": []}
    for depth in range(5000):
        node = {"text": str(depth), "mc_value": 1.0, "children": [node]}
    (item,) = by_name("omega-prm-tree").read({"question": "q", "reasoning_steps": {**node, "text": "q"}}, 1)
    assert len(item) == 5000  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("visual-prm-turns", ["images/a.png"]),
        ("visual-prm", ["images/a.png", "images/b.png"]),
        ("visual-process-bench", ["images/a.png"]),
    ],
)
def test_paths_of_images_are_kept(name: str, images: list[str]) -> None:
    assert one(name).problem.meta["images"] == images


def test_the_question_of_visual_prm_stands_in_the_first_turn() -> None:
    item = one("visual-prm-turns")
    assert item.problem.text == "How many?"
    assert texts(item) == ["I see one.\n\nTwo lines.\n\n", "So 5.\n\n"]


def test_genprm_keeps_each_verification_and_a_question_of_two_paragraphs() -> None:
    item = one("genprm")
    assert item.problem.text == "How many?\n\nIn all?"
    assert texts(item) == ["1 + 1 = 2.\n\n", "2 + 2 = 5.\n\n"]
    assert "<analyze>" in item.steps[0].meta["rationale"]


def test_genprm_rollouts_that_were_not_run_are_not_measured() -> None:
    first, second = items("genprm-rollouts")
    assert first.labels.tolist() == [0.75, 1]
    np.testing.assert_array_equal(second.labels, [NAN])


def test_prm_bench_counts_errors_from_one_and_forgives_numbers_past_the_end() -> None:
    row = {**EXAMPLES["prm-bench"][0], "error_steps": [2, 9]}
    (item,) = by_name("prm-bench").read(row, 1)
    assert isinstance(item, Trajectory)
    assert (item.labels.tolist(), item.first_error, item.facts["error_steps"]) == ([1, 0, 1], 1, [2, 9])
    (item,) = by_name("prm-bench").read({**row, "error_steps": [9]}, 1)
    assert isinstance(item, Trajectory)
    assert (item.labels.tolist(), item.first_error) == ([1, 1, 1], None)
    modified, original = items("prm-bench", which="both")
    assert modified.problem.text == "How many, then?"
    assert original.problem.text == "How many?"
    assert original.facts["side"] == "original"


def test_the_line_of_a_program_is_found_or_said_to_be_unknown() -> None:
    row = EXAMPLES["mr-ben"][1]
    twice = {**row, "Model_Solution_Steps": "    return a - b\n    return a - b\n"}
    for unclear in (twice, {**row, "Model_Solution_First_Error_Step": " "}):
        (item,) = by_name("mr-ben").read(unclear, 1)
        assert isinstance(item, Trajectory)
        assert item.first_error is None
        assert np.isnan(item.labels).all()
    assert texts(one("mr-ben", 1)) == ["def add(a, b):\n", "    return a - b\n"]
    assert one("mr-ben").problem.text == "How many?\nA: 4 \nB: 5"


def test_responses_of_implicit_prm_have_outcomes_and_no_labels() -> None:
    right, wrong = items("implicit-prm-rollouts")
    assert (right.outcome, wrong.outcome) == (1.0, 0.0)
    assert texts(one("implicit-prm-rollouts", 1)) == ["Step 1: 1 + 1 = 2.\n\n", "Step 2: 4."]
    assert one("implicit-prm").text == "Step 1: 1 + 1 = 2.\n\nStep 2: 4."


def test_states_of_tdrm_are_parted_where_the_first_ends() -> None:
    item = one("tdrm")
    assert texts(item) == ["1 + 1 = 2.\n\n", "So 4."]
    assert (item.outcome, item.facts["reward_2"]) == (1.0, 0.2)


def test_agents_observations_are_context() -> None:
    assert [step.kind for step in one("agent-prm").steps] == [
        "observation",
        "action",
        "observation",
        "action",
    ]
    bench = one("agent-process-bench")
    row = EXAMPLES["agent-process-bench"][0]
    ends = {1: 1.0, 0: 0.0, -1: 0.0, None: NAN}
    for final, outcome in ends.items():
        (ended,) = by_name("agent-process-bench").read({**row, "final_label": final}, 1)
        np.testing.assert_equal(ended.outcome, outcome)
    assert [step.kind for step in bench.steps] == ["action", "observation", "action", "action"]
    assert '"name": "search"' in bench.steps[0].text
    assert [step.meta["message"] for step in bench.steps] == [2, 3, 4, 5]
    assert [message["role"] for message in bench.problem.messages] == ["system", "user"]
    who = one("who-and-when")
    assert [step.agent for step in who.steps] == ["human", "Coder", "Computer_terminal", "Orchestrator"]
    assert [step.kind for step in who.steps] == ["observation", "action", "observation", "action"]
    assert (who.facts["mistake_agent"], who.facts["subset"], who.outcome) == ("Coder", "Hand-Crafted", 0.0)


def test_rewardmath_keeps_scores_of_solutions_and_of_steps() -> None:
    (item,) = items("rewardmath-scores")
    assert isinstance(item, Comparison)
    assert item.preferred == (1.0, 0.0, 0.0)
    assert item.scores == {"judge": (9.0, 8.0, 8.0)}
    assert [row.tolist() for row in item.step_scores["verifier"]] == [[0.5, 0.5], [0.25], [0.5, 1.0]]
    (pair,) = items("rewardmath-pairs")
    assert (pair.preferred, len(pair.candidates[1])) == ((0.0, 1.0), 2)
    assert [candidate.outcome for candidate in pair.candidates] == [0.0, 1.0]


def test_rewards_of_whole_solutions_stand_at_the_last_step() -> None:
    right, wrong = items("qwen-rm-maj")
    np.testing.assert_array_equal(right.scores["Qwen2.5-Math-RM-72B"], [NAN, 3.5])
    np.testing.assert_array_equal(wrong.scores["Qwen2.5-Math-RM-72B"], [-1.25])
    assert (right.outcome, wrong.outcome, wrong.answer) == (1.0, 0.0, "5")


def test_values_of_thoughts_are_found_by_their_prefix() -> None:
    (item,) = items("tot")
    assert item.problem.text == "1 2 3 4"
    assert texts(item) == ["1 * 2 = 2 (left: 2 3 4)\n", "2 * 3 = 6 (left: 4 6)\n"]
    assert (item.scores["value"].tolist(), item.outcome) == ([60.0, 60.0], 1.0)


def test_a_tree_of_tool_calls_is_its_branches() -> None:
    answered, given_up = items("toolbench")
    assert answered.problem.text == "How is it in Paris?"
    calls = '{"name": "weather", "arguments": {"city": "Paris"}}\n'
    finish = '{"name": "Finish", "arguments": {"return_type": "give_answer", "final_answer": "It is mild."}}\n'
    seen = '{"response": "mild"}\n'
    assert texts(answered) == ["I look it up.\n", calls, seen, finish, '{"response": "ok"}\n']
    assert [step.kind for step in answered.steps] == ["action"] * 2 + [
        "observation",
        "action",
        "observation",
    ]
    assert answered.steps[2].agent == "weather"
    assert (answered.answer, given_up.answer) == ("It is mild.", None)
    assert texts(given_up)[:3] == texts(answered)[:3]
    assert [bool(step.meta.get("pruned")) for step in given_up.steps] == [False, False, False, True]
    assert np.isnan(answered.outcome)
    assert [item.outcome for item in items("toolbench", outcome="answered")] == [1.0, 0.0]


def test_programs_are_read_and_not_run() -> None:
    first, second, empty = items("code-samples")
    assert (texts(first), texts(second)) == (["    return 2\n"], ["    x = 1\n    return x\n"])
    # Without it the share of right samples would be too high.
    assert empty.text == "# an empty sample\n"
    assert texts(items("code-samples", cut="lines")[1]) == ["    x = 1\n", "    return x\n"]
    assert first.problem.meta["entry_point"] == "two"
    assert np.isnan(first.outcome)
    solved, failed = one("reflexion-code"), one("reflexion-code", 1)
    assert [step.kind for step in solved.steps] == ["observation", "action"]
    assert (solved.outcome, failed.outcome) == (1.0, 0.0)


def program(number: int) -> str:
    return f"def three(): return {number}\n"


def test_every_program_of_reflexion_stands_with_the_feedback_and_the_reflection_on_it() -> None:
    made = one("reflexion-code", 2)
    assert [(step.kind, step.agent, step.text) for step in made.steps] == [
        ("action", None, program(1)),
        ("observation", "tests", "Tests failed:\nassert three() == 3 # output: 1\n"),
        ("observation", "reflection", "It returns 1.\n"),
        ("action", None, program(2)),
        ("observation", "tests", "Tests failed:\nassert three() == 3 # output: 2\n"),
        ("observation", "reflection", "It returns 2.\n"),
        ("action", None, program(3)),
        ("observation", "tests", "Tested passed:\nassert three() == 3\n"),
    ]
    assert made.outcome == 1


def test_lats_logs_the_first_program_and_the_last_and_reflections_on_others_between_them() -> None:
    made = one("reflexion-code", 3)
    assert texts(made) == [
        program(1), "Tests failed:\n1\n", "It returns 1.\n", "It returns 7.\n", "It returns 8.\n", program(4),
        "Tests failed:\n4\n",
    ]  # fmt: skip
    assert (made.outcome, made.facts) == (0, {"acc": 0.5})


def test_logs_with_parts_of_an_attempt_missing(tmp_path: Path) -> None:
    whole = EXAMPLES["reflexion-code"][2]
    read = by_name("reflexion-code").read
    debugged = {key: value for key, value in whole.items() if key not in ("reflections", "solution")}
    (made,) = read({**debugged, "test_feedback": [None, {"error": "x"}]}, 1)
    assert texts(made) == [program(1), program(2), '{"error": "x"}\n', program(3)]
    (made,) = read({**whole, "solution": program(2)}, 1)
    assert texts(made)[-1] == program(2), "what is_solved is said of ends the trajectory"
    (made,) = read({**whole, "solution": None, "is_solved": None}, 1)
    assert np.isnan(made.outcome)
    assert len(made) == 8
    # LATS logs no program where the first attempt passed: the row is told, and costs no other.
    path = tmp_path / "log.jsonl"
    early = {key: whole[key] for key in ("name", "prompt", "entry_point", "test")} | {"acc": 1.0}
    path.write_text(json.dumps(early) + "\n" + json.dumps(whole) + "\n")
    reading = formats.read(path)
    assert len(list(reading)) == 1
    assert [(error.row, error.problem[:22]) for error in reading.bad] == [(1, "there is no program: L")]


def change(name: str, at: int, *path: Any, to: Any) -> tuple[str, dict[str, Any]]:
    row = copy.deepcopy(EXAMPLES[name][at])
    holder: Any = row
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = to
    return name, row


BAD: list[tuple[tuple[str, dict[str, Any]], str]] = [
    (change("openrlhf", 0, "value", to=[1]), "'value' has 1 entries for 2 steps"),
    (change("openrlhf", 0, "value", to=["+", "?"]), r"'value' entry 1 must be in \[0, 1\], got '\?'"),
    (change("openrlhf", 0, "input", to="How many? Step 1: a ки and more"), "text after the last 'ки': ' and more'"),
    (change("er-prm", 0, "text", to="How many? a ки"), "'Step 1:' must part the question"),
    (change("openr", 0, "label", to=["+"]), "'label' has 1 entries for 2 steps"),
    (change("omega-prm-tree", 0, "reasoning_steps", "children", 0, "mc_value", to=7), "'mc_value' of a step at depth"),
    (change("omega-prm-tree", 0, "reasoning_steps", "children", to=[]), "no step after the question"),
    (change("omega-prm-prefixes", 0, "reasoning_steps", 1, "solution_prefix", to="x"), "prefix 1 must begin with"),
    (change("rlhflow", 0, "conversations", 1, "content", to="maybe"), "turn 1 must be assistant's sign"),
    (change("visual-prm-turns", 0, "conversations", 1, "value", to="a"), "first turn must hold a question and a step"),
    (change("visual-prm", 0, "image", to=3), "'image' must be a path or a list of paths, got 3"),
    (change("visual-process-bench", 0, "response", "process_correctness", to=[0, 1, 2]), "entry 2 must be 1, 0 or -1"),
    (change("unprm", 0, "label", to=[True]), "'label' has 1 entries for 2 steps"),
    (change("actprm", 0, "hard_labels", to=[1, 0, -99]), "'hard_labels' entry 2 must be in"),
    (change("masprm", 0, "labels", to=[-3, 1]), r"after mapping \[-1, 1\] to \[0, 1\]"),
    (change("fover", 0, "error_labels", to=[True, False, "no"]), "'error_labels' entry 2 must be in"),
    (change("prm-bench", 0, "error_steps", to=["2"]), "'error_steps' must hold step numbers from 1, got '2'"),
    (change("mr-gsm8k", 0, "model_output_solution_first_error_step", to=0), "must be a step from 1 to 3, got 0"),
    (change("mr-gsm8k", 0, "model_output_solution_correctness", to="maybe"), "must be one of correct, wrong, inc"),
    (change("mr-ben", 0, "Model_Solution_First_Error_Step", to="9"), "must be a step from 1 to 2, got '9'"),
    (change("mr-ben", 1, "Model_Solution_First_Error_Step", to="import os"), "no line of the program: 'import os'"),
    (change("bigbench-mistake", 0, "mistake_index", to=3), "'mistake_index' must be null or a step below 3, got 3"),
    (change("bigbench-mistake", 0, "mistake_index", to=-1), "must be null or a step below 3, got -1"),
    (change("hard2verify", 0, "model_response_by_step", to="gAAAA"), "the row is encrypted; decrypt it"),
    (change("genprm", 0, "conversations", 3, "role", to="assistant"), "every paragraph needs a verification"),
    (change("genprm-rollouts", 0, "monte_carlo_scores", to=[[1, 1]]), "2 solutions have 1 lists of scores"),
    (change("implicit-prm", 0, "label", to="yes"), "'label' must be right or wrong, got 'yes'"),
    (change("implicit-prm-rollouts", 0, "correctness", to=[True]), "2 responses have 1 entries of 'correctness'"),
    (change("tdrm", 0, "conversations", "state3", to="else"), "later state must begin with 'state1', got 'else'"),
    (change("agent-prm", 0, "qestimate", to=1.5), r"'qestimate' entry 0 must be in \[0, 1\], got 1.5"),
    (change("agent-process-bench", 0, "step_labels", to={"3": 1}), "'3', which is no message of the assistant"),
    (change("agent-process-bench", 0, "step_labels", to={"x": 1}), "'x', which is no message of the assistant"),
    (change("who-and-when", 0, "mistake_step", to="9"), "'mistake_step' must be a turn below 4, got '9'"),
    (change("rewardmath", 0, "solution_type", to="best"), "must be chosen or rejected, got 'best'"),
    (change("rewardmath-scores", 0, "scores", "judge", to=[1]), r"judge must have 3 scores, got \[1\]"),
    (change("rewardmath-pairs", 0, "chosen_position", to="C"), "'chosen_position' must be A or B, got 'C'"),
    (change("qwen-rm-maj", 0, "pred_score", to=[[1.0]]), "'code', 'pred', 'score' and 'pred_score' differ in length"),
    (change("tot", 0, "steps", 1, "values", to=[]), "level 1 has 1 thoughts and 0 values"),
    (change("toolbench", 0, "tree", "tree", "children", to=[3]), "'children' must be a list of nodes"),
    (change("code-samples", 0, "samples", 0, to=3), "sample 0 must be text, got 3"),
    (change("reflexion-code", 0, "solution", to=" "), "no program is in 'implementations' or 'solution'"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "message"), BAD, ids=lambda v: v[0] if isinstance(v, tuple) else None)
def test_bad_rows_are_explained(case: tuple[str, dict[str, Any]], message: str) -> None:
    name, row = case
    with pytest.raises(InputError, match=message):
        list(by_name(name).read(row, 1))


REAL = [
    ("auto_label_formats/samples_math-aps-tree.jsonl.gz", "omega-prm-tree", 242, 0),
    ("auto_label_formats/samples_math-aps.jsonl.gz", "omega-prm-prefixes", 124, 0),
    ("auto_label_formats/samples_prm800k.jsonl", "prm800k", 37, 0),
    ("bigbench_mistake/dyck_languages.jsonl.gz", "bigbench-mistake", 986, 0),
    ("bigbench_mistake/word_sorting.jsonl.gz", "bigbench-mistake", 300, 0),
    ("mr_ben/math.jsonl.gz", "mr-ben", 918, 0),
    ("mr_ben/medicine.jsonl.gz", "mr-ben", 827, 1),  # row 783 marks step 5 of 4
    ("mr_ben/coding.jsonl.gz", "mr-ben", 238, 0),
    ("mr_gsm8k/mr_gsm8k_wrong_subset.jsonl.gz", "mr-gsm8k", 590, 0),
    ("prmbench/prmbench.jsonl.gz", "prm-bench", 6216, 0),
    ("prmbench/subset400.jsonl", "prm-bench", 394, 0),
    ("qwen_rm_maj/math_cot_100.jsonl.gz", "qwen-rm-maj", 800, 0),
    ("rewardmath/rewardmath_scores.jsonl.gz", "rewardmath-scores", 483, 0),
    ("rewardmath/rewardbench_mathprm_ArmoRM.json.gz", "rewardmath-scores", 447, 0),
    ("rewardmath/rewardbench_mathprm_Math_Shepherd.json.gz", "rewardmath", 894, 0),
    ("rewardmath/samples_direct.json", "rewardmath", 20, 0),
    ("rewardmath/samples_pairwise.json", "rewardmath-pairs", 18, 0),
    ("toolbench_trees/chatgpt_dfs_trees.jsonl.gz", "toolbench", 156, 0),
    ("humaneval_samples/humaneval_codegen16b_100.jsonl.gz", "code-samples", 16400, 0),
    ("reflexion/mbpp_reflexion_gpt4.jsonl.gz", "reflexion-code", 257, 0),
    ("tot/game24_gpt-4_0.7_propose1_value3_greedy5_start900_end1000.jsonl.gz", "tot", 500, 0),
    ("who_when/who_when.jsonl.gz", "who-and-when", 184, 0),
]


@pytest.mark.sampled(4)
@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="needs the real data")
@pytest.mark.parametrize(("name", "form", "count", "bad"), REAL)
def test_real_files_are_recognised_and_read_whole(name: str, form: str, count: int, bad: int) -> None:
    found = formats.detect(DATA / name)
    assert found.name == form
    reading: Any = (formats.read if found.kind == "solutions" else formats.read_comparisons)(DATA / name)
    assert sum(1 for _ in reading) == count
    assert len(reading.bad) == bad


@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="needs the real data")
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("bigbench_mistake/word_sorting.jsonl.gz", "bigbench-mistake"),
        ("mr_gsm8k/mr_gsm8k_wrong_subset.jsonl.gz", "mr-gsm8k"),
        ("prmbench/subset400.jsonl", "prm-bench"),
        ("who_when/who_when.jsonl.gz", "who-and-when"),
    ],
)
def test_real_rows_round_trip(name: str, form: str, tmp_path: Path) -> None:
    before = list(formats.read(DATA / name, strict=True))
    assert formats.write(tmp_path / "again.jsonl", before, form) == []
    after = list(formats.read(tmp_path / "again.jsonl", form, strict=True))
    for x, y in zip(before, after, strict=True):
        assert texts(x) == texts(y)
        assert x.first_error == y.first_error
        assert x.problem.text == y.problem.text
        np.testing.assert_array_equal(x.labels, y.labels)


@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="needs the real data")
@pytest.mark.parametrize("form", ["openrlhf", "er-prm", "openr", "rlhflow", "unprm", "actprm", "masprm", "fover"])
def test_real_labels_survive_every_training_format(form: str, tmp_path: Path) -> None:
    before = list(formats.read(DATA / "auto_label_formats/samples_math-shepherd.jsonl", strict=True))
    assert formats.write(tmp_path / "there.jsonl", before, form) == []
    after = list(formats.read(tmp_path / "there.jsonl", form, strict=True))
    for x, y in zip(before, after, strict=True):
        assert [text.strip() for text in texts(x)] == [text.strip() for text in texts(y)]
        assert x.problem.text == y.problem.text
        np.testing.assert_array_equal(x.labels, y.labels)
