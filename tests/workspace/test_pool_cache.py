"""The cache under faults: whatever happens to its files, completion continues with the sound ones."""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forelook.decoding.ngrams.pool import NgramPool
from forelook.errors import PoolCacheError
from forelook.workspace.cache import PoolCache
from forelook.workspace.cache_format import Change
from forelook.workspace.pool import WorkspacePool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workspace.conftest import Clock, MakePool, drafted, encode_bytes, settle

TEXT = "def convert_everything(values):\n    return [convert(value) for value in values]\n"
CHANGED = TEXT + "taken_in_the_journal = 1\n"


def cache_at(root: Path, **options: object) -> PoolCache:
    return PoolCache(root, "file:///w", "model", **options)  # type: ignore[arg-type]


def written(root: Path) -> Path:
    """The folder of a pool with a base and a journal."""
    pool = WorkspacePool(encode_bytes, cache=cache_at(root))
    pool.open_document("a.py", TEXT)
    settle(pool)
    pool.save()
    pool.wait_saved()
    pool.change_document("a.py", CHANGED)
    settle(pool)
    pool.close()
    folder = cache_at(root).folder
    assert sorted(path.name for path in folder.iterdir()) == ["1.base", "1.journal", "lock"]
    return folder


def restored_text(root: Path) -> str:
    pool = WorkspacePool(encode_bytes, cache=cache_at(root))
    settle(pool)
    text = bytes(pool.tokens_of("a.py")).decode()
    pool.open_document("c.py", "other = 1\nother = 1\n")
    pool.open_document("b.py", "other = 1\nother = 1\noth")
    settle(pool)
    assert drafted(pool, "b.py", "other = 1\nother = 1\noth", 2) == "er", "completion continues"
    pool.close()
    return text


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)


