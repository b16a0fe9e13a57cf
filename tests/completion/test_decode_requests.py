"""What the decoding loop is told of a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.completion.completer import Completer
from forelook.completion.document_store import Document
from forelook.config import EngineConfig
from forelook.decoding.loop import decode
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.loading import load_model

from tests.model.checkpoints import build_reference, save, write_byte_tokenizer

SENTINELS = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


@pytest.mark.parametrize(
    ("control", "text", "is_infilling"),
    [(SENTINELS, "x = f(\n)\n", True), (SENTINELS, "x = f(", False), (SENTINELS[:1], "x = f(\n)\n", False)],
    ids=["a gap", "the end of a file", "a model that sees no suffix"],
)
def test_gaps_are_told_from_ends(tmp_path: Path, control: tuple[str, ...], text: str, is_infilling: bool) -> None:
    folder = tmp_path / ("Qwen2.5-Coder-tiny" if len(control) > 1 else "tiny")
    save(build_reference("qwen2_bias", max_position_embeddings=256), folder)
    write_byte_tokenizer(folder, 320, control)
    model = load_model(str(folder), device="cpu", dtype="float32", allow_left_to_right=True)
    seen: list[bool] = []

    def watched(request, sequence, drafter, stats):  # type: ignore[no-untyped-def]
        seen.append(request.is_infilling)
        return decode(request, sequence, drafter, stats)

    completer = Completer(model, EngineConfig(), loop=watched)
    document = Document(WorkspaceKey("", "file:///w"), DocumentKey(1, "file:///w/a.py"), "python", 1, text)
    completer.raw_middle(document, 6, 2)
    assert seen == [is_infilling]
