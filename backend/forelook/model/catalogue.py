"""Which catalogue models suit a machine, and which checkpoints it already has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forelook.errors import ModelError
from forelook.model.config import parse_config
from forelook.model.families import CATALOGUE, CatalogueModel
from forelook.model.memory import num_parameters

# A long prompt of an editor, and memory beyond weights and cache. Chosen, not measured.
_PROMPT_TOKENS = 4096
_HEADROOM = 1.05
# A CPU reads all weights in every step; typical machines read 10 to 20 GB/s. Chosen, not measured.
_SLOW_CPU_BYTES = 1.3e9


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware a model would run on.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        memory_bytes: free memory for weights and cache; ``None`` if unknown.
        weight_bytes: bytes per weight in the dtype that would be chosen.
        cache_value_bytes: bytes per number of the KV cache.
    """

    device: str
    memory_bytes: int | None
    weight_bytes: int
    cache_value_bytes: int


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model suits a machine.

    Attributes:
        model: the model.
        needed_bytes: memory for the weights and the cache of a usual prompt.
        fits: whether that much memory is free.
        is_slow: whether the model fits but cannot keep up with typing.
        is_best: whether it is the recommended model: the largest that fits and is not slow.
    """

    model: CatalogueModel
    needed_bytes: int
    fits: bool
    is_slow: bool
    is_best: bool


def recommend(machine: Machine, catalogue: Sequence[CatalogueModel] = CATALOGUE) -> list[Fit]:
    """Rate every model of the catalogue for a machine, in catalogue order."""
    judged: list[tuple[CatalogueModel, int, bool, bool]] = []
    for model in catalogue:
        cache_bytes = min(_PROMPT_TOKENS, model.context) * model.kv_values_per_token * machine.cache_value_bytes
        weight_bytes = model.num_parameters * machine.weight_bytes
        needed = int((weight_bytes + cache_bytes) * _HEADROOM)
        fits = machine.memory_bytes is None or needed <= machine.memory_bytes
        judged.append((model, needed, fits, fits and machine.device == "cpu" and weight_bytes > _SLOW_CPU_BYTES))
    usable = [model.num_parameters for model, _, fits, is_slow in judged if fits and not is_slow]
    most = max(usable, default=0)
    return [
        Fit(model, needed, fits, is_slow, fits and not is_slow and model.num_parameters == most)
        for model, needed, fits, is_slow in judged
    ]


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
        num_parameters: number of weights; ``None`` if its config cannot be read.
        size_bytes: of the weight files.
        context: maximum number of tokens; ``None`` as above.
        fault: why it cannot be used; empty if it can.
    """

    model: str
    source: str
    folder: Path
    revision: str | None
    is_pinned: bool
    license: str
    num_parameters: int | None
    size_bytes: int
    context: int | None
    fault: str


def inspect_folder(
    folder: Path, model: str, source: str, *, revision: str | None = None, is_pinned: bool = False
) -> InstalledModel:
    """Describe a checkpoint without opening its weights."""
    parameters: int | None = None
    context: int | None = None
    try:
        config = parse_config(json.loads((folder / "config.json").read_text(encoding="utf-8")), "config.json")
        parameters, context = num_parameters(config), config.max_positions
        fault = missing_files(folder)
    except ModelError as error:
        fault = str(error)
    except (OSError, ValueError, KeyError, TypeError) as error:
        fault = f"its JSON files cannot be read ({error.__class__.__name__})"
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file())
    named = card_license(folder) or next((known.license for known in CATALOGUE if known.model == model), "")
    return InstalledModel(model, source, folder, revision, is_pinned, named, parameters, size, context, fault)


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
