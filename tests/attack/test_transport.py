"""Peers without a token: many, slow, silent. Those with one notice nothing."""

from __future__ import annotations

import contextlib
import resource
import socket
import sys
import time
from pathlib import Path

import pytest
from forelook.local.listener import MAX_OPENING, OPENING_TIMEOUT_S

from tests.attack.victim import until, victim, window

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
NUM_SLOW = 1_200
FEW_DESCRIPTORS = 256
TEXT = "def total(values):\n    return sum(values)\n\n\n"


@pytest.mark.timeout(600)
def test_1200_slow_connections_do_not_disturb_who_has_a_token(tmp_path: Path, attack_seconds: float) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < NUM_SLOW + 100:
        pytest.skip(f"this process may open only {most} files")
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(former[0], NUM_SLOW + 500), most))
    try:
        with victim(tmp_path, settings={"listen.port": 0}, max_descriptors=FEW_DESCRIPTORS) as backend:
            endpoint = backend.endpoint
            assert endpoint.host is not None
            assert endpoint.port is not None
            with window(endpoint) as editor, contextlib.ExitStack() as attackers:
                editor.open("a.py", TEXT)
                editor.complete("a.py", len(TEXT))
                before, size_before = backend.usage(), backend.paths.log_path.stat().st_size
                ends_s = time.monotonic() + min(attack_seconds, 60.0)
                while True:
                    for number in range(NUM_SLOW):
                        slow = socket.create_connection((endpoint.host, endpoint.port), timeout=30.0)
                        attackers.callback(slow.close)
                        with contextlib.suppress(OSError):
                            slow.sendall(b"G")
                        if number % 300 == 0:
                            editor.complete("a.py", len(TEXT))
                    with window(endpoint, "file:///newcomer") as newcomer:
                        newcomer.open("b.py", TEXT)
                        assert newcomer.has_the_same_mirror("b.py")
                    assert backend.usage().num_descriptors <= before.num_descriptors + 2 * MAX_OPENING + 16
                    if time.monotonic() >= ends_s:
                        break
                    attackers.close()
                assert until(
                    lambda: backend.usage().num_descriptors <= before.num_descriptors + 2, 4 * OPENING_TIMEOUT_S
                ), "none of them stays, though none was closed by its peer"
                assert editor.has_the_same_mirror("a.py")
                assert backend.paths.log_path.stat().st_size - size_before < 100_000
                assert "Traceback" not in backend.log()
                assert "out of system resource" not in backend.log()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)
