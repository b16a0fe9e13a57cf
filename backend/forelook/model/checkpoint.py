"""Reads safetensors checkpoints, in one file or in shards, tensor by tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open

from forelook.errors import CheckpointError
from forelook.model.adapter import Adapter
from forelook.model.config import LlamaConfig
from forelook.model.families import FAMILIES
from forelook.model.forward.attention import choose_attention
from forelook.model.forward.layers import LayerWeights, LlamaWeights, Norm, interleave_halves, norm_weight
from forelook.model.forward.projection import Projection
from forelook.model.forward.rope import rotation_table
from forelook.model.matrix_formats import MatrixFormat, PlainFormat
from forelook.model.quantization import GROUP_SIZE, Groups4

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_FLOATS = {"F64", "F32", "F16", "BF16"}


def has_safetensors(folder: Path) -> bool:
    """Whether a folder has weights in safetensors, in one file or in shards."""
    return (folder / INDEX_NAME).is_file() or (folder / SINGLE_NAME).is_file()


def shard_files(folder: Path) -> dict[str, Path] | None:
    """The shard of each tensor; ``None`` for a checkpoint in one file.

    Raises:
        CheckpointError: there are no safetensors, or a shard is missing.
    """
    index = folder / INDEX_NAME
    if not index.is_file():
        if (folder / SINGLE_NAME).is_file():
            return None
        others = sorted(path.name for pattern in ("*.bin", "*.gguf", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = f"found only {', '.join(others[:3])}; " if others else ""
        raise CheckpointError(
            f"{folder}: no {SINGLE_NAME} and no {INDEX_NAME}; {found}"
            "only safetensors are supported; download or convert the checkpoint in that format"
        )
    try:
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {tensor: folder / Path(name).name for tensor, name in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged ({error}); download it again") from error
    missing = sorted({path.name for path in files.values() if not path.is_file()})
    if missing:
        raise CheckpointError(f"{folder}: shard {', '.join(missing)} is missing; download it into this folder")
    return files


class TensorFile(Protocol):
    """A file of tensors."""

    def get_tensor(self, name: str) -> torch.Tensor:
        """The tensor of a name."""


OpenFile = Callable[[str], tuple[Path, TensorFile]]
"""The file of a tensor, by the tensor's name, and its path."""


@runtime_checkable
class GroupFile(Protocol):
    """A file some of whose matrices are in 4 bits."""

    def get_groups(self, name: str) -> Groups4 | None:
        """A matrix as it is in the file; ``None`` if it is not in 4 bits with a scale per group."""


class TensorSource(Protocol):
    """Weights that are not in safetensors, under the names that they would have there.

    Its tensors are new ones, in the target dtype, and all their values are finite.

    Attributes:
        num_bytes: total size of the tensors that it returns.
        described_by: what states their shapes, for errors.
    """

    num_bytes: int
    described_by: str

    def opened(self) -> AbstractContextManager[OpenFile]:
        """While entered, the function that finds a tensor."""


