"""Text to token ids and back, exact to the byte, and where text can be split before it is tokenized.

Two kinds of tokenizer are supported: SentencePiece-style BPE with byte fallback (CodeLlama, Codestral) and byte-level
BPE (Qwen, DeepSeek-Coder, StarCoder, the starter model). Decoding joins the raw bytes of the pieces, so leading spaces
and split characters survive. Control tokens have no bytes, and typed text never encodes to one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import Tokenizer

from forelook.errors import TokenizerError
from forelook.model.control_tokens import rename_control_tokens
from forelook.model.infill_templates import CONTROL_TOKENS

logger = logging.getLogger(__name__)

# Control tokens by convention, besides those of the infill templates; some tokenizers do not flag them as special.
_CONTROL_TOKEN = re.compile(r"<\|.*\|>|<｜.*｜>|<(?:s|/s|unk|pad|bos|eos|mask)>")
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "▁"

_NUM_PROBE_PARTS = 4_000  # chosen, not measured
# Line breaks and blanks are frequent, for they are what tokenizers join.
_PROBE_PARTS = (
    *("\n", "\n", "\n", "\n", "\n\n", "\n\n\n", "\r\n", "\n    ", "\n        ", "\n\t", " \n", "  \n", "\t\n"),
    *(" ", " ", "  ", "    ", "\t", "\r", "\f", "\v", "\u00a0", "\u0085", "\u2028", "\u3000", "\x1c", "\u200b"),
    *("a", "x1", "1", "12", "333", "_", "foo", "Foo", "end", "é", "漢字", "🙂", "\u0301", "²", "Ⅷ", "\0", "\ufeff"),
    *"()[]{},;:=#'\"`\\",
    *("):", ");", "//", "'s", "'ll", "'S", '"""'),
    *("<", ">", "/>", "-", "--", "*", "|", "$", "@", "!", "?", ".", "...", "▁", "Ġ", "Ċ", "<s>", "<|x|>", "<0x0A>"),
)

Encode = Callable[[str], list[int]]


class Border(Enum):
    """Places at which text can be split, all of them next to a line break. The finest comes first.

    A value is the pattern of a line break with such a place, and whether the place is after the line break.
    """

    BEFORE_NEWLINE = (r"\n", False)
    AFTER_NEWLINE = (r"\n", True)
    AFTER_TEXT = (r"\n(?<=\S\n)", False)
    BEFORE_TEXT_LINE = (r"\n(?=[ \t]*\S)", True)
    BEFORE_UNINDENTED_LINE = (r"\n(?=\S)", True)
    NOWHERE = (r"\n(?!)", True)


class TextSplitter:
    """Splits text into parts whose tokens, joined, are the tokens of the whole text.

    A tokenizer may merge a line break with what precedes or follows it: GPT-2's pattern, which SmolLM2 and StarCoder
    use, joins it with the indentation that follows, and Qwen's with the punctuation before it. So the splitter tries:
    it uses the finest border at which splitting leaves the tokens of all probes unchanged. If no border passes, it
    never splits.

    The probes cover what a tokenizer's patterns look at. With the vocabulary's own tokens among them they cover its
    merges too: where no token contains a border, no merge crosses one.

    Attributes:
        encode: text to token ids.
        border: where text is split.
    """

    _PROBES = (
        "def f(a, b):\n    return a + b\n\n\nclass A:\n    x = 1\n\n    def g(self):\n        pass\n",
        "def f(x):\n    return x\n\n\nclass A:\n\ty = 1\n# c\nend\n",
        "if (x) {\n\tfoo();\n\n\tbar(1);  \n  \n}\n\nend\n",
        "int main() {\n  if (x) {\n    y();\n  }\n\n}\n",
        "a = [\n    1,\n    2,\n]\n  \n\n    b = '''\n\n  text  \n\ttab\n'''\n# comment\n\n\n\nx\n",
        "a\n\n\n    b\n        c\nd",
        "one\r\n    two\r\n\r\n  three();\r\n}\r\n",
        "x  \n  y \t\n\t z\n\n \n)\n);\n\n};\n/* é — 漢字 */\n  // 🙂\n1\n22\n   333\n",
    )

    def __init__(self, encode: Encode, tokens: Iterable[str] = ()) -> None:
        """Find the border.

        Args:
            encode: text to token ids.
            tokens: the texts of the vocabulary's tokens that contain line breaks.
        """
        self.encode = encode
        probes = (*self._PROBES, *tokens, _random_probe())
        self.border = next(border for border in Border if all(self._keeps_tokens(border, probe) for probe in probes))
        if self.border is Border.NOWHERE:
            logger.warning("the tokenizer joins lines everywhere; text is tokenized whole, which costs time per key")

    def split(self, text: str) -> list[str]:
        """The parts of ``text``. None is empty, and joined they are the text."""
        return _split(text, self.border)

    def _keeps_tokens(self, border: Border, probe: str) -> bool:
        parts = _split(probe, border)
        return len(parts) == 1 or [token for part in parts for token in self.encode(part)] == self.encode(probe)


