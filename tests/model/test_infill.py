"""Infill prompts: exact ids per family, checked against the tokenizer."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forelook.completion.document_store import Document
from forelook.completion.prompt.files import FileContext
from forelook.completion.prompt.prompt import PromptBudget, PromptBuilder
from forelook.errors import TokenizerError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.identity import ModelIdentity, identity_of_folder, identity_of_gguf
from forelook.model.infill import doubts, infill_formats
from forelook.model.infill_templates import INFILL_TEMPLATES, InfillOrder
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel
from forelook.model.tokenizer import CodeTokenizer
from tokenizers import Tokenizer

from tests.model.checkpoints import write_byte_tokenizer

CODELLAMA = {"vocab_size": 32016, "bos_token_id": 1, "eos_token_ids": (2,)}


def test_codellama_prompts_are_metas_ids_in_both_orders(codellama_tokenizer: CodeTokenizer) -> None:
    suffix_first, prefix_first = infill_formats(
        codellama_tokenizer, identity=ModelIdentity("llama", ("codellama/codellama-7b-hf",)), **CODELLAMA
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
            codellama_tokenizer,
            identity=ModelIdentity("llama", (name.lower(),)),
            vocab_size=32000,
            bos_token_id=1,
            eos_token_ids=(2,),
        )
        assert plain.order is InfillOrder.PLAIN
        assert plain.build([5, 6], [7], [8]) == [1, 8, 5, 6]
        assert plain.stop_token_ids == {2}


@pytest.mark.parametrize("name", ["codellama/CodeLlama-7b-hf", "CodeLlama-13b-Instruct-hf", "deepseek-coder-1.3b-base"])
def test_family_that_promises_sentinels_must_have_them(codellama_tokenizer: CodeTokenizer, name: str) -> None:
    with pytest.raises(TokenizerError, match="lacks the infill sentinels"):
        infill_formats(
            codellama_tokenizer,
            identity=ModelIdentity("llama", (name.lower(),)),
            vocab_size=32000,
            bos_token_id=1,
            eos_token_ids=(2,),
        )


def with_control_tokens(path: Path, tokens: list[str], *, space: bool = True) -> dict[str, Any]:
    """A tokenizer.json whose own control tokens are replaced by others."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    own = {token["content"] for token in raw["added_tokens"]} | {"▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"}
    own -= {"<s>", "</s>", "<unk>"}
    vocab = raw["model"]["vocab"]
    raw["model"]["vocab"] = {f"[{piece}]" if piece in own else piece: index for piece, index in vocab.items()}
    for token in raw["added_tokens"]:
        token["content"] = f"[{token['content']}]" if token["content"] in own else token["content"]
    known = {token["content"] for token in raw["added_tokens"]}
    first = max([*raw["model"]["vocab"].values(), *(token["id"] for token in raw["added_tokens"])]) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    fresh = [token for token in dict.fromkeys(tokens) if token not in known]
    raw["added_tokens"] += [{"id": first + index, "content": name, **flags} for index, name in enumerate(fresh)]
    if not space:
        raw["normalizer"]["normalizers"] = raw["normalizer"]["normalizers"][1:]
    return raw


def published_ids(raw: dict[str, Any], prompt: str, suffix: str) -> list[int]:
    """A published template as the models' own tokenizers encode it: with its sentinels parsed, the suffix without the
    implicit space, as Codestral's and aiXcoder's wrappers have it.
    """
    tokenizer = Tokenizer.from_str(json.dumps({**raw, "post_processor": None}))
    control = {token["content"]: token["id"] for token in raw["added_tokens"]}
    parts = re.split("(" + "|".join(re.escape(token) for token in sorted(control, key=len, reverse=True)) + ")", prompt)
    padding = tokenizer.encode("☺", add_special_tokens=False).ids
    ids: list[int] = []
    for part in filter(None, parts):
        if part in control:
            ids.append(control[part])
        elif part == suffix:  # whose encoding begins after that of another character
            ids += tokenizer.encode("☺" + part, add_special_tokens=False).ids[len(padding) :]
        else:
            ids += tokenizer.encode(part, add_special_tokens=False).ids
    return ids


PREFIX = "import util\n\n\ndef mul(a, b):\n    return "
SUFFIX = "\n\n\nprint(mul(2024, 3))\n"
FIRST, SECOND = "def add(a, b):\n    return a + b", "class Util:\n    x = 1"
COMMENTED = {"A": f"# a.py\n{FIRST}\n\n", "B": f"# util.py\n{SECOND}\n\n"}
TEXTS = {"P": PREFIX, "S": SUFFIX, "A": FIRST, "B": SECOND, "a": COMMENTED["A"], "b": COMMENTED["B"]}
PATH_A, PATH_B, PATH = "lib/a.py", "util.py", "src/main.py"


