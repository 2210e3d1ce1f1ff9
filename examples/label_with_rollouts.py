"""What is each step of a solution worth? Rollouts answer it, and the built-in world knows how well.

A small language model writes solutions of word problems. From prefixes of a wrong one it is asked to go on, eight
times each; the share that still arrives is the value of the prefix. Bisection needs few such questions.
"""

from __future__ import annotations

from stepreward import Key
from stepreward.core.runtime.driver import Driver
from stepreward.label.estimators import first_error_bisection
from stepreward.label.samples import graded_samples
from stepreward.label.transforms import hard
from stepreward.policies.local import LocalPolicy
from stepreward.tasks.arithmetic import Difficulty, generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader, truth

key = Key.seed(0)
problems = list(generate("held_out", 8, difficulty=Difficulty(operations=(5, 5))))
driver = Driver(policy=LocalPolicy.load("builtin:arithmetic"), grader=ArithmeticGrader())

samples = [t for finished in driver.run(graded_samples(p, key, n=4) for p in problems) for t in finished.result]
# A solution that begins well and ends badly.
wrong = next(t for t in samples if t.outcome == 0 and truth(t.problem, t.steps)[:2].all())
problem = wrong.problem
(labelled,) = driver.run([first_error_bisection(wrong, key, n=8)])
labels = hard(labelled.result)

print(problem.text)
for i, step in enumerate(wrong.steps):
    n, correct = labels.column("n_rollouts")[i], labels.column("n_correct")[i]
    measured = f"{correct:.0f} of {n:.0f}" if n else "not asked"
    label, right = labels.labels[i], truth(problem, wrong.steps)[i]
    print(f"{step.text.strip():20} {measured:10}  label {label:.0f}  truth {right:.0f}")
print(f"{labelled.bill.proposals} rollouts, {labelled.bill.generated_tokens} tokens")