@cache
def _random_probe() -> str:
    """A text with a few thousand different surroundings of line breaks, always the same."""
    chosen = random.Random(0)  # noqa: S311 - not for secrets; the probe must be the same at each start
    return "".join(chosen.choices(_PROBE_PARTS, k=_NUM_PROBE_PARTS))


def _split(text: str, border: Border) -> list[str]:
    pattern, is_after = border.value
    if border is Border.NOWHERE:
        return [text] if text else []
    # A pattern that begins with a line break is searched for at the speed of `str.find`, however long the lines are.
    found = re.finditer(pattern, text)
    ends = [match.end() for match in found] if is_after else [match.start() for match in found]
    return [text[start:end] for start, end in pairwise([0, *ends, len(text)]) if start < end]


class CodeTokenizer:
    """A checkpoint's tokenizer.

    Attributes:
        special_ids: ids of control tokens; their ``token_bytes`` are empty and no text encodes to them.
        vocab_size: one more than the highest id.
        fingerprint: a hash of the ``tokenizer.json``.
    """

    def __init__(self, tokenizer_json: str | dict[str, Any], where: str, fingerprint: str | None = None) -> None:
        """Build from a ``tokenizer.json``.

        Args:
            tokenizer_json: its text or its parsed content; the latter may be changed.
            where: names its origin in errors.
            fingerprint: identifies it; by default the hash of its text.
        """
        try:
            raw: dict[str, Any] = json.loads(tokenizer_json) if isinstance(tokenizer_json, str) else tokenizer_json
            added: list[dict[str, Any]] = list(raw.get("added_tokens") or [])
            control = [token for token in added if _is_control(token)]
            # With encode_special_tokens, tokens that are flagged as special stay text when they occur in text.
            # Leaving them out instead would shift the ids of the other added tokens.
            for token in control:
                token["special"] = True
            raw["post_processor"] = None
            raw["truncation"] = raw["padding"] = None
            self._with_space = _build(raw)
            self._tokenizer = _build(raw) if _drop_implicit_space(raw) else self._with_space
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TokenizerError(f"{where} is not a readable tokenizer: {error}; download it again") from error

        self._ids: dict[str, int] = dict(self._tokenizer.get_vocab(with_added_tokens=True))
        self._ids.update((token["content"], int(token["id"])) for token in control)
        self.special_ids = frozenset(int(token["id"]) for token in control)
        literal = {int(token["id"]) for token in added} - self.special_ids
        self.vocab_size = max(self._ids.values(), default=0) + 1
        if fingerprint is None:
            text = tokenizer_json if isinstance(tokenizer_json, str) else json.dumps(tokenizer_json)
            fingerprint = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self.fingerprint = fingerprint
        self._bytes = self._piece_bytes(literal, _is_byte_level(raw), where)

    @classmethod
    def from_file(cls, path: Path, names: Mapping[str, int] = MappingProxyType({})) -> CodeTokenizer:
        """Read a ``tokenizer.json``.

        Args:
            path: of the file.
            names: control tokens that get another name, by that name.

        Raises:
            TokenizerError: the file is missing or not a tokenizer.
        """
        if not path.is_file():
            raise TokenizerError(f"{path} is missing; the model's folder needs a tokenizer.json next to the weights")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(f"{path} cannot be read: {error}; check its permissions") from error
        if not names:
            return cls(text, str(path))
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise TokenizerError(f"{path} is not a readable tokenizer: {error}; download it again") from error
        rename_control_tokens(raw, names, str(path))
        return cls(raw, str(path))

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone: no beginning of sequence, no implicit leading space, no control token."""
        return self._encode(self._tokenizer, text)

    def encode_prefix(self, text: str) -> list[int]:
        """Ids of text that starts a document: SentencePiece adds its implicit leading space."""
        return self._encode(self._with_space, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, leading spaces included; invalid UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The raw bytes of one token; empty for control tokens and unknown ids."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def token_id(self, content: str) -> int | None:
        """The id of a token by its name in the vocabulary, control tokens included."""
        return self._ids.get(content)

    @cached_property
    def control_names(self) -> dict[int, str]:
        """The names of control tokens by id."""
        return {token_id: name for name, token_id in self._ids.items() if token_id in self.special_ids}

    @cached_property
    def splitter(self) -> TextSplitter:
        """Where text can be split before it is tokenized."""
        joined = (data for data in self._bytes if len(data) > 1 and b"\n" in data)
        return TextSplitter(self.encode, [data.decode("utf-8", "replace") for data in joined])

    @cached_property
    def all_bytes(self) -> tuple[bytes, ...]:
        """``token_bytes`` of every id."""
        return tuple(self._bytes)

    @staticmethod
    def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
        try:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            # Editors do send lone surrogates, which are not valid text; U+FFFD replaces them.
            clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            ids = tokenizer.encode(clean, add_special_tokens=False).ids
        return ids

    def _piece_bytes(self, literal: set[int], byte_level: bool, where: str) -> list[bytes]:
        table = [b""] * self.vocab_size
        for piece, token_id in self._ids.items():
            if token_id in self.special_ids:
                continue
            if token_id in literal:
                table[token_id] = piece.encode("utf-8")
            elif byte_level:
                try:
                    table[token_id] = bytes(map(_BYTE_OF_CHARACTER.__getitem__, piece))
                except KeyError as error:
                    raise TokenizerError(f"{where}: piece {token_id} is not byte-level: {error}") from error
            elif match := _BYTE_PIECE.fullmatch(piece):
                table[token_id] = bytes([int(match[1], 16)])
            else:
                table[token_id] = piece.replace(_SPACE, " ").encode("utf-8")
        return table


def _is_control(token: dict[str, Any]) -> bool:
    content = token["content"]
    return bool(token.get("special")) or content in CONTROL_TOKENS or _CONTROL_TOKEN.fullmatch(content) is not None


def _build(raw: dict[str, Any]) -> Tokenizer:
    try:
        tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(raw))
    except Exception as error:  # the library raises a bare Exception for every error in the file
        raise ValueError(str(error)) from error
    tokenizer.encode_special_tokens = True
    return tokenizer


def _components(raw: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A pipeline stage of a tokenizer.json as a flat list."""
    stage = raw.get(name)
    if stage is None:
        return []
    if stage["type"] != "Sequence":
        return [stage]
    return list(stage.get("normalizers") or stage.get("pretokenizers") or stage.get("decoders") or [])