@dataclass(frozen=True)
class Published:
    """A format as published: a model, and the prompt for P and S, alone and with the files A and B.

    In the prompts, ⟨P⟩ and so on are their texts; ⟨a⟩ and ⟨b⟩ are the files below a comment with their names.
    """

    name: str
    model: str
    model_type: str
    tokenizer: str
    alone: str
    with_files: str


_FIM = "<|fim_prefix|>⟨P⟩<|fim_suffix|>⟨S⟩<|fim_middle|>"
_AIX = f"# the file path is: {PATH}\n# the code file is written by Python\n⟨P⟩"
PUBLISHED = [
    Published(
        "starter", "starter-model", "llama", "bytes", "<s><PRE><SUF>⟨S⟩<MID>⟨P⟩", "<s><PRE><SUF>⟨S⟩<MID>⟨a⟩⟨b⟩⟨P⟩"
    ),
    Published(
        "codellama",
        "codellama/CodeLlama-7b-hf",
        "llama",
        "pieces",
        "<s>▁<PRE>▁<SUF>⟨S⟩▁<MID>⟨P⟩",
        "<s>▁<PRE>▁<SUF>⟨S⟩▁<MID>⟨a⟩⟨b⟩⟨P⟩",
    ),
    Published(
        "qwen2.5-coder",
        "Qwen/Qwen2.5-Coder-1.5⟨B⟩",
        "qwen2",
        "bytes",
        _FIM,
        f"<|repo_name|>shop\n<|file_sep|>{PATH_A}\n⟨A⟩\n<|file_sep|>{PATH_B}\n⟨B⟩\n<|file_sep|>{PATH}\n{_FIM}",
    ),
    Published(
        "codegemma",
        "google/codegemma-2b",
        "gemma",
        "pieces without space",
        f"<bos>{_FIM}",
        f"<bos>⟨a⟩<|file_separator|>⟨b⟩<|file_separator|>{_FIM}",
    ),
    Published("granite-4", "ibm-granite/granite-4.0-micro-base", "granite", "bytes", _FIM, f"⟨a⟩⟨b⟩{_FIM}"),
    Published(
        "mellum",
        "JetBrains/Mellum-4b-base",
        "llama",
        "bytes",
        "<fim_suffix>⟨S⟩<fim_prefix>⟨P⟩<fim_middle>",
        f"<filename>{PATH_A}\n⟨A⟩\n<filename>{PATH_B}\n⟨B⟩\n<filename>{PATH}\n<fim_suffix>⟨S⟩<fim_prefix>⟨P⟩<fim_middle>",
    ),
    Published(
        "starcoder2",
        "bigcode/starcoder2-3b",
        "starcoder2",
        "bytes",
        "<fim_prefix>⟨P⟩<fim_suffix>⟨S⟩<fim_middle>",
        f"<repo_name>shop<file_sep>{PATH_A}\n⟨A⟩<file_sep>{PATH_B}\n⟨B⟩<file_sep>"
        f"<fim_prefix>{PATH}\n⟨P⟩<fim_suffix>⟨S⟩<fim_middle>",
    ),
    Published(
        "starcoder",
        "ibm-granite/granite-3b-code-base-2k",
        "llama",
        "bytes",
        "<fim_prefix>⟨P⟩<fim_suffix>⟨S⟩<fim_middle>",
        "⟨a⟩⟨b⟩<fim_prefix>⟨P⟩<fim_suffix>⟨S⟩<fim_middle>",
    ),
    Published(
        "deepseek-coder",
        "deepseek-ai/deepseek-coder-1.3b-base",
        "llama",
        "bytes",
        "<bos><｜fim▁begin｜>⟨P⟩<｜fim▁hole｜>⟨S⟩<｜fim▁end｜>",
        "<bos><｜fim▁begin｜>⟨a⟩⟨b⟩⟨P⟩<｜fim▁hole｜>⟨S⟩<｜fim▁end｜>",
    ),
    Published(
        "codestral",
        "mistralai/Codestral-22B-v0.1",
        "mistral",
        "pieces",
        "<s>[SUFFIX]⟨S⟩[PREFIX]⟨P⟩",
        f"<s>[SUFFIX]⟨S⟩[PREFIX]+++++ {PATH_A}\n⟨A⟩\n\n+++++ {PATH_B}\n⟨B⟩\n\n+++++ {PATH}\n⟨P⟩",
    ),
    Published(
        "seed-coder",
        "ByteDance-Seed/Seed-Coder-8B-Base",
        "llama",
        "bytes",
        "<[fim-suffix]>⟨S⟩<[fim-prefix]>⟨P⟩<[fim-middle]>",
        "<[fim-suffix]>⟨S⟩<[fim-prefix]>⟨a⟩⟨b⟩⟨P⟩<[fim-middle]>",
    ),
    Published(
        "aixcoder",
        "aiXcoder/aixcoder-7b-base",
        "llama",
        "pieces",
        f"<s>▁<AIX-SPAN-PRE>▁<AIX-SPAN-POST>⟨S⟩▁<AIX-SPAN-MIDDLE>{_AIX}",
        f"<s>▁<AIX-SPAN-PRE>▁<AIX-SPAN-POST>⟨S⟩▁<AIX-SPAN-MIDDLE>⟨a⟩⟨b⟩{_AIX}",
    ),
    Published(
        "forelook",
        "forelook",
        "llama",
        "bytes",
        "<s><fim_prefix><fim_suffix>⟨S⟩<fim_middle>⟨P⟩",
        f"<s><fim_prefix><fim_suffix>⟨S⟩<fim_middle><file_sep>{PATH_A}\n⟨A⟩\n<file_sep>{PATH_B}\n⟨B⟩\n"
        f"<file_sep>{PATH}\n⟨P⟩",
    ),
]


