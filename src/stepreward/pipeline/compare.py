"""Searches compared on the same problems: accuracy against cost at several budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.catalog import search as searches
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.files.atomic_files import write_json
from stepreward.core.files.row_files import write_rows
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate
from stepreward.core.method import Method
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Grader, Policy, Scorer
from stepreward.core.table import row_of
from stepreward.core.types import Problem, Provenance, Trajectory
from stepreward.core.vocabulary import ASKS
from stepreward.evaluate.measures.attempts import pass_at_k
from stepreward.evaluate.measures.costs import CostCurves, Spending, accuracy_against_cost
from stepreward.pipeline.run_report import percent, points
from stepreward.report.cost_table import cost_plot
from stepreward.report.page import MISSING, Page, Section, Table, write
from stepreward.report.svg import Series
from stepreward.search.graded_candidates import with_outcome, with_outcomes

REFERENCE = "weighted-vote"
"""The search that every other is compared with, at equal generated tokens."""
SCHEMA = "stepreward/compare/1"
OnProgress = Callable[[str, int, int, str], None]
_THERE = frozenset({"policy", "grader", "scorer"})
"""What every comparison has."""


def comparable() -> dict[str, Method[..., Any]]:
    """Searches that can be compared with a policy, a reward model and a grader, by name."""
    return {method.name: method for method in searches if not _why_not(method)}


def left_out() -> dict[str, str]:
    """Searches that are not compared, and why."""
    return {method.name: why for method in searches if (why := _why_not(method))}


def _why_not(method: Method[..., Any]) -> str:
    """Why a search is not compared; "" where it is."""
    if lacking := [name for name in method.asks if name not in _THERE]:
        return f"needs {' and '.join(ASKS[name] for name in lacking)}"
    if method.budget is None:
        return "declares no budget"
    # A method whose settings equal those of a preset is run once, under the name of the preset.
    presets = [m.name for m in searches if m.function is method.function and m.fixed and m.settings == method.settings]
    return f"{presets[0]} is it" if presets and not method.fixed else ""


def compare(
    problems: Sequence[Problem],
    out: Path,
    *,
    policy: Policy,
    scorer: Scorer,
    grader: Grader,
    methods: Sequence[str] = (),
    budgets: Sequence[int] = (4, 8, 16),
    aggregate: str = "",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Runs every search at every budget on the same problems; writes the comparison, a page and all chosen solutions.

    Questions that searches share are answered once, and so are those of an interrupted run; each search is charged for
    all its questions.

    Args:
        problems: with references.
        out: folder.
        policy, scorer, grader: of all searches.
        methods: names of `comparable`; all of them where empty. The reference is always among them.
        budgets: each in the unit of each search: solutions, samples of a step, or walks.
        aggregate: total of step scores, of every search that has one; each search's own where empty.
        settings: of searches by name, beside or in place of those that the budget decides.
        seed: of all samples.
        on_progress: called as work is done.

    Raises:
        InputError: there is no problem, or one has no reference and no tests.
        UnknownNameError: a search that is not comparable.
    """
    bare = [problem.id for problem in problems if not problem.gradable]
    if not problems or bare:
        raise InputError(
            f"problem {bare[0]!r} has no reference" if bare else "there is no problem", remedy="give all a reference"
        )
    known = comparable()
    for name in methods:
        if name not in known:
            raise UnknownNameError("search to compare", name, known)
    chosen = list(dict.fromkeys([REFERENCE, *(methods or known)]))
    out.mkdir(parents=True, exist_ok=True)
    key = Key.seed(seed).fold("search")

    def driver(log: AnswerLog) -> Driver:
        return Driver(policy=policy, scorer=scorer, grader=grader, log=log)

    spendings: list[Spending] = []
    scored: list[float] = []
    rows: list[Trajectory] = []
    total, done = len(chosen) * len(budgets), 0
    with AnswerLog(out / "answers.sqlite") as log:
        for name in chosen:
            for budget in budgets:
                if on_progress is not None:
                    on_progress("compare", done, total, f"{name}, {budget}")
                how = {"aggregate": aggregate} if aggregate and "aggregate" in searches[name].settings else {}
                how |= (settings or {}).get(name, {})
                how = {**searches[name].within(budget, how), **how}
                by = Provenance(name, policy.name, seed=seed, settings=how, what=())
                one, tokens, made = _spent(by, budget, problems, key, driver(log))
                rows += made
                spendings.append(one)
                scored.append(tokens)
                done += 1
        oracle = _oracle(problems, key, max(budgets), driver(log))
    spendings, ungraded = _graded(spendings)
    curves = accuracy_against_cost(spendings, key.fold("costs"), reference=REFERENCE)
    summary = _summary(curves, spendings, scored, oracle, len(problems), policy.name, scorer.name, seed)
    given = {name: dict(own) for name, own in (settings or {}).items() if own}
    summary |= {"ungraded": ungraded, "aggregate": aggregate, "settings": given}
    write_rows(out / "solutions.jsonl", [row_of(row) for row in rows])
    write_json(out / "compare.json", summary)
    write(build_page(curves, summary), out / "compare.html")
    return summary


