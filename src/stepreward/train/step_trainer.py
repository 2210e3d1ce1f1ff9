"""Hugging Face's trainer with a packed forward pass, and how the settings set it up."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments
from transformers.integrations import TensorBoardCallback

from stepreward.core.errors import InputError, ModelError
from stepreward.core.files.atomic_files import read_object, write_json
from stepreward.train.checkpoints import clear_write_errors, last_complete
from stepreward.train.data.training_batch import TrainingBatch
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.domain_weights import DomainWeights
from stepreward.train.evaluation import evaluate_batches
from stepreward.train.objective import Objective
from stepreward.train.other_models.lagging import LaggingCopy
from stepreward.train.parameters import trained_names
from stepreward.train.processes import is_main, processes
from stepreward.train.settings import HIGHER_IS_BETTER, OPTIMIZERS, TrainSettings
from stepreward.train.training_progress import OnProgress, Progress, SaveInTime, StopIfDiverged

_WEIGHTS_FILE = "domain_weights.json"
"""In a checkpoint of unfinished work: the state of the weights of domains."""
_BY_LAYER = True if Version(transformers.__version__) >= Version("5.20") else "full_shard auto_wrap"
"""How the trainer is told to shard layer by layer: newer releases do so by themselves, and warn of the text."""


class StepTrainer(Trainer):  # type: ignore[misc]
    """Hugging Face's trainer with a packed forward pass, batches in their own order and step metrics."""

    control: Any

    def __init__(
        self,
        *,
        objective: Objective,
        held_out: TrainingSet,
        weights: DomainWeights | None = None,
        polyak: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.objective, self.held_out, self.weights = objective, held_out, weights
        # A copy that catches up at once is the model itself, whose own outputs are at hand.
        self.lagging = LaggingCopy(self.model, polyak) if objective.lags and polyak < 1 else None
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
        batch = self._here(inputs["batch"])
        outputs = model(batch.packed)
        if self.weights is None:
            loss = self.objective(self.model, outputs, batch)
        else:
            loss = self.weights.loss(self.objective, self.model, outputs, batch)
        # Processes average their gradients, where the parts must be summed.
        counts = loss.counts if num_items_in_batch is None else num_items_in_batch / self.args.world_size
        value = loss.over(counts)
        return (value, outputs) if return_outputs else value

    def _here(self, batch: TrainingBatch) -> TrainingBatch:
        """The batch on this process's device, with what the lagging copy says of it."""
        made = batch.to(self.args.device)
        return made if self.lagging is None else replace(made, lagging=self.lagging.outputs(made.packed))

    def weigh_domains(self, outer: Objective, meta: TrainingBatch) -> None:
        """One step of the weights of domains, by a batch of the data that they are learned from."""
        assert self.weights is not None, "it is for a training with weights"
        assert self.of_step is not None, "it follows a step"
        batches, counts = self.of_step
        here = [self._here(one) for one in batches]
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
        if self.lagging is not None and is_main():
            self.lagging.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.weights is not None and checkpoint is not None:
            remedy = "delete the folder of unfinished work to start over"
            self.weights.load_state_dict(read_object(Path(checkpoint) / _WEIGHTS_FILE, remedy=remedy))
        if self.lagging is not None and checkpoint is not None:
            self.lagging.load(Path(checkpoint))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the weights of unfinished work, which DeepSpeed itself writes with its optimizer."""
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)

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

    def run(self) -> None:
        """Trains from the last checkpoint in its folder, if there is one.

        Raises:
            InputError: the configuration of DeepSpeed contradicts the settings.
            ModelError: the loss became infinite or NaN.
            StoreError: a checkpoint cannot be written.
        """
        logger = logging.getLogger("transformers.trainer_utils")
        logger.addFilter(_not_mtime)
        work, state = Path(self.args.output_dir), self.args.distributed_state
        try:
            with clear_write_errors(work):
                # One process looks first and deletes what is damaged; the others then find what it left.
                with state.main_process_first():
                    newest = last_complete(work)
                self.train(resume_from_checkpoint=newest)
        except ValueError as error:
            if "DeepSpeed config values" not in str(error):
                raise
            what = " ".join(str(error).split()).partition(" The easiest")[0]
            raise InputError(what, remedy="write auto for them in the file that deepspeed_config_file names") from error
        finally:
            logger.removeFilter(_not_mtime)


def whole_batch(items: Sequence[TrainingBatch]) -> dict[str, TrainingBatch]:
    """Each item of the training set is a batch already: there is nothing to collate."""
    return {"batch": items[0]}


def arguments_of(settings: TrainSettings, work: Path, batches: int, evaluates: bool) -> TrainingArguments:
    """Settings in the words of Hugging Face's trainer.

    Args:
        settings: of the training.
        work: folder of unfinished work.
        batches: of all passes and processes.
        evaluates: whether there is held-out data.
    """
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


def callbacks_of(
    settings: TrainSettings, data: TrainingSet, on_progress: OnProgress | None, evaluates: bool, out: Path
) -> list[Any]:
    """The callbacks that the settings ask for.

    Args:
        settings: of the training.
        data: that is learned from.
        on_progress: receives lines of progress.
        evaluates: whether there is held-out data.
        out: folder of the checkpoint.
    """
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


def _not_mtime(record: logging.LogRecord) -> bool:
    """Drops a warning about checkpoints written within a second of each other: we order them by number."""
    return "mtime may not be reliable" not in record.getMessage()
