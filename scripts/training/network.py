"""A network for training: the Llama shape over packed samples, with a loss that never stores all logits.

Samples of a batch are laid end to end in one row of tokens, so nothing is padding; attention and positions know where
each begins. The forward is that of ``forelook.model.forward.llama``, which the tests compare it with. All weights are
trained, or low-rank differences of frozen ones (``training.low_rank``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from forelook.model.config import LlamaConfig
from forelook.model.forward.rope import rotation_table
from torch import Tensor, nn

from training.bases import Base, read_base
from training.cross_entropy import cross_entropy, logit_rows
from training.low_rank import LowRankTable, Part, lookup, low_rank_product

QKV = ("q_proj", "k_proj", "v_proj")
GATE_UP = ("gate_proj", "up_proj")
GROUPS = (QKV, ("o_proj",), GATE_UP, ("down_proj",))
"""The matrices of a layer; those of a group have one input and are multiplied as one."""


class Layer(nn.Module):
    """One decoder layer.

    Attributes:
        parts: low-rank differences by the matrix's name; empty where all weights are trained.
        merged: with differences, each group's matrices as they are with them, joined.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        queries, keys = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        self.config = config
        self.input_layernorm = nn.Parameter(torch.ones(size))
        self.q_proj = nn.Parameter(torch.empty(queries, size))
        self.k_proj = nn.Parameter(torch.empty(keys, size))
        self.v_proj = nn.Parameter(torch.empty(keys, size))
        if config.qkv_bias:
            for name, count in zip(QKV, (queries, keys, keys), strict=True):
                self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(count)))
        self.o_proj = nn.Parameter(torch.empty(size, queries))
        self.post_attention_layernorm = nn.Parameter(torch.ones(size))
        self.gate_proj = nn.Parameter(torch.empty(inner, size))
        self.up_proj = nn.Parameter(torch.empty(inner, size))
        self.down_proj = nn.Parameter(torch.empty(size, inner))
        self.parts = nn.ModuleDict()
        self.merged: dict[tuple[str, ...], Tensor] = {}

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, lengths: Sequence[int]) -> Tensor:
        """The next hidden states of ``[tokens, hidden_size]``."""
        config = self.config
        heads, kv_heads = config.num_heads, config.num_kv_heads
        normed = F.rms_norm(hidden, hidden.shape[-1:], self.input_layernorm, config.norm_eps)
        joined = self._product(normed, QKV).view(hidden.shape[0], heads + 2 * kv_heads, config.head_size)
        query, key = _rotate(joined[:, : heads + kv_heads], cos, sin).split([heads, kv_heads], 1)
        attended = attend(query, key, joined[:, heads + kv_heads :], lengths)
        hidden = hidden + self._product(attended.flatten(1), ("o_proj",))
        normed = F.rms_norm(hidden, hidden.shape[-1:], self.post_attention_layernorm, config.norm_eps)
        gate, up = self._product(normed, GATE_UP).chunk(2, -1)
        return hidden + self._product(F.silu(gate) * up, ("down_proj",))

    def merge(self) -> None:
        """Take over the low-rank parts as they are now."""
        for names in GROUPS:
            rows = [part.added_to(self._named(name)) for name in names for part in [self.part(name)]]
            if names in self.merged:
                torch.cat(rows, out=self.merged[names])
            else:
                self.merged[names] = torch.cat(rows)

    def _product(self, inputs: Tensor, names: tuple[str, ...]) -> Tensor:
        """The products with one group of matrices, joined: the weights are small, the rows many."""
        has_bias = names == QKV and self.config.qkv_bias
        bias = torch.cat([self._named(f"{name}_bias") for name in names]) if has_bias else None
        if self.merged:
            return low_rank_product(inputs, self.merged[names], bias, [self.part(name) for name in names])
        return F.linear(inputs, torch.cat([self._named(name) for name in names]), bias)

    def _named(self, name: str) -> Tensor:
        weight: Tensor = getattr(self, name)
        return weight

    def part(self, name: str) -> Part:
        """A matrix's low-rank difference."""
        part = self.parts[name]
        assert isinstance(part, Part)
        return part


