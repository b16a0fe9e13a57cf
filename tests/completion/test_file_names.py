"""Prompts name files as the model's format does."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.completion.completer import Completer
from forelook.completion.document_store import Document
from forelook.completion.prompt.files import FileContext, labels_of
from forelook.config import EngineConfig
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.infill_templates import INFILL_TEMPLATES, FileNaming
from forelook.model.loading import LoadedModel, load_model

from tests.model.checkpoints import build_reference, save, write_byte_tokenizer

CONTROL = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>", "<|repo_name|>")
OTHERS = [FileContext("lib/a.py", "A = 1", "# a.py\nA = 1\n\n"), FileContext("b.py", "B = 2", "# b.py\nB = 2\n\n")]


def document(name: str, text: str, language_id: str = "python") -> Document:
    return Document(WorkspaceKey("", "file:///home/u/my%20shop"), DocumentKey(1, name), language_id, 1, text)


def load(folder: Path, control: tuple[str, ...]) -> LoadedModel:
    save(build_reference("qwen2_bias", max_position_embeddings=2048), folder)
    write_byte_tokenizer(folder, 320, control)
    return load_model(str(folder), device="cpu", dtype="float32")


def written(model: LoadedModel, ids: list[int], control: tuple[str, ...]) -> str:
    return "".join(control[each] if each < len(control) else model.tokenizer.decode([each]) for each in ids)


def test_other_files_have_paths_and_the_repository_its_name(tmp_path: Path) -> None:
    model = load(tmp_path / "Qwen2.5-Coder-tiny", CONTROL)
    completer = Completer(model, EngineConfig())
    main = document("file:///home/u/my%20shop/src/main%20one.py", "x = f(\n)\n")
    prompt = completer.prepare(main, 6, OTHERS)
    assert written(model, prompt.ids, CONTROL) == (
        "<|repo_name|>my shop\n<|file_sep|>b.py\nB = 2\n<|file_sep|>lib/a.py\nA = 1\n<|file_sep|>src/main one.py\n"
        "<|fim_prefix|>x = f(<|fim_suffix|>\n)\n<|fim_middle|>"
    )
    assert completer.prepare(main, 6).ids[0] == CONTROL.index("<|fim_prefix|>")


def test_tokenizer_without_the_formats_tokens_gets_comments(tmp_path: Path) -> None:
    model = load(tmp_path / "Qwen2.5-Coder-tiny", CONTROL[:4])
    prompt = Completer(model, EngineConfig()).prepare(document("file:///elsewhere/main.py", "x = f(\n"), 6, OTHERS)
    assert written(model, prompt.ids, CONTROL).startswith("# b.py\nB = 2\n\n# a.py\nA = 1\n\n<|fim_prefix|>x = f(")


def test_windows_stay_while_the_user_types_below_many_paths(tmp_path: Path) -> None:
    """What names the files takes its tokens from the budget once, not at every key."""
    model = load(tmp_path / "Qwen2.5-Coder-tiny", CONTROL)
    completer = Completer(model, EngineConfig())
    lines = "value = compute(1)\n" * 300
    first = completer.prepare(document("file:///home/u/my%20shop/m.py", lines), len(lines), OTHERS)
    for count in range(1, 12):
        text = lines + "result = more"[:count]
        prompt = completer.prepare(document("file:///home/u/my%20shop/m.py", text), len(text), OTHERS)
        assert prompt.ids[:200] == first.ids[:200]


@pytest.mark.parametrize(
    ("name", "language_id", "lead"),
    [
        ("a.py", "python", "# the file path is: a.py\n# the code file is written by Python\n"),
        ("a.cpp", "cpp", "// the file path is: a.cpp\n// the code file is written by C++\n"),
        ("a.css", "css", "/* the file path is: a.css */\n/* the code file is written by CSS */\n"),
        ("a.txt", "plaintext", ""),
    ],
)
def test_comments_are_those_of_the_language(name: str, language_id: str, lead: str) -> None:
    files = next(template.files for template in INFILL_TEMPLATES if template.name == "aixcoder")
    parts = FileNaming(lead=files.lead, leads_alone=True)
    labels = labels_of(parts, document(f"file:///home/u/my%20shop/{name}", "", language_id))
    assert (labels.lead, labels.lead_alone) == (lead, lead)
