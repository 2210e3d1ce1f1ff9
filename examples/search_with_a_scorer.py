"""Spends compute where it helps: majority, weighted vote and beam search with one policy, one scorer and exact bills.

The scorer is a tool that computes the equations of each step again. It needs no training, and it is blind to a right
equation about the wrong numbers: compare what each way of using it gains, and what it costs.
"""

from __future__ import annotations

from stepreward import Key
from stepreward.core.runtime.driver import Driver
from stepreward.policies.local import LocalPolicy
from stepreward.score.tools.equations import ToolScorer
from stepreward.search.beams.beam import beam_search
from stepreward.search.samples.independent import majority_vote, weighted_vote
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

key = Key.seed(0)
policy, scorer, grader = LocalPolicy.load("builtin:arithmetic"), ToolScorer(), ArithmeticGrader()
problems = list(generate("held_out", 20))
searches = {
    "majority of 8": [majority_vote(problem, key, n=8) for problem in problems],
    "weighted vote of 8": [weighted_vote(problem, key, n=8) for problem in problems],
    "beam search 4 x 2": [beam_search(problem, key, beams=4, width=2) for problem in problems],
}
for name, flows in searches.items():
    driver = Driver(policy=policy, scorer=scorer, grader=grader)
    solved = 0
    for finished in driver.run(flows):
        found = finished.result.trajectory
        solved += found is not None and grader.grade(problems[finished.index], found.steps) == 1
    spent = f"{driver.bill.generated_tokens} tokens, {driver.bill.scored_steps} steps scored"
    print(f"{name:20} solved {solved} of {len(problems)}: {spent}")
