"""The supported models, as tables: architectures, infill prompt templates, and the models worth recommending.

A new infill format is one :class:`InfillTemplate`. A new architecture is one :class:`Family`, plus its mathematics in
``model/forward`` where that differs from Llama's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Family:
    """How one ``model_type`` of ``config.json`` differs from plain Llama.

    Attributes:
        model_type: as in ``config.json``.
        default_max_positions: transformers' default for configs without ``max_position_embeddings``.
        reads_biases: whether ``attention_bias`` and ``mlp_bias`` in the config count.
        qkv_bias: whether query, key and value projections always have a bias.
        reads_scales: whether the config scales embeddings, residuals, attention and logits.
        has_window: whether ``sliding_window`` in the config counts.
        window_switch: the config field that must be true for that.
    """

    model_type: str
    default_max_positions: int
    reads_biases: bool = False
    qkv_bias: bool = False
    reads_scales: bool = False
    has_window: bool = False
    window_switch: str | None = None


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.model_type: family
        for family in (
            Family("llama", 2048, reads_biases=True),
            Family("mistral", 131072, has_window=True),
            Family("qwen2", 32768, qkv_bias=True, has_window=True, window_switch="use_sliding_window"),
            Family("granite", 2048, reads_biases=True, reads_scales=True),
        )
    }
)


class InfillOrder(Enum):
    """Order of the parts in an infill prompt."""

    PREFIX_FIRST = "psm"
    SUFFIX_FIRST = "spm"
    PLAIN = "plain"  # left to right: the model does not see the suffix


PARTS = ("{context}", "{prefix}", "{suffix}")


@dataclass(frozen=True, slots=True)
class InfillTemplate:
    """One infill (fill-in-the-middle) format. A prompt is BOS, then the template's parts in order.

    Attributes:
        name: of the format, usually that of the models that introduced it.
        model_types: the families whose checkpoints are trained with it; at least one.
        order: which of prefix and suffix comes first.
        parts: sentinel tokens by name, and ``{context}``, ``{prefix}`` and ``{suffix}``.
        stops: control tokens that end the middle, besides the model's own end of sequence. Of these only the first is
            required; a tokenizer may lack the others.
        begins_with_bos: whether a beginning-of-sequence token precedes the parts.
        file_separator: the token between files of a repository, if the model was trained with one.
        other_control_tokens: further tokens of the format that text must never encode to.
        name_pattern: a regular expression of model names that imply this format; without its sentinels in the
            tokenizer, such a model is an error.
    """

    name: str
    model_types: tuple[str, ...]
    order: InfillOrder
    parts: tuple[str, ...]
    stops: tuple[str, ...]
    begins_with_bos: bool = True
    file_separator: str | None = None
    other_control_tokens: tuple[str, ...] = ()
    name_pattern: str | None = None

    @property
    def sentinels(self) -> tuple[str, ...]:
        """The control tokens among the parts."""
        return tuple(part for part in self.parts if part not in PARTS)


_CODE_LLAMA = r"code-?llama-?(7|13)b(?!.*python)"

# The first template whose sentinels a tokenizer has is the model's default. Templates of one name are adjacent.
INFILL_TEMPLATES: tuple[InfillTemplate, ...] = (
    InfillTemplate(
        "starter",
        ("llama",),
        InfillOrder.SUFFIX_FIRST,
        ("<PRE>", "<SUF>", "{suffix}", "<MID>", "{context}", "{prefix}"),
        ("<EOT>",),
        name_pattern=r"starter[-_]model",
    ),
    # Rozière et al., "Code Llama" (2023), section 2.3
    InfillTemplate(
        "codellama",
        ("llama",),
        InfillOrder.SUFFIX_FIRST,
        ("▁<PRE>", "▁<SUF>", "{suffix}", "▁<MID>", "{context}", "{prefix}"),
        ("▁<EOT>",),
        name_pattern=_CODE_LLAMA,
    ),
    InfillTemplate(
        "codellama",
        ("llama",),
        InfillOrder.PREFIX_FIRST,
        ("▁<PRE>", "{context}", "{prefix}", "▁<SUF>", "{suffix}", "▁<MID>"),
        ("▁<EOT>",),
        name_pattern=_CODE_LLAMA,
    ),
    InfillTemplate(
        "qwen2.5-coder",
        ("qwen2",),
        InfillOrder.PREFIX_FIRST,
        ("{context}", "<|fim_prefix|>", "{prefix}", "<|fim_suffix|>", "{suffix}", "<|fim_middle|>"),
        ("<|endoftext|>", "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>"),
        begins_with_bos=False,
        file_separator="<|file_sep|>",
        name_pattern=r"qwen2\.?5-coder",
    ),
    # StarCoder's format, which the Granite code models use; StarCoder2 itself is not a Llama-family model.
    InfillTemplate(
        "starcoder",
        ("llama", "granite"),
        InfillOrder.PREFIX_FIRST,
        ("{context}", "<fim_prefix>", "{prefix}", "<fim_suffix>", "{suffix}", "<fim_middle>"),
        ("<|endoftext|>", "<file_sep>"),
        begins_with_bos=False,
        file_separator="<file_sep>",
        other_control_tokens=("<fim_pad>",),
        name_pattern=r"granite.*code",
    ),
    InfillTemplate(
        "deepseek-coder",
        ("llama",),
        InfillOrder.PREFIX_FIRST,
        ("<｜fim▁begin｜>", "{context}", "{prefix}", "<｜fim▁hole｜>", "{suffix}", "<｜fim▁end｜>"),
        ("<｜end▁of▁sentence｜>",),
        name_pattern=r"deepseek-coder",
    ),
    InfillTemplate(
        "codestral",
        ("mistral",),
        InfillOrder.SUFFIX_FIRST,
        ("[SUFFIX]", "{suffix}", "[PREFIX]", "{context}", "{prefix}"),
        ("</s>",),
        name_pattern=r"codestral",
    ),
)

PLAIN_TEMPLATE = InfillTemplate("plain", tuple(FAMILIES), InfillOrder.PLAIN, ("{context}", "{prefix}"), ())

# Added tokens that steer a model, whether or not its tokenizer flags them as special.
CONTROL_TOKENS = frozenset(
    token
    for template in INFILL_TEMPLATES
    for token in (*template.sentinels, *template.stops, template.file_separator, *template.other_control_tokens)
    if token is not None
)


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A model on the Hugging Face hub that Forelook runs and that was trained to infill.

    Attributes:
        model: hub id.
        num_parameters: number of weights, without biases.
        license: as on the model card. Whoever downloads the model accepts it.
        context: maximum number of tokens of prompt and output.
        kv_values_per_token: numbers in the KV cache per token.
        is_gated: whether the hub requires a login.
    """

    model: str
    num_parameters: int
    license: str
    context: int
    kv_values_per_token: int
    is_gated: bool = False

    @property
    def download_bytes(self) -> int:
        """Size of the safetensors, which are in 16 bits."""
        return 2 * self.num_parameters


_LLAMA_2, _APACHE, _DEEPSEEK = "Llama 2 Community License", "Apache-2.0", "DeepSeek Model License"

# By size, smallest first.
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
