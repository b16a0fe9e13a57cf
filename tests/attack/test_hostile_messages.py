"""Thousands of hostile messages to the real processes: no other connection is lost, and its answer is the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from forelook.commands.client import connected
from forelook.local.endpoint import Endpoint
from forelook.protocol import messages
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed

from tests.attack.test_field_fuzz import HOSTILE, METHODS, VALID, mutated
from tests.attack.victim import PATIENCE_S, Window, victim, window
from tests.lsp.conftest import URI, make_environment
from tests.lsp.fake_backend import fake_backend
from tests.lsp.servers import websocket_server
from tests.lsp.test_hostile_ids import IDS, random_value
from tests.lsp.test_hostile_ids import METHODS as EDITOR_METHODS

NUM_MESSAGES, NUM_IN_SHORT = 10_000, 300
INTERNAL_ERROR = -32603


def num_messages(attack_seconds: float) -> int:
    return NUM_MESSAGES if attack_seconds else NUM_IN_SHORT


def backend_message(draw: random.Random, number: int) -> str:
    method = draw.choice([name for name in METHODS if name != "shutdown"])
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    message["params"] = mutated(draw, VALID[method], METHODS[method].params)
    if method in messages.CLIENT_REQUESTS:
        message["id"] = number
    if draw.random() < 0.03:
        message["id"] = draw.choice(HOSTILE)
    text = json.dumps(message)
    return text[: draw.randrange(len(text))] if draw.random() < 0.02 else text


async def count_codes(websocket: ClientConnection, codes: list[int], is_last: asyncio.Event) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for frame in websocket:
            answer = json.loads(frame)
            if answer.get("id") == "last":
                is_last.set()
            codes.append(answer.get("error", answer.get("params") or {}).get("code", 0))


async def unless_ended(is_last: asyncio.Event, reading: asyncio.Future[None]) -> None:
    """Wait for the last answer, as long as the connection is open."""
    waiting = asyncio.ensure_future(is_last.wait())
    done, _ = await asyncio.wait({waiting, reading}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert done, "the last message was not answered"


async def attack_backend(endpoint: Endpoint, number_of: int) -> list[int]:
    """Send them, and return the codes of what was answered."""
    draw, codes, sent = random.Random(14), list[int](), 0
    while sent < number_of:
        assert endpoint.socket_path is not None
        async with unix_connect(endpoint.socket_path, endpoint.url, compression=None) as websocket:
            is_last = asyncio.Event()
            reading = asyncio.create_task(count_codes(websocket, codes, is_last))
            hello = {"jsonrpc": "2.0", "id": "hello", "method": "hello", "params": VALID["hello"]}
            with contextlib.suppress(ConnectionClosed):
                await websocket.send(json.dumps(hello))
                while sent < number_of:
                    sent += 1
                    await websocket.send(backend_message(draw, sent))
                await websocket.send(json.dumps({**hello, "id": "last", "method": "status", "params": {}}))
                await unless_ended(is_last, reading)
                await asyncio.sleep(1.0)  # for what is answered later
            await websocket.close()
            await reading
    return codes


def answer_of(editor: Window) -> list[str]:
    uri = f"{editor.workspace}/probe.py"
    params = messages.CompletionParams(
        uri, 1, len(editor.texts[uri]), messages.TriggerKind.INVOKED, max_new_tokens=4, deadline_ms=60_000
    )
    result = editor.client.call(messages.COMPLETION, params, PATIENCE_S)
    return [suggestion.text for suggestion in result.suggestions]


@pytest.mark.timeout(3600)
def test_the_backend_serves_others_as_before(tmp_path: Path, attack_seconds: float) -> None:
    number_of = num_messages(attack_seconds)
    with victim(tmp_path) as backend, window(backend.endpoint) as editor:
        editor.open("probe.py", "def total(values):\n    result = 0\n    for value in values:\n        result += ")
        before = answer_of(editor)
        codes = asyncio.run(attack_backend(backend.endpoint, number_of))
        assert len(codes) > number_of / 4
        assert INTERNAL_ERROR not in codes
        assert answer_of(editor) == before, "on the same connection"
        with connected(backend.endpoint) as client:
            server = client.call(messages.STATS, messages.Empty(), PATIENCE_S).server
        print(f"{number_of} messages, {len(codes)} answers, {server['errors_by_code']}, {backend.usage()}")
        assert server["num_internal_errors"] == 0
        assert "Traceback" not in backend.log()


@pytest.mark.timeout(3600)
async def test_the_language_server_serves_other_windows_as_before(tmp_path: Path, attack_seconds: float) -> None:
    draw, codes, number_of = random.Random(14), list[int](), num_messages(attack_seconds)
    environment = make_environment(tmp_path)
    async with fake_backend(environment), websocket_server(environment) as server, server.connect() as other:
        await other.client.initialize()
        await other.client.wait_for_status("ready")
        await other.client.open(URI, "a")
        before = await other.client.complete(URI, 0, 1)
        assert before
        sent = 0
        while sent < number_of:
            async with server.connect() as attacker:
                await attacker.client.initialize()
                received, is_last = attacker.client.received_message, asyncio.Event()

                async def counted(message: dict[str, Any], received: Any = received, is_last: Any = is_last) -> None:
                    if message.get("id") == "last":
                        is_last.set()
                    codes.append((message.get("error") or {}).get("code", 0))
                    if "id" not in message or "method" in message:
                        await received(message)

                attacker.client.received_message = counted  # type: ignore[method-assign]
                with contextlib.suppress(ConnectionClosed):
                    while sent < number_of:
                        sent += 1
                        message: dict[str, Any] = {"jsonrpc": "2.0", "method": draw.choice(EDITOR_METHODS)}
                        message["params"] = random_value(draw, 4)
                        if draw.random() < 0.5:
                            message["id"] = draw.choice([sent, f"r{sent}", *IDS])
                        await attacker.websocket.send(json.dumps(message))
                    await attacker.client.send({"jsonrpc": "2.0", "id": "last", "method": "no/such"})
                    await unless_ended(is_last, attacker.reading)
                    await asyncio.sleep(1.0)  # for what is answered later
                await attacker.websocket.close()
        assert await other.client.complete(URI, 0, 1) == before
        print(f"{number_of} messages, {len(codes)} answers, {codes.count(INTERNAL_ERROR)} internal errors")
        assert INTERNAL_ERROR not in codes
        assert len(codes) > number_of / 20
        assert b"Traceback" not in server.errors
