"""What each annotator's score is made of, by the numbers that were learned of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.catalog import loss as losses
from stepreward.core.errors import InputError
from stepreward.core.types import Trajectory
from stepreward.score.encode.formula import MOST_CHARACTERS
from stepreward.score.encode.readout import Readout
from stepreward.score.model.devices import device_of
from stepreward.score.model.public_checkpoints import load_own
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.user_encoder import UserEncoder
from stepreward.score.model.weights import find
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.row_data import ANNOTATOR
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.objective import Objective
from stepreward.train.objectives.annotators import ideal_point
from stepreward.train.objectives.loss import at_end

ANNOTATORS_FILE = "annotators.json"
"""In a checkpoint: the formula of each annotator's score, and of their mean under ""."""
_MOST_PAIRS = 64
"""Most pairs by which a user is inferred."""


def annotator_vectors(model: StepRewardModel, data: TrainingSet) -> NDArray[np.float32]:
    """(U, K) the numbers of each annotator: those that were trained, or what the model makes of their pairs.

    Args:
        model: that was trained.
        data: pairs; its objective has the names of the annotators.
    """
    users = model.users
    if not isinstance(users, UserEncoder):
        assert users is not None, "the trainer adds them"
        weights: NDArray[np.float32] = users.weight.detach().cpu().numpy()
        return weights
    with torch.inference_mode():
        found = _pairs_of_each(model.eval(), data)
        return np.stack([users.weights_of(better, worse).cpu().numpy() for better, worse in found])


def _pairs_of_each(model: StepRewardModel, data: TrainingSet) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each annotator (n, H) features at the ends of the better and of the worse sides of their first pairs."""
    before, model.with_features = model.with_features, True
    device = next(model.parameters()).device
    found: list[list[torch.Tensor]] = [[] for _ in data.objective.annotators]
    for batch in data.one_pass():
        here = batch.to(device)
        ends, some = at_end(here.gather(model.step_features(model(here.packed)).float()), here.mask)
        for pair, number in zip(here.data["pairs"], here.data["annotator"].tolist(), strict=True):
            if number >= 0 and some[pair].all() and len(found[number]) < _MOST_PAIRS:
                found[number].append(ends[pair])
        if all(len(mine) == _MOST_PAIRS for mine in found):
            break
    model.with_features = before
    none = torch.zeros(0, 2, model.last_layer.in_features, device=device)
    both = [torch.stack(mine) if mine else none for mine in found]
    return [(pairs[:, 0], pairs[:, 1]) for pairs in both]


def readout_of_pairs(rows: Iterable[Trajectory], folder: str | Path, *, device: str = "cpu") -> str:
    """The formula of the score of a new user, by pairs that they compared: nothing is trained.

    Args:
        rows: several solutions of each problem with outcomes, 1 for the better one and 0 for the other; who compared
            them may be left out, and must be one user.
        folder: a checkpoint of the objective vpl.
        device: where to compute; `auto` is CUDA where there is one.

    Returns:
        For `readout` of `load` and of commands.

    Raises:
        InputError: the pairs are of several users, there are none, or the model infers no user.
        ModelError: the checkpoint cannot be read.
    """
    model = load_own(find(folder)).to(device_of(device))
    if not isinstance(model.users, UserEncoder):
        what = f"{folder} infers no user from pairs"
        raise InputError(what, remedy="take a model that `train` made with the objective vpl")
    rows = [*rows]
    names = sorted({str(row.facts[ANNOTATOR]) for row in rows if row.facts.get(ANNOTATOR)})
    if len(names) > 1:
        raise InputError(f"the pairs are of {', '.join(names)}", remedy="keep those of one user")
    own = [replace(row, facts={**row.facts, ANNOTATOR: "user"}) for row in rows]
    objective = Objective(losses["vpl"], width=model.record.readout.n_labels, annotators=("user",))
    data = TrainingSet(labelled_trees(own, objective), model.encoder, objective, row_tokens=512, batch_tokens=8192)
    return weighted(annotator_vectors(model, data)[0])


def weighted(vector: NDArray[np.float32]) -> str:
    """The formula of a sum of the outputs with these weights (K,)."""
    return f"weighted({', '.join(f'{float(w):.9g}' for w in vector)})"


def annotator_formulas(objective: Objective, readout: Readout, vectors: NDArray[np.float32]) -> dict[str, str]:
    """The score of each annotator, and of their mean under "", by the learned numbers.

    Args:
        objective: with the names of the annotators.
        readout: of the model.
        vectors: (U, K) the numbers of each annotator.
    """

    def score(vector: NDArray[np.float32]) -> str:
        if objective.method.function is not ideal_point:
            return weighted(vector)
        parts = zip(readout.output_names, vector.tolist(), strict=True)
        return f"-({' + '.join(f'({name} - {u:.9g}) ** 2' for name, u in parts)}) ** 0.5"

    return dict(zip(("", *objective.annotators), map(score, (vectors.mean(0), *vectors)), strict=True))


def readout_of_annotators(objective: Objective, readout: Readout, formulas: Mapping[str, str]) -> Readout:
    """The readout with a definition of each annotator's score; the score itself is that of their mean.

    Args:
        objective: with the names of the annotators.
        readout: of the model.
        formulas: of `annotator_formulas`.
    """
    words = [re.sub(r"\W", "_", f"of_{name}") for name in objective.annotators]
    if len({*words}) < len(words):
        words = [f"annotator{k}" for k in range(len(words))]
    own = [f"{word} = {formulas[name]}" for word, name in zip(words, objective.annotators, strict=True)]
    last = objective.formula or formulas[""]
    # With many annotators their definitions are longer than a formula may be.
    whole = "; ".join([*own, last])
    return replace(readout, formula=whole if len(whole) <= MOST_CHARACTERS else last)
