"""The control tokens of a model in training: its own where it can infill, and renamed unused ones where it cannot."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from forelook.errors import TokenizerError
from forelook.model.control_tokens import rename_control_tokens
from forelook.model.identity import ModelIdentity
from forelook.model.infill import InfillFormat, infill_formats
from forelook.model.infill_templates import INFILL_TEMPLATES
from forelook.model.tokenizer import CodeTokenizer

from training.bases import Base

ADAPTER_FORMAT = "forelook"
"""The row of ``forelook.model.infill_templates`` that renamed tokens are for."""
BEGIN, END_OF_TEXT = "<s>", "<|endoftext|>"
SENTINELS = (BEGIN, END_OF_TEXT, "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<EOT>", "<fim_pad>", "<file_sep>")
"""Names that renamed tokens get, in the order of their ids. Other programs know them, too."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and what its control tokens mean.

    Attributes:
        tokenizer: encodes text.
        tokenizer_json: its ``tokenizer.json``.
        infill: the infill format.
        bos_id: begins a text; ``None`` without such a token.
        eos_id: ends a text.
        end_id: ends a middle.
        row_ids: the control tokens that training gives a meaning; their rows are trained whole.
        renamed: names that control tokens of the base are given, and their ids; empty where it has its own.
        initial_rows: by id of a renamed token the id whose row it begins with: that of the base's token of that name.
    """

    tokenizer: CodeTokenizer
    tokenizer_json: str
    infill: InfillFormat
    bos_id: int | None
    eos_id: int
    end_id: int
    row_ids: tuple[int, ...]
    renamed: Mapping[str, int] = field(default_factory=dict)
    initial_rows: Mapping[int, int] = field(default_factory=dict)


def vocabulary_of(base: Base) -> Vocabulary:
    """The control tokens of a base: those it was trained to infill with, or its first ones, renamed.

    Raises:
        TokenizerError: it cannot infill and has too few control tokens to rename.
    """
    config, text = base.config, json.dumps(base.tokenizer_json)
    tokenizer = CodeTokenizer(text, str(base.path))
    infill = infill_formats(
        tokenizer,
        identity=ModelIdentity(config.model_type, ()),
        vocab_size=config.vocab_size,
        bos_token_id=config.bos_token_id,
        eos_token_ids=config.eos_token_ids,
    )[0]
    if infill.sees_suffix:
        return _bound(tokenizer, text, infill, config.bos_token_id, config.eos_token_ids[0])
    ids = sorted(token_id for token_id in tokenizer.special_ids if token_id < config.vocab_size)[: len(SENTINELS)]
    if len(ids) < len(SENTINELS):
        raise TokenizerError(
            f"{base.path}: the tokenizer has {len(ids)} control tokens, and infilling takes {len(SENTINELS)}; choose a "
            "base with more of them"
        )
    names = dict(zip(SENTINELS, ids, strict=True))
    owned = {names[name]: found for name in SENTINELS if (found := tokenizer.token_id(name)) is not None}
    return renamed_vocabulary(base, names, owned)


def renamed_vocabulary(base: Base, names: Mapping[str, int], initial_rows: Mapping[int, int]) -> Vocabulary:
    """A base's vocabulary with other names for some of its control tokens.

    Args:
        base: the base.
        names: ids by the names that they get: those of ``SENTINELS``.
        initial_rows: as in :class:`Vocabulary`.
    """
    content = copy.deepcopy(base.tokenizer_json)
    rename_control_tokens(content, names, str(base.path))
    text = json.dumps(content)
    tokenizer = CodeTokenizer(text, str(base.path))
    infill = infill_formats(
        tokenizer,
        identity=ModelIdentity("llama", (ADAPTER_FORMAT,)),
        vocab_size=base.config.vocab_size,
        bos_token_id=names[BEGIN],
        eos_token_ids=(names[END_OF_TEXT],),
    )[0]
    bound = _bound(tokenizer, text, infill, names[BEGIN], names[END_OF_TEXT])
    return replace(bound, row_ids=tuple(sorted(names.values())), renamed=names, initial_rows=initial_rows)


def _bound(tokenizer: CodeTokenizer, text: str, infill: InfillFormat, bos_id: int | None, eos_id: int) -> Vocabulary:
    template = next(each for each in INFILL_TEMPLATES if each.name == infill.name)
    end_id = tokenizer.token_id(template.stops[0])
    assert end_id is not None, "a format is bound only where the tokenizer has its first stop"
    sentinels = {part for part in infill.template if isinstance(part, int)} | infill.files.sentinel_ids
    row_ids = tuple(sorted(sentinels | {eos_id, end_id}))
    return Vocabulary(tokenizer, text, infill, bos_id, eos_id, end_id, row_ids)
