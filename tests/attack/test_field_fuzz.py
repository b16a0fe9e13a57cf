"""Hostile values in every field of every message get a defined answer, and the next client the same one as before."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from typing import Any

import pytest
from forelook.config import ServerConfig
from forelook.errors import InvalidParamsError
from forelook.protocol import jsonrpc, messages
from forelook.protocol.wire import MAX_INTEGER, from_json
from forelook.server.backend import Backend, ExitHooks
from forelook.server.connection import Connection

from tests.server.fake_engine import FakeEngine

METHODS = {**messages.CLIENT_REQUESTS, **messages.CLIENT_NOTIFICATIONS}
DOCUMENT = {"workspace": "file:///w", "uri": "file:///w/a.py", "language_id": "python", "version": 1, "text": "x = 1\n"}
VALID: dict[str, dict[str, Any]] = {
    "hello": {"protocol_version": messages.PROTOCOL_VERSION, "client_name": "fuzz"},
    "completion": {"uri": DOCUMENT["uri"], "version": 1, "offset": 1},
    "status": {},
    "stats": {},
    "pool/stats": {"workspace": "file:///w"},
    "pool/clear": {"workspace": "file:///w"},
    "document/open": DOCUMENT,
    "document/change": {"uri": DOCUMENT["uri"], "version": 2, "changes": [{"start": 0, "end": 0, "text": "a"}]},
    "document/cursor": {"uri": DOCUMENT["uri"], "version": 2, "offset": 1},
    "document/close": {"uri": DOCUMENT["uri"]},
    "workspace/files": {"workspace": "file:///w", "files": [{"path": "b.py", "text": "y"}]},
    "workspace/forget": {"workspace": "file:///w", "paths": ["b.py"]},
    "workspace/keep": {"workspace": "file:///w", "paths": ["b.py"], "part": 0, "is_last": True},
    "completion/event": {"workspace": "file:///w", "language_id": "python", "kind": "accepted", "text": "a"},
    "$/cancel": {"id": 1},
}
HUGE = int("9" * 4200)
HOSTILE: list[Any] = [
    None, True, -1, 0, 1, MAX_INTEGER, MAX_INTEGER + 1, -MAX_INTEGER - 1, HUGE, -HUGE, 1e308, 0.5, "", "a", "\ud800",
    "\udfff/\ud800", "file://[", "file://[::1", "file:///%00", "file:///a\x00b", "//", "a\nforged line", "\x1b[31m",
    "x" * 300, "x" * 10_000, [], [[]], {}, {"start": HUGE, "end": 0, "text": ""},
    [{"start": 0, "end": HUGE, "text": ""}],
    [{"path": "\ud800", "text": "\ud800"}], [{"path": "file://[", "text": ""}], ["\ud800", ""], {"a": {"b": []}},
]  # fmt: skip


def mutated(chance: random.Random, params: dict[str, Any], cls: type[Any]) -> Any:
    """Valid params with some fields replaced, and sometimes something else altogether."""
    if chance.random() < 0.05:
        return chance.choice(HOSTILE)
    result = dict(params)
    names = [field.name for field in dataclasses.fields(cls)] or ["extra"]
    for name in chance.sample(names, min(len(names), chance.choice([1, 1, 2]))):
        result[name] = chance.choice(HOSTILE)
    if chance.random() < 0.05:
        result[chance.choice(["extra", "\ud800", "x" * 5000])] = chance.choice(HOSTILE)
    return result


class Peer:
    """A connection without a socket, and what it was answered."""

    def __init__(self, backend: Backend) -> None:
        self.answers: list[dict[str, Any]] = []
        self.connection = Connection(backend, self, "")  # type: ignore[arg-type]  # an outbox, as far as it is used

    def post(self, text: str, **_: object) -> None:
        self.answers.append(json.loads(text))

    async def send(self, method: str, params: Any, request_id: Any = None) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        if method in messages.CLIENT_REQUESTS or request_id is not None:
            message["id"] = request_id
        await self.connection.receive(json.dumps(message))

    async def answer_to(self, request_id: Any) -> dict[str, Any]:
        for _ in range(2000):
            for answer in self.answers:
                if answer.get("id") == request_id:
                    return answer
            await asyncio.sleep(0.005)
        raise AssertionError(f"no answer to {request_id}")


async def suggestion(backend: Backend) -> Any:
    peer = Peer(backend)
    await peer.send("hello", VALID["hello"], 1)
    await peer.send("document/open", {**DOCUMENT, "uri": "file:///w/probe.py"})
    await peer.send("completion", {"uri": "file:///w/probe.py", "version": 1, "offset": 3}, 2)
    answer = await peer.answer_to(2)
    await peer.send("document/close", {"uri": "file:///w/probe.py"})
    return answer["result"]["suggestions"]


def test_thousands_of_hostile_messages_get_defined_answers() -> None:
    async def attack() -> None:
        engines: list[FakeEngine] = []

        def make(on_status: Any) -> FakeEngine:
            engines.append(FakeEngine(on_status))
            return engines[0]

        hooks = ExitHooks(idle=lambda: None, shutdown=lambda: None, failed=lambda _status: None)
        backend = Backend(make, ServerConfig(), hooks)
        backend.start()
        await backend.engine()
        before = await suggestion(backend)
        chance = random.Random(14)
        peer = Peer(backend)
        await peer.send("hello", VALID["hello"], "h")
        names = [name for name in METHODS if name != "shutdown"]
        for number in range(4000):
            method = chance.choice(names)
            params = mutated(chance, VALID[method], METHODS[method].params)
            request_id: Any = number if method in messages.CLIENT_REQUESTS else None
            if chance.random() < 0.03:
                request_id = chance.choice(HOSTILE)
            await peer.send(method, params, request_id)
            if number % 50 == 0:
                await asyncio.sleep(0)
                await peer.send("document/open", DOCUMENT)
        await asyncio.sleep(0.2)
        codes = [answer.get("error", {}).get("code") for answer in peer.answers]
        codes += [answer.get("params", {}).get("code") for answer in peer.answers if "method" in answer]
        assert jsonrpc.INTERNAL_ERROR not in codes
        assert await suggestion(backend) == before
        await backend.stop()

    asyncio.run(attack())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_number_and_text_of_a_message_has_a_bound(method: str) -> None:
    cls = METHODS[method].params
    for field in dataclasses.fields(cls):
        for hostile in (HUGE, -HUGE, 1e308, float(MAX_INTEGER) * 4):
            with pytest.raises(InvalidParamsError) as caught:
                from_json(cls, {**VALID.get(method, {}), field.name: hostile})
            assert caught.value.field is not None
            assert caught.value.field.startswith(field.name)
