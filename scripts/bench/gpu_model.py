"""What the GPU benchmark runs: a plan, random weights of real shapes, and sequences over them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.forward.attention import choose_attention
from forelook.model.forward.cuda_graphs import CudaGraphs
from forelook.model.forward.layers import LayerWeights, LlamaWeights, Norm, norm_weight
from forelook.model.forward.matrix import DenseMatrix
from forelook.model.forward.projection import Projection
from forelook.model.forward.rope import rotation_table
from forelook.model.forward.static_step import BucketedSequence, StepSpace, run_as_it_is
from forelook.model.forward.step_ops import choose_step_ops

SHAPES: dict[str, dict[str, Any]] = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
           "num_key_value_heads": 4},
    "tiny": {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 512},
}  # fmt: skip
COMMON = {
    "model_type": "llama", "vocab_size": 32016, "rms_norm_eps": 1e-5, "max_position_embeddings": 16384,
    "rope_theta": 1e6, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip

SMOKE: dict[str, Any] = {
    "prefixes": (16, 64), "tails": (1, 8, 20), "prefix": 64, "long_prefix": 128, "repeats": 2, "copy_bytes": 2**20,
    "num_new_tokens": 8, "smoke": True,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often.

    Attributes:
        shape: name of the model's shape.
        config: the model's configuration.
        raw: the same in transformers' fields.
        prefixes, tails: committed tokens and step sizes of the table.
        prefix, long_prefix: committed tokens of the comparisons, 1 k and 4 k.
        repeats: steps per method.
        copy_bytes: size of the bandwidth measurement.
        num_new_tokens: tokens of the end-to-end run.
        smoke: whether the run only exercises the code.
    """

    shape: str

    config: LlamaConfig
    raw: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    prefixes: tuple[int, ...] = (0, 256, 1024, 4096, 8192)
    tails: tuple[int, ...] = (1, 8, 16, 32, 64, 128)
    prefix: int = 1024
    long_prefix: int = 4096
    repeats: int = 50
    copy_bytes: int = 2**30
    num_new_tokens: int = 256
    smoke: bool = False

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def make_plan(shape: str, *, device_name: str, dtype: str | None, repeats: int, smoke: bool) -> Plan:
    """Return the plan of a run; with ``smoke`` tiny sizes, on a CPU where there is no GPU."""
    raw = {**COMMON, **SHAPES[shape]}
    device = torch.device("cpu" if smoke and not torch.cuda.is_available() else device_name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device found; use --smoke to run the same code on a CPU")
    config, chosen = parse_config(raw, "bench"), dtype or ("float32" if device.type == "cpu" else "bfloat16")
    plan = Plan(shape, config, raw, device, getattr(torch, chosen), repeats=repeats)
    return replace(plan, **SMOKE) if smoke else plan


def random_weights(plan: Plan) -> LlamaWeights:
    """Return weights made on the device, scaled so that activations stay near 1."""
    config, device, dtype = plan.config, plan.device, plan.dtype
    generator = torch.Generator(device=device).manual_seed(0)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        made = torch.empty(rows, columns, dtype=dtype, device=device)
        return made.normal_(0, columns**-0.5, generator=generator)

    def norm() -> Norm:
        return Norm(norm_weight(torch.ones(config.hidden_size, dtype=dtype, device=device)), None, config.norm_eps)

    hidden, inner, size = config.hidden_size, config.intermediate_size, config.head_size
    layers = tuple(
        LayerWeights(
            attention_norm=norm(),
            qkv=Projection(matrix((config.num_heads + 2 * config.num_kv_heads) * size, hidden)),
            output=Projection(matrix(hidden, config.num_heads * size)),
            mlp_norm=norm(),
            gate_up=Projection(matrix(2 * inner, hidden)),
            down=Projection(matrix(hidden, inner)),
        )
        for _ in range(config.num_layers)
    )
    embedding = DenseMatrix(matrix(config.vocab_size, hidden))
    head = Projection(matrix(config.vocab_size, hidden))
    rotations = rotation_table(config.rope, size, config.max_positions).to(device)
    parts = [head, *(part for layer in layers for part in (layer.qkv, layer.output, layer.gate_up, layer.down))]
    nbytes = embedding.nbytes + sum(part.nbytes for part in parts)
    attention = choose_attention(device, dtype)
    return LlamaWeights(config, embedding, layers, norm(), head, rotations, attention, nbytes)


def read_bytes(weights: LlamaWeights, prefix: int) -> int:
    """Return the bytes one step must read: every matrix but the embedding, and the committed keys and values."""
    per_token = weights.config.kv_values_per_token * weights.kv_dtype.itemsize
    return weights.nbytes - weights.embedding.nbytes + prefix * per_token


def new_sequence(
    plan: Plan, weights: LlamaWeights, *, captured: bool, capacity: int, attend: Any = None
) -> BucketedSequence:
    """Return a sequence, its steps captured as CUDA graphs or not, with the chosen or the given attention."""
    ops = choose_step_ops(weights.config, plan.device, plan.dtype)
    if attend is not None:
        ops = replace(ops, attend=attend)
    prepare = CudaGraphs(plan.device) if captured and plan.device.type == "cuda" else run_as_it_is
    return BucketedSequence(StepSpace(weights, ops, prepare), capacity)
