"""What is known of a user from pairs that they compared: numbers of theirs without training on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from stepreward.core.errors import ModelError

ENCODER_FILE = "user_encoder.safetensors"
"""In a checkpoint: the weights of the encoder."""
_CONTEXT = 32
"""Most other pairs of a user that tell who they are, where one pair is trained on."""
_WIDTH = 64
"""Numbers of a pair inside the encoder."""


class UserEncoder(nn.Module):
    """The distribution of a latent user z given their pairs, and the weights of features that z means.

        e_i = MLP([h_better; h_worse]),    a = self-attention(e),    (mean, log-variance) = clamp(W mean_i a_i, -1, 1)
        w = w_0 + A z

    After VPL (arXiv:2408.10075; `hidden_context/vae_utils.py` of WEIRDLabUW/vpl_llm): one head of attention. The order
    of pairs does not matter. Without a pair the distribution is the prior, a standard normal one.

    Args:
        hidden: H numbers h at the end of each solution: what the last layer of the head reads.
        outputs: K outputs of it, as many numbers as z and w have.
        seed: of the weights.
    """

    def __init__(self, hidden: int, outputs: int, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pair = nn.Sequential(nn.Linear(2 * hidden, _WIDTH), nn.LeakyReLU(0.2), nn.Linear(_WIDTH, _WIDTH))
            self.query, self.key, self.value = (nn.Linear(_WIDTH, _WIDTH) for _ in range(3))
            self.latent = nn.Linear(_WIDTH, 2 * outputs)
            self.weights = nn.Linear(outputs, outputs)
            # All users begin near each other, so that at first there is one reward.
            with torch.no_grad():
                self.weights.bias.fill_(outputs**-0.5)

    def posterior(self, better: torch.Tensor, worse: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(..., 2 K) mean and log-variance of z, each in [-1, 1]; 0 where there is no pair.

        Args:
            better, worse: (..., n, H) h of both sides of each pair.
            mask: (..., n) True where there is a pair; others may be any finite numbers.
        """
        each = self.pair(torch.cat([better, worse], -1))
        alike = self.query(each) @ self.key(each).transpose(-1, -2) / math.sqrt(_WIDTH)
        # A finite number: where no pair is left a softmax over nothing would be NaN, in its gradient too.
        shares = torch.where(mask[..., None, :], alike, torch.finfo(alike.dtype).min).softmax(-1)
        attended = torch.where(mask[..., None], shares @ self.value(each), 0.0)
        pooled = attended.sum(-2) / mask.sum(-1, keepdim=True).clamp(min=1)
        made: torch.Tensor = self.latent(pooled).clamp(-1, 1)
        return torch.where(mask.any(-1, keepdim=True), made, 0.0)

    def sampled(self, latents: torch.Tensor) -> torch.Tensor:
        """(..., K) a draw of z in training, its mean otherwise."""
        mean, log_variance = latents.chunk(2, -1)
        return mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean

    def forward(
        self, ends: torch.Tensor, pairs: torch.Tensor, annotator: torch.Tensor, problems: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(P, K) weights of each pair's user, and (P, 2 K) the distribution of z, by other pairs of theirs.

        Args:
            ends: (B, H) h of each solution, NaN where it has none.
            pairs: (P, 2) the better and the worse solution of each pair.
            annotator: (P,) number of the user who compared them, -1 where unknown.
            problems: (B,) id of each solution's problem.
        """
        numbers = {name: i for i, name in enumerate(dict.fromkeys(problems))}
        problem = torch.tensor([numbers[name] for name in problems], dtype=torch.long, device=pairs.device)[pairs[:, 0]]
        real = ~ends[pairs].isnan().any(-1).any(-1)
        better, worse = (torch.where(real[:, None], ends[side], 0.0) for side in pairs.T)
        context = context_of(annotator, problem, real)
        there = context.clamp(min=0)
        latents = self.posterior(better[there], worse[there], context >= 0)
        return self.weights(self.sampled(latents)), latents

    def weights_of(self, better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
        """(K,) weights of a user at the mean of z, by all their pairs: (n, H) h of both sides."""
        latents = self.posterior(better, worse, torch.ones(len(better), dtype=torch.bool, device=better.device))
        made: torch.Tensor = self.weights(latents.chunk(2, -1)[0])
        return made

    def save(self, folder: Path) -> None:
        """Writes the weights into the folder of a checkpoint."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / ENCODER_FILE)

    @classmethod
    def load(cls, folder: Path) -> UserEncoder | None:
        """The encoder in the folder of a checkpoint; None where there is none.

        Raises:
            ModelError: it cannot be read.
        """
        path = folder / ENCODER_FILE
        if not path.is_file():
            return None
        try:
            state = load_file(path)
            made = cls(state["pair.0.weight"].shape[1] // 2, len(state["weights.weight"]))
            made.load_state_dict(state)
        except (OSError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelError(f"cannot load the encoder of users {path}: {error}") from error
        return made


def context_of(
    annotator: torch.Tensor, problem: torch.Tensor, real: torch.Tensor, *, most: int = _CONTEXT
) -> torch.Tensor:
    """(P, M) for each pair some others of the same annotator, from other problems; -1 where there are fewer than M.

    A problem's pairs share solutions, so that one of them would tell how another was decided.

    Args:
        annotator: (P,) number of the annotator of each pair, -1 where unknown.
        problem: (P,) number of its problem.
        real: (P,) whether both of its sides have features; others are nobody's context.
        most: M, at most; the next ones in the batch are taken, in a circle.
    """
    pairs = torch.arange(len(annotator), device=annotator.device)
    mine = (annotator[:, None] == annotator) & (annotator >= 0)[:, None] & (problem[:, None] != problem) & real
    ahead = torch.where(mine, (pairs - pairs[:, None]) % max(len(pairs), 1), len(pairs))
    order = ahead.argsort(dim=1)[:, :most]
    return torch.where(mine.gather(1, order), order, -1)
