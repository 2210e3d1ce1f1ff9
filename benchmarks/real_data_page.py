"""The page of `benchmarks.real_data`, out of its results as JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def number(estimate: Row) -> str:
    """A share as percent with its interval."""
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def points(estimate: Row) -> str:
    """A difference of shares in points with its interval."""
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def decimal(estimate: Row) -> str:
    """A plain number with its interval."""
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def difference(estimate: Row) -> str:
    """A difference of plain numbers with its interval."""
    return f"{estimate['value']:+.3f} [{estimate['low']:+.3f}, {estimate['high']:+.3f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def beyond(differences: Mapping[str, Row]) -> str:
    """What differs beyond its interval, by name, from what the differences are to."""
    above = [name for name, one in differences.items() if one["low"] is not None and one["low"] > 0]
    below = [name for name, one in differences.items() if one["high"] is not None and one["high"] < 0]
    return f"above: {'; '.join(above) or 'none'}. Below: {'; '.join(below) or 'none'}."


def _verifiers(results: Row) -> str:
    columns = ["gsm8k at 0.5", "gsm8k tuned", "math at 0.5", "math tuned on gsm8k"]
    rows = [
        [f"`{name}`", *(number(made[c]["f1"]) for c in columns), f"{made['gsm8k tuned']['threshold']:.3f}"]
        for name, made in sorted(results["verifiers"].items(), key=lambda item: -item[1]["math at 0.5"]["f1"]["value"])
    ]
    return table(["verifier", *columns, "tuned threshold"], rows)


def _published(results: Row, published: Mapping[str, tuple[float, float, str]]) -> str:
    rows = []
    for name, (easy, hard, source) in published.items():
        # ProcessBench chooses the threshold of a model without a natural one on gsm8k.
        tuned = "Skywork" in name
        made = results["verifiers"][name]
        ours = [
            made["gsm8k tuned" if tuned else "gsm8k at 0.5"],
            made["math tuned on gsm8k" if tuned else "math at 0.5"],
        ]
        inside = [
            "inside" if 100 * one["f1"]["low"] <= paper <= 100 * one["f1"]["high"] else "outside"
            for one, paper in zip(ours, (easy, hard), strict=True)
        ]
        rows.append(
            [
                f"`{name}`", "tuned on gsm8k" if tuned else "0.5",
                number(ours[0]["f1"]), f"{easy} ({inside[0]})", number(ours[1]["f1"]), f"{hard} ({inside[1]})", source,
            ]
        )  # fmt: skip
    head = ["verifier", "threshold", "gsm8k", "published", "math", "published", "source"]
    return table(head, rows)


def _tool(results: Row) -> str:
    rows = []
    for subset, made in results["tool"].items():
        for name in ("tool", "tool, the verifiers' 250", "a step at random"):
            one = made[name]
            rows.append([subset, name, *(number(one[part]) for part in ("f1", "erroneous", "correct"))])
    return table(["subset", "scorer", "F1", "accuracy on erroneous", "accuracy on correct"], rows)


def _verdicts(results: Row) -> str:
    rows = [
        [subset, kind, *(str(counts[name]) for name in ("judged false", "judged true", "nothing to judge"))]
        for subset, made in results["tool"].items()
        for kind, counts in made["steps"].items()
    ]
    return table(["subset", "steps that people call", "judged false", "judged true", "nothing to judge"], rows)


def _summary(results: Row) -> str:
    rows = []
    for name, curves in results["pool"].items():
        best = max((k for k in curves if k.startswith("best")), key=lambda k: curves[k][-1]["value"])
        vote = max(
            (k for k in curves if k.startswith("weighted") and "log-odds" not in k),
            key=lambda k: curves[k][-1]["value"],
        )
        gaps = results["gaps"][name]
        rows.append(
            [
                f"`{name}`", best.partition(":")[2], number(curves[best][-1]), points(gaps[best]),
                vote.partition(":")[2], number(curves[vote][-1]), points(gaps[vote]),
            ]
        )  # fmt: skip
    head = [
        "scores of",
        "best-of-32 by",
        "accuracy",
        "minus majority",
        "weighted vote by",
        "accuracy",
        "minus majority",
    ]
    return table(head, rows)


def _curves(results: Row, sizes: Sequence[int]) -> str:
    pools = results["pool"]
    first = next(iter(pools.values()))
    head = ["selector", *(f"N={n}" for n in sizes)]
    parts = ["### Without scores\n", table(head, ([k, *map(number, first[k])] for k in ("majority", "oracle")))]
    for name, curves in pools.items():
        rows = [
            [k, *map(number, curves[k])]
            for k in curves
            if ":" in k and not (k.startswith("weighted") and "log-odds" in k)
        ]
        parts += [f"### `{name}`\n", table(head, rows)]
    return "\n".join(parts)


def _calibration(results: Row) -> str:
    rows = []
    for name, made in results["calibration"].items():
        for how, one in made.items():
            change = "" if how == "identity" else difference(one["change"])
            shown = "before" if how == "identity" else how
            rows.append([f"`{name}`", shown, decimal(one["brier"]), change, decimal(one["ece"])])
    return table(["verifier", "calibrator", "Brier", "minus before", "ECE, 10 bins"], rows)


def _four(results: Row) -> str:
    rows = [[name, (points if " minus " in name else number)(one)] for name, one in results["four_solutions"].items()]
    return table(["selector", "accuracy"], rows)


def page(results: Row, published: Mapping[str, tuple[float, float, str]], training: str) -> str:
    """The page, Markdown; `training` is its section on training, which another benchmark measures."""
    steps = results["tool"]
    false = {s: steps[s]["steps"]["wrong"]["judged false"] for s in steps}
    alarms = {s: steps[s]["steps"]["right"]["judged false"] for s in steps}
    found = "; ".join(f"{s}: {false[s]} of {false[s] + alarms[s]}" for s in steps)
    return f"""# Real data

