"""Hyper-parameters of training, checked before torch is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from stepreward.core.catalog import loss as losses
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.optional import Deferred, require_installed
from stepreward.core.types import LABEL, Trajectory
from stepreward.core.vocabulary import Flag
from stepreward.train.data.factors import Factor
from stepreward.train.data.merged_steps import with_compressed_nodes, with_merged_steps
from stepreward.train.objective import Objective
from stepreward.train.processes import processes, with_deepspeed

torch = Deferred("torch")
HIGHER_IS_BETTER = {"f1": True, "auroc": True, "brier": False, "ece": False, "loss": False}
"""Metrics that may pick the best checkpoint."""
RESULT_FILE = "training.json"
"""File in a finished checkpoint with its measurements."""
UNFINISHED = "unfinished"
"""Folder of unfinished work in the folder of the checkpoint."""
OPTIMIZERS = {
    "adamw": ("adamw_torch_fused", 8),
    "adamw-8bit": ("adamw_bnb_8bit", 2),
    "paged-adamw-8bit": ("paged_adamw_8bit", 2),
    "adafactor": ("adafactor", 0),
    "sgd": ("sgd", 0),
}
"""Optimizers by name: each one's name in transformers, and the bytes that it keeps for a trained number; Adafactor's
sums of rows and columns are left out."""
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""Packages that a training may report to."""
_CHOICES = {
    "attention": ("dense", "flex"),
    "load_in": ("full", "8bit", "4bit"),
    "optimizer": tuple(OPTIMIZERS),
    "precision": ("float32", "bf16", "fp16"),
    "schedule": ("cosine", "linear", "constant"),
    "weigh": ("trajectory", "node"),
}
MEMORY_KINDS = ("weights", "gradients", "optimizer", "activations")
"""Kinds of memory that a training takes, as `train.memory.Memory` names them."""
POINTWISE = ("bce", "mse", "agent-rm", "quantile", "distillation")
"""Objectives whose steps do not depend on each other, so that each node can count once."""
SCRATCH = "scratch"
"""In place of a backbone: a small fresh model."""


