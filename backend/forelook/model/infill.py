"""Infill (fill-in-the-middle) prompts: templates of :mod:`forelook.model.infill_templates`, bound to a tokenizer.

Sentinels enter a prompt as ids, never as text, so typed text cannot become one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forelook.errors import TokenizerError
from forelook.model.identity import ModelIdentity
from forelook.model.infill_templates import (
    INFILL_TEMPLATES,
    NO_NAMING,
    PARTS,
    PLAIN_TEMPLATE,
    FileNaming,
    InfillOrder,
    InfillTemplate,
    Part,
    is_sentinel,
)
from forelook.model.tokenizer import CodeTokenizer


@dataclass(frozen=True, slots=True)
class InfillFormat:
    """A template, bound to a tokenizer.

    Attributes:
        name: of the template; ``"plain"`` without sentinels.
        order: which of prefix and suffix comes first.
        template: per part of the prompt a sentinel's id, or ``"{context}"``, ``"{prefix}"``, ``"{suffix}"``.
        stop_token_ids: ids that end the middle and do not belong to it.
        files: how the files of a prompt are told apart.
        bos_token_id: the beginning of sequence with which every prompt starts; ``None`` for none.
    """

    name: str
    order: InfillOrder
    template: tuple[Part, ...]
    stop_token_ids: frozenset[int]
    files: FileNaming = NO_NAMING
    bos_token_id: int | None = None

    @property
    def sees_suffix(self) -> bool:
        """Whether a prompt contains the text after the cursor."""
        return self.order is not InfillOrder.PLAIN

    @property
    def num_sentinels(self) -> int:
        """Number of sentinel tokens in a prompt."""
        return sum(isinstance(part, int) for part in self.template)

    @property
    def joins_context(self) -> bool:
        """Whether the prefix continues the text of other files, with no sentinel between them."""
        return self.template[self.template.index("{prefix}") - 1] == "{context}"

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
    identity: ModelIdentity,
    vocab_size: int,
    bos_token_id: int | None,
    eos_token_ids: Sequence[int],
    format_name: str | None = None,
) -> tuple[InfillFormat, ...]:
    """The formats a model was trained with, its default first; plain left-to-right if it has no sentinels.

    A name of the model decides, then a name of what it was made from, then its family and its tokenizer.

    Args:
        tokenizer: of the model.
        identity: what it says that it is.
        vocab_size: rows of the model's embedding; a sentinel with a higher id cannot be used.
        bos_token_id: the model's beginning of sequence.
        eos_token_ids: the model's ends of sequence.
        format_name: the format that the model's adapter states; it decides before any name.

    Raises:
        TokenizerError: the stated format is unknown, or the name of the model or of the format implies sentinels that
            the tokenizer lacks.
    """
    named = _named(identity.names, identity.model_type)
    if format_name is not None:
        named = tuple(each for each in INFILL_TEMPLATES if each.name == format_name)
        if not named:
            known = ", ".join(dict.fromkeys(each.name for each in INFILL_TEMPLATES))
            raise TokenizerError(
                f"{identity.names[0]}: its adapter names the infill format {format_name!r}, which this version does "
                f"not know (it knows {known}); update, or choose another adapter"
            )
    others = sorted(
        (each for each in INFILL_TEMPLATES if _may_be(each, tokenizer)),
        key=lambda each: identity.model_type not in each.model_types,
    )
    found: list[InfillFormat] = []
    for template in named or (*_named(identity.bases, identity.model_type), *others):
        required = (*template.sentinels, *template.stops[:1])
        missing = [token for token in required if not _has(tokenizer, token, vocab_size)]
        if missing and named:
            raise TokenizerError(
                f"{identity.names[0]}: the tokenizer lacks the infill sentinels {', '.join(missing)} of the "
                f"{template.name} format; use the tokenizer.json that was published with the model"
            )
        if not missing and (not found or template.name == found[0].name):
            bound = _bind(template, tokenizer, vocab_size, bos_token_id, eos_token_ids)
            found += [bound] if bound not in found else []
    return tuple(found) or (_bind(PLAIN_TEMPLATE, tokenizer, vocab_size, bos_token_id, eos_token_ids),)


def doubts(identity: ModelIdentity, infill: InfillFormat, name: str) -> list[str]:
    """What speaks against completing with a model as it was chosen, in plain words.

    Args:
        identity: what the model says that it is.
        infill: its default format.
        name: of the model, for users.
    """
    lines: list[str] = []
    template = next((each for each in INFILL_TEMPLATES if each.name == infill.name), None)
    is_named = any(each.name == infill.name for each in _named((*identity.names, *identity.bases), identity.model_type))
    if not infill.sees_suffix:
        lines.append(f"{name} was not trained to infill; it does not read the text after the cursor")
    elif template is not None and not template.sentinels_suffice and not is_named:
        lines.append(
            f"{name} has the tokens of the {infill.name} format, but nothing says that it was trained to infill; "
            "its suggestions may not fit the text after the cursor"
        )
    if identity.is_named_chat or (identity.has_chat_template and not is_named):
        lines.append(f"{name} is made for chat; the base model that it was made from usually completes code better")
    return lines


def _named(names: Sequence[str], model_type: str) -> tuple[InfillTemplate, ...]:
    """The templates of a family that the first telling name implies."""
    of_family = [each for each in INFILL_TEMPLATES if model_type in each.model_types and each.name_pattern]
    for name in names:
        found = tuple(each for each in of_family if re.search(each.name_pattern or "", name))
        if found:
            return found
    return ()


def _may_be(template: InfillTemplate, tokenizer: CodeTokenizer) -> bool:
    """Whether the tokenizer encodes numbers as those of a format do."""
    number = "2024"
    splits_digits = len(tokenizer.encode(number)) == len(number)
    return template.splits_digits is None or template.splits_digits == splits_digits


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
    bos = bos_token_id if template.begins_with_bos else None
    parts: list[Part] = [] if bos is None else [bos]
    parts.extend(part if part in PARTS else _known_id(tokenizer, part) for part in template.parts)
    stops = {_known_id(tokenizer, name) for name in template.stops if _has(tokenizer, name, vocab_size)}
    has_names = all(_has(tokenizer, token, vocab_size) for token in template.files.sentinels)
    return InfillFormat(
        name=template.name,
        order=template.order,
        template=tuple(parts),
        stop_token_ids=frozenset(stops.union(eos_token_ids)),
        files=_bind_files(template.files, tokenizer) if has_names else NO_NAMING,
        bos_token_id=bos,
    )


def _bind_files(files: FileNaming, tokenizer: CodeTokenizer) -> FileNaming:
    def bind(parts: tuple[Part, ...]) -> tuple[Part, ...]:
        return tuple(
            _known_id(tokenizer, part) if isinstance(part, str) and is_sentinel(part) else part for part in parts
        )

    return replace(
        files,
        repository=bind(files.repository),
        file=bind(files.file),
        file_end=bind(files.file_end),
        own_file=bind(files.own_file),
    )


def _known_id(tokenizer: CodeTokenizer, name: str) -> int:
    token_id = tokenizer.token_id(name)
    if token_id is None:
        raise TokenizerError(f"the tokenizer lacks {name}; use the tokenizer.json that was published with the model")
    return token_id