Written by `python -m benchmarks.real_data --write` (seed {results["seed"]}); no number in a table is typed by hand.
Brackets are 95 % intervals: percentile bootstrap over problems, Wilson for accuracies on erroneous and on correct
solutions.
Data: [ProcessBench](https://arxiv.org/abs/2412.06559) gsm8k (400) and math (1000); step scores of 21 verifiers on 250
of each, recorded by the FoVer project; 500 GSM8K test problems x 32 samples with step scores of 7 reward models,
recorded by StrictPRMBench and regraded; the four model solutions a problem published with GSM8K.

## First errors found by 21 verifiers

A solution's predicted first error is its first step scored at or below the threshold. F1 is the harmonic mean of the
share of erroneous solutions whose first error is found exactly and the share of correct solutions left alone, in
percent. "gsm8k tuned" chooses the threshold on the same 250 solutions, so it is optimistic; "math tuned on gsm8k" is
the official protocol for models without a natural threshold.

{_verifiers(results)}
### Against published numbers

{_published(results, published)}
Published numbers use all 400 and 1000 solutions, ours 250 of each, and the recording project ran the models itself, so
only agreement within the interval can be asked for. A threshold chosen on gsm8k is not harmless: compare the columns
"math at 0.5" and "math tuned on gsm8k" above.

## The tool scorer as a process reward model

It re-computes the equations of a step: 1 if all hold, 0 if one is false, 0.8 if there is nothing to check; the
threshold is 0.5. It was developed on GSM8K and MATH reference solutions, PRM800K and SCAN, never on ProcessBench.

{_tool(results)}
{_verdicts(results)}
A step that it calls false is mostly the marked error ({found}),
but it calls few steps false: most wrong steps
compute the wrong thing correctly, or reason in words. By F1 it is no better than guessing a step; it is a precise
detector of slips in arithmetic, not a process reward model.

## Selection from 32 samples of 500 GSM8K problems

N below 32: mean over 16 random subsets a problem. Ties go to the earlier sample. Weighted votes need totals that are
not negative, so log-odds only ranks. `internlm2_*` are outcome reward models run on every prefix.

Best aggregation of each, chosen on these same problems (so slightly optimistic), and its paired difference to majority:

{_summary(results)}
The control scores every step 0.8, so its product prefers short solutions and knows nothing else: compare the tool
scorer with it before crediting the equations. Paired, with product totals, tool
minus control: weighted vote {points(results["gaps"]["tool minus control"]["weighted-vote:product"])},
best-of-32 {points(results["gaps"]["tool minus control"]["best-of-n:product"])}.

{_curves(results, (1, 2, 4, 8, 16, 32))}
## Calibration on the pool

The last step's score as the chance that the answer is right, before and after each calibrator of
`stepreward methods calibrate`: fitted on a random half of the problems, measured on the other half (250 x 32 samples).
"base rate" always predicts the fit half's share of right samples: its ECE is small and it ranks nothing. "minus before"
is paired, negative where the calibrator helps; the bootstrap resamples problems.

{_calibration(results)}
{training}
## Four model solutions a problem (GSM8K test)

Ties are the rule among four votes, and the file lists its models in one order, so every selector is averaged over 32
random orders. No public model's scores are recorded for these: the comparison is with majority, single models and the
oracle. "more steps" knows only how many steps a solution has; where it does as well, the equations added nothing.

{_four(results)}"""
