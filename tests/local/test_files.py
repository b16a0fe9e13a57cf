"""Private folders, atomic writes and locks that end with their holder."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forelook.errors import EndpointError
from forelook.local.files import file_lock, is_locked, make_private_dir, try_lock, write_atomically

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and flock")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_folder_is_closed_to_others_even_if_it_was_open(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_private_dir(folder)
    assert mode(folder) == 0o700
    folder.chmod(0o755)
    make_private_dir(folder)
    assert mode(folder) == 0o700


def test_a_link_or_a_file_is_no_private_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(EndpointError, match="link is not a directory; remove it"):
        make_private_dir(tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(EndpointError, match="file is not a directory; remove it"):
        make_private_dir(tmp_path / "file")


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(EndpointError, match="belongs to user 12345"):
        make_private_dir(folder)


def test_a_private_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, "one")
    write_atomically(path, "zwölf", is_durable=True)
    assert path.read_text(encoding="utf-8") == "zwölf"
    assert mode(path) == 0o600
    write_atomically(path, [b"in ", b"blocks"])
    assert path.read_bytes() == b"in blocks"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "f", "x")


def test_a_write_that_fails_leaves_the_former_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, "old")

    def blocks() -> Iterator[bytes]:
        yield b"half of the new content"
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, blocks())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _link(path: Path) -> None:
    (path.parent / "real").write_text("of somebody else")
    path.symlink_to(path.parent / "real")


def _foreign(path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    path.touch(0o600)
    os.chown(path, 12345, 12345)


def _full_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


NOT_LOCK_FILES = {
    "pipe": os.mkfifo,
    "link": _link,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "folder": Path.mkdir,
    "full folder": _full_folder,
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "another user's": _foreign,
    "garbage": lambda path: path.write_bytes(b"\xff" * 10_000),
    "unreadable": lambda path: path.touch(0o000),
}


@pytest.mark.parametrize("make", NOT_LOCK_FILES.values(), ids=NOT_LOCK_FILES)
@pytest.mark.timeout(10)
def test_whatever_is_called_like_a_lock_is_no_obstacle(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "lock"
    make(path)
    assert not is_locked(path)
    with file_lock(path, 1.0, "here"):
        assert is_locked(path)
        assert try_lock(path) is None
    if path.with_name("real").exists():
        assert path.with_name("real").read_text() == "of somebody else"


def test_a_lock_whose_file_was_replaced_is_not_granted(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def replaced_meanwhile(name: str, flags: int, mode: int) -> int:
        descriptor = os.open(name, flags, mode)
        path.unlink()
        path.touch()
        return descriptor

    assert try_lock(path, replaced_meanwhile) is None


def test_a_held_lock_is_not_granted_twice(tmp_path: Path) -> None:
    first = try_lock(tmp_path / "lock")
    assert first is not None
    assert try_lock(tmp_path / "lock") is None
    first.close()
    second = try_lock(tmp_path / "lock")
    assert second is not None
    second.close()


def test_a_lock_has_one_holder_and_others_time_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with file_lock(path, 1.0, "first"):
        assert is_locked(path)
        with (
            pytest.raises(EndpointError, match=rf"second: process {os.getpid()} has held .*lock for 0.05 s"),
            file_lock(path, 0.05, "second"),
        ):
            pass
        assert is_locked(path)
    assert not is_locked(path)
    assert mode(path) == 0o600


def test_a_released_lock_goes_to_the_waiting_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held, got = threading.Event(), threading.Event()

    def hold() -> None:
        with file_lock(path, 5.0, "holder"):
            held.set()
            got.wait(0.1)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with file_lock(path, 30.0, "waiter"):
        got.set()
    thread.join()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from forelook.local.files import file_lock\n"
        f"with file_lock(Path({str(path)!r}), 1.0, 'child'): print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"held\n"
        assert is_locked(path)
        process.kill()
        process.wait()
    assert not is_locked(path)
