"""What happens to the real process when a part of it dies, a folder is missing, or clients send all they may."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from forelook.commands.client import connected
from forelook.errors import ForelookError, LimitError
from forelook.local.endpoint import discover
from forelook.protocol import messages
from forelook.protocol.jsonrpc import Request, encode_message

from tests.attack.victim import IDENTITY, PATIENCE_S, Victim, until, victim, window

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

MAX_LEFT_MIB = 300  # KV caches, compiled operators and gaps; 258 were measured, and no text is referenced

DIES_ON_COMMAND = """
import os, sys
from forelook.completion.engine.engine import CompletionEngine

take = CompletionEngine._take_turn

def dying(self, turn):
    if os.path.exists("die"):
        raise SystemExit("no failure that a turn catches")
    take(self, turn)

CompletionEngine._take_turn = dying
from forelook.commands.cli import main
sys.exit(main())
"""


def test_a_backend_whose_engine_died_says_so_ends_and_is_replaced(tmp_path: Path) -> None:
    backend = Victim(tmp_path, program=("-c", DIES_ON_COMMAND))
    endpoint = backend.start()
    with window(endpoint) as editor:
        editor.open("a.py", "value = 1\n")
        assert editor.has_the_same_mirror("a.py")
        (tmp_path / "die").touch()
        with pytest.raises(ForelookError, match=r"the engine stopped|closed the connection"):
            editor.complete("a.py", 5)
    assert backend.process is not None
    assert backend.process.wait(PATIENCE_S) is not None
    assert discover(IDENTITY, backend.paths) is None
    assert "SystemExit" in backend.log()
    (tmp_path / "die").unlink()
    with window(backend.start()) as editor:
        editor.open("a.py", "value = 1\n")
        assert editor.has_the_same_mirror("a.py")
    backend.stop()


def test_without_a_cache_folder_there_are_suggestions_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    (tmp_path / "state").mkdir()
    with victim(tmp_path) as backend, window(backend.endpoint) as editor:
        editor.open("a.py", "value = 1\n")
        assert editor.has_the_same_mirror("a.py")
        assert "nothing is kept there for the next start" in backend.log()
        assert "Traceback" not in backend.log()


def test_a_client_s_name_forges_no_line_of_the_log(tmp_path: Path) -> None:
    with victim(tmp_path) as backend:
        for name in ("a\nforged", "a\rforged", "a\x1b[2Kforged", "a\u2028forged", "a\x85forged"):
            with connected(backend.endpoint) as client:
                params = messages.HelloParams(messages.PROTOCOL_VERSION, name)
                client._websocket.send(encode_message(Request(99, "hello", messages.to_json(params))))
                client.call(messages.STATUS, messages.Empty(), PATIENCE_S)
        assert backend.log().count("forged connected") + backend.log().count("forged  connected") == 5
        for line in backend.log().splitlines():
            assert not line.startswith("forged")
            assert line.isprintable()


@pytest.mark.timeout(1500)
def test_60_documents_of_8_million_characters_cost_what_the_budget_says_and_come_back(
    tmp_path: Path, attack_seconds: float
) -> None:
    if not attack_seconds:
        pytest.skip("in the long form only: --attack-seconds")
    text = "value = compute(1)\n" * 410_000  # 7.8 MB
    with victim(tmp_path) as backend, window(backend.endpoint) as editor:
        editor.open("small.py", "value = 1\n")
        assert editor.has_the_same_mirror("small.py")
        before = backend.usage()
        refusals: list[str] = []
        for number in range(60):
            try:
                editor.open(f"{number}.py", text)
                editor.client.call(messages.STATUS, messages.Empty(), PATIENCE_S)
            except LimitError as error:
                refusals.append(str(error))
        assert len(refusals) == 52
        assert all("over the limit of 67108864 for yours; close some documents" in refusal for refusal in refusals)
        editor.complete("small.py", 5)
        full = backend.usage()
        for number in range(60):
            try:
                editor.close(f"{number}.py")
                editor.client.call(messages.STATUS, messages.Empty(), PATIENCE_S)
            except ForelookError:
                pass  # it was refused, and so is not open
        assert editor.has_the_same_mirror("small.py")
        editor.open("again.py", text)
        assert editor.has_the_same_mirror("again.py")
        editor.close("again.py")
        assert editor.has_the_same_mirror("small.py")
        params = messages.WorkspaceParams(editor.workspace)
        editor.client.call(messages.POOL_CLEAR, params, PATIENCE_S)  # else 60 MB are indexed for minutes
        until(lambda: backend.usage().rss_mib < before.rss_mib + MAX_LEFT_MIB, 60.0, every_s=1.0)
        after = backend.usage()
        print(f"RSS before {before.rss_mib:.0f} MiB, with 8 of 60 {full.rss_mib:.0f}, after {after.rss_mib:.0f}")
        assert full.rss_mib - before.rss_mib < 400
        assert after.rss_mib < before.rss_mib + MAX_LEFT_MIB
