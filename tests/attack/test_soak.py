"""Hours of editing: memory, descriptors and threads at the end are those of the start. And other users in between."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forelook.local.endpoint import Endpoint

from tests.attack.victim import Usage, Victim, victim, window

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MAX_GROWTH = 1.2
MAX_RSS_MIB = 700
MIN_WARM_UP_S = 20.0
REST_S = 8.0  # the engine returns memory after 5
STRANGER = 65_534  # nobody


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with victim(tmp_path_factory.mktemp("soak")) as one:
        yield one


def work(endpoint: Endpoint, number: int, ends_s: float, failures: list[BaseException]) -> None:
    """One window: opens, types, asks and closes until the end."""
    draw = random.Random(number)
    try:
        while time.monotonic() < ends_s:
            with window(endpoint, f"file:///soak{number % 2}") as editor:
                for name in ("a.py", "b.py", "c.py"):
                    editor.open(f"{number}{name}", f"value_{number} = 1\n" * draw.randrange(200))
                for _ in range(200):
                    name = f"{number}{draw.choice(('a.py', 'b.py', 'c.py'))}"
                    text = editor.texts[f"{editor.workspace}/{name}"]
                    offset = draw.randrange(len(text) + 1)
                    editor.edit(name, offset, min(len(text), offset + draw.randrange(3)), draw.choice("ab(\n"))
                    if draw.random() < 0.2:
                        editor.complete(name, min(offset, len(editor.texts[f"{editor.workspace}/{name}"])))
                    if time.monotonic() >= ends_s:
                        break
                for name in ("a.py", "b.py", "c.py"):
                    assert editor.has_the_same_mirror(f"{number}{name}")
                    editor.close(f"{number}{name}")
    except BaseException as error:  # noqa: BLE001 - reported by the test
        failures.append(error)


def soak(backend: Victim, seconds: float) -> Usage:
    """Four windows at once; what the backend has after they have gone and it has rested."""
    failures: list[BaseException] = []
    ends_s = time.monotonic() + seconds
    endpoint = backend.endpoint
    windows = [threading.Thread(target=work, args=(endpoint, number, ends_s, failures)) for number in range(4)]
    for one in windows:
        one.start()
    for one in windows:
        one.join()
    assert not failures, failures
    time.sleep(REST_S)
    return backend.usage()


@pytest.mark.timeout(7200)
def test_hours_of_editing_cost_nothing_that_stays(backend: Victim, attack_seconds: float) -> None:
    if not attack_seconds:
        pytest.skip("in the long form only: --attack-seconds")
    warm_up_s = max(MIN_WARM_UP_S, attack_seconds / 6)  # caches fill, both workspaces' pools are open
    warm = soak(backend, warm_up_s)
    last = soak(backend, max(MIN_WARM_UP_S, attack_seconds - warm_up_s))
    print(f"after {warm_up_s:.0f} s: {warm}; after {attack_seconds:.0f} s: {last}")
    assert (last.num_descriptors, last.num_threads) == (warm.num_descriptors, warm.num_threads), (warm, last)
    assert last.rss_mib <= MAX_GROWTH * warm.rss_mib, (warm, last)
    assert last.rss_mib <= MAX_RSS_MIB, (warm, last)
    assert "Traceback" not in backend.log()


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_gets_nothing(backend: Victim) -> None:
    assert backend.endpoint.socket_path is not None
    files = [path for path in backend.folder.rglob("*") if path.is_file() or path.is_socket()]
    assert len(files) > 3
    code = (
        "import socket, sys\n"
        "def tried(action):\n"
        "    try: action()\n"
        "    except (PermissionError, FileNotFoundError): return False\n"
        "    return True\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "got = [name for name in sys.argv[2:] if tried(lambda: open(name, 'rb').close())]\n"
        "got += ['socket'] if tried(lambda: s.connect(sys.argv[1])) else []\n"
        "print(got)"
    )
    for folder in (backend.folder, *backend.folder.parents):
        if folder != Path("/tmp") and folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)  # the test's own folders must not be what protects
    command = ["/usr/bin/env", "python3", "-c", code, backend.endpoint.socket_path, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, user=STRANGER, group=STRANGER, cwd="/")
    assert done.stdout == "[]\n"


def _fill(path: Path) -> None:
    """Write until the disk is full."""
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=1k"], capture_output=True, check=False)
    assert os.statvfs(path.parent).f_bavail == 0


def _mounted(folder: Path, size: str) -> bool:
    return (
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=False).returncode == 0
    )


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can mount a small disk")
@pytest.mark.timeout(600)
def test_a_full_disk_costs_what_was_to_be_kept_and_no_suggestion(tmp_path: Path, attack_seconds: float) -> None:
    if not attack_seconds:
        pytest.skip("in the long form only: --attack-seconds")
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _mounted(disk, "4m"):
        pytest.skip("mounting is not permitted here")
    try:
        with victim(disk) as small:
            filler = disk / "filler"
            with window(small.endpoint) as editor:
                editor.open("a.py", "value = 1\n")
                _fill(filler)
                for number in range(50):
                    editor.edit("a.py", 0, 0, f"another_{number} = {number}\n")
                assert editor.has_the_same_mirror("a.py")
                filler.unlink()
                editor.edit("a.py", 0, 0, "and = more\n")
                assert editor.has_the_same_mirror("a.py")
        with victim(disk) as again, window(again.endpoint) as editor:
            editor.open("a.py", "value = 1\n")
            assert editor.has_the_same_mirror("a.py")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
