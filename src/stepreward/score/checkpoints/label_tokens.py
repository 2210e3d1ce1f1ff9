"""Checkpoints that say right or wrong by the language-model head's logits of two tokens, behind a tag."""

from __future__ import annotations

from dataclasses import replace

from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import WholeText

_TAGGED = WholeText(prompt_format="{prompt} ", special_tokens=True, clean=("strip",), separator=" ки", too_long="drop")

ROWS = (
    Checkpoint(
        ("peiyi9979/math-shepherd-mistral-7b-prm",),
        replace(_TAGGED, clean=("strip", "own-number"), step_format="Step {n}: {step}", between="\n", tag="ки"),
        Readout("softmax", n_labels=2, label_tokens=("+", "-")),
        source="model card; PRMBench mr_eval/models/math_shepherd.py; arXiv:2312.08935",
        golden=(0.9955, 0.9958, 0.9983, 0.9957),
        notes="search-and-learn puts its own system prompt before the question; the card has none.",
    ),
    Checkpoint(
        (
            "UW-Madison-Lee-Lab/VersaPRM",
            "UW-Madison-Lee-Lab/VersaPRM-Base-8B",
            "UW-Madison-Lee-Lab/VersaPRM-Base-3B",
            "UW-Madison-Lee-Lab/Llama-PRM800K",
            "UW-Madison-Lee-Lab/Qwen-PRM800K",
        ),
        replace(_TAGGED, prompt_format="{prompt} \n\n", separator=" \n\n\n\n"),
        Readout("softmax", n_labels=2, label_tokens=("-", "+"), positive=1),
        source="repository evaluation/prm_models/prm_llama.py and prm_qwen.py; arXiv:2502.06737",
    ),
    Checkpoint(
        ("openreasoner/Math-psa",),
        replace(_TAGGED, separator=" \n\n\n\n\n", between=" "),
        Readout("softmax", n_labels=2, label_tokens=(" +", " -")),
        source="repository openr prm/infer_fns.py; arXiv:2410.09671",
        notes="An adapter of Qwen2.5-Math-7B-Instruct. Trained with the tag out of attention and read one token "
        "earlier; its own inference, which the numbers come from, does neither.",
    ),
    Checkpoint(
        ("hanningzhang/Llama3.1-Math-PRM",),
        _TAGGED,
        Readout("softmax", n_labels=2, label_tokens=(" +", " -")),
        source="repository ER-PRM evaluation/evaluate_math_reward_model.py; arXiv:2412.11006",
        notes="The repository does not name its checkpoint; this name is likely, not confirmed.",
    ),
    Checkpoint(
        ("ScalableMath/llemma-7b-prm-prm800k-level-1to3-hf", "ScalableMath/llemma-7b-prm-metamath-level-1to3-hf"),
        WholeText(
            prompt_format="# Question\n\n{prompt}\n\n# Solution\n\n",
            special_tokens=True,
            clean=("no-blank-lines", "strip"),
            separator="\n\n",
            read="before",
            too_long="drop",
            tag=None,
        ),
        source="model card; PRMBench mr_eval/models/llemma7b_prm.py; arXiv:2403.09472",
        mean=True,
        notes="Its head repeats one number over the vocabulary, hence the mean of the logits. Of the two line breaks "
        "behind a step it is read at the first; its helper also returns those around '# Solution'. Its "
        "tokenizer is that of EleutherAI/llemma_7b.",
    ),
)
