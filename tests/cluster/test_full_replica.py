"""What an editor window does while its replica is full: it tries again, at times that differ from window to window."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from forelook.errors import ForelookError
from forelook.local.endpoint import Endpoint
from forelook_lsp import backend_connection
from forelook_lsp.backend_connection import BackendConnection, ClientName

from tests.cluster.test_replica_app import A, B, document, make_app, serving


class Events:
    """What a connection reports, as far as it matters here."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.connected = asyncio.Event()

    def backend_connected(self, hello: object) -> None:
        del hello
        self.connected.set()

    def backend_lost(self, error: ForelookError | None) -> None:
        self.errors.append(str(error))

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def test_a_window_tries_again_at_random_times_until_its_replica_has_a_place(
    key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[float, float]] = []
    has_tried = asyncio.Event()
    spread = backend_connection._spread

    def noted(seconds: float) -> float:
        waits.append((seconds, spread(seconds)))
        if len(waits) == 8:
            has_tried.set()
        return waits[-1][1]

    monkeypatch.setattr(backend_connection, "_spread", noted)
    monkeypatch.setattr(backend_connection, "BACKOFF_S", (0.02, 0.04, 0.08))
    own_key = tmp_path / "own-key"
    own_key.touch(0o600)
    own_key.write_text(f"{B}\n")
    async with serving(make_app(key_file, sessions=1)) as replica:
        endpoint = Endpoint.from_url(f"ws://127.0.0.1:{replica.port}/model", str(own_key))
        events = Events()
        window = BackendConnection(lambda: endpoint, ClientName("test", "0"), events)
        async with replica.client(A) as other:
            await other.notify("document/open", document())  # so that it does not have to make room
            await other.result("status")
            window.start()
            await asyncio.wait_for(has_tried.wait(), 60)
            assert not events.connected.is_set()
        await asyncio.wait_for(events.connected.wait(), 10)
        await window.close()
    assert all("503" in error and "connection limit reached" in error for error in events.errors[:8])
    assert [seconds for seconds, _ in waits[:4]] == [0.02, 0.04, 0.08, 0.08], "longer each time, up to the longest"
    shares = [waited / seconds for seconds, waited in waits]
    assert all(0.5 <= share <= 1.5 for share in shares)
    assert len({round(share, 4) for share in shares[:8]}) > 4, "windows that were refused together do not come together"
