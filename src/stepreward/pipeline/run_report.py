"""The report page of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepreward.report.page import MISSING, Page, Section, Table, TreeView
from stepreward.report.svg import Series, curves

Summary = dict[str, Any]
INTERVAL = ("value", "low", "high")
"""Fields of an estimate, in the order of a curve with its band."""


def _with_interval(estimate: dict[str, Any], form: str, unit: str = "", scale: int = 1) -> str:
    if estimate["value"] is None:
        return MISSING
    value, low, high = (format(scale * estimate[part], form) for part in INTERVAL)
    return f"{value}{unit} [{low}, {high}]"


def percent(estimate: dict[str, Any]) -> str:
    """A share with its interval, "61.0% [57.2, 64.9]"."""
    return _with_interval(estimate, ".1f", "%", 100)


def points(estimate: dict[str, Any]) -> str:
    """A difference of shares in points with its interval."""
    return _with_interval(estimate, "+.1f", scale=100)


def decimal(estimate: dict[str, Any]) -> str:
    """A number with its interval, "0.812 [0.790, 0.833]"."""
    return _with_interval(estimate, ".3f")


def number(value: float | None) -> str:
    """Three decimals, or a dash where not measured."""
    return MISSING if value is None else f"{value:.3f}"


def build_page(summary: Summary, views: Sequence[TreeView]) -> Page:
    """The report of a run's summary, with step trees to explore."""
    settings = summary["settings"]
    sections = [_labels(summary), _training(summary)]
    # Where solutions end in no answer there is nothing to vote on.
    if (evaluation := summary.get("evaluate")) is not None:
        sections = [_selection(summary), *([_truth(evaluation)] if "first_error" in evaluation else []), *sections]
    if "acting" in summary:
        sections.insert(0, _acting(summary))
    if views:
        text = (
            "Sampled solutions of held-out problems as trees: equal beginnings are shown once. The colour is the score "
            "of the reward model, or another column; a step that is selected shows the path to it."
        )
        sections.append(Section("Step trees", text, trees=views))
    if summary["failures"]:
        sections.insert(0, _failures(summary))
    sections.append(_cost(summary))
    return Page(
        "Step rewards, end to end",
        f"{settings['policy']}: sampled, labelled, learned, searched and measured, seed {settings['seed']}",
        _headlines(summary),
        sections,
        "Intervals are 95 %: percentile bootstrap over problems, or Wilson's for shares of solutions.",
        {name.replace("_", " "): str(value) for name, value in settings.items()},
    )


def _headlines(summary: Summary) -> list[tuple[str, str, str]]:
    if "evaluate" not in summary:
        acting = summary["acting"]
        cards = [_card(f"{name} agent", percent(acting[name]["accuracy"])) for name in ("plain", "guided")]
        return [*cards, _card("points of guidance, paired", points(acting["gain"]))]
    evaluation, settings = summary["evaluate"], summary["settings"]
    n = settings["held_out_samples"]
    rows = {name: row[-1] for name, row in evaluation["curves"].items()}
    headline = evaluation["headline"]
    seeds = f"{len(headline['seeds'])} training seeds"
    cards = [
        _card(f"majority vote of {n}", percent(rows["majority"])),
        _card(f"step-weighted vote of {n}, {seeds}", percent(headline["accuracy"])),
        _card("points over majority, paired", points(headline["versus_majority"])),
    ]
    if "first_error" in evaluation:
        cards.append(_card("first-error F1", decimal(evaluation["first_error"]["f1"])))
    return cards


def _card(what: str, estimate: str) -> tuple[str, str, str]:
    """The number large, its interval small."""
    number, _, interval = estimate.partition(" [")
    return number, what, f"[{interval}" if interval else ""


def _selection(summary: Summary) -> Section:
    evaluation, settings = summary["evaluate"], summary["settings"]
    sizes, made, aggregate = evaluation["sizes"], evaluation["curves"], settings["aggregate"]
    names = {
        "oracle": "oracle (pass@N)",
        f"weighted-vote:{aggregate}": f"weighted vote ({aggregate})",
        f"best-of-n:{aggregate}": f"best of N ({aggregate})",
        "majority": "majority",
    }
    series = [
        Series(label, sizes, *([e[part] for e in made[name]] for part in INTERVAL)) for name, label in names.items()
    ]
    figure = curves(series, x_label="samples N", y_label="accuracy", log_x=True)
    ranked = sorted(made.items(), key=lambda pair: -pair[1][-1]["value"])
    rows = [
        (name, percent(row[-1]), points(versus) if (versus := evaluation["versus_majority"].get(name)) else MISSING)
        for name, row in ranked
    ]
    rows += [(f"{name} search", percent(numbers["accuracy"]), MISSING) for name, numbers in _searches(summary)]
    table = Table(
        ("selector", f"accuracy at N = {sizes[-1]}", "points over majority"),
        rows,
        f"Accuracy on {settings['held_out_problems']} held-out problems, of searches on the first "
        f"{settings['search_problems']}, by the reward model of the first training seed.",
        [i for i, (name, _) in enumerate(ranked) if name in ("majority", evaluation["main"])],
    )
    text = (
        f"Which of N sampled answers to trust. The reward model weighs each sample by the {aggregate} of its step "
        "scores, and the other selectors by the aggregation in their names; the difference to the plain majority is "
        "paired by problem. A search grows its solutions step by step instead."
    )
    return Section("Selection and search", text, [figure], [table, _by_seed(evaluation)])


