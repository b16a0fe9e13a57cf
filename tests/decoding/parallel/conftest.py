"""A group of two ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.decoding.parallel.ranks import ThreadedRanks
from tests.fakes import RandomTransformer


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ThreadedRanks]:
    ranks = ThreadedRanks(tmp_path, 2, lambda _rank, most: RandomTransformer(3, max_positions=most))
    yield ranks
    ranks.close()
