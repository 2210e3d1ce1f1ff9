"""Judges for any model that follows requests: their prompts, in words of this project, and how answers are read."""

from __future__ import annotations

from dataclasses import replace

from stepreward.score.checkpoints.row import JudgeCheckpoint

_TASK = "Here is a problem and an attempt to solve it, step by step.\n\n[Problem]\n{prompt}\n\n"
_ATTEMPT = "[Attempt]\n{steps}\n\n"
_INDEX = (
    "Check the steps in their order, each against the problem and the steps before it. A step is wrong if it computes, "
    "concludes or assumes something false; a detour or a clumsy way is not wrong, and neither is a step that puts an "
    "earlier mistake right.\n\n"
    "End with the number of the first wrong step alone in a box, \\boxed{3} for step 3, or \\boxed{-1} if no step is "
    "wrong."
)
_ENTRY = "Step {n}: {step}"
_OWN = "this project's own words"

_FIRST_ERROR = JudgeCheckpoint(
    ("first-error",),
    f"{_OWN}; the question is that of arXiv:2412.06559 and of arXiv:2501.07301, appendix C",
    prompt_format=_TASK + _ATTEMPT + _INDEX,
    opening="",
    ends=(),
    labels=("right", "wrong"),
    reading="first-error",
    clean=("unnumber", "strip"),
    step_format=_ENTRY,
    temperature=0.7,
    max_tokens=8192,
    notes="Steps behind the first wrong one get no verdict from that answer.",
)

ROWS = (
    _FIRST_ERROR,
    replace(
        _FIRST_ERROR,
        names=("first-error-with-reference",),
        source=f"{_OWN}; the reference-guided verification of arXiv:2512.03244",
        prompt_format=_TASK + "[Right answer]\n{reference}\n\n" + _ATTEMPT + _INDEX,
        notes="It is shown the right answer, as the provenance of its scores says: a ceiling of what a judge finds by "
        "itself. It takes problems with a reference.",
    ),
    replace(
        _FIRST_ERROR,
        names=("meta-critique",),
        source=f"{_OWN}; the meta-critique of arXiv:2512.03244, of which the abstract and the README were read",
        follow=(
            "Now criticise this check as a strict reviewer: name each step of the attempt that was judged by a wrong "
            "reason, skipped, or called wrong although it is right.",
            "Check the attempt once more in the light of that review. End with the number of the first wrong step "
            "alone in a box, or \\boxed{-1} if no step is wrong.",
        ),
        notes="Its writer reviews its own check and then makes it again; the last check is read. Three answers each.",
    ),
    replace(
        _FIRST_ERROR,
        names=("reverse-verification",),
        source=f"{_OWN}; the second pass of arXiv:2502.11520, of which the abstract and the model card were read",
        follow=(
            "The right answer is {reference}. Go back from it: where does the attempt first leave what leads there, if "
            "anywhere? End with the number of the first wrong step alone in a box, or \\boxed{-1} if no step is wrong.",
        ),
        agree=True,
        notes="A first check without the right answer, and one that goes back from it. Where they name different steps "
        "there is no verdict: what the authors do then is not known. It takes problems with a reference.",
    ),
    replace(
        _FIRST_ERROR,
        names=("good-ok-bad",),
        source=f"{_OWN}; the verdicts of repository VersaPRM synth_cot_generation, arXiv:2502.06737",
        prompt_format=_TASK
        + "[Right answer]\n{reference}\n\n"
        + _ATTEMPT
        + "Judge each step: GOOD if it is right and leads on, OK if it is right but leads nowhere, BAD if it is wrong "
        "or cannot be verified. Then write one line for each step, such as\nStep 1: GOOD\nStep 2: BAD",
        reading="lines",
        words=(("GOOD", 1.0), ("OK", 0.5), ("BAD", 0.0)),
        notes="OK is worth 1/2: `--set threshold=0` of the transforms of votes counts it as right, as its authors do; "
        "they ask for the index of the first BAD step. It is shown the right answer.",
    ),
    replace(
        _FIRST_ERROR,
        names=("error-kinds",),
        source=f"{_OWN}; the kinds of repository PathFinder-PRM src/data_generation, arXiv:2505.19706",
        prompt_format=_TASK
        + _ATTEMPT
        + "Say of each step: is its mathematics right, is it consistent with the problem and the steps before it, and "
        "does it lead on towards the solution? Then write one line for each step, such as\n"
        "Step 1: mathematics=yes, consistency=yes, optimality=no",
        reading="lines",
        channels=("mathematics", "consistency", "optimality"),
        notes="The score is the product of the three, which are columns of their own. Transform `agreed-steps` drops "
        "verdicts that contradict a person's.",
    ),
    replace(
        _FIRST_ERROR,
        names=("additive-points",),
        source=f"{_OWN}; the points of repository self-rewarding-lm-pytorch, which made arXiv:2401.10020 anew",
        prompt_format=_TASK
        + _ATTEMPT
        + "Give it points that add up, from 0 to 5: one if it is about the problem, one if it gets on with it, one if "
        "it answers all of it, one if its reasoning is sound, one if nothing could be better. Say why in a few words. "
        "End with the number of points alone in a box, such as \\boxed{3}.",
        reading="total",
        highest=5.0,
        max_tokens=2048,
        notes="Of the whole attempt: the score is that of its last step. Three answers each, and `pairs --by ends "
        "--column score --most 1`, make the pairs of self-rewarding. In mathematics such a judge saturates: judges of "
        "steps tell more.",
    ),
    replace(
        _FIRST_ERROR,
        names=("expected-value",),
        source=f"{_OWN}; the scale of repository CUAStepFiltering step_eval, arXiv:2512.10962",
        prompt_format="A task, what was done so far, and the next step.\n\n[Task]\n{prompt}\n\n[So far]\n{steps}\n\n"
        "[Next step]\n{step}\n\nHow likely does the task succeed after this step, from 0 to 10? Think of what success "
        "takes, of the best and the worst that may follow, and of better steps that were possible. More than 5 is for "
        "a step that makes full sense and has no strictly better alternative; one that repairs an earlier mistake may "
        "have it. End with the number alone in a box, such as \\boxed{7}.",
        prompting="apart",
        reading="boxes",
        highest=10.0,
        first="(nothing)",
        step_format="{step}",
        temperature=0.0,
        notes="Of texts alone, where its authors show screenshots. The score is a tenth of the number, so that their 5 "
        "is 1/2: transform `score-gate`.",
    ),
)
