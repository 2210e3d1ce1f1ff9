"""Trains a step reward model on labelled trees, and continues where a killed training stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import locked_folder, write_json
from stepreward.core.keys import Key
from stepreward.core.tree import StepTree
from stepreward.score.encode.packing import FLEX
from stepreward.score.model.log_ratio_model import LogRatioModel, Trainable
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.user_encoder import UserEncoder
from stepreward.score.model.weights import find
from stepreward.train.annotator_scores import (
    ANNOTATORS_FILE,
    annotator_formulas,
    annotator_vectors,
    readout_of_annotators,
)
from stepreward.train.checkpoints import open_work
from stepreward.train.data.fingerprint import Fingerprint, fingerprint
from stepreward.train.data.labelled_trees import nothing_to_learn
from stepreward.train.data.row_data import ANNOTATOR
from stepreward.train.data.training_set import TrainingSet, learning_set
from stepreward.train.domain_weights import DomainWeights, drawn
from stepreward.train.evaluation import evaluate_batches, read_batches
from stepreward.train.objective import Objective
from stepreward.train.other_models.frozen_numbers import weights_hash
from stepreward.train.other_models.reference import add_references
from stepreward.train.other_models.teacher import add_teacher
from stepreward.train.parameters import prepare
from stepreward.train.processes import is_main, processes, together, whole_state, with_deepspeed
from stepreward.train.settings import UNFINISHED, TrainSettings
from stepreward.train.step_trainer import StepTrainer, arguments_of, callbacks_of, whole_batch
from stepreward.train.training_progress import Clock, EverySomeSteps, OnProgress
from stepreward.train.training_result import TrainResult, finite, save_result, saved_result

_NO_MATTER = ("device", "save_seconds", "activation_checkpoints", "report_to")
"""Where it runs and how often it saves do not change the weights: a run may be resumed with other values."""


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
    objective = settings.loss()
    if settings.merge and not isinstance(model, StepRewardModel):
        raise InputError("merge is for models with a head", remedy="leave it out: `load` adds adapters to the weights")
    settings.require_meta(bool(meta))
    if not trees:
        raise InputError("there is no labelled tree to learn from", remedy="label some trajectories first")
    _require_model_of(objective, model)
    outer = settings.domain_loss()
    if meta:
        _require_model_of(outer, model)
    if settings.weighs_domains and objective.compares_problems:
        what = f"{objective.method.name} compares solutions of all problems in a batch: no domain has a loss of its own"
        raise InputError(what, remedy="take another objective, or no weights of domains")
    known = model.record.encoding.reads_reference
    if with_deepspeed() and objective.of_ratios:
        what = f"{objective.method.name} trains a language model's log-probabilities, which DeepSpeed splits too"
        raise InputError(what, remedy="pass --shard (FSDP2), and launch without DeepSpeed")
    learned, kept, graded = (Fingerprint(one, references=known) for one in (objective, objective, outer))
    if settings.splits_weights and objective.lags and settings.polyak < 1:
        what = f"the lagging copy that {objective.method.name} makes targets of needs whole weights in each process"
        raise InputError(what, remedy="leave shard out, or pass polyak=1: targets of the model itself")
    data = learning_set(learned.passing(trees), model.encoder, objective, settings)
    if "users" in objective.method.data and isinstance(model, StepRewardModel):
        objective = data.objective = _with_annotators(objective, data, model, settings)
    one_pass = partial(TrainingSet, row_tokens=settings.row_tokens, batch_tokens=settings.batch_tokens)
    batches = one_pass(kept.passing(held_out), model.encoder, objective)
    if objective.infers_users:
        # Users that training does not know are inferred as others are.
        batches.objective = replace(objective, annotators=tuple({**data.compared, **batches.compared}))
    outside = one_pass(graded.passing(meta), model.encoder, outer)
    if meta and not len(outside):
        raise nothing_to_learn(outer)
    if isinstance(model, StepRewardModel):
        model.with_features = objective.reads_features or (bool(meta) and outer.reads_features)
    identity = _identity(model, settings, str(learned), str(kept), str(graded) if meta else "")
    prepare(model, settings)
    # Its processes, if there are several, find each other here. The first one alone writes what is not the trainer's.
    arguments = arguments_of(settings, out / UNFINISHED, len(data), bool(held_out))
    with together(), locked_folder(out) if is_main() else nullcontext():
        if is_main():
            open_work(out, identity)
        arguments.distributed_state.wait_for_everyone()
        result = _trained(_Sets(data, batches, outside), model, arguments, settings, on_progress)
        # Every process takes part in collecting the weights of a sharded model.
        state = whole_state(model) if settings.splits_weights else None
        if is_main():
            save_result(result, model, state, settings, identity, {"data": learned.sizes, "held_out": kept.sizes})
            shutil.rmtree(out / UNFINISHED)
        arguments.distributed_state.wait_for_everyone()
    return result


@dataclass(frozen=True)
class _Sets:
    """The data of a training."""

    learn: TrainingSet
    held_out: TrainingSet
    meta: TrainingSet
    """From which the weights of domains are learned; empty where they are not."""


def _trained(
    sets: _Sets, model: Trainable, arguments: Any, settings: TrainSettings, on_progress: OnProgress | None
) -> TrainResult:
    """Trains in the folder of unfinished work that the arguments name."""
    start, clock, work = time.perf_counter(), Clock(), Path(arguments.output_dir)
    data, batches, objective = sets.learn, sets.held_out, sets.learn.objective
    given = (settings.domain_weights, settings.domain_rate)
    weights = DomainWeights([*data.domains], *given) if settings.weighs_domains else None
    if isinstance(model, LogRatioModel):
        # One process computes what all of them then read.
        with arguments.distributed_state.main_process_first():
            add_references((data, batches, sets.meta), model, settings, str(arguments.device), work)
    elif settings.teacher:
        with arguments.distributed_state.main_process_first():
            add_teacher((data, batches, sets.meta), model, settings, str(arguments.device), work)
    trainer = StepTrainer(
        objective=objective,
        held_out=batches,
        weights=weights,
        polyak=settings.polyak,
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=batches,
        data_collator=whole_batch,
        callbacks=[*callbacks_of(settings, data, on_progress, len(batches) > 0, work.parent), clock],
    )
    if trainer.lagging is not None:
        copy = trainer.lagging
        trainer.add_callback(EverySomeSteps(1, lambda _: copy.follow()))
    if settings.domain_rate:
        key = Key.seed(settings.seed).fold("meta")
        learn = lambda number: trainer.weigh_domains(sets.meta.objective, drawn(sets.meta, number, key))  # noqa: E731
        trainer.add_callback(EverySomeSteps(settings.domain_every, learn))
    if settings.attention == "flex":
        model.backbone.set_attn_implementation(FLEX)
    trainer.run()
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
        readout, vectors = model.record.readout, annotator_vectors(model, data)
        formulas = annotator_formulas(objective, readout, vectors)
        model.record = replace(model.record, readout=readout_of_annotators(objective, readout, formulas))
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
        [finite(row | {"epoch": row["epoch"] * settings.epochs} if "epoch" in row else row) for row in [*rows, last]],
        finite(readings.metrics()) if readings else {},
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
        made[name] |= finite(evaluate_batches(model, held_out.of_domain(name), objective))
    return made


def _require_model_of(objective: Objective, model: Trainable) -> None:
    """Refuses a model that has not what the objective trains."""
    if objective.of_ratios != isinstance(model, LogRatioModel):
        has, wants = ("log-ratios", "a head") if isinstance(model, LogRatioModel) else ("a head", "log-ratios")
        what = f"{objective.method.name} trains {wants}, the model has {has}"
        raise InputError(what, remedy="take the model that train.scratch.starting_model makes for the objective")
    if objective.reads_next_tokens != model.record.readout.next_token:
        what = f"{objective.method.name} and the model's head do not fit: one is for next tokens, the other is not"
        raise InputError(what, remedy="take the model that train.scratch.starting_model makes for the objective")
    width = model.record.readout.n_labels
    if {"outputs", "ends"} & {*objective.method.data} and width != objective.n_outputs:
        raise InputError(
            f"{objective.method.name} trains {objective.n_outputs} outputs a step, the model's head has {width}",
            remedy="start from a backbone, whose head is made for the objective",
        )


def _with_annotators(
    objective: Objective, data: TrainingSet, model: StepRewardModel, settings: TrainSettings
) -> Objective:
    """The objective with the names of those who compared the data; the model gets numbers of each."""
    if not data.compared:
        what = f"{objective.method.name} needs to know who compared each pair"
        raise InputError(what, remedy=f"pass solutions with the fact {ANNOTATOR!r}")
    if settings.splits_weights:
        what = f"{objective.method.name} cannot be trained in shards"
        raise InputError(what, remedy="leave shard out, and DeepSpeed")
    if objective.infers_users:
        if max(data.compared.values()) < 2:
            what = f"{objective.method.name} learns of a user from pairs of other problems, and nobody compared two"
            raise InputError(what, remedy="pass several problems of each annotator")
        model.users = UserEncoder(model.last_layer.in_features, objective.n_outputs, seed=settings.seed)
    else:
        model.add_annotators(len(data.compared), seed=settings.seed)
    return replace(objective, annotators=tuple(data.compared))


def _identity(model: Trainable, settings: TrainSettings, data: str, held_out: str, meta: str) -> dict[str, Any]:
    """Everything that decides the final weights; data by their hashes, "" for no meta data."""
    frozen = [name for name in (model.record.readout.reference, settings.guide, settings.teacher) if name]
    decides = {name: value for name, value in asdict(settings).items() if name not in _NO_MATTER}
    return {
        **decides,
        # A step has the batches of all processes, so that another number of them can go on with it.
        "accumulate": settings.accumulate * processes(),
        "data": data,
        "held_out": held_out,
        # The data decide how many annotators there are.
        "model": {name: list(p.shape) for name, p in model.named_parameters() if not name.startswith("users.")},
        "record": asdict(model.record),
        **({"meta": meta} if meta else {}),
        # Each process of DeepSpeed reads its own part of the optimizer's numbers.
        **({"deepspeed processes": processes()} if with_deepspeed() else {}),
        **({"frozen": [weights_hash(find(name)) for name in frozen]} if frozen else {}),
    }


def finished(
    trees: Sequence[StepTree],
    model: Trainable,
    out: Path,
    settings: TrainSettings,
    held_out: Sequence[StepTree] = (),
    meta: Sequence[StepTree] = (),
) -> TrainResult | None:
    """The result in `out` of a finished training with the same data and settings; None where there is none."""
    objective, outer = settings.loss(), settings.domain_loss()
    hashed = partial(fingerprint, references=model.record.encoding.reads_reference)
    hashes = hashed(trees, objective), hashed(held_out, objective), hashed(meta, outer) if meta else ""
    return saved_result(out, _identity(model, settings, *hashes))
