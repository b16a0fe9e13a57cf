"""The likeliest tokens of rows against a full sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forelook.decoding.likeliest import likeliest


@pytest.mark.parametrize("vocab_size", [5, 300, 4113, 49152])
@pytest.mark.parametrize("num_kept", [1, 2, 4, 8])
@pytest.mark.parametrize("num_values", [3, 10_000])
def test_the_likeliest_tokens_are_those_of_a_full_sort(vocab_size: int, num_kept: int, num_values: int) -> None:
    chooser = np.random.default_rng(vocab_size)
    logits = (chooser.integers(0, num_values, (7, vocab_size)) / num_values * 9).astype(np.float32)
    rows = [5, 0, 1, 2, 3, 4]
    for row, found in zip(logits[rows], likeliest(torch.from_numpy(logits), rows, num_kept), strict=True):
        kept = min(num_kept, vocab_size)
        expected = np.sort(row)[::-1][:kept]
        assert row[list(found.token_ids)].tolist() == expected.tolist()
        assert len(set(found.token_ids)) == kept
        weights = np.exp(expected - expected[0])
        assert found.shares == pytest.approx(weights / weights.sum(), rel=1e-5)