class _Reader:
    """Reads tensors by name, checks their shapes, converts the dtype and counts bytes."""

    def __init__(
        self,
        open_file: OpenFile,
        described_by: str,
        dtype: torch.dtype,
        device: torch.device,
        on_bytes: Callable[[int], None],
        matrices: MatrixFormat,
        adapter: Adapter | None,
        *,
        is_converted: bool,
    ) -> None:
        self._matrices = matrices
        self._adapter = adapter
        self._is_converted = is_converted  # by a TensorSource
        self._open_file = open_file
        self._described_by = described_by
        self._dtype = dtype
        self._device = device
        self._on_bytes = on_bytes

    def projection(
        self, outputs: dict[str, int], num_inputs: int, *, bias: bool, interleave: int | None = None
    ) -> Projection:
        """Several modules with the same input, as one projection.

        Args:
            outputs: number of outputs per module name, in order.
            num_inputs: number of inputs of every module.
            bias: whether they have biases.
            interleave: the head size, to interleave the rows of all modules but the last for rotation.
        """
        added = self._joined(outputs, (), "bias", interleave, self._dtype) if bias else None
        # An adapter changes floats.
        takes_groups = self._matrices.takes_groups and self._adapter is None
        groups = self._groups(outputs, num_inputs, interleave) if takes_groups else None
        if groups is not None:
            return Projection(self._matrices.layer_of_groups(groups), added)
        joined = self._joined(outputs, (num_inputs,), "weight", interleave, self._matrices.read_dtype)
        return Projection(self._matrices.layer(joined), added)

    def _groups(self, outputs: dict[str, int], num_inputs: int, interleave: int | None) -> Groups4 | None:
        """Modules that are in 4 bits in the file, joined; ``None`` if not all of them are."""
        parts = []
        for index, (name, count) in enumerate(outputs.items()):
            _, file = self._open_file(f"{name}.weight")
            part = file.get_groups(f"{name}.weight") if isinstance(file, GroupFile) else None
            if part is None or part.codes.shape != (count, num_inputs) or part.group_size != GROUP_SIZE:
                return None
            if interleave is not None and index < len(outputs) - 1:
                part = part.reordered(lambda rows: interleave_halves(rows, interleave))
            parts.append(part)
        self._on_bytes(sum(part.codes.nbytes for part in parts) * self._matrices.read_dtype.itemsize)
        return Groups4.joined(parts)

    def _joined(
        self, outputs: dict[str, int], rest: tuple[int, ...], kind: str, interleave: int | None, dtype: torch.dtype
    ) -> torch.Tensor:
        # Filled in place, to avoid a second copy of the weights.
        joined = torch.empty(sum(outputs.values()), *rest, dtype=dtype, device=self._device)
        start = 0
        for index, (name, count) in enumerate(outputs.items()):
            part = self._read(f"{name}.{kind}", (count, *rest))
            if interleave is not None and index < len(outputs) - 1:
                part = interleave_halves(part, interleave)
            joined[start : start + count] = part
            start += count
        return joined

    def one(self, name: str, *shape: int) -> torch.Tensor:
        # A tensor of safetensors is a part of the mapped file.
        return self._read(name, shape).to(device=self._device, dtype=self._dtype, copy=not self._is_converted)

    def table(self, name: str, *shape: int) -> torch.Tensor:
        """A matrix of the whole vocabulary, as the format of matrices reads it."""
        table = self._read(name, shape)
        if not self._matrices.keeps_tensors:
            return table
        return table.to(device=self._device, dtype=self._matrices.read_dtype, copy=not self._is_converted)

    def norm(self, name: str, config: LlamaConfig) -> Norm:
        """A norm over the hidden size."""
        stored = self._read(f"{name}.weight", (config.hidden_size,)).float()
        weight = (stored + FAMILIES[config.model_type].norm_offset).to(device=self._device, dtype=self._dtype)
        if config.layer_norms:
            return Norm(weight, self.one(f"{name}.bias", config.hidden_size), config.norm_eps)
        return Norm(norm_weight(weight), None, config.norm_eps)

    def _read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        path, file = self._open_file(name)
        try:
            tensor = file.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: tensor {name} cannot be read ({error}); download it again") from error
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {list(tensor.shape)}, but {self._described_by} implies {list(shape)}; "
                f"weights and {self._described_by} must have been published together: download both again"
            )
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{path}: {name} has dtype {tensor.dtype}, a quantized format; use float32, float16 or bfloat16 weights"
            )
        wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        if not self._is_converted and not math.isfinite(float(tensor.sum(dtype=wide))):
            raise CheckpointError(
                f"{path}: {name} contains values that are not finite (NaN or infinity); download it again, or choose "
                "another checkpoint"
            )
        self._on_bytes(tensor.nbytes)
        return tensor if self._adapter is None else self._adapter.merged(name, tensor, self._matrices.read_dtype)


@contextmanager
def _opened(folder: Path) -> Iterator[OpenFile]:
    shards = shard_files(folder)
    with ExitStack() as stack:
        files: dict[Path, safe_open] = {}

        def open_file(name: str) -> tuple[Path, TensorFile]:
            path = folder / SINGLE_NAME if shards is None else shards.get(name)
            if path is None:
                raise CheckpointError(f"{folder / INDEX_NAME}: tensor {name} is in no shard; download it again")
            if path not in files:
                try:
                    files[path] = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
                except (SafetensorError, OSError) as error:
                    raise CheckpointError(
                        f"{path} is damaged, truncated or still being downloaded ({error}); download it again, or wait "
                        "until it is complete"
                    ) from error
            return path, files[path]

        yield open_file


def checkpoint_bytes(folder: Path) -> int:
    """Total size of the weight files in bytes."""
    shards = shard_files(folder)
    paths = {folder / SINGLE_NAME} if shards is None else set(shards.values())
    return sum(path.stat().st_size for path in paths)


