"""What each annotator's score is made of, by the numbers that were learned of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stepreward.score.encode.formula import MOST_CHARACTERS
from stepreward.score.encode.readout import Readout
from stepreward.train.objective import Objective
from stepreward.train.objectives.annotators import ideal_point

ANNOTATORS_FILE = "annotators.json"
"""In a checkpoint: the formula of each annotator's score, and of their mean under ""."""


def annotator_formulas(objective: Objective, readout: Readout, vectors: NDArray[np.float32]) -> dict[str, str]:
    """The score of each annotator, and of their mean under "", by the learned numbers.

    Args:
        objective: with the names of the annotators.
        readout: of the model.
        vectors: (U, K) the numbers of each annotator.
    """

    def score(vector: NDArray[np.float32]) -> str:
        if objective.method.function is not ideal_point:
            return f"weighted({', '.join(f'{float(w):.9g}' for w in vector)})"
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
