"""Where text is split: tokenizers of all kinds give the tokens that they would give for the whole text.

No vocabulary of SmolLM2, StarCoder2, Llama 3 or DeepSeek-Coder is part of this checkout. What decides about borders is
their pre-tokenization, so small vocabularies are trained on this repository behind the same pre-tokenizers.
"""

from __future__ import annotations

import functools
import os
import random
from pathlib import Path

import pytest
from forelook.completion.prompt.prompt import LineEncoder
from forelook.model.tokenizer import Border, CodeTokenizer
from forelook.workspace.line_tokens import LineTokens
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_CHARS = 1_000_000 if os.environ.get("FORELOOK_LONG_TESTS") else 150_000

_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN = _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)

KINDS: dict[str, tuple[pre_tokenizers.PreTokenizer, Border]] = {
    "smollm2": (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT_2]),
        Border.AFTER_TEXT,
    ),
    "gpt2": (_GPT_2, Border.AFTER_TEXT),
    "llama3": (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_LLAMA_3), "isolated"), _BYTES]),
        Border.BEFORE_TEXT_LINE,
    ),
    "qwen": (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_QWEN), "isolated"), _BYTES]),
        Border.BEFORE_TEXT_LINE,
    ),
    "deepseek": (
        pre_tokenizers.Sequence(
            [
                *(pre_tokenizers.Split(Regex(rule), "isolated") for rule in (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+")),
                pre_tokenizers.Digits(individual_digits=True),
                _BYTES,
            ]
        ),
        Border.BEFORE_NEWLINE,
    ),
    "no pattern": (_BYTES, Border.NOWHERE),
}
ALL = [*KINDS, "starter", "codellama"]


@functools.cache
def source() -> str:
    """Python, TypeScript, Lua and Lisp of this repository."""
    folders = ("backend", "lsp", "tests", "extension/src")
    paths = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*"))]
    texts = [path.read_text("utf-8") for path in paths if path.suffix in (".py", ".ts", ".lua", ".el")]
    random.Random(1).shuffle(texts)
    return "".join(texts)[:NUM_CHARS]


@functools.cache
def tokenizer_of(kind: str) -> CodeTokenizer:
    pre_tokenizer = KINDS[kind][0]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1_500, initial_alphabet=alphabet, show_progress=False)
    # Without a pattern tokens span line breaks where words often begin lines.
    text = source()[:60_000] if kind != "no pattern" else "\nimport a\nfrom b" * 100 + source()[:6_000]
    tokenizer.train_from_iterator([text[at : at + 3_000] for at in range(0, len(text), 3_000)], trainer)
    return CodeTokenizer(tokenizer.to_str(), kind)


@pytest.fixture(params=ALL)
def tokenizer(request: pytest.FixtureRequest) -> CodeTokenizer:
    if request.param in KINDS:
        return tokenizer_of(request.param)
    found: CodeTokenizer = request.getfixturevalue(f"{request.param}_tokenizer")
    return found


PIECES = [
    *("\n", "\n", "\n\n", "\r\n", "\r", " ", "  ", "    ", "\t", "\f", "\u00a0", "\u2028", "\u0085", "\x1c"),
    *("a", "foo", "1", "23", "_", "é", "漢", "🙂", "'s", "'", '"', "(", ")", "):", "};", "#", "//", "\\", "<s>", "\0"),
]


def random_texts(count: int, seed: int) -> list[str]:
    chosen = random.Random(seed)
    return ["".join(chosen.choices(PIECES, k=chosen.randrange(1, 14))) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_finest_border_that_is_exact_is_used(kind: str) -> None:
    assert tokenizer_of(kind).splitter.border is KINDS[kind][1]


def test_source_gets_the_tokenizers_own_tokens(tokenizer: CodeTokenizer) -> None:
    text = source() if tokenizer.splitter.border is not Border.NOWHERE else source()[:20_000]
    encoder = LineEncoder(tokenizer)
    assert encoder.encode(text) == tokenizer.encode(text)
    assert encoder.encode(text, starts_document=True) == tokenizer.encode_prefix(text)


def test_random_strings_get_the_tokenizers_own_tokens(tokenizer: CodeTokenizer) -> None:
    encoder = LineEncoder(tokenizer)
    different = [text for text in random_texts(1_500, seed=2) if encoder.encode(text) != tokenizer.encode(text)]
    assert different == []


def test_edited_documents_get_the_tokenizers_own_tokens(tokenizer: CodeTokenizer) -> None:
    chosen = random.Random(3)
    splitter = tokenizer.splitter
    for start in random_texts(40, seed=4):
        text, lines, tokens = start * 3, LineTokens(splitter), list[int]()
        for piece in random_texts(5, seed=chosen.randrange(1_000_000)):
            if (edit := lines.update(text)) is not None:
                tokens[edit.start : edit.end] = edit.ids
            assert tokens == tokenizer.encode(text)
            first = chosen.randrange(len(text) + 1)
            text = text[:first] + piece[: chosen.randrange(6)] + text[first + chosen.randrange(4) :]
