"""What a training will cost, said before its weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stepreward.core.tree import StepTree
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.backbones import load_config, load_tokenizer
from stepreward.score.model.weights import find
from stepreward.train.data.training_set import learning_set
from stepreward.train.memory import Memory, predict
from stepreward.train.processes import processes
from stepreward.train.scratch import starting_model
from stepreward.train.settings import SCRATCH, TrainSettings


@dataclass(frozen=True)
class Costs:
    """What a training takes."""

    memory: Memory
    """On one device, of the largest batch."""
    rows: int
    """Packed rows of the largest batch."""
    width: int
    """Tokens of each of them, padding included."""
    steps: int
    """Steps of the optimizer."""
    tokens: int
    """Tokens of all steps, each shared prefix once, padding left out."""

    def hours(self, tokens_per_second: float) -> float:
        """Hours at a speed that all processes have together."""
        return self.tokens / tokens_per_second / 3600

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self), "memory": {**asdict(self.memory), "total": self.memory.total}}


def costs(backbone: str | Path, trees: Iterable[StepTree], record: EncoderRecord, settings: TrainSettings) -> Costs:
    """The costs of a training; of the backbone its configuration and tokenizer alone are needed.

    Args:
        backbone: as of `starting_model`.
        trees: to learn from.
        record: input and readout of the model.
        settings: of the training.

    Raises:
        InputError: there is nothing to learn from.
        ModelError: there is no such backbone.
    """
    if str(backbone) == SCRATCH:
        model = starting_model(SCRATCH, trees, record=record)
        config, tokenizer = model.backbone.config, model.tokenizer
    else:
        folder = find(backbone, weights=False)
        config, tokenizer = load_config(folder), load_tokenizer(folder)
    data = learning_set(trees, StepEncoder(record, tokenizer), settings.loss(), settings)
    shapes = [(len(rows), max(sum(data.lengths[i] for i in row) for row in rows)) for rows in data.plans]
    # Activations grow with the tokens, padding included; of equal numbers the wider rows have the larger masks.
    largest = max(range(len(shapes)), key=lambda i: (shapes[i][0] * shapes[i][1], shapes[i][1]))
    memory = predict(config, tokenizer, record, settings, data[largest].packed, processes=processes())
    steps = -(-len(data) // (processes() * settings.accumulate))
    return Costs(memory, *shapes[largest], steps, int(data.sizes.sum()))
