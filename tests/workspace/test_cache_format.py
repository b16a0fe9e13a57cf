"""The bytes of a pool's files: what Forelook 0.1.0 wrote is still read, under the name it had."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from forelook.decoding.ngrams.pool import NgramPool
from forelook.errors import PoolCacheError
from forelook.keys import WorkspaceKey
from forelook.workspace.cache import PoolCache
from forelook.workspace.cache_format import (
    Change,
    base_blocks,
    journal_header,
    journal_records,
    read_base,
    read_journal,
)
from forelook.workspace.pool import WorkspacePool

from tests.workspace.conftest import encode_bytes, settle

IDENTITY = {"workspace": "file:///w", "fingerprint": "m"}

# Written by 0.1.0 for the workspace `ada:file:///w` and the model `m`, one token per byte: `x = 1` in the base; `y = 2`
# and an accepted `y = 2` in the journal.
FOLDER_0_1_0 = "bcbdc5c84b9c296a4196177fbeb44a49"
FILES_0_1_0 = {
    "1.base": (
        "RkxLQkFTRQoBAAAA7wAAAKQ03fZ7ImlkZW50aXR5IjogeyJ3b3Jrc3BhY2UiOiAiYWRhOmZpbGU6Ly8vdyIsICJmaW5nZXJwcmludCI6ICJt"
        "In0sICJrZXlzIjogWyJhLnB5Il0sICJ3ZWlnaHRzIjogWzEuMF0sICJkaWdlc3RzIjoge30sICJzb3J0ZWRfbGVuZ3RoIjogMTYsICJzZWdt"
        "ZW50cyI6IFtdLCAiYXJyYXlzIjogW1sidG9rZW5zIiwgMjIsIDI4MzcxNjk2OTBdLCBbInBvc2l0aW9ucyIsIDAsIDBdLCBbInBpZWNlcyIs"
        "IDMsIDU3MDc5NjE4NF1dff////////////////////////////////////////////////////////////////////////////////////94"
        "AAAAIAAAAD0AAAAgAAAAMQAAAAoAAAAAAAAAEAAAAAYAAAA="
    ),
    "1.journal": (
        "RkxLSlJOTAoBAAAAUQAAAN61YS57ImdlbmVyYXRpb24iOiAxLCAiaWRlbnRpdHkiOiB7IndvcmtzcGFjZSI6ICJhZGE6ZmlsZTovLy93Iiwg"
        "ImZpbmdlcnByaW50IjogIm0ifX01AAAApzy7aQEFAAAABQAAAAAAAAAAAAAABAAAAAYAAABhLnB5CgAAAHkAAAAgAAAAPQAAACAAAAAyAAAA"
        "OgAAACOxN3kAAAAAAAAAAAAAAAAAAAAAAAkAAAAGAAAAAGFjY2VwdGVk/////3kAAAAgAAAAPQAAACAAAAAyAAAA"
    ),
}


def test_a_pool_of_0_1_0_is_restored(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER_0_1_0
    folder.mkdir()
    for name, content in FILES_0_1_0.items():
        (folder / name).write_bytes(base64.b64decode(content))
    cache = PoolCache(tmp_path, WorkspaceKey("ada", "file:///w").pool_name, "m")
    assert cache.folder == folder
    pool = WorkspacePool(encode_bytes, cache=cache)
    settle(pool)
    assert bytes(pool.tokens_of("a.py")) == b"x = 1\ny = 2\n"
    assert pool.stats().num_accepted == len("y = 2") + 1  # and a border
    pool.close()
    assert not list(folder.glob("*.damaged"))


def test_a_base_is_read_as_it_was_written() -> None:
    pool = NgramPool()
    pool.set_document("a.py", list(range(5000)))
    pool.set_document("b\udcff.py", [1, 2, 3])
    pool.settle()
    state = pool.dump()
    read, digests = read_base(io.BytesIO(b"".join(base_blocks(IDENTITY, state, {"a.py": 7}))), IDENTITY)
    assert digests == {"a.py": 7}
    assert (read.keys, read.weights, read.index.sorted_length) == (state.keys, state.weights, state.index.sorted_length)
    assert np.array_equal(read.pieces, state.pieces)
    assert np.array_equal(read.index.tokens, state.index.tokens)
    assert all(map(np.array_equal, read.index.segments, state.index.segments))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"PNG\n\1\2\3\4" * 9, "not part of a pool"),
        (journal_header(IDENTITY, 1), "not part of a pool"),
    ],
)
def test_a_file_that_is_no_base_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(PoolCacheError, match=message):
        read_base(io.BytesIO(data), IDENTITY)


def test_a_truncated_last_record_is_not_damage() -> None:
    changes = [Change("a.py", 0, None, np.arange(5, dtype=np.int32)), Change("a.py", 1, 2, None)]
    data = journal_header(IDENTITY, 3) + journal_records(changes)
    read, is_sound = read_journal(io.BytesIO(data[:-1]), IDENTITY, 3)
    assert ([change.key for change in read], is_sound) == (["a.py"], True)
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    read, is_sound = read_journal(io.BytesIO(damaged), IDENTITY, 3)
    assert (len(read), is_sound) == (1, False)
    with pytest.raises(PoolCacheError, match="another base"):
        read_journal(io.BytesIO(data), IDENTITY, 4)
