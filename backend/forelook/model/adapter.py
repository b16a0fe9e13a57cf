"""A low-rank adapter in PEFT's layout, merged into the weights of its base as they are read.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021): a matrix becomes ``W + scale · B @ A``. Besides
an adapter can store modules whole, norms for example, and single rows of the embedding: those of its sentinels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from forelook.errors import CheckpointError
from forelook.model.adapter_config import CONFIG_NAME, SHAPES, WEIGHTS_NAME, AdapterConfig, read_adapter_config
from forelook.model.config import LlamaConfig

_PREFIX = "base_model.model."
_EMBEDDING, _HEAD = "model.embed_tokens", "lm_head"
# Ending of a tensor's name -> the part of a change that it is.
_PARTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
    "token_adapter.trainable_tokens_delta": "rows",
    "trainable_tokens_delta": "rows",
}
_OWN_ROWS = {"sentinel_rows": _EMBEDDING, "sentinel_head_rows": _HEAD}
_MAX_TENSORS = 100_000  # chosen, not measured
_SAMPLED_ROWS = ((f"{_EMBEDDING}.weight", 100), ("model.layers.0.mlp.down_proj.weight", 0))
_SAMPLE_VALUES = 64
# Quantizing a base to four bits leaves 0.99; another model of the same shapes has 0. Chosen, not measured.
_LEAST_CORRELATION = 0.9


def base_sample(read: Callable[[str], torch.Tensor]) -> list[float]:
    """Values by which an adapter recognizes its base, in any format of the weights.

    Args:
        read: a tensor of the base by its name in a Hugging Face checkpoint.
    """
    return [value for name, row in _SAMPLED_ROWS for value in _sampled(read(name), row)]


def _sampled(tensor: torch.Tensor, row: int) -> list[float]:
    values: list[float] = tensor[row % tensor.shape[0], :_SAMPLE_VALUES].float().tolist()
    return values


class _TensorFile(Protocol):
    """What is used of the safetensors package, which has no types."""

    def keys(self) -> list[str]: ...

    def get_tensor(self, name: str) -> torch.Tensor: ...

    def get_slice(self, name: str) -> Any: ...


@dataclass(slots=True)
class _Change:
    """The names of the tensors that change one module's weight."""

    a: str | None = None
    b: str | None = None
    rows: str | None = None
    whole: str | None = None
    is_embedding: bool = False


