"""Infill (fill-in-the-middle) prompts: one table of formats, each bound to and checked against a tokenizer.

Sentinels enter a prompt as ids, never as text: what a user types cannot become one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from forelook.errors import TokenizerError
from forelook.model.tokenizer import CodeTokenizer


class InfillOrder(Enum):
    """What the model reads first."""

    PREFIX_FIRST = "psm"
    SUFFIX_FIRST = "spm"
    PLAIN = "plain"  # left to right; the suffix is not shown to the model


@dataclass(frozen=True, slots=True)
class InfillTemplate:
    """One family's format. A prompt is BOS, then the template's parts in order.

    Attributes:
        family: the models it belongs to.
        order: which of prefix and suffix comes first.
        template: sentinel tokens by name, and the parts ``{context}``, ``{prefix}`` and ``{suffix}``.
        stops: control tokens that end the middle, besides the model's own end of sequence; those that a tokenizer
            lacks are left out, except the first, which is required where there is one.
        begins_with_bos: whether a beginning-of-sequence token opens the prompt.
        file_separator: the token that stands between files of a repository, where the model was trained on one.
        name_pattern: model names that this row must fit; a tokenizer without its sentinels is then an error.
    """

    family: str
    order: InfillOrder
    template: tuple[str, ...]
    stops: tuple[str, ...]
    begins_with_bos: bool
    file_separator: str | None = None
    name_pattern: str | None = None

    @property
    def sentinels(self) -> tuple[str, ...]:
        """The control tokens the prompt is made of."""
        return tuple(part for part in self.template if part not in _PARTS)


_PARTS = ("{context}", "{prefix}", "{suffix}")
_CODE_LLAMA = r"code-?llama-?(7|13)b(?!.*python)"
_QWEN_SENTINELS = ("<|endoftext|>", "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>")

# The first row whose sentinels the tokenizer has is the model's default; rows of one family follow each other.
INFILL_FORMATS: tuple[InfillTemplate, ...] = (
    InfillTemplate(
        "starter",
        InfillOrder.SUFFIX_FIRST,
        ("<PRE>", "<SUF>", "{suffix}", "<MID>", "{context}", "{prefix}"),
        ("<EOT>",),
        begins_with_bos=True,
        name_pattern=r"starter[-_]model",
    ),
    InfillTemplate(
        "codellama",
        InfillOrder.SUFFIX_FIRST,
        ("▁<PRE>", "▁<SUF>", "{suffix}", "▁<MID>", "{context}", "{prefix}"),
        ("▁<EOT>",),
        begins_with_bos=True,
        name_pattern=_CODE_LLAMA,
    ),
    InfillTemplate(
        "codellama",
        InfillOrder.PREFIX_FIRST,
        ("▁<PRE>", "{context}", "{prefix}", "▁<SUF>", "{suffix}", "▁<MID>"),
        ("▁<EOT>",),
        begins_with_bos=True,
        name_pattern=_CODE_LLAMA,
    ),
    InfillTemplate(
        "qwen2.5-coder",
        InfillOrder.PREFIX_FIRST,
        ("{context}", "<|fim_prefix|>", "{prefix}", "<|fim_suffix|>", "{suffix}", "<|fim_middle|>"),
        _QWEN_SENTINELS,
        begins_with_bos=False,
        file_separator="<|file_sep|>",
        name_pattern=r"qwen2\.?5-coder",
    ),
    InfillTemplate(
        "starcoder",
        InfillOrder.PREFIX_FIRST,
        ("{context}", "<fim_prefix>", "{prefix}", "<fim_suffix>", "{suffix}", "<fim_middle>"),
        ("<|endoftext|>", "<file_sep>"),
        begins_with_bos=False,
        file_separator="<file_sep>",
        name_pattern=r"starcoder2|granite.*code",
    ),
    InfillTemplate(
        "deepseek-coder",
        InfillOrder.PREFIX_FIRST,
        ("<｜fim▁begin｜>", "{context}", "{prefix}", "<｜fim▁hole｜>", "{suffix}", "<｜fim▁end｜>"),
        ("<｜end▁of▁sentence｜>",),
        begins_with_bos=True,
        name_pattern=r"deepseek-coder",
    ),
    InfillTemplate(
        "codestral",
        InfillOrder.SUFFIX_FIRST,
        ("[SUFFIX]", "{suffix}", "[PREFIX]", "{context}", "{prefix}"),
        ("</s>",),
        begins_with_bos=True,
        name_pattern=r"codestral",
    ),
)

_PLAIN = InfillTemplate("plain", InfillOrder.PLAIN, ("{context}", "{prefix}"), (), begins_with_bos=True)


@dataclass(frozen=True, slots=True)
class InfillFormat:
    """A row of the table, bound to a tokenizer.

    Attributes:
        family: the row's family; ``"plain"`` without sentinels.
        order: which of prefix and suffix comes first.
        template: per part of the prompt a sentinel's id, or ``"{context}"``, ``"{prefix}"``, ``"{suffix}"``.
        stop_token_ids: ids that end the middle and are no part of it.
        file_separator_id: goes before each file in the context ids, where the model knows such a token.
        num_sentinels: tokens a prompt holds beside its parts.
    """

    family: str
    order: InfillOrder
    template: tuple[int | str, ...]
    stop_token_ids: frozenset[int]
    file_separator_id: int | None

    @property
    def num_sentinels(self) -> int:
        """How many tokens a prompt has besides those of its parts."""
        return sum(isinstance(part, int) for part in self.template)

    def build(self, prefix_ids: Sequence[int], suffix_ids: Sequence[int], context_ids: Sequence[int] = ()) -> list[int]:
        """The prompt's ids.

        Args:
            prefix_ids: text before the cursor (``encode_prefix`` where it starts the document's shown part).
            suffix_ids: text after the cursor (``encode``); the plain order leaves it out.
            context_ids: other files' text, which the template places where the model expects it.
        """
        parts = {"{prefix}": prefix_ids, "{suffix}": suffix_ids, "{context}": context_ids}
        prompt: list[int] = []
        for part in self.template:
            if isinstance(part, int):
                prompt.append(part)
            else:
                prompt.extend(parts[part])
        return prompt


def infill_formats(
    tokenizer: CodeTokenizer,
    *,
    model_name: str,
    vocab_size: int,
    bos_token_id: int | None,
    eos_token_ids: Sequence[int],
) -> tuple[InfillFormat, ...]:
    """The formats a model was trained on, its default first; plain left-to-right where it has no sentinels.

    Args:
        tokenizer: the model's.
        model_name: hub id or folder; some families promise sentinels by their name.
        vocab_size: rows of the model's embedding; a sentinel beyond them does not exist.
        bos_token_id: the model's beginning of sequence.
        eos_token_ids: the model's ends of sequence.

    Raises:
        TokenizerError: the family promises sentinels and the tokenizer lacks one.
    """
    promised = [row for row in INFILL_FORMATS if row.name_pattern and re.search(row.name_pattern, model_name.lower())]
    found: list[InfillFormat] = []
    for row in promised or INFILL_FORMATS:
        missing = [name for name in _required(row) if not _has(tokenizer, name, vocab_size)]
        if missing and promised:
            raise TokenizerError(
                f"{model_name}: the tokenizer lacks the infill sentinels {', '.join(missing)} of the {row.family} "
                "family; use the tokenizer.json that was published with the model"
            )
        if not missing and (not found or row.family == found[0].family):
            found.append(_bind(row, tokenizer, vocab_size, bos_token_id, eos_token_ids))
    return tuple(found) or (_bind(_PLAIN, tokenizer, vocab_size, bos_token_id, eos_token_ids),)


def _required(row: InfillTemplate) -> tuple[str, ...]:
    return (*row.sentinels, *row.stops[:1])


def _has(tokenizer: CodeTokenizer, name: str, vocab_size: int) -> bool:
    token_id = tokenizer.token_id(name)
    # A sentinel that ordinary text can spell would let a user's text steer the prompt.
    return token_id is not None and token_id < vocab_size and token_id in tokenizer.special_ids


def _bind(
    row: InfillTemplate,
    tokenizer: CodeTokenizer,
    vocab_size: int,
    bos_token_id: int | None,
    eos_token_ids: Sequence[int],
) -> InfillFormat:
    template: list[int | str] = [bos_token_id] if row.begins_with_bos and bos_token_id is not None else []
    template.extend(part if part in _PARTS else _known_id(tokenizer, part) for part in row.template)
    stops = {_known_id(tokenizer, name) for name in row.stops if _has(tokenizer, name, vocab_size)}
    separator = row.file_separator
    return InfillFormat(
        family=row.family,
        order=row.order,
        template=tuple(template),
        stop_token_ids=frozenset(stops.union(eos_token_ids)),
        file_separator_id=None if separator is None else tokenizer.token_id(separator),
    )


def _known_id(tokenizer: CodeTokenizer, name: str) -> int:
    token_id = tokenizer.token_id(name)
    if token_id is None:
        raise TokenizerError(f"the tokenizer lacks {name}")
    return token_id
