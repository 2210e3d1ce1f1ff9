"""Logic: formulas, what follows (by models, by Z3, by plain enumeration), problems, their proofs, and the commands."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cli.running import invoke

from stepreward.core.catalog import generate
from stepreward.core.errors import InputError, ModelError
from stepreward.core.keys import Key
from stepreward.core.step_check import StepCheck
from stepreward.core.table import read_table, write_table
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.problems import read_problems
from stepreward.tasks.logic import consequence, proofs
from stepreward.tasks.logic.consequence import by_models, by_z3, follows_from, number_of_models
from stepreward.tasks.logic.formulas import DEEPEST, NoFormula, atoms, negated, read_formula, written
from stepreward.tasks.logic.logic_problems import logic_problems, status
from stepreward.tasks.logic.proofs import LogicGrader, check_proof

needs_z3 = pytest.mark.skipif(importlib.util.find_spec("z3") is None, reason="needs z3-solver")

LETTERS = st.sampled_from([("atom", name) for name in "PQR"])
ABOUT = st.sampled_from([("atom", name, thing) for name in "FG" for thing in ("a", "b", "x")])


def trees(leaves: Any, quantified: bool = False) -> Any:
    """Formulas over some atoms; those with the variable x stand below a quantifier."""

    def grow(inner: Any) -> Any:
        parts = [st.tuples(st.sampled_from(["->", "|", "&"]), inner, inner), st.tuples(st.just("~"), inner)]
        if quantified:
            parts.append(st.tuples(st.sampled_from(["all", "some"]), st.just("x"), inner))
        return st.one_of(parts)

    return st.recursive(leaves, grow, max_leaves=6)


PROPOSITIONS = trees(LETTERS)
SENTENCES = trees(st.one_of(LETTERS, ABOUT), quantified=True)


def holds(formula: Any, letters: dict[str, bool], domain: list[Any], things: dict[str, Any]) -> bool:
    """Whether a formula holds, element by element: a domain is a list of sets of predicates."""
    kind, *parts = formula
    if kind == "atom":
        return letters[parts[0]] if len(parts) == 1 else parts[0] in domain[things[parts[1]]]
    if kind == "~":
        return not holds(parts[0], letters, domain, things)
    if kind in ("all", "some"):
        each = (holds(parts[1], letters, domain, {**things, parts[0]: at}) for at in range(len(domain)))
        return all(each) if kind == "all" else any(each)
    left = holds(parts[0], letters, domain, things)
    if kind == "->":
        return not left or holds(parts[1], letters, domain, things)
    return (
        left and holds(parts[1], letters, domain, things)
        if kind == "&"
        else left or holds(parts[1], letters, domain, things)
    )


KINDS = [frozenset(some) for some in ("", "F", "G", "FG")]


def slowly(premises: list[Any], conclusion: Any) -> str:
    """As `follows_from`, over every domain of up to four things out of two predicates, each letter, each naming."""
    used = [one for formula in (*premises, conclusion) for one in atoms(formula)]
    names = sorted({argument for _, argument, bound in used if argument and not bound})
    letters = sorted({name for name, argument, _ in used if not argument})
    possible = found = False
    domains = [[kind for kind, there in zip(KINDS, mask, strict=True) if there] for mask in product((0, 1), repeat=4)]
    for domain in domains[1:] if any(argument for _, argument, _ in used) else [[frozenset[str]()]]:
        for place in product(range(len(domain)), repeat=len(names)):
            for values in product((False, True), repeat=len(letters)):
                world = dict(zip(letters, values, strict=True)), domain, dict(zip(names, place, strict=True))
                if all(holds(one, *world) for one in premises):
                    possible = True
                    found = found or not holds(conclusion, *world)
    return "vacuous" if not possible else "no" if found else "yes"


def f(*texts: str) -> list[Any]:
    return [read_formula(text) for text in texts]


ORACLES = [
    (["P", "P -> Q"], "Q", "yes"), (["P -> Q"], "Q", "no"), (["P", "~P"], "R", "vacuous"),
    (["all x (P(x) -> Q(x))", "P(a)"], "Q(a)", "yes"), (["some x (P(x))"], "P(a)", "no"),
    (["all x (P(x))"], "some y (P(y))", "yes"), ([], "P | ~P", "yes"), ([], "P", "no"),
    (["P -> Q", "~Q"], "~P", "yes"), (["P -> Q", "Q"], "P", "no"), (["P | Q", "~P"], "Q", "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("premises", "conclusion", "answer"), ORACLES)
def test_what_follows(premises: list[str], conclusion: str, answer: str) -> None:
    assert follows_from(f(*premises), *f(conclusion)) == answer


@needs_z3
@pytest.mark.parametrize(("premises", "conclusion", "answer"), ORACLES)
def test_z3_says_what_follows(premises: list[str], conclusion: str, answer: str) -> None:
    assert by_z3(f(*premises), *f(conclusion)) == answer


@settings(deadline=None)
@given(st.lists(SENTENCES, max_size=2), SENTENCES)
def test_models_agree_with_going_through_every_world(premises: list[Any], conclusion: Any) -> None:
    assert by_models(premises, conclusion) == slowly(premises, conclusion)


@needs_z3
@settings(deadline=None, max_examples=60)
@given(st.lists(PROPOSITIONS, max_size=3), PROPOSITIONS)
def test_z3_agrees_with_the_truth_table(premises: list[Any], conclusion: Any) -> None:
    assert by_z3(premises, conclusion) == by_models(premises, conclusion)


@needs_z3
@settings(deadline=None, max_examples=60)
@given(st.lists(SENTENCES, max_size=2), SENTENCES)
def test_z3_agrees_with_the_models(premises: list[Any], conclusion: Any) -> None:
    answer = by_z3(premises, conclusion)
    assert answer in (by_models(premises, conclusion), "unknown")


def test_many_symbols_go_to_z3(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = f(*(f"A{at} -> A{at + 1}" for at in range(20)), "A0")
    assert number_of_models(chain) == 1 << 21
    asked = []

    def by(premises: Any, conclusion: Any) -> str:
        asked.append(len(premises))
        return "yes"

    monkeypatch.setattr(consequence, "by_z3", by)
    assert follows_from(chain, *f("A20")) == "yes"
    assert asked == [21]
    assert number_of_models(f(*(f"P{at}(a)" for at in range(5)))) > consequence.MOST_MODELS


@needs_z3
def test_z3_ends_at_its_limits_and_says_unknown_when_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # The pigeonhole principle for 13 into 12: hard for every solver of this kind.
    holes, birds = range(12), range(13)
    each = [read_formula(" | ".join(f"P{b}h{h}" for h in holes)) for b in birds]
    apart = [read_formula(f"~(P{b}h{h} & P{c}h{h})") for h in holes for b in birds for c in birds if b < c]
    monkeypatch.setattr(consequence, "SECONDS", 1.0)
    assert by_z3([*each, *apart], ("atom", "Q")) in ("unknown", "limit")


def test_without_z3_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "z3" else real(name, *more))
    with pytest.raises(ModelError, match=r"stepreward\[logic\]"):
        by_z3([], ("atom", "Q"))


@given(SENTENCES)
def test_a_formula_is_read_back(formula: Any) -> None:
    assert read_formula(written(formula)) == formula


def test_signs_of_textbooks_and_strength() -> None:
    assert f("¬P ∧ Q → ∀x (F(x) \u2228 ∃y(G(y)))") == f("((~P) & Q) -> all x (F(x) | some y (G(y)))")
    assert read_formula("A -> B -> C") == ("->", ("atom", "A"), ("->", ("atom", "B"), ("atom", "C")))
    assert written(read_formula("(A -> B) -> C & (D | E)")) == "(A -> B) -> C & (D | E)"
    assert (negated(("~", ("atom", "P"))), negated(("atom", "P"))) == (("atom", "P"), ("~", ("atom", "P")))


@pytest.mark.parametrize(
    "text", ["", "P Q", "P ->", "(P", "P)", "all x P(x)", "all all (P)", "P(a, b)", "P(Q(a))", "1", "__import__('os')",
             "~" * 100 + "P", "(" * 100 + "P" + ")" * 100, "P & " * 3000 + "P", "P -> " * (DEEPEST + 2) + "P"],
)  # fmt: skip
def test_other_text_is_no_formula(text: str) -> None:
    with pytest.raises(NoFormula):
        read_formula(text)


@given(st.text(alphabet="PQax()~&|-> all some1", max_size=40))
def test_any_text_is_a_formula_or_none(text: str) -> None:
    try:
        made = read_formula(text)
    except NoFormula:
        return
    assert read_formula(written(made)) == made


GIVEN = {"fact1": "P", "fact2": "P -> Q", "fact3": "Q -> R", "fact4": "~S", "fact5": "S"}
PROBLEM = Problem("p", "?", "PROVED", {"facts": GIVEN, "hypothesis": "R"})


def verdicts(*lines: str, problem: Problem = PROBLEM) -> list[tuple[bool | None, str]]:
    return [(one.right, one.kind) for one in check_proof(problem, [Step(f"{line}\n") for line in lines])]


def test_lines_of_a_proof() -> None:
    assert verdicts("fact1 & fact2 -> int1: Q;", "int1 & fact3 -> hypothesis", "The final answer is PROVED.") == [
        (True, ""), (True, ""), (True, ""),
    ]  # fmt: skip
    # A step must follow from what it names, and from nothing else.
    assert verdicts("fact2 -> int1: Q", "int1 & fact3 -> hypothesis") == [(False, "entailment"), (True, "")]
    # An intermediate conclusion may not be used before it is derived, in its own line either.
    assert verdicts("int1 & fact3 -> hypothesis", "int1 -> int1: Q", "fact1 & fact2 -> int1: Q", "int1 -> int2: Q") == [
        (False, "premise"), (False, "premise"), (True, ""), (True, ""),
    ]  # fmt: skip
    # A contradiction proves everything, which says nothing.
    assert verdicts("fact4 & fact5 -> int1: R") == [(None, "vacuous")]
    assert verdicts("Let us see.", "fact1 -> int1: P &", "int1 -> int2: P", "fact1 -> int1") == [
        (None, "form"), (None, "form"), (None, "form"), (None, "form"),
    ]  # fmt: skip
    # A valid line that leads nowhere is right; so is a conclusion with more names than there are digits.
    assert verdicts("fact1 -> int12: P | S") == [(True, "")]
    assert verdicts("The final answer is DISPROVED", "final answer is: **UNKNOWN**") == [(False, "answer")] * 2
    assert check_proof(PROBLEM, [Step("fact1 -> int1: Q", kind="observation")]) == [StepCheck(None)]
    assert verdicts("The final answer is PROVED", problem=Problem("p", "?", None, PROBLEM.meta)) == [(None, "")]


def test_what_the_solver_does_not_know_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in ("unknown", "limit"):
        monkeypatch.setattr(proofs, "follows_from", lambda premises, conclusion, said=answer: said)
        assert verdicts("fact1 -> int1: P") == [(None, answer)]


def test_other_problems_are_refused() -> None:
    with pytest.raises(InputError, match="no `facts` by name"):
        check_proof(Problem("p", "?"), [])
    with pytest.raises(InputError, match="no formula"):
        check_proof(Problem("p", "?", None, {"facts": {"fact1": "P &"}, "hypothesis": "P"}), [])


def test_the_grader_reads_the_last_answer() -> None:
    grader = LogicGrader()
    assert grader.grade(PROBLEM, [Step("The final answer is UNKNOWN, no: the final answer is proved")]) == 1.0
    assert grader.grade(PROBLEM, [Step("The final answer is PROVED"), Step("Or not.")]) == 0.0
    assert grader.answer(PROBLEM, []) is None
    assert np.isnan(grader.grade(Problem("p", "?", "7"), [Step("The final answer is PROVED")]))


@pytest.mark.parametrize("depth", [1, pytest.param(2, marks=needs_z3), pytest.param(3, marks=needs_z3)])
def test_generated_problems_have_the_answer_that_they_state(depth: int) -> None:
    made = list(islice(logic_problems(Key.seed(depth), depth=depth, distractors=1), 25))
    assert len({one.id for one in made}) == 25
    for one in made:
        facts, hypothesis = proofs.statements(one)
        assert status(list(facts.values()), hypothesis) == one.reference
        lines = one.meta["proof"]
        assert all(one.right for one in check_proof(one, [Step(line) for line in lines]))
        assert LogicGrader().grade(one, [Step(lines[-1])]) == 1.0
        used = {name for line in lines[:-1] for name in line.split(" -> ")[0].split(" & ")}
        if one.reference != "UNKNOWN":
            # What the proof uses is needed, and it alone is enough.
            needed = [facts[name] for name in facts if name in used]
            assert len(needed) == len(facts) - 1
            assert status(needed, hypothesis) == one.reference
            assert all(status([o for o in needed if o is not leaf], hypothesis) == "UNKNOWN" for leaf in needed)
            assert (lines[-2].endswith("-> hypothesis")) == (one.reference == "PROVED")
    assert set(Counter(one.reference for one in made)) == {"PROVED", "DISPROVED", "UNKNOWN"}


@needs_z3
def test_a_changed_line_of_a_gold_proof_is_seen() -> None:
    """Negating what a line derives makes it wrong: its premises follow from facts that do not contradict each other."""
    seen = 0
    for one in islice(logic_problems(Key.seed(9), depth=2, unknown=0.0), 20):
        line = one.meta["proof"][0]
        premises, _, conclusion = line.partition(" -> int1: ")
        if conclusion:
            (made,) = check_proof(one, [Step(f"{premises} -> int1: {written(negated(read_formula(conclusion)))}")])
            assert (made.right, made.kind) == (False, "entailment")
            seen += 1
    assert seen > 5


@needs_z3
def test_problems_follow_from_their_key_and_settings_are_checked() -> None:
    first, again = (list(islice(logic_problems(Key.seed(1)), 5)) for _ in range(2))
    assert first == again
    assert [one.meta for one in first] == [one.meta for one in again]
    assert {one.reference for one in islice(logic_problems(Key.seed(1), unknown=1.0), 5)} == {"UNKNOWN"}
    with pytest.raises(ValueError, match=r"share in \[0, 1\], got 2"):
        next(generate["logic"].take({"key": Key.seed(0)}, unknown=2.0))


@needs_z3
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("generate logic --n 4 --seed 2 --out logic.jsonl").startswith("logic.jsonl: 4 problems of logic")
    solutions = []
    for problem in read_problems("logic.jsonl"):
        lines = [*problem.meta["proof"][:-1], "fact1 -> int99: Z9"]
        solutions.append(Trajectory(problem, tuple(Step(f"{line}\n") for line in lines)))
    write_table("solutions.jsonl", solutions)
    told = json.loads(invoke("generate arithmetic --n 3 --out words.parquet --json"))
    assert told == {"out": "words.parquet", "generator": "arithmetic", "problems": 3}
    invoke("label --data solutions.jsonl --estimator checker --set checker=logic --out labels --json")
    for made in read_table(Path("labels") / "labels.parquet"):
        assert made.labels.tolist() == [1.0] * (len(made) - 1) + [0.0]
        assert made.facts["step_errors"][0]["kind"] == "entailment"
