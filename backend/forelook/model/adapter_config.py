"""The ``adapter_config.json`` of a low-rank adapter, validated.

PEFT's own keys say how the matrices are changed. Under ``forelook`` an adapter may say further what PEFT has no key
for: the shapes and a sample of its base, the infill format, and the names of control tokens. PEFT ignores that key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from forelook.errors import CheckpointError, ModelNotFoundError, UnsupportedArchitectureError
from forelook.local.files import read_regular_file

Number = TypeVar("Number", int, float)

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_MAX_CONFIG_BYTES = 1 << 20  # chosen, not measured
_MAX_RANK = 4096  # chosen, not measured
_MAX_TOKENS = 4096  # renamed by one adapter; chosen, not measured

# What changes more than a low-rank sum does. Their defaults are false, null or empty.
_UNSUPPORTED = (
    "use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "target_parameters", "layer_replication",
    "alora_invocation_tokens", "arrow_config", "use_bdlora",
)  # fmt: skip
# These ways to start change the base before training, so the adapter's sum belongs to another base.
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq")
# What an adapter may state of its base -> the attribute of the base's configuration that it must equal.
SHAPES = {
    "model_type": "model_type", "hidden_size": "hidden_size", "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads", "num_key_value_heads": "num_kv_heads",
    "intermediate_size": "intermediate_size", "vocab_size": "vocab_size",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """How an adapter changes its base.

    Attributes:
        base_name: what it says that it was trained on; empty if it says nothing.
        rank: of the matrices, where ``ranks`` names no other.
        alpha: numerator of the scale, where ``alphas`` names no other.
        ranks: rank by pattern of module names.
        alphas: alpha by pattern of module names.
        rank_stabilized: whether the scale is alpha over the root of the rank, not over the rank.
        targets: the last parts of the changed modules' names; empty if it has a pattern instead.
        names_all_layers: whether every layer of the base has the targets.
        saved_modules: modules that are stored whole.
        token_rows: ids of the embedding rows that are stored whole; ``None``: as many as there are, from 0.
        base_shapes: of its base, by their name in ``config.json``; empty if it states none.
        base_sample: see :func:`forelook.model.adapter.base_sample`; empty if it has none.
        infill: name of the infill format that it was trained with; ``None`` for the base's own.
        tokens: control tokens that get another name, by that name.
        bos_token_id: beginning of sequence; ``None`` for the base's.
        eos_token_ids: ends of sequence; ``None`` for the base's.
    """

    base_name: str
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rank_stabilized: bool
    targets: tuple[str, ...]
    names_all_layers: bool
    saved_modules: tuple[str, ...]
    token_rows: tuple[int, ...] | None
    base_shapes: Mapping[str, object] = field(default_factory=dict)
    base_sample: tuple[float, ...] = ()
    infill: str | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] | None = None

    def rank_of(self, module: str) -> int:
        """The rank of a module's matrices."""
        return _by_pattern(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What a module's product is multiplied by."""
        rank, alpha = self.rank_of(module), _by_pattern(self.alphas, module, self.alpha)
        return alpha / math.sqrt(rank) if self.rank_stabilized else alpha / rank

    def is_target(self, module: str) -> bool:
        """Whether a module of the base is one that the adapter says it changes."""
        return any(module == target or module.endswith(f".{target}") for target in self.targets)


def _by_pattern(values: Mapping[str, Number], module: str, default: Number) -> Number:
    """PEFT's rule: a pattern covers a module whose name is it or ends with it, whole parts only."""
    for pattern, value in values.items():
        if module == pattern or module.endswith(f".{pattern}"):
            return value
    return default


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read and check the configuration of an adapter.

    Raises:
        ModelNotFoundError: the folder has no adapter.
        CheckpointError: the file is damaged, or a value is outside its range.
        UnsupportedArchitectureError: the adapter is of a kind that cannot be merged.
    """
    path = folder / CONFIG_NAME
    if not path.is_file() or not (folder / WEIGHTS_NAME).is_file():
        raise ModelNotFoundError(
            f"adapter {str(folder)!r} lacks {CONFIG_NAME if not path.is_file() else WEIGHTS_NAME}; name a folder that "
            f"has {CONFIG_NAME} and {WEIGHTS_NAME}, as the peft package saves them"
        )
    try:
        raw = json.loads(read_regular_file(path, _MAX_CONFIG_BYTES, follows_links=True).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}); save the adapter again") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} is not a JSON object; save the adapter again")
    _check_kind(raw, path)
    return _parse(_Fields(raw, path))


def _check_kind(raw: Mapping[str, Any], path: Path) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise UnsupportedArchitectureError(
            f"{path}: peft_type is {kind!r}; only 'LORA' adapters can be merged: train one, or merge this one into its "
            "base with the peft package"
        )
    found = [name for name in _UNSUPPORTED if raw.get(name)]
    if raw.get("bias", "none") != "none":
        found.append("bias")
    start = raw.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASES):
        found.append("init_lora_weights")
    if found:
        name = found[0]
        raise UnsupportedArchitectureError(
            f"{path}: {name} is {raw[name]!r}, which a low-rank sum cannot express; merge this adapter into its base "
            "with the peft package"
        )


def _parse(fields: _Fields) -> AdapterConfig:
    own = fields.inner("forelook")
    base = own.inner("base")
    layers = fields.raw.get("layers_to_transform"), fields.raw.get("exclude_modules")
    rows = own.raw.get("sentinel_ids")
    if rows is None and isinstance(stated := fields.raw.get("trainable_token_indices"), (list, dict)):
        rows = next(iter(stated.values()), None) if isinstance(stated, dict) else stated
    ends = own.raw.get("eos_token_ids")
    return AdapterConfig(
        base_name=fields.text("base_model_name_or_path") or "",
        rank=fields.rank(fields.raw.get("r"), "r"),
        alpha=fields.number(fields.raw.get("lora_alpha"), "lora_alpha"),
        ranks={key: fields.rank(value, "rank_pattern") for key, value in fields.mapping("rank_pattern").items()},
        alphas={key: fields.number(value, "alpha_pattern") for key, value in fields.mapping("alpha_pattern").items()},
        rank_stabilized=fields.raw.get("use_rslora") is True,
        targets=fields.targets(),
        names_all_layers=all(value is None or value in ([], "") for value in layers),
        saved_modules=fields.names("modules_to_save"),
        token_rows=None if rows is None else fields.ids(rows, "sentinel_ids"),
        base_shapes={name: base.raw[name] for name in SHAPES if name in base.raw},
        base_sample=tuple(base.number(value, "base.sample") for value in base.items("sample")),
        infill=own.text("infill"),
        tokens=own.tokens(),
        bos_token_id=own.token_id("bos_token_id"),
        eos_token_ids=None if ends is None else own.ids(ends, "eos_token_ids"),
    )


class _Fields:
    """The values of a JSON object, each checked."""

    def __init__(self, raw: Mapping[str, Any], path: Path) -> None:
        self.raw = raw
        self._path = path

    def _invalid(self, name: str, value: object, expected: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: invalid {name}: {str(value)[:80]!r} (expected {expected})")

    def inner(self, name: str) -> _Fields:
        """An object within this one; an empty one where there is none."""
        return _Fields(self.mapping(name), self._path)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._invalid(name, value, "an object")
        return value or {}

    def items(self, name: str) -> list[Any]:
        value = self.raw.get(name)
        if value is not None and not (isinstance(value, list) and len(value) <= _MAX_TOKENS):
            raise self._invalid(name, value, f"a list of at most {_MAX_TOKENS} items")
        return value or []

    def text(self, name: str) -> str | None:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, str):
            raise self._invalid(name, value, "text")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        found = tuple(self.items(name))
        if not all(isinstance(each, str) and each for each in found):
            raise self._invalid(name, found, "a list of names")
        return found

    def targets(self) -> tuple[str, ...]:
        """The names, where they are a list: a stranger's regular expression is not run."""
        return () if isinstance(self.raw.get("target_modules"), str) else self.names("target_modules")

    def rank(self, value: object, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_RANK:
            raise self._invalid(name, value, f"a rank from 1 to {_MAX_RANK}")
        return value

    def number(self, value: object, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e30:
            raise self._invalid(name, value, "a finite number")
        return float(value)

    def token_id(self, name: str) -> int | None:
        value = self.raw.get(name)
        return None if value is None else self.ids([value], name)[0]

    def ids(self, values: object, name: str) -> tuple[int, ...]:
        found = values if isinstance(values, list) else [None]
        are_ids = all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 2**31 for each in found)
        if not are_ids or len(found) > _MAX_TOKENS or len(set(found)) < len(found):
            raise self._invalid(name, values, "different token ids")
        return tuple(found)

    def tokens(self) -> Mapping[str, int]:
        tokens = self.mapping("tokens")
        self.ids(list(tokens.values()), "tokens")
        if not all(0 < len(token) <= 100 for token in tokens):
            raise self._invalid("tokens", list(tokens), "names of 1 to 100 characters")
        return tokens
