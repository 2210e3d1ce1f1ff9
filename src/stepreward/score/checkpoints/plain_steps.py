"""Checkpoints whose recipes append a separator's id to each step's own ids, as stepreward does by default."""

from __future__ import annotations

from dataclasses import replace

from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import PerStep

_REASON_EVAL = PerStep(
    prompt_format="Question:\n{prompt}\nAnswer:\nLet's think step by step.\n",
    tokenise="segment",
    special_tokens=True,
    clean=("chomp",),
    separator="",
    too_long="drop",
)
_VALIDITY = Readout("softmax", n_labels=3, positive=2, also=(1,))

ROWS = (
    Checkpoint(
        ("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B", "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B"),
        PerStep(
            prompt_format="{bos}{prompt}\n", clean=("lines",), separator="\n", too_long="drop", special_tokens=False
        ),
        source="repository model_utils/io_utils.py and prm_model.py",
        architectures=("Qwen2ForPrmModel",),
        notes="Lines are its steps: each line of a step ends in a line break that is read, and the last one is the "
        "step's score. PRMBench feeds another separator and thresholds differences.",
    ),
    Checkpoint(
        ("jinachris/PURE-PRM-7B", "jinachris/Qwen2.5-Math-7B-PRM800K"),
        PerStep(prompt_format="{prompt}", clean=("chomp",), separator="\n\n", too_long="drop"),
        Readout("difference", n_labels=2, positive=1),
        source="model card; PRMBench mr_eval/models/pure_prm.py; arXiv:2504.15275",
        threshold=0.0,
        notes="Nothing is between the question and the first step. Scores are p1 - p0 in [-1, 1].",
    ),
    Checkpoint(
        ("SCAN-PRM",),
        PerStep(prompt_format="{prompt}\n\n", clean=("chomp",), separator="\n\n", too_long="drop"),
        source="repository src/eval_utils/gen_utils.py",
        notes="No hub name is stated in its repository.",
    ),
    Checkpoint(
        ("GAIR/ReasonEval-7B",),
        replace(_REASON_EVAL, read="before"),
        _VALIDITY,
        source="repository codes/examples.py; arXiv:2404.05692",
        golden=(0.9492, 0.7863, 0.2520, 0.7860, 0.9125, 0.5916, 0.4494, 0.8189, 0.8240, 0.2671),
        notes="Its separator is its first token, which is removed and put back once, so its positions, counted without "
        "it, fall one token before the last of a step. Validity is p(neutral) + p(positive); "
        "its readout with positive=1, also=() gives redundancy.",
    ),
    Checkpoint(
        ("GAIR/ReasonEval-34B",),
        _REASON_EVAL,
        _VALIDITY,
        source="repository codes/examples.py; arXiv:2404.05692",
        golden=(0.9360, 0.6813, 0.0720, 0.2811, 0.4531, 0.1122, 0.1328, 0.2026, 0.2265, 0.1163),
        notes="Its separator is a padding token that is no first token: steps are read at their last token.",
    ),
    Checkpoint(
        ("trl-prm",),
        PerStep(prompt_format="{bos}{prompt}", clean=("chomp",), separator="\n", max_length=1024, too_long="drop"),
        Readout("softmax", n_labels=2, positive=1),
        source="trl PRMTrainer.tokenize_row, up to version 1.13",
        notes="A model that TRL's PRMTrainer wrote. Its separator is not saved: replace '\\n' by the step_separator of "
        "the training.",
    ),
)
