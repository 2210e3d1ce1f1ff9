"""The trainer: Hugging Face's, with batches of packed trees and step metrics."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from packaging.version import Version
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments
from transformers.integrations import TensorBoardCallback

from stepreward.core.atomic_files import locked_folder, read_object, to_disk, write_json
from stepreward.core.errors import InputError, ModelError, StoreError
from stepreward.core.hub import name_of
from stepreward.core.keys import Key
from stepreward.core.tree import StepTree
from stepreward.score.encode.packing import FLEX
from stepreward.score.model.log_ratio_model import LogRatioModel, Trainable
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.weights import find
from stepreward.score.model.without_bars import without_bars
from stepreward.train.checkpoints import last_complete, open_work
from stepreward.train.data import (
    TrainingBatch,
    TrainingSet,
    fingerprint,
    nothing_to_learn,
    once_per_node,
)
from stepreward.train.domain_weights import DomainWeights, drawn
from stepreward.train.evaluation import evaluate_batches, read_batches
from stepreward.train.objective import OF_FEATURES, Objective
from stepreward.train.parameters import prepare, trained_names
from stepreward.train.processes import is_main, processes, refuse_deepspeed, whole_state
from stepreward.train.reference import add_references, weights_hash
from stepreward.train.row_data import ANNOTATOR
from stepreward.train.settings import HIGHER_IS_BETTER, OPTIMIZERS, RESULT_FILE, UNFINISHED, TrainSettings
from stepreward.train.training_progress import Clock, EverySomeSteps, OnProgress, Progress, SaveInTime, StopIfDiverged

ANNOTATORS_FILE = "annotators.json"
"""In a checkpoint: the formula of each annotator's score, and of their mean under ""."""
_WEIGHTS_FILE = "domain_weights.json"
"""In a checkpoint of unfinished work: the state of the weights of domains."""
_NO_MATTER = ("device", "save_seconds", "activation_checkpoints", "report_to")
"""Where it runs and how often it saves do not change the weights: a run may be resumed with other values."""
_BY_LAYER = True if Version(transformers.__version__) >= Version("5.20") else "full_shard auto_wrap"
"""How the trainer is told to shard layer by layer: newer releases do so by themselves, and warn of the text."""
_WRITERS = ("PytorchStreamWriter", "inline_container")
"""Words in PyTorch's errors about a file that it cannot write."""


@dataclass
class TrainResult:
    """The result of training."""

    folder: Path
    """A checkpoint that `stepreward.load` accepts; its `training.json` holds the fields below."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics by step: loss, and the evaluations (`eval_` and the metric's name); undefined ones are left out."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the kept model, by `evaluation.evaluate_batches`; undefined ones are left out."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals of metrics over held-out problems, by `evaluation.Readings.intervals`."""
    tokens: int = 0
    """Tokens of one pass over the data, each shared prefix once."""
    seconds: float = 0.0
    """Wall time of this call."""
    steps: int = 0
    """Steps of the optimizer, those before a resume included."""
    domains: dict[str, dict[str, float]] = field(default_factory=dict)
    """By domain, where the data has several: its `tokens` in the whole training, its last `weight` where domains are
    weighed, and the metrics of the kept model."""


