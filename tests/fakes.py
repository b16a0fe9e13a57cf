"""Small stand-ins that behave: a scripted model, a tiny random transformer and a byte tokenizer.

Both models implement the decoding protocol completely (visibility, positions, commit, truncate) and refuse a step that
breaks it, so a loop tested against them cannot pass by luck.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from forelook.decoding.layout import BoolArray, StepLayout
from forelook.model.tokenizer import Border, Encode


def visibility_of(layout: StepLayout) -> BoolArray:
    """The layout's visibility with ``None`` spelled out as causal."""
    size = len(layout)
    return np.tri(size, dtype=np.bool_) if layout.visibility is None else layout.visibility


def check_layout(layout: StepLayout, num_cached: int, vocab_size: int, max_positions: int) -> None:
    """Raise AssertionError for a tail that no model could run as its caller means it."""
    size = len(layout)
    assert size >= 1, "an empty step"
    assert layout.token_ids.shape == layout.positions.shape == (size,)
    assert num_cached + size <= max_positions, "the tail does not fit into the cache"
    assert layout.token_ids.min() >= 0
    assert layout.token_ids.max() < vocab_size
    visible = visibility_of(layout)
    assert visible.shape == (size, size)
    assert visible.diagonal().all(), "a token must see itself"
    assert not np.triu(visible, 1).any(), "a row sees a later row"
    rows = layout.logit_rows
    assert ((rows >= 0) & (rows < size)).all()
    assert (np.diff(rows) > 0).all(), "logit rows must ascend"
    assert layout.positions.max() < max_positions, "a position outside the model"
    for row in range(size):
        seen = layout.positions[visible[row]]
        expected = np.arange(num_cached, layout.positions[row] + 1)
        assert np.array_equal(np.sort(seen), expected), f"row {row} does not see one token per position before it"


class _CommittedTokens:
    """The bookkeeping that both fakes share: committed ids, the last tail, commit and truncate rules."""

    def __init__(self, vocab_size: int, max_positions: int, tail_sizes: Sequence[int] | None) -> None:
        self._cached: list[int] = []
        self._vocab_size = vocab_size
        self._max_positions = max_positions
        self._tail_sizes = tail_sizes
        self._tail: StepLayout | None = None
        self.layouts: list[StepLayout] = []

    @property
    def cached_ids(self) -> Sequence[int]:
        return self._cached

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def max_positions(self) -> int:
        return self._max_positions

    @property
    def tail_sizes(self) -> Sequence[int] | None:
        return self._tail_sizes

    def _begin(self, layout: StepLayout) -> None:
        check_layout(layout, len(self._cached), self._vocab_size, self._max_positions)
        self._tail = layout
        self.layouts.append(layout)

    def commit(self, rows: Sequence[int]) -> None:
        assert self._tail is not None, "commit without a forward, or a second one after it"
        tail, self._tail = self._tail, None
        visible = visibility_of(tail)
        for offset, row in enumerate(rows):
            assert offset == 0 or row > rows[offset - 1], "committed rows must ascend"
            assert tail.positions[row] == len(self._cached) + offset, "committed rows must be consecutive positions"
            assert visible[row, list(rows[: offset + 1])].all(), "a committed row must see those before it"
        self._cached.extend(int(tail.token_ids[row]) for row in rows)

    def truncate(self, length: int) -> None:
        assert 0 <= length <= len(self._cached)
        self._tail = None
        del self._cached[length:]


class ScriptedModel(_CommittedTokens):
    """Predicts what a function of the visible tokens says.

    Args:
        next_token: given all tokens a row sees, in order of position, the id its logits prefer.
        on_forward: called at each forward, before it answers; tests use it to cancel or to advance a clock.
    """

    def __init__(
        self,
        next_token: Callable[[tuple[int, ...]], int],
        *,
        vocab_size: int = 264,
        max_positions: int = 4096,
        tail_sizes: Sequence[int] | None = None,
        on_forward: Callable[[StepLayout], None] | None = None,
    ) -> None:
        super().__init__(vocab_size, max_positions, tail_sizes)
        self._next_token = next_token
        self._on_forward = on_forward

    @classmethod
    def saying(
        cls,
        num_prompt_tokens: int,
        output: Iterable[int],
        *,
        then: int,
        vocab_size: int = 264,
        max_positions: int = 4096,
        on_forward: Callable[[StepLayout], None] | None = None,
    ) -> ScriptedModel:
        """A model that continues a prompt of that many tokens with ``output``, and with ``then`` for ever after.

        A draft that leaves the script is answered with ``then`` as well.
        """
        script = tuple(output)

        def next_token(seen: tuple[int, ...]) -> int:
            produced = seen[num_prompt_tokens:]
            if produced == script[: len(produced)] and len(produced) < len(script):
                return script[len(produced)]
            return then

        return cls(next_token, vocab_size=vocab_size, max_positions=max_positions, on_forward=on_forward)

    def forward(self, layout: StepLayout) -> torch.Tensor:
        self._begin(layout)
        if self._on_forward is not None:
            self._on_forward(layout)
        visible = visibility_of(layout)
        logits = torch.zeros((len(layout.logit_rows), self._vocab_size), dtype=torch.float32)
        for index, row in enumerate(layout.logit_rows):
            seen = np.flatnonzero(visible[row])
            ordered = seen[np.argsort(layout.positions[seen], kind="stable")]
            path = (*self._cached, *(int(token) for token in layout.token_ids[ordered]))
            logits[index, self._next_token(path)] = 20.0
        return logits


