"""The section of docs/results/real-data.md on training, out of the recorded results of `benchmarks.real_training`."""

from __future__ import annotations

from benchmarks.real_data_page import Row, decimal, number, points, table


def _trained(results: Row) -> str:
    rows = [
        [
            name, f"{one['weights']:,}", str(one["vocabulary"]), f"{one['tokens of a pass']:,}",
            f"{one['passes']:.2f}", str(one["steps"]), f"{one['seconds']:.0f}",
        ]
        for name, one in results["trained"].items()
    ]  # fmt: skip
    head = ["student", "weights", "vocabulary", "tokens of a pass", "passes", "steps", "seconds"]
    return table(head, rows)


def _agreement(results: Row) -> str:
    names = {
        "pearson": "Pearson",
        "spearman": "Spearman",
        "auroc": "AUROC",
        "spearman within problems": "Spearman within problems",
    }
    rows = [[name, *(decimal(made[k]) for k in names)] for name, made in results["agreement"].items()]
    return table(["scores of", *names.values()], rows)


def _selection(results: Row) -> str:
    made = results["selection"]
    alone = [
        [name, number(made[name]["accuracy"]), "" if name == "majority" else points(made[name]["minus majority"])]
        for name in ("a sample at random", "majority", "oracle")
    ]
    rows = []
    for name in (name.partition(":")[2] for name in made if name.startswith("best-of-n:")):
        scorer, _, how = name.rpartition(": ")
        best, vote = made[f"best-of-n:{name}"], made[f"weighted-vote:{name}"]
        cells = [part for one in (best, vote) for part in (number(one["accuracy"]), points(one["minus majority"]))]
        rows.append([scorer, how, *cells])
    head = ["scores of", "aggregation", "best-of-32", "minus majority", "weighted vote", "minus majority"]
    return table(["without scores", "accuracy", "minus majority"], alone) + "\n" + table(head, rows)


def _process_bench(results: Row) -> str:
    rows = [
        [
            name, str(one["f1"]["n"]), f"{one['threshold']:.3f}",
            *(number(one[part]) for part in ("f1", "erroneous", "correct")),
        ]
        for name, one in results["process bench"].items()
    ]  # fmt: skip
    return table(["scorer", "solutions", "threshold", "F1", "accuracy on erroneous", "accuracy on correct"], rows)


def _old_rule(results: Row) -> str:
    """What a reader must know of results that were measured before scores equal to the threshold were wrong."""
    if results.get("equal to the threshold") == "wrong":
        return ""
    return " These numbers were measured when a score equal to the threshold still counted as right."


def section(results: Row) -> str:
    """The section, Markdown."""
    sizes = results["sizes"]
    return f"""## Training on a real reward model's step scores

Written by `python -m benchmarks.real_training --write` (seed {results["seed"]}, {results["threads"]} thread,
{results["seconds"] / 60:.0f} minutes on a shared CPU). The step scores of `{results["teacher"]}` on the pool are the
soft labels of two students of about a million weights: one from scratch with a tokenizer learned from the data, one
from the built-in arithmetic policy, whose byte-level tokenizer can write any text but needs more tokens. Both train for
{sizes["tokens"]:,} tokens on {sizes["samples"]} samples of each of {sizes["train"]} problems; {sizes["valid"]} further
problems choose the checkpoint and the threshold; all below is of the {sizes["test"]} problems that are left, with all
32 samples. The control gives each step the teacher's mean training score at its index.

{_trained(results)}
Agreement with the teacher on {results["steps"]["test"]:,} held-out steps, of which it scores
{100 * results["steps"]["above 0.5"]:.1f} % above 0.5 (what AUROC tells apart). Intervals resample problems. "Within
problems" is the mean over problems of the correlation among a problem's own steps: knowing which problems are hard does
not count there.

{_agreement(results)}
Both students follow the teacher, on problems they have not seen, better than the position of a step can; neither start
is ahead in every column.

Selection from 32 samples of the held-out problems:

{_selection(results)}
Majority is so close to the oracle here that not even the teacher beats it beyond the interval, so these problems cannot
tell a useful student from a useless one. No student beats majority beyond the interval either, and the one from the
built-in policy, taken at its word (best-of-32), is worse than majority under three of four aggregations.

First errors on ProcessBench gsm8k, solutions of problems that were seen in training or choosing left out. The
students' threshold is the one that best finds the teacher's first errors (first score at or below 0.5) on the problems
that choose.{_old_rule(results)}

{_process_bench(results)}
By F1 both students are above a step at random and their intervals overlap with its; the teacher is far above all. What
minutes on a CPU buy is a scorer that shares some of the teacher's preferences and does not find errors."""
