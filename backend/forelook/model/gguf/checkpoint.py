"""A GGUF model, read except for its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch

from forelook.model.config import LlamaConfig
from forelook.model.control_tokens import rename_control_tokens
from forelook.model.gguf.architectures import architecture_of, read_config
from forelook.model.gguf.files import content_key, read_parts
from forelook.model.gguf.header import GgufFile
from forelook.model.gguf.tensors import GgufTensors, four_bit_share
from forelook.model.gguf.vocabulary import Sentinels, read_sentinels, tokenizer_pipeline
from forelook.model.infill import InfillFormat
from forelook.model.infill_templates import FileNaming, InfillOrder
from forelook.model.tokenizer import CodeTokenizer


@dataclass(frozen=True, slots=True)
class GgufCheckpoint:
    """A GGUF model whose weights are still in its files.

    Attributes:
        path: its first file.
        files: all files, the one with the metadata first.
        config: shapes and constants.
        tokenizer: of its vocabulary.
        sentinels: infill sentinels that the file names.
        content_key: a hash of its content.
    """

    path: Path
    files: tuple[GgufFile, ...]
    config: LlamaConfig
    tokenizer: CodeTokenizer
    sentinels: Sentinels | None
    content_key: str

    @property
    def four_bit_share(self) -> float:
        """Share of the layers' weights that are in 4 bits with a scale per 32 of them."""
        return four_bit_share(self.files)

    def tensors(self, dtype: torch.dtype) -> GgufTensors:
        """The weights, converted to a dtype as they are read."""
        return GgufTensors(self.files, architecture_of(self.files[0]), self.config, dtype)


def read_checkpoint(path: Path, names: Mapping[str, int] = MappingProxyType({})) -> GgufCheckpoint:
    """Read a GGUF model's headers and vocabulary.

    Args:
        path: its file, or any part of a split one.
        names: control tokens that get another name, by that name.

    Raises:
        ModelError: a subclass that names the problem and the fix.
    """
    files = tuple(read_parts(path))
    config = read_config(files)
    key = content_key(files)
    pipeline = tokenizer_pipeline(files[0])
    rename_control_tokens(pipeline, names, str(path))
    tokenizer = CodeTokenizer(pipeline, str(path), key[:16])
    return GgufCheckpoint(path, files, config, tokenizer, read_sentinels(files[0]), key)


def own_format(
    formats: Sequence[InfillFormat], sentinels: Sentinels, bos_token_id: int | None, eos_token_ids: Sequence[int]
) -> tuple[InfillFormat, ...]:
    """The formats of a model whose file names its sentinels: these win over the families' table.

    The file says which tokens the sentinels are, not in which order they stand. A format of the table with the same
    tokens knows the order, and is kept.
    """
    named = {sentinels.prefix, sentinels.suffix, sentinels.middle}
    known = [each for each in formats if _sentinels(each, bos_token_id) and _sentinels(each, bos_token_id) <= named]
    if known:
        return tuple(replace(each, stop_token_ids=each.stop_token_ids | sentinels.stops) for each in known)
    begin = () if bos_token_id is None else (bos_token_id,)
    separator = () if sentinels.file_separator is None else (sentinels.file_separator,)
    parts = ("{context}", sentinels.prefix, "{prefix}", sentinels.suffix, "{suffix}", sentinels.middle)
    return (
        InfillFormat(
            name="file",
            order=InfillOrder.PREFIX_FIRST,
            template=(*begin, *parts),
            stop_token_ids=sentinels.stops | named | set(eos_token_ids),
            files=FileNaming(file=separator, own_file=separator),
            bos_token_id=bos_token_id,
        ),
    )


def _sentinels(each: InfillFormat, bos_token_id: int | None) -> set[int]:
    return {part for part in each.template if isinstance(part, int) and part != bos_token_id}
