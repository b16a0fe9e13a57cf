"""The families' tables: every infill template is well formed, and a checkpoint that loads reaches it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from forelook.model.catalogue import CATALOGUE, DEFAULT_MODEL
from forelook.model.default_model import DEFAULT_ADAPTER_PATH
from forelook.model.families import FAMILIES
from forelook.model.infill_templates import CONTROL_TOKENS, INFILL_TEMPLATES, InfillOrder, InfillTemplate
from forelook.model.loading import load_model
from forelook.model.tokenizer import CodeTokenizer

from tests.model.checkpoints import VARIANTS, build_reference, save, write_byte_tokenizer

# A tiny checkpoint of each family.
VARIANT_OF = {name: name for name in FAMILIES} | {"qwen2": "qwen2_bias"}


def test_every_family_has_a_checkpoint_in_the_tests() -> None:
    assert all(VARIANTS[variant][0] == name for name, variant in VARIANT_OF.items())


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
    "codegemma": "codegemma-2b",
    "granite-4": "granite-4.0-micro-base",
    "mellum": "Mellum-4b-base",
    "starcoder2": "starcoder2-3b",
    "seed-coder": "Seed-Coder-8B-Base",
    "aixcoder": "aixcoder-7b-base",
    "forelook": "forelook",
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


def test_every_model_of_the_catalogue_has_a_format_by_its_name_or_by_its_adapter() -> None:
    for model in CATALOGUE:
        if model.model == DEFAULT_MODEL:
            infill = json.loads((DEFAULT_ADAPTER_PATH / "adapter_config.json").read_text("utf-8"))["forelook"]["infill"]
            assert infill in {each.name for each in INFILL_TEMPLATES}
            continue
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