@dataclass(frozen=True)
class TrainSettings:
    """Hyper-parameters of training.

    Raises:
        ValueError: a number is outside its range.
        UnknownNameError: no such metric.
    """

    objective: Annotated[str, Flag(choices=losses)] = "bce"
    """The loss to minimise: {choices}."""
    epochs: float = 3.0
    """Passes over the data, at least one batch."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after the warm-up: it decays to 0 by a cosine or a line, or stays."""
    warmup: Annotated[float, Flag(low=0.0, high=1.0)] = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: Annotated[float, Flag(low=0.0)] = 0.01
    """Decoupled weight decay."""
    clip: Annotated[float, Flag(low=0.0)] = 1.0
    """Longest gradient; longer ones are shortened to it. 0 clips none."""
    optimizer: Annotated[str, Flag(choices=OPTIMIZERS)] = "adamw"
    """{choices}; those in 8 bits need `bitsandbytes`."""
    batch_tokens: int = 8192
    """Tokens of a batch, padding included."""
    row_tokens: int = 512
    """Tokens of a packed row; wider trees are cut."""
    evaluations: int = 4
    """Evaluations over the whole training, checkpoints with them."""
    patience: Annotated[int, Flag(low=0)] = 0
    """Stop after this many evaluations in a row without a better metric; 0: never."""
    metric: Annotated[str, Flag(choices=HIGHER_IS_BETTER)] = "loss"
    """Picks the checkpoint, the earliest of equals: {choices}. The loss is always defined and does not saturate as
    ranks do."""
    seed: int = 0
    """Seed of the order of batches and, on the command line, of fresh weights."""
    device: str = "cpu"
    """cpu, cuda, or auto for the best available one; CUDA_VISIBLE_DEVICES chooses one of several GPUs."""
    objective_settings: Annotated[Mapping[str, Any], Flag(hidden=True)] = field(default_factory=dict)
    """Hyper-parameters of the objective, by name."""
    labels: str = LABEL
    """Column of the data that an objective with one target a step learns from."""
    targets: tuple[str, ...] = ()
    """Columns that an objective with several outputs a step learns from, one an output; may be repeated."""
    outputs: Annotated[int, Flag(low=0)] = 0
    """Outputs of a step, for an objective that leaves them open; 0: as many as it needs."""
    readout: str = ""
    """Formula of a step's score from the outputs, such as "success + 1.5 * correct"; empty: the objective's own."""
    mix: Annotated[Mapping[str, float], Flag(hidden=True)] = field(default_factory=dict)
    """Share of each domain in the tokens of every pass, any positive numbers; empty takes each tree once a pass."""
    domain_weights: Annotated[Mapping[str, float], Flag(hidden=True)] = field(default_factory=dict)
    """Weight of each domain in the loss, any positive numbers, of which their ratios count; 1 for a domain without."""
    domain_rate: Annotated[float, Flag(low=0.0)] = 0.0
    """Learning rate of the weights of domains, such as 0.01, so that the loss on the meta data falls (DreamPRM); 0
    leaves them as they are."""
    domain_every: Annotated[int, Flag(low=1)] = 5
    """Steps of the optimizer to a step of these weights."""
    domain_objective: Annotated[str, Flag(choices=losses)] = "outcome-of-steps"
    """The loss on the meta data, whose hyper-parameters --set takes too: {choices}."""
    domain_settings: Annotated[Mapping[str, Any], Flag(hidden=True)] = field(default_factory=dict)
    """Hyper-parameters of the loss on the meta data, by name."""
    prompt_format: str = ""
    """Text of a prompt, with {prompt} for the problem and perhaps {reference} for its reference answer, which makes a
    verifier of problems with known answers; empty: the problem and a line break, or with --keep-head as before."""
    both_ways: bool = False
    """Read steps also from the last to the first (BiPRM): for whole solutions, not searches."""
    merge_steps: Annotated[float, Flag(low=0.0, high=1.0)] = 0.0
    """Share of pairs of neighbouring steps that are taught as one step too, with the later one's label (HRM)."""
    compress: bool = False
    """Let steps with 4 children or more pass one on to their parent, merged, and count their labels anew (HRM)."""
    weigh: Literal["trajectory", "node"] = "trajectory"
    """A step that m trajectories share weighs m times, or once."""
    accumulate: int = 1
    """Batches to a step of the optimizer."""
    polyak: Annotated[float, Flag(low=0.0, high=1.0)] = 0.1
    """Share of the trained weights that a lagging copy takes over after each step of the optimizer, for objectives with
    targets of one (archer, beer): a second forward pass. 1: targets of the model itself, without a copy."""
    reference: str = ""
    """Frozen language model (folder or hub name) of a log-ratio model: it has no head, the reward of a step is beta
    times its log-ratio to the reference. Empty: the backbone, with objectives that ask for one such as dpo."""
    beta: float = 0.05
    """Scale of log-ratios to the reference, in the loss and in the scores."""
    factors: tuple[str, ...] = ()
    """Facts that decide which of two solutions is better, the most important first, in place of the outcome: NAME, or
    NAME:MARGIN for the least clear difference; -NAME where less is better. May be repeated."""
    guide: str = ""
    """Language model whose log-ratio to the reference weighs tokens, for tgdpo."""
    teacher: str = ""
    """Reward model (folder or hub name) whose score behind every token saffron learns."""
    contrast: tuple[str, ...] = ()
    """A better and a worse prompt, with {prompt} for the problem, by whose log-ratio t-reg weighs tokens: given
    twice."""
    shard: bool = False
    """Split weights, gradients and optimizer states over the processes (FSDP2); each has them whole otherwise."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Numbers of the forward pass and of frozen weights; weights that are trained and losses stay in float32."""
    attention: Literal["dense", "flex"] = "dense"
    """By a mask of T x T tokens, or compiled flex attention, which skips hidden blocks: for long rows on CUDA."""
    activation_checkpoints: bool = False
    """Keep only the inputs of layers for the backward pass and compute the rest again: less memory, more time."""
    freeze: tuple[str, ...] = ()
    """Parameters that are not trained, by name with * for any text, such as `backbone.*`; may be repeated."""
    lora_rank: Annotated[int, Flag(low=0)] = 0
    """Train low-rank adapters of this rank and the head, by `peft`, and freeze the backbone; 0: no adapters."""
    lora_alpha: Annotated[float, Flag(low=0.0)] = 0.0
    """Scale of the adapters, divided by their rank; 0: twice the rank."""
    lora_dropout: Annotated[float, Flag(low=0.0, high=1.0)] = 0.0
    """Share of the inputs of adapters that is dropped."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Names of the layers with adapters, such as q_proj; may be repeated."""
    load_in: Literal["full", "8bit", "4bit"] = "full"
    """Numbers of the backbone under adapters: those of its precision, or quantized to 8 or 4 bits by `bitsandbytes`."""
    merge: bool = False
    """Add adapters to the weights at the end and write a whole model; the adapters alone are written otherwise."""
    report_to: Annotated[tuple[str, ...], Flag(choices=TRACKERS)] = ()
    """Where losses and metrics are sent while training: {choices}, each installed; may be repeated. TensorBoard's files
    are in OUT/tensorboard; TENSORBOARD_LOGGING_DIR names another folder."""
    save_seconds: float = 300.0
    """Seconds between checkpoints of unfinished work, at most; a kill costs no more."""

    def __post_init__(self) -> None:
        if self.metric not in HIGHER_IS_BETTER:
            raise UnknownNameError("metric", self.metric, HIGHER_IS_BETTER)
        for name in ("epochs", "learning_rate", "batch_tokens", "row_tokens", "evaluations", "accumulate", "beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.polyak <= 1:
            raise ValueError(f"polyak must be in (0, 1], got {self.polyak}")
        if bad := {name: share for name, share in self.mix.items() if not 0 < share < math.inf}:
            raise ValueError(f"the shares of a mix must be positive numbers, got {bad}")
        if bad := {name: one for name, one in self.domain_weights.items() if not 0 < one < math.inf}:
            raise ValueError(f"weights of domains must be positive numbers, got {bad}")
        if self.domain_rate and (self.shard or self.precision == "fp16"):
            raise ValueError("domain_rate compares losses of whole models in float32 or bf16: drop shard and fp16")
        if self.device not in ("cpu", "cuda", "auto"):
            raise ValueError(f"device must be cpu, cuda or auto, got {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device 'cuda' is not available: pass cpu, or auto for the best available one")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}; got {getattr(self, name)!r}")
        on_cuda = self.device != "cpu" and torch.cuda.is_available()
        if self.attention == "flex" and not on_cuda:
            raise ValueError("attention flex is trained on CUDA devices alone: PyTorch has no gradient of it elsewhere")
        if self.precision == "fp16" and not on_cuda:
            raise ValueError("precision fp16 needs a CUDA device (device cuda or auto): bf16 is for every device")
        for name in self.report_to:
            if name not in TRACKERS:
                raise UnknownNameError("place to report to", name, TRACKERS)
        for name, wanted in (("merge", self.merge), ("load_in", self.load_in != "full")):
            if wanted and not self.lora_rank:
                raise ValueError(f"{name} is for adapters: pass lora_rank too")
        if self.shard and self.load_in != "full":
            raise ValueError(f"a backbone in {self.load_in} is not split over processes: leave shard or load_in out")
        if self.shard and processes() == 1:
            raise ValueError(
                "shard splits a model over several processes: start them with torchrun or accelerate launch"
            )
        if with_deepspeed():
            self._check_deepspeed()
        if self.weigh == "node" and self.objective not in POINTWISE:
            raise ValueError(
                f"{self.objective} compares the steps of a trajectory and cannot weigh nodes: use weigh='trajectory'"
            )
        if self.prompt_format and "{prompt}" not in self.prompt_format:
            raise ValueError(f"prompt_format must hold {{prompt}}, got {self.prompt_format!r}")
        if len(self.contrast) not in (0, 2) or not all("{prompt}" in one for one in self.contrast):
            raise ValueError(f"contrast is two prompts that hold {{prompt}}, got {self.contrast}")

    def _check_deepspeed(self) -> None:
        """Refuses what was not tried with DeepSpeed, or what it would leave aside without a word.

        Raises:
            ValueError: there is such a setting.
        """
        wrong = {
            "device=cpu": self.device == "cpu",
            "shard": self.shard,
            "precision=fp16": self.precision == "fp16",
            f"load_in={self.load_in}": self.load_in != "full",
            "domain_rate": self.domain_rate > 0,
        }
        if found := [name for name, there in wrong.items() if there]:
            what = f"a training under DeepSpeed takes no {', '.join(found)}"
            raise ValueError(f"{what}: change it (device=cuda or auto), or launch without DeepSpeed")

    @property
    def splits_weights(self) -> bool:
        """Whether a process may hold a part of the weights alone."""
        return self.shard or with_deepspeed()

    def on(self, backbone: str, resolve: Callable[[str], str]) -> TrainSettings:
        """The settings with their models as folders or hub names.

        Args:
            backbone: what training starts from; the reference where an objective asks for one and none is named.
            resolve: makes a folder or hub name of what a user writes.
        """
        asked = "reference" in losses[self.objective].asks
        reference = self.reference or (backbone if asked else "")
        guide, teacher = (one and resolve(one) for one in (self.guide, self.teacher))
        return replace(self, reference=reference and resolve(reference), guide=guide, teacher=teacher)

    def require_packages(self) -> None:
        """Checks that what a training with these settings needs beside PyTorch is here; its costs need none of it.

        Raises:
            ModelError: a package is not installed.
        """
        wanted = {"peft": self.lora_rank > 0, "bitsandbytes": "8bit" in self.optimizer or self.load_in != "full"}
        wanted["deepspeed"] = with_deepspeed()
        for name in (*(name for name, needed in wanted.items() if needed), *self.report_to):
            require_installed(name)

    @property
    def writes_adapters(self) -> bool:
        """Whether the checkpoint holds adapters without their base."""
        return self.lora_rank > 0 and not self.merge

    def augmented(self, rows: Sequence[Trajectory]) -> Sequence[Trajectory]:
        """The rows that are taught of a problem's rows, merged steps included."""
        key = Key.seed(self.seed).fold("merged steps")
        if self.compress:
            rows = [*rows, *with_compressed_nodes(rows, labels=self.labels, key=key)]
        return with_merged_steps(rows, share=self.merge_steps, key=key) if self.merge_steps else rows

    def require_meta(self, given: bool) -> None:
        """Checks that there is meta data where the weights of domains are learned, and only there.

        Raises:
            InputError: there is not, or nothing is learned from it.
        """
        asked = bool(self.domain_rate) or "meta" in losses[self.objective].asks
        if asked and not (given and self.domain_rate):
            what = "the weights of domains are learned from graded solutions in meta, at a domain_rate"
            raise InputError(what, remedy="pass both, such as domain_rate=0.01 (--meta FILE --domain-rate 0.01)")
        if given and not asked:
            raise InputError("nothing is learned from meta", remedy="pass domain_rate too, or leave meta out")

    @property
    def weighs_domains(self) -> bool:
        """Whether the losses of domains have weights, fixed or learned."""
        return bool(self.domain_weights) or self.domain_rate > 0

    def domain_loss(self) -> Objective:
        """The objective on the meta data, of a model as this training has it."""
        method = losses[self.domain_objective]
        return Objective(method, self.domain_settings, self.labels, reference=self.reference, beta=self.beta)

    def loss(self) -> Objective:
        """The objective with its hyper-parameters and columns.

        Raises:
            UnknownNameError: there is no such objective, or it has no such hyper-parameter.
            InputError: it needs columns that are not named, or `readout` is no formula of its outputs.
            ValueError: a hyper-parameter is outside its range.
        """
        method = losses[self.objective]
        if ("guide" in method.data) != (bool(self.guide) != bool(self.contrast)):
            needs = "weighs tokens: name a guide or two contrast prompts" if "guide" in method.data else "has no guide"
            raise InputError(f"the objective {method.name} {needs}")
        if ("teacher" in method.asks) != bool(self.teacher):
            what = "learns the scores of a teacher" if "teacher" in method.asks else "has no teacher"
            remedy = "name a reward model as teacher" if "teacher" in method.asks else "leave teacher out"
            raise InputError(f"the objective {method.name} {what}", remedy=remedy)
        return Objective(
            method, self.objective_settings, self.labels, self.targets, self.outputs, self.readout, self.reference,
            self.beta, factors=tuple(map(Factor.parse, self.factors)),
        )  # fmt: skip