def _spent(
    by: Provenance, budget: int, problems: Sequence[Problem], key: Key, driver: Driver
) -> tuple[Spending, float, list[Trajectory]]:
    """Results, NaN where not graded, and generated tokens of each problem, scored tokens a problem, and solutions."""
    name, how = by.estimator, by.settings
    flows = (with_outcome(searches[name].take({"problem": p, "key": key.fold(p.id)}, **how), p) for p in problems)
    correct, cost = np.zeros(len(problems)), np.zeros(len(problems))
    rows: dict[int, Trajectory] = {}
    for one in driver.run(flows):
        found, grade = one.result
        if found.trajectory is not None and found.trajectory.steps:
            # The chosen solution, with step scores where the search computed them.
            facts = {**found.trajectory.facts, "search": by.estimator, "budget": budget}
            rows[one.index] = replace(found.trajectory, outcome=grade, facts=facts, provenance=(by,))
        correct[one.index] = grade if np.isnan(grade) else grade > 0.5
        cost[one.index] = one.bill.generated_tokens + one.bill.cached_generated_tokens
    bill = driver.bill
    tokens = (bill.scored_tokens + bill.cached_scored_tokens) / len(problems)
    return Spending(name, budget, correct, cost), tokens, [rows[at] for at in sorted(rows)]


def _graded(spendings: Sequence[Spending]) -> tuple[list[Spending], int]:
    """Spendings on the problems that all runs graded, so that they stay paired, and how many others there are.

    Raises:
        InputError: each problem has an answer that could not be graded.
    """
    known = ~np.isnan([one.correct for one in spendings]).any(axis=0)
    if not known.any():
        raise InputError("every problem has an answer that could not be graded", remedy="check the references")
    kept = [replace(one, correct=one.correct[known], cost=one.cost[known]) for one in spendings]
    return kept, int((~known).sum())


def _oracle(problems: Sequence[Problem], key: Key, n: int, driver: Driver) -> list[tuple[int, float, float]]:
    """(k, tokens, pass@k) of a perfect choice among k samples, for powers of two.

    A sample that could not be graded counts as not drawn; problems with fewer than k graded samples are left out.
    """
    majority = searches["majority"]
    flows = (with_outcomes(majority.take({"problem": p, "key": key.fold(p.id)}, n=n), p) for p in problems)
    right, drawn, tokens = np.zeros(len(problems)), np.zeros(len(problems)), 0.0
    for one in driver.run(flows):
        _, grades = one.result
        right[one.index] = sum(grade > 0.5 for grade in grades)
        drawn[one.index] = n - np.isnan(grades).sum()
        tokens += one.bill.generated_tokens + one.bill.cached_generated_tokens
    # pass@k is an expectation over subsets, so its cost is k times the mean of a sample.
    each = tokens / len(problems) / n
    sizes = [2**i for i in range(n.bit_length()) if 2**i <= n]
    enough = {k: drawn >= k for k in sizes}
    return [(k, k * each, float(pass_at_k(right[e], drawn[e], k).mean())) for k, e in enough.items() if e.any()]


def _summary(
    curves: CostCurves, spendings: Sequence[Spending], scored: Sequence[float], oracle: list[tuple[int, float, float]],
    problems: int, policy: str, scorer: str, seed: int,
) -> dict[str, Any]:  # fmt: skip
    tokens = {(one.algorithm, one.budget): value for one, value in zip(spendings, scored, strict=True)}
    made = curves.to_json()
    for point in made["points"]:
        point["scored_tokens"] = tokens[point["algorithm"], point["budget"]]
    return {
        "schema": SCHEMA, "policy": policy, "scorer": scorer, "seed": seed, "problems": problems, **made,
        "oracle": [{"k": k, "tokens": cost, "pass_at_k": value} for k, cost, value in oracle],
    }  # fmt: skip


def verdict(gain: Mapping[str, Any] | Estimate | None) -> str:
    """Whether a gain over the reference is significant: its interval does not contain 0."""
    if gain is None:
        return ""
    low, high = (gain.low, gain.high) if isinstance(gain, Estimate) else (gain["low"], gain["high"])
    if low is None or high is None or low != low:
        return "cheaper than any run of the reference"
    return "beats" if low > 0 else "loses to" if high < 0 else "no difference seen"


def build_page(curves: CostCurves, summary: Mapping[str, Any]) -> Page:
    """The report: a plot of all points, and a table with a row for each."""
    oracle = summary["oracle"]
    bound = Series("pass@k", [row["tokens"] for row in oracle], [row["pass_at_k"] for row in oracle])
    plot = cost_plot(curves, cost_label="generated tokens a problem", oracle=bound)
    rows = [
        (
            point["algorithm"],
            f"{point['budget']:g}",
            f"{point['cost']['value']:,.0f}",
            f"{point['scored_tokens']:,.0f}",
            percent(point["accuracy"]),
            MISSING if point["gain"] is None or point["gain"]["value"] is None else points(point["gain"]),
            verdict(point["gain"]) or MISSING,
            "yes" if point["on_front"] else "",
        )
        for point in summary["points"]
    ]
    heads = ("search", "budget", "generated", "scored", "accuracy", f"points over {REFERENCE}", "verdict", "front")
    ungraded = summary["ungraded"]
    note = (
        f"{summary['problems']} problems, seed {summary['seed']}; "
        f"{f'{ungraded} with an answer that could not be graded left out; ' if ungraded else ''}tokens a problem. "
        f"Points over {REFERENCE} are at "
        "equal generated tokens, on the line between its runs; 95 % paired bootstrap intervals over problems, not "
        "corrected for the number of searches. Scored tokens: each shared prefix once, answers of the log included. "
        f"Not compared: {'; '.join(f'{name} ({why})' for name, why in left_out().items())}."
    )
    best = max(summary["points"], key=lambda point: point["accuracy"]["value"])
    return Page(
        "Searches compared",
        f"{summary['policy']} with {summary['scorer']}",
        [
            (percent(best["accuracy"]).split(" [")[0], f"best: {best['algorithm']}", f"budget {best['budget']:g}"),
            *((f"{100 * one['pass_at_k']:.1f} %", f"perfect choice of {one['k']}", "pass@k") for one in oracle[-1:]),
        ],
        [Section("Accuracy against cost", note, [plot], [Table(heads, rows, "")])],
    )