class Network(nn.Module):
    """A decoder, with the embedding as its head or with a head of its own.

    Attributes:
        config: shapes and constants.
        table: low-rank difference of the embedding, and its whole rows; ``None`` where all weights are trained.
        head_table: the same of a head of its own.
        num_frozen: of the first layers, those whose differences are not trained: nothing goes back through them.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = nn.Parameter(torch.ones(config.hidden_size))
        self.lm_head = None if config.tied_head else nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.table: LowRankTable | None = None
        self.head_table: LowRankTable | None = None
        self.num_frozen = 0
        rotations = rotation_table(config.rope, config.head_size, config.max_positions)
        # Plain attributes: a buffer would lose its float32 when the weights become bfloat16.
        self.cos, self.sin = rotations.real.contiguous(), rotations.imag.contiguous()

    def initialize(self, generator: torch.Generator) -> None:
        """Fresh weights: normal, smaller into the residual stream."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    std = 0.02
                    if name.endswith(("o_proj", "down_proj")):
                        std /= math.sqrt(2 * self.config.num_layers)
                    parameter.normal_(0.0, std, generator=generator)

    def attach(self, *, rank: int, alpha: float, row_ids: Sequence[int], seed: int) -> None:
        """Freeze the weights and give every matrix a low-rank difference; the norms and some rows are trained whole.

        Args:
            rank: of each difference.
            alpha: the differences are scaled by ``alpha / rank``.
            row_ids: control tokens whose rows of embedding and head are trained whole.
            seed: of the fresh factors.
        """
        generator = torch.Generator().manual_seed(seed)
        scale, like = alpha / rank, self.embed_tokens
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.endswith("norm"))
        for layer in self.each_layer():
            for name, weight in list(layer.named_parameters(recurse=False)):
                if weight.ndim == 2:
                    layer.parts[name] = Part(*weight.shape, rank, scale, generator).to(like)
        self.table = LowRankTable(self.embed_tokens, row_ids, rank, scale, generator).to(like)
        if self.lm_head is not None:
            self.head_table = LowRankTable(self.lm_head, row_ids, rank, scale, generator).to(like)
        self.merge()

    def freeze_below(self, num_layers: int, end_ids: Sequence[int]) -> None:
        """Train only the last layers, the last norm, and the rows of tokens that end a text.

        A step then costs little more than its forward. The other rows and the embedding stay as they are, because
        what they do as inputs would not be learned.

        Args:
            num_layers: how many of the last ones are trained.
            end_ids: tokens that are never an input.
        """
        self.num_frozen = self.config.num_layers - num_layers
        frozen = list(self.each_layer())[: self.num_frozen]
        for parameter in (parameter for layer in frozen for parameter in layer.parameters()):
            parameter.requires_grad_(requires_grad=False)
        for table in (self.table, self.head_table):
            if table is not None:
                table.train_only_rows(end_ids)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters of what is trained."""
        return [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]

    @torch.no_grad()
    def merge(self) -> None:
        """Compute with the low-rank parts as they are now; nothing to do where all weights are trained."""
        if self.table is None:
            return
        for layer in self.each_layer():
            layer.merge()
        self.table.merge(self.embed_tokens)
        if self.head_table is not None and self.lm_head is not None:
            self.head_table.merge(self.lm_head)

    def each_layer(self) -> Iterator[Layer]:
        """The layers, first to last."""
        for layer in self.layers:
            assert isinstance(layer, Layer)
            yield layer

    @property
    def head(self) -> Tensor:
        """The matrix that turns hidden states into logits, ``[vocab_size, hidden_size]``."""
        if self.lm_head is not None:
            return self.lm_head if self.head_table is None else self.head_table.merged
        return self.embed_tokens if self.table is None else self.table.merged

    def hidden(self, ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Last hidden states ``[tokens, hidden_size]`` of samples of the given lengths, laid end to end."""
        positions = torch.cat([torch.arange(length) for length in lengths])
        cos, sin = (table[positions].to(self.embed_tokens)[:, None] for table in (self.cos, self.sin))
        layers = list(self.layers)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.num_frozen):
            hidden = F.embedding(ids, self.embed_tokens) if self.table is None else lookup(ids, self.table)
            for layer in layers[: self.num_frozen]:
                hidden = layer(hidden, cos, sin, lengths)
        for layer in layers[self.num_frozen :]:
            hidden = layer(hidden, cos, sin, lengths)
        return F.rms_norm(hidden, hidden.shape[-1:], self.norm, self.config.norm_eps)

    def losses(self, ids: Tensor, targets: Tensor, lengths: Sequence[int], weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean loss in nats, and the loss of each token, without gradient and as precise as the weights.

        Tokens without weight cost no product with the head, and their loss is given as zero.

        Args:
            ids: ``[tokens]``.
            targets: the token that follows each; anything where the weight is zero.
            lengths: of the samples; they add up to ``tokens``.
            weights: ``[tokens]`` float32; zero where nothing is to be learned.
        """
        taught = weights.nonzero().squeeze(1)
        hidden = self.hidden(ids, lengths)[taught]
        table = self.table if self.lm_head is None else self.head_table
        loss, of_taught = cross_entropy(hidden, self.head, targets[taught], weights[taught], table)
        return loss, torch.zeros_like(weights).index_copy(0, taught, of_taught)

    @torch.no_grad()
    def token_losses(self, ids: Tensor, targets: Tensor, lengths: Sequence[int]) -> Tensor:
        """The loss of each token in nats, in float32."""
        hidden, head = self.hidden(ids, lengths).float(), self.head.float()
        rows = logit_rows(len(head))
        return torch.cat(
            [
                F.cross_entropy(part @ head.T, wanted, reduction="none")
                for part, wanted in zip(hidden.split(rows), targets.split(rows), strict=True)
            ]
        )


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], *, is_padded: bool | None = None
) -> Tensor:
    """Causal attention within each sample.

    Args:
        query: ``[tokens, heads, head_size]``.
        key: ``[tokens, key heads, head_size]``; each key head serves as many query heads as there are for one.
        value: likewise.
        lengths: of the samples.
        is_padded: all samples at once, padded to the longest: one launch instead of one per sample, which is what a
            GPU waits for; by default there. A CPU computes no padding.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if is_padded if is_padded is not None else query.is_cuda:
        is_real = torch.arange(max(lengths), device=query.device) < torch.tensor(lengths, device=query.device)[:, None]
        # Padding follows a sample's tokens, so no token sees any.
        padded = (_scattered(tensor, is_real).transpose(1, 2) for tensor in (query, key, value))
        return F.scaled_dot_product_attention(*padded, is_causal=True).transpose(1, 2)[is_real]
    by_sample = (tensor.transpose(0, 1)[None].split(list(lengths), dim=2) for tensor in (query, key, value))
    parts = [F.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in zip(*by_sample, strict=True)]
    return torch.cat(parts, dim=2)[0].transpose(0, 1)


def _scattered(rows: Tensor, is_real: Tensor) -> Tensor:
    """``[tokens, ...]`` as ``[samples, longest, ...]``."""
    return rows.new_zeros(*is_real.shape, *rows.shape[1:]).masked_scatter(is_real[..., None, None], rows)


def load_network(base: Base | Path, *, max_positions: int | None = None) -> Network:
    """A network with a base's weights, in float32.

    Args:
        base: a base, or where it lies.
        max_positions: positions to train with; rotary embeddings need no new weights for more.

    Raises:
        ModelError: a subclass; the checkpoint is of another kind, or damaged.
    """
    base = read_base(base) if isinstance(base, Path) else base
    network = Network(replace(base.config, max_positions=max_positions or base.config.max_positions))
    with torch.no_grad(), base.opened() as read:
        for name, parameter in network.named_parameters():
            parameter.copy_(read(saved_name(name)))
    return network


def saved_name(name: str) -> str:
    """The name of a parameter in a Hugging Face checkpoint."""
    if name == "lm_head":
        return "lm_head.weight"
    if not name.startswith("layers."):
        return f"model.{name}.weight"
    _, number, part = name.split(".")
    part, kind = (part.removesuffix("_bias"), "bias") if part.endswith("_bias") else (part, "weight")
    return f"{module_name(int(number), part)}.{kind}"


def module_name(layer: int, part: str) -> str:
    """The name of a module of a layer in a Hugging Face checkpoint."""
    group = "self_attn." if part in (*QKV, "o_proj") else ""
    group = "mlp." if part in (*GATE_UP, "down_proj") else group
    return f"model.layers.{layer}.{group}{part}"
