"""Edits, requests and cancels in any order."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from bench.lsp_client import ResponseError, range_of

from tests.lsp.conformance.rows import (
    CANCELLED,
    Connected,
)
from tests.lsp.conftest import URI
from tests.lsp.fake_backend import FakeBackend
from tests.lsp.test_positions import split_by_hand

# --- Whatever order --------------------------------------------------------------------------------------------

NUM_OPERATIONS = 10_000
PIECES = ("a", "(", ")", "\n", "\r\n", "\r", "🙂", "e\u0301", "\f", "\u2028", "    ", "return x", "\t", "\u0085", "")


def utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["stdio", "websocket"])
async def test_ten_thousand_interleaved_edits_requests_and_cancels_leave_both_sides_with_the_same_text(
    transport: str, connected: Connected, backend: FakeBackend
) -> None:
    rng = random.Random(20_261)
    backend.script = lambda text, params: "(x)\n    y"
    text, version = "start\n", 1
    pending: list[tuple[int, asyncio.Future[Any]]] = []
    num_answered = num_cancelled = 0

    def position(lines: list[str]) -> tuple[int, int, int]:
        """A place at a character border: its offset, line and UTF-16 column."""
        number = rng.randrange(len(lines))
        column = rng.randint(0, len(lines[number].rstrip("\r\n")))
        before = sum(map(len, lines[:number])) + column
        return before, number, utf16_length(lines[number][:column])

    async with connected(transport) as editor:
        await editor.initialize(options={"delayMs": 0})
        await editor.wait_for_status("ready")
        await editor.open(URI, text)
        for step in range(NUM_OPERATIONS):
            lines = split_by_hand(text)
            choice = rng.random()
            if choice < 0.6:
                (start, *first), (end, *last) = sorted((position(lines), position(lines)))
                if rng.random() < 0.7 or len(text) < 200:
                    end, last = start, first
                new = "".join(rng.choices(PIECES, k=rng.randint(0, 3)))
                version += 1
                await editor.change(URI, version, {"range": range_of(*first, *last), "text": new})
                text = text[:start] + new + text[end:]
            elif choice < 0.9:
                _, line, column = position(lines)
                pending.append(await editor.start_complete(URI, line, column, trigger=rng.choice((1, 2))))
            elif pending:
                await editor.cancel(rng.choice(pending)[0])
            if step % 50 == 0:
                for _, future in pending:
                    await asyncio.wait([future], timeout=30)
                    error = future.exception()
                    if error is None:
                        num_answered += 1
                        assert isinstance(future.result()["items"], list)
                    else:
                        assert isinstance(error, ResponseError)
                        assert error.code == CANCELLED
                        num_cancelled += 1
                pending.clear()
        await backend.wait_until(lambda: backend.connections[0].versions[URI] == version)
        assert backend.connections[0].texts[URI] == text
    assert num_answered > 50
    assert num_cancelled > 500
