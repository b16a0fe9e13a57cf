"""Models worth having, what is on this machine already, and what suits it.

StarCoder2 is not listed: it has layer norms and no gate in its MLP, which the forward does not compute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forelook.errors import ModelError
from forelook.model.config import parse_config
from forelook.model.memory import num_parameters

_PROMPT_TOKENS = 4096
_HEADROOM = 1.05
# A CPU reads all weights for every step, at some ten to twenty gigabytes a second on an ordinary machine.
_SLOW_CPU_BYTES = 1.3e9


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A model on the hub that Forelook runs and that was trained to infill.

    Attributes:
        model: hub id.
        num_parameters: weights, biases left out.
        licence: as its card says; whoever downloads it accepts it.
        context: most tokens of prompt and output.
        kv_values_per_token: numbers the KV cache holds per token.
        is_gated: whether the hub asks for a login first.
    """

    model: str
    num_parameters: int
    licence: str
    context: int
    kv_values_per_token: int
    is_gated: bool = False

    @property
    def download_bytes(self) -> int:
        """Size of the safetensors, which are in 16 bits."""
        return 2 * self.num_parameters


_LLAMA_2, _APACHE, _DEEPSEEK = "Llama 2 Community License", "Apache-2.0", "DeepSeek Model License"
CATALOGUE: tuple[CatalogueModel, ...] = (
    CatalogueModel("Qwen/Qwen2.5-Coder-0.5B", 494_005_120, _APACHE, 32_768, 6_144),
    CatalogueModel("deepseek-ai/deepseek-coder-1.3b-base", 1_346_471_936, _DEEPSEEK, 16_384, 98_304),
    CatalogueModel("Qwen/Qwen2.5-Coder-1.5B", 1_543_656_960, _APACHE, 32_768, 14_336),
    CatalogueModel("Qwen/Qwen2.5-Coder-3B", 3_085_846_528, "Qwen Research License (not commercial)", 32_768, 18_432),
    CatalogueModel("ibm-granite/granite-3b-code-base-2k", 3_481_438_720, _APACHE, 2_048, 163_840),
    CatalogueModel("codellama/CodeLlama-7b-hf", 6_738_546_688, _LLAMA_2, 16_384, 262_144),
    CatalogueModel("deepseek-ai/deepseek-coder-6.7b-base", 6_740_512_768, _DEEPSEEK, 16_384, 262_144),
    CatalogueModel("Qwen/Qwen2.5-Coder-7B", 7_615_487_488, _APACHE, 32_768, 28_672),
    CatalogueModel("ibm-granite/granite-8b-code-base-4k", 8_053_362_688, _APACHE, 4_096, 73_728),
    CatalogueModel("codellama/CodeLlama-13b-hf", 13_016_028_160, _LLAMA_2, 16_384, 409_600),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a model would run on.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        memory_bytes: free for weights and cache; ``None`` where the system does not tell.
        weight_bytes: per weight in the dtype that would be chosen.
        cache_value_bytes: per number of the KV cache.
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
        needed_bytes: memory for weights and the cache of a usual prompt.
        fits: whether that is free.
        is_slow: whether it fits, but would not keep up with typing.
        is_best: whether it is the one to take: the largest that is neither.
    """

    model: CatalogueModel
    needed_bytes: int
    fits: bool
    is_slow: bool
    is_best: bool


def recommend(machine: Machine, catalogue: Sequence[CatalogueModel] = CATALOGUE) -> list[Fit]:
    """Judge every model of the catalogue for a machine, in the catalogue's order."""
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
        model: what to say to ``--model``.
        source: ``"package"``, ``"hub cache"`` or ``"folder"``.
        folder: where it is.
        revision: the commit, of a hub checkpoint.
        is_pinned: whether ``forelook pull`` has checked and recorded that commit.
        licence: as its card says, empty where it has none here.
        num_parameters: weights, ``None`` where its config cannot be read.
        size_bytes: of its weight files.
        context: most tokens, ``None`` as above.
        fault: why it cannot be used, empty where it can.
    """

    model: str
    source: str
    folder: Path
    revision: str | None
    is_pinned: bool
    licence: str
    num_parameters: int | None
    size_bytes: int
    context: int | None
    fault: str


def inspect_folder(
    folder: Path, model: str, source: str, *, revision: str | None = None, is_pinned: bool = False
) -> InstalledModel:
    """Read what a checkpoint's folder says about itself; the weights are not opened."""
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
    licence = card_licence(folder) or next((known.licence for known in CATALOGUE if known.model == model), "")
    return InstalledModel(model, source, folder, revision, is_pinned, licence, parameters, size, context, fault)


def missing_files(folder: Path) -> str:
    """What a checkpoint lacks, empty for nothing."""
    if not (folder / "tokenizer.json").is_file():
        return "tokenizer.json is missing"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = set(weight_map.values())
    else:
        names = {"model.safetensors"}
    missing = sorted(name for name in names if not (folder / Path(name).name).is_file())
    return f"not all of it is here: {len(missing)} of {len(names)} weight files are missing" if missing else ""


def card_licence(folder: Path) -> str:
    """The licence that a model card's header names, empty for none."""
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
    """Every checkpoint in the package, in the hub's cache and in some folders, or right below them.

    Args:
        starter: the starter model's folder, if it is in the package.
        hub_cache: of huggingface_hub.
        folders: where else to look.
        pinned: commits that were pulled and checked, by hub id.
    """
    if (starter / "config.json").is_file():
        packaged = inspect_folder(starter, "starter-model", "package")
        yield replace(packaged, licence=packaged.licence or "MIT")  # the package's own
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
    """Whether a cached checkpoint is a language model at all; the hub's cache holds others too."""
    try:
        names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return False
    return any("CausalLM" in str(name) for name in names)
