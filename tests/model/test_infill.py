"""Infill prompts: exact ids per family, checked against the tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.errors import TokenizerError
from forelook.model.families import InfillOrder
from forelook.model.infill import infill_formats
from forelook.model.loading import LoadedModel
from forelook.model.tokenizer import CodeTokenizer

from tests.model.checkpoints import write_byte_tokenizer

CODELLAMA = {"vocab_size": 32016, "bos_token_id": 1, "eos_token_ids": (2,)}


def test_codellama_prompts_are_metas_ids_in_both_orders(codellama_tokenizer: CodeTokenizer) -> None:
    suffix_first, prefix_first = infill_formats(
        codellama_tokenizer, model_name="codellama/CodeLlama-7b-hf", **CODELLAMA
    )
    assert (suffix_first.order, prefix_first.order) == (InfillOrder.SUFFIX_FIRST, InfillOrder.PREFIX_FIRST)
    prefix, suffix = "def f(x):\n    ", "\n    return y\n"
    prefix_ids, suffix_ids = codellama_tokenizer.encode_prefix(prefix), codellama_tokenizer.encode(suffix)
    assert prefix_ids[0] == 822  # "▁def": the implicit space
    assert suffix_ids[0] == 13  # the newline itself, with no spurious 29871 before it
    assert prefix_first.build(prefix_ids, suffix_ids) == [1, 32007, *prefix_ids, 32008, *suffix_ids, 32009]
    assert suffix_first.build(prefix_ids, suffix_ids) == [1, 32007, 32008, *suffix_ids, 32009, *prefix_ids]
    assert prefix_first.build(prefix_ids, []) == [1, 32007, *prefix_ids, 32008, 32009]
    for infill in (suffix_first, prefix_first):
        assert infill.stop_token_ids == {2, 32010}
        assert infill.num_sentinels == 4


def test_starter_prompt_is_suffix_first_and_stops_at_eot_and_eos(starter: LoadedModel) -> None:
    assert starter.infill.order is InfillOrder.SUFFIX_FIRST
    assert starter.infill.build([20, 21], [30], [40]) == [0, 2, 3, 30, 4, 40, 20, 21]
    assert starter.stop_token_ids == {1, 5}
    assert [infill.name for infill in starter.infill_formats] == ["starter"]


def test_checkpoint_without_sentinels_falls_back_to_plain(codellama_tokenizer: CodeTokenizer) -> None:
    """CodeLlama 34B has the tokenizer but no embedding rows for the sentinels."""
    for name in ("codellama/CodeLlama-34b-hf", "codellama/CodeLlama-7b-Python-hf", "my-model"):
        (plain,) = infill_formats(
            codellama_tokenizer, model_name=name, vocab_size=32000, bos_token_id=1, eos_token_ids=(2,)
        )
        assert plain.order is InfillOrder.PLAIN
        assert plain.build([5, 6], [7], [8]) == [1, 8, 5, 6]
        assert plain.stop_token_ids == {2}


@pytest.mark.parametrize("name", ["codellama/CodeLlama-7b-hf", "CodeLlama-13b-Instruct-hf", "deepseek-coder-1.3b-base"])
def test_family_that_promises_sentinels_must_have_them(codellama_tokenizer: CodeTokenizer, name: str) -> None:
    with pytest.raises(TokenizerError, match="lacks the infill sentinels"):
        infill_formats(codellama_tokenizer, model_name=name, vocab_size=32000, bos_token_id=1, eos_token_ids=(2,))


# Name, control tokens of its tokenizer, and the prompt of prefix "P", suffix "S", context "C" written out.
PROMPTS = [
    (
        "Qwen/Qwen2.5-Coder-1.5B",
        (
            "<|endoftext|>",
            "<|fim_prefix|>",
            "<|fim_suffix|>",
            "<|fim_middle|>",
            "<|fim_pad|>",
            "<|file_sep|>",
            "<|repo_name|>",
        ),
        "C<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        {"<|endoftext|>", "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>"},
    ),
    (
        "bigcode/starcoder2-3b",
        ("<|endoftext|>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>"),
        "C<fim_prefix>P<fim_suffix>S<fim_middle>",
        {"<|endoftext|>", "<file_sep>"},
    ),
    (
        "ibm-granite/granite-3b-code-base-2k",
        ("<|endoftext|>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
        "C<fim_prefix>P<fim_suffix>S<fim_middle>",
        {"<|endoftext|>"},
    ),
    (
        "deepseek-ai/deepseek-coder-1.3b-base",
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
        "<｜begin▁of▁sentence｜><｜fim▁begin｜>CP<｜fim▁hole｜>S<｜fim▁end｜>",
        {"<｜end▁of▁sentence｜>"},
    ),
    (
        "mistralai/Codestral-22B-v0.1",
        ("<s>", "</s>", "[SUFFIX]", "[PREFIX]", "[MIDDLE]"),
        "<s>[SUFFIX]S[PREFIX]CP",
        {"</s>"},
    ),
]


@pytest.mark.parametrize(("name", "control", "prompt", "stops"), PROMPTS, ids=[row[0] for row in PROMPTS])
@pytest.mark.parametrize("named", [True, False])
def test_each_familys_prompt_has_its_sentinels_in_order(
    tmp_path: Path, name: str, control: tuple[str, ...], prompt: str, stops: set[str], named: bool
) -> None:
    write_byte_tokenizer(tmp_path, 320, control)
    tokenizer = CodeTokenizer.from_file(tmp_path / "tokenizer.json")
    bos = 0 if control[0] in ("<s>", "<｜begin▁of▁sentence｜>") else None
    infill = infill_formats(
        tokenizer, model_name=name if named else "a-folder", vocab_size=320, bos_token_id=bos, eos_token_ids=()
    )[0]
    names = dict(enumerate(control))
    ids = infill.build(tokenizer.encode("P"), tokenizer.encode("S"), tokenizer.encode("C"))
    assert "".join(names.get(token_id) or tokenizer.decode([token_id]) for token_id in ids) == prompt
    assert {names[token_id] for token_id in infill.stop_token_ids} == stops


def test_sentinels_typed_by_a_user_stay_text_in_the_prompt(starter: LoadedModel) -> None:
    text = "<PRE> <SUF> <MID> <EOT>"
    ids = starter.infill.build(starter.tokenizer.encode_prefix(text), starter.tokenizer.encode(text))
    assert sum(token_id in starter.tokenizer.special_ids for token_id in ids) == starter.infill.num_sentinels
