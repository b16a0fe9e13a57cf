"""Tokenizers and the starter model, read once."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel, load_model
from forelook.model.tokenizer import CodeTokenizer

from tests.model.texts import TRICKY


@pytest.fixture(scope="session")
def starter_tokenizer() -> CodeTokenizer:
    return CodeTokenizer.from_file(STARTER_MODEL_PATH / "tokenizer.json")


@pytest.fixture(scope="session")
def codellama_tokenizer(shared_dir: Path) -> CodeTokenizer:
    return CodeTokenizer.from_file(shared_dir / "data" / "codellama-tokenizer" / "tokenizer.json")


@pytest.fixture(scope="session")
def starter() -> LoadedModel:
    return load_model(None, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def source_megabyte(repository: Path) -> str:
    """One megabyte of source in several languages."""
    parts = [TRICKY]
    for pattern in (
        "backend/**/*.py",
        "lsp/**/*.py",
        "lsp/**/*.lua",
        "extension/src/*.ts",
        "tests/**/*.py",
        "docs/*.md",
    ):
        parts += [path.read_text(encoding="utf-8") for path in sorted(repository.glob(pattern))]
    text = "\n".join(parts)
    return (text * (1 + 1_000_000 // len(text)))[:1_000_000]
