"""The starter model's network for training: Llama over packed samples, with a loss that never stores all logits.

Samples of a batch are laid end to end in one row of tokens, so nothing is padding; attention and positions know where
each begins. The forward is that of ``forelook.model.forward.llama``, which the tests compare it with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_LOGIT_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a network, by the names of a Llama config.json."""

    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    vocab_size: int = 8192
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        size, inner = shape.hidden_size, shape.intermediate_size
        self.num_heads, self.eps = shape.num_attention_heads, shape.rms_norm_eps
        self.input_layernorm = nn.Parameter(torch.ones(size))
        self.q_proj = nn.Parameter(torch.empty(size, size))
        self.k_proj = nn.Parameter(torch.empty(size, size))
        self.v_proj = nn.Parameter(torch.empty(size, size))
        self.o_proj = nn.Parameter(torch.empty(size, size))
        self.post_attention_layernorm = nn.Parameter(torch.ones(size))
        self.gate_proj = nn.Parameter(torch.empty(inner, size))
        self.up_proj = nn.Parameter(torch.empty(inner, size))
        self.down_proj = nn.Parameter(torch.empty(size, inner))

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, lengths: Sequence[int]) -> Tensor:
        normed = F.rms_norm(hidden, hidden.shape[-1:], self.input_layernorm, self.eps)
        # One product for three, and one for two: the weights are small, the rows many.
        joined = F.linear(normed, torch.cat([self.q_proj, self.k_proj, self.v_proj]))
        joined = joined.view(hidden.shape[0], 3, self.num_heads, -1)
        query, key = _rotate(joined[:, :2], cos, sin).unbind(1)
        hidden = hidden + F.linear(_attend(query, key, joined[:, 2], lengths).flatten(1), self.o_proj)
        normed = F.rms_norm(hidden, hidden.shape[-1:], self.post_attention_layernorm, self.eps)
        gate, up = F.linear(normed, torch.cat([self.gate_proj, self.up_proj])).chunk(2, -1)
        return hidden + F.linear(F.silu(gate) * up, self.down_proj)


