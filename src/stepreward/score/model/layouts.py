"""Layouts in which a step reward model is written for other libraries, one row a layout; importing this loads no torch.

`load` reads each of them back: it knows a head by the names of its weights, and the record beside them says the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Layout:
    """How weights and configuration are laid out, and what such a model can express."""

    name: str
    """As the command line takes it."""
    readers: str
    """The libraries that load it."""
    architecture: str
    """Of its configuration; empty for the class of the backbone's family in transformers."""
    task: Literal["", "token", "sequence"] = ""
    """Of transformers' Auto class; empty where transformers has no class of this layout."""
    outputs: Literal["any", "one", "two"] = "any"
    """Labels of the head: those of the model, one logit, or the wrong label and the right one."""
    bias: bool = True
    """Whether the head has a bias."""
    family: str = ""
    """`model_type` of the backbones that it is for; empty for every one."""
    adapter: bool = False
    """Whether it holds adapters without their base."""
    like: str = ""
    """Row of the table of checkpoints whose other members have this layout."""


OWN = Layout("stepreward", "stepreward alone: any head, readout and encoding", "")
LAYOUTS = {
    row.name: row
    for row in (
        OWN,
        Layout("token-classification", "transformers, vLLM", "", "token"),
        Layout("sequence-classification", "transformers, vLLM, TRL's RewardTrainer", "", "sequence", bias=False),
        Layout("trl-prm", "transformers, vLLM, TRL up to 1.13", "", "token", "two", like="trl-prm"),
        Layout("adapter", "PEFT, as adapters of a token classifier", "", "token", adapter=True),
        Layout(
            "qwen-prm", "vLLM, and the code of Qwen2.5-Math-PRM", "Qwen2ForProcessRewardModel", outputs="two",
            family="qwen2", like="Qwen/Qwen2.5-Math-PRM-7B",
        ),
        Layout(
            "qwen-reward", "vLLM, SGLang, and the code of Qwen2.5-Math-RM", "Qwen2ForRewardModel", outputs="one",
            family="qwen2",
        ),
    )
}  # fmt: skip
"""Every layout, by its name."""
