"""Which checkpoints a machine has: in the package, in the hub's cache, in given folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forelook.errors import ModelError
from forelook.model.catalogue import CATALOGUE
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.memory import num_parameters


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A checkpoint on this machine.

    Attributes:
        model: the value for ``--model``.
        source: ``"package"``, ``"hub cache"`` or ``"folder"``.
        folder: the folder of the checkpoint.
        revision: the commit of a hub checkpoint.
        is_pinned: whether ``forelook pull`` has verified and recorded that commit.
        license: as on its card; empty if unknown.
        config: its shapes; ``None`` if its config cannot be read.
        size_bytes: of the weight files.
        fault: why it cannot be used; empty if it can.
    """

    model: str
    source: str
    folder: Path
    revision: str | None
    is_pinned: bool
    license: str
    config: LlamaConfig | None
    size_bytes: int
    fault: str

    @property
    def num_parameters(self) -> int | None:
        """Number of weights, without biases and norms; ``None`` if unknown."""
        return None if self.config is None else num_parameters(self.config)

    @property
    def context(self) -> int | None:
        """Maximum number of tokens of prompt and output; ``None`` if unknown."""
        return None if self.config is None else self.config.max_positions


def inspect_folder(
    folder: Path, model: str, source: str, *, revision: str | None = None, is_pinned: bool = False
) -> InstalledModel:
    """Describe a checkpoint without opening its weights."""
    config: LlamaConfig | None = None
    try:
        config = parse_config(json.loads((folder / "config.json").read_text(encoding="utf-8")), "config.json")
        fault = missing_files(folder)
    except ModelError as error:
        fault = str(error)
    except (OSError, ValueError, KeyError, TypeError) as error:
        fault = f"its JSON files cannot be read ({error.__class__.__name__})"
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file())
    named = card_license(folder) or next((known.license for known in CATALOGUE if known.model == model), "")
    return InstalledModel(model, source, folder, revision, is_pinned, named, config, size, fault)


def missing_files(folder: Path) -> str:
    """What a checkpoint lacks, as text; empty if it is complete."""
    if not (folder / "tokenizer.json").is_file():
        return "tokenizer.json is missing"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = set(weight_map.values())
    else:
        names = {"model.safetensors"}
    missing = sorted(name for name in names if not (folder / Path(name).name).is_file())
    return f"{len(missing)} of {len(names)} weight files are missing" if missing else ""


def card_license(folder: Path) -> str:
    """The license in the header of a model card; empty if there is none."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    header = card.split("---", 2)[1] if card.startswith("---") and card.count("---") >= 2 else ""
    named = {key: value.strip().strip("'\"") for key, value in re.findall(r"^(license(?:_name)?):(.*)$", header, re.M)}
    return str(named.get("license_name") or named.get("license", ""))


def installed_models(
    starter: Path, hub_cache: Path, folders: Sequence[Path], pinned: Mapping[str, str]
) -> Iterator[InstalledModel]:
    """Every checkpoint in the package, in the hub cache, and in the given folders or directly below them.

    Args:
        starter: folder of the starter model; it need not exist.
        hub_cache: the cache folder of huggingface_hub.
        folders: further folders to search.
        pinned: commits that were pulled and verified, by hub id.
    """
    if (starter / "config.json").is_file():
        packaged = inspect_folder(starter, "starter-model", "package")
        yield replace(packaged, license=packaged.license or "MIT")  # the license of this package
    for repository in sorted(hub_cache.glob("models--*")):
        model = repository.name.removeprefix("models--").replace("--", "/")
        for snapshot in sorted(repository.glob("snapshots/*")):
            if (snapshot / "config.json").is_file() and _is_causal(snapshot):
                commit = snapshot.name
                is_pinned = pinned.get(model) == commit
                yield inspect_folder(snapshot, model, "hub cache", revision=commit, is_pinned=is_pinned)
    for folder in folders:
        for place in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
            if (place / "config.json").is_file():
                yield inspect_folder(place, str(place), "folder")


def _is_causal(folder: Path) -> bool:
    """Whether a cached checkpoint is a language model; the hub cache may contain other kinds."""
    try:
        names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return False
    return any("CausalLM" in str(name) for name in names)
