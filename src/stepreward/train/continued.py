"""Training that goes on from a reward model: its input is kept, and its head becomes that of the objective."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from stepreward.core.errors import InputError
from stepreward.score.by_recipe import encoder_of, scorer_by_recipe
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.devices import numbers_in
from stepreward.score.model.heads import GatedHead
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.weights import find
from stepreward.train.objective import Objective

_REMEDY = "leave keep_head out for a fresh head on its backbone"


def continued_record(name: str | Path, objective: Objective, *, like: str = "", max_length: int = 0) -> EncoderRecord:
    """How a reward model is fed, with the readout of an objective.

    How scores are used stays too, where the new score is the old one at first.

    Args:
        name: folder or hub name.
        objective: what is trained.
        like: row of the table of checkpoints whose recipe it follows.
        max_length: most tokens of a trajectory; 0 for the checkpoint's own limit.

    Raises:
        InputError: its input cannot be trained, or its score is none that the objective can go on from.
        ModelError: there is no such checkpoint, or nothing says how it is read.
    """
    own = encoder_of(name, like).record
    if not own.per_step:
        what = f"{name} reads {own.encoding.kind} text, and solutions are trained on as trees of steps"
        raise InputError(what, remedy=_REMEDY)
    encoding = replace(own.encoding, max_length=max_length or own.encoding.max_length)
    made = objective.record(encoding, surprise=own.readout.surprise, both_ways=own.both_ways)
    if why := _refusal(own.readout, made.readout, objective):
        raise InputError(f"{objective.method.name} cannot go on from {name}: {why}", remedy=_REMEDY)
    if not made.readout.is_probability or own.readout.formula:
        return made
    # The score 2 p - 1 becomes p.
    halved = own.readout.kind in ("tanh", "difference")
    threshold = (own.threshold + 1) / 2 if halved else own.threshold
    return replace(made, aggregation=own.aggregation, threshold=threshold)


def continued_model(name: str | Path, record: EncoderRecord, *, like: str = "") -> StepRewardModel:
    """A reward model whose head gives the outputs of an objective, each of them its old score at first.

    Binary labels become one logit, the difference of theirs, and quantiles or members of an ensemble copies of it, as
    `convert_to_quantile_regression_head` of young-j-park/prm-calibration makes them. A head with these outputs stays as
    it is. Of a head with several layers, the last one is replaced.

    Args:
        name: folder or hub name.
        record: of `continued_record`.
        like: as of `continued_record`.

    Raises:
        InputError: its head is none that can be turned into such outputs.
        ModelError: it cannot be read.
    """
    folder = find(name)
    # Training keeps what it changes in float32, and the rest as it was saved.
    scorer, _ = scorer_by_recipe(name, like=like, dtype=numbers_in(folder))
    if not isinstance(scorer, DiscriminativeScorer):
        raise InputError(f"{name} has no head", remedy=_REMEDY)
    old = scorer.model
    head = converted_head(old.head, old.record.readout, record.readout)
    if head is None:
        what = f"the head of {name}, a {type(old.head).__name__}, does not end in a linear layer"
        raise InputError(what, remedy=_REMEDY)
    # An adapter's file names its base by this.
    old.backbone.name_or_path = str(Path(name).resolve()) if Path(name).is_dir() else str(name)
    return StepRewardModel(old.backbone, old.tokenizer, record, head=head)


def _plain(readout: Readout) -> Readout:
    return replace(readout, formula="", label_tokens=(), label_piece="last")


def _refusal(old: Readout, new: Readout, objective: Objective) -> str:
    """Why an objective cannot go on from a score; "" where it can."""
    if objective.of_ratios:
        return "it trains log-ratios to a reference, which have no head"
    if _plain(old) == _plain(new):
        return ""
    if not objective.outputs_are_alike:
        return "its outputs are not estimates of one score, and the checkpoint has others"
    if old.formula:
        return f"its score is the formula {old.formula!r} of its outputs"
    if old.kind in ("mean-sigmoid", "implicit") or old.also or (old.compares and old.n_labels != 2):
        return f"its score is a {old.kind} of {old.n_labels} outputs, which is the sigmoid of no linear output"
    if old.kind == "value" and new.kind != "value":
        return "its scores are bare numbers, and the objective trains probabilities"
    if old.kind != "value" and new.kind == "value" and not objective.trains_rewards:
        return "its scores are probabilities, and the objective trains bare numbers"
    return ""


def converted_head(head: nn.Module, old: Readout, new: Readout) -> nn.Module | None:
    """A head whose outputs are each the logit of the old score; None where its last layer is not linear."""
    if _plain(old) == _plain(new):
        return head
    if isinstance(head, GatedHead):
        value = converted_head(head.value, old, new)
        return None if value is None else GatedHead(value, head.gate)
    *layers, last = [*head] if isinstance(head, nn.Sequential) else [head]
    if type(last) is not nn.Linear:
        return None
    made = nn.Linear(last.in_features, new.n_labels)
    with torch.no_grad():
        # The logit is a difference of outputs, or one of them: of their weights what it is of the outputs.
        made.weight.copy_(old.step_logits(last.weight.float().T).expand_as(made.weight))
        made.bias.copy_(old.step_logits(last.bias.float()[None])) if last.bias is not None else made.bias.zero_()
    return nn.Sequential(*layers, made) if layers else made