def _is_byte_level(raw: dict[str, Any]) -> bool:
    return any(part["type"] == "ByteLevel" for name in ("pre_tokenizer", "decoder") for part in _components(raw, name))


def _drop_implicit_space(raw: dict[str, Any]) -> bool:
    """Edit a tokenizer.json so that encoding adds no leading space to a text; returns whether it did add one."""
    changes = False
    if (normalizer := raw.get("normalizer")) is not None:
        all_parts = _components(raw, "normalizer")
        parts = [part for part in all_parts if part["type"] != "Prepend"]
        changes = len(parts) < len(all_parts)
        raw["normalizer"] = {"type": "Sequence", "normalizers": parts} if parts else None
        if normalizer["type"] != "Sequence" and parts:
            raw["normalizer"] = parts[0]
    for part in _components(raw, "pre_tokenizer"):
        if part["type"] == "Metaspace":
            changes = True
            part["prepend_scheme"] = "never"
            part.pop("add_prefix_space", None)
        elif part["type"] == "ByteLevel":
            changes = changes or bool(part.get("add_prefix_space", True))
            part["add_prefix_space"] = False
    return changes


def _byte_of_character() -> dict[str, int]:
    """The byte that each character stands for: byte-level BPE writes every byte as one printable character."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    table.update((chr(256 + index), byte) for index, byte in enumerate(others))
    return table


_BYTE_OF_CHARACTER = _byte_of_character()