class Network(nn.Module):
    """Llama with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Parameter(torch.empty(shape.vocab_size, shape.hidden_size))
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden_size))
        frequencies = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
        angles = torch.outer(torch.arange(shape.max_position_embeddings, dtype=torch.float64), frequencies)
        # Plain attributes: a buffer would lose its float32 when the weights become bfloat16.
        self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def initialize(self, generator: torch.Generator) -> None:
        """Fresh weights: normal, smaller into the residual stream."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    std = 0.02
                    if name.endswith(("o_proj", "down_proj")):
                        std /= math.sqrt(2 * self.shape.num_hidden_layers)
                    parameter.normal_(0.0, std, generator=generator)

    def hidden(self, ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Last hidden states ``[tokens, hidden_size]`` of samples of the given lengths, laid end to end."""
        positions = torch.cat([torch.arange(length) for length in lengths])
        hidden = F.embedding(ids, self.embed_tokens)
        cos, sin = (table[positions].to(hidden)[:, None, None] for table in (self.cos, self.sin))
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, lengths)
        return F.rms_norm(hidden, hidden.shape[-1:], self.norm, self.shape.rms_norm_eps)

    def losses(self, ids: Tensor, targets: Tensor, lengths: Sequence[int], weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean loss in nats, and the loss of each token, without gradient and as precise as the weights.

        Args:
            ids: ``[tokens]``.
            targets: the token that follows each; anything where the weight is zero.
            lengths: of the samples; they add up to ``tokens``.
            weights: ``[tokens]`` float32; zero where nothing is to be learned.
        """
        loss, per_token = _TiedCrossEntropy.apply(self.hidden(ids, lengths), self.embed_tokens, targets, weights)
        return loss, per_token

    @torch.no_grad()
    def token_losses(self, ids: Tensor, targets: Tensor, lengths: Sequence[int]) -> Tensor:
        """The loss of each token in nats, in float32."""
        hidden, embedding = self.hidden(ids, lengths).float(), self.embed_tokens.float()
        return torch.cat(
            [
                F.cross_entropy(rows @ embedding.T, wanted, reduction="none")
                for rows, wanted in zip(hidden.split(_LOGIT_ROWS), targets.split(_LOGIT_ROWS), strict=True)
            ]
        )


class _TiedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of ``hidden @ embedding.T`` in blocks of rows; gradients are computed on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        shares = weights / weights.sum().clamp_min(1e-9)
        grad_hidden, grad_embedding = torch.empty_like(hidden), torch.zeros_like(embedding, dtype=torch.float32)
        per_token = torch.empty_like(weights)
        for start in range(0, hidden.shape[0], _LOGIT_ROWS):
            rows = slice(start, start + _LOGIT_ROWS)
            wanted, share = targets[rows, None], shares[rows, None].to(hidden.dtype)
            # Everything of the size of the logits stays in the weights' type: on a CPU this is bound by memory.
            gradient = (hidden[rows] @ embedding.T).softmax(-1)
            likely = gradient.gather(1, wanted)
            per_token[rows] = -likely.squeeze(1).float().clamp_min(1e-30).log()
            # One target a row: no adding up, which in bfloat16 would copy all of it to float32 and back.
            gradient.scatter_(1, wanted, likely - 1)
            grad_hidden[rows] = (gradient @ embedding) * share
            grad_embedding += (gradient.T @ (hidden[rows] * share)).float()
        ctx.save_for_backward(grad_hidden, grad_embedding.to(embedding.dtype))
        ctx.mark_non_differentiable(per_token)
        return (per_token * shares).sum(), per_token

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_embedding = ctx.saved_tensors
        scale = gradients[0].to(grad_hidden.dtype)
        return grad_hidden * scale, grad_embedding * scale, None, None


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _attend(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    """Causal attention within each sample; all ``[tokens, heads, head_dim]``."""
    by_sample = (tensor.transpose(0, 1)[None].split(list(lengths), dim=2) for tensor in (query, key, value))
    parts = [F.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in zip(*by_sample, strict=True)]
    return torch.cat(parts, dim=2)[0].transpose(0, 1)


def load_network(folder: Path, *, max_positions: int | None = None) -> Network:
    """A network from a checkpoint folder, in float32.

    Args:
        folder: config.json and model.safetensors of a Llama model with tied embeddings and as many key as query heads.
        max_positions: positions to train with; rotary embeddings need no new weights for more.

    Raises:
        ValueError: the checkpoint is of another kind.
    """
    raw = json.loads((folder / "config.json").read_text("utf-8"))
    if raw.get("num_key_value_heads", raw["num_attention_heads"]) != raw["num_attention_heads"]:
        raise ValueError(f"{folder}: num_key_value_heads differs from num_attention_heads; training needs them equal")
    if not raw.get("tie_word_embeddings"):
        raise ValueError(f"{folder}: tie_word_embeddings is not set; training needs tied embeddings")
    names = asdict(Shape())
    values = {name: raw[name] for name in names if name in raw}
    if max_positions is not None:
        values["max_position_embeddings"] = max_positions
    network = Network(Shape(**values))
    weights = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[_saved_name(name)].float())
    return network


def save_network(network: Network, folder: Path, tokenizer_json: str) -> None:
    """Write a folder that ``forelook serve --model`` loads: bf16 safetensors, config.json, tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        _saved_name(name): value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in network.named_parameters()
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(network.shape),
        "num_key_value_heads": network.shape.num_attention_heads,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 6,
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_json, "utf-8")
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": network.shape.max_position_embeddings,
        "additional_special_tokens": ["<PRE>", "<SUF>", "<MID>", "<EOT>", "<file>"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1) + "\n", "utf-8")


def _saved_name(name: str) -> str:
    """The name in a Llama checkpoint."""
    if not name.startswith("layers."):
        return f"model.{name}.weight"
    _, number, part = name.split(".")
    group = "self_attn." if part in ("q_proj", "k_proj", "v_proj", "o_proj") else ""
    group = "mlp." if part in ("gate_proj", "up_proj", "down_proj") else group
    return f"model.layers.{number}.{group}{part}.weight"