def test_sound_files_restore_everything(tmp_path: Path) -> None:
    written(tmp_path)
    assert restored_text(tmp_path) == CHANGED


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_of_the_base_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    root = tmp_path_factory.mktemp("pools")
    folder = written(root)
    flip(folder / "1.base", place, bit)
    assert restored_text(root) == ""
    assert (folder / "1.base.damaged").exists()


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_of_the_journal_costs_the_journal_at_most(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    root = tmp_path_factory.mktemp("pools")
    flip(written(root) / "1.journal", place, bit)
    assert restored_text(root) == TEXT


@given(length=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_truncated_base_is_set_aside(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    root = tmp_path_factory.mktemp("pools")
    folder = written(root)
    size = (folder / "1.base").stat().st_size
    os.truncate(folder / "1.base", length % size)
    assert restored_text(root) == ""
    assert (folder / "1.base.damaged").exists()


@given(length=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_truncated_journal_loses_its_last_record_only(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    root = tmp_path_factory.mktemp("pools")
    folder = written(root)
    size = (folder / "1.journal").stat().st_size
    os.truncate(folder / "1.journal", length % size)
    assert restored_text(root) == TEXT


def test_a_damaged_file_is_set_aside_with_a_log_line_and_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = written(tmp_path)
    flip(folder / "1.base", 400)
    with caplog.at_level(logging.WARNING):
        pool = WorkspacePool(encode_bytes, cache=cache_at(tmp_path))
        pool.add_files([("a.py", TEXT)])
        settle(pool)
        pool.close()
    assert [record for record in caplog.records if "set aside" in record.message and "1.base" in record.message]
    assert "convert" not in caplog.text
    assert restored_text(tmp_path) == TEXT


@pytest.mark.parametrize("version", [0, 2, 1 << 31])
def test_an_unknown_version_is_rebuilt(tmp_path: Path, version: int, caplog: pytest.LogCaptureFixture) -> None:
    folder = written(tmp_path)
    data = bytearray((folder / "1.base").read_bytes())
    data[8:12] = version.to_bytes(4, "little")
    (folder / "1.base").write_bytes(data)
    assert restored_text(tmp_path) == ""
    assert f"version {version}" in caplog.text


def test_files_of_another_workspace_put_in_this_folder_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    other = PoolCache(tmp_path / "two", "file:///other", "model")
    other.folder.mkdir(parents=True)
    for name in ("1.base", "1.journal"):
        (other.folder / name).write_bytes((folder / name).read_bytes())
    assert other.acquire()
    assert other.read().state is None
    other.release()


@pytest.mark.parametrize("name", ["1.base", "1.journal"])
def test_a_folder_in_the_place_of_a_file_does_no_harm(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path)
    (folder / name).unlink()
    (folder / name).mkdir()
    assert restored_text(tmp_path) == ("" if name == "1.base" else TEXT)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are otherwise there")
def test_files_and_folders_are_for_the_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = written(tmp_path / "pools")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


class Disk:
    """Opens files until told to fail, as a full or read-only disk would."""

    def __init__(self) -> None:
        self.fault: int | None = None

    def __call__(self, path: str, flags: int, mode: int) -> int:
        if self.fault is not None and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(self.fault, os.strerror(self.fault), path)
        return os.open(path, flags, mode)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_fails_for_a_while_loses_nothing_but_time(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, fault: int
) -> None:
    disk = Disk()
    pool = WorkspacePool(encode_bytes, cache=cache_at(tmp_path, open_file=disk), clock=clock)
    pool.open_document("a.py", TEXT)
    settle(pool)
    pool.save()
    pool.wait_saved()
    disk.fault = fault
    for number in range(5):
        pool.change_document("a.py", TEXT + str(number))
        settle(pool)
        pool.save()
        pool.wait_saved()
        clock.now_s += 60
    assert len([record for record in caplog.records if os.strerror(fault) in record.message]) <= 2
    disk.fault = None
    pool.change_document("a.py", CHANGED)
    settle(pool)
    for _ in range(3):
        clock.now_s += 60
        pool.save()
        pool.wait_saved()
    pool.close()
    assert restored_text(tmp_path) == CHANGED


def test_a_folder_that_cannot_be_made_leaves_the_pool_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pools").write_text("a file where the folder should be")
    pool = WorkspacePool(encode_bytes, cache=cache_at(tmp_path / "pools"))
    pool.add_files([("a.py", TEXT)])
    settle(pool)
    pool.save()
    pool.wait_saved()
    assert drafted(pool, "b.py", "def convert_every") == "thing(values"
    pool.close()
    assert "cannot be created" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_record_that_does_not_fit_on_the_disk_is_reported(tmp_path: Path) -> None:
    def open_file(path: str, flags: int, mode: int) -> int:
        return os.open("/dev/full" if path.endswith(".base.new") else path, flags, mode)

    cache = cache_at(tmp_path, open_file=open_file)
    assert cache.acquire()
    pool = NgramPool()
    pool.set_document("a.py", encode_bytes(TEXT))
    with pytest.raises(PoolCacheError, match="No space left"):
        cache.write_base(pool.dump(), {})
    assert [path.name for path in cache.folder.iterdir()] == ["lock"]
    cache.release()


def test_half_a_record_is_taken_back(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    assert cache.acquire()
    cache.write_base(NgramPool().dump(), {})
    cache.append([Change("a.py", 0, None, np.arange(5, dtype=np.int32))])
    cache.append([Change("a.py", 1, 2, np.arange(3, dtype=np.int32))])
    cache.append([Change("b\udcff.py", 0, None, np.arange(2, dtype=np.int32), digest=2**64 - 1)])
    cache.append([Change("a.py", 0, None, None)])
    changes = cache.read().changes
    assert [(c.key, c.start, c.end, c.ids is None, c.digest) for c in changes] == [
        ("a.py", 0, None, False, 0),
        ("a.py", 1, 2, False, 0),
        ("b\udcff.py", 0, None, False, 2**64 - 1),
        ("a.py", 0, None, True, 0),
    ]
    cache.release()


def test_only_one_of_two_writers_writes_and_neither_does_harm(make_pool: MakePool, clock: Clock) -> None:
    first, second = make_pool(), None
    first.open_document("a.py", TEXT)
    settle(first)
    first.save()
    first.wait_saved()
    second = make_pool()
    settle(second)
    assert bytes(second.tokens_of("a.py")).decode() == TEXT, "the second reads what the first has written"
    second.add_files([("b.py", "b = 2\n")])
    settle(second)
    for number in range(5):
        first.change_document("a.py", TEXT + f"x = {number}\n")
        settle(first)
        first.save()
        second.save()
        first.wait_saved()
        second.wait_saved()
        clock.now_s += 60
    first.close()
    clock.now_s += 60
    second.accept(encode_bytes("accepted_by_the_second"))
    second.save()
    second.wait_saved()
    second.close()
    third = make_pool()
    settle(third)
    assert bytes(third.tokens_of("b.py")).decode() == "b = 2\n"
    assert third.stats().num_accepted > 0


def test_the_second_writer_keeps_what_the_first_had_learned(make_pool: MakePool, clock: Clock) -> None:
    first = make_pool()
    first.add_files([("early.py", TEXT)])
    settle(first)
    first.save()
    first.wait_saved()
    second = make_pool()
    settle(second)
    first.add_files([("late.py", "late = 1\n")])
    settle(first)
    first.save()
    first.close()
    second.save()
    second.wait_saved()
    clock.now_s += 60
    settle(second)
    second.save()
    second.close()
    third = make_pool()
    settle(third)
    assert bytes(third.tokens_of("late.py")).decode() == "late = 1\n"
    assert bytes(third.tokens_of("early.py")).decode() == TEXT


def test_pools_written_longest_ago_make_room(tmp_path: Path) -> None:
    pool = NgramPool()
    pool.set_document("a.py", list(range(20_480)))
    pool.settle()
    state = pool.dump()
    caches = [PoolCache(tmp_path, f"file:///{number}", "m", max_bytes=500_000) for number in range(5)]
    for number, cache in enumerate(caches):
        assert cache.acquire()
        cache.write_base(state, {})
        if number != 1:
            cache.release()  # the second stays in use
        for path in cache.folder.iterdir():
            os.utime(path, (number, number))
    kept = [cache.folder.exists() for cache in caches]
    assert kept == [False, True, False, True, True]
    caches[1].release()


def test_a_pool_whose_files_another_process_replaces_is_left_alone(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    assert cache.acquire()
    other = tmp_path / "other"
    other.mkdir()
    (other / "1.base.new").symlink_to(tmp_path / "renamed meanwhile")
    cache.write_base(NgramPool().dump(), {})
    assert other.exists()
    cache.release()


def test_deleting_a_pool_in_use_elsewhere_is_refused(tmp_path: Path) -> None:
    writer, other = cache_at(tmp_path), cache_at(tmp_path)
    assert writer.acquire()
    with pytest.raises(PoolCacheError, match="in use"):
        other.delete()
    writer.release()
    other.delete()
    other.release()


WRITER = """
import sys
from pathlib import Path
from forelook.workspace.cache import PoolCache
from forelook.workspace.pool import WorkspacePool

pool = WorkspacePool(lambda text: list(text.encode()), cache=PoolCache(Path(sys.argv[1]), "file:///w", "model"))
pool.wait_restored()
pool.open_document("a.py", "")
number = 0
while True:
    number += 1
    pool.change_document("a.py", f"value = {number:09}\\n" * (1 + number * int(sys.argv[2])))
    while pool.run_slice(0.01):
        pass
    pool.save()
    pool.wait_saved()
    print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("growth", [0, 40])
def test_a_process_killed_at_any_moment_loses_only_its_last_change(
    tmp_path: Path, growth: int, repository: Path
) -> None:
    """``growth`` makes the journal long enough that bases are replaced as well."""
    environment = {**os.environ, "PYTHONPATH": str(repository / "backend")}
    for round_number in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(growth)], stdout=subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        for _ in range(3 + 17 * round_number):
            reported = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        saved = int(rest[-1]) if rest else reported
        pool = WorkspacePool(encode_bytes, cache=cache_at(tmp_path))
        settle(pool)
        lines = bytes(pool.tokens_of("a.py")).decode().splitlines()
        assert len(set(lines)) == 1, "a document is never half one and half another"
        number = int(lines[0].removeprefix("value = "))
        assert number in (saved, saved + 1)
        assert len(lines) == 1 + number * growth
        pool.clear()
        pool.close()
