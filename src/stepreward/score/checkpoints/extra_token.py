"""Checkpoints whose steps end in an added token, so that the tokens of a step are its own."""

from __future__ import annotations

from dataclasses import replace

from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import PerStep

_BOXED = r"Please reason step by step, and put your final answer within \boxed{}."

_QWEN = PerStep(
    template="chat",
    system=_BOXED,
    prompt_format="{prompt}",
    tokenise="segment",
    clean=("chomp",),
    separator="<extra_0>",
    too_long="drop",
)
_RIGHT = Readout("softmax", n_labels=2, positive=1)

ROWS = (
    Checkpoint(
        ("Qwen/Qwen2.5-Math-PRM-7B",),
        _QWEN,
        _RIGHT,
        source="model card; arXiv:2501.07301",
        architectures=("Qwen2ForProcessRewardModel",),
        golden=(1.0, 0.1904296875, 0.9765625, 1.0),
        notes="The card's helper keeps probabilities that are not 0: one that underflows shifts all others.",
    ),
    Checkpoint(
        ("Qwen/Qwen2.5-Math-PRM-72B",),
        _QWEN,
        _RIGHT,
        source="model card; arXiv:2501.07301",
        architectures=("Qwen2ForProcessRewardModel",),
        golden=(0.9921875, 0.0047607421875, 0.32421875, 0.8203125),
    ),
    Checkpoint(
        ("Qwen/Qwen2.5-Math-7B-PRM800K",),
        _QWEN,
        _RIGHT,
        source="model card; arXiv:2412.06559",
        architectures=("Qwen2ForProcessRewardModel",),
        notes="Trained with PRM800K's neutral steps as right ones.",
    ),
    Checkpoint(
        ("Gen-Verse/ReasonFlux-PRM-7B",),
        replace(_QWEN, system=None),
        _RIGHT,
        source="repository README; arXiv:2506.18896",
        architectures=("Qwen2ForProcessRewardModel",),
        notes="No system message of its own: the tokenizer's template may add one. Longer inputs than 4096 are refused "
        "by its positions.",
    ),
    Checkpoint(
        ("sail/ActPRM", "sail/ActPRM-X", "ActPRM/ActPRM", "ActPRM/ActPRM-X"),
        _QWEN,
        Readout("mean-sigmoid", n_labels=32),
        source="repository examples/py_scripts/code_snippets.py; arXiv:2504.10559",
        architectures=("Qwen2ForEnsemblePRM",),
        golden=(0.9993686676025391, 0.2316841036081314, 0.7311716079711914, 0.8314468264579773),
        notes="The mean is of the heads' sigmoids. Its benchmark script drops blank lines inside steps first: "
        "clean=('chomp', 'no-blank-lines') follows that.",
    ),
)