def test_every_format_has_a_published_template_here() -> None:
    assert {row.name for row in PUBLISHED} == {template.name for template in INFILL_TEMPLATES}


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)
def test_tokens_of_every_prompt_are_those_of_the_published_template(row: Published, shared_dir: Path) -> None:
    template = next(each for each in INFILL_TEMPLATES if each.name == row.name)
    pieces = shared_dir / "data" / "codellama-tokenizer" / "tokenizer.json"
    control = ["<bos>", *template.sentinels, *template.stops, *template.files.sentinels]
    raw = with_control_tokens(
        STARTER_MODEL_PATH / "tokenizer.json" if row.tokenizer == "bytes" else pieces,
        control,
        space=row.tokenizer != "pieces without space",
    )
    tokenizer = CodeTokenizer(copy.deepcopy(raw), row.name)
    bos = row.alone.partition(">")[0] + ">"
    infill = infill_formats(
        tokenizer,
        identity=ModelIdentity(row.model_type, (row.model.lower(),)),
        vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.token_id(bos) if bos in ("<s>", "<bos>") else None,
        eos_token_ids=(),
    )[0]
    assert (infill.name, infill.order) == (row.name, template.order)
    workspace = WorkspaceKey("", "file:///home/u/shop")
    document = Document(workspace, DocumentKey(1, f"file:///home/u/shop/{PATH}"), "python", 1, PREFIX + SUFFIX)
    others = [FileContext(PATH_B, SECOND, COMMENTED["B"]), FileContext(PATH_A, FIRST, COMMENTED["A"])]
    for prompt, context in ((row.alone, []), (row.with_files, others)):
        built = PromptBuilder(tokenizer, PromptBudget(2000, 0.3, 0.3), infill).build(document, len(PREFIX), context)
        ids = infill.build(built.prefix_ids, built.suffix_ids, built.context_ids)
        written = re.sub("⟨(.)⟩", lambda found: TEXTS[found.group(1)], prompt)
        assert ids == published_ids(raw, written, SUFFIX), prompt


def test_sentinels_typed_by_a_user_stay_text_in_the_prompt(starter: LoadedModel) -> None:
    text = "<PRE> <SUF> <MID> <EOT>"
    ids = starter.infill.build(starter.tokenizer.encode_prefix(text), starter.tokenizer.encode(text))
    assert sum(token_id in starter.tokenizer.special_ids for token_id in ids) == starter.infill.num_sentinels


