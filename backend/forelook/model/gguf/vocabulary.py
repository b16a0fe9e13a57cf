"""The vocabulary of a GGUF file as a ``tokenizer.json``, and the infill sentinels that the file names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from forelook.errors import TokenizerError
from forelook.model.gguf.header import GgufFile
from forelook.model.gguf.pre_tokenizers import PRE_TOKENIZERS

# Values of tokenizer.ggml.token_type
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
_SPACE = "▁"
_PREFIX = "tokenizer.ggml."

# Part of an infill prompt -> keys, the older one last.
_SENTINELS: Mapping[str, tuple[str, ...]] = {
    "prefix": ("fim_pre", "prefix"),
    "suffix": ("fim_suf", "suffix"),
    "middle": ("fim_mid", "middle"),
}
_STOPS = ("fim_pad", "fim_rep", "fim_sep")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The infill sentinels that a file names, by id.

    Attributes:
        prefix: before the text in front of the cursor.
        suffix: before the text behind the cursor.
        middle: before the infilled text.
        stops: ids that end the middle: padding, repository and file separators.
        file_separator: precedes each file of a repository; ``None`` if the file names none.
    """

    prefix: int
    suffix: int
    middle: int
    stops: frozenset[int]
    file_separator: int | None


def read_sentinels(file: GgufFile) -> Sentinels | None:
    """The infill sentinels of a file; ``None`` if it does not name all three.

    Raises:
        TokenizerError: an id is outside of the vocabulary, or two sentinels are one token.
    """
    found = {part: _id(file, *names) for part, names in _SENTINELS.items()}
    ids = [token_id for token_id in found.values() if token_id is not None]
    if len(ids) < len(found):
        return None
    if len(set(ids)) < len(ids):
        raise TokenizerError(
            f"{file.path}: the infill sentinels {', '.join(f'{part} = {found[part]}' for part in found)} are not three "
            "different tokens; download a file whose metadata was corrected"
        )
    stops = {name: _id(file, name) for name in _STOPS}
    return Sentinels(
        ids[0], ids[1], ids[2], frozenset(each for each in stops.values() if each is not None), stops["fim_sep"]
    )


def _id(file: GgufFile, *names: str) -> int | None:
    """The token id under the first of some keys that the file has."""
    num_tokens = len(file.metadata.get(f"{_PREFIX}tokens", ()))
    for name in names:
        value = file.metadata.get(f"{_PREFIX}{name}_token_id")
        if value is None or value == 0xFFFFFFFF:  # llama.cpp writes -1 for none
            continue
        if not isinstance(value, int) or not 0 <= value < num_tokens:
            raise TokenizerError(
                f"{file.path}: {_PREFIX}{name}_token_id is {value!r}, but the vocabulary has {num_tokens} tokens; "
                "download a file whose metadata was corrected"
            )
        return value
    return None


def check_kind(file: GgufFile) -> None:
    """Check that the file's vocabulary is of a kind that can be read, without reading it.

    Raises:
        TokenizerError: its type or its pre-tokenizer is unknown; the message lists those that are known.
    """
    model = file.metadata.get(f"{_PREFIX}model")
    if model not in ("gpt2", "llama"):
        raise TokenizerError(
            f"{file.path}: {_PREFIX}model is {model!r}; supported are 'gpt2' (byte-level BPE) and 'llama' "
            "(SentencePiece): choose a model with one of these vocabularies"
        )
    name = file.metadata.get(f"{_PREFIX}pre", "default")
    if model == "gpt2" and not (isinstance(name, str) and name in PRE_TOKENIZERS):
        raise TokenizerError(
            f"{file.path}: {_PREFIX}pre is {name!r}, a pre-tokenizer that this version does not know; choose a model "
            f"with one of {', '.join(PRE_TOKENIZERS)}"
        )


def tokenizer_pipeline(file: GgufFile) -> dict[str, Any]:
    """The file's vocabulary as the content of a ``tokenizer.json``.

    Raises:
        TokenizerError: the vocabulary is missing, damaged, or of an unknown type.
    """
    check_kind(file)
    vocabulary = _Vocabulary(file)
    is_byte_level = file.metadata[f"{_PREFIX}model"] == "gpt2"
    return vocabulary.byte_level() if is_byte_level else vocabulary.sentence_piece()