class RandomTransformer(_CommittedTokens):
    """A tiny transformer with random weights, in numpy, with a real key-value cache and arbitrary visibility.

    Args:
        seed: of the weights.
        vocab_size, max_positions, tail_sizes: as in the protocol.
        dtype: float64 by default, where ties and rounding do not decide a greedy choice.
        sharpness: scale of the logits; small values give near-uniform distributions for sampling tests.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        vocab_size: int = 32,
        max_positions: int = 512,
        tail_sizes: Sequence[int] | None = None,
        dtype: type[np.floating] = np.float64,
        width: int = 16,
        num_layers: int = 2,
        sharpness: float = 4.0,
    ) -> None:
        super().__init__(vocab_size, max_positions, tail_sizes)
        random = np.random.default_rng(seed)

        def weight(*shape: int) -> np.ndarray:
            return (random.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype)

        self._embedding = random.standard_normal((vocab_size, width)).astype(dtype)
        # positions matter little, recent tokens much: outputs then repeat themselves now and then, as text does
        self._position = 0.3 * random.standard_normal((max_positions, width)).astype(dtype)
        self._layers = [
            (weight(width, 3 * width), weight(width, width), weight(width, 2 * width), weight(2 * width, width))
            for _ in range(num_layers)
        ]
        self._head = weight(width, vocab_size) * dtype(sharpness)
        self._width = width
        self._keys = [np.zeros((0, width), dtype) for _ in self._layers]
        self._values = [np.zeros((0, width), dtype) for _ in self._layers]
        self._tail_kv: list[tuple[np.ndarray, np.ndarray]] = []

    def forward(self, layout: StepLayout) -> torch.Tensor:
        self._begin(layout)
        num_cached = len(self._cached)
        visible = np.concatenate([np.ones((len(layout), num_cached), np.bool_), visibility_of(layout)], axis=1)
        hidden = self._embedding[layout.token_ids] + self._position[layout.positions]
        self._tail_kv = []
        for index, (qkv, out, up, down) in enumerate(self._layers):
            query, key, value = np.split(_normed(hidden) @ qkv, 3, axis=1)
            self._tail_kv.append((key, value))
            keys = np.concatenate([self._keys[index], key])
            values = np.concatenate([self._values[index], value])
            scores = query @ keys.T / np.sqrt(self._width)  # [T, S+T]
            scores[~visible] = -np.inf
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            hidden = hidden + (weights / weights.sum(axis=1, keepdims=True)) @ values @ out
            hidden = hidden + np.maximum(_normed(hidden) @ up, 0) @ down
        return torch.from_numpy(_normed(hidden[layout.logit_rows]) @ self._head)

    def commit(self, rows: Sequence[int]) -> None:
        super().commit(rows)
        picked = list(rows)
        for index, (key, value) in enumerate(self._tail_kv):
            self._keys[index] = np.concatenate([self._keys[index], key[picked]])
            self._values[index] = np.concatenate([self._values[index], value[picked]])

    def truncate(self, length: int) -> None:
        super().truncate(length)
        self._keys = [keys[:length] for keys in self._keys]
        self._values = [values[:length] for values in self._values]


def _normed(hidden: np.ndarray) -> np.ndarray:
    return hidden / np.sqrt((hidden**2).mean(axis=1, keepdims=True) + 1e-6)


class ByteTokenizer:
    """One token per UTF-8 byte; ids from 256 on are specials that text never becomes."""

    START, END, PREFIX, SUFFIX, MIDDLE, END_OF_INFILL, PAD, FILE = range(256, 264)

    @property
    def vocab_size(self) -> int:
        return 264

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(range(256, 264))

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def encode_prefix(self, text: str) -> list[int]:
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if token < 256).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""


def _by_regex(pattern: str) -> Encode:
    """A tokenizer whose tokens are the matches of a pattern, numbered by their text."""

    def encode(text: str) -> list[int]:
        return [hash(match) % (1 << 30) for match in re.findall(pattern, text)]

    return encode


# What a tokenizer may do with line breaks, and the finest border that leaves its tokens unchanged.
AWKWARD_TOKENIZERS: dict[str, tuple[Encode, Border]] = {
    "newline joins the indentation after it": (
        _by_regex(r"\n[ \t]*|[ \t]+(?=\n)| ?\w+| ?[^\s\w]+|[ \t]+|\s"),
        Border.BEFORE_NEWLINE,
    ),
    "newline joins what precedes it": (_by_regex(r"[^\n]*\n|[^\n]+"), Border.AFTER_NEWLINE),
    "newlines and blanks join": (_by_regex(r" ?\w+|[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s"), Border.BEFORE_TEXT_LINE),
    "blanks join over lines": (_by_regex(r"\w+|[^\s\w]+|\s+"), Border.AFTER_TEXT),
    "signs and blanks join over lines": (_by_regex(r"\w+|[^\s\w]+\s*|\s+"), Border.BEFORE_UNINDENTED_LINE),
    "the text is one token": (_by_regex(r"(?s).+"), Border.NOWHERE),
}
