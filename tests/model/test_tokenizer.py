"""Tokenizers: exact ids, exact bytes, and text that never becomes a control token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forelook.errors import TokenizerError
from forelook.model.loading import STARTER_MODEL_PATH
from forelook.model.tokenizer import Border, CodeTokenizer, TextSplitter
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.fakes import AWKWARD_TOKENIZERS

TEXTS = st.text(
    st.one_of(
        st.sampled_from(" \t\n\r\f\0▁<>|sPREMIDSUFEOT/{}()é🦙½\u200f\u0301Ġ"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)


@pytest.fixture(params=["starter", "codellama"])
def tokenizer(request: pytest.FixtureRequest) -> CodeTokenizer:
    return request.getfixturevalue(f"{request.param}_tokenizer")


def test_all_llama_cpp_vectors_give_their_ids(codellama_tokenizer: CodeTokenizer, shared_dir: Path) -> None:
    vectors = shared_dir / "data" / "llama-spm" / "ggml-vocab-llama-spm.gguf"
    texts = vectors.with_suffix(".gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    ids = vectors.with_suffix(".gguf.out").read_text().split("\n")
    assert len(texts) == len(ids) == 47  # 46 vectors and the empty end of both files
    for text, line in zip(texts, ids, strict=True):
        assert codellama_tokenizer.encode_prefix(text) == [int(token_id) for token_id in line.split()], repr(text)


def test_text_survives_encode_and_decode_with_leading_spaces(tokenizer: CodeTokenizer) -> None:
    # SentencePiece writes a space as "▁", so that character itself decodes to a space: the two are indistinguishable.
    exact = str if tokenizer.encode(" x") == tokenizer.encode_prefix(" x") else lambda text: text.replace("▁", " ")

    @settings(max_examples=300, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text)) == exact(text)
        assert not tokenizer.special_ids.intersection(tokenizer.encode(text))

    check()


@pytest.mark.parametrize("text", ["<s>", "</s>", "<PRE>", "▁<PRE>", " <PRE>", "x<EOT>y", "<unk>", "<file><pad>"])
def test_typed_sentinel_stays_text(tokenizer: CodeTokenizer, text: str) -> None:
    for ids in (tokenizer.encode(text), tokenizer.encode_prefix(text)):
        assert not tokenizer.special_ids.intersection(ids)
        assert tokenizer.decode(ids).strip(" ▁") == text.strip(" ▁")


def test_only_encode_prefix_adds_the_implicit_space(codellama_tokenizer: CodeTokenizer) -> None:
    assert codellama_tokenizer.encode("foo") == [5431]
    assert codellama_tokenizer.encode(" foo") == codellama_tokenizer.encode_prefix("foo") == [7953]
    assert codellama_tokenizer.decode([7953]) == " foo"
    assert codellama_tokenizer.encode("") == codellama_tokenizer.encode_prefix("") == []


def test_byte_level_prefix_gets_no_space(starter_tokenizer: CodeTokenizer) -> None:
    for text in ("foo", " foo", ""):
        assert starter_tokenizer.encode_prefix(text) == starter_tokenizer.encode(text)


def test_starter_ids_equal_the_plain_library(starter_tokenizer: CodeTokenizer) -> None:
    plain = Tokenizer.from_file(str(STARTER_MODEL_PATH / "tokenizer.json"))
    for text in ("def f(x):\n    return x\n", "\t\tα = 'é'  \n\n", "   "):
        assert starter_tokenizer.encode(text) == plain.encode(text, add_special_tokens=False).ids


def test_split_character_is_made_of_its_bytes(tokenizer: CodeTokenizer) -> None:
    ids = tokenizer.encode("🦙")
    assert b"".join(map(tokenizer.token_bytes, ids)) == "🦙".encode()
    assert len(ids) > 1
    assert tokenizer.decode(ids[:1]) == "\ufffd"


def test_control_and_unknown_ids_have_no_bytes(tokenizer: CodeTokenizer) -> None:
    for token_id in (*tokenizer.special_ids, tokenizer.vocab_size, -1):
        assert tokenizer.token_bytes(token_id) == b""
    assert tokenizer.decode([*tokenizer.special_ids, *tokenizer.encode("x")]) == "x"


def test_lone_surrogate_becomes_a_replacement_character(tokenizer: CodeTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_added_tokens_that_steer_are_control_even_when_not_flagged(tmp_path: Path) -> None:
    """Qwen's fill-in-the-middle tokens are added tokens with special = false; Gemma's HTML tags are ordinary text."""
    raw = json.loads((STARTER_MODEL_PATH / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    raw["added_tokens"] += [
        {"id": 8192, "content": "<|fim_prefix|>", **flags},
        {"id": 8193, "content": "<table>", **flags},
    ]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(raw))
    tokenizer = CodeTokenizer.from_file(path)
    assert 8192 in tokenizer.special_ids
    assert tokenizer.token_id("<|fim_prefix|>") == 8192
    assert 8192 not in tokenizer.encode("x<|fim_prefix|>")
    assert 8193 in tokenizer.encode("x<table>")
    assert tokenizer.token_bytes(8193) == b"<table>"
    assert tokenizer.vocab_size == 8194


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": {"type": "BPE"}}', "not json", "\ufeff{"])
def test_damaged_tokenizer_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        CodeTokenizer.from_file(path)


def test_missing_tokenizer_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"needs a tokenizer\.json"):
        CodeTokenizer.from_file(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", AWKWARD_TOKENIZERS)
def test_splitting_uses_the_finest_border_that_keeps_the_tokens(name: str) -> None:
    encode, border = AWKWARD_TOKENIZERS[name]
    assert TextSplitter(encode).border is border


def test_text_is_never_split_if_no_border_keeps_the_tokens() -> None:
    """Prompts once used the last border they tried, although it had failed."""
    encode, _ = AWKWARD_TOKENIZERS["the text is one token"]
    text = "def f():\n    return 1\n\nx = 2\n"
    assert TextSplitter(encode).split(text) == [text]


CODE_LINES = st.lists(
    st.sampled_from(
        [
            *(
                "",
                "x",
                "  x",
                "\ty = 1  ",
                "    ",
                "}",
                ");",
                "  );",
                "def f(a):",
                "# é 漢 🙂",
                "\r",
                "a\r",
                " ",
                "\t\t",
            ),
            *("12 345", "\f", "a\u2028b", "' '", '"""', "\\", "<PRE>", "▁▁"),
        ]
    ),
    max_size=12,
).map("\n".join)


@pytest.fixture(params=["starter", "codellama"])
def real_tokenizer(request: pytest.FixtureRequest) -> CodeTokenizer:
    tokenizer: CodeTokenizer = request.getfixturevalue(f"{request.param}_tokenizer")
    return tokenizer


def test_real_tokenizers_are_split_before_each_line_break(real_tokenizer: CodeTokenizer) -> None:
    assert TextSplitter(real_tokenizer.encode).border is Border.BEFORE_NEWLINE


def test_the_tokens_of_the_parts_are_the_tokens_of_the_text(real_tokenizer: CodeTokenizer) -> None:
    splitter = TextSplitter(real_tokenizer.encode)

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(TEXTS, CODE_LINES))
    def check(text: str) -> None:
        parts = splitter.split(text)
        assert "".join(parts) == text
        assert [token for part in parts for token in real_tokenizer.encode(part)] == real_tokenizer.encode(text)
        start = [*map(real_tokenizer.encode_prefix, parts[:1]), *map(real_tokenizer.encode, parts[1:])]
        assert [token for ids in start for token in ids] == real_tokenizer.encode_prefix(text)

    check()