def read_weights(
    folder: Path,
    config: LlamaConfig,
    dtype: torch.dtype,
    device: torch.device,
    on_fraction: Callable[[float], None],
    matrices: MatrixFormat | None = None,
    source: TensorSource | None = None,
    adapter: Adapter | None = None,
) -> LlamaWeights:
    """Read the weights of a checkpoint, in the layout of the forward pass.

    Args:
        folder: of the checkpoint.
        config: shapes of the weights.
        dtype: of the result.
        device: of the result.
        on_fraction: called with the share of bytes read so far.
        matrices: the format of matrices; by default as they are, in ``dtype``.
        source: of the weights, instead of the safetensors in the folder.
        adapter: merged into each tensor after it is read.

    Raises:
        CheckpointError: a file or tensor is missing, damaged, or has another shape, or the adapter does not fit.
    """
    total = max(checkpoint_bytes(folder) if source is None else source.num_bytes, 1)
    described_by = "config.json" if source is None else source.described_by
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        on_fraction(min(done / total, 1.0))

    with _opened(folder) if source is None else source.opened() as open_file:
        formats = matrices or PlainFormat(dtype)
        reader = _Reader(
            open_file, described_by, dtype, device, on_bytes, formats, adapter, is_converted=source is not None
        )
        shape = config.vocab_size, config.hidden_size
        words = reader.table("model.embed_tokens.weight", *shape)
        embedding = formats.embedding(words)
        tied = formats.tied_head(embedding, words) if config.tied_head else None
        del words
        layers = tuple(_read_layer(reader, config, index) for index in range(config.num_layers))
        final_norm = reader.norm("model.norm", config)
        head = Projection(formats.head(reader.table("lm_head.weight", *shape)) if tied is None else tied)
    if adapter is not None:
        adapter.check_complete()
    wide = torch.complex128 if dtype == torch.float64 else torch.complex64
    rotations = rotation_table(config.rope, config.head_size, config.max_positions).to(device, wide)
    projections = [head, *(part for layer in layers for part in (layer.qkv, layer.output, layer.gate_up, layer.down))]
    norms = [final_norm, *(part for layer in layers for part in (layer.attention_norm, layer.mlp_norm))]
    nbytes = embedding.nbytes + rotations.nbytes
    nbytes += sum(part.nbytes for part in projections) + sum(part.nbytes for part in norms)
    nbytes += sum(layer.head_norm.nbytes for layer in layers if layer.head_norm is not None)
    if head.shares(embedding):
        nbytes -= head.nbytes
    attention = choose_attention(device, dtype)
    return LlamaWeights(config, embedding, layers, final_norm, head, rotations, attention, nbytes)


def _read_layer(reader: _Reader, config: LlamaConfig, index: int) -> LayerWeights:
    hidden, inner, size = config.hidden_size, config.intermediate_size, config.head_size
    queries, keys = config.num_heads * size, config.num_kv_heads * size
    prefix = f"model.layers.{index}."
    attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
    *inputs, output = FAMILIES[config.model_type].mlp
    return LayerWeights(
        attention_norm=reader.norm(f"{prefix}input_layernorm", config),
        qkv=reader.projection(
            {f"{attention}q_proj": queries, f"{attention}k_proj": keys, f"{attention}v_proj": keys},
            hidden,
            bias=config.qkv_bias,
            interleave=size,
        ),
        output=reader.projection({f"{attention}o_proj": hidden}, queries, bias=config.output_bias),
        mlp_norm=reader.norm(f"{prefix}post_attention_layernorm", config),
        gate_up=reader.projection({f"{mlp}{name}": inner for name in inputs}, hidden, bias=config.mlp_bias),
        down=reader.projection({f"{mlp}{output}": hidden}, inner, bias=config.mlp_bias),
        head_norm=_head_norm(reader, config, attention) if config.head_norms else None,
        is_windowed=config.windowed_layers[index],
    )


def _head_norm(reader: _Reader, config: LlamaConfig, attention: str) -> torch.Tensor:
    """[H + Hkv, D]: the weights of the norms of query and key heads, in the order of the rows of the projection."""
    size = config.head_size
    query, key = (
        interleave_halves(reader.one(f"{attention}{name}.weight", size), size) for name in ("q_norm", "k_norm")
    )
    return torch.cat([query.expand(config.num_heads, size), key.expand(config.num_kv_heads, size)])
