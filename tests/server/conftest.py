"""What every test of the server watches for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_fails_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An error in a task or callback answers no one: the event loop and the web server only log it."""
    yield
    unseen = [record for record in caplog.get_records("call") if record.name in ("asyncio", "uvicorn.error")]
    assert not [record.getMessage() for record in unseen if record.levelname in ("ERROR", "CRITICAL")]
