"""The models that benchmarks run in their own process, found as the product finds them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from forelook.commands.cli import command_context
from forelook.errors import ModelNotFoundError
from forelook.local.identity import BackendIdentity
from forelook.model.catalogue import DEFAULT_MODEL, find_model
from forelook.model.default_model import DEFAULT_ADAPTER_PATH, load_user_model
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel, load_model
from forelook.model.package_index import find_file
from forelook.model.pair_file import pairs_path

STARTER = "starter-model"
DEFAULT_BASE = "smollm2-base"
"""The default model's base as it was published: a chat model without an infill format."""


@dataclass(frozen=True)
class BenchModel:
    """A model of ours, and where transformers finds the same weights.

    Attributes:
        model: loaded by Forelook.
        source: folder, GGUF file or hub id.
        adapter: folder of what is merged into them.
    """

    model: LoadedModel
    source: str
    adapter: Path | None = None


def load_named(
    model: str | None, *, adapter: str | None = None, device: str = "auto", dtype: str = "auto"
) -> LoadedModel:
    """Load a model by the value of ``--model``; the bundled starter model where none is given.

    Raises:
        ModelError: a subclass that names the problem and the fix.
    """
    identity = BackendIdentity(model or STARTER, None, device, dtype, adapter).normalized()
    return load_user_model(identity, command_context().paths)


def load_with_source(model: str | None, *, device: str = "auto", dtype: str = "auto") -> BenchModel:
    """Load a model by name, also ``smollm2-base``, and say where its weights are.

    Raises:
        ModelError: a subclass that names the problem and the fix.
    """
    if model in (None, STARTER):
        return BenchModel(load_named(STARTER, device=device, dtype=dtype), str(STARTER_MODEL_PATH))
    if model not in (DEFAULT_BASE, DEFAULT_MODEL):
        return BenchModel(load_named(model, device=device, dtype=dtype), str(model))
    file = default_base_path()
    if file is None:
        raise ModelNotFoundError(f"{DEFAULT_MODEL} is not on this machine; run `forelook pull {DEFAULT_MODEL}`")
    if model == DEFAULT_BASE:
        loaded = load_model(str(file), device=device, dtype=dtype)
        # What the default model says after pairs of tokens is close to what its base says.
        return BenchModel(replace(loaded, name=DEFAULT_BASE, pairs_path=pairs_path(DEFAULT_ADAPTER_PATH)), str(file))
    return BenchModel(load_named(DEFAULT_MODEL, device=device, dtype=dtype), str(file), DEFAULT_ADAPTER_PATH)


def limited(model: LoadedModel, max_positions: int) -> LoadedModel:
    """Return a model with room for so many tokens at most."""
    return replace(model, max_positions=min(max_positions, model.max_positions))


def default_base_path() -> Path | None:
    """Return the file of the default model's base; ``None`` where it was not pulled."""
    row = find_model(DEFAULT_MODEL)
    if row is None or row.source is None:
        return None
    return find_file(command_context().paths.models_dir, row.source)
