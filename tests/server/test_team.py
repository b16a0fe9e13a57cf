"""Users with keys on one server: apart from each other, within their quotas, and gone once their key is revoked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forelook.errors import QuotaError
from forelook.local.access import AccessPolicy
from forelook.local.usage_ledger import UsageLedger, usage_path_of
from forelook.local.user_keys import KeyRing, Role, issue_key, limit_key, read_keys, revoke_key
from forelook.server.quotas import Quotas
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.harness import WORKSPACE, Client, Running, running

TOKEN = "0123456789abcdef" * 4


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextlib.asynccontextmanager
async def client_of(server: Running, key: str) -> AsyncIterator[Client]:
    async with server.websocket(bearer(key)) as websocket:
        client = Client(websocket)
        await client.hello()
        yield client
        await client.close()


@contextlib.asynccontextmanager
async def team(tmp_path: Path, keys_path: Path, ring: KeyRing | None = None) -> AsyncIterator[Running]:
    policy = AccessPolicy(tokens=(TOKEN,), keys=ring or KeyRing(keys_path))
    async with running(tmp_path, policy=policy, tcp=True) as server:
        yield server


async def test_two_users_with_the_same_workspace_path_share_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = [issue_key(path, "ann"), issue_key(path, "bob"), TOKEN]
    async with team(tmp_path, path) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(server, key)) for key in keys]
        for number, client in enumerate(clients, start=1):
            files = [{"path": "a.py", "text": "x" * number}]
            assert await client.result("pool/stats", {"workspace": WORKSPACE}) == {"pool": {"num_tokens": 0}}
            await client.notify("workspace/files", {"workspace": WORKSPACE, "files": files})
            await client.open("t" * number)
        for number, client in enumerate(clients, start=1):
            assert await client.result("pool/stats", {"workspace": WORKSPACE}) == {"pool": {"num_tokens": number}}
            assert await client.complete() == f"{number}@0", "the same URI is another document"
        error = await clients[0].error("shutdown")
        assert error.data["type"] == "AuthenticationError"
        owners = {key.principal for key, _ in server.engine.files}
        assert owners == {key.principal for key in read_keys(path)} | {""}


async def test_a_revoked_key_ends_its_sockets_within_seconds_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ann, bob = issue_key(path, "ann"), issue_key(path, "bob")
    async with (
        team(tmp_path, path) as server,
        client_of(server, bob) as other,
        server.websocket(bearer(ann)) as one,
        server.websocket(bearer(ann)) as two,
    ):
        client = Client(one)
        await client.hello()
        await client.open("text")
        server.engine.gate.clear()
        _, unanswered = await client.send_request("completion", {"uri": "file:///ws/a.py", "version": 1, "offset": 0})
        await client.result("status")  # messages are processed in order: the engine has the request
        revoke_key(path, "ann")
        await asyncio.wait_for(asyncio.gather(one.wait_closed(), two.wait_closed()), 15.0)
        assert (one.close_code, two.close_code) == (4401, 4401)
        assert one.close_reason == "this key was revoked; ask for another one"
        assert server.engine.handles[0].cancelled.is_set(), "its request no longer takes the device"
        with contextlib.suppress(asyncio.CancelledError):
            await unanswered
        server.engine.gate.set()
        with pytest.raises(InvalidStatus) as caught:
            await server.websocket(bearer(ann)).__aenter__()
        assert caught.value.response.status_code == 401
        assert b"revoked" in (caught.value.response.body or b"")
        await other.open("ab")
        assert await other.complete() == "2@0"


async def test_a_key_that_was_issued_later_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    issue_key(path, "ann")
    async with team(tmp_path, path) as server:
        bob = issue_key(path, "bob")
        deadline_s = time.monotonic() + 15.0
        while True:
            try:
                async with client_of(server, bob):
                    return
            except InvalidStatus:
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.1)


async def test_a_request_over_the_quota_says_when_to_ask_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ann, bob = issue_key(path, "ann", requests_per_minute=2), issue_key(path, "bob")
    ring = KeyRing(path)
    async with team(tmp_path, path, ring) as server, client_of(server, ann) as client, client_of(server, bob) as other:
        for one in (client, other):
            await one.open("text")
        params = {"uri": "file:///ws/a.py", "version": 1, "offset": 0}
        for _ in range(2):
            await client.result("completion", params)
        error = await client.error("completion", params)
        assert error.code == QuotaError.code
        assert error.data["type"] == "QuotaError"
        wait_s = error.data["retry_after_s"]
        assert isinstance(wait_s, int)
        assert 1 <= wait_s <= 30
        assert "may send 2 requests per minute; ask again in" in error.message
        for _ in range(5):
            await other.result("completion", params)
        assert (await client.result("status"))["state"] == "ready", "the connection lives on"
        limit_key(path, "ann", None, None)
        deadline_s = time.monotonic() + 15.0
        while (key := ring.find(ann.encode())) is None or key.requests_per_minute is not None:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.1)
        await client.result("completion", params)
    ledger = UsageLedger(usage_path_of(path))
    used = {key.name: ledger.today_of(key.principal) for key in read_keys(path)}
    assert (used["ann"].requests, used["ann"].refused, used["ann"].answers) == (3, 1, 3)
    assert (used["bob"].requests, used["bob"].refused, used["bob"].answers) == (5, 0, 5)
    assert "text" not in usage_path_of(path).read_text()


async def test_a_metrics_key_reads_the_metrics_and_opens_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ann, reader = issue_key(path, "ann"), issue_key(path, "prometheus", role=Role.METRICS)
    async with team(tmp_path, path) as server, client_of(server, ann) as client:
        await client.open("text")
        await client.complete()
        with pytest.raises(InvalidStatus) as caught:
            await server.websocket(bearer(reader)).__aenter__()
        assert caught.value.response.status_code == 403
        pages = {name: await page(server, key) for name, key in (("all", reader), ("own", ann), ("owner", TOKEN))}
        assert await page(server, reader, "/stats") == "403"
        assert await page(server, reader, "/health") == "403"
    for name in ("all", "own", "owner"):
        assert 'forelook_requests_total{interface="editor"} 1' in pages[name]
    assert 'forelook_rejections_total{reason="access"} 1' in pages["all"]
    assert "access" not in pages["own"], "a user sees the own figures"


async def page(server: Running, key: str, path: str = "/metrics") -> str:
    """The body of a page, or the status of an error."""
    assert isinstance(server.address, tuple)
    host, port = server.address
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    status = head.split()[1]
    return body if status == "200" else status


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def quotas_of(path: Path, clock: Clock) -> tuple[Quotas, UsageLedger, str]:
    ledger = UsageLedger(None, clock)
    return Quotas(KeyRing(path), ledger, clock), ledger, read_keys(path)[0].principal


def test_the_allowance_of_a_minute_comes_back_evenly(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.json", Clock()
    issue_key(path, "ann", requests_per_minute=30)
    quotas, _, ann = quotas_of(path, clock)
    for _ in range(30):
        quotas.admit(ann)
    with pytest.raises(QuotaError) as caught:
        quotas.admit(ann)
    assert caught.value.retry_after_s == pytest.approx(2.0)
    clock.now_s += 2.0
    quotas.admit(ann)
    with pytest.raises(QuotaError):
        quotas.admit(ann)
    clock.now_s += 3_600.0
    for _ in range(30):
        quotas.admit(ann)
    with pytest.raises(QuotaError):
        quotas.admit(ann)
    for _ in range(1_000):
        quotas.admit("0123456789abcdef")  # who has no key has no quota
        quotas.admit("")


def test_tokens_of_a_day_are_those_that_were_computed(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.json", Clock()
    issue_key(path, "ann", tokens_per_day=100)
    quotas, ledger, ann = quotas_of(path, clock)
    quotas.admit(ann)
    quotas.charge(ann, {"tokens": 60, "answers": 1})
    quotas.charge(ann, {"tokens": 99, "answers": 1})
    quotas.admit(ann)
    quotas.charge(ann, {"tokens": 100, "answers": 2})
    with pytest.raises(QuotaError, match="100 tokens of today; ask again after 00:00 UTC") as caught:
        quotas.admit(ann)
    assert caught.value.retry_after_s == 86_400 - clock.now_s % 86_400
    assert ledger.today_of(ann).answers == 2
    clock.now_s += caught.value.retry_after_s
    quotas.admit(ann)
    assert quotas.active(60.0) == [ann]
    clock.now_s += 61.0
    assert quotas.active(60.0) == []


async def test_usage_is_saved_when_the_server_ends(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ann = issue_key(path, "ann")
    async with team(tmp_path, path) as server, client_of(server, ann) as client:
        await client.open("text")
        await client.complete()
        with contextlib.suppress(ConnectionClosed):
            await client.result("status")
    assert UsageLedger(usage_path_of(path)).lately_of(read_keys(path)[0].principal).answers == 1
