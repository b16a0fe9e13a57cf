"""The vocabulary of a GGUF file encodes as the tokenizer it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from forelook.errors import TokenizerError
from forelook.model.gguf.checkpoint import own_format
from forelook.model.gguf.header import read_gguf
from forelook.model.gguf.pre_tokenizers import PRE_TOKENIZERS
from forelook.model.gguf.vocabulary import Sentinels, read_sentinels, tokenizer_pipeline
from forelook.model.identity import ModelIdentity
from forelook.model.infill import InfillFormat, infill_formats
from forelook.model.infill_templates import InfillOrder
from forelook.model.loading import STARTER_MODEL_PATH
from forelook.model.tokenizer import CodeTokenizer
from tokenizers import Tokenizer

from tests.model.gguf_files import add_value, add_vocabulary
from tests.model.texts import TRICKY

STARTER = STARTER_MODEL_PATH / "tokenizer.json"


def write_vocabulary(path: Path, metadata: dict[str, Any]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        add_value(writer, key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def byte_level(path: Path, pre: str = "gpt-2", **changes: Any) -> Path:
    metadata: dict[str, Any] = {}
    add_vocabulary(metadata, STARTER, 0, pre, set())
    return write_vocabulary(path, {**metadata, **{f"tokenizer.ggml.{name}": value for name, value in changes.items()}})


def read(path: Path) -> CodeTokenizer:
    return CodeTokenizer(tokenizer_pipeline(read_gguf(path)), str(path))


def starter_cut_by(stages: dict[str, Any], **others: Any) -> Tokenizer:
    """The starter model's merges behind another pre-tokenizer, as a family's own tokenizer.json would have it."""
    raw = json.loads(STARTER.read_text(encoding="utf-8"))
    raw["model"] |= others.pop("model", {})
    tokenizer = Tokenizer.from_str(json.dumps(raw | {"pre_tokenizer": stages, "post_processor": None} | others))
    tokenizer.encode_special_tokens = True
    return tokenizer


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {**BYTES, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
CASED = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# The pre-tokenizers of published tokenizer.json files: SmolLM2 and StarCoder2, GPT-2, Qwen2.5, Llama 3, DeepSeek-Coder.
PUBLISHED: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "smollm": ([DIGITS, GPT2], {}),
    "starcoder": ([DIGITS, GPT2], {}),
    "refact": ([DIGITS, GPT2], {}),
    "command-r": ([DIGITS, GPT2], {}),
    "gpt-2": ([GPT2], {}),
    "qwen2": (
        [
            split(CASED + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
            BYTES,
        ],
        {"normalizer": {"type": "NFC"}},
    ),
    "llama-bpe": (
        [
            split(CASED + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
            BYTES,
        ],
        {"model": {"ignore_merges": True}},
    ),
    "deepseek-coder": (
        [
            split("[\r\n]"),
            split(r"\s?\p{L}+"),
            split(r"\s?\p{P}+"),
            split("[一-龥ࠀ-一가-퟿]+"),
            DIGITS,
            BYTES,
        ],
        {},
    ),
}


@pytest.mark.parametrize("pre", PUBLISHED)
def test_byte_level_ids_are_those_of_the_familys_own_tokenizer(pre: str, tmp_path: Path, source_megabyte: str) -> None:
    stages, others = PUBLISHED[pre]
    expected = starter_cut_by({"type": "Sequence", "pretokenizers": stages}, **others)
    tokenizer = read(byte_level(tmp_path / "v.gguf", pre))
    text = source_megabyte if pre == "smollm" else source_megabyte[:50_000]
    assert tokenizer.encode(text) == expected.encode(text, add_special_tokens=False).ids


def test_pre_tokenizers_cut_differently(tmp_path: Path) -> None:
    """If one of them were ignored, nothing else here would notice."""
    text = "x1234567 += 'don't'   \n\n\t\tyes();\r\n" + TRICKY
    cuts = {
        pre: tuple(read(byte_level(tmp_path / f"{pre}.gguf", pre)).encode(text))
        for pre in ("smollm", "gpt-2", "qwen2", "deepseek-coder", "default")
    }
    assert len(set(cuts.values())) == len(cuts)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_pre_tokenizer_keeps_all_text(pre: str, tmp_path: Path) -> None:
    tokenizer = read(byte_level(tmp_path / "v.gguf", pre))
    assert tokenizer.decode(tokenizer.encode(TRICKY)) == TRICKY


def test_control_tokens_and_named_sentinels_are_never_typed(tmp_path: Path) -> None:
    tokens = [f"<{name}>" for name in ("a", "b", "c")]
    raw = json.loads(STARTER.read_text(encoding="utf-8"))
    size = len(raw["model"]["vocab"])
    metadata: dict[str, Any] = {}
    add_vocabulary(metadata, STARTER, 0, "gpt-2", set())
    metadata["tokenizer.ggml.tokens"] += tokens
    metadata["tokenizer.ggml.token_type"] += [3, 4, 4]
    metadata["tokenizer.ggml.fim_pre_token_id"] = len(metadata["tokenizer.ggml.tokens"]) - 2
    metadata["tokenizer.ggml.fim_suf_token_id"] = 2
    metadata["tokenizer.ggml.fim_mid_token_id"] = 3
    tokenizer = read(write_vocabulary(tmp_path / "v.gguf", metadata))
    for name in tokens[:2]:  # a control token, and a user-defined one that the file names as a sentinel
        assert tokenizer.token_id(name) in tokenizer.special_ids
        assert not tokenizer.special_ids & set(tokenizer.encode(f"x{name}y"))
        assert tokenizer.decode(tokenizer.encode(f"x{name}y")) == f"x{name}y"
    other = tokenizer.token_id(tokens[2])
    assert other is not None
    assert other >= size
    assert tokenizer.encode(f"x{tokens[2]}y").count(other) == 1
    assert tokenizer.token_bytes(other) == b"<c>"


@pytest.fixture(scope="module")
def llama_spm(shared_dir: Path) -> CodeTokenizer:
    """A file with a SentencePiece vocabulary, its scores and no weights."""
    return read(shared_dir / "data" / "llama-spm" / "ggml-vocab-llama-spm.gguf")


def test_sentence_piece_ids_are_those_of_the_familys_own_tokenizer(
    llama_spm: CodeTokenizer, codellama_tokenizer: CodeTokenizer, source_megabyte: str
) -> None:
    """CodeLlama's vocabulary is Llama's, with further tokens behind it."""
    for start in range(0, len(source_megabyte), 20_000):
        part = source_megabyte[start : start + 20_000]
        assert llama_spm.encode(part) == codellama_tokenizer.encode(part)
    assert llama_spm.encode_prefix(TRICKY) == codellama_tokenizer.encode_prefix(TRICKY) != llama_spm.encode(TRICKY)
    assert llama_spm.special_ids == {0, 1, 2}
    assert all(llama_spm.token_bytes(i) == codellama_tokenizer.token_bytes(i) for i in range(32000))


def test_all_llama_cpp_vectors_give_their_ids(llama_spm: CodeTokenizer, shared_dir: Path) -> None:
    path = shared_dir / "data" / "llama-spm" / "ggml-vocab-llama-spm.gguf"
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    ids = path.with_suffix(".gguf.out").read_text().split("\n")
    assert len(texts) == len(ids) == 47  # 46 vectors and the empty end of both files
    for text, line in zip(texts, ids, strict=True):
        assert llama_spm.encode_prefix(text) == [int(token_id) for token_id in line.split()], repr(text)


SMALL_PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "ab", "▁", "a", "b", "▁▁x"]


def small_sentence_piece(path: Path, **changes: Any) -> Path:
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(SMALL_PIECES) - 260), 4]
    values = {"model": "llama", "tokens": SMALL_PIECES, "token_type": kinds}
    values |= {"scores": [float(-index) for index in range(len(SMALL_PIECES))]} | changes
    return write_vocabulary(path, {f"tokenizer.ggml.{name}": value for name, value in values.items()})


def test_sentence_piece_merges_by_score_falls_back_to_bytes_and_finds_user_tokens(tmp_path: Path) -> None:
    tokenizer = read(small_sentence_piece(tmp_path / "v.gguf"))
    assert tokenizer.encode_prefix("ab") == [259, 263]  # ▁a scores higher than ab
    assert tokenizer.encode("ab") == [260]
    assert tokenizer.encode("é") == [3 + 0xC3, 3 + 0xA9]
    assert tokenizer.encode("a  xb") == [262, 264, 263]
    assert tokenizer.decode([262, 264, 263]) == "a  xb"
    scores = [float(index) for index in range(len(SMALL_PIECES))]
    assert read(small_sentence_piece(tmp_path / "v.gguf", scores=scores)).encode_prefix("ab") == [261, 260]


def test_space_prefix_is_left_out_where_the_file_says_so(tmp_path: Path) -> None:
    tokenizer = read(small_sentence_piece(tmp_path / "v.gguf", add_space_prefix=False))
    assert tokenizer.encode_prefix("ab") == tokenizer.encode("ab") == [260]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, r"model is 'bert'; supported are 'gpt2'.*'llama'"),
        ({"model": None}, r"model is None"),
        ({"pre": "no-such"}, r"pre is 'no-such'.*smollm"),
        ({"tokens": None}, r"tokens is missing"),
        ({"tokens": ["a", "b", "a"], "token_type": [1, 1, 1]}, r"tokens 0 and 2 are the same"),
        ({"token_type": [1, 1]}, r"token_type is not one number for each"),
        ({"merges": None}, r"merges is missing"),
        ({"merges": ["a b", "zzz yyy"]}, r"not a readable tokenizer"),
        ({"merges": ["nothing"]}, r"not a readable tokenizer"),
        ({"model": "llama", "scores": None}, r"scores is missing"),
        ({"model": "llama", "scores": [1.0]}, r"scores is not one number for each"),
    ],
)
def test_damaged_vocabulary_is_one_clear_error(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = byte_level(tmp_path / "v.gguf", **changes)
    with pytest.raises(TokenizerError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [({"fim_pre": 10**6}, "the vocabulary has"), ({"fim_pre": 3, "fim_mid": 3}, "not three different tokens")],
)
def test_impossible_sentinels_are_refused(ids: dict[str, int], message: str, tmp_path: Path) -> None:
    named = {"fim_pre": 2, "fim_suf": 3, "fim_mid": 4} | ids
    path = byte_level(tmp_path / "v.gguf", **{f"{name}_token_id": value for name, value in named.items()})
    with pytest.raises(TokenizerError, match=message):
        read_sentinels(read_gguf(path))


@pytest.mark.parametrize("names", [("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle")])
def test_files_own_sentinels_make_the_format(names: tuple[str, str, str], tmp_path: Path) -> None:
    keys = {f"{name}_token_id": 20 + index for index, name in enumerate(names)}
    path = byte_level(tmp_path / "v.gguf", **keys, fim_pad_token_id=30, fim_sep_token_id=31)
    sentinels = read_sentinels(read_gguf(path))
    assert sentinels == Sentinels(20, 21, 22, frozenset({30, 31}), 31)
    formats = own_format(formats_of(path, None), sentinels, None, [1])
    assert [each.name for each in formats] == ["file"]
    assert formats[0].build([100], [101], [102]) == [102, 20, 100, 21, 101, 22]
    assert formats[0].stop_token_ids >= {1, 30, 31, 22}


def test_table_keeps_the_order_of_sentinels_it_knows(tmp_path: Path) -> None:
    """The starter model reads the suffix first, which its sentinels' ids do not say."""
    path = byte_level(tmp_path / "v.gguf", fim_pre_token_id=2, fim_suf_token_id=3, fim_mid_token_id=4)
    sentinels = read_sentinels(read_gguf(path))
    assert sentinels is not None
    formats = own_format(formats_of(path, 0), sentinels, 0, [1])
    assert [(each.name, each.order) for each in formats] == [("starter", InfillOrder.SUFFIX_FIRST)]


def formats_of(path: Path, bos_token_id: int | None) -> tuple[InfillFormat, ...]:
    return infill_formats(
        read(path),
        identity=ModelIdentity("llama", ("x",)),
        vocab_size=10**6,
        bos_token_id=bos_token_id,
        eos_token_ids=[1],
    )
