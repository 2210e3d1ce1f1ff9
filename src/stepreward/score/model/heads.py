"""Heads of reward models, recognised by how their weights are laid out; no code of a checkpoint is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from stepreward.core.errors import ModelError
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.exit_head import ExitHead, exit_layers
from stepreward.score.model.vocabulary_head import VocabularyHead

State = Mapping[str, torch.Tensor]

_NAMES = ("score", "score_head", "v_head.summary", "value_head", "reward_head", "classifier")
"""Modules that are a head, with all below them. `score` is what transformers calls it."""


_LAYERS = ("nn1", "nn2", "nn_out")
"""Of each network of an ensemble, in order."""


def is_head(key: str) -> bool:
    """Whether a weight of this name belongs to a head."""
    return any(key.startswith(name + ".") for name in _NAMES)


class Ensemble(nn.Module):
    """Many small networks side by side, each with two hidden layers and one output.

    Args:
        state: `{nn1,nn2,nn_out}.{weight,bias}` with weights (E, in, out) and biases (E, out).
    """

    def __init__(self, state: State) -> None:
        super().__init__()
        for name in _LAYERS:
            for part in ("weight", "bias"):
                self.register_parameter(f"{name}_{part}", nn.Parameter(state[f"{name}.{part}"].clone()))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., E) outputs of hidden states (..., hidden)."""
        x = hidden.reshape(1, -1, hidden.shape[-1])
        for name in _LAYERS:
            weight, bias = self.get_parameter(f"{name}_weight"), self.get_parameter(f"{name}_bias")
            x = torch.matmul(x.to(weight.dtype) if name == "nn1" else x.relu(), weight) + bias[:, None]
        return x[..., 0].T.reshape(*hidden.shape[:-1], len(x))


