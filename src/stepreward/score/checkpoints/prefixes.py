"""Checkpoints that see one text for each step, all steps up to it."""

from __future__ import annotations

from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import PerPrefix

ROWS = (
    Checkpoint(
        ("infly/Universal-PRM-7B",),
        PerPrefix(
            template="chat",
            system="You are a helpful assistant.",
            prompt_format="{prompt}\n\n###\n\nThe reference answer is: There is no reference answer for this question.",
            clean=("chomp",),
            later_format="{previous}\n\n{step}",
            between="\n\n",
            separator="\n\n",
            end="{eos}",
            max_length=32768,
            too_long="drop",
        ),
        source="model card; arXiv:2502.11520",
        golden=(0.73828125, 0.7265625, 0.73046875, 0.73828125, 0.734375),
        notes="The card can put a reference solution where this row says that there is none.",
    ),
    Checkpoint(
        ("declare-lab/PathFinder-PRM-7B",),
        PerPrefix(
            template="chat",
            prompt_format="You are a Math Teacher. Given a question and a student's solution, evaluate the "
            "mathematical correctness, logic consistency of the current step and whether it will lead to the "
            "correct final solution\n\n Question: {prompt}",
            clean=("chomp",),
            step_format="Current Step: {step} Math reasoning: <extra>, Consistency: <extra>",
            later_format="{previous}\n\nCurrent Step: {step} Math reasoning: <extra>, Consistency: <extra>",
            between="\n\n",
            tag="<extra>",
            second=", Correctness: <extra>",
            max_length=8192,
            too_long="drop",
        ),
        Readout("softmax", n_labels=2, label_tokens=("<+>", "<->")),
        source="repository src/evaluation; arXiv:2505.19706",
        notes="Its search gives -1 to a step that the first pass finds wrong, this row 0; the search also "
        "misspells 'mathematical' and puts the solution into a user message. Its ProcessBench script, whose text this "
        "is, reads the first pass alone.",
    ),
    Checkpoint(
        ("HRM",),
        PerPrefix(
            prompt_format="Question:\n{prompt}\n\nLet's break it down step by step!\n\n",
            special_tokens=True,
            step_format="Now, let's focus on the current step:\n{step}\n",
            later_format="Previous reasoning:\n{previous}\n\nNow, let's focus on the current step:\n{step}",
            max_length=4096,
            too_long="cut",
        ),
        Readout("value"),
        source="repository hierarchial_reward_model self-training/construct_prompt.py and "
        "best_of_n.py; arXiv:2503.13551",
        notes="No hub name is stated. Previous steps are joined as they were written. A score is a bare number.",
    ),
    Checkpoint(
        ("zd21/DeepSeek-TD2-PRM", "zd21/DeepSeek-TD0-PRM", "zd21/DeepSeek-ScalarPRM", "zd21/DeepSeek-ScalarORM"),
        PerPrefix(
            template="chat",
            prompt_format="{prompt}",
            special_tokens=True,
            later_format="{previous}{step}",
            max_length=16384,
            too_long="cut",
        ),
        source="repository TDRM prm_evaluation/src/rewarding/get_reward_math_prm_filter.py; arXiv:2509.15110",
        notes="The chat is tokenised as text, so a tokenizer that adds a first token adds a second one, as there.",
    ),
    Checkpoint(
        ("Gen-Verse/ReasonFlux-PRM-1.5B",),
        PerPrefix(
            prompt_format="{prompt}",
            special_tokens=True,
            clean=("chomp",),
            later_format="{previous}\n\n{step}",
            between="\n\n",
            max_length=2048,
            too_long="cut",
        ),
        source="repository ReasonFlux ReasonFlux_PRM/README.md and utils/rm_utils.py; arXiv:2506.18896",
        notes="It scores whole solutions: a step's score is that of the solution that ends there, which it was not "
        "trained on. Nothing is between question and solution. Its head is a file of its own, reward_head.pt.",
    ),
)
