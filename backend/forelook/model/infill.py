"""Infill (fill-in-the-middle) prompts: templates of :mod:`forelook.model.families`, bound to a tokenizer.

Sentinels enter a prompt as ids, never as text, so typed text cannot become one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from forelook.errors import TokenizerError
from forelook.model.families import INFILL_TEMPLATES, PARTS, PLAIN_TEMPLATE, InfillOrder, InfillTemplate
from forelook.model.tokenizer import CodeTokenizer


@dataclass(frozen=True, slots=True)
class InfillFormat:
    """A template, bound to a tokenizer.

    Attributes:
        name: of the template; ``"plain"`` without sentinels.
        order: which of prefix and suffix comes first.
        template: per part of the prompt a sentinel's id, or ``"{context}"``, ``"{prefix}"``, ``"{suffix}"``.
        stop_token_ids: ids that end the middle and do not belong to it.
        file_separator_id: precedes each file in the context ids; ``None`` if the model has no such token.
    """

    name: str
    order: InfillOrder
    template: tuple[int | str, ...]
    stop_token_ids: frozenset[int]
    file_separator_id: int | None

    @property
    def sees_suffix(self) -> bool:
        """Whether a prompt contains the text after the cursor."""
        return self.order is not InfillOrder.PLAIN

    @property
    def num_sentinels(self) -> int:
        """Number of sentinel tokens in a prompt."""
        return sum(isinstance(part, int) for part in self.template)

    def build(self, prefix_ids: Sequence[int], suffix_ids: Sequence[int], context_ids: Sequence[int] = ()) -> list[int]:
        """The ids of a prompt.

        Args:
            prefix_ids: text before the cursor (from ``encode_prefix`` if it starts a document).
            suffix_ids: text after the cursor (from ``encode``); the plain order omits it.
            context_ids: text of other files.
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
    """The formats a model was trained with, its default first; plain left-to-right if it has no sentinels.

    Args:
        tokenizer: of the model.
        model_name: hub id or folder; some names imply a format.
        vocab_size: rows of the model's embedding; a sentinel with a higher id cannot be used.
        bos_token_id: the model's beginning of sequence.
        eos_token_ids: the model's ends of sequence.

    Raises:
        TokenizerError: the model's name implies a format and the tokenizer lacks one of its sentinels.
    """
    name = model_name.lower()
    named = [each for each in INFILL_TEMPLATES if each.name_pattern and re.search(each.name_pattern, name)]
    found: list[InfillFormat] = []
    for template in named or INFILL_TEMPLATES:
        required = (*template.sentinels, *template.stops[:1])
        missing = [token for token in required if not _has(tokenizer, token, vocab_size)]
        if missing and named:
            raise TokenizerError(
                f"{model_name}: the tokenizer lacks the infill sentinels {', '.join(missing)} of the {template.name} "
                "format; use the tokenizer.json that was published with the model"
            )
        if not missing and (not found or template.name == found[0].name):
            found.append(_bind(template, tokenizer, vocab_size, bos_token_id, eos_token_ids))
    return tuple(found) or (_bind(PLAIN_TEMPLATE, tokenizer, vocab_size, bos_token_id, eos_token_ids),)


def _has(tokenizer: CodeTokenizer, name: str, vocab_size: int) -> bool:
    token_id = tokenizer.token_id(name)
    # Only special tokens count: if text could encode to a sentinel, typed text could steer the prompt.
    return token_id is not None and token_id < vocab_size and token_id in tokenizer.special_ids


def _bind(
    template: InfillTemplate,
    tokenizer: CodeTokenizer,
    vocab_size: int,
    bos_token_id: int | None,
    eos_token_ids: Sequence[int],
) -> InfillFormat:
    parts: list[int | str] = [bos_token_id] if template.begins_with_bos and bos_token_id is not None else []
    parts.extend(part if part in PARTS else _known_id(tokenizer, part) for part in template.parts)
    stops = {_known_id(tokenizer, name) for name in template.stops if _has(tokenizer, name, vocab_size)}
    separator = template.file_separator
    return InfillFormat(
        name=template.name,
        order=template.order,
        template=tuple(parts),
        stop_token_ids=frozenset(stops.union(eos_token_ids)),
        file_separator_id=None if separator is None else tokenizer.token_id(separator),
    )


def _known_id(tokenizer: CodeTokenizer, name: str) -> int:
    token_id = tokenizer.token_id(name)
    if token_id is None:
        raise TokenizerError(f"the tokenizer lacks {name}; use the tokenizer.json that was published with the model")
    return token_id
