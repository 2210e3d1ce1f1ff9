"""InternLM2's forward pass written out by hand, on weights in its own layout; no outside code."""

from __future__ import annotations

from types import SimpleNamespace

import torch

State = dict[str, torch.Tensor]


def random_weights(config: dict[str, int], seed: int) -> State:
    """Random weights under the names of its checkpoints."""
    made, hidden, wide = torch.Generator().manual_seed(seed), config["hidden_size"], config["intermediate_size"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    shapes = {"model.tok_embeddings.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,),
              "output.weight": (config["vocab_size"], hidden)}  # fmt: skip
    for i in range(config["num_hidden_layers"]):
        own = {
            "attention.wqkv": ((heads + 2 * groups) * hidden // heads, hidden), "attention.wo": (hidden, hidden),
            "feed_forward.w1": (wide, hidden), "feed_forward.w2": (hidden, wide), "feed_forward.w3": (wide, hidden),
            "attention_norm": (hidden,), "ffn_norm": (hidden,),
        }  # fmt: skip
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in own.items()}
    return {
        name: torch.randn(shape, generator=made) * 0.2 + (len(shape) == 1)
        for name, shape in sorted(shapes.items())
    }  # fmt: skip


class InternLM2:
    """The model as a function of token ids, one sequence."""

    def __init__(self, state: State, config: dict[str, int]) -> None:
        self.state, self.config = state, config

    def __call__(self, input_ids: torch.Tensor) -> SimpleNamespace:
        x = self.state["model.tok_embeddings.weight"][input_ids[0]]
        for i in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            x = x + self.attention(layer + "attention.", self.norm(x, layer + "attention_norm"))
            x = x + self.feed_forward(layer + "feed_forward.", self.norm(x, layer + "ffn_norm"))
        return SimpleNamespace(logits=(self.norm(x, "model.norm") @ self.state["output.weight"].T)[None])

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        scale = (x.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"]).rsqrt()
        return x * scale * self.state[name + ".weight"]

    def feed_forward(self, name: str, x: torch.Tensor) -> torch.Tensor:
        w = [self.state[f"{name}w{i}.weight"].T for i in (1, 2, 3)]
        return (torch.nn.functional.silu(x @ w[0]) * (x @ w[2])) @ w[1]

    def attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Rows of `wqkv`: for each group its queries' heads, then the key's, then the value's."""
        heads, groups, t = self.config["num_attention_heads"], self.config["num_key_value_heads"], len(x)
        each, size = heads // groups, x.shape[1] // heads
        rows, out = (x @ self.state[name + "wqkv.weight"].T).split(size, dim=1), []
        hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
        for head in range(heads):
            first = head // each * (each + 2)
            query, key, value = rows[first + head % each], rows[first + each], rows[first + each + 1]
            weights = self.rotated(query) @ self.rotated(key).T / size**0.5
            out.append(weights.masked_fill(hidden, float("-inf")).softmax(-1) @ value)
        return torch.cat(out, 1) @ self.state[name + "wo.weight"].T

    def rotated(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[1] // 2
        frequency = self.config["rope_theta"] ** (-torch.arange(half) / half)
        angle = torch.arange(len(x))[:, None] * frequency
        first, second = x[:, :half], x[:, half:]
        return torch.cat(
            [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], 1
        )  # fmt: skip
