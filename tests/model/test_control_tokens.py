"""An adapter renames control tokens of its base, which then are sentinels that no text encodes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forelook.errors import TokenizerError
from forelook.model.control_tokens import rename_control_tokens
from forelook.model.infill_templates import InfillOrder
from forelook.model.loading import load_model
from forelook.model.tokenizer import CodeTokenizer

from tests.model.adapters import make_adapter
from tests.model.checkpoints import build_reference, save, write_byte_tokenizer
from tests.model.gguf_files import write_model

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>", "<filename>")
# Two exchange their names with others: 0 was the end, and <file_sep> moves.
NAMES = {"<s>": 0, "<|endoftext|>": 1, "<fim_prefix>": 2, "<fim_suffix>": 3, "<fim_middle>": 4, "<EOT>": 5}
OWN = {"infill": "forelook", "tokens": NAMES, "bos_token_id": 0, "eos_token_ids": [1]}


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Any]:
    write_byte_tokenizer(tmp_path, 320, CONTROL)
    content: dict[str, Any] = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["ab"] = len(content["model"]["vocab"])
    content["model"]["merges"] = ["a b"]  # the gguf package does not write an empty array
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return content


def test_renamed_tokens_are_special_and_all_others_stay(raw: dict[str, Any]) -> None:
    before = CodeTokenizer(json.dumps(raw), "test")
    rename_control_tokens(raw, NAMES, "test")
    after = CodeTokenizer(raw, "test")
    assert {name: after.token_id(name) for name in NAMES} == NAMES
    assert after.token_id("<im_start>") is None
    assert after.special_ids == before.special_ids
    text = "def f(x):\n    return <fim_prefix> + '<EOT>' + <|im_start|>\n"
    assert after.encode(text) == before.encode(text)
    assert not after.special_ids & set(after.encode(text))
    assert after.vocab_size == before.vocab_size


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"<new>": 7}, "token 7 <new>, but that is no control token"),
        ({"<new>": 7_000}, "token 7000"),
        ({"a": 0}, "gives the name a to token 0, but another token has it"),
        ({"<|im_end|>": 0}, "but another token has it"),
    ],
)
def test_names_that_cannot_be_given_are_refused(raw: dict[str, Any], names: dict[str, int], said: str) -> None:
    with pytest.raises(TokenizerError, match=said.replace("|", r"\|")):
        rename_control_tokens(raw, names, "test")


@pytest.mark.parametrize("form", ["folder", "gguf"])
@pytest.mark.usefixtures("raw")
def test_an_adapted_model_infills_with_its_adapters_sentinels(form: str, tmp_path: Path) -> None:
    model = build_reference("tied_head")
    path = tmp_path / "smollm-instruct"
    if form == "folder":
        save(model, path, tokenizer=tmp_path / "tokenizer.json")
    else:
        path = tmp_path / "smollm-instruct.gguf"
        model = write_model(model, path, tokenizer=tmp_path / "tokenizer.json", pre="smollm")
    make_adapter(model, tmp_path / "adapter", rows=range(6), config={"forelook": OWN})
    plain = load_model(str(path), device="cpu", dtype="float32")
    adapted = load_model(
        str(path), adapter=tmp_path / "adapter", device="cpu", dtype="float32", allow_left_to_right=False
    )
    assert not plain.infill.sees_suffix
    assert adapted.infill.order is InfillOrder.SUFFIX_FIRST
    assert adapted.infill.template == (0, 2, 3, "{suffix}", 4, "{context}", "{prefix}")
    assert adapted.infill.stop_token_ids == {1, 5}
    assert adapted.config.bos_token_id == 0
    assert adapted.status_line == "", "nothing to doubt: the adapter says what it was trained for"
    assert "chat" in plain.status_line


def test_a_format_whose_sentinels_are_not_named_is_refused(tmp_path: Path) -> None:
    model = build_reference("tied_head")
    save(model, tmp_path / "base")
    make_adapter(model, tmp_path / "adapter", config={"forelook": {"infill": "forelook"}})
    with pytest.raises(TokenizerError, match="lacks the infill sentinels <fim_prefix>"):
        load_model(str(tmp_path / "base"), adapter=tmp_path / "adapter", device="cpu", dtype="float32")
