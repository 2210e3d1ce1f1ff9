"""Published tree labellers: the settings of `tree` that make them, as their authors' code has them."""

from __future__ import annotations

from math import sqrt

from stepreward.core.catalog import estimate

estimate.preset(
    "rest-mcts",
    of="tree",
    paper="arXiv:2406.03816",
    note="the released code's generation of training data: 50 walks, values by the distance to a right end. An end is "
    "worth its outcome, where the code takes its value model's word and grades ends above 0.8 alone; no hints; a "
    "look-ahead without a step counts for nothing",
    asks=("scorer",),
    simulations=50, width=3, select="ucb1", exploration=0.5, unvisited=0.9, leaf="scores", look_ahead=1, alpha=0.5,
    backup="children", readout="distance",
)  # fmt: skip
estimate.preset(
    "alphamath",
    of="tree",
    paper="arXiv:2405.03553",
    note="the released code's settings for data, on chances (q + 1) / 2, so that its constant of 1.5 is 0.75 and its 0 "
    "of a step without a visit 0.5; its priors are exp of a step's mean log-probability, prior=logprob here, for "
    "policies that report it; the bare problem has no value of its own",
    asks=("scorer",),
    simulations=40, width=5, select="puct", exploration=0.75, first=0.5, leaf="score", revisit=False, max_steps=9,
)  # fmt: skip
estimate.preset(
    "masprm",
    of="tree",
    paper="arXiv:2510.24803",
    note="MAS_MCTS of the released code: a step is an agent's turn; values are chances, (q + 1) / 2. The paper keeps "
    "trees whose bare problem is worth 0.15 to 0.85",
    simulations=32, width=4, select="uct-floored", exploration=2.0, leaf="path", stable=24,
)  # fmt: skip
estimate.preset(
    "meds3",
    of="tree",
    paper="arXiv:2501.12051",
    note="the first round of the released code; keep=0.5 is its variant `comp`. A step ends a solution where the "
    "policy ends, without an action of its own for that; no path is completed behind the search",
    simulations=60, width=3, select="ucb1", exploration=sqrt(2.0), unvisited=5.0, revisit=False, leaf="rollouts", n=20,
    least=5, backup="children", right_ends=4, most_nodes=60,
)  # fmt: skip
estimate.preset(
    "prorag",
    of="tree",
    paper="arXiv:2601.21912",
    note="the released code's search: greedy play-outs, equal priors, a discount. The reward is the grader's, in the "
    "code the F1 of the answer's tokens; the policy samples at temperature 0.9 and top-p 0.95 there. Which new step is "
    "played out is drawn as often as it was sampled, and a play-out goes on to its end, not to the tenth step",
    simulations=200, width=5, select="puct", exploration=2.5, prior="uniform", first=0.0, greedy=True, discount=0.99,
    max_steps=10,
)  # fmt: skip
estimate.preset(
    "rest-rl",
    of="tree",
    paper="arXiv:2508.19576",
    note="the value data of VM-MCTS in the released code: whole solutions whose first steps, lines there, are the "
    "children; walks choose among all children, in the code among three. The number of walks is ours",
    width=5, select="ucb-smoothed", exploration=0.2, floor=0.1, leaf="completions",
)  # fmt: skip
estimate.preset(
    "hrm",
    of="tree",
    paper="arXiv:2503.13551",
    note="the released code's trees of five samples and five steps; cut paths are wrong. Equal samples are one node "
    "that counts as often. Its compressed trees, which it adds to these, are those of compress=0.5",
    simulations=5, width=5, select="breadth", leaf="ends", readout="leaf-share", max_steps=5,
)  # fmt: skip
estimate.preset(
    "qlass",
    of="tree",
    paper="arXiv:2502.02584",
    note="Q and its scaling, over the whole tree, as in the released code (`vanilla`), which asks for a second action "
    "that differs and scales 300 sampled nodes; every prefix is expanded, in the code those on a path "
    "to a reward above 0.01 from the fourth step on, and the expert's trajectory is a path too",
    simulations=8, width=2, select="breadth", leaf="ends", readout="best", discount=0.9, scale=True, max_steps=8,
)  # fmt: skip
estimate.preset(
    "groundedprm",
    of="tree",
    paper="arXiv:2510.14942",
    note="random walks until three right and three wrong ends; a step is worth the verdict on it by itself, here the "
    "reward model's (`--model tool` or a judge), there a language model's that reads a tool's answer. New steps of a "
    "path have siblings; the fused value of the code, which nothing chooses by, is left out",
    asks=("scorer",),
    simulations=10, width=3, select="random", revisit=False, leaf="path", readout="score", right_ends=3, wrong_ends=3,
)  # fmt: skip
estimate.preset(
    "armap",
    of="tree",
    paper="arXiv:2502.12130",
    note="the search of the released agents: rollouts of the agent, the best return, and a discount. Rollouts are "
    "worth the grader's outcome, there what the reward model says of the whole trajectory; a walk values one new step, "
    "and all next steps are sampled at once. The width is ours",
    simulations=10, width=4, select="ucb-spread", exploration=6.36396, backup="best", discount=0.9, max_steps=10,
)  # fmt: skip
estimate.preset(
    "leaf-average",
    of="tree",
    unverified="TreePS-RAG (arXiv:2601.06922): from its abstract; the pruning of similar children is left out",
    simulations=8, width=3, select="breadth", leaf="ends", readout="leaf-share", max_steps=8,
)  # fmt: skip
estimate.preset(
    "discounted-leaves",
    of="tree",
    unverified="PORTool (arXiv:2510.26020): from its abstract; without the format term, and the number of forks is not "
    "bounded",
    simulations=8, width=2, select="breadth", leaf="ends", readout="discounted", discount=0.95, max_steps=8,
)  # fmt: skip
estimate.preset(
    "mm-prm",
    of="omegaprm",
    paper="arXiv:2505.13427",
    note="the released code's constants; its length is counted in words. Its paths end at the first value of 0: the "
    "transform soft with after_error=mask",
    transform="soft",
    n=16, searches=200, length_scale=2000.0,
)  # fmt: skip
estimate.preset(
    "pav",
    of="math-shepherd",
    paper="arXiv:2410.08146",
    note="the column advantage is the prover's: the policy that rolls out should be another than the one that wrote",
    transform="soft",
    root=True,
)