def _acting(summary: Summary) -> Section:
    """The guided agent against the plain one."""
    acting, width = summary["acting"], summary["settings"]["width"]
    names = {
        "plain": "plain: one action is proposed and executed",
        "guided": f"guided: the best of {width} is executed",
    }
    rows = [(text, percent(acting[name]["accuracy"]), f"{acting[name]['actions']:.1f}") for name, text in names.items()]
    note = f"Guided minus plain, paired by problem, over training seeds and problems: {points(acting['gain'])} points."
    text = (
        "The same agent with the same number of episodes. Where it is guided, the reward model scores several proposed "
        "actions before one of them is executed; the others cost tokens, and no action."
    )
    return Section("Agents", text, tables=[Table(("agent", "episodes won", "actions an episode"), rows, note)])


def _by_seed(evaluation: Summary) -> Table:
    """The headline for each training seed, and over all."""
    headline = evaluation["headline"]
    rows = [(str(one["seed"]), percent(one["accuracy"]), points(one["versus_majority"])) for one in headline["seeds"]]
    rows.append(("all", percent(headline["accuracy"]), points(headline["versus_majority"])))
    note = (
        f"{evaluation['main']} by reward models trained on the same labels. Intervals are over problems, in the last "
        "row over training seeds and problems."
    )
    return Table(("training seed", f"accuracy at N = {evaluation['sizes'][-1]}", "points over majority"), rows, note)


def _truth(evaluation: Summary) -> Section:
    first, steps = evaluation["first_error"], evaluation["steps"]
    table = steps["reliability"]
    figures = []
    if table["score"]:
        line = [Series("steps", table["score"], table["label"])]
        figures = [curves(line, x_label="score", y_label="share of right steps", y_range=(0, 1), diagonal=True)]
    rows = [
        ("first-error F1", decimal(first["f1"])),
        ("accuracy on erroneous solutions", percent(first["erroneous"])),
        ("accuracy on correct solutions", percent(first["correct"])),
        ("AUROC of steps", number(steps["auroc"])),
        ("Brier score", number(steps["brier"])),
        ("expected calibration error", number(steps["ece"])),
    ]
    text = (
        "The reward model against the exact step checker, by the ProcessBench protocol. The threshold "
        f"{first['threshold']:.3f} is the {first['threshold_from']}."
    )
    return Section("Against the truth", text, figures, [Table(("metric", "value"), rows)])


def failed_lines(summary: Summary) -> list[str]:
    """What failed, a line a stage: how much, and the first error."""
    return [
        f"{stage}: {one['failed']:,} of {one['of']:,} failed, {one['first']}"
        for stage, one in summary["failures"].items()
    ]


def _failures(summary: Summary) -> Section:
    rows = [(stage, f"{one['failed']:,}", f"{one['of']:,}", one["first"]) for stage, one in summary["failures"].items()]
    text = "What failed has no numbers: every number of this page is about the others."
    return Section("What failed", text, tables=[Table(("part of the run", "failed", "of", "first error"), rows)])


def _labels(summary: Summary) -> Section:
    label, settings = summary["label"], summary["settings"]
    rows = [
        ("trajectories labelled", f"{label['trajectories']:,}"),
        ("of them wrong", f"{label['wrong']:.1%}"),
        ("rollouts", f"{label['bill']['proposals']:,}"),
        ("tokens generated", f"{label['bill']['generated_tokens']:,}"),
    ]
    if label["against_truth"]:
        error = label["against_truth"]
        rows += [
            ("first error as in the exact checker", f"{error['first_error_accuracy']:.1%}"),
            ("mean absolute label error", number(error["mean_absolute_error"])),
        ]
    name, rollouts, transform = settings["estimator"], settings["rollouts"], settings["transform"]
    text = f"Estimator {name} with {rollouts} rollouts a prefix, then {transform}."
    return Section("Labels", text, tables=[Table(("what", "how much"), rows)])


def _training(summary: Summary) -> Section:
    history = summary["train"]["history"]
    measured = {"training loss": "loss", "validation AUROC": "eval_auroc"}
    figures = []
    for name, key in measured.items():
        rows = [(row["step"], row[key]) for row in history if row.get(key) is not None]
        if rows:
            line = [Series(name, *zip(*rows, strict=True))]
            figures.append(curves(line, x_label="step", y_label=name, percent=False))
    text = f"Objective {summary['settings']['objective']}; each shared prefix is encoded once."
    return Section("Training", text, figures)


def _searches(summary: Summary) -> list[tuple[str, dict[str, Any]]]:
    """The searches of the run, without the entry `seconds` beside them."""
    return [(name, numbers) for name, numbers in summary.get("search", {}).items() if isinstance(numbers, dict)]


def _cost(summary: Summary) -> Section:
    bills = [("samples", summary["policy"]), ("labels", summary["label"]), *_searches(summary)]
    spent = ("proposals", "generated_tokens", "scored_tokens", "scored_tokens_unshared", "cached")
    rows = [(name, *(f"{numbers['bill'][what]:,}" for what in spent)) for name, numbers in bills]
    head = ("stage", "proposals", "tokens generated", "tokens scored", "without sharing", "answers from the log")
    stages = {"policy": "sample", **{name: name for name in ("label", "train", "evaluate", "search")}, "acting": "act"}
    seconds = [(what, f"{summary[name]['seconds']:.1f} s") for name, what in stages.items() if name in summary]
    again = sum(one["seconds"] for one in summary["retrained"])
    seconds.insert(3, ("train with the other seeds", f"{again:.1f} s"))
    text = "Tokens scored count each shared beginning once; without sharing, every solution would be encoded by itself."
    return Section("What it cost", text, tables=[Table(head, rows), Table(("stage", "time"), seconds)])
