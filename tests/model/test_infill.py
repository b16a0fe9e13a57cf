"""Infill prompts: exact ids per family, checked against the tokenizer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from forelook.errors import TokenizerError
from forelook.model.families import CATALOGUE, CONTROL_TOKENS, FAMILIES, INFILL_TEMPLATES, InfillOrder, InfillTemplate
from forelook.model.infill import infill_formats
from forelook.model.loading import LoadedModel, load_model
from forelook.model.tokenizer import CodeTokenizer

from tests.model.checkpoints import build_reference, save, write_byte_tokenizer

# A tiny checkpoint of each family
VARIANT_OF = {"llama": "llama", "mistral": "mistral", "qwen2": "qwen2_bias", "granite": "granite"}
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


def test_every_template_has_prefix_suffix_and_context_once() -> None:
    for template in INFILL_TEMPLATES:
        for part in ("{prefix}", "{suffix}", "{context}"):
            assert template.parts.count(part) == 1, template.name
        suffix_first = template.parts.index("{suffix}") < template.parts.index("{prefix}")
        assert suffix_first == (template.order is InfillOrder.SUFFIX_FIRST), template.name
        assert template.parts.index("{context}") < template.parts.index("{prefix}")


# A name that each template's pattern matches.
NAMES = {
    "starter": "starter-model",
    "codellama": "CodeLlama-7b-hf",
    "qwen2.5-coder": "Qwen2.5-Coder-0.5B",
    "starcoder": "granite-3b-code-base-2k",
    "deepseek-coder": "deepseek-coder-1.3b-base",
    "codestral": "Codestral-22B-v0.1",
}


@pytest.mark.parametrize(
    ("template", "model_type"),
    [(template, model_type) for template in INFILL_TEMPLATES for model_type in template.model_types],
    ids=lambda value: value if isinstance(value, str) else f"{value.name}-{value.order.value}",
)
def test_every_template_is_reached_by_a_checkpoint_that_loads(
    tmp_path: Path, template: InfillTemplate, model_type: str
) -> None:
    """There was once a template of a family that no checkpoint could be loaded of."""
    assert model_type in FAMILIES
    folder = save(build_reference(VARIANT_OF[model_type]), tmp_path / NAMES[template.name])
    write_byte_tokenizer(folder, 320, tuple(dict.fromkeys(("<s>", *template.sentinels, *template.stops))))
    loaded = load_model(str(folder), device="cpu", dtype="float32", allow_left_to_right=False)
    assert (template.name, template.order) in [(infill.name, infill.order) for infill in loaded.infill_formats]


def test_every_model_of_the_catalogue_has_a_format_by_its_name() -> None:
    for model in CATALOGUE:
        names = {each.name for each in INFILL_TEMPLATES if re.search(each.name_pattern or "$^", model.model.lower())}
        assert len(names) == 1, model.model


def test_text_never_encodes_to_a_token_of_a_template(tmp_path: Path) -> None:
    """Even if the tokenizer does not flag it as special."""
    tokens = sorted(CONTROL_TOKENS)
    write_byte_tokenizer(tmp_path, 400, ("<s>", *(token for token in tokens if token != "<s>")))
    path = tmp_path / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    for token in raw["added_tokens"]:
        token["special"] = False
    path.write_text(json.dumps(raw), encoding="utf-8")
    tokenizer = CodeTokenizer.from_file(path)
    for token in tokens:
        assert tokenizer.token_id(token) in tokenizer.special_ids, token
        assert tokenizer.decode(tokenizer.encode(f"a{token}b")) == f"a{token}b"


def test_sentinels_typed_by_a_user_stay_text_in_the_prompt(starter: LoadedModel) -> None:
    text = "<PRE> <SUF> <MID> <EOT>"
    ids = starter.infill.build(starter.tokenizer.encode_prefix(text), starter.tokenizer.encode(text))
    assert sum(token_id in starter.tokenizer.special_ids for token_id in ids) == starter.infill.num_sentinels