class GatedHead(nn.Module):
    """One linear head read in two directions, whose outputs a gate mixes: g z_forward + (1 - g) z_backward.

        g = sigmoid( w_2 relu( W_1 [h_forward; h_backward] ) )

    The gate learns its own weights alone: hidden states reach it detached, as in BiPRM's trainer (`train_biprm.py` of
    LingyinZhang/BiPRM, which takes them from a second pass without gradients).

    Args:
        value: (..., hidden) to (..., n_labels).
        gate: (..., 2 hidden) to (..., 1).
    """

    def __init__(self, value: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.value, self.gate = value, gate

    @classmethod
    def fresh(cls, value: nn.Module, hidden: int, seed: int) -> GatedHead:
        """A head whose gate has the usual random weights of linear layers, by their own seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            gate = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        return cls(value, gate)

    def forward(self, forward: torch.Tensor, backward: torch.Tensor) -> torch.Tensor:
        """(N, n_labels) outputs of hidden states (N, hidden) of the same steps in both directions."""
        g = self.gate(torch.cat([forward, backward], -1).detach()).sigmoid()
        made: torch.Tensor = g * self.value(forward) + (1 - g) * self.value(backward)
        return made


def split_head(state: State) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A checkpoint's weights without its head, and the head's under its own names.

    Raises:
        ModelError: there is no head, or there are several.
    """
    heads: dict[str, dict[str, torch.Tensor]] = {}
    rest = {}
    for key, value in state.items():
        name = next((n for n in _NAMES if key.startswith(n + ".")), None)
        if name is None:
            rest[key] = value
        # ActPRM's head has a second network, `reg_model`, which scoring does not read.
        elif ".reg_model." not in f".{key}":
            heads.setdefault(name, {})[key.removeprefix(name + ".")] = value
    if len(heads) != 1:
        found = ", ".join(sorted(heads)) or "none"
        raise ModelError(
            f"expected one head among the weights ({', '.join(_NAMES)}), found {found}: "
            "name the label tokens to read the language-model head"
        )
    return rest, next(iter(heads.values()))


def build_head(state: State, record: EncoderRecord) -> nn.Module:
    """The head whose weights these are: linear, a multilayer perceptron with ReLU, an ensemble of such, or one a token.

    Raises:
        ModelError: the layout is unknown, or its width is not the record's.
    """
    readout = record.readout
    # Some recipes wrap their head in a module of their own.
    own = {key.removeprefix("model."): value for key, value in state.items()}
    if record.both_ways != ("gate.0.weight" in own):
        raise ModelError("a head has a gate if it reads steps in both directions (both_ways), and only then")
    made: nn.Module
    if readout.next_token:
        return VocabularyHead.of(own)
    if readout.exits:
        return _of_exits(own, readout.exits)
    if record.both_ways:
        value, gate = (
            {name.removeprefix(part): weight for name, weight in own.items() if name.startswith(part)}
            for part in ("value.", "gate.")
        )
        made, width = GatedHead(build_head(value, replace(record, both_ways=False)), _layers(gate)), readout.n_labels
    elif "nn1.weight" in own:
        made = Ensemble(own)
        width = len(own["nn1.weight"])
    elif set(own) <= {"weight", "bias"} and "weight" in own:
        made, width = _linear(own["weight"], own.get("bias")), len(own["weight"])
    elif own and all(key.split(".")[0].isdigit() for key in own):
        made, width = _layers(own), len(own[f"{max(int(key.split('.')[0]) for key in own)}.weight"])
    else:
        raise ModelError(f"no known head has the weights {', '.join(sorted(own))}")
    if width != readout.head_width:
        raise ModelError(f"the head has {width} outputs, the record says n_labels={readout.n_labels}")
    return made


def _of_exits(state: State, exits: int) -> ExitHead:
    made = ExitHead.of(state)
    if made.exits != exits:
        raise ModelError(f"the head has {made.exits} exits, the record says exits={exits}")
    return made


def _layers(state: State) -> nn.Sequential:
    """Linear layers with ReLU between them, from `0.weight`, `2.weight` and so on."""
    # An `nn.Sequential` numbers its modules, and those without weights, activations, leave gaps.
    layers = sorted({int(key.split(".")[0]) for key in state})
    linear = [_linear(state[f"{i}.weight"], state.get(f"{i}.bias")) for i in layers]
    parts: list[nn.Module] = [linear[0]]
    for layer in linear[1:]:
        parts += [nn.ReLU(), layer]
    return nn.Sequential(*parts)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    made.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return made


def head_state(head: nn.Module, weights: State | None = None) -> dict[str, torch.Tensor]:
    """The weights of a head as `build_head` takes them: its own, or those given under the names of its `state_dict`."""
    own = head.state_dict() if weights is None else weights
    state = {name: value.detach().cpu().contiguous() for name, value in own.items()}
    if isinstance(head, Ensemble):
        return {".".join(name.rsplit("_", 1)): value for name, value in state.items()}
    return state


def token_head(unembedding: torch.Tensor, ids: Iterable[int]) -> nn.Linear:
    """A linear head out of the rows of some tokens of a language-model head (V, hidden)."""
    return _linear(unembedding[list(ids)], None)


def mean_head(unembedding: torch.Tensor) -> nn.Linear:
    """The mean of all logits of a language-model head (V, hidden), as one row: the mean of products is the product."""
    return _linear(unembedding.float().mean(0, keepdim=True).to(unembedding.dtype), None)


def fresh_head(backbone: Any, record: EncoderRecord, seed: int) -> nn.Module:
    """A linear head with small random weights; the backbone's embeddings where it has an entry for each next token."""
    if record.readout.next_token:
        return VocabularyHead(backbone.get_input_embeddings().weight.detach().clone())
    if record.readout.exits:
        exit_layers(backbone.config.num_hidden_layers, record.readout.exits)
        return ExitHead(backbone.config.hidden_size, record.readout.exits, seed=seed)
    return _fresh_linear(backbone.config.hidden_size, record, seed)


def _fresh_linear(hidden: int, record: EncoderRecord, seed: int) -> nn.Module:
    """A linear head, and with `both_ways` a gate beside it."""
    if record.both_ways:
        return GatedHead.fresh(_fresh_linear(hidden, replace(record, both_ways=False), seed), hidden, seed)
    readout = record.readout
    head = nn.Linear(hidden + readout.surprise, readout.head_width)
    with torch.no_grad():
        head.weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(seed))
        if readout.surprise:
            # A fresh head starts from "as good as its least likely token", for the label that means a right step.
            head.weight[:, -1] = torch.eye(readout.n_labels)[readout.positive]
        head.bias.zero_()
    return head