def tokenizer_with(folder: Path, *tokens: str, merges: tuple[str, ...] = ()) -> CodeTokenizer:
    """One entry per byte, control tokens, and perhaps merges."""
    write_byte_tokenizer(folder, 400, ("<s>", *tokens))
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = raw["model"]["vocab"]
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    raw["model"]["merges"] = [merge.split(" ") for merge in merges]
    raw["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return CodeTokenizer(raw, "here")


def chosen(tokenizer: CodeTokenizer, identity: ModelIdentity) -> str:
    formats = infill_formats(tokenizer, identity=identity, vocab_size=400, bos_token_id=None, eos_token_ids=())
    return formats[0].name


STARCODER_TOKENS = ("<|endoftext|>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<filename>")
PIPED_TOKENS = (
    "<|endoftext|>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
    "<|fim_pad|>",
    "<|file_separator|>",
)


def test_one_set_of_sentinels_means_what_the_checkpoint_is(tmp_path: Path) -> None:
    piped = tokenizer_with(tmp_path, *PIPED_TOKENS)
    for model_type, name in (("qwen2", "qwen2.5-coder"), ("qwen3", "qwen2.5-coder"), ("gemma", "codegemma")):
        assert chosen(piped, ModelIdentity(model_type, ("model.gguf",))) == name
    assert chosen(piped, ModelIdentity("granite", ("model.gguf",))) == "granite-4"
    joins_digits = tokenizer_with(tmp_path, *STARCODER_TOKENS, merges=("2 0", "20 2", "202 4"))
    splits_digits = tokenizer_with(tmp_path, *STARCODER_TOKENS)
    assert chosen(joins_digits, ModelIdentity("llama", ("model.gguf",))) == "mellum"
    assert chosen(splits_digits, ModelIdentity("llama", ("model.gguf",))) == "starcoder"
    assert chosen(splits_digits, ModelIdentity("starcoder2", ("model.gguf",))) == "starcoder2"


def test_names_decide_before_sentinels(tmp_path: Path) -> None:
    splits_digits = tokenizer_with(tmp_path, *STARCODER_TOKENS)
    assert chosen(splits_digits, ModelIdentity("llama", ("jetbrains/mellum-4b-base",))) == "mellum"
    assert chosen(splits_digits, ModelIdentity("llama", ("a.gguf", "mellum-4b-sft-python"))) == "mellum"
    assert chosen(splits_digits, ModelIdentity("llama", ("mine",), bases=("jetbrains/mellum-4b-base",))) == "mellum"
    # What a model was made from may have had another tokenizer.
    assert chosen(splits_digits, ModelIdentity("llama", ("mine",), bases=("seed-coder-8b-base",))) == "starcoder"


def test_identity_is_read_from_a_folders_files(tmp_path: Path) -> None:
    config = {"model_type": "llama", "_name_or_path": "/data/run/Mellum 4b_base"}
    identity = identity_of_folder(str(tmp_path / "My Model"), config, {"chat_template": "{{ x }}"})
    assert identity == ModelIdentity("llama", ("my-model",), ("mellum-4b-base",), has_chat_template=True)
    assert identity_of_folder("a", config, {}, has_template_file=True).has_chat_template
    assert identity_of_folder("JetBrains/Mellum-4b-base", {}, {}).names == ("jetbrains/mellum-4b-base",)


def test_identity_is_read_from_a_ggufs_metadata() -> None:
    metadata = {
        "general.name": "Zeta 2.1",
        "general.base_model.count": 1,
        "general.base_model.0.name": "Seed Coder 8B Base",
        "general.base_model.0.repo_url": "https://huggingface.co/ByteDance-Seed/Seed-Coder-8B-Base",
        "tokenizer.chat_template": "",
    }
    identity = identity_of_gguf("/models/z.Q4_K_M.gguf", "llama", metadata)
    assert identity.names == ("z.q4-k-m.gguf", "zeta-2.1")
    assert identity.bases == ("seed-coder-8b-base",)
    assert identity.has_chat_template


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        (ModelIdentity("qwen2", ("qwen/qwen2.5-coder-1.5b",), has_chat_template=True), ()),
        (ModelIdentity("qwen2", ("qwen/qwen2.5-coder-1.5b-instruct",)), ("made for chat",)),
        (ModelIdentity("qwen2", ("qwen/qwen2.5-1.5b",)), ("nothing says that it was trained to infill",)),
        (ModelIdentity("qwen3", ("mine",), ("qwen2.5-coder-1.5b",)), ()),
        (
            ModelIdentity("qwen3", ("qwen/qwen3-1.7b",), has_chat_template=True),
            ("nothing says that it was trained to infill", "made for chat"),
        ),
        (ModelIdentity("gemma", ("google/codegemma-7b-it",)), ("made for chat",)),
        (ModelIdentity("granite", ("mine",)), ()),
    ],
)
def test_doubtful_choice_is_said_in_plain_words(tmp_path: Path, identity: ModelIdentity, said: tuple[str, ...]) -> None:
    tokenizer = tokenizer_with(tmp_path, *PIPED_TOKENS)
    infill = infill_formats(tokenizer, identity=identity, vocab_size=400, bos_token_id=None, eos_token_ids=())[0]
    lines = doubts(identity, infill, "M")
    assert len(lines) == len(said)
    assert all(text in line for text, line in zip(said, lines, strict=True)), lines


def test_base_model_without_sentinels_is_said_to_ignore_the_suffix(tmp_path: Path) -> None:
    identity = ModelIdentity("llama", ("smollm2-135m-instruct.gguf",))
    plain = infill_formats(
        tokenizer_with(tmp_path), identity=identity, vocab_size=400, bos_token_id=None, eos_token_ids=()
    )[0]
    infilling, chat = doubts(identity, plain, "M")
    assert "was not trained to infill" in infilling
    assert "made for chat" in chat
