"""Random edits of several windows at once: every mirror is what its window has."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from forelook.keys import DocumentKey

from tests.server.harness import Client, Running, running

NUM_CLIENTS, NUM_DOCUMENTS = 4, 6
PIECES = ("x", "\n", "def f(a):\n    return a\n", "🙂", "\r\n", "é" * 20, "")


async def edit_at_random(server: Running, number: int, num_edits: int, ends_s: float) -> dict[str, str]:
    """One window's texts after its edits."""
    draw = random.Random(number)
    async with server.client() as client:
        texts: dict[str, str] = {}
        versions: dict[str, int] = {}
        done = 0
        while done < num_edits or time.monotonic() < ends_s:
            done += 1
            uri = f"file:///w{number}/{draw.randrange(NUM_DOCUMENTS)}.py"
            if uri not in texts:
                texts[uri], versions[uri] = draw.choice(PIECES) * 10, 1
                await client.open(texts[uri], uri=uri)
                continue
            if draw.random() < 0.02:
                del texts[uri]
                await client.notify("document/close", {"uri": uri})
                continue
            changes = []
            for _ in range(draw.randrange(1, 4)):
                start = draw.randrange(len(texts[uri]) + 1)
                end = min(len(texts[uri]), start + draw.randrange(8))
                piece = draw.choice(PIECES)
                texts[uri] = texts[uri][:start] + piece + texts[uri][end:]
                changes.append({"start": start, "end": end, "text": piece})
            versions[uri] += 1
            await client.notify("document/change", {"uri": uri, "version": versions[uri], "changes": changes})
            if done % 50 == 0:
                await _settled(client)
        await _settled(client)
        for uri, text in texts.items():
            assert server.engine.documents.get(DocumentKey(1, uri)).text == text
        return texts


async def _settled(client: Client) -> None:
    await client.result("status")


@pytest.mark.timeout(7200)
async def test_every_mirror_is_what_its_window_has(tmp_path: Path, attack_seconds: float) -> None:
    async with running(tmp_path) as server:
        await server.made.wait()
        ends_s = time.monotonic() + attack_seconds / 10
        windows = [edit_at_random(server, number, 300, ends_s) for number in range(NUM_CLIENTS)]
        texts = await asyncio.gather(*windows)
        assert sum(map(len, texts)) > NUM_CLIENTS