class _Vocabulary:
    """A file's tokens and their types, checked."""

    def __init__(self, file: GgufFile) -> None:
        self._where = str(file.path)
        self._file = file
        tokens = file.metadata.get(f"{_PREFIX}tokens")
        if not isinstance(tokens, list) or not tokens:
            raise self._damaged("tokens is missing")
        self._types = self._numbers("token_type", [1] * len(tokens), len(tokens))
        self._tokens: list[str] = [token or f"<empty {index}>" for index, token in enumerate(tokens)]
        for index, kind in enumerate(self._types):
            if kind == _USER_DEFINED and file.metadata.get(f"{_PREFIX}model") == "llama":
                self._tokens[index] = self._tokens[index].replace(_SPACE, " ")  # it is found in text as it is
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        if len(self._ids) < len(self._tokens):
            first = next(index for index, token in enumerate(self._tokens) if self._ids[token] != index)
            raise self._damaged(f"tokens {first} and {self._ids[self._tokens[first]]} are the same")

    def byte_level(self) -> dict[str, Any]:
        """Byte-level BPE: merges in order, cut as the file's pre-tokenizer says."""
        pre_tokenizer = PRE_TOKENIZERS[self._file.metadata.get(f"{_PREFIX}pre", "default")]
        merges = self._file.metadata.get(f"{_PREFIX}merges")
        if not isinstance(merges, list):
            raise self._damaged("merges is missing")
        model = {
            "type": "BPE",
            "vocab": self._ids,
            "merges": merges,
            "ignore_merges": pre_tokenizer.ignores_merges,
            "byte_fallback": False,
            "fuse_unk": False,
        }
        return self._described(
            model,
            normalizer={"type": "NFC"} if pre_tokenizer.normalizes else None,
            pre_tokenizer=pre_tokenizer.stage(),
            decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        )

    def sentence_piece(self) -> dict[str, Any]:
        """SentencePiece's BPE: a piece's score says when its parts are merged into it."""
        scores = self._numbers("scores", None, len(self._tokens))
        unknown = next((index for index, kind in enumerate(self._types) if kind == _UNKNOWN), None)
        model = {
            "type": "BPE",
            "vocab": self._ids,
            "merges": self._merges(scores),
            "unk_token": None if unknown is None else self._tokens[unknown],
            "byte_fallback": True,
            "fuse_unk": True,
        }
        spaces: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
        if self._file.metadata.get(f"{_PREFIX}add_space_prefix", True):
            spaces.insert(0, {"type": "Prepend", "prepend": _SPACE})
        decoder = [{"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}, {"type": "ByteFallback"}]
        return self._described(
            model,
            normalizer={"type": "Sequence", "normalizers": spaces},
            pre_tokenizer=None,
            decoder={"type": "Sequence", "decoders": [*decoder, {"type": "Fuse"}]},
        )

    def _merges(self, scores: list[float]) -> list[tuple[str, str]]:
        """Every way to join two pieces to a third, the highest score first.

        SentencePiece merges the pair whose joined piece scores highest, and the leftmost of equal ones.
        """
        ids = self._ids
        special = {
            index for index, kind in enumerate(self._types) if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE)
        }
        found: list[tuple[float, int, int, str, str]] = []
        for piece, index in ids.items():
            if len(piece) < 2 or index in special:
                continue
            for cut in range(1, len(piece)):
                left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
                if left is not None and right is not None and left not in special and right not in special:
                    found.append((-scores[index], index, cut, piece[:cut], piece[cut:]))
        found.sort()
        return [(left, right) for _, _, _, left, right in found]

    def _described(self, model: dict[str, Any], **stages: Any) -> dict[str, Any]:
        sentinels = read_sentinels(self._file)
        control = (
            set() if sentinels is None else {sentinels.prefix, sentinels.suffix, sentinels.middle, *sentinels.stops}
        )
        added = []
        for index, kind in enumerate(self._types):
            is_control = kind in (_CONTROL, _UNKNOWN) or index in control
            if is_control or kind == _USER_DEFINED:
                flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
                added.append({"id": index, "content": self._tokens[index], **flags, "special": is_control})
        return {"version": "1.0", "added_tokens": added, **stages, "post_processor": None, "model": model}

    def _numbers(self, name: str, default: list[Any] | None, count: int) -> list[Any]:
        values = self._file.metadata.get(f"{_PREFIX}{name}")
        if values is None and default is not None:
            return default
        if not isinstance(values, np.ndarray) or len(values) != count:
            found = "missing" if values is None else f"not one number for each of the {count} tokens"
            raise self._damaged(f"{name} is {found}")
        numbers: list[Any] = values.tolist()
        return numbers

    def _damaged(self, reason: str) -> TokenizerError:
        return TokenizerError(f"{self._where}: the vocabulary is damaged: {_PREFIX}{reason}; download the file again")
