"""Prompts that a client has formatted: for every format of the table they become ids, and nothing else does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from forelook.completion.prompt.prompt import PromptBudget, PromptBuilder
from forelook.completion.prompt.stateless import StatelessPrompts
from forelook.model.formatted_prompts import FormattedPrompts
from forelook.model.identity import ModelIdentity
from forelook.model.infill import InfillFormat, infill_formats
from forelook.model.infill_templates import INFILL_TEMPLATES, PARTS, InfillOrder, InfillTemplate
from forelook.model.tokenizer import CodeTokenizer
from forelook.protocol.generation import InfillPrompt, PromptFile, RawPrompt

from tests.model.checkpoints import write_byte_tokenizer

NAMES = {
    "starter": "starter-model",
    "forelook": "forelook",
    "codellama": "codellama-7b-hf",
    "qwen2.5-coder": "qwen2.5-coder-1.5b",
    "codegemma": "codegemma-2b",
    "granite-4": "granite-4.0-micro",
    "mellum": "mellum-4b-base",
    "starcoder2": "starcoder2-3b",
    "starcoder": "granite-3b-code-base",
    "deepseek-coder": "deepseek-coder-1.3b-base",
    "codestral": "codestral-22b-v0.1",
    "seed-coder": "seed-coder-8b-base",
    "aixcoder": "aixcoder-7b-base",
}
PREFIX, SUFFIX = "def f(x):\n    return ", "\n\nprint(f(1))\n"
IDS = [f"{template.name}-{template.order.value}" for template in INFILL_TEMPLATES]


class Family:
    """A format with a tokenizer that has its tokens."""

    def __init__(self, template: InfillTemplate, folder: Path) -> None:
        self.template = template
        names = (*template.sentinels, *template.stops, *template.files.sentinels, *template.other_control_tokens)
        control = tuple(dict.fromkeys(("<s>", *names)))
        write_byte_tokenizer(folder, 2_000, control)
        self.tokenizer = CodeTokenizer.from_file(folder / "tokenizer.json")
        self.control = control
        identity = ModelIdentity(template.model_types[0], (NAMES[template.name],))
        formats = infill_formats(
            self.tokenizer, identity=identity, vocab_size=2_000, bos_token_id=0, eos_token_ids=(1,)
        )
        self.formats = tuple(each for each in formats if each.order is template.order)
        self.infill: InfillFormat = self.formats[0]
        assert self.infill.name == template.name
        builder = PromptBuilder(self.tokenizer, PromptBudget(4_000, 0.4, 0.1), self.infill)
        self.prompts = StatelessPrompts(self.tokenizer, builder, self.formats)

    def spelled(self, prefix: str, suffix: str) -> str:
        """A whole prompt as clients write it; they put a space where SentencePiece's names have one."""
        texts = {"{prefix}": prefix, "{suffix}": suffix, "{context}": ""}
        first = self.template.sentinels[0]
        if first.startswith("▁"):
            texts["{prefix}"] = f" {prefix}"
        return "".join(
            texts[part] if part in PARTS else re.sub("^▁", "" if part == first else " ", part)
            for part in self.template.parts
        )

    def ids(self, prefix: str, suffix: str) -> list[int]:
        """The prompt that the server would make of these texts."""
        return self.infill.build(self.tokenizer.encode_prefix(prefix), self.tokenizer.encode(suffix))

    def special_ids(self, ids: list[int]) -> list[int]:
        return [token_id for token_id in ids if token_id in self.tokenizer.special_ids]

    def build(self, text: str) -> list[int]:
        return self.prompts.build(RawPrompt((text,), may_be_formatted=True)).ids


@pytest.fixture(params=INFILL_TEMPLATES, ids=IDS)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Family:
    return Family(request.param, tmp_path)


def test_the_test_names_every_format() -> None:
    assert NAMES.keys() == {template.name for template in INFILL_TEMPLATES}


def test_a_whole_prompt_becomes_the_ids_that_the_server_would_make(family: Family) -> None:
    assert family.build(family.spelled(PREFIX, SUFFIX)) == family.ids(PREFIX, SUFFIX)
    assert family.build(family.spelled(PREFIX, "")) == family.ids(PREFIX, "")
    if family.infill.bos_token_id is not None:
        assert family.build("<s>" + family.spelled(PREFIX, SUFFIX)) == family.ids(PREFIX, SUFFIX)