@dataclass(slots=True)
class Adapter:
    """An adapter whose weights are still in its file.

    Attributes:
        folder: of its files.
        config: how it changes its base.
        fingerprint: a hash of its files.
    """

    folder: Path
    config: AdapterConfig
    fingerprint: str
    _changes: dict[str, _Change]
    _file: _TensorFile
    _unread: set[str]
    _read_modules: set[str] = field(default_factory=set)

    @property
    def weights_path(self) -> Path:
        """The file with its tensors."""
        return self.folder / WEIGHTS_NAME

    def check_shapes(self, base: LlamaConfig) -> None:
        """Compare the shapes that the adapter states with those of a base.

        Raises:
            CheckpointError: they differ.
        """
        for name, stated in self.config.base_shapes.items():
            if stated != (have := getattr(base, SHAPES[name])):
                raise self._misfit(f"it was trained on a model with {name} = {stated!r}, and this one has {have}")

    def merged(self, name: str, stored: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A tensor of the base with the adapter's change, in float32; the same tensor where there is none.

        Args:
            name: of the tensor in a Hugging Face checkpoint.
            stored: the base's values, [outputs, inputs] for a matrix.
            dtype: that the caller converts the result to.

        Raises:
            CheckpointError: the adapter does not fit the base, or its values are not finite.
        """
        module, _, kind = name.rpartition(".")
        if kind != "weight":
            return stored
        self._read_modules.add(module)
        self._check_sample(name, stored)
        change = self._changes.get(module)
        if change is None:
            return stored
        values = stored.float()
        if change.whole is not None:
            values = self._tensor(change.whole, stored.shape)
        if change.a is not None and change.b is not None:
            values = self._with_product(module, change, values)
        if change.rows is not None:
            values = self._with_rows(change.rows, values)
        if not math.isfinite(float(values.to(dtype).sum(dtype=torch.float32))):
            raise CheckpointError(
                f"{self.weights_path}: {module} becomes infinite or NaN in {str(dtype).removeprefix('torch.')}; train "
                "the adapter again, or load the model with another dtype"
            )
        return values

    def check_complete(self) -> None:
        """Check that the base had every tensor that the adapter changes, and the adapter all it says to change.

        Raises:
            CheckpointError: one of them is missing.
        """
        if self._unread:
            raise self._misfit(f"it changes {min(self._unread)}, which this model does not have")
        changed = self._changes.keys()
        if self.config.names_all_layers:
            lacking = [module for module in self._read_modules - changed if self.config.is_target(module)]
            if lacking:
                raise CheckpointError(
                    f"{self.weights_path} lacks the tensors of {min(lacking)}, one of its target_modules; save the "
                    "adapter again, or use the base it was trained on"
                )
        ends = {module.rpartition(".")[2] for module, change in self._changes.items() if change.whole is not None}
        for name in self.config.saved_modules:
            if name.rpartition(".")[2] not in ends:
                raise CheckpointError(
                    f"{self.weights_path} lacks {name}, one of its modules_to_save; save the adapter again"
                )

    def _with_product(self, module: str, change: _Change, values: torch.Tensor) -> torch.Tensor:
        assert change.a is not None
        assert change.b is not None
        if values.ndim != 2:
            raise self._misfit(f"it changes {module} as a matrix, which it is not")
        rank, scale = self.config.rank_of(module), self.config.scale_of(module)
        outputs, inputs = values.shape
        if change.is_embedding:  # one row per token: the roles of rows and columns are exchanged
            first, second = self._tensor(change.a, (rank, outputs)).t(), self._tensor(change.b, (inputs, rank)).t()
        else:
            first, second = self._tensor(change.b, (outputs, rank)), self._tensor(change.a, (rank, inputs))
        return torch.addmm(values, first, second, alpha=scale)

    def _with_rows(self, name: str, values: torch.Tensor) -> torch.Tensor:
        num_rows = self._shape(name)[0] if self._shape(name) else 0
        ids = self.config.token_rows if self.config.token_rows is not None else tuple(range(num_rows))
        rows = self._tensor(name, (len(ids), *values.shape[1:]))
        if ids and max(ids) >= values.shape[0]:
            raise self._misfit(f"it changes the row of token {max(ids)}, and this model has {values.shape[0]}")
        return values.index_copy(0, torch.tensor(ids, dtype=torch.long), rows)

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def _tensor(self, name: str, shape: tuple[int, ...] | torch.Size) -> torch.Tensor:
        found = self._shape(name)
        if found != tuple(shape):
            raise self._misfit(
                f"{name} has shape {list(found)}, and this model and adapter_config.json need {[*shape]}"
            )
        try:
            tensor = self._file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.weights_path}: {name} cannot be read ({error}); save it again") from error
        if not tensor.is_floating_point():
            raise CheckpointError(f"{self.weights_path}: {name} has dtype {tensor.dtype}; save it in a float format")
        self._unread.discard(name)
        return tensor.float()

    def _check_sample(self, name: str, stored: torch.Tensor) -> None:
        if not self.config.base_sample:
            return
        for index, (sampled, row) in enumerate(_SAMPLED_ROWS):
            if sampled == name:
                have = _sampled(stored, row)
                stated = self.config.base_sample[: len(have)] if index == 0 else self.config.base_sample[-len(have) :]
                if len(have) != len(stated) or _correlation(have, stated) < _LEAST_CORRELATION:
                    raise self._misfit("it was trained on other weights of the same shapes")

    def _misfit(self, reason: str) -> CheckpointError:
        named = f" ({self.config.base_name})" if self.config.base_name else ""
        return CheckpointError(
            f"adapter {self.folder} does not fit this model: {reason}; use it with the base that it was trained "
            f"on{named}, or choose another adapter"
        )


def _correlation(one: list[float], other: tuple[float, ...]) -> float:
    if len(one) < 2:
        return 1.0
    pair = torch.tensor([one, list(other)], dtype=torch.float64)
    pair -= pair.mean(dim=1, keepdim=True)
    norm = float(pair[0].norm() * pair[1].norm())
    return float(pair[0] @ pair[1]) / norm if norm > 0 else 1.0


def read_adapter(folder: Path) -> Adapter:
    """Read the configuration of an adapter and the names of its tensors.

    Raises:
        ModelNotFoundError: the folder has no adapter.
        CheckpointError: a file is damaged, or a tensor is of no known kind.
        UnsupportedArchitectureError: the adapter is of a kind that cannot be merged.
    """
    config = read_adapter_config(folder)
    path = folder / WEIGHTS_NAME
    try:
        file: _TensorFile = safe_open(path, framework="pt", device="cpu")
        names = list(file.keys())
        digest = hashlib.sha256((folder / CONFIG_NAME).read_bytes() + b"\0")
        digest.update(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); save the adapter again") from error
    if len(names) > _MAX_TENSORS:
        raise CheckpointError(f"{path} has {len(names)} tensors, more than {_MAX_TENSORS}; save the adapter again")
    return Adapter(folder, config, digest.hexdigest()[:16], _changes(names, path), file, set(names))


def _changes(names: list[str], path: Path) -> dict[str, _Change]:
    """The changes by module."""
    changes: dict[str, _Change] = {}
    for name in names:
        module, part = _place(name)
        if module is None:
            raise CheckpointError(f"{path}: {name[:100]!r} is no tensor of a LoRA adapter; save the adapter again")
        change = changes.setdefault(module, _Change())
        if getattr(change, part) is not None:
            raise CheckpointError(f"{path}: {name[:100]!r} is there twice; save the adapter again")
        setattr(change, part, name)
        change.is_embedding = change.is_embedding or "lora_embedding" in name
    for module, change in changes.items():
        if (change.a is None) != (change.b is None):
            raise CheckpointError(f"{path}: {module} has only one of lora_A and lora_B; save the adapter again")
    return changes


def _place(name: str) -> tuple[str | None, str]:
    """The module that a tensor changes and which part it is; ``None`` for an unknown one."""
    if name in _OWN_ROWS:
        return _OWN_ROWS[name], "rows"
    if not name.startswith(_PREFIX):
        return None, ""
    plain = name.removeprefix(_PREFIX)
    for wrapper in (".base_layer", ".modules_to_save", ".default"):
        plain = plain.replace(wrapper, "")
    for ending, part in _PARTS.items():
        if plain.endswith(f".{ending}"):
            return plain.removesuffix(f".{ending}"), part
    return (plain.removesuffix(".weight"), "whole") if plain.endswith(".weight") else (None, "")
