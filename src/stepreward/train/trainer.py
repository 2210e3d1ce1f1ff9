"""The trainer: Hugging Face's, with batches of packed trees and step metrics."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from stepreward.core.atomic_files import locked_folder, to_disk, write_json
from stepreward.core.errors import InputError, ModelError, StoreError
from stepreward.core.keys import Key
from stepreward.core.tree import StepTree
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.checkpoints import last_complete, open_work
from stepreward.train.data import TrainingBatch, TrainingSet, fingerprint, make_batches, once_per_node
from stepreward.train.evaluation import Objective, evaluate_batches
from stepreward.train.settings import HIGHER_IS_BETTER, RESULT_FILE, TrainSettings
from stepreward.train.training_progress import Clock, OnProgress, Progress, SaveInTime, StopIfDiverged

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
    tokens: int = 0
    """Tokens of one pass over the data, each shared prefix once."""
    seconds: float = 0.0
    """Wall time of this call."""
    steps: int = 0
    """Steps of the optimizer, those before a resume included."""


class StepTrainer(Trainer):  # type: ignore[misc]
    """Hugging Face's trainer with a packed forward pass, batches in their own order and step metrics."""

    control: Any

    def __init__(self, *, objective: Objective, held_out: Sequence[TrainingBatch], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.objective, self.held_out = objective, held_out
        self.remove_callback(PrinterCallback)

    # The training set has decided the order already; the trainer's own shuffle would undo it.
    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        """The objective on one batch."""
        batch: TrainingBatch = inputs["batch"]
        device = self.args.device
        logits = batch.gather(self.model.step_logits(model(batch.packed.to(device))))
        value = self.objective(logits, batch.labels.to(device), batch.mask.to(device))
        return (value, logits) if return_outputs else value

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The metrics of `evaluate_batches` on the held-out trees, each with the prefix `eval_`."""
        metrics = evaluate_batches(self.model, self.held_out, self.objective)
        named = {f"eval_{name}": value for name, value in metrics.items()}
        self.log(dict(named))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named


def train(
    trees: Sequence[StepTree],
    model: StepRewardModel,
    out: Path,
    settings: TrainSettings | None = None,
    *,
    held_out: Sequence[StepTree] = (),
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
        on_progress: called at most twice a second.

    Returns:
        The checkpoint's folder and its metrics.

    Raises:
        InputError: there is nothing to learn from, or `out` holds the unfinished work of another training.
        ModelError: the loss became infinite or NaN.
        StoreError: the folder cannot be written.
        UnknownNameError: no such objective, or hyper-parameter of it.
    """
    settings, out = settings or TrainSettings(), Path(out)
    objective = settings.loss()
    data = _training_set(trees, model, settings)
    identity = _identity(trees, held_out, model, settings)
    with locked_folder(out):
        return _trained(data, model, open_work(out, identity), settings, objective, held_out, on_progress, identity)


def _trained(
    data: TrainingSet, model: StepRewardModel, work: Path, settings: TrainSettings, objective: Objective,
    held_out: Sequence[StepTree], on_progress: OnProgress | None, identity: Mapping[str, Any],
) -> TrainResult:  # fmt: skip
    """Trains in a folder of unfinished work, saves the result, and removes that folder."""
    start, clock = time.perf_counter(), Clock()
    batches = make_batches(held_out, model.encoder, row_tokens=settings.row_tokens, batch_tokens=settings.batch_tokens)
    trainer = StepTrainer(
        objective=objective,
        held_out=batches,
        model=model,
        args=_arguments(settings, work, len(data), bool(batches)),
        train_dataset=data,
        eval_dataset=batches,
        data_collator=_whole_batch,
        callbacks=[*_callbacks(settings, data, on_progress, bool(batches)), clock],
    )
    _run_trainer(trainer, work)
    # The log history includes steps before a resume; our last row covers the whole training, the trainer's does not.
    rows = [row for row in trainer.state.log_history if "train_runtime" not in row]
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    steps = np.diff([0, *(step for step, _ in losses)])
    last = {"step": trainer.state.global_step, "epoch": trainer.state.epoch or 0.0, "train_runtime": clock.seconds}
    if losses:
        last["train_loss"] = float(np.average([loss for _, loss in losses], weights=steps))
    result = TrainResult(
        work.parent,
        # To the inner trainer all passes over the data are one epoch.
        [_finite(row | {"epoch": row["epoch"] * settings.epochs} if "epoch" in row else row) for row in [*rows, last]],
        _finite(evaluate_batches(model, batches, objective)) if batches else {},
        data.tokens,
        time.perf_counter() - start,
        trainer.state.global_step,
    )
    _save(result, model, settings, identity)
    shutil.rmtree(work)
    return result


def _training_set(trees: Sequence[StepTree], model: StepRewardModel, settings: TrainSettings) -> TrainingSet:
    if not trees:
        raise InputError("there is no labelled tree to learn from", remedy="label some trajectories first")
    data = TrainingSet(
        [once_per_node(tree) for tree in trees] if settings.weigh == "node" else trees,
        model.encoder,
        row_tokens=settings.row_tokens,
        batch_tokens=settings.batch_tokens,
        epochs=settings.epochs,
        key=Key.seed(settings.seed).fold("train"),
    )
    if not len(data):
        raise InputError("there is no supervised step to learn from", remedy="pass labels that are not all NaN")
    return data


def _identity(
    trees: Sequence[StepTree], held_out: Sequence[StepTree], model: StepRewardModel, settings: TrainSettings
) -> dict[str, Any]:
    """Everything that decides the final weights."""
    # Where it runs and how often it saves do not change the weights: a run may be resumed with other values.
    decides = {name: value for name, value in asdict(settings).items() if name not in ("device", "save_seconds")}
    return {
        **decides,
        "data": fingerprint(trees),
        "held_out": fingerprint(held_out),
        "model": {name: list(p.shape) for name, p in model.named_parameters()},
        "record": asdict(model.record),
    }


def _whole_batch(items: Sequence[TrainingBatch]) -> dict[str, TrainingBatch]:
    """Each item of the training set is a batch already: there is nothing to collate."""
    return {"batch": items[0]}


def _not_mtime(record: logging.LogRecord) -> bool:
    """Drops a warning about checkpoints written within a second of each other: we order them by number."""
    return "mtime may not be reliable" not in record.getMessage()


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """Turns the errors of PyTorch and safetensors about a file that cannot be written into one."""
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
    try:
        with _full_disk(work):
            trainer.train(resume_from_checkpoint=last_complete(work))
    finally:
        logger.removeFilter(_not_mtime)


def _save(result: TrainResult, model: StepRewardModel, settings: TrainSettings, identity: Mapping[str, Any]) -> None:
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with _full_disk(result.folder):
            model.eval().save_pretrained(result.folder)
            for path in result.folder.iterdir():
                if path.is_file():
                    to_disk(path)
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    row = {"version": 1, "settings": asdict(settings), **asdict(result), "identity": dict(identity)}
    del row["folder"]
    write_json(result.folder / RESULT_FILE, row)


def finished(
    trees: Sequence[StepTree],
    model: StepRewardModel,
    out: Path,
    settings: TrainSettings,
    held_out: Sequence[StepTree] = (),
) -> TrainResult | None:
    """The result in `out` of a finished training with the same data and settings; None where there is none."""
    try:
        row = json.loads((out / RESULT_FILE).read_text(encoding="utf-8"))
        if row["identity"] != json.loads(json.dumps(_identity(trees, held_out, model, settings))):
            return None
        return TrainResult(out, *(row[name] for name in ("history", "metrics", "tokens", "seconds", "steps")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """The finite numbers: JSON has no NaN."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _arguments(settings: TrainSettings, work: Path, batches: int, evaluates: bool) -> Any:
    # `max_steps` and not epochs: the training set has the batches of all passes in its own order.
    steps = math.ceil(batches / settings.accumulate)
    every = max(1, steps // settings.evaluations)
    return TrainingArguments(
        output_dir=str(work),
        # One item of the training set is a whole batch of packed trees.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.accumulate,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        # The first step of a warm-up has a learning rate of 0: a run of a single one would learn nothing.
        warmup_steps=max(steps > 1, steps // 20),
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
        use_cpu=settings.device == "cpu",
        dataloader_pin_memory=False,
        # The loss reads our batch object, of which the trainer knows no columns and no labels.
        remove_unused_columns=False,
        label_names=[],
        report_to=[],
        disable_tqdm=True,
        logging_nan_inf_filter=False,
    )


def _callbacks(
    settings: TrainSettings, data: TrainingSet, on_progress: OnProgress | None, evaluates: bool
) -> list[Any]:
    made: list[Any] = [StopIfDiverged(), SaveInTime(settings.save_seconds)]
    if on_progress is not None:
        made.append(Progress(on_progress, data.sizes, settings.accumulate))
    if settings.patience and evaluates:
        made.append(EarlyStoppingCallback(early_stopping_patience=settings.patience))
    return made
