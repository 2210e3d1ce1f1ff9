"""Checkpoints with one number a step, behind a tag in joined text or at the end of a message."""

from __future__ import annotations

from dataclasses import replace

from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import Conversation, WholeText

_URSA = """<|im_start|>system
You are a helpful assistant.<|im_end|>
<|im_start|>user
You are given a problem and a step-by-step solution. You need to check the correctness of each step.
Question:{prompt}
"""

_NUMBERED = WholeText(clean=("unnumber", "strip"), step_format="Step {n}: {step}", between="\n", too_long="drop")

ROWS = (
    Checkpoint(
        ("Windy0822/PQM",),
        replace(_NUMBERED, prompt_format="[INST] {prompt} [/INST]\n", separator=" [PRM]", tag="[PRM]"),
        Readout("value"),
        source="repository Process_Q_Model train_main.py and value_model.py; arXiv:2410.11287",
        threshold=0.0,
        notes="The text is that of its training; its best-of-n script fills another prompt into the same template. "
        "Scores are bare numbers.",
    ),
    Checkpoint(
        ("MASPRM",),
        WholeText(prompt_format="{prompt}", special_tokens=True, separator="</step>", max_length=2048, too_long="drop"),
        Readout("tanh"),
        source="repository MASPRM src/experiments/core.py; arXiv:2510.24803",
        threshold=0.0,
        notes="An adapter; no hub name is stated. There it runs on a base in 4 bits, here in full precision.",
    ),
    Checkpoint(
        ("MATH-Minos",),
        replace(_NUMBERED, prompt_format="Human: {prompt}\n\nAssistant:", special_tokens=True, separator=" и", tag="и"),
        source="PRMBench mr_eval/models/mathminos_mistral.py; arXiv:2406.14024",
        notes="No hub name is stated. There the bare number is compared with 0, here its sigmoid with 0.5.",
    ),
    Checkpoint(
        ("THUNLP/AgentRM-8B", "THU-KEG/AgentRM-8B"),
        Conversation(prompt_format="{prompt}", max_length=8192, too_long="drop"),
        Readout("value"),
        source="arXiv:2502.18407",
        notes="Not checked against its code, which could not be read: the chat up to an action, read at the end of "
        "its message. Scores are bare numbers.",
    ),
    Checkpoint(
        (
            "rl-llm-agent/Llama-3.2-3B-Instruct-reward-alfworld-iter0",
            "rl-llm-agent/Llama-3.2-3B-Instruct-reward-alfworld-iter1",
            "rl-llm-agent/Llama-3.2-1B-Instruct-reward-alfworld-iter0-iter1",
        ),
        Conversation(prompt_format="{prompt}", max_length=2048, too_long="drop"),
        source="repository agent_prm src/agent_prm/critics/open_instruct_critic.py and "
        "scripts/train/rm.py; arXiv:2502.10325",
        notes="There each decision is a problem of its own: the prompt is its template filled with task, history, "
        "observation and candidate actions, the one step is 'REASON:\\n...\\nACTION:\\n...'. Later messages, "
        "which are scored here too, are beyond what it was trained on. Its critics return the logit; it is trained "
        "with a logistic loss, whose probability is given here.",
    ),
    Checkpoint(
        ("URSA-MATH/URSA-RM-8B",),
        replace(_NUMBERED, prompt_format=_URSA, separator=" и", images="refused"),
        source="repository URSA-MATH inference/prm_infer_score.py and "
        "models/ursa_model/modeling_ursa.py; arXiv:2501.04686",
        architectures=("UrsaForTokenClassification",),
        notes="Its language model alone, for problems without images; its image tower is not loaded, and its published "
        "use has an image before every question. The tag goes behind each step, where its script looks for 'Step 1', "
        "'Step 2' in the text and also cuts steps that mention another one. Not checked on its own weights: that its "
        "configuration's chat template is that of Qwen2.5.",
    ),
)
