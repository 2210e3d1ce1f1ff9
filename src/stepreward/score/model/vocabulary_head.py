"""A head with an entry for each token of the vocabulary: what the text would be worth with that token behind it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from stepreward.core.errors import ModelError
from stepreward.score.encode.packing import PackedBatch, columns_before


class VocabularyHead(nn.Module):
    """The output layer of a language model, whose entries are rewards: M(s)[a] = <h(s), w_a> + b_a.

    Saffron's multifurcation head (arXiv:2506.06444): the bias is trained, the weights stay. A token that training never
    saw has had no gradient at its own bias, so that its entry says nothing: it reads -inf.

    Args:
        weight: (V, hidden) w, frozen.
        bias: (V,) b; 0 where None.
        seen: (V,) whether training saw a token; all of them where None.
    """

    weight: torch.Tensor
    seen: torch.Tensor

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, seen: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        size = len(weight)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(size) if bias is None else bias.float())
        self.register_buffer("seen", torch.ones(size, dtype=torch.bool) if seen is None else seen.bool())

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> VocabularyHead:
        """The head of a checkpoint.

        Raises:
            ModelError: these are other weights.
        """
        if {*state} != {"weight", "bias", "seen"} or not len(state["weight"]) == len(state["bias"]) == len(
            state["seen"]
        ):
            raise ModelError("a head with an entry for each next token has weight, bias and seen of one length")
        return cls(state["weight"], state["bias"], state["seen"])

    def forward(self, hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """(N, 1) float32 entries of a batch's step tokens, or (Q, 1) of the last one of each read where it has none.

        Args:
            hidden: (R, T, hidden) of the batch.
            batch: the batch.
        """
        if batch.said is not None:
            row, column, before = batch.said.row, batch.said.column, batch.said.before
        else:
            row, column = batch.read_row, batch.read_column
            columns = torch.from_numpy(columns_before(batch.position_ids.cpu().numpy()))
            before = columns.to(row.device)[row, column]
        return self.entry(hidden[row, before], batch.input_ids[row, column])[:, None]

    def entry(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """(N,) the entry of one token each, -inf where it is unseen.

        Args:
            hidden: (N, hidden) at the tokens before.
            ids: (N,) the tokens.
        """
        made = (hidden.float() * self.weight[ids].float()).sum(-1) + self.bias[ids].float()
        return torch.where(self.seen[ids], made, -torch.inf)

    def entries(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, V) the entries of all tokens, -inf where one is unseen, from hidden states (N, hidden)."""
        made = hidden.float() @ self.weight.float().T + self.bias.float()
        return torch.where(self.seen, made, -torch.inf)
