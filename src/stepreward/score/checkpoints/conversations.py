"""Checkpoints that see a solution as a conversation: each step a turn that a dummy answer follows."""

from __future__ import annotations

from dataclasses import replace

from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import Conversation

_TURNS = Conversation(prompt_format="{prompt} {step}", clean=("strip",), answer="+", max_length=8192, too_long="drop")

_FOVER = """** Problem **
{prompt}

** Task **
Your task is to evaluate the accuracy of each step in the provided solution to the above question. For each step, \
respond with "correct" if the reasoning is logically valid and mathematically sound, or if the step is a general \
statement or transition that does not contain reasoning. Respond with "incorrect" if the step includes any errors or \
flawed logic.

** Sotluion **
{step}"""

_VISUAL = """You are an advanced AI assistant, designed to serve as a process supervision model. In this task, I will \
provide a problem statement followed by the first step of the solution process. For each subsequent turn, I will give \
you a new step in the solution. Your role is to assess whether the solution process is correct up to the current step.

- In the **first round**, I will input the problem and the first step of the solution process.
- In **each subsequent round**, I will provide the next step in the solution.

For each step, you should:

- Respond with **"+"** if you believe the solution process is correct up to this step.
- Respond with **"-"** if you detect any issues or errors in the process up to this step.

Please note:
- Only respond with **"+"** or **"-"**. Do not provide any additional explanations, comments, or justifications.

Your task is to verify the accuracy and correctness of each step in the given solution process."""

ROWS = (
    Checkpoint(
        ("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "RLHFlow/Llama3.1-8B-PRM-Mistral-Data"),
        _TURNS,
        Readout("softmax", n_labels=2, label_tokens=("+", "-")),
        source="repository RLHF-Reward-Modeling math-rm/prm_evaluate.py",
        aggregation="mean",
        notes="The softmax is over '+' and '-' alone and the question shares the first step's turn, as trained; others "
        "take the whole vocabulary, or a turn of its own. Earlier answers are always '+'.",
    ),
    Checkpoint(
        ("ryokamoi/Qwen-2.5-7B-FoVer-PRM", "ryokamoi/Llama-3.1-8B-FoVer-PRM"),
        replace(_TURNS, prompt_format=_FOVER, clean=("chomp",), answer="correct"),
        Readout("softmax", n_labels=2, label_tokens=("incorrect", "correct"), label_piece="first", positive=1),
        source="repository src/prm/preprocessing.py and postprocessing.py; arXiv:2505.15960",
        golden=(0.9099470376968384, 0.9997847676277161, 0.012338237836956978),
        notes="'Sotluion' is how it was trained.",
    ),
    Checkpoint(
        ("OpenGVLab/VisualPRM-8B", "OpenGVLab/VisualPRM-8B-v1_1"),
        replace(
            _TURNS,
            system=_VISUAL,
            prompt_format="### Question:\n{prompt}\n\n### Solution Process:\n{step}",
            clean=("chomp",),
            images="refused",
        ),
        Readout("softmax", n_labels=2, label_tokens=("\n+", "\n-")),
        source="its modeling_internvl_chat.py; repository InternVL tools/reasoning_data_pipeline; arXiv:2503.10291",
        aggregation="mean",
        threshold=0.85,
        architectures=("InternVLRewardModel",),
        notes="Its language model alone, for problems without images; its image tower is not loaded. Not checked on "
        "its own weights: that its tokenizer, which is Python code, equals a tokenizer.json made of it, and that its "
        "configuration holds the system message of its training code, as this row does. Labels are the tokens '+' and "
        "'-' without a space before them.",
    ),
)
