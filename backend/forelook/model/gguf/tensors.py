"""The weights of a GGUF file under the names and in the layout of a Hugging Face checkpoint."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import MappingProxyType

import torch

from forelook.errors import CheckpointError
from forelook.model.checkpoint import OpenFile
from forelook.model.config import LlamaConfig
from forelook.model.gguf.architectures import Architecture
from forelook.model.gguf.blocks import GROUP_READERS, dequantize, read_groups
from forelook.model.gguf.header import GgufFile
from forelook.model.quantization import QUANTIZED_DTYPES, Groups4

_FULL_PRECISION = {"F32", "F16", "BF16", "F64"}
_MIB = 2**20
_WORTH_A_NOTICE = 1.3  # times the file's size; chosen, not measured

_MODEL_NAMES: Mapping[str, str] = MappingProxyType(
    {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
)
_LAYER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    }
)


def gguf_name(name: str) -> str:
    """The name in GGUF of a checkpoint's tensor; an unknown name is returned as it is."""
    module, _, kind = name.rpartition(".")
    if module in _MODEL_NAMES:
        return f"{_MODEL_NAMES[module]}.{kind}"
    if module.startswith("model.layers."):
        index, _, part = module.removeprefix("model.layers.").partition(".")
        if part in _LAYER_NAMES:
            return f"blk.{index}.{_LAYER_NAMES[part]}.{kind}"
    return name


class GgufTensors:
    """Reads tensors by their name in a Hugging Face checkpoint.

    Attributes:
        num_bytes: size in the target dtype of all tensors.
        described_by: what states the expected shapes, for errors.
    """

    described_by = "the metadata"

    def __init__(
        self, files: Sequence[GgufFile], architecture: Architecture, config: LlamaConfig, dtype: torch.dtype
    ) -> None:
        self._files = {name: file for file in files for name in file.tensors}
        self._first = files[0]
        self._architecture = architecture
        self._config = config
        self._dtype = dtype
        self._pool: ThreadPoolExecutor | None = None
        self.num_bytes = sum(prod(place.shape) for file in files for place in file.tensors.values()) * dtype.itemsize

    @contextmanager
    def opened(self) -> Iterator[OpenFile]:
        """While entered, finds tensors; large ones are converted by as many threads as torch uses."""
        num_threads = torch.get_num_threads()
        # Operators run on one thread each, and chunks side by side: torch joins its threads at the end of every
        # operator, and where another program has a core, each join waits. Measured under load: 0.5 s against 11 s.
        torch.set_num_threads(1)
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as self._pool:
            try:
                yield self._open_file
            finally:
                self._pool.shutdown()
                self._pool = None
                torch.set_num_threads(num_threads)

    def _open_file(self, name: str) -> tuple[Path, GgufTensors]:
        stored = gguf_name(name)
        file = self._files.get(stored)
        if file is None:
            raise CheckpointError(
                f"{self._first.path}: tensor {stored} is missing; the file is incomplete or of another architecture "
                f"than its general.architecture says: download it again"
            )
        return file.path, self

    def get_tensor(self, name: str) -> torch.Tensor:
        """A tensor in the target dtype, its rows in the order of the Hugging Face checkpoint."""
        stored = gguf_name(name)
        file = self._files[stored]
        place = file.tensors[stored]
        file.check_size()
        data = torch.frombuffer(file.data, dtype=torch.uint8, count=place.num_bytes, offset=place.offset)
        values, is_finite = dequantize(data, place, self._dtype, f"{file.path}: {stored}", self._pool)
        file.drop_pages(place)
        if not is_finite:
            raise _not_finite(file, stored)
        offset = self._architecture.norm_offset
        if offset and "norm" in stored:
            values -= offset
        return self._in_order(stored, values)

    def get_groups(self, name: str) -> Groups4 | None:
        """A matrix in 4 bits as it is in the file, its rows in the order of the Hugging Face checkpoint.

        ``None`` if it is in another format.
        """
        stored = gguf_name(name)
        file = self._files.get(stored)
        place = None if file is None else file.tensors[stored]
        if file is None or place is None or place.type.name not in GROUP_READERS or len(place.shape) != 2:
            return None
        file.check_size()
        data = torch.frombuffer(file.data, dtype=torch.uint8, count=place.num_bytes, offset=place.offset)
        groups = read_groups(data, place)
        file.drop_pages(place)
        if not math.isfinite(float(groups.scales.sum() + groups.minima.sum())):
            raise _not_finite(file, stored)
        return groups.reordered(lambda rows: self._in_order(stored, rows))

    def _in_order(self, stored: str, rows: torch.Tensor) -> torch.Tensor:
        if self._architecture.permutes_heads and ".attn_q." in stored:
            return _halves(rows, self._config.num_heads)
        if self._architecture.permutes_heads and ".attn_k." in stored:
            return _halves(rows, self._config.num_kv_heads)
        return rows

    def cost(self, kept_bytes: int, kept_as: str) -> str:
        """Which formats are kept as what, and the memory that takes; empty if none is, or little more than the file.

        Args:
            kept_bytes: size of the weights in the layout of the forward pass.
            kept_as: the format of the layers' matrices.
        """
        places = {name: file.tensors[name] for name, file in self._files.items()}
        quantized = [place for place in places.values() if place.type.name not in _FULL_PRECISION]
        if not quantized:
            return ""
        kinds = Counter[str]()
        for place in quantized:
            kinds[place.type.name] += place.num_bytes
        names = ", ".join(name for name, _ in kinds.most_common())
        stored_mib = sum(place.num_bytes for place in places.values()) / _MIB
        memory = f"{kept_bytes / _MIB:.0f} MiB of memory instead of {stored_mib:.0f}"
        if kept_as not in QUANTIZED_DTYPES:
            return f"{names} dequantized to {kept_as}: {memory}"
        return f"{names} kept as {kept_as}: {memory}" if kept_bytes / _MIB > _WORTH_A_NOTICE * stored_mib else ""


def four_bit_share(files: Sequence[GgufFile]) -> float:
    """Share of the layers' weights that are in 4 bits with a scale per 32 of them."""
    sizes = Counter[bool]()
    for file in files:
        for name, place in file.tensors.items():
            if name.startswith("blk.") and len(place.shape) == 2:
                sizes[place.type.name in GROUP_READERS] += prod(place.shape)
    return sizes[True] / max(1, sum(sizes.values()))


def _not_finite(file: GgufFile, stored: str) -> CheckpointError:
    return CheckpointError(
        f"{file.path}: {stored} contains values that are not finite (NaN or infinity); download it again, or choose "
        "another file"
    )


def _halves(rows: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Undo the order of rows of llama.cpp, which puts the two rows of a head that rotate together next to each other.

    The result has, per head, first the first row of every pair, then the second of every pair.
    """
    if rows.shape[0] % (2 * num_heads):
        return rows  # of a wrong shape, which the caller reports
    return rows.view(num_heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)
