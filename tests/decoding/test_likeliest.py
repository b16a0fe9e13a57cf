"""The likeliest tokens of rows against a full sort, by the compiled scan and by numpy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forelook.compiled import Compiled, compilers
from forelook.decoding import likeliest as likeliest_module
from forelook.decoding.likeliest import likeliest
from forelook.decoding.native import library
from forelook.decoding.native.library import load_likeliest, native_likeliest

AVAILABLE = native_likeliest()


@pytest.fixture(params=["compiled", "numpy"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(likeliest_module, "native_likeliest", lambda: Compiled(None, "not wanted"))
    elif AVAILABLE.functions is None:
        pytest.skip(f"no compiled scan: {AVAILABLE.reason}")
    return str(request.param)


@pytest.mark.skipif(sys.platform == "win32" or not compilers(), reason="no C compiler for the scan here")
def test_a_compiler_makes_a_scan_that_is_right() -> None:
    """A wrong one is refused and numpy scans: the other tests would only be skipped."""
    assert AVAILABLE.functions is not None, AVAILABLE.reason


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("vocab_size", [5, 63, 64, 300, 4113, 49152])
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


@pytest.mark.skipif(AVAILABLE.functions is None, reason=f"no compiled scan: {AVAILABLE.reason}")
def test_the_scan_finds_a_value_at_any_place_and_of_equal_ones_the_first() -> None:
    assert AVAILABLE.functions is not None
    for size in (4, 64, 65, 200):
        for place in range(size):
            logits = torch.full((2, size), -3.0)
            logits[1, place] = 7.0
            others = [other for other in range(size) if other != place][:3]
            assert AVAILABLE.functions(logits, [1], 4) == [([place, *others], [7.0, -3.0, -3.0, -3.0])]


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_any_dtype_and_stride_are_served(dtype: torch.dtype) -> None:
    logits = torch.zeros(300, 2, dtype=dtype).T
    logits[0, 7], logits[0, 200], logits[1, 9], logits[1, 100] = 3.0, 2.0, 3.0, 2.0
    for rows in (logits, logits.contiguous()):
        assert [found.token_ids for found in likeliest(rows, [1, 0], 2)] == [(9, 100), (7, 200)]
    assert likeliest(logits, [], 3) == []


@pytest.mark.usefixtures("implementation")
def test_rows_with_fewer_finite_values_than_wanted_are_served() -> None:
    logits = torch.full((1, 200), -torch.inf)
    logits[0, [7, 150]] = torch.tensor([1.0, 2.0])
    (found,) = likeliest(logits, [0], 4)
    assert found.token_ids[:2] == (150, 7)
    assert len(set(found.token_ids)) == 4
    assert found.shares[2:] == (0.0, 0.0)


@pytest.mark.skipif(sys.platform == "win32" or not compilers(), reason="no C compiler for the scan here")
def test_a_scan_that_is_wrong_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = tmp_path / "likeliest.c"
    source = library._SOURCE.path.read_text("utf-8")
    assert source.count("found |= values[k] > limit") == 1
    wrong.write_text(source.replace("found |= values[k] > limit", "found |= values[k] > limit + 1.0f"), "utf-8")
    monkeypatch.setattr(library, "_SOURCE", library.CSource(wrong, library._SOURCE.flags))
    assert load_likeliest(tmp_path / "kept", compilers()).functions is None
    assert "computes something else than it should" in caplog.text


def test_without_a_compiler_numpy_scans(tmp_path: Path) -> None:
    assert load_likeliest(tmp_path, []).functions is None
