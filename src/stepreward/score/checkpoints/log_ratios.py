"""Checkpoints whose score is a log-ratio to a reference model, summed over the tokens so far."""

from __future__ import annotations

from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import WholeText

ROWS = (
    Checkpoint(
        ("PRIME-RL/EurusPRM-Stage2", "PRIME-RL/EurusPRM-Stage1"),
        WholeText(
            template="chat",
            prompt_format="{prompt}",
            clean=("chomp", "own-number"),
            step_format="Step {n}: {step}",
            between="\n\n",
            read="recounted",
            too_long="drop",
        ),
        Readout("implicit", beta=0.001, reference="Qwen/Qwen2.5-Math-7B-Instruct"),
        source="model card; repository ImplicitPRM eval/prm_eval_utils.py; arXiv:2412.01981, arXiv:2502.01456",
        threshold=0.0,
        notes="Positions are those of the card, which counts the tokens of each prefix as if its message ended there: "
        "a step's sum reaches a token or two into the next one. Its ProcessBench script takes another reference, "
        "Qwen2.5-7B-Instruct, and beta 0.005.",
    ),
)
