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
