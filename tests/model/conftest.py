"""Tokenizers and the starter model, read once."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel, load_model
from forelook.model.tokenizer import CodeTokenizer


@pytest.fixture(scope="session")
def starter_tokenizer() -> CodeTokenizer:
    return CodeTokenizer.from_file(STARTER_MODEL_PATH / "tokenizer.json")


@pytest.fixture(scope="session")
def codellama_tokenizer(shared_dir: Path) -> CodeTokenizer:
    return CodeTokenizer.from_file(shared_dir / "data" / "codellama-tokenizer" / "tokenizer.json")


@pytest.fixture(scope="session")
def starter() -> LoadedModel:
    return load_model(None, device="cpu", dtype="float32")