class StepTrainer(Trainer):  # type: ignore[misc]
    """Hugging Face's trainer with a packed forward pass, batches in their own order and step metrics."""

    control: Any

    def __init__(
        self, *, objective: Objective, held_out: TrainingSet, weights: DomainWeights | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.objective, self.held_out, self.weights = objective, held_out, weights
        self.of_step: tuple[list[TrainingBatch], torch.Tensor] | None = None
        """The last step's batches, and its counts."""
        # Our losses are divided by the counts of a whole step, not by the number of its batches.
        self.model_accepts_loss_kwargs = True
        self.remove_callback(PrinterCallback)

    # The training set has decided the order already; the trainer's own shuffle would undo it.
    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The batches of a step, and the (M,) counts of what they supervise in all processes together."""
        batches = [one for _, one in zip(range(num_batches), epoch_iterator, strict=False)]
        if not batches:
            return [], None
        counts = torch.stack([self.objective.counts(one["batch"]) for one in batches]).sum(0)
        counts = self.accelerator.reduce(counts.to(device), "sum")
        self.of_step = [one["batch"] for one in batches], counts
        return batches, counts

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """This batch's part of the loss of a step: parts of all batches and processes add up to it."""
        batch: TrainingBatch = inputs["batch"].to(self.args.device)
        outputs = model(batch.packed)
        if self.weights is None:
            loss = self.objective(self.model, outputs, batch)
        else:
            loss = self.weights.loss(self.objective, self.model, outputs, batch)
        # Processes average their gradients, where the parts must be summed.
        counts = loss.counts if num_items_in_batch is None else num_items_in_batch / self.args.world_size
        value = loss.over(counts)
        return (value, outputs) if return_outputs else value

    def weigh_domains(self, outer: Objective, meta: TrainingBatch) -> None:
        """One step of the weights of domains, by a batch of the data that they are learned from."""
        assert self.weights is not None, "it is for a training with weights"
        assert self.of_step is not None, "it follows a step"
        batches, counts = self.of_step
        here = [one.to(self.args.device) for one in batches]
        self.weights.learn(
            self.objective, self.model, here, counts, (outer, meta.to(self.args.device)),
            lambda losses: self.accelerator.reduce(losses, "sum"),
        )  # fmt: skip

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the weights of domains to what is logged."""
        named = {f"weight_{name}": value for name, value in self.weights.weights.items()} if self.weights else {}
        super().log({**logs, **named}, *args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.weights is not None and is_main():
            write_json(Path(output_dir) / _WEIGHTS_FILE, self.weights.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.weights is not None and checkpoint is not None:
            remedy = "delete the folder of unfinished work to start over"
            self.weights.load_state_dict(read_object(Path(checkpoint) / _WEIGHTS_FILE, remedy=remedy))

    # A checkpoint of unfinished work has what training changes; frozen weights come from the backbone again.
    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        whole = self.model.state_dict() if state_dict is None else state_dict
        changed = trained_names(self.model)
        super()._save(output_dir, {name: value for name, value in whole.items() if name in changed})

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        lost = sorted({*load_result.missing_keys} & trained_names(self.model)) + sorted(load_result.unexpected_keys)
        if lost:
            raise ModelError(
                f"the checkpoint of the unfinished training is of another model: see {', '.join(lost[:3])}"
            )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The metrics of `evaluate_batches` on the held-out trees, each with the prefix `eval_`."""
        metrics = evaluate_batches(self.model, self.held_out, self.objective)
        named = {f"eval_{name}": value for name, value in metrics.items()}
        self.log(dict(named))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named


def train(
    trees: Sequence[StepTree],
    model: Trainable,
    out: Path,
    settings: TrainSettings | None = None,
    *,
    held_out: Sequence[StepTree] = (),
    meta: Sequence[StepTree] = (),
    on_progress: OnProgress | None = None,
) -> TrainResult:
    """Trains a step reward model and writes it as a checkpoint; continues where a killed training stopped.

    Continued or not, the same seed gives the same weights (on a CPU; to the accelerator's reproducibility elsewhere).

    Args:
        trees: trees with the step column `label`, to learn from.
        model: the model to train, in place.
        out: folder of the checkpoint; unfinished work is in `out/unfinished` until the end.
        settings: hyper-parameters.
        held_out: such trees to evaluate on, which pick the best checkpoint; without them the last model is kept.
        meta: trees with what `settings.domain_objective` reads, from which the weights of domains are learned.
        on_progress: called at most twice a second.

    Returns:
        The checkpoint's folder and its metrics.

    Raises:
        InputError: there is nothing to learn from, or `out` holds the unfinished work of another training.
        ModelError: the loss became infinite or NaN, or a package that the settings need is not installed.
        StoreError: the folder cannot be written.
        UnknownNameError: no such objective, or hyper-parameter of it.
    """
    settings, out = settings or TrainSettings(), Path(out)
    settings.require_packages()
    refuse_deepspeed()
    objective = settings.loss()
    if settings.merge and not isinstance(model, StepRewardModel):
        raise InputError("merge is for models with a head", remedy="leave it out: `load` adds adapters to the weights")
    settings.require_meta(bool(meta))
    data = _training_set(trees, model, settings, objective)
    if "users" in objective.method.data and isinstance(model, StepRewardModel):
        objective = data.objective = _with_annotators(objective, data, model, settings)
    if isinstance(model, StepRewardModel):
        model.with_features = bool({*OF_FEATURES} & {*objective.method.data})
    identity = _identity(trees, held_out, model, settings, meta)
    prepare(model, settings)
    # Its processes, if there are several, find each other here. The first one alone writes what is not the trainer's.
    arguments = _arguments(settings, out / UNFINISHED, len(data), bool(held_out))
    with _together(), locked_folder(out) if is_main() else nullcontext():
        if is_main():
            open_work(out, identity)
        arguments.distributed_state.wait_for_everyone()
        result = _trained(data, model, arguments, settings, objective, held_out, meta, on_progress)
        # Every process takes part in collecting the weights of a sharded model.
        state = whole_state(model) if settings.shard else None
        if is_main():
            _save(result, model, state, settings, identity, {"data": _size(trees), "held_out": _size(held_out)})
            shutil.rmtree(out / UNFINISHED)
        arguments.distributed_state.wait_for_everyone()
    return result


def _trained(
    data: TrainingSet, model: Trainable, arguments: Any, settings: TrainSettings, objective: Objective,
    held_out: Sequence[StepTree], meta: Sequence[StepTree], on_progress: OnProgress | None,
) -> TrainResult:  # fmt: skip
    """Trains in the folder of unfinished work that the arguments name."""
    start, clock, work = time.perf_counter(), Clock(), Path(arguments.output_dir)
    batches = TrainingSet(
        held_out, model.encoder, objective, row_tokens=settings.row_tokens, batch_tokens=settings.batch_tokens
    )
    outer = settings.domain_loss()
    outside = TrainingSet(
        meta, model.encoder, outer, row_tokens=settings.row_tokens, batch_tokens=settings.batch_tokens
    )
    if meta and not len(outside):
        raise nothing_to_learn(outer)
    weighs = bool(settings.domain_weights) or settings.domain_rate > 0
    weights = DomainWeights([*data.domains], settings.domain_weights, settings.domain_rate) if weighs else None
    if isinstance(model, LogRatioModel):
        # One process computes what all of them then read.
        with arguments.distributed_state.main_process_first():
            add_references((data, batches, outside), model, settings, str(arguments.device), work)
    trainer = StepTrainer(
        objective=objective,
        held_out=batches,
        weights=weights,
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=batches,
        data_collator=_whole_batch,
        callbacks=[*_callbacks(settings, data, on_progress, len(batches) > 0, work.parent), clock],
    )
    if settings.domain_rate:
        key = Key.seed(settings.seed).fold("meta")
        learn = lambda number: trainer.weigh_domains(outer, drawn(outside, number, key))  # noqa: E731
        trainer.add_callback(EverySomeSteps(settings.domain_every, learn))
    if settings.attention == "flex":
        model.backbone.set_attn_implementation(FLEX)
    _run_trainer(trainer, work)
    if settings.attention == "flex":
        model.backbone.set_attn_implementation("sdpa")
    # Without the casts that Accelerate puts around it: in memory the model computes as it will from its folder.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    # The log history includes steps before a resume; our last row covers the whole training, the trainer's does not.
    rows = [row for row in trainer.state.log_history if "train_runtime" not in row]
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    steps = np.diff([0, *(step for step, _ in losses)])
    last = {"step": trainer.state.global_step, "epoch": trainer.state.epoch or 0.0, "train_runtime": clock.seconds}
    if losses:
        last["train_loss"] = float(np.average([loss for _, loss in losses], weights=steps))
    if objective.annotators and isinstance(model, StepRewardModel) and model.users is not None:
        formulas = objective.annotator_formulas(model.record.readout, model.users.weight.detach().cpu().numpy())
        model.record = replace(model.record, readout=objective.trained_readout(model.record.readout, formulas))
        if is_main():
            write_json(work.parent / ANNOTATORS_FILE, formulas)
    readings = read_batches(model, batches, objective) if len(batches) else None
    by_domain = len({*data.domains, *batches.domains}) > 1
    domains = _by_domain(data, batches, model, objective, weights) if by_domain else {}
    if isinstance(model, StepRewardModel):
        model.with_features = False
    return TrainResult(
        work.parent,
        # To the inner trainer all passes over the data are one epoch.
        [_finite(row | {"epoch": row["epoch"] * settings.epochs} if "epoch" in row else row) for row in [*rows, last]],
        _finite(readings.metrics()) if readings else {},
        readings.intervals() if readings else {},
        data.tokens,
        time.perf_counter() - start,
        trainer.state.global_step,
        domains,
    )


def _by_domain(
    data: TrainingSet, held_out: TrainingSet, model: Trainable, objective: Objective, weights: DomainWeights | None
) -> dict[str, dict[str, float]]:
    """For each domain, the tokens that were planned, its weight, and the metrics on its held-out trees."""
    made = {name: {"tokens": float(size)} for name, size in data.tokens_by_domain().items()}
    for name, weight in (weights.weights if weights else {}).items():
        made[name]["weight"] = weight
    for name in held_out.domains:
        made.setdefault(name, {"tokens": 0.0})
        made[name] |= _finite(evaluate_batches(model, held_out.of_domain(name), objective))
    return made


def _training_set(
    trees: Sequence[StepTree], model: Trainable, settings: TrainSettings, objective: Objective
) -> TrainingSet:
    if not trees:
        raise InputError("there is no labelled tree to learn from", remedy="label some trajectories first")
    if objective.of_ratios != isinstance(model, LogRatioModel):
        has, wants = ("log-ratios", "a head") if isinstance(model, LogRatioModel) else ("a head", "log-ratios")
        what = f"{objective.method.name} trains {wants}, the model has {has}"
        raise InputError(what, remedy="take the model that train.scratch.starting_model makes for the objective")
    width = model.record.readout.n_labels
    if {"outputs", "ends"} & {*objective.method.data} and width != objective.n_outputs:
        raise InputError(
            f"{objective.method.name} trains {objective.n_outputs} outputs a step, the model's head has {width}",
            remedy="start from a backbone, whose head is made for the objective",
        )
    data = TrainingSet(
        (once_per_node(tree, settings.labels) if settings.weigh == "node" else tree for tree in trees),
        model.encoder,
        objective,
        row_tokens=settings.row_tokens,
        batch_tokens=settings.batch_tokens,
        epochs=settings.epochs,
        mix=settings.mix,
        key=Key.seed(settings.seed).fold("train"),
        processes=processes(),
    )
    if not len(data):
        raise nothing_to_learn(objective)
    return data


def _with_annotators(
    objective: Objective, data: TrainingSet, model: StepRewardModel, settings: TrainSettings
) -> Objective:
    """The objective with the names of those who compared the data; the model gets numbers of each."""
    if not data.annotators:
        what = f"{objective.method.name} needs to know who compared each pair"
        raise InputError(what, remedy=f"pass solutions with the fact {ANNOTATOR!r}")
    if settings.shard:
        raise InputError(f"{objective.method.name} cannot be trained in shards", remedy="leave shard out")
    model.add_annotators(len(data.annotators), seed=settings.seed)
    return replace(objective, annotators=data.annotators)


def _identity(
    trees: Sequence[StepTree], held_out: Sequence[StepTree], model: Trainable, settings: TrainSettings,
    meta: Sequence[StepTree] = (),
) -> dict[str, Any]:  # fmt: skip
    """Everything that decides the final weights."""
    frozen = [name for name in (model.record.readout.reference, settings.guide) if name]
    objective = settings.loss()
    decides = {name: value for name, value in asdict(settings).items() if name not in _NO_MATTER}
    return {
        **decides,
        # A step has the batches of all processes, so that another number of them can go on with it.
        "accumulate": settings.accumulate * processes(),
        "data": fingerprint(trees, objective),
        "held_out": fingerprint(held_out, objective),
        # The data decide how many annotators there are.
        "model": {name: list(p.shape) for name, p in model.named_parameters() if not name.startswith("users.")},
        "record": asdict(model.record),
        **({"meta": fingerprint(meta, settings.domain_loss())} if meta else {}),
        **({"frozen": [weights_hash(find(name)) for name in frozen]} if frozen else {}),
    }


def _size(trees: Sequence[StepTree]) -> dict[str, int]:
    return {"problems": len(trees), "solutions": sum(len(tree.ends) for tree in trees)}


def _whole_batch(items: Sequence[TrainingBatch]) -> dict[str, TrainingBatch]:
    """Each item of the training set is a batch already: there is nothing to collate."""
    return {"batch": items[0]}


def _not_mtime(record: logging.LogRecord) -> bool:
    """Drops a warning about checkpoints written within a second of each other: we order them by number."""
    return "mtime may not be reliable" not in record.getMessage()


@contextmanager
def _together() -> Iterator[None]:
    """Says that another process is gone, where this one waits for it in vain."""
    try:
        yield
    except RuntimeError as error:
        if processes() == 1 or not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        what = "another process of this training has ended, this one cannot go on alone"
        raise ModelError(f"{what}; see that one's error, and run again to resume") from error


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    """Turns errors of others about a file that cannot be written into ours."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        foreign = isinstance(error, OSError | SafetensorError) or any(name in str(error) for name in _WRITERS)
        if isinstance(error, ModelError) or not foreign:
            raise
        reason = " ".join(str(error).split())
        raise StoreError(f"cannot write {folder}: {reason}; free some space and run again to resume") from error


def _run_trainer(trainer: StepTrainer, work: Path) -> None:
    """Trains from the last checkpoint, if there is one."""
    logger = logging.getLogger("transformers.trainer_utils")
    logger.addFilter(_not_mtime)
    state = trainer.args.distributed_state
    try:
        with _clear_errors(work):
            # One process looks first and deletes what is damaged; the others then find what it left.
            with state.main_process_first():
                newest = last_complete(work)
            trainer.train(resume_from_checkpoint=newest)
    finally:
        logger.removeFilter(_not_mtime)


def _save(
    result: TrainResult,
    model: Trainable,
    state: Mapping[str, torch.Tensor] | None,
    settings: TrainSettings,
    identity: Mapping[str, Any],
    sizes: Mapping[str, Mapping[str, int]],
) -> None:
    with without_bars(), _clear_errors(result.folder):
        model.eval().save_pretrained(result.folder, state)
        if settings.merge:
            _merge(result.folder)
        for path in result.folder.iterdir():
            if path.is_file():
                to_disk(path)
    about = {"backbone": name_of(model.backbone.config.name_or_path), "sizes": dict(sizes), "identity": dict(identity)}
    row = {"version": 1, "settings": asdict(settings), **asdict(result), **about}
    del row["folder"]
    write_json(result.folder / RESULT_FILE, row)


def _merge(folder: Path) -> None:
    """Replaces a checkpoint of adapters by one of whole weights."""
    # In the numbers that the base was saved in, to which each sum is rounded once.
    StepRewardModel.from_pretrained(folder, dtype="auto").save_pretrained(folder)


def finished(
    trees: Sequence[StepTree],
    model: Trainable,
    out: Path,
    settings: TrainSettings,
    held_out: Sequence[StepTree] = (),
    meta: Sequence[StepTree] = (),
) -> TrainResult | None:
    """The result in `out` of a finished training with the same data and settings; None where there is none."""
    try:
        row = json.loads((out / RESULT_FILE).read_text(encoding="utf-8"))
        if row["identity"] != json.loads(json.dumps(_identity(trees, held_out, model, settings, meta))):
            return None
        return TrainResult(
            out,
            *(row[name] for name in ("history", "metrics", "intervals", "tokens", "seconds", "steps", "domains")),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """The finite numbers: JSON has no NaN."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _arguments(settings: TrainSettings, work: Path, batches: int, evaluates: bool) -> Any:
    # `max_steps` and not epochs: the training set has the batches of all passes in its own order.
    # Their number is a multiple of that of the processes, which take turns.
    steps = math.ceil(batches / processes() / settings.accumulate)
    every = max(1, steps // settings.evaluations)
    return TrainingArguments(
        output_dir=str(work),
        # One item of the training set is a whole batch of packed trees.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.accumulate,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        # The first step of a warm-up has a learning rate of 0: a run of a single one would learn nothing.
        warmup_steps=min(max(settings.warmup > 0, int(steps * settings.warmup)), steps - 1),
        optim=OPTIMIZERS[settings.optimizer][0],
        max_grad_norm=settings.clip,
        logging_steps=max(1, steps // 50),
        eval_strategy="steps" if evaluates else "no",
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=evaluates,
        metric_for_best_model=settings.metric,
        greater_is_better=HIGHER_IS_BETTER[settings.metric],
        restore_callback_states_from_checkpoint=True,
        seed=settings.seed % 2**32,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        **({"fsdp": _BY_LAYER, "fsdp_config": {"version": 2}} if settings.shard else {}),
        use_cpu=settings.device == "cpu",
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        # The loss reads our batch object, of which the trainer knows no columns and no labels.
        remove_unused_columns=False,
        label_names=[],
        report_to=[name for name in settings.report_to if name != "tensorboard"],
        project="stepreward",
        run_name=work.parent.name,
        disable_tqdm=True,
        logging_nan_inf_filter=False,
    )


def _callbacks(
    settings: TrainSettings, data: TrainingSet, on_progress: OnProgress | None, evaluates: bool, out: Path
) -> list[Any]:
    made: list[Any] = [StopIfDiverged(), SaveInTime(settings.save_seconds)]
    if on_progress is not None:
        made.append(Progress(on_progress, data.sizes, settings.accumulate * processes()))
    if settings.patience and evaluates:
        made.append(EarlyStoppingCallback(early_stopping_patience=settings.patience))
    if "tensorboard" in settings.report_to:
        # By itself it would write into the folder of unfinished work, which goes at the end.
        board = TensorBoardCallback()
        board.logging_dir = board.logging_dir or str(out / "tensorboard")
        made.append(board)
    return made
