"""Corpora and bases that several tests of the trainer use."""

from __future__ import annotations

from pathlib import Path

import pytest
from training import cleaning, corpus

from tests.scripts.test_train_starter_model import CODE, package, words
from tests.scripts.tiny_bases import base_folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small prepared corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(6):
        text = {f"m{index}.py": words(100 * number + index, 30) for index in range(6)}
        package(folder / "sources", f"p{number}", {**text, "bank.py": CODE.replace("Account", f"Account{number}")})
    corpus.prepare([folder / "sources"], folder / "out", benchmarks=cleaning.Benchmarks(()), held_out_share=0.15)
    return folder / "out"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with grouped queries and a head of its own."""
    return base_folder(tmp_path_factory.mktemp("base"))