def test_the_same_characters_in_a_users_file_stay_text(family: Family) -> None:
    whole = family.spelled(PREFIX, SUFFIX)
    file = PromptFile(f"{family.template.sentinels[0]}.py", whole)
    for prompt in (
        InfillPrompt(whole, SUFFIX),
        InfillPrompt(PREFIX, whole),
        InfillPrompt(PREFIX, SUFFIX, middle=whole),
        InfillPrompt(whole, whole, whole, (file,)),
    ):
        made = family.prompts.build(prompt)
        files = (PromptFile("a.py", "x\n"),) if prompt.files else ()
        harmless = family.prompts.build(InfillPrompt("x", "y", "z", files))
        assert family.special_ids(made.ids) == family.special_ids(harmless.ids)
        assert whole in family.tokenizer.decode(made.ids)


def test_what_is_no_whole_prompt_stays_text(family: Family) -> None:
    whole = family.spelled(PREFIX, SUFFIX)
    bos = [] if family.infill.bos_token_id is None else [family.infill.bos_token_id]
    cuts = [f"x = 1\n{whole}"]
    if family.template.parts[-1] not in PARTS:
        cuts += [f"{whole}\n", whole[:-1]]
    for sentinel in family.template.sentinels[1:]:
        cuts.append(whole.replace(sentinel.removeprefix("▁"), "", 1))
    for text in (*cuts, *family.control, "", PREFIX):
        ids = family.build(text)
        assert family.special_ids(ids) == bos, text
        assert family.tokenizer.decode(ids) == text


def test_nothing_becomes_ids_without_permission(family: Family) -> None:
    whole = family.spelled(PREFIX, SUFFIX)
    ids = family.prompts.build(RawPrompt((whole,))).ids
    assert len(family.special_ids(ids)) == (family.infill.bos_token_id is not None)


def test_a_sentinel_that_occurs_twice_where_it_is_not_the_border_makes_no_prompt(family: Family) -> None:
    inner = [name for name in family.template.sentinels[1:] if name != family.template.parts[-1]]
    for name in inner:
        spelled = name.removeprefix("▁")
        twice = family.spelled(f"{PREFIX}{spelled}", SUFFIX)
        assert len(family.special_ids(family.build(twice))) <= 1, "which of the two the client meant is not known"


def test_border_sentinels_inside_the_texts_stay_text(family: Family) -> None:
    """A client that completes this very file: its text has the sentinels of the format."""
    first, last = family.template.sentinels[0], family.template.parts[-1]
    names = [first, *([last] if last not in PARTS else [])]
    for name in names:
        prefix = f"{PREFIX}{name.removeprefix('▁')}\n"
        assert family.build(family.spelled(prefix, SUFFIX)) == family.ids(prefix, SUFFIX)


def test_files_before_the_prompt_become_ids_where_the_format_has_them(family: Family) -> None:
    if family.template.parts[0] != "{context}" or not family.template.files.sentinels:
        pytest.skip("the format puts no files first, or names them by text")
    first = family.template.files.sentinels[0]
    context = f"{first}a.py\nx = 1\n"
    made = family.prompts.build(RawPrompt((context + family.spelled(PREFIX, SUFFIX),), may_be_formatted=True))
    named = family.tokenizer.token_id(first)
    begin = [] if family.infill.bos_token_id is None else [family.infill.bos_token_id]
    assert made.ids[: len(begin) + 1] == [*begin, named]
    assert family.tokenizer.decode(made.ids).startswith("a.py\nx = 1\n")
    assert made.file_ids == family.tokenizer.encode("a.py\nx = 1\n")


def test_a_model_without_sentinels_has_no_formatted_prompts(tmp_path: Path) -> None:
    write_byte_tokenizer(tmp_path, 2_000)
    tokenizer = CodeTokenizer.from_file(tmp_path / "tokenizer.json")
    formats = infill_formats(
        tokenizer, identity=ModelIdentity("llama", ("m",)), vocab_size=2_000, bos_token_id=0, eos_token_ids=(1,)
    )
    assert formats[0].order is InfillOrder.PLAIN
    assert FormattedPrompts(tokenizer, formats).parse("<PRE>a<SUF>b<MID>") is None
