"""The pre-tokenizers that ``tokenizer.ggml.pre`` names, as stages of a ``tokenizer.json``.

A byte-level vocabulary is half a tokenizer: how text is cut before merging is the other half, and of that a GGUF file
has the name only. Names and what they mean: ``llama-vocab.cpp`` of llama.cpp. Where a family's own ``tokenizer.json``
is known, its stages are used instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Stage = dict[str, Any]

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# llama.cpp and the published tokenizer.json list the cased letters one range after the other.
_DEEPSEEK_LETTERS = r"\s?[\p{Lu}\p{Ll}\p{Lt}]+"
_DEEPSEEK_HAN = "[一-龥ࠀ-一가-퟿]+"
_DEEPSEEK_V3_PUNCTUATION = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
)


def _split(pattern: str) -> Stage:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


_DIGITS: Stage = {"type": "Digits", "individual_digits": True}


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How text is cut before its bytes are merged.

    Attributes:
        stages: of a ``tokenizer.json``, without the last one, which writes bytes as characters.
        normalizes: whether text is brought to Unicode's form NFC first.
        ignores_merges: whether a piece that is a token is taken as it is, without merging.
    """

    stages: tuple[Stage, ...]
    normalizes: bool = False
    ignores_merges: bool = False

    def stage(self) -> Stage:
        """All stages as one."""
        as_characters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        return {"type": "Sequence", "pretokenizers": [*self.stages, as_characters]}


_GPT2_LIKE = PreTokenizer((_split(_GPT2),))
_STARCODER_LIKE = PreTokenizer((_DIGITS, _split(_GPT2)))
_LLAMA3_PATTERN = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_PUNCTUATION}|{_SPACES}"
_QWEN2_PATTERN = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_PUNCTUATION}|{_SPACES}"

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = MappingProxyType(
    {
        "default": PreTokenizer(
            (_split(r"[\p{P}\$\+<=>\^~\|]+"), _split(_GPT2), _split(r"\p{N}+"), _split("[0-9][0-9][0-9]"))
        ),
        **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "mellum", "exaone4", "granite-docling"), _GPT2_LIKE),
        **dict.fromkeys(
            ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"),
            _STARCODER_LIKE,
        ),
        **dict.fromkeys(
            ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"),
            PreTokenizer((_split(_LLAMA3_PATTERN),), ignores_merges=True),
        ),
        **dict.fromkeys(("dbrx", "smaug-bpe"), PreTokenizer((_split(_LLAMA3_PATTERN),))),
        **dict.fromkeys(
            ("qwen2", "deepseek-r1-qwen", "megrez"), PreTokenizer((_split(_QWEN2_PATTERN),), normalizes=True)
        ),
        "stablelm2": PreTokenizer((_split(_QWEN2_PATTERN),)),
        "tekken": PreTokenizer((_split(_TEKKEN),), ignores_merges=True),
        "deepseek-coder": PreTokenizer(
            (_split(r"[\r\n]"), _split(r"\s?\p{L}+"), _split(r"\s?\p{P}+"), _split(_DEEPSEEK_HAN), _DIGITS)
        ),
        "deepseek-llm": PreTokenizer(
            (
                _split(r"[\r\n]"),
                _split(_DEEPSEEK_LETTERS),
                _split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                _split(r"\s+$"),
                _split(_DEEPSEEK_HAN),
                _DIGITS,
            )
        ),
        "deepseek-v3": PreTokenizer(
            (_split(r"\p{N}{1,3}"), _split("[一-龥぀-ゟ゠-ヿ]+"), _split(rf"{_DEEPSEEK_V3_PUNCTUATION}|{_SPACES}"))
        ),
        "seed-coder": PreTokenizer(
            (_split(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"),)
        ),
        "falcon": PreTokenizer((_split(r"[\p{P}\$\+<=>\^~\|`]+"), _split(_GPT2), _split("[0-9][0-9][0-9]"))),
    }
)
