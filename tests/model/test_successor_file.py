"""Whatever has the name of the stored successors, the next start works and the file is set aside."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forelook.decoding.drafting.sources.successors import SuccessorSeeds
from forelook.local.files import DAMAGED_SUFFIX
from forelook.model.successor_file import read_successors, successors_path, write_successors

VOCABULARY = 50


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def impossible(path: Path) -> None:
    """A few bytes that say they are an array of a petabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i4", "fortran_order": False, "shape": (2**48, 8)})
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("token_ids", "probabilities", "known"):
            archive.writestr(f"{name}.npy", header.getvalue())


def negative(path: Path) -> None:
    np.savez(path, known=np.array([-1]), token_ids=np.array([[1]]), probabilities=np.array([[0.5]]))


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        Path.mkdir,
        huge,
        impossible,
        negative,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + b"\xff" * 500),
    ],
)
def test_a_file_that_is_none_is_set_aside_and_replaced(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = successors_path(tmp_path, "model", [0])
    make(path)
    assert read_successors(path, VOCABULARY) is None
    assert os.path.lexists(path.with_name(path.name + DAMAGED_SUFFIX))
    assert not os.path.lexists(path)
    seeds = SuccessorSeeds(VOCABULARY)
    seeds.add(np.array([3]), np.array([[4] * seeds.token_ids.shape[1]]), np.full((1, seeds.token_ids.shape[1]), 0.1))
    write_successors(path, seeds)
    again = read_successors(path, VOCABULARY)
    assert again is not None
    assert again.is_known.tolist() == seeds.is_known.tolist()
